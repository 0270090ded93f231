"""Weak training from end to end: warm start, frozen camera prior, lineage, keys, continuing."""

import dataclasses
import json
import pathlib

import chex
import jax
import numpy as np
import pytest
from flax import traverse_util

from experiments.configs.names import get_config
from hand_jax.config import ExperimentConfig
from hand_jax.config_text import apply_overrides
from hand_jax.data.pipeline import training_batches
from hand_jax.models.hand_network import CAMERA_MODULES, create_network
from hand_jax.runs.checkpoints import Checkpoints, claim_workdir
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.runs.lineage import claim_lineage, lineage_supervision, make_lineage, read_lineage
from hand_jax.runs.train_state import TrainState, state_variables
from hand_jax.training.loop import train_and_evaluate
from hand_jax.training.state import create_optimizer, create_train_state
from hand_jax.training.step import make_train_step
from hand_jax.types import ManoModel
from tests.drawn_hands import DrawnSource, Killed, KilledSource
from tests.drawn_variables import drawn_first_state

pytestmark = pytest.mark.slow

# Six examples in batches of four: the run is in the middle of an epoch when it is interrupted.
EXAMPLES = 6
SETTINGS = [
  # Most of the time goes into compiling the steps.
  'model.image_size=32',
  'model.attention.self_layers=0',
  'training.checkpoint_every=2',
  'training.evaluate_every=4',
  'training.log_every=1',
  f'data.train_examples={EXAMPLES}',
]
START_STEPS, STEPS = 2, 4
# What of the network the start has; the rest of it begins fresh.
START_PARTS = {*CAMERA_MODULES, 'prior_net'}


class Spoilt(DrawnSource):
  """The same photos and 2D joints; what a 3D label could tell is wrong or not a number."""

  def load(self, indices):
    return [
      example._replace(
        intrinsics=np.full((3, 3), np.nan, np.float32),
        vertices_camera=example.vertices_camera * np.nan,
        joints_camera=example.joints_camera[::-1] + 1,
        global_orient=-example.global_orient,
        hand_mask=~example.hand_mask,
        vertex_visible=np.zeros(len(example.vertices_camera), bool),
      )
      for example in super().load(indices)
    ]


def weak_config(start: pathlib.Path) -> ExperimentConfig:
  links = [f'training.init_from={start}', f'training.camera_prior={start}']
  steps = f'training.num_steps={STEPS}'
  return apply_overrides(get_config('toy_weak'), [*SETTINGS, steps, *links])


def save_start(folder: str, model: ManoModel) -> TrainState:
  """Writes a run as training leaves it, with statistics unlike a new network's."""
  config = get_config('toy_prior_weak')
  config = apply_overrides(config, [*SETTINGS, f'training.num_steps={START_STEPS}'])
  optimizer = create_optimizer(config.optimizer, START_STEPS)
  state = drawn_first_state(config, create_network(config), optimizer, model)
  state, rng = jax.device_get(state), np.random.default_rng(0)
  statistics = jax.tree.map(
    lambda leaf: leaf + rng.uniform(0.1, 0.2, leaf.shape).astype(leaf.dtype), state.batch_stats
  )
  state = state.replace(step=np.array(START_STEPS, np.int32), batch_stats=statistics)
  claim_workdir(folder, config)
  claim_hand_model(folder, model)
  claim_lineage(folder, make_lineage(config))
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(state, 0)
  return state


@pytest.fixture(scope='module')
def runs(toy_model, tmp_path_factory):
  """Folder and last states: the start (`toy_prior_weak`), an uninterrupted `toy_weak` from it, and
  one that was killed after step 3 and continued when the start was gone."""
  folder = tmp_path_factory.mktemp('weak')
  source, validation = DrawnSource(toy_model, EXAMPLES), DrawnSource(toy_model, 2, seed=1)
  start = save_start(str(folder / 'start'), toy_model)
  config = weak_config(folder / 'start')
  straight = train_and_evaluate(config, str(folder / 'straight'), toy_model, source, validation)
  with pytest.raises(Killed):
    killed = KilledSource(toy_model, EXAMPLES)
    train_and_evaluate(config, str(folder / 'resumed'), toy_model, killed, validation)
  (folder / 'start').rename(folder / 'gone')
  resumed = train_and_evaluate(config, str(folder / 'resumed'), toy_model, source, validation)
  return folder, start, straight, resumed


