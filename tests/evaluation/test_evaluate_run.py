"""A toy run measured on a small prepared data set of drawn hands."""

import dataclasses
import json
import pathlib
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.configs.names import get_config
from hand_jax.config import DataConfig
from hand_jax.evaluation import mean_hand, run_data
from hand_jax.evaluation.evaluate import ERROR_NAMES, METRIC_NAMES
from hand_jax.evaluation.evaluate_run import RunRequest, evaluate_run, report_run
from hand_jax.evaluation.results_text import results_summary, results_table
from hand_jax.evaluation.uncertainty import FRAMES
from hand_jax.evaluation.uncertainty_plots import plot_paths
from hand_jax.examples import decode_example, without_3d
from hand_jax.mano.assets import load_mano_model
from hand_jax.models.hand_network import create_network
from hand_jax.preparing.building import prepare
from hand_jax.runs.checkpoints import Checkpoints, claim_workdir
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.training.state import create_optimizer
from tests.drawn_hands import DrawnSource
from tests.drawn_variables import drawn_first_state

sys.path.insert(0, str(Path(__file__).parents[2] / 'datasets'))

from synthetic_hands.synthetic_hands_dataset_builder import SyntheticHands

pytestmark = pytest.mark.slow

COUNTS = {'train': 5, 'test': 6}
# The training hands and the photos have 2D labels alone.
FLAT_COUNTS = {'train': 4, 'photos': 3, 'test': 2}


def evaluate(*arguments, **named):
  return evaluate_run(RunRequest(*arguments, **named))


def prepare_drawn(folder, counts, flat=()):
  """Prepares a data set whose examples are drawn, not rendered; `flat` splits without 3D labels."""
  tfds.disable_progress_bar()
  model = load_mano_model()
  sources = {
    split: DrawnSource(model, count, size=64, seed=index)
    for index, (split, count) in enumerate(counts.items())
  }

  def render(seed, split, indices, image_size, hands):
    del seed, image_size, hands
    examples = sources[split].load(indices)
    return [without_3d(example) for example in examples] if split in flat else examples

  settings = {'examples': counts, 'image_size': 64, 'seed': 0}
  prepare(SyntheticHands, folder, settings, render=render)
  return str(folder)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return prepare_drawn(tmp_path_factory.mktemp('prepared'), COUNTS)


@pytest.fixture(scope='module')
def flat_data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('flat')
  return prepare_drawn(folder, FLAT_COUNTS, flat=('train', 'photos'))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return save_run(tmp_path_factory.mktemp('run'), get_config('toy'))


def save_run(folder, config):
  """A run that was saved before its first step."""
  folder = str(folder)
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  claim_workdir(folder, config)
  claim_hand_model(folder, load_mano_model())
  with Checkpoints(folder) as checkpoints:
    state = drawn_first_state(config, network, optimizer, load_mano_model())
    checkpoints.save(jax.tree.map(np.asarray, state), 0)
  return folder


@pytest.fixture(scope='module')
def measured(workdir, data_dir):
  return evaluate(workdir, 'synthetic_hands', 'test', data_dir, mean_hand_examples=4)


def test_the_file_holds_what_others_rely_on(measured, workdir):
  results, path = measured
  assert path == Path(workdir) / 'evaluation' / 'synthetic_hands-test.json'
  assert json.loads(path.read_text()) == results
  for part in ('posterior', 'prior', 'mean_hand'):
    assert set(results[part]) == set(METRIC_NAMES)
    assert all(np.isfinite(value) for value in results[part].values())
  # Six examples in batches of four: the last batch is half padding.
  assert results['examples'] == COUNTS['test']
  assert {'across_examples', 'within_vertices'} <= set(results['uncertainty'])
  for frame in FRAMES:
    figures = results['uncertainty'][frame]
    assert figures['examples'] == COUNTS['test'] and 0 <= figures['coverage_95'] <= 1
  assert results['mean_hand_examples'] == 4
  assert not list(path.parent.glob('*unfinished*'))


def test_what_is_printed_about_a_run(measured, workdir, data_dir):
  _, path = measured
  request = RunRequest(workdir, 'synthetic_hands', data_dir=data_dir, mean_hand_examples=4)
  head, table, summary, end, *plots = report_run(request)
  results = json.loads(path.read_text())
  assert head == f'{workdir} on synthetic_hands, split test:' and end == f'Written to {path}.'
  assert plots == [f'Plot written to {plot}.' for plot in plot_paths(path)]
  assert all(plot.parent == path.parent and plot.is_file() for plot in plot_paths(path))
  assert table == results_table(results) and summary == results_summary(results)
  lines = report_run(request, output='scores.json')
  with pytest.raises(ValueError, match='synthetic_hands has none, or no labels for them'):
    list(lines)


