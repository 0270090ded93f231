"""Reconstructs the photos that flags name and writes the files.

A mistake in the flags ends everything before the first photo. A photo that cannot be done is told,
and the others are done.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from hand_jax.data.photos import check_box, read_mask, read_photo
from hand_jax.mano.assets import is_free_hand
from hand_jax.reconstruction.files import (
  check_output_folder,
  output_suffixes,
  write_reconstruction,
)
from hand_jax.reconstruction.photo_hands import (
  HandProgram,
  PhotoRequest,
  load_program,
  reconstruct_hands,
)
from hand_jax.reconstruction.reconstruct import Reconstruction, check_mask
from hand_jax.reconstruction.tasks import PhotoOptions, PhotoTask, plan_tasks


class PhotoInput(NamedTuple):
  """Holds what was read from a task's files."""

  image: UInt8[np.ndarray, 'height width 3']
  hand_mask: Bool[np.ndarray, 'height width'] | None


class PhotoOutcome(NamedTuple):
  """Says in one line what became of one hand, or of a photo without hands."""

  line: str
  failed: bool
  is_written: bool = False
  """Whether files tell of a hand."""


def reconstruct_photos(options: PhotoOptions) -> Iterator[PhotoOutcome]:
  """Reconstructs photo by photo, each when its outcome is asked for.

  Args:
    options: the flags.

  Returns:
    An outcome for each hand, and one for each photo without a hand, which is no failure. A photo
    that cannot be read, estimated or written has failed; the photos after it are still done.

  Raises:
    ValueError, OSError: one line names what is wrong with the options; no photo is done then.
  """
  tasks = plan_tasks(options)
  check_output_folder(options.output)
  if options.bbox is not None or options.hand_mask is not None:
    _check_against_photo(tasks[0])
  program = load_program(options.workdir, options.mano_dir)
  check_program(tasks, program)
  writers: dict[str, pathlib.Path] = {}
  return (
    outcome for task in tasks for outcome in _try_photo(task, program, options.output, writers)
  )


def read_input(task: PhotoTask) -> PhotoInput:
  """Reads a task's photo and mask, and checks that box and mask fit the photo.

  Raises:
    FileNotFoundError, ValueError: naming the file or the flag.
  """
  image = read_photo(task.path)
  if task.box_xywh is not None:
    try:
      check_box(task.box_xywh, image.shape[1], image.shape[0], str(task.path))
    except ValueError as error:
      raise ValueError(f'--bbox: {error}') from None
  return PhotoInput(image, None if task.hand_mask is None else _read_mask(task, image))


def check_program(tasks: list[PhotoTask], program: HandProgram) -> None:
  """Raises a ValueError when two photos would be written to one file, or nothing can use a mask."""
  reconstructor = program.reconstructor
  has_colors = reconstructor is not None and reconstructor.config.model.texture.enabled
  if not has_colors and any(task.hand_mask is not None for task in tasks):
    who = 'without --workdir there is' if reconstructor is None else f'{reconstructor.run} has'
    raise ValueError(
      f'--hand_mask: {who} no texture branch, and nothing else looks at a mask. Leave it out, or '
      'name a textured run.'
    )
  writers = {}
  for task in tasks:
    for suffix in output_suffixes(has_colors, is_free_hand(program.model)):
      name = f'{task.path.stem}{suffix}'
      other = writers.setdefault(name, task.path)
      if other is not task.path:
        if other == task.path:
          raise ValueError(f'{other} is named twice: name each photo once.')
        raise ValueError(
          f'{other} and {task.path} would both be written as {name}: rename one, or use two '
          '--output folders.'
        )


def _check_against_photo(task: PhotoTask) -> None:
  """Raises an error when --bbox or --hand_mask does not fit the photo that it is given for."""
  try:
    read_photo(task.path)
  except (ValueError, OSError):
    return  # the photo's own fault, told in its turn
  read_input(task)


def _read_mask(task: PhotoTask, image: np.ndarray) -> Bool[np.ndarray, 'height width']:
  """Reads the mask of a photo's hand from an image of its size, see `read_mask`."""
  flag = f'--hand_mask={task.hand_mask}'
  mask = read_mask(task.hand_mask)
  check_mask(mask, image.shape[1], image.shape[0], str(task.path), flag)
  if mask.all() or not mask.any():
    raise ValueError(
      f'{flag} marks {"every pixel" if mask.any() else "no pixel"}: expected white where the photo '
      'shows the hand and black elsewhere, or the hand cut out before transparency. Leave the flag '
      'out where that is not known.'
    )
  return mask


def _try_photo(
  task: PhotoTask, program: HandProgram, output: str, writers: dict[str, pathlib.Path]
) -> Iterator[PhotoOutcome]:
  """Does one photo. `writers` holds the names of files that are taken, and by which photo."""
  path = task.path
  try:
    image, mask = read_input(task)
    request = PhotoRequest(image, str(path), task.box_xywh, task.side, mask)
    hands = reconstruct_hands(program, request)
    if not hands:
      yield PhotoOutcome(f'{path.name}: no hand found', failed=False)
    names = _file_names(path.stem, hands)
    for name in names:
      # Hands of a photo are numbered, which no one knew before they were found.
      if (other := writers.setdefault(name, path)) is not path:
        raise ValueError(
          f'{other} has a hand that was written as {name} already: rename {path}, or use two '
          '--output folders.'
        )
    for name, hand in zip(names, hands, strict=True):
      written = write_reconstruction(hand, image, name, output, photo=path.name)
      yield PhotoOutcome(f'{_describe(path, hand)} -> {written[0]}', False, is_written=True)
  except (ValueError, OSError) as error:
    reason = ' '.join(str(error).split())
    yield PhotoOutcome(reason if str(path) in reason else f'{path}: {reason}', failed=True)


def _file_names(stem: str, hands: Sequence[Reconstruction]) -> list[str]:
  """The photo's own name for a single hand; several are numbered and tell their side."""
  if len(hands) == 1:
    return [stem]
  return [f'{stem}_{number}_{_side(hand)}' for number, hand in enumerate(hands, start=1)]


def _side(hand: Reconstruction) -> str:
  return 'left' if hand.is_left else 'right'


def _describe(path: pathlib.Path, hand: Reconstruction) -> str:
  sigma = hand.vertex_sigma_mm
  certainty = ''
  if hand.detection is not None and hand.detection.side_score < 1:
    certainty = f' ({100 * hand.detection.side_score:.0f} % sure)'
  return (
    f'{path.name}: {_side(hand)} hand{certainty}, sigma {sigma.mean():.1f} mm on average '
    f'({sigma.min():.1f} to {sigma.max():.1f})'
  )
