"""Photos to meshes: python -m experiments.reconstruct --image=FILE --output=DIR --workdir=DIR."""

import pathlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from absl import app, flags, logging

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

FLAGS = flags.FLAGS


class Task(NamedTuple):
  """One photo to reconstruct; `box_xywh` None: the largest centred square.

  `hand_mask` tells where the photo shows the hand, or is None where that is not known.
  """

  path: pathlib.Path
  image: np.ndarray
  box_xywh: np.ndarray | None
  side: str
  hand_mask: np.ndarray | None = None


def parse_box(text: str) -> np.ndarray:
  """`x,y,width,height` as four numbers.

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


def read_mask(path: str, image: np.ndarray, photo: pathlib.Path) -> np.ndarray:
  """The mask of a photo's hand from an image of its size: whether each pixel is white.

  Raises:
    FileNotFoundError, ValueError: no such image, one of another size, or of one value alone.
  """
  mask = (read_photo(path) > 127).all(axis=-1)
  check_mask(mask, image.shape[1], image.shape[0], str(photo), f'--hand_mask={path}')
  if mask.all() or not mask.any():
    raise ValueError(
      f'--hand_mask={path} is {"all" if mask.any() else "nowhere"} white: expected white where '
      'the photo shows the hand, black elsewhere. Leave the flag out where that is not known.'
    )
  return mask


def plan(
  images: list[str],
  demo_photos: bool,
  bbox: str | None,
  side: str | None,
  hand_mask: str | None = None,
) -> list[Task]:
  """The photos, read, with their boxes; the mistakes in the flags that need no run to be seen.

  A photo shipped with the project brings its own box and side where the flags give none.

  Raises:
    FileNotFoundError, ValueError: one line that names the photo or flag.
  """
  bundled = demo_photo_boxes()
  paths = [pathlib.Path(image) for image in images] + (list(bundled) if demo_photos else [])
  if not paths:
    raise ValueError('Name a photo: --image=FILE (may be repeated), or --demo_photos.')
  for flag, value in (('bbox', bbox), ('hand_mask', hand_mask)):
    if value is not None and len(paths) > 1:
      raise ValueError(
        f'One --{flag} cannot serve {len(paths)} photos: give one photo at a time, or leave it out.'
      )
  given_box = None if bbox is None else parse_box(bbox)
  tasks = []
  for path in paths:
    image = read_photo(path)
    box, own_side = bundled.get(path.resolve(), (None, 'right'))
    box = box if given_box is None else given_box
    if box is not None:
      check_box(box, image.shape[1], image.shape[0], str(path))
    mask = None if hand_mask is None else read_mask(hand_mask, image, path)
    tasks.append(Task(path, image, box, side or own_side, mask))
  return tasks


def check_run(tasks: list[Task], reconstructor: Reconstructor) -> None:
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


def report(path: pathlib.Path, reconstruction: Reconstruction) -> str:
  """One line about a finished photo."""
  sigma = reconstruction.vertex_sigma_mm
  hand = 'left' if reconstruction.is_left else 'right'
  return (
    f'{path.name}: {hand} hand, sigma {sigma.mean():.1f} mm on average '
    f'({sigma.min():.1f} to {sigma.max():.1f})'
  )


def reconstruct_photos(
  images: list[str],
  output: str | None,
  workdir: str | None,
  demo_photos: bool = False,
  bbox: str | None = None,
  hand: str | None = None,
  mano_dir: str | None = None,
  hand_mask: str | None = None,
) -> Iterator[str]:
  """Does what the flags of the same names say; yields a line about each finished photo.

  Raises:
    ValueError, OSError: one line that names what is wrong, before any photo where it can be known.
  """
  if not output:
    raise ValueError('Say where the results go: --output=DIR.')
  if not workdir:
    raise ValueError(
      '--workdir is missing: the folder of a trained run. make demo trains one in runs/demo.'
    )
  check_output_folder(output)
  tasks = plan(images, demo_photos, bbox, hand, hand_mask)
  reconstructor = load_reconstructor(workdir, mano_dir)
  check_run(tasks, reconstructor)
  for path, image, box, side, mask in tasks:
    with naming_misfits(workdir):
      reconstruction = reconstruct_hand(reconstructor, image, box, side, str(path), mask)
    paths = write_reconstruction(reconstruction, image, path.stem, output, photo=path.name)
    yield f'{report(path, reconstruction)} -> {paths[0]}'


def define_flags() -> None:
  """The command's flags; only when run, so that tests may import several commands at once."""
  flags.DEFINE_multi_string('image', [], 'A photo of a hand; may be repeated.')
  flags.DEFINE_bool('demo_photos', False, 'The three photos shipped with the project.')
  flags.DEFINE_string('output', None, 'Folder for the results; made when missing.')
  flags.DEFINE_string('workdir', None, 'Folder of a trained run, such as make demo leaves.')
  flags.DEFINE_string(
    'bbox',
    None,
    "The hand's box as x,y,width,height in pixels. Default: the largest centred square.",
  )
  flags.DEFINE_enum('hand', None, ['right', 'left'], 'Which hand the photos show. Default: right.')
  flags.DEFINE_string(
    'hand_mask',
    None,
    "For a textured run, of one photo: an image of the photo's size, white where the photo shows "
    'the hand and black elsewhere, so that what is before the hand does not colour it.',
  )
  flags.DEFINE_string(
    'mano_dir', None, 'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.'
  )


def main(argv: list[str]) -> None:
  """Reads the flags, reconstructs each photo, says where the results are."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected argument {argv[1]!r}: photos are given as --image=FILE.')
  # Orbax tells at length, and warns that a run is opened for reading only.
  logging.set_verbosity(logging.ERROR)
  try:
    for line in reconstruct_photos(
      FLAGS.image,
      FLAGS.output,
      FLAGS.workdir,
      FLAGS.demo_photos,
      FLAGS.bbox,
      FLAGS.hand,
      FLAGS.mano_dir,
      FLAGS.hand_mask,
    ):
      print(line, flush=True)
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
  print(
    'Meshes (.obj, .ply, .glb; in the colours of the photo where the run has a texture branch), '
    f'numbers (.npz, .json) and legends are in {FLAGS.output}.'
  )


if __name__ == '__main__':
  define_flags()
  app.run(main)
