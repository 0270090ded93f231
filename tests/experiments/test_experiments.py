"""Every named experiment, shrunk to toy size, takes a real step that moves what it trains."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest

from experiments.configs.benchmarks import ROWS
from experiments.configs.names import EXPERIMENTS, get_config
from hand_jax.config import AttentionConfig, BackboneConfig, TextureConfig
from hand_jax.data.pipeline import training_batches
from hand_jax.models.hand_network import create_network
from hand_jax.runs.train_state import state_variables
from hand_jax.training.state import create_optimizer, create_train_state
from hand_jax.training.step import make_train_step
from tests.drawn_hands import DrawnSource
from tests.toy_runs import expected_terms


def at_toy_size(config):
  """The same objective, data and branches in a network of a few thousand parameters."""
  settings = config.model
  backbone = BackboneConfig(name='tiny', batch_norm=settings.backbone.batch_norm)
  attention = AttentionConfig(
    width=8,
    heads=2,
    cross_layers=1,
    self_layers=1,
    mlp_ratio=2,
    coarse_vertices=min(settings.attention.coarse_vertices, 5),
  )
  texture = TextureConfig(
    enabled=settings.texture.enabled,
    width=8,
    heads=2,
    self_layers=1,
    mlp_ratio=2,
    normals=settings.texture.normals,
    hidden_fraction=settings.texture.hidden_fraction,
  )
  return dataclasses.replace(
    config,
    model=dataclasses.replace(
      settings,
      texture=texture,
      image_size=32,
      backbone=backbone,
      prior_hidden=(8,),
      camera_hidden=(8,),
      pose_components=min(settings.pose_components, 12),
      attention=attention,
    ),
    optimizer=dataclasses.replace(config.optimizer, warmup_steps=0),
    data=dataclasses.replace(config.data, features='none'),
    training=dataclasses.replace(config.training, batch_size=2, num_steps=2),
  )


def step_key(config):
  """What a step is compiled anew for: the model, and the terms of its loss at any weight."""
  if config.model.branches == 'prior':  # which has no attention
    model = dataclasses.replace(config.model, attention=AttentionConfig())
    config = dataclasses.replace(config, model=model)
  loss = dataclasses.asdict(config.loss)
  terms = {key: bool(value) if type(value) is float else value for key, value in loss.items()}
  return str((config.model, terms, config.data.labels))


def drawn_state(config, network, optimizer, model):
  """A first state of numpy's draws: compiling the network's own takes as long as its step's."""
  create = functools.partial(create_train_state, config, network, optimizer, model)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name in ('scale', 'var'):
      return np.ones(leaf.shape, leaf.dtype)
    if name in ('bias', 'mean'):
      return np.zeros(leaf.shape, leaf.dtype)
    fan_in = np.prod(leaf.shape[:-1])
    return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(leaf.dtype)

  state = jax.eval_shape(create)
  drawn = jax.tree_util.tree_map_with_path(draw, (state.params, state.batch_stats))
  rest = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
  return rest.replace(params=drawn[0], batch_stats=drawn[1])


def make_step(config, model):
  """The step and its arguments, of which the first two are state and batch."""
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  # A texture learns only where the hand is seen, which the network's own first camera sees to.
  create = create_train_state if config.model.texture.enabled else drawn_state
  state = create(config, network, optimizer, model)
  with training_batches(DrawnSource(model, 2, size=40), config, len(model.v_template)) as batches:
    batch = next(batches)._replace(example_id=None)
  is_elbo = config.loss.kind == 'elbo'
  step = make_train_step(config, network, optimizer, config if is_elbo else None)
  # Any run's camera model may be the camera prior, so here the run's own before the step.
  return step, (state, batch, model, state_variables(state) if is_elbo else None)


_taken = {}


