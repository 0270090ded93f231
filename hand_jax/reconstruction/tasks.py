"""What is asked for by flags, photo by photo. Mistakes in it are found before JAX is imported."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.data.photos import check_photo_file, demo_photo_boxes


class PhotoOptions(NamedTuple):
  """Holds what the flags of the same names say; paths have their `~` expanded already."""

  photos: Sequence[str]
  output: str | None
  workdir: str | None = None
  demo_photos: bool = False
  bbox: str | None = None
  hand: str | None = None
  hand_mask: str | None = None
  mano_dir: str | None = None


class PhotoTask(NamedTuple):
  """Names one photo to reconstruct. Where box or side is None, the detector finds it."""

  path: pathlib.Path
  box_xywh: Float[np.ndarray, '4'] | None = None
  side: str | None = None
  hand_mask: str | None = None
  """The file that shows where the hand is, or None where that is not known."""


def plan_tasks(options: PhotoOptions) -> list[PhotoTask]:
  """Lists the photos with the boxes, sides and masks that the flags give, without opening any.

  Raises:
    ValueError: there is no photo or no place for the results, a text is no box, or several photos
      have one box or mask.
  """
  if not options.output:
    raise ValueError('Say where the results go: --output=DIR.')
  if '' in options.photos:
    raise ValueError('A photo has an empty name: is a variable of the shell unset?')
  paths = [pathlib.Path(photo) for photo in options.photos]
  paths += list(demo_photo_boxes()) if options.demo_photos else []
  if not paths:
    raise ValueError('No photo is named: name one or more, or take --demo_photos.')
  for flag in ('bbox', 'hand_mask'):
    if getattr(options, flag) is not None and len(paths) > 1:
      raise ValueError(
        f'One --{flag} cannot serve {len(paths)} photos: give one photo at a time, or leave it out.'
      )
  box = None if options.bbox is None else parse_box(options.bbox)
  return [PhotoTask(path, box, options.hand, options.hand_mask) for path in paths]


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
  """Says in a line each which photos are not there."""
  lines = []
  for task in tasks:
    try:
      check_photo_file(task.path)
    except (OSError, ValueError) as error:
      lines.append(str(error))
  return lines
