"""Each experiment of Tables 2 to 5 takes a step on the dummy data of its data set.

Shapes alone: tests/experiments/test_experiments.py takes real steps of the same objectives, and
tests/experiments/test_real_data_recipe.py trains on these data.
"""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest

from experiments.configs.benchmarks import BENCHMARKS
from experiments.configs.names import get_config
from hand_jax.data.example_sources import create_source
from hand_jax.data.pipeline import training_batches
from hand_jax.mano.assets import load_mano_model
from hand_jax.models.hand_network import create_network
from hand_jax.runs.hand_models import load_training_model
from hand_jax.runs.train_state import state_variables
from hand_jax.training.state import create_optimizer, create_train_state
from hand_jax.training.step import make_train_step
from tests.experiments.test_benchmark_configs import starts
from tests.experiments.test_experiments import at_toy_size
from tests.preparing.test_prepare_real import prepare_freihand, prepare_ho3d

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def prepared(tmp_path_factory, mano_dir):
  folder = tmp_path_factory.mktemp('prepared')
  prepare_freihand(folder)
  for version in ('v2', 'v3'):
    prepare_ho3d(folder, version, mano_dir)
  return folder


@pytest.mark.parametrize('name', BENCHMARKS)
def test_an_experiment_takes_a_step_on_its_data(name, prepared, mano_dir):
  config = get_config(name)
  data = dataclasses.replace(config.data, data_dir=str(prepared))
  config = at_toy_size(dataclasses.replace(config, data=data))
  model = load_training_model(data.dataset, mano_dir)
  source = create_source(config.data, data.train_split, config.model.image_size)
  with training_batches(source, config, len(model.v_template)) as batches:
    batch = next(batches)._replace(example_id=None)
  weak = config.data.labels == '2d'
  assert weak == ('weakly' in name or name in ('ho3d_v2_j2d', *starts('ho3d_v2_j2d')))
  # HO3D's training half has frames without masks; its labels are complete.
  assert np.asarray(batch.has_3d).all() == np.asarray(batch.camera_mask).any() == (not weak)
  assert (np.asarray(batch.joint_confidence) > 0).all()
  # The crop shows the hand: most of its joints lie inside.
  assert (np.abs(batch.joints_normalized) < 1.2).mean() > 0.8
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
  assert len(model.v_template) == len(load_mano_model().v_template)
  # Experiments of several data sets that are otherwise the same share a step.
  anonymous = dataclasses.replace(config.data, dataset='freihand')
  take_a_step(dataclasses.replace(config, name='any', data=anonymous), shapes)


@functools.cache
def take_a_step(config, batch):
  """Evaluates the shapes of a step: what it returns can go into the next one."""
  model, network = load_mano_model(), create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = jax.eval_shape(lambda: create_train_state(config, network, optimizer, model))
  # The camera prior of a weak run may be any run's camera model, so here its own.
  prior = (config, state_variables(state)) if config.loss.kind == 'elbo' else (None, None)
  step = make_train_step(config, network, optimizer, prior[0])
  after, metrics = jax.eval_shape(step, state, batch, model, prior[1])
  chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
  assert metrics['total'].shape == ()


@functools.cache
def variables(model_config):
  """Name -> shape and type of a full-size network's parameters and statistics."""
  config = dataclasses.replace(get_config('freihand_supervised'), model=model_config)
  network, optimizer = create_network(config), create_optimizer(config.optimizer, 1)
  create = functools.partial(create_train_state, config, network, optimizer, load_mano_model())
  leaves = jax.tree_util.tree_flatten_with_path(state_variables(jax.eval_shape(create)))[0]
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): (leaf.shape, leaf.dtype)
    for path, leaf in leaves
  }


@pytest.mark.parametrize('name', [name for name in BENCHMARKS if starts(name)])
def test_an_experiment_takes_all_that_its_starts_hold(name):
  """By name, of the same shapes; what is left is the part that none of them trained.

  AMVUR's warm-up has no place for the prior-net of the run whose backbone it takes.
  """
  model = get_config(name).model
  ours, given = variables(model), {}
  for start in starts(name):
    given |= variables(get_config(start).model)
  if model.branches == 'posterior':
    given = {path: shape for path, shape in given.items() if path.split('/')[1] != 'prior_net'}
  assert given.items() <= ours.items()
  fresh = {path.split('/')[1] for path in ours.keys() - given.keys()}
  if model.texture.enabled:
    assert fresh == {'texture_regressor'}
  else:
    assert fresh == (set() if len(starts(name)) == 2 else {'vertex_regressor'})
