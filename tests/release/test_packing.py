"""Packing a trained run: what is kept, in which precision, and that it works as the run does."""

import json
import pathlib

import chex
import jax
import numpy as np
import pytest

from hand_jax.data.photos import demo_photo_boxes
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.reconstruction.hand_reconstructor import HandReconstructor
from hand_jax.release import packing
from hand_jax.release.packing import pack_run
from hand_jax.runs.checkpoints import load_network
from hand_jax.runs.hand_models import load_run_model
from hand_jax.runs.lineage import read_lineage
from hand_jax.runs.packed_run import PACKAGED_RUN, RELEASE
from tests.packed_runs import STEP, drawn_variables, put_in_package, save_features_run

ASSETS = PACKAGED_RUN.parent
# Hands to compare on are filled up to a batch.
SMALL_BATCH = 'training.batch_size=2'


@pytest.fixture(scope='module')
def variables():
  return drawn_variables()


@pytest.fixture(scope='module')
def workdir(variables, tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'features'
  save_features_run(folder, variables, SMALL_BATCH)
  # The time that the run took is that of these batches.
  rows = [{'step': 10, 'examples_per_second': 1.0}, {'step': 20, 'validation_total': 1.0}]
  rows.append({'step': 30, 'examples_per_second': 2.0})
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (folder / 'evaluation').mkdir()
  figures = dict.fromkeys(('pa_mpjpe_mm', 'pa_mpvpe_mm', 'mpjpe_mm', 'mpvpe_mm'), 9.87654)
  results = {'examples': 500, 'posterior': {**figures, 'auc_joints': 0.5}, 'mean_hand': figures}
  (folder / 'evaluation' / 'synthetic_hands-test.json').write_text(json.dumps(results))
  return str(folder)


@pytest.fixture(scope='module')
def packed(workdir, tmp_path_factory):
  """The packed run and its card."""
  folder = tmp_path_factory.mktemp('packed') / 'trained_run'
  return folder, pack_run(workdir, folder, 'abc', compared_hands=2)


def without_backbone(variables):
  return {name: tree for name, tree in variables['params'].items() if name != 'backbone'}


@pytest.mark.slow
def test_parameters_are_those_of_the_run_in_half_precision(packed, variables):
  saved = load_network(str(packed[0]))
  assert saved.step == STEP and saved.variables['batch_stats'] == {}
  found, expected = without_backbone(saved.variables), without_backbone(variables)
  chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
  rounded = jax.tree.map(lambda leaf: leaf.astype(np.float16).astype(np.float32), expected)
  chex.assert_trees_all_equal(found, rounded)
  backbone = load_bundled_parameters('hand_landmark')['params']
  chex.assert_trees_all_equal(saved.variables['params']['backbone'], backbone)
  assert (packed[0] / 'network.npz').stat().st_size < 4e6


@pytest.mark.slow
def test_the_card_says_what_was_packed(packed):
  folder, card = packed
  assert json.loads((folder / 'card.json').read_text()) == card
  assert card['commit'] == 'abc' and card['config'] == 'synthetic_features'
  assert card['step'] == STEP and card['precision'] == 'float16'
  assert card['trained_on']['hands'] == 'broad' and card['trained_on']['examples'] is None
  # Steps 1 to 10 with 1 hand a second and 11 to 30 with 2, each step of 2 hands.
  assert card['hours'] == pytest.approx((10 * 2 / 1 + 20 * 2 / 2) / 3600, abs=6e-4)
  figures = card['evaluations']['synthetic_hands-test']
  assert figures['examples'] == 500 and figures['posterior']['pa_mpjpe_mm'] == 9.877
  change = card['half_precision_change']
  assert 0 < change['mean_mm'] < 0.05 and change['mean_mm'] < change['largest_mm'] < 0.5
  assert change['hands'] == 2 and card['network_bytes'] == (folder / 'network.npz').stat().st_size


@pytest.mark.slow
def test_no_folder_of_this_computer_is_told(packed, workdir):
  for path in packed[0].glob('*.json'):
    assert str(pathlib.Path(workdir).parent) not in path.read_text(), path
  config, lineage = load_network(str(packed[0])).config, read_lineage(str(packed[0]))
  assert config.data.data_dir == 'prepared' and lineage['init_from'][0]['workdir'] == 'start'
  assert lineage['init_from'][0]['lineage'] == read_lineage(workdir)['init_from'][0]['lineage']


@pytest.mark.slow
def test_single_precision_stays_where_half_changes_too_much(workdir, variables, packed, tmp_path):
  folder = tmp_path / 'trained_run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(packing, '_MAX_CHANGE_MM', packed[1]['half_precision_change']['mean_mm'])
    card = pack_run(workdir, folder, compared_hands=2)
  assert card['precision'] == 'float32'
  saved = load_network(str(folder))
  chex.assert_trees_all_equal(without_backbone(saved.variables), without_backbone(variables))
  again = pack_run(workdir, folder, 'abc', compared_hands=2)
  assert again == packed[1]
  assert (folder / 'network.npz').read_bytes() == (packed[0] / 'network.npz').read_bytes()


@pytest.mark.slow
def test_other_files_stay_and_other_backbones_are_refused(workdir, variables, tmp_path):
  (tmp_path / 'notes').mkdir()
  (tmp_path / 'notes' / 'mine.txt').write_text('mine')
  with pytest.raises(FileExistsError, match=r'notes holds other files than those of a packed run'):
    pack_run(workdir, tmp_path / 'notes', compared_hands=2)
  backbone = jax.tree.map(lambda leaf: leaf + 1e-3, variables['params']['backbone'])
  learned = {**variables, 'params': {**variables['params'], 'backbone': backbone}}
  other = save_features_run(tmp_path / 'learned', learned, SMALL_BATCH)
  with pytest.raises(ValueError, match='not the unchanged landmark network of'):
    pack_run(other, tmp_path / 'packed', compared_hands=2)
  assert not (tmp_path / 'packed').exists()


@pytest.mark.slow
def test_without_refinement_hands_are_those_of_the_run_in_the_package(
  packed, workdir, monkeypatch, small_pictures
):
  put_in_package(monkeypatch, packed[0])
  (photo, _), *_ = sorted(demo_photo_boxes().items())
  (hand,) = HandReconstructor(refine=False)(photo)
  assert hand.branch == 'posterior' and hand.is_left and hand.vertices.shape == (778, 3)
  (named,) = HandReconstructor(RELEASE)(photo)
  np.testing.assert_array_equal(hand.vertices, named.vertices)
  np.testing.assert_array_equal(hand.vertex_sigma_mm, named.vertex_sigma_mm)
  # And those of the run that was packed, up to half precision.
  (own,) = HandReconstructor(workdir, refine=False)(photo)
  moved = 1000 * np.linalg.norm(own.vertices - hand.vertices, axis=1).mean()
  assert 0 < moved < 0.1


def test_the_run_in_the_package_is_whole():
  card = json.loads((PACKAGED_RUN / 'card.json').read_text())
  saved = load_network(RELEASE)
  assert saved.step == card['step'] and saved.config.name == card['config']
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.variables))
  assert load_run_model(RELEASE) is not None and read_lineage(RELEASE)['config'] == card['config']


def test_bundled_assets_take_at_most_30_mb():
  sizes = [path.stat().st_size for path in ASSETS.rglob('*') if path.is_file()]
  assert 10e6 < sum(sizes) <= 30e6
