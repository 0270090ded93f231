"""Names the files of a photo's hands, and checks that those names are free.

All names are checked before the first photo. No result replaces an input, a file of the user, or a
result of another photo.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from hand_jax.reconstruction.files import PHOTO_SUFFIXES
from hand_jax.reconstruction.records import SUMMARY_NAME, OutputRecord

_SIDES = ('left', 'right')


def hand_names(stem: str, sides: Sequence[str]) -> list[str]:
  """Names the files of a photo's hands.

  A single hand has the photo's name. Several hands have a number and a side as well.
  """
  if len(sides) == 1:
    return [stem]
  return [f'{stem}_{number}_{side}' for number, side in enumerate(sides, start=1)]


def possible_names(stem: str, suffixes: Sequence[str], max_hands: int) -> Iterator[str]:
  """Yields every name that a file of a photo may get, whatever hands are found in it.

  Args:
    stem: the photo's name without its suffix.
    suffixes: the suffixes of a hand's files, see `output_suffixes`.
    max_hands: the largest number of hands that may be found.
  """
  for suffix in (*suffixes, *PHOTO_SUFFIXES):
    yield f'{stem}{suffix}'
  for number in range(1, max_hands + 1):
    for side in _SIDES:
      for suffix in suffixes:
        yield f'{stem}_{number}_{side}{suffix}'


def check_names(
  photos: Sequence[pathlib.Path],
  record: OutputRecord,
  suffixes: Sequence[str],
  max_hands: int,
  overwrite: bool,
  other_inputs: Mapping[str, str],
) -> None:
  """Checks the names of all files that may be written.

  Args:
    photos: the photos to reconstruct.
    record: the record of the output folder.
    suffixes: the suffixes of a hand's files, see `output_suffixes`.
    max_hands: the largest number of hands of a photo.
    overwrite: whether files that this program did not write may be replaced. Inputs never are.
    other_inputs: the files and folders that are read besides the photos, and the flag of each.

  Raises:
    ValueError: two photos would share a file, or a photo is named twice.
    FileExistsError: a result would replace a photo, a mask, a file of a run's or a hand model's
      folder, or another file that is not a result.
  """
  inputs = {os.path.realpath(path): path for path in photos}
  others = {os.path.realpath(path): flag for path, flag in other_inputs.items()}
  own = record.files()
  _check_photos_are_no_results(photos, record)
  writers: dict[str, pathlib.Path] = {}
  for photo in photos:
    for name in possible_names(photo.stem, suffixes, max_hands):
      other = writers.setdefault(name, photo)
      if other is not photo:
        raise ValueError(_clash(other, photo, name))
      path = record.folder / name
      if os.path.realpath(path) in inputs:
        raise FileExistsError(
          f'A result of {photo} would replace the photo {path}. Name another --output.'
        )
      flag = _input_flag(path, others, name in own)
      if flag is not None:
        raise FileExistsError(
          f'A result of {photo} would replace {path}, which {flag} reads. Name another --output.'
        )
      if os.path.isdir(path) and not path.is_symlink():  # no error for a name that is too long
        raise IsADirectoryError(
          f'{path} is a folder, in the way of a result of {photo}. Name another --output.'
        )
      if not overwrite and name not in own and os.path.lexists(path):
        raise FileExistsError(
          f'{path} is in the way of a result of {photo}, and no {SUMMARY_NAME} lists it. It stays '
          'as it is: name another --output, or replace it by --overwrite.'
        )


def _input_flag(path: pathlib.Path, inputs: Mapping[str, str], is_own: bool) -> str | None:
  """Tells which flag names a file, or the folder in which it lies, among the inputs.

  Args:
    path: the file, which need not exist.
    inputs: the flags by the real paths of files and folders.
    is_own: whether this program wrote the file, which is then no file of such a folder.
  """
  if not inputs or not os.path.lexists(path):
    return None
  real = pathlib.Path(os.path.realpath(path))
  places = [real] if is_own else [real, *real.parents]
  return next((inputs[str(place)] for place in places if str(place) in inputs), None)


def _check_photos_are_no_results(photos: Sequence[pathlib.Path], record: OutputRecord) -> None:
  results = result_paths(record)
  for photo in photos:
    if os.path.realpath(photo) in results:
      raise ValueError(
        f'{photo} is a result of this program, listed in {record.folder / SUMMARY_NAME}: name the '
        'photo itself.'
      )


def check_reserved(photo: pathlib.Path, suffixes: Sequence[str]) -> None:
  """Checks that no result of a photo would have the name of the summary.

  Raises:
    ValueError: a result would.
  """
  if any(f'{photo.stem}{suffix}' == SUMMARY_NAME for suffix in suffixes):
    raise ValueError(
      f'{photo} would be written as {SUMMARY_NAME}, which lists all photos: rename the photo.'
    )


def result_paths(record: OutputRecord) -> frozenset[str]:
  """Resolves the paths of the files that a folder's record lists."""
  return frozenset(os.path.realpath(record.folder / name) for name in record.files())


def _clash(other: pathlib.Path, photo: pathlib.Path, name: str) -> str:
  if os.path.realpath(other) == os.path.realpath(photo):
    return f'{other} is named twice: name each photo once.'
  return (
    f'{other} and {photo} would both be written as {name}: rename one, or use two --output folders.'
  )
