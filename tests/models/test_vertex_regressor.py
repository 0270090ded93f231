"""AMVUR's tokens, bounds and sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.config import AttentionConfig
from hand_jax.models.vertex_regressor import (
  TokenEmbedding,
  VertexRegressor,
  blend_matrix,
  positional_encoding,
  query_vertices,
  spread_vertices,
)
from tests.drawn_variables import drawn_by

pytestmark = pytest.mark.slow


def drawn(*shape, size=1.0, seed=0):
  return jnp.asarray(size * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def make_regressor(**changes):
  settings = {'length_unit_m': 0.01, 'min_log_variance': -8.0, 'max_log_variance': 6.0}
  return VertexRegressor(AttentionConfig(width=16, heads=2, self_layers=1), **settings | changes)


def test_embedding_equals_a_dense_layer_on_the_written_out_tokens():
  template, feature = drawn(9, 3), drawn(2, 11)
  embedding = TokenEmbedding(width=5)
  variables = drawn_by(embedding.init, template, feature)
  variables['params']['bias'] = np.arange(5, dtype=np.float32)
  tokens = positional_encoding(template, feature)
  params = variables['params']
  expected = np.asarray(tokens) @ np.asarray(params['kernel']) + np.asarray(params['bias'])
  assert tokens.shape == (2, 9, 14)
  np.testing.assert_allclose(
    jax.jit(embedding.apply)(variables, template, feature), expected, atol=1e-5
  )


def test_log_variance_starts_at_one_unit_and_stays_in_its_bounds():
  vertices = drawn(12, 3, size=0.05)
  feature = drawn(3, 8, seed=1)
  regressor = make_regressor()
  variables = jax.jit(regressor.init)(jax.random.key(2), vertices, vertices[:4], feature)
  apply = jax.jit(regressor.apply)
  _, log_variance = apply(variables, vertices, vertices[:4], feature)
  assert np.abs(log_variance).max() < 1.5
  for sign in (1.0, -1.0):
    variables['params']['log_variance']['bias'] = np.full(3, sign * 1e6, np.float32)
    _, bounded = apply(variables, vertices, vertices[:4], feature)
    np.testing.assert_allclose(bounded, 6.0 if sign > 0 else -8.0, atol=1e-4)


def test_offset_is_counted_in_the_length_unit():
  vertices = drawn(12, 3, size=0.05)
  feature = drawn(1, 8, seed=1)
  variables = drawn_by(make_regressor().init, vertices, vertices[:4], feature)
  centimetre, _ = jax.jit(make_regressor().apply)(variables, vertices, vertices[:4], feature)
  metre, _ = jax.jit(make_regressor(length_unit_m=1.0).apply)(
    variables, vertices, vertices[:4], feature
  )
  np.testing.assert_allclose(metre, 100 * centimetre, rtol=1e-5)


def test_every_vertex_sees_its_own_place():
  vertices = drawn(12, 3, size=0.05)
  feature = jnp.ones((1, 8))
  regressor = make_regressor()
  variables = drawn_by(regressor.init, vertices, vertices[:4], feature)
  offset, log_variance = jax.jit(regressor.apply)(variables, vertices, vertices[:4], feature)
  assert len(np.unique(np.asarray(offset[0, :, 0]))) == 12
  assert len(np.unique(np.asarray(log_variance[0, :, 0]))) == 12


def test_spread_vertices_match_a_loop():
  points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
  chosen = [0]
  while len(chosen) < 9:
    distance = [min(np.sum((point - points[i]) ** 2) for i in chosen) for point in points]
    chosen.append(int(np.argmax(distance)))
  np.testing.assert_array_equal(spread_vertices(jnp.asarray(points), 9), chosen)


def test_blending_keeps_constants_and_follows_smooth_fields():
  points = np.random.default_rng(0).uniform(size=(400, 3)).astype(np.float32)
  errors = []
  for count in (25, 100):
    coarse = points[spread_vertices(jnp.asarray(points), count)]
    blend = np.asarray(jax.jit(blend_matrix)(points, coarse))
    assert blend.min() >= 0
    np.testing.assert_allclose(blend.sum(axis=1), 1, rtol=1e-5)
    errors.append(np.abs(blend @ coarse - points).max())
  assert errors[1] < 0.6 * errors[0]


def test_coarse_vertices_give_an_output_for_every_vertex():
  vertices = drawn(30, 3, size=0.05)
  feature = drawn(2, 8, seed=1)
  attention = AttentionConfig(width=16, heads=2, self_layers=1, coarse_vertices=10)
  regressor = VertexRegressor(attention, 0.01, -8.0, 6.0)
  queries = query_vertices(vertices, attention)
  assert queries is not None and len(set(queries.tolist())) == 10
  inputs = (vertices, vertices[:4], feature, None, queries)
  variables = drawn_by(regressor.init, *inputs)
  offset, log_variance = jax.jit(regressor.apply)(variables, *inputs)
  assert offset.shape == log_variance.shape == (2, 30, 3)
  assert query_vertices(vertices, dataclasses.replace(attention, coarse_vertices=0)) is None
  assert len(np.unique(np.asarray(offset[0, :, 0]))) == 30
