"""Figures: which hands are chosen, the columns of each kind of network, files."""

import numpy as np
import pytest
from PIL import Image

from experiments.configs.names import get_config
from hand_jax.models.hand_network import create_network
from hand_jax.reconstruction import figures
from hand_jax.reconstruction.trained_network import create_trained_network
from tests.drawn_hands import DrawnSource, project
from tests.drawn_variables import drawn_network
from tests.reference.rasterize import face_at_points
from tests.toy_runs import fresh_state, save_toy_run

SIDE = figures.FIGURE_TILE_SIDE


@pytest.fixture(scope='module')
def source(model):
  return CoveredSource(model, 6)


class CoveredSource(DrawnSource):
  """True silhouettes as masks, of which example i loses its left part (see `SHARES`)."""

  SHARES = (0.9, 0.5, 0.2, 0.55, 1.0, 0.8)

  def __init__(self, model, count):
    super().__init__(model, count)
    self._faces = np.asarray(model.faces)

  def load(self, indices):
    return [
      self._cover(example, self.SHARES[i])
      for i, example in zip(indices, super().load(indices), strict=True)
    ]

  def _cover(self, example, share):
    hand = silhouette(example, self._faces)
    columns = np.cumsum(hand.sum(axis=0)[::-1])[::-1]  # pixels of the hand from here to the right
    kept = columns <= share * hand.sum()
    return example._replace(hand_mask=hand & kept[None])


def silhouette(example, faces):
  """Pixels whose centre some face holds, by loops over faces in float64."""
  height, width = example.image.shape[:2]
  y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing='ij')
  points = project(example.intrinsics, example.vertices_camera)
  points = np.concatenate([points, example.vertices_camera[:, 2:]], axis=1)
  hit = np.zeros((height, width), bool)
  for corners in points[faces]:
    low, high = np.floor(corners[:, :2].min(0)).astype(int), np.ceil(corners[:, :2].max(0))
    window = tuple(slice(max(low[i], 0), max(int(high[i]), 0)) for i in (1, 0))
    weights, _ = face_at_points(corners, x[window], y[window])
    hit[window] |= (weights >= 0).all(-1)
  return hit


@pytest.fixture(scope='module')
def network(model):
  config = get_config('toy_texture')
  variables = drawn_network(create_network(config), model)
  return create_trained_network(config, variables, model)


@pytest.mark.slow
def test_the_visible_share_is_that_of_the_true_silhouette(source, model):
  for index, share in enumerate(source.SHARES):
    (example,) = source.load([index])
    # Covered column by column: a column's worth of pixels may be missing.
    assert share - 0.06 < figures.visible_share(example, model) <= share + 0.005


@pytest.mark.slow
def test_the_first_hands_of_each_kind_are_chosen_in_order(source, model):
  chosen = figures.choose_rows(source, model, rows=2)
  assert {kind: [row.name.split(':')[0] for row in rows] for kind, rows in chosen.items()} == {
    'clear': ['4'],
    'occluded': ['1', '3'],
  }
  one = figures.choose_rows(source, model, rows=1)
  assert [row.name.split(':')[0] for row in one['occluded']] == ['1']
  assert chosen['occluded'][0].side == 'right' and chosen['occluded'][1].side == 'left'


def test_examples_without_masks_are_refused_by_name(source, model):
  (example,) = source.load([1])
  for field in ('hand_mask', 'vertices_camera', 'intrinsics'):
    with pytest.raises(ValueError, match=r"'drawn-1'.*--examples"):
      figures.visible_share(example._replace(**{field: None}), model)


def test_numbered_examples(source):
  assert [row.name for row in figures.numbered_rows(source, [3, 0])] == ['3', '0']
  with pytest.raises(ValueError, match='no example 6, the split has 6'):
    figures.numbered_rows(source, [0, 6])


@pytest.mark.slow
def test_a_figure_has_a_row_per_hand_and_a_column_per_picture(network, source):
  rows = figures.numbered_rows(source, [1, 3])
  picture = figures.draw_figure(network, rows)
  height, width, _ = picture.shape
  assert height == figures._HEADER + 2 * SIDE and 7 * SIDE < width <= 1600
  tiles = picture[figures._HEADER : figures._HEADER + SIDE - 50, : 7 * SIDE]
  first, *others = np.split(tiles, 7, axis=1)
  for other in others:
    assert (first != other).any(axis=-1).mean() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize('absent', ['posterior', 'prior'])
def test_columns_of_other_networks(network, source, absent):
  """Without one branch its mesh is missing; without texture three columns are."""

  def estimate(*crop):
    estimate = network.estimate(*crop)._replace(vertex_colors=None)
    without = {'prior': None, 'parameters': None} if absent == 'prior' else {'posterior': None}
    return estimate._replace(**without)

  (row,) = figures.numbered_rows(source, [1])
  plain = network._replace(estimate=estimate)
  branches = figures.reconstruct_branches(plain, row)
  kept = {'posterior': 'prior', 'prior': 'posterior'}[absent]
  assert list(figures._tiles(row, branches, (0.0, 20.0), True)) == [
    'input',
    f'{kept} mesh',
    'uncertainty',
  ]
  assert figures.draw_figure(plain, [row]).shape[1] < 4 * SIDE


@pytest.mark.slow
def test_figures_of_a_run_are_written(source, tmp_path, monkeypatch):
  """From a run on disk; hands come from a drawn source in place of rendered ones."""
  workdir = save_toy_run(tmp_path / 'run', 'toy_texture', fresh_state('toy_texture'))
  monkeypatch.setattr(figures, 'create_source', lambda *_: source)
  output = tmp_path / 'new' / 'figures'
  lines = list(figures.make_figures(workdir, str(output), rows=1))
  assert [path.name for path in sorted(output.iterdir())] == [
    'clear.png',
    'occluded.png',
    'photos.png',
  ]
  assert len(lines) == 3 and '3 hands' in lines[2]
  with Image.open(output / 'photos.png') as picture:
    assert picture.size[1] == figures._HEADER + 3 * SIDE
  monkeypatch.setitem(figures.KINDS, 'occluded', (0.6, 0.7))
  found = list(figures.make_figures(workdir, str(tmp_path / 'b'), rows=1, demo_photos=False))
  assert 'no such hand' in found[1] and not (tmp_path / 'b' / 'occluded.png').exists()


def test_an_output_that_is_a_file_is_named(tmp_path):
  (tmp_path / 'taken').write_text('mine')
  with pytest.raises(NotADirectoryError, match=r'cannot go to .*taken: .*taken is a file'):
    list(figures.make_figures('nowhere', str(tmp_path / 'taken')))