def test_the_mean_hand_is_of_the_first_training_examples(measured, workdir, data_dir):
  builder = tfds.builder('synthetic_hands', data_dir=data_dir, try_gcs=False)
  records = builder.as_data_source('train')
  examples = [decode_example(records[index]) for index in range(4)]
  assert {example.side for example in examples} == {'left', 'right'}
  meshes = [
    mean_hand.root_vertices(example.vertices_camera, example.joints_camera, example.side)
    for example in examples
  ]
  expected = mean_hand.compute_mean_hand(meshes)
  data = DataConfig(data_dir=data_dir)
  found = run_data.mean_hand_of(workdir, data, 4)
  np.testing.assert_allclose(found.vertices_root, expected.vertices_root, atol=1e-9)
  np.testing.assert_allclose(found.vertices_aligned, expected.vertices_aligned, atol=1e-9)
  # There are only five, whatever is asked for.
  assert run_data.mean_hand_of(workdir, data, 100).examples == COUNTS['train']


@pytest.mark.parametrize('split', ['test_broad', 'test_mismatch'])
def test_the_rendered_splits_beyond_the_training_poses_are_measured(workdir, split):
  results, path = evaluate(workdir, 'synthetic_hands', split, limit=3, mean_hand_examples=2)
  assert path.name == f'synthetic_hands-{split}.json' and results['examples'] == 3
  assert all(np.isfinite(results['posterior'][name]) for name in ERROR_NAMES)
  # The baseline stays that of the run's own training hands.
  assert results['mean_hand_examples'] == 2


def test_the_mean_hand_of_rendered_hands_is_of_the_runs_own_poses(workdir, tmp_path):
  names = {}
  for hands in ('classic', 'broad'):
    data = DataConfig(train_examples=5, hands=hands)
    found = run_data.mean_hand_of(str(tmp_path), data, 4)
    expected = mean_hand.rendered_root_vertices(0, 'train', 4, hands)
    np.testing.assert_allclose(found.vertices_root, expected.mean(0), atol=1e-9)
    with np.load(tmp_path / 'evaluation' / 'synthetic_hands-mean_hand.npz') as stored:
      names[hands] = str(stored['description'])
  # As it was before there were other hands, so that runs keep their files.
  assert names['classic'].endswith('split train, rendered with seed 0')
  assert names['broad'].endswith('rendered with seed 0, broad hands')


def test_a_limit_takes_the_first_examples(workdir, data_dir, measured):
  results, path = evaluate(
    workdir, 'synthetic_hands', 'test', data_dir, limit=100, mean_hand_examples=4
  )
  for name in ERROR_NAMES:
    assert results['posterior'][name] == pytest.approx(measured[0]['posterior'][name])
  results, _ = evaluate(workdir, 'synthetic_hands', 'test', data_dir, limit=3, mean_hand_examples=4)
  assert results['examples'] == 3
  assert json.loads(path.read_text())['examples'] == 3


def test_turned_crops_are_named_and_have_a_file_of_their_own(workdir, data_dir, measured):
  results, path = evaluate(
    workdir, 'synthetic_hands', 'test', data_dir, mean_hand_examples=4, turns=3
  )
  assert path.name == 'synthetic_hands-test-3_turns.json'
  assert json.loads(path.read_text()) == results
  name = 'mean over 3 turns of the crop within 20 degrees'
  assert results['test_time_augmentation'] == name
  assert f'with test-time augmentation: {name}' in results_table(results)
  plain, plain_path = measured
  assert plain['test_time_augmentation'] == 'none' and 'augmentation' not in results_table(plain)
  assert json.loads(plain_path.read_text())['test_time_augmentation'] == 'none'
  assert results['mean_hand'] == plain['mean_hand']  # the labels are not turned
  assert results['posterior'] != plain['posterior']


def test_the_summary_states_the_baseline_and_the_gain(measured):
  results, _ = measured
  text = results_summary(results)
  baseline = results['mean_hand']['pa_mpjpe_mm']
  assert f'PA-MPJPE of {baseline:.2f} mm' in text
  above = 100 * (results['posterior']['pa_mpjpe_mm'] / baseline - 1)
  assert above > 0 and f'{above:.1f} % above the mean hand' in text
  better = results | {'posterior': {'pa_mpjpe_mm': 0.75 * baseline}}
  assert '25.0 % below the mean hand' in results_summary(better)


def test_without_3d_training_labels_there_is_no_baseline(workdir, flat_data_dir):
  results, path = evaluate(workdir, 'synthetic_hands', 'test', flat_data_dir)
  assert json.loads(path.read_text()) == results
  assert 'mean_hand' not in results and results['mean_hand_examples'] == 0
  assert set(results['posterior']) == set(results['prior']) == set(METRIC_NAMES)
  assert results['examples'] == results['joints_2d']['examples'] == FLAT_COUNTS['test']
  assert results_summary(results) == (
    'There is no baseline: no training example of synthetic_hands has 3D labels to make a mean '
    f'hand of.\nThe posterior has a PA-MPJPE of {results["posterior"]["pa_mpjpe_mm"]:.2f} mm.'
  )


