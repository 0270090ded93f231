"""What AMVUR reads: the joints' tokens, the photo, and the mesh that its offsets count from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config import AttentionConfig
from hand_jax.mano.model import regress_joints
from hand_jax.models.hand_network import create_network, initialize_network
from hand_jax.models.vertex_regressor import VertexRegressor

pytestmark = pytest.mark.slow

VERTICES = jax.random.normal(jax.random.key(0), (12, 3)) * 0.05
JOINTS = jax.random.normal(jax.random.key(1), (4, 3)) * 0.05
FEATURE = jax.random.normal(jax.random.key(2), (1, 8))
# Metres: what an untrained head's offsets differ by is far above it, rounding far below.
SEEN_M = 1e-6


def crossing_only():
  """AMVUR without self-attention: a vertex has nothing but itself and the joints."""
  attention = AttentionConfig(width=16, heads=2, cross_layers=1, self_layers=0)
  regressor = VertexRegressor(attention, 0.01, -8.0, 6.0)
  variables = jax.jit(regressor.init)(jax.random.key(3), VERTICES, JOINTS, FEATURE)
  return jax.jit(lambda *inputs: jnp.concatenate(regressor.apply(variables, *inputs), axis=-1))


def test_cross_attention_reads_joints_and_no_other_vertex():
  """Vertex queries over joint keys (Table 1): every joint counts, in any order."""
  outputs = crossing_only()
  start = outputs(VERTICES, JOINTS, FEATURE)
  for joint in range(len(JOINTS)):
    moved = outputs(VERTICES, JOINTS.at[joint].add(0.05), FEATURE)
    assert (np.abs(moved - start).max(axis=-1) > SEEN_M).all(), f'joint {joint} counts for nothing'
  np.testing.assert_allclose(outputs(VERTICES, JOINTS[::-1], FEATURE), start, atol=1e-6)
  moved = outputs(VERTICES.at[5].add(0.05), JOINTS, FEATURE)
  others = np.arange(len(VERTICES)) != 5
  np.testing.assert_array_equal(moved[:, others], start[:, others])
  assert np.abs(moved[:, 5] - start[:, 5]).max() > SEEN_M


def toy_network(base: str, branches: str):
  config = get_config('toy')
  settings = dataclasses.replace(config.model, vertex_offset_from=base, branches=branches)
  return create_network(dataclasses.replace(config, model=settings))


@pytest.fixture(scope='module', params=['template', 'prior', 'alone'])
def two_photos(request, model):
  """Network, variables and its estimate of two photos; what offsets count from, (V, 3) or more."""
  base = 'prior' if request.param == 'prior' else 'template'
  branches = 'posterior' if request.param == 'alone' else 'both'
  network = toy_network(base, branches)
  variables = initialize_network(network, jax.random.key(0), model)
  images = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
  return base, network, variables, images


def estimate_with(network, variables, images, model, mean_head=1.0):
  """The estimate with the last layer of the vertices' means multiplied."""
  params = dict(variables['params'])
  head = jax.tree.map(lambda leaf: mean_head * leaf, params['vertex_regressor']['mean'])
  params['vertex_regressor'] = {**params['vertex_regressor'], 'mean': head}
  apply = jax.jit(network.apply, static_argnames='train')
  return apply({**variables, 'params': params}, images, model, train=False)


def test_offsets_count_from_the_mesh_that_the_setting_names(two_photos, model):
  """With a mean head of zero the posterior is that mesh, whatever branches there are."""
  base, network, variables, images = two_photos
  estimate = estimate_with(network, variables, images, model, mean_head=0.0)
  template = model.v_template - regress_joints(model, model.v_template)[:1]
  if estimate.prior is not None:  # else the two would be one
    assert np.abs(estimate.prior.vertices.mean - template[None]).max() > 0.01
  expected = template[None] if base == 'template' else estimate.prior.vertices.mean
  expected = np.broadcast_to(expected, estimate.posterior.vertices.mean.shape)
  np.testing.assert_allclose(estimate.posterior.vertices.mean, expected, atol=1e-7)


def test_offsets_and_deviations_follow_the_photo(two_photos, model):
  """AMVUR itself sees the photo, not only the mesh that it adds to."""
  _, network, variables, images = two_photos
  own = estimate_with(network, variables, images, model).posterior.vertices
  base = estimate_with(network, variables, images, model, mean_head=0.0).posterior.vertices
  offsets = np.asarray(own.mean - base.mean)
  assert np.abs(offsets[0] - offsets[1]).max() > 10 * SEEN_M
  assert np.abs(own.log_variance[0] - own.log_variance[1]).max() > 1e-3
