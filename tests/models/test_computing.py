"""bfloat16 activations and rematerialised blocks: what stays float32, and what memory is saved."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config import AttentionConfig, BackboneConfig
from hand_jax.config_text import apply_overrides
from hand_jax.models import backbone as backbones
from hand_jax.models import hand_landmark
from hand_jax.models.attention import dot_product_attention
from hand_jax.models.backbone import create_backbone
from hand_jax.models.computing import Computing
from hand_jax.models.hand_network import create_network
from hand_jax.models.layers import ConvNorm, batch_moments
from hand_jax.models.prior_net import hand_frame_vertices
from hand_jax.models.vertex_regressor import VertexRegressor
from hand_jax.training.state import create_optimizer
from hand_jax.training.step import make_train_step
from tests.drawn_variables import drawn_by, drawn_like, drawn_network
from tests.training.compiled_steps import abstract_inputs

pytestmark = pytest.mark.slow

# XLA merges on CPUs what is computed twice, which undoes rematerialisation there. Without the two
# passes that do so, the programs are as on accelerators.
UNMERGED: dict[str, Any] = {'xla_disable_hlo_passes': 'cse,cse_barrier_expander'}


@pytest.fixture(scope='module')
def config():
  return apply_overrides(get_config('toy'), ['model.compute_dtype=bfloat16'])


@pytest.fixture(scope='module')
def estimates(config, toy_model):
  """Estimates of the same variables in bfloat16 and float32, for photos of noise."""
  images = np.random.default_rng(1).standard_normal((3, 64, 64, 3), np.float32)
  network = create_network(config)
  variables = drawn_network(network, toy_model)
  # Untrained output layers give nearly zero: larger ones make the hand depend on the photo.
  variables = jax.tree_util.tree_map_with_path(
    lambda path, leaf: 10 * leaf if 'output' in jax.tree_util.keystr(path) else leaf, variables
  )

  def estimate(dtype):
    changed = dataclasses.replace(config.model, compute_dtype=dtype)
    return jax.jit(network.clone(config=changed).apply, static_argnames='train')(
      variables, images, toy_model, train=False
    )

  return estimate('bfloat16'), estimate('float32')


def test_the_estimate_is_float32_and_near_that_of_float32(estimates):
  half, single = estimates
  assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype('float32')}
  spread = np.abs(single.parameters.hand_pose - single.parameters.hand_pose[:1]).max()
  difference = np.abs(half.parameters.hand_pose - single.parameters.hand_pose).max()
  assert 0 < difference < 0.1 * spread
  assert np.abs(half.posterior.vertices.mean - single.posterior.vertices.mean).max() < 2e-3


def test_geometry_is_computed_in_float32(estimates, toy_model):
  """The vertices are MANO's of the parameters, to a hundredth of a micrometre and not to three
  digits.
  """
  half, _ = estimates
  expected = jax.jit(jax.vmap(hand_frame_vertices, in_axes=(None, 0)))(toy_model, half.parameters)
  np.testing.assert_allclose(half.prior.vertices.mean, expected, atol=1e-7)


def products(jaxpr, found):
  """Types of all products' outputs in a program, with its inner programs."""
  for equation in jaxpr.eqns:
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      found.append((equation.primitive.name, equation.outvars[0].aval.dtype.name))
    for value in jax.tree.leaves(
      equation.params, is_leaf=lambda v: hasattr(v, 'eqns') or hasattr(v, 'jaxpr')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        products(inner, found)
  return found


def test_a_step_in_bfloat16_keeps_a_float32_state_and_losses(config):
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  inputs = abstract_inputs(config, 2)
  step = make_train_step(config, network, optimizer)
  state, metrics = jax.eval_shape(step, *inputs)
  numbers = (state.params, state.batch_stats, metrics)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(numbers)} == {'float32'}
  # The optimizer also counts its steps.
  assert {leaf.dtype.name for leaf in jax.tree.leaves(state.opt_state)} == {'float32', 'int32'}
  found = products(jax.make_jaxpr(step)(*inputs).jaxpr, [])
  convolutions = {dtype for name, dtype in found if name == 'conv_general_dilated'}
  assert convolutions == {'bfloat16'}
  attention = [dtype for name, dtype in found if name == 'dot_general'].count('bfloat16')
  # A cross- and a self-attention block have eight products each, with two more for each gradient.
  # The weight gradient of each of three convolutions has one for each row of its kernel.
  assert attention == 2 * 8 * 3 + 3 * 3


def traced_step(*settings):
  config = apply_overrides(get_config('toy'), settings)
  network, optimizer = create_network(config), create_optimizer(config.optimizer, 2)
  step = make_train_step(config, network, optimizer)
  return str(jax.make_jaxpr(step)(*abstract_inputs(config, 2)))


def test_without_settings_a_run_has_no_bfloat16_and_rematerialises_nothing():
  program = traced_step()
  assert 'bf16' not in program and 'remat' not in program


def test_a_run_rematerialises_what_its_setting_says():
  assert 'remat' in traced_step('training.remat=blocks')


def test_moments_of_bfloat16_are_summed_in_float32():
  """Many pixels near 100: sums in bfloat16 would lose the fluctuation."""
  x = 100 + np.random.default_rng(0).normal(size=(4, 64, 64, 2)).astype(jnp.bfloat16)
  mean, variance = jax.jit(batch_moments)(x)
  exact = np.asarray(x, np.float64)
  np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-2)