def take_a_step(config, model):
  """State before, state after and metrics; experiments that shrink to the same one share a step."""
  key = step_key(config)
  if key in _taken:
    return _taken[key]
  step, arguments = make_step(config, model)
  after, metrics = jax.jit(step)(*arguments)
  _taken[key] = arguments[0], after, jax.device_get(metrics), arguments[1]
  return _taken[key]


# Trained from end to end by tests/training.
TRAINED = {'toy', 'toy_weak', 'toy_texture'}
# Each combines what others here have: its loss, its branches, its attention. Traced below.
COMBINED = (
  'synthetic_supervised',
  'synthetic_amvur_supervised',
  'synthetic_small_amvur_weak',
  'synthetic_small_weak',
)
# Experiments on FreiHAND and HO3D are rows of a table: one of each kind of loss. All of them are
# traced on their data in test_benchmark_steps.py.
STEPPING = [name for name in EXPERIMENTS if name not in {*ROWS, *TRAINED, *COMBINED}] + [
  'freihand_supervised',
  'ho3d_v2_l2_supervised',
  'ho3d_v2_l2_weakly_supervised',
  'ho3d_v2_j2d_c_j3d',
]


@pytest.mark.slow
@pytest.mark.parametrize('name', STEPPING)
def test_an_experiment_takes_a_step_at_toy_size(name, toy_model):
  config = at_toy_size(get_config(name))
  before, after, metrics, batch = take_a_step(config, toy_model)
  assert all(np.isfinite(value) for value in metrics.values())
  assert metrics['gradient_norm'] > 0 and expected_terms(config) <= set(metrics)
  assert int(after.step) == 1
  expected = {'backbone', 'feature_norm', 'camera_model'}
  expected |= {'prior_net'} if config.model.branches != 'posterior' else set()
  expected |= {'vertex_regressor'} if config.model.branches != 'prior' else set()
  expected |= {'prior_sigma'} if config.model.prior_sigma == 'learned' else set()
  expected |= {'texture_regressor'} if config.model.texture.enabled else set()
  assert set(after.params) == expected
  trained = {'texture_regressor'} if config.loss.kind == 'photometric' else expected
  if config.optimizer.backbone_learning_rate_scale == 0:
    trained = trained - {'backbone'}
    chex.assert_trees_all_equal(before.params['backbone'], after.params['backbone'])
  for part in trained:
    moved = [
      bool((a != b).any())
      for a, b in zip(
        jax.tree.leaves(before.params[part]), jax.tree.leaves(after.params[part]), strict=True
      )
    ]
    assert any(moved), part
  if config.data.labels == '2d':
    assert not batch.has_3d.any() and not batch.camera_mask.any()


@pytest.mark.slow
@pytest.mark.parametrize('name', COMBINED)
def test_a_combined_experiment_can_take_a_step(name, toy_model):
  """Shapes alone."""
  config = at_toy_size(get_config(name))
  step, arguments = make_step(config, toy_model)
  after, metrics = jax.eval_shape(step, *arguments)
  chex.assert_trees_all_equal_shapes_and_dtypes(after, arguments[0])
  assert expected_terms(config) <= set(metrics)


@pytest.mark.slow
def test_weak_experiments_see_no_3d_label(toy_model):
  """Whatever the data set holds: the fields are empty, not merely masked."""
  weak = [name for name in EXPERIMENTS if 'weak' in name or name == 'hand_photos']
  assert len(weak) >= 8
  source, vertices = DrawnSource(toy_model, 2, size=40), len(toy_model.v_template)
  for name in weak:
    config = at_toy_size(get_config(name))
    assert config.data.labels == '2d'
    with training_batches(source, config, vertices) as batches:
      batch = next(batches)
    assert batch.joint_confidence.all()
    for field in ('vertices_hand', 'joints_hand', 'camera', 'root_camera'):
      np.testing.assert_array_equal(getattr(batch, field), 0, err_msg=f'{name} {field}')
    for field in ('has_3d', 'camera_mask', 'has_root', 'has_mask', 'hand_mask'):
      assert not getattr(batch, field).any(), f'{name} {field}'
