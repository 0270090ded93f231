"""Draws figures of a trained run, with one row for each hand.

`clear.png` shows the first synthetic hands of the split whose silhouette is visible by more than
0.97, and `occluded.png` those between 0.3 and 0.6. An object hides the rest, because a forearm
seldom hides so much. `photos.png` shows the bundled photos. No hand is chosen by the quality of its
result.

The columns show the network's crop, the mesh of each branch over it, and the better branch's
uncertainty. For a textured run they also show the hand in its own colours over the photo and from
two other sides. Such a network gets the hand mask if the data have one.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from hand_jax.data.example_sources import ExampleSource, create_source
from hand_jax.data.photos import demo_photo_boxes, read_photo
from hand_jax.evaluation.plotting import is_own_picture, write_picture
from hand_jax.evaluation.run_data import RENDERED_DATASET, data_to_measure
from hand_jax.examples import HandExample
from hand_jax.files.outputs import Output, check_outputs
from hand_jax.geometry.cameras import perspective_from_intrinsics, project_perspective
from hand_jax.models.hand_network import naming_misfits
from hand_jax.reconstruction.meshes import legend_image, sigma_colors, sigma_range_mm
from hand_jax.reconstruction.reconstruction import Reconstruction
from hand_jax.reconstruction.trained_network import (
  HandPhoto,
  TrainedNetwork,
  load_trained_network,
  reconstruct_branches,
)
from hand_jax.reconstruction.views import display_crop, display_vertices
from hand_jax.rendering.overlay import (
  COLOR_AMBIENT,
  MESH_COLOR,
  OPACITY,
  PAPER,
  mesh_over,
  textured_tiles,
  to_bytes,
  with_caption,
)
from hand_jax.rendering.rasterize import rasterize
from hand_jax.types import ManoModel

FIGURE_TILE_SIDE = 200
CANDIDATES = 500
"""How many examples of a split are searched at most."""
KINDS = {'clear': (0.97, 1.0), 'occluded': (0.3, 0.6)}
"""Maps the name of a figure to the lowest and highest visible share of its hands, both included."""
_HEADER = 30


@functools.partial(jax.jit, static_argnames=('height', 'width'))
def _silhouette(
  vertices_image: Float[Array, 'vertices 3'], faces: Int[Array, 'faces 3'], height: int, width: int
) -> Bool[Array, 'height width']:
  return rasterize(vertices_image[None], faces, height, width).face_index[0] >= 0


def visible_share(example: HandExample, model: ManoModel) -> float:
  """Measures the share of the true hand's silhouette inside the photo that its mask shows.

  Raises:
    ValueError: the example lacks its mask, vertices of this hand model or intrinsics.
  """
  mask, vertices, intrinsics = example.hand_mask, example.vertices_camera, example.intrinsics
  if (
    mask is None or vertices is None or intrinsics is None or len(vertices) != len(model.v_template)
  ):
    raise ValueError(
      f'Example {example.example_id!r} does not show what hides the hand: this needs a hand mask, '
      "vertices of the run's hand model and intrinsics. Choose hands by number: --examples=0,1,2."
    )
  camera = perspective_from_intrinsics(np.asarray(intrinsics, np.float64))
  vertices = np.asarray(vertices, np.float64)
  points = np.concatenate([project_perspective(camera, vertices), vertices[:, 2:]], axis=1)
  height, width = example.image.shape[:2]
  hand = np.asarray(_silhouette(jnp.asarray(points, jnp.float32), model.faces, height, width))
  return float((hand & mask).sum() / max(hand.sum(), 1))


def choose_rows(source: ExampleSource, model: ManoModel, rows: int) -> dict[str, list[HandPhoto]]:
  """Chooses the first hands of each of `KINDS` among the first `CANDIDATES` examples.

  Args:
    source: the examples of the split.
    model: the run's hand model.
    rows: the largest number of hands of each kind.

  Raises:
    ValueError: see `visible_share`.
  """
  chosen = {kind: [] for kind in KINDS}
  for index in range(min(CANDIDATES, len(source))):
    (example,) = source.load([index])
    share = visible_share(example, model)
    for kind, (low, high) in KINDS.items():
      if low <= share <= high and len(chosen[kind]) < rows:
        chosen[kind].append(_row(example, f'{index}: {100 * share:.0f} % seen'))
    if all(len(found) == rows for found in chosen.values()):
      break
  return chosen


def numbered_rows(source: ExampleSource, indices: Sequence[int]) -> list[HandPhoto]:
  """Loads the examples with these numbers.

  Raises:
    ValueError: the split has no such example.
  """
  for index in indices:
    if not 0 <= index < len(source):
      raise ValueError(f'--examples: no example {index}, the split has {len(source)} of them.')
  return [_row(source.load([index])[0], str(index)) for index in indices]


def _row(example: HandExample, words: str) -> HandPhoto:
  box = np.asarray(example.box_xywh, np.float64)
  return HandPhoto(example.image, box, example.side, words, example.hand_mask)


def photo_rows() -> list[HandPhoto]:
  """Loads the photos that come with the package, with their boxes."""
  return [
    HandPhoto(read_photo(path), box, side, path.stem)
    for path, (box, side) in demo_photo_boxes().items()
  ]


def draw_figure(
  network: TrainedNetwork, rows: Sequence[HandPhoto]
) -> UInt8[np.ndarray, 'height width 3']:
  """Draws rows of tiles under a header that names the columns, all with one scale of sigma."""
  hands = [reconstruct_branches(network, row) for row in rows]
  best = [next(iter(branches.values())) for branches in hands]
  range_mm = sigma_range_mm(np.concatenate([hand.vertex_sigma_mm for hand in best]))
  with_masks = any(row.hand_mask is not None for row in rows)
  lines = []
  for row, branches in zip(rows, hands, strict=True):
    tiles = _tiles(row, branches, range_mm, with_masks)
    lines.append(np.concatenate([to_bytes(tile) for tile in tiles.values()], axis=1))
    lines[-1][:, :FIGURE_TILE_SIDE] = with_caption(lines[-1][:, :FIGURE_TILE_SIDE], row.name)
  picture = np.concatenate([_header(list(tiles)), *lines])
  legend = legend_image(range_mm, min(2 * FIGURE_TILE_SIDE, len(rows) * FIGURE_TILE_SIDE))
  aside = np.full((len(picture), legend.shape[1], 3), legend[0, 0], np.uint8)
  aside[_HEADER : _HEADER + len(legend)] = legend
  return np.concatenate([picture, aside], axis=1)


def _tiles(
  row: HandPhoto,
  branches: dict[str, Reconstruction],
  range_mm: tuple[float, float],
  with_masks: bool,
) -> dict[str, Float[np.ndarray, 'side side 3']]:
  """Draws the pictures of a row, by the names of their columns, with colours in [0, 1]."""
  best = next(iter(branches.values()))
  crop = display_crop(best, FIGURE_TILE_SIDE)
  plain = np.tile(np.array(MESH_COLOR, np.float32), (len(best.vertices), 1))
  tiles = {'input': crop}
  # In the order of the estimate: first the prior, then AMVUR's posterior.
  for branch, hand in reversed(branches.items()):
    points = display_vertices(hand, FIGURE_TILE_SIDE)
    tiles[f'{branch} mesh'] = mesh_over(crop, points, hand.faces, plain, OPACITY)
  points = display_vertices(best, FIGURE_TILE_SIDE)
  if best.vertex_colors is not None:
    names = ('texture, mask known' if with_masks else 'texture', 'from the left', 'from the right')
    textured = textured_tiles(crop, points, best.faces, best.vertex_colors)
    tiles |= dict(zip(names, textured, strict=True))
  faint = 0.3 * crop + 0.7 * PAPER
  colors = sigma_colors(best.vertex_sigma_mm, range_mm)
  tiles['uncertainty'] = mesh_over(faint, points, best.faces, colors, ambient=COLOR_AMBIENT)
  return tiles


def _header(names: Sequence[str]) -> UInt8[np.ndarray, 'height width 3']:
  header = np.full((_HEADER, FIGURE_TILE_SIDE * len(names), 3), 245, np.uint8)
  font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
  for column, name in enumerate(names):
    (width, _), _ = cv2.getTextSize(name, font, scale, 1)
    place = (column * FIGURE_TILE_SIDE + (FIGURE_TILE_SIDE - width) // 2, _HEADER - 10)
    cv2.putText(header, name, place, font, scale, (40, 40, 40), 1, cv2.LINE_AA)
  return header


def make_figures(
  workdir: str,
  output: str,
  dataset: str = RENDERED_DATASET,
  split: str = 'test',
  data_dir: str | None = None,
  examples: Sequence[int] = (),
  rows: int = 4,
  demo_photos: bool = True,
  mano_dir: str | None = None,
  overwrite: bool = False,
) -> Iterator[str]:
  """Makes the figures that the flags of the same names ask for, and yields a line about each.

  Args:
    workdir: the run's folder.
    output: the folder of the figures. It is made if it is missing.
    dataset: the data set whose hands are drawn.
    split: the split of the data set.
    data_dir: the folder of prepared data, or None.
    examples: the numbers of the hands. Without any, hands are chosen by their visible share.
    rows: the number of hands in a figure.
    demo_photos: whether to draw the bundled photos too.
    mano_dir: folder or file of MANO's files, or None.
    overwrite: whether to replace existing figures.

  Raises:
    ValueError, OSError: the run, data set, split or example does not exist. The message names it.
  """
  folder = pathlib.Path(output)
  names = ('examples',) if examples else ('clear', 'occluded')
  names += ('photos',) if demo_photos else ()
  outputs = [Output('--output', folder / f'{name}.png', is_own_picture) for name in names]
  check_outputs(outputs, overwrite=overwrite)
  network = load_trained_network(workdir, mano_dir)
  config, model = network.config, network.model
  data = data_to_measure(config, dataset, data_dir)
  count = 0 if data.data_dir else max(CANDIDATES, *[index + 1 for index in examples], 1)
  source = create_source(data, split, config.model.image_size, count)
  # Take box and crop from the data that are drawn, whatever the run was trained on.
  config = dataclasses.replace(config, data=data)
  if examples:
    figures = {'examples': numbered_rows(source, examples)}
  else:
    figures = choose_rows(source, model, rows)
  if demo_photos:
    figures['photos'] = photo_rows()
  for name, chosen in figures.items():
    if not chosen:
      yield f'{name}: no such hand among the first {min(CANDIDATES, len(source))}, no figure'
      continue
    with naming_misfits(workdir):
      picture = draw_figure(network._replace(config=config), chosen)
    path = folder / f'{name}.png'
    write_picture(path, picture)
    yield f'{path}: {len(chosen)} hands, {picture.shape[1]} x {picture.shape[0]} pixels'