def test_normalisation_keeps_the_input_type_and_float32_statistics():
  x = jnp.zeros((2, 6, 6, 3), jnp.bfloat16)
  module = ConvNorm(4, 3, depthwise=False)
  variables = drawn_by(module.init, x, False)
  for train in (True, False):
    apply = functools.partial(module.apply, train=train, mutable=['batch_stats'])
    y, updates = jax.eval_shape(apply, variables, x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype.name for leaf in jax.tree.leaves(updates)} == {'float32'}


def test_attention_weights_in_bfloat16_still_sum_to_one():
  """Over 778 equal keys: each weight rounds to three digits, and their sum must not drift."""
  queries = np.zeros((1, 1, 1, 4), jnp.bfloat16)
  keys = np.zeros((1, 778, 1, 4), jnp.bfloat16)
  mixed = jax.jit(dot_product_attention)(queries, keys, np.ones_like(keys))
  assert mixed.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(mixed, np.float32), 1, atol=8e-3)


SHORT = {
  'resnet50': ('RESNET50_STAGES', ((4, 32),), backbones),
  'efficientnet_b0': (
    'EFFICIENTNET_STAGES',
    (backbones.EfficientNetStage(6, 3, 2, 8, 2),),
    backbones,
  ),
  'hand_landmark': (
    'STAGES',
    tuple(hand_landmark.BottleneckStage(6, 6, 3, 1, 8, blocks) for blocks in (2, 1, 1, 1, 1)),
    hand_landmark,
  ),
}


@pytest.mark.parametrize('name', SHORT)
def test_rematerialised_backbones_have_the_same_gradients_and_need_less_memory(
  name, monkeypatch, float64
):
  """Of a few blocks each, for 16 images of 32 pixels.

  Activations are float64: in float32 the rounding of a second computation moves pixels over the
  kinks of ReLUs.
  """
  constant, stages, module = SHORT[name]
  monkeypatch.setattr(module, constant, stages)
  images = jnp.asarray(np.random.default_rng(0).normal(size=(16, 32, 32, 3)))
  kept, again = (create_backbone(BackboneConfig(name), remat=remat) for remat in (False, True))
  shapes, others = (
    jax.eval_shape(lambda net=net: net.init(jax.random.key(1), images[:1], False))
    for net in (kept, again)
  )
  assert jax.tree.structure(shapes) == jax.tree.structure(others)
  compare_gradients(kept, again, drawn_like(shapes), images)


def compare_gradients(kept, again, variables, images):
  def gradient_by(network):
    def loss(params):
      features, updates = network.apply(
        {**variables, 'params': params}, images, True, mutable=['batch_stats']
      )
      return jnp.sum(features.global_feature**2), updates

    return (
      jax.jit(jax.grad(loss, has_aux=True))
      .lower(variables['params'])
      .compile(compiler_options=UNMERGED)
    )

  programs = [gradient_by(network) for network in (kept, again)]
  assert_same_gradients(*(program(variables['params']) for program in programs))
  assert_less_memory(*programs)


def assert_same_gradients(expected, found):
  """To the digits of the largest: what batch normalisation cancels is rounding alone."""
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
  for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * largest)


def assert_less_memory(kept, again):
  before, after = (program.memory_analysis().temp_size_in_bytes for program in (kept, again))
  assert after < 0.9 * before, f'{after:,} bytes with rematerialised blocks, {before:,} without'


def test_rematerialised_attention_has_the_same_gradients_and_needs_less_memory(toy_model):
  """Of two self-attention blocks over all vertices."""
  attention = AttentionConfig(width=16, heads=2, self_layers=2, mlp_ratio=2)
  kept, again = (
    VertexRegressor(attention, 0.01, -8.0, 6.0, Computing(remat=remat)) for remat in (False, True)
  )
  vertices, joints = toy_model.v_template, toy_model.v_template[:21]
  feature = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8), np.float32))
  variables = drawn_by(kept.init, vertices, joints, feature)

  def gradient_by(regressor):
    def loss(variables):
      offset, log_variance = regressor.apply(variables, vertices, joints, feature)
      return jnp.sum(offset**2) * 1e4 + jnp.sum(log_variance**2)

    return jax.jit(jax.grad(loss)).lower(variables).compile(compiler_options=UNMERGED)

  programs = [gradient_by(regressor) for regressor in (kept, again)]
  assert_same_gradients(*(program(variables) for program in programs))
  assert_less_memory(*programs)


def test_rematerialised_blocks_average_their_moments_over_devices_only_once(monkeypatch):
  monkeypatch.setattr(backbones, 'RESNET50_STAGES', ((2, 8),))
  images = jnp.zeros((2, 16, 16, 3))

  initial = create_backbone(BackboneConfig('resnet50'))
  variables = jax.eval_shape(lambda: initial.init(jax.random.key(0), images, False))

  def count(remat):
    network = create_backbone(BackboneConfig('resnet50'), 'devices', remat)

    def loss(variables):
      features, _ = network.apply(variables, images, True, mutable=['batch_stats'])
      return jnp.sum(features.global_feature)

    program = jax.make_jaxpr(jax.grad(loss), axis_env=[('devices', 2)])(variables)
    return str(program).count(' psum')

  assert count(True) == count(False) > 0
