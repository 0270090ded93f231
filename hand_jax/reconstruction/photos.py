"""Reconstructs the photos that flags name and writes the files.

A mistake in the flags ends everything before the first photo. A photo that cannot be done is told,
and the others are done.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from hand_jax.data.photos import check_box, demo_photo_boxes, read_photo
from hand_jax.models.hand_network import naming_misfits
from hand_jax.reconstruction.files import (
  check_output_folder,
  output_suffixes,
  write_reconstruction,
)
from hand_jax.reconstruction.reconstruct import (
  Reconstruction,
  Reconstructor,
  check_mask,
  is_free_hand,
  load_reconstructor,
  reconstruct_hand,
)


class PhotoOptions(NamedTuple):
  """Holds what the flags of the same names say; paths have their `~` expanded already."""

  photos: Sequence[str]
  output: str | None
  workdir: str | None
  demo_photos: bool = False
  bbox: str | None = None
  hand: str | None = None
  hand_mask: str | None = None
  mano_dir: str | None = None


class PhotoTask(NamedTuple):
  """Names one photo to reconstruct; `box_xywh` None means the largest centred square."""

  path: pathlib.Path
  box_xywh: Float[np.ndarray, '4'] | None
  side: str
  hand_mask: str | None = None
  """The file that shows where the hand is, or None where that is not known."""


class PhotoInput(NamedTuple):
  """Holds what was read from a task's files."""

  image: UInt8[np.ndarray, 'height width 3']
  hand_mask: Bool[np.ndarray, 'height width'] | None


class PhotoOutcome(NamedTuple):
  """Says in one line what became of one photo."""

  line: str
  failed: bool


def reconstruct_photos(options: PhotoOptions) -> Iterator[PhotoOutcome]:
  """Reconstructs photo by photo, each when its outcome is asked for.

  Args:
    options: the flags.

  Returns:
    An outcome for each photo. A photo that cannot be read, estimated or written has failed; the
    photos after it are still done.

  Raises:
    ValueError, OSError: one line names what is wrong with the options; no photo is done then.
  """
  if not options.output:
    raise ValueError('Say where the results go: --output=DIR.')
  tasks = plan_tasks(options)
  if not options.workdir:
    raise ValueError(
      '--workdir is missing: name the folder of a trained run. make demo, in the sources of '
      'hand_jax, trains one in runs/demo.'
    )
  check_output_folder(options.output)
  if options.bbox is not None or options.hand_mask is not None:
    _check_against_photo(tasks[0])
  reconstructor = load_reconstructor(options.workdir, options.mano_dir)
  check_run(tasks, reconstructor)
  return (_try_photo(task, reconstructor, options.output) for task in tasks)


def plan_tasks(options: PhotoOptions) -> list[PhotoTask]:
  """Lists the photos with their boxes, sides and masks, without opening any.

  A photo shipped with the package brings its own box and side where the flags give none.

  Raises:
    ValueError: there is no photo, a text is no box, or several photos have one box or mask.
  """
  bundled = demo_photo_boxes()
  paths = [pathlib.Path(photo) for photo in options.photos]
  paths += list(bundled) if options.demo_photos else []
  if not paths:
    raise ValueError('No photo is named: name one or more, or take --demo_photos.')
  for flag in ('bbox', 'hand_mask'):
    if getattr(options, flag) is not None and len(paths) > 1:
      raise ValueError(
        f'One --{flag} cannot serve {len(paths)} photos: give one photo at a time, or leave it out.'
      )
  given_box = None if options.bbox is None else parse_box(options.bbox)
  tasks = []
  for path in paths:
    box, own_side = bundled.get(path.resolve(), (None, 'right'))
    box = box if given_box is None else given_box
    tasks.append(PhotoTask(path, box, options.hand or own_side, options.hand_mask))
  return tasks


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


def read_input(task: PhotoTask) -> PhotoInput:
  """Reads a task's photo and mask, and checks that box and mask fit the photo.

  Raises:
    FileNotFoundError, ValueError: naming the file or the flag.
  """
  image = read_photo(task.path)
  if task.box_xywh is not None:
    check_box(task.box_xywh, image.shape[1], image.shape[0], str(task.path))
  return PhotoInput(image, None if task.hand_mask is None else _read_mask(task, image))


def check_run(tasks: list[PhotoTask], reconstructor: Reconstructor) -> None:
  """Raises a ValueError when the run would write two photos to one file, or can use no mask."""
  has_colors = reconstructor.config.model.texture.enabled
  if not has_colors and any(task.hand_mask is not None for task in tasks):
    raise ValueError(
      f'--hand_mask: {reconstructor.run} has no texture branch, and nothing else looks at a mask. '
      'Leave it out, or name a textured run.'
    )
  writers = {}
  for path, *_ in tasks:
    for suffix in output_suffixes(has_colors, is_free_hand(reconstructor.model)):
      other = writers.setdefault(f'{path.stem}{suffix}', path)
      if other is not path:
        raise ValueError(
          f'{other} and {path} would both be written as {path.stem}{suffix}: rename one, or use '
          'two --output folders.'
        )


def _check_against_photo(task: PhotoTask) -> None:
  """Raises an error when --bbox or --hand_mask does not fit the photo that it is given for."""
  try:
    read_photo(task.path)
  except (ValueError, OSError):
    return  # the photo's own fault, told in its turn
  read_input(task)


def _read_mask(task: PhotoTask, image: np.ndarray) -> Bool[np.ndarray, 'height width']:
  """Reads the mask of a photo's hand from an image of its size: white pixels show the hand."""
  flag = f'--hand_mask={task.hand_mask}'
  mask = (read_photo(task.hand_mask) > 127).all(axis=-1)
  check_mask(mask, image.shape[1], image.shape[0], str(task.path), flag)
  if mask.all() or not mask.any():
    raise ValueError(
      f'{flag} is {"all" if mask.any() else "nowhere"} white: expected white where the photo shows '
      'the hand, black elsewhere. Leave the flag out where that is not known.'
    )
  return mask


def _try_photo(task: PhotoTask, reconstructor: Reconstructor, output: str) -> PhotoOutcome:
  path = task.path
  try:
    image, mask = read_input(task)
    with naming_misfits(reconstructor.run):
      reconstruction = reconstruct_hand(
        reconstructor, image, task.box_xywh, task.side, str(path), mask
      )
    written = write_reconstruction(reconstruction, image, path.stem, output, photo=path.name)
  except (ValueError, OSError) as error:
    reason = ' '.join(str(error).split())
    return PhotoOutcome(reason if str(path) in reason else f'{path}: {reason}', failed=True)
  return PhotoOutcome(f'{_describe(path, reconstruction)} -> {written[0]}', failed=False)


def _describe(path: pathlib.Path, reconstruction: Reconstruction) -> str:
  sigma = reconstruction.vertex_sigma_mm
  hand = 'left' if reconstruction.is_left else 'right'
  return (
    f'{path.name}: {hand} hand, sigma {sigma.mean():.1f} mm on average '
    f'({sigma.min():.1f} to {sigma.max():.1f})'
  )
