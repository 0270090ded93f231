"""Every named experiment, shrunk to toy size, can take a step, and every kind moves what it trains.

Compiling a step takes most of its time, so an experiment is only traced where its objective trains
a network of its branches here, in the recipes of docs/, or in tests/training.
"""

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
  """A first state of numpy's draws: compiling the network's own takes as long as its step's.

  Cameras start near the initial one, where the hand is seen. A texture learns only there.
  """
  create = functools.partial(create_train_state, config, network, optimizer, model)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name in ('scale', 'var'):
      return np.ones(leaf.shape, leaf.dtype)
    if name in ('bias', 'mean'):
      return np.zeros(leaf.shape, leaf.dtype)
    fan_in = np.prod(leaf.shape[:-1])
    size = 0.1 if 'camera_model' in [key.key for key in path if hasattr(key, 'key')] else 1
    return (size * rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(leaf.dtype)

  state = jax.eval_shape(create)
  drawn = jax.tree_util.tree_map_with_path(draw, (state.params, state.batch_stats))
  rest = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
  return rest.replace(params=drawn[0], batch_stats=drawn[1])


def make_step(config, model):
  """The step and its arguments, of which the first two are state and batch."""
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = drawn_state(config, network, optimizer, model)
  with training_batches(DrawnSource(model, 2, size=40), config, len(model.v_template)) as batches:
    batch = next(batches)._replace(example_id=None)
  is_elbo = config.loss.kind == 'elbo'
  step = make_train_step(config, network, optimizer, config if is_elbo else None)
  # Any run's camera model may be the camera prior, so here the run's own before the step.
  return step, (state, batch, model, state_variables(state) if is_elbo else None)


# Of each kind of loss, and each network that differs in more than the attention's vertices, what
# nothing else trains.
STEPPING = (
  'synthetic_small_weak_learned_sigma',  # Algorithm 2, with one more part
  'synthetic_small_weak_letter',  # Algorithm 2 with other draws
  'synthetic_small_texture',  # Algorithm 4, robust, with normals and hidden regions
  'ho3d_v2_l2_weakly_supervised',  # squared errors of both branches
)
# Trained by tests/training: both branches by Gaussians and by Algorithm 2, and a texture.
TRAINED = {'toy', 'toy_weak', 'toy_texture'}
# test_real_data_recipe.py trains both branches by Gaussians and by Algorithm 2, each branch alone
# from 3D and from 2D labels, and a texture. test_hand_photos_recipe.py trains `hand_photos`. Both
# ask which parts moved. test_ablation_measuring.py trains `synthetic_features`, and
# tests/training/test_cached_training.py a frozen backbone. test_benchmark_steps.py traces the
# experiments on FreiHAND and HO3D.
TRACED = [name for name in EXPERIMENTS if name not in {*ROWS, *TRAINED, *STEPPING}]


def expected_parts(config):
  expected = {'backbone', 'feature_norm', 'camera_model'}
  expected |= {'prior_net'} if config.model.branches != 'posterior' else set()
  expected |= {'vertex_regressor'} if config.model.branches != 'prior' else set()
  expected |= {'prior_sigma'} if config.model.prior_sigma == 'learned' else set()
  expected |= {'texture_regressor'} if config.model.texture.enabled else set()
  return expected


@pytest.mark.slow
@pytest.mark.parametrize('name', STEPPING)
def test_an_experiment_takes_a_step_at_toy_size(name, toy_model):
  config = at_toy_size(get_config(name))
  step, arguments = make_step(config, toy_model)
  after, metrics = jax.device_get(jax.jit(step)(*arguments))
  before, batch = arguments[:2]
  assert all(np.isfinite(value) for value in metrics.values())
  assert metrics['gradient_norm'] > 0 and expected_terms(config) <= set(metrics)
  assert int(after.step) == 1
  expected = expected_parts(config)
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


_traced = {}


def trace_a_step(config, model):
  """State before, state after and metrics as shapes, traced once for configs that shrink alike."""
  key = step_key(config)
  if key not in _traced:
    step, arguments = make_step(config, model)
    _traced[key] = arguments[0], *jax.eval_shape(step, *arguments)
  return _traced[key]


@pytest.mark.slow
@pytest.mark.parametrize('name', TRACED)
def test_an_experiment_can_take_a_step(name, toy_model):
  """Shapes alone."""
  config = at_toy_size(get_config(name))
  before, after, metrics = trace_a_step(config, toy_model)
  chex.assert_trees_all_equal_shapes_and_dtypes(after, before)
  assert set(after.params) == expected_parts(config)
  assert expected_terms(config) <= set(metrics)


@pytest.mark.slow
def test_weak_experiments_see_no_3d_label(toy_model):
  """Whatever the data set holds: the fields are empty, not merely masked."""
  weak = [name for name in EXPERIMENTS if 'weak' in name or name == 'hand_photos']
  assert len(weak) >= 8
  source, vertices = DrawnSource(toy_model, 2, size=40), len(toy_model.v_template)
  seen = set()
  for name in weak:
    config = at_toy_size(get_config(name))
    assert config.data.labels == '2d'
    if (made_from := str((config.data, config.loss.silhouette))) in seen:
      continue
    seen.add(made_from)
    with training_batches(source, config, vertices) as batches:
      batch = next(batches)
    assert batch.joint_confidence.all()
    for field in ('vertices_hand', 'joints_hand', 'camera', 'root_camera'):
      np.testing.assert_array_equal(getattr(batch, field), 0, err_msg=f'{name} {field}')
    for field in ('has_3d', 'camera_mask', 'has_root', 'has_mask', 'hand_mask'):
      assert not getattr(batch, field).any(), f'{name} {field}'