def read_metrics(folder: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_a_continued_run_ends_bit_equal_without_its_start(runs):
  folder, _, straight, resumed = runs
  assert int(resumed.step) == STEPS
  chex.assert_trees_all_equal(resumed, straight)
  ours, theirs = (read_metrics(folder / name) for name in ('resumed', 'straight'))
  for name in ('joints_2d_nll', 'joints_2d_nll_prior', 'camera_kl', 'vertices_kl', 'total'):
    assert [line[name] for line in ours] == [line[name] for line in theirs]


def test_the_frozen_camera_model_is_the_one_of_the_start(runs):
  folder, start, straight, _ = runs
  variables = {'params': start.params, 'batch_stats': start.batch_stats}
  expected = {
    name: array
    for name, array in traverse_util.flatten_dict(variables, sep='/').items()
    if name.split('/')[1] in CAMERA_MODULES
  }
  for name in ('straight', 'resumed'):
    with np.load(folder / name / 'camera_prior/variables.npz') as copy:
      assert set(copy) == set(expected)
      for path, array in expected.items():
        np.testing.assert_array_equal(copy[path], array, err_msg=path)
  # The run's own camera model went on learning.
  before, after = (jax.tree.leaves(state.params['camera_model']) for state in (start, straight))
  assert any((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize('name', ['straight', 'resumed'])
def test_the_whole_lineage_is_recorded_and_weak(runs, name):
  folder = runs[0]
  lineage = read_lineage(str(folder / name))
  assert lineage_supervision(lineage) == 'weak'
  own = {'config': 'toy_prior_weak', 'supervision': 'weak', 'init_from': [], 'camera_prior': None}
  origin = {'workdir': str(folder / 'start'), 'step': START_STEPS, 'lineage': own}
  assert lineage == {
    'config': 'toy_weak',
    'supervision': 'weak',
    'init_from': [origin],
    'camera_prior': origin,
  }


def test_what_was_taken_and_what_not_is_listed(runs):
  folder, start, straight, _ = runs
  record = json.loads((folder / 'straight/init_from.json').read_text())
  (source,) = record['sources']

  def names(state):
    return set(traverse_util.flatten_dict(state_variables(state), sep='/'))

  assert set(source['taken']) == names(start)
  assert source['not_taken_no_place'] == source['not_taken_given_before'] == []
  assert set(record['fresh']) == names(straight) - names(start)
  assert {name.split('/')[1] for name in record['fresh']} == {'vertex_regressor'}


@pytest.fixture(scope='module')
def single(runs, toy_model):
  """The uninterrupted run again on one device, without the loop: the step, and states, batches and
  metrics of all steps. Its first state is put together here, from the start's last one."""
  folder, start, _, _ = runs
  config = weak_config(folder / 'start')
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  fresh = create_train_state(config, network, optimizer, toy_model)
  assert set(start.params) == START_PARTS
  state = fresh.replace(
    params={**fresh.params, **start.params}, batch_stats={**fresh.batch_stats, **start.batch_stats}
  )
  prior_config = dataclasses.replace(config, model=dataclasses.replace(config.model))
  step = jax.jit(make_train_step(config, network, optimizer, prior_config))
  camera_prior = {
    collection: {name: tree for name, tree in parts.items() if name in CAMERA_MODULES}
    for collection, parts in state_variables(start).items()
  }
  states, batches, metrics = [state], [], []
  source = DrawnSource(toy_model, EXAMPLES)
  with training_batches(source, config, len(toy_model.v_template)) as loader:
    for _ in range(STEPS):
      batches.append(next(loader)._replace(example_id=None))
      state, values = step(state, batches[-1], toy_model, camera_prior)
      states.append(state)
      metrics.append(jax.device_get(values))
  return step, camera_prior, states, batches, metrics


def test_two_devices_and_the_loop_take_the_steps_of_one(runs, single):
  """The samples too: an example's key depends on the run, the step and its place in the split."""
  folder, _, straight, _ = runs
  _, _, states, _, metrics = single
  logged = read_metrics(folder / 'straight')
  assert len(logged) == len(metrics) == STEPS
  for line, values in zip(logged, metrics, strict=True):
    for name, value in values.items():
      # Sums in another order; the steps amplify it.
      np.testing.assert_allclose(line[name], value, rtol=5e-3, atol=1e-4, err_msg=name)
  chex.assert_trees_all_close(
    straight.batch_stats, jax.device_get(states[-1].batch_stats), rtol=5e-3, atol=1e-3
  )


SAMPLED = {'joints_2d_nll', 'joints_2d_nll_prior'}


def changed_terms(values, reference) -> set[str]:
  terms = {name for name in reference if name.endswith(('_nll', '_kl', '_prior', '_limits'))}
  return {name for name in terms if values[name] != reference[name]}


def test_samples_follow_the_runs_key_and_the_step_alone(single, toy_model):
  step, camera_prior, states, batches, metrics = single

  def take(state):
    return jax.device_get(step(state, batches[0], toy_model, camera_prior)[1])

  assert changed_terms(take(states[0]), metrics[0]) == set()
  assert changed_terms(take(states[0].replace(key=states[0].key + 1)), metrics[0]) == SAMPLED
  assert changed_terms(take(states[0].replace(step=states[0].step + 1)), metrics[0]) == SAMPLED


def test_the_order_of_a_batch_changes_no_sample(single, toy_model):
  step, camera_prior, states, batches, metrics = single
  order = np.array([2, 0, 3, 1])
  shuffled = jax.tree.map(lambda leaf: leaf[order], batches[0])
  _, values = step(states[0], shuffled, toy_model, camera_prior)
  for name in SAMPLED:
    np.testing.assert_allclose(values[name], metrics[0][name], rtol=1e-4, err_msg=name)


def test_another_camera_prior_changes_its_own_term_alone(single, toy_model):
  step, camera_prior, states, batches, metrics = single
  other = jax.tree.map(lambda leaf: leaf + 0.1, camera_prior)
  _, values = step(states[0], batches[0], toy_model, other)
  assert changed_terms(jax.device_get(values), metrics[0]) == {'camera_kl'}


def test_weak_batches_cannot_tell_right_3d_labels_from_wrong_ones(runs, toy_model):
  config = weak_config(runs[0] / 'start')
  batches = []
  for source in (DrawnSource(toy_model, EXAMPLES), Spoilt(toy_model, EXAMPLES)):
    with training_batches(source, config, len(toy_model.v_template)) as loader:
      batches.append([next(loader) for _ in range(3)])
  for ours, theirs in zip(*batches, strict=True):
    for field in ours._fields:
      np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), err_msg=field)


def test_a_weak_run_without_camera_prior_is_told_how_and_leaves_nothing(tmp_path, toy_model):
  config = apply_overrides(get_config('toy_weak'), SETTINGS)
  source = DrawnSource(toy_model, 2)
  with pytest.raises(ValueError, match=r"loss.kind='elbo' needs a camera prior.*--camera_prior="):
    train_and_evaluate(config, str(tmp_path / 'run'), toy_model, source, source)
  assert not list(tmp_path.iterdir())
