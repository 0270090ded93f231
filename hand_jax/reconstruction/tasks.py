"""Turns the flags into one task for each photo, and finds mistakes before JAX is imported."""

import glob
import os
import pathlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.data.photos import PHOTO_SUFFIXES, check_photo_file, demo_photo_boxes
from hand_jax.reconstruction.axes import Axes
from hand_jax.reconstruction.records import OutputRecord


class PhotoOptions(NamedTuple):
  """Holds the values of the flags of the same names. In paths `~` is expanded already."""

  photos: Sequence[str]
  """Photos, folders of photos, and patterns such as `'*.jpg'`."""
  output: str | None
  workdir: str | None = None
  demo_photos: bool = False
  bbox: Sequence[str] = ()
  hand: Sequence[str] = ()
  hand_mask: str | None = None
  mano_dir: str | None = None
  focal: float | None = None
  """Pixels."""
  axes: Axes = 'y_up'
  overwrite: bool = False
  refine: Literal['on', 'off'] = 'on'


class PhotoTask(NamedTuple):
  """Names one photo to reconstruct. Without boxes or sides, the detector finds them."""

  path: pathlib.Path
  boxes_xywh: tuple[Float[np.ndarray, '4'], ...] = ()
  sides: tuple[str, ...] = ()
  """One for each box, or one for all hands."""
  hand_mask: str | None = None
  """The file of the hand's mask, or None if there is none."""


def plan_tasks(options: PhotoOptions, results: frozenset[str] = frozenset()) -> list[PhotoTask]:
  """Lists the photos with the boxes, sides and masks that the flags give, without opening any.

  Args:
    options: the values of the flags.
    results: paths of files that this program wrote. They do not count as photos of a folder.

  Raises:
    FileNotFoundError: a folder or pattern holds no photo.
    ValueError: no photo or no output folder is named, a text is not a box, several photos share one
      box or mask, or the numbers of boxes and sides do not fit.
  """
  if not options.output:
    raise ValueError('Name a folder for the results: --output=DIR.')
  if '' in options.photos:
    raise ValueError('A photo has an empty name. Is a variable of the shell unset?')
  if options.hand_mask == '':
    raise ValueError('--hand_mask= names no image. Name one, or leave the flag out.')
  paths = [path for name in options.photos for path in _photos_of(name, results)]
  paths += list(demo_photo_boxes()) if options.demo_photos else []
  if not paths:
    raise ValueError('No photo is named. Name one or more, or give --demo_photos.')
  for flag in ('bbox', 'hand_mask'):
    if getattr(options, flag) and len(paths) > 1:
      raise ValueError(
        f'--{flag} cannot serve {len(paths)} photos: give one photo at a time, or leave it out.'
      )
  boxes, sides = len(options.bbox), len(options.hand)
  if sides > 1 and sides != boxes:
    raise ValueError(
      f'--hand is given {sides} times and --bbox {boxes} times: give both in pairs, or one --hand '
      'for all hands.'
    )
  parsed = tuple(parse_box(text) for text in options.bbox)
  if len({tuple(box) for box in parsed}) < len(parsed):
    raise ValueError('--bbox is given twice with the same box: name each hand once.')
  return [PhotoTask(path, parsed, tuple(options.hand), options.hand_mask) for path in paths]


def parse_box(text: str) -> Float[np.ndarray, '4']:
  """Reads `x,y,width,height` as four numbers.

  Raises:
    ValueError: anything else.
  """
  try:
    values = [float(part) for part in text.split(',')]
  except ValueError:
    values = []
  if len(values) != 4:
    raise ValueError(f'--bbox={text}: expected four numbers x,y,width,height in pixels.')
  return np.array(values, np.float64)


def missing_photos(tasks: Sequence[PhotoTask]) -> list[str]:
  """Returns one line for each photo that does not exist."""
  lines = []
  for task in tasks:
    try:
      check_photo_file(task.path)
    except (OSError, ValueError) as error:
      lines.append(str(error))
  return lines


def _photos_of(name: str, results: frozenset[str]) -> list[pathlib.Path]:
  """Lists the photos that one argument names, sorted by name for a folder or pattern.

  A folder's photos are its own files with a photo's suffix that are not hidden. Subfolders do not
  count.
  """
  path = pathlib.Path(name)
  if os.path.isdir(path):  # no error for a name that is too long
    found = [file for file in path.iterdir() if file.is_file() and _looks_like_a_photo(file)]
    results |= _results_in(path)
    where = f'The folder {name}'
  elif not os.path.lexists(path) and glob.has_magic(name):
    found = [pathlib.Path(match) for match in glob.glob(name, recursive=True)]
    results = results.union(*[_results_in(parent) for parent in {file.parent for file in found}])
    found = [file for file in found if file.is_file() and _looks_like_a_photo(file)]
    where = f'The pattern {name}'
  else:
    return [path]
  found = [file for file in found if os.path.realpath(file) not in results]
  if not found:
    raise FileNotFoundError(
      f'{where} holds no photo: expected files with the suffix {", ".join(PHOTO_SUFFIXES)}.'
    )
  return sorted(found)


def _results_in(folder: pathlib.Path) -> frozenset[str]:
  """Resolves the paths of the results that a folder's summary lists, if it has one."""
  try:
    record = OutputRecord(folder, overwrite=True)
  except OSError:
    return frozenset()
  return frozenset(os.path.realpath(folder / name) for name in record.files())


def _looks_like_a_photo(path: pathlib.Path) -> bool:
  return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith('.')
