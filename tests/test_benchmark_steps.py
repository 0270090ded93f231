"""Each experiment of Tables 2 to 5 takes a step on the dummy data of its data set.

Shapes alone: tests/test_experiments.py takes real steps of the same objectives, and
tests/test_real_data_recipe.py trains on these data.
"""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from experiments.benchmark_configs import BENCHMARKS
from experiments.configs import get_config
from hand_jax.data.pipeline import create_source, training_batches
from hand_jax.models.hand_network import create_network
from hand_jax.training.hand_models import load_training_model
from hand_jax.training.state import create_optimizer, create_train_state, state_variables
from hand_jax.training.step import make_train_step
from tests.test_experiments import at_toy_size
from tests.test_prepare_real import mano_dir, prepare_freihand, prepare_ho3d  # noqa: F401


@pytest.fixture(scope='module')
def prepared(tmp_path_factory, mano_dir):  # noqa: F811
  folder = tmp_path_factory.mktemp('prepared')
  prepare_freihand(folder)
  for version in ('v2', 'v3'):
    prepare_ho3d(folder, version, mano_dir)
  return folder


@pytest.mark.parametrize('name', BENCHMARKS)
def test_an_experiment_takes_a_step_on_its_data(name, prepared, mano_dir):  # noqa: F811
  config = get_config(name)
  data = dataclasses.replace(config.data, data_dir=str(prepared))
  config = at_toy_size(dataclasses.replace(config, data=data))
  model = load_training_model(data.dataset, mano_dir)
  source = create_source(config.data, data.train_split, config.model.image_size)
  with training_batches(source, config, len(model.v_template)) as batches:
    batch = next(batches)._replace(example_id=None)
  weak = 'weakly' in name
  # HO3D's training half has frames without masks; its labels are complete.
  assert np.asarray(batch.has_3d).all() == np.asarray(batch.camera_mask).any() == (not weak)
  assert (np.asarray(batch.joint_confidence) > 0).all()
  # The crop shows the hand: most of its joints lie inside.
  assert (np.abs(batch.joints_normalized) < 1.2).mean() > 0.8
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = jax.eval_shape(lambda: create_train_state(config, network, optimizer, model))
  # The camera prior of a weak run may be any run's camera model, so here its own.
  prior = (config, state_variables(state)) if config.loss.kind == 'elbo' else (None, None)
  step = make_train_step(config, network, optimizer, prior[0])
  after, metrics = jax.eval_shape(step, state, batch, model, prior[1])
  chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
  assert metrics['total'].shape == ()
