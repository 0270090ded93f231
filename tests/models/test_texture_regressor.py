"""Texture regression: sampling, what hidden vertices carry, Table 1's sizes."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from hand_jax.config import TextureConfig
from hand_jax.models.texture_regressor import (
  TextureEmbedding,
  TextureRegressor,
  hidden_vertices,
  reverse_interpolation,
  sample_hidden_region,
  starting_colors,
  texture_position,
  texture_tokens,
)
from hand_jax.rendering.images import render_vertex_colors
from hand_jax.types import ImageFeatures
from tests.drawn_variables import drawn_by

pytestmark = pytest.mark.slow

BATCH, VERTICES, SIDE, CHANNELS, GLOBAL = 2, 30, 12, 4, 6
CONFIG = TextureConfig(enabled=True, width=8, heads=2, self_layers=1, mlp_ratio=2, normals=True)
PLAIN = TextureConfig(enabled=True, width=8, heads=2, self_layers=1, mlp_ratio=2)


@pytest.fixture(scope='module')
def inputs():
  rng = np.random.default_rng(0)
  features = ImageFeatures(
    jnp.asarray(rng.normal(size=(BATCH, GLOBAL)), jnp.float32),
    jnp.asarray(rng.normal(size=(BATCH, SIDE, SIDE, CHANNELS)), jnp.float32),
  )
  points = jnp.asarray(rng.uniform(-1.1, 1.1, (BATCH, VERTICES, 2)), jnp.float32)
  visible = jnp.asarray(rng.uniform(size=(BATCH, VERTICES)) < 0.6)
  template = jnp.asarray(rng.normal(size=(VERTICES, 3)), jnp.float32)
  normals = jnp.asarray(rng.normal(size=(BATCH, VERTICES, 3)), jnp.float32)
  return features, points, visible, template, normals


@pytest.fixture(scope='module')
def regressor(inputs):
  module = TextureRegressor(CONFIG)
  variables = drawn_by(module.init, *inputs)
  return variables, jax.jit(lambda *inputs: module.apply(variables, *inputs))


def test_colours_start_from_the_photo_and_their_mean(inputs):
  visible = np.asarray(inputs[2]).copy()
  colors = np.random.default_rng(1).uniform(size=(BATCH, VERTICES, 3)).astype(np.float32)
  visible[1] = False
  start = np.asarray(jax.jit(starting_colors)(jnp.asarray(colors), jnp.asarray(visible)))
  np.testing.assert_array_equal(start[0][visible[0]], colors[0][visible[0]])
  mean = colors[0][visible[0]].mean(axis=0)
  hidden = start[0][~visible[0]]
  np.testing.assert_allclose(hidden, np.broadcast_to(mean, hidden.shape), atol=1e-6)
  np.testing.assert_array_equal(start[1], 0.5)


def test_an_untrained_branch_with_photo_colours_gives_what_it_starts_from(inputs):
  module = TextureRegressor(dataclasses.replace(CONFIG, photo_colors=True))
  colors = np.random.default_rng(1).uniform(0.05, 0.95, (BATCH, VERTICES, 3))
  colors = jnp.asarray(colors, jnp.float32)
  # The head's own first weights: that they are small is part of what is shown.
  variables = jax.jit(module.init)(jax.random.key(0), *inputs, colors)
  apply = jax.jit(module.apply)
  found = apply(variables, *inputs, colors)
  expected = jax.jit(starting_colors)(colors, inputs[2])
  np.testing.assert_allclose(found, expected, atol=0.06)
  extreme = apply(variables, *inputs, np.round(colors))
  assert np.isfinite(extreme).all() and extreme.min() >= 0 and extreme.max() <= 1
  with pytest.raises(ValueError, match='photo_colors needs the colours'):
    apply(variables, *inputs)


position_of = jax.jit(lambda template, normals: texture_position(template, normals, CONFIG))


@functools.partial(jax.jit, static_argnums=5)
def tokens_of(features, points, visible, template, normals, config):
  position = texture_position(template, normals, config)
  return texture_tokens(reverse_interpolation(features, points, visible), position)


def test_hidden_vertices_carry_their_position_alone(inputs):
  features, _, visible, template, _ = inputs
  tokens = np.asarray(tokens_of(*inputs, PLAIN))
  hidden = ~np.asarray(visible)
  assert hidden.any()
  np.testing.assert_array_equal(tokens[hidden][:, :-3], 0)
  for image in range(BATCH):
    np.testing.assert_array_equal(tokens[image, :, -3:], template)
    seen = tokens[image][~hidden[image]]
    np.testing.assert_array_equal(
      seen[:, CHANNELS:-3],
      np.broadcast_to(features.global_feature[image], (len(seen), GLOBAL)),
    )
    assert (seen[:, :CHANNELS] != 0).any(axis=1).all()


def test_embedding_is_a_dense_layer_on_the_written_out_tokens(inputs):
  features, points, visible, template, normals = inputs
  position = position_of(template, normals)
  np.testing.assert_array_equal(position[..., 3:], normals)
  module = TextureEmbedding(8)
  variables = drawn_by(module.init, position, features, points, visible)
  params = jax.tree.map(lambda leaf: leaf + np.float32(0.1), variables['params'])
  tokens = np.asarray(tokens_of(*inputs, CONFIG))
  np.testing.assert_allclose(
    jax.jit(module.apply)({'params': params}, position, features, points, visible),
    tokens @ params['kernel'] + params['bias'],
    atol=1e-5,
  )


def test_a_vertex_that_is_not_finite_is_hidden_and_leaves_gradients_alone(inputs):
  """As if it were hidden: the same values and gradients, to the last bit, whether or not a caller
  calls it visible."""
  features, points, visible, template, normals = inputs
  position = position_of(template, normals)
  module = TextureEmbedding(8)
  params = drawn_by(module.init, position, features, points, visible)['params']
  weights = np.random.default_rng(2).standard_normal((BATCH, VERTICES, 8), np.float32)

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
  def embedded(params, features, points, visible):
    tokens = module.apply({'params': params}, position, features, points, visible)
    return (weights * tokens).sum()

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
  def interpolated(kernel, features, points, visible):
    return (reverse_interpolation(features, points, visible) @ kernel * weights).sum()

  first = int(np.flatnonzero(visible[0])[0])
  hidden = visible.at[0, first].set(False)
  for function, weight in ((embedded, params), (interpolated, params['kernel'][:-6])):
    expected = function(weight, features, points, hidden)
    for seen, bad in itertools.product((visible, hidden), (np.nan, np.inf)):
      broken = points.at[0, first].set(bad)
      value, gradients = function(weight, features, broken, seen)
      assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
      jax.tree.map(np.testing.assert_array_equal, (value, gradients), expected)
    assert np.abs(expected[1][2]).max() > 0  # of the others


def test_every_part_of_the_embedding_starts_with_its_own_fan_in():
  features = ImageFeatures(jnp.zeros((1, 2048)), jnp.zeros((1, 4, 4, 64)))
  arguments = (jnp.zeros((1, 5, 3)), features, jnp.zeros((1, 5, 2)), jnp.ones((1, 5), bool))
  kernel = jax.jit(TextureEmbedding(256).init)(jax.random.key(2), *arguments)['params']['kernel']
  assert kernel.shape == (2115, 256)
  for rows in (kernel[:64], kernel[64:-3], kernel[-3:]):
    assert np.std(rows) == pytest.approx(len(rows) ** -0.5, rel=0.15)


def test_table_1_sizes():
  features = ImageFeatures(
    jax.ShapeDtypeStruct((1, 2048), jnp.float32),
    jax.ShapeDtypeStruct((1, 112, 112, 64), jnp.float32),
  )
  points = jax.ShapeDtypeStruct((1, 778, 2), jnp.float32)
  visible = jax.ShapeDtypeStruct((1, 778), jnp.bool_)
  template = jax.ShapeDtypeStruct((778, 3), jnp.float32)
  sampled = jax.eval_shape(reverse_interpolation, features, points, visible)
  assert sampled.shape == (1, 778, 2112)
  normals = jax.ShapeDtypeStruct((1, 778, 3), jnp.float32)
  position = jax.eval_shape(lambda *of: texture_position(*of, PLAIN), template, normals)
  assert jax.eval_shape(texture_tokens, sampled, position).shape == (1, 778, 2115)
  module = TextureRegressor(TextureConfig(enabled=True))
  colors = jax.eval_shape(
    lambda key, *inputs: module.init_with_output(key, *inputs)[0],
    *(jax.random.key(0), features, points, visible, template, normals),
  )
  assert colors.shape == (1, 778, 3)
  vertices_image = jax.ShapeDtypeStruct((1, 778, 3), jnp.float32)
  faces = jax.ShapeDtypeStruct((1538, 3), jnp.int32)
  rendered = jax.eval_shape(
    lambda *of: render_vertex_colors(*of, 224, 224), vertices_image, faces, colors
  )
  assert rendered.rgb.shape == (1, 224, 224, 3)
  assert rendered.silhouette.shape == (1, 224, 224)


def test_what_lies_at_a_hidden_vertex_s_place_changes_nothing(inputs, regressor):
  """An object before the hand: its pixels reach no colour while every vertex there is hidden."""
  features, points, _, template, normals = inputs
  _, apply = regressor
  left = points[..., 0] < 0
  changed = features.shallow_map.at[:, :, : SIDE // 2 - 1].add(5.0)
  other = features._replace(shallow_map=changed)
  before = apply(features, points, ~left, template, normals)
  np.testing.assert_array_equal(before, apply(other, points, ~left, template, normals))
  everywhere = jnp.ones_like(left)
  moved = apply(features, points, everywhere, template, normals) - apply(
    other, points, everywhere, template, normals
  )
  assert float(jnp.abs(moved).max()) > 1e-6


def test_hidden_vertices_get_colours_from_visible_ones(inputs, regressor):
  features, points, visible, template, normals = inputs
  variables, _ = regressor
  # The head starts near zero: with larger weights a difference can be told from rounding.
  head = {**variables['params']['rgb'], 'kernel': 100 * variables['params']['rgb']['kernel']}
  variables = {'params': {**variables['params'], 'rgb': head}}
  apply = jax.jit(lambda *inputs: TextureRegressor(CONFIG).apply(variables, *inputs))
  brighter = features._replace(shallow_map=features.shallow_map + 3.0)
  hidden = ~np.asarray(visible)
  change = apply(features, points, visible, template, normals) - apply(
    brighter, points, visible, template, normals
  )
  assert np.abs(np.asarray(change)[hidden]).max() > 1e-3
  blind = jnp.zeros_like(visible)
  np.testing.assert_array_equal(
    apply(features, points, blind, template, normals),
    apply(brighter, points, blind, template, normals),
  )


def test_colours_stay_in_range(inputs, regressor):
  features, points, visible, template, normals = inputs
  _, apply = regressor
  large = jax.tree.map(lambda leaf: 1e3 * leaf, features)
  colors = np.asarray(apply(large, points, visible, template, normals))
  assert np.isfinite(colors).all() and (colors >= 0).all() and (colors <= 1).all()


def test_a_hidden_region_is_beyond_a_plane_and_its_share_is_uniform():
  rng = np.random.default_rng(3)
  template = jnp.asarray(rng.normal(size=(400, 3)) * [0.04, 0.01, 0.03], jnp.float32)
  normals = rng.normal(size=(600, 400, 3))
  normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
  keys = jax.random.split(jax.random.key(0), 600)
  regions = jax.jit(jax.vmap(lambda key: sample_hidden_region(key, 0.6)))(keys)
  hidden = np.asarray(jax.jit(hidden_vertices)(regions, template, jnp.asarray(normals)))
  shares = np.sort(hidden.mean(axis=1))
  expected = 0.6 * (np.arange(600) + 0.5) / 600
  assert np.abs(shares - expected).max() < 0.6 * 1.63 / np.sqrt(600)  # Kolmogorov-Smirnov, 1 %
  for one, normal in list(zip(hidden, normals, strict=True))[:20]:
    # Some plane through places and normals parts them: a linear program finds it.
    sign = np.where(one, 1.0, -1.0)[:, None]
    features = np.concatenate([np.asarray(template) * 100, normal, np.ones((400, 1))], axis=1)
    found = linprog(
      np.zeros(7), A_ub=-sign * features, b_ub=-np.full(400, 1e-6), bounds=[(None, None)] * 7
    )
    assert found.status == 0, 'no plane parts the hidden vertices from the others'


def test_without_the_setting_normals_change_nothing(inputs):
  *others, normals = inputs
  for config, is_same in ((PLAIN, True), (CONFIG, False)):
    module = TextureRegressor(config)
    variables = drawn_by(module.init, *inputs)
    variables = jax.tree.map(lambda leaf: leaf + np.float32(0.05), variables)
    apply = jax.jit(module.apply)
    same = apply(variables, *others, normals) == apply(variables, *others, -normals)
    assert bool(same.all()) == is_same