def test_photos_with_2d_joints_alone(workdir, flat_data_dir):
  # As in a run that nothing was measured on before.
  shutil.rmtree(pathlib.Path(workdir) / 'evaluation', ignore_errors=True)
  results, path = evaluate(workdir, 'synthetic_hands', 'photos', flat_data_dir)
  assert json.loads(path.read_text()) == results
  expected = {'dataset', 'split', 'examples', 'joints_2d', 'mean_hand_examples'}
  assert set(results) == expected | {'test_time_augmentation'} and results['examples'] == 0
  pixels = results['joints_2d']
  assert pixels['examples'] == FLAT_COUNTS['photos'] and pixels['crop_size_px'] == 64
  assert 0 < pixels['posterior_px'] < 64 and 0 < pixels['prior_px'] < 64
  text = results_summary(results)
  assert text.startswith('No example of the split has 3D labels')
  assert f"posterior's projected joints are {pixels['posterior_px']:.2f} px" in text


def test_a_data_set_without_the_training_split_gives_no_baseline(workdir, data_dir):
  assert run_data.mean_hand_of(workdir, DataConfig(data_dir=data_dir, train_split='all'), 4) is None


@pytest.mark.parametrize('branch', ['prior', 'posterior'])
def test_a_network_of_one_branch(branch, data_dir, tmp_path):
  config = get_config('toy')
  model = dataclasses.replace(config.model, branches=branch, vertex_offset_from='template')
  loss = dataclasses.replace(config.loss, kind='l2')
  run = save_run(tmp_path, dataclasses.replace(config, model=model, loss=loss))
  results, _ = evaluate(run, 'synthetic_hands', 'test', data_dir, mean_hand_examples=4)
  assert set(results) & {'prior', 'posterior'} == {branch}
  assert set(results[branch]) == set(METRIC_NAMES)
  assert results['uncertainty']['branch'] == branch
  if branch == 'prior':  # its deviation is one length unit, whatever the photo
    assert results['uncertainty']['across_examples'] == 0.0
    assert results['uncertainty']['within_vertices'] == 0.0
  assert f'The {branch} has {results[branch]["pa_mpjpe_mm"]:.2f} mm' in results_summary(results)


def test_where_the_data_come_from(data_dir):
  config = get_config('toy')
  prepared = dataclasses.replace(config, data=DataConfig(data_dir=data_dir))
  choose = run_data.data_to_measure
  assert choose(config, 'synthetic_hands', None).data_dir == ''
  assert choose(prepared, 'synthetic_hands', None).data_dir == data_dir
  assert choose(prepared, 'synthetic_hands', 'here').data_dir == 'here'
  assert choose(prepared, 'synthetic_hands', '').data_dir == ''
  other = choose(prepared, 'ho3d', 'here')
  assert (other.dataset, other.data_dir) == ('ho3d', 'here')
  with pytest.raises(ValueError, match='--dataset=ho3d needs --data_dir'):
    choose(prepared, 'ho3d', None)


def test_data_that_moved_since_the_training_are_asked_for():
  moved = dataclasses.replace(get_config('toy'), data=DataConfig(data_dir='/was/here'))
  with pytest.raises(FileNotFoundError, match=r'^/was/here, where .* has moved to by --data_dir'):
    run_data.data_to_measure(moved, 'synthetic_hands', None)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'split': 'tset'}, "no split 'tset'; it has train, test"),
    ({'dataset': 'ho3d'}, "No prepared data set 'ho3d'"),
    ({'workdir': 'nowhere'}, 'nowhere holds no training run'),
  ],
)
def test_what_cannot_be_measured_is_named(workdir, data_dir, change, message):
  settings = {'workdir': workdir, 'dataset': 'synthetic_hands', 'split': 'test'}
  settings |= {'data_dir': data_dir} | change
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    evaluate(**settings)


def test_the_hand_model_is_also_named_by_the_environment(workdir, data_dir, monkeypatch):
  monkeypatch.setenv('MANO_DIR', 'nowhere')
  with pytest.raises(FileNotFoundError, match=r'nowhere.*\$MANO_DIR'):
    evaluate(workdir, 'synthetic_hands', 'test', data_dir)


def test_a_config_that_does_not_fit_its_checkpoint_is_named(workdir, data_dir, tmp_path):
  """The width in config.json was changed by hand after training."""
  folder = tmp_path / 'edited'
  shutil.copytree(workdir, folder)
  text = (folder / 'config.json').read_text()
  (folder / 'config.json').write_text(text.replace('"width": 8', '"width": 16'))
  with pytest.raises(ValueError, match=r'edited: its config\.json describes another') as error:
    evaluate(str(folder), 'synthetic_hands', 'test', data_dir, mean_hand_examples=2)
  assert '\n' not in str(error.value) and 'vertex_regressor' in str(error.value)
