"""What AMVUR reads: the joints' tokens, the photo, and the mesh that its offsets count from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config import AttentionConfig
from hand_jax.mano.model import regress_joints
from hand_jax.models.hand_network import create_network
from hand_jax.models.vertex_regressor import VertexRegressor
from tests.drawn_variables import drawn_by, drawn_network

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
VERTICES = 0.05 * RNG.standard_normal((12, 3), np.float32)
JOINTS = 0.05 * RNG.standard_normal((4, 3), np.float32)
FEATURE = RNG.standard_normal((1, 8), np.float32)
# Metres: what an untrained head's offsets differ by is far above it, rounding far below.
SEEN_M = 1e-6


def crossing_only():
  """AMVUR without self-attention: a vertex has nothing but itself and the joints."""
  attention = AttentionConfig(width=16, heads=2, cross_layers=1, self_layers=0)
  regressor = VertexRegressor(attention, 0.01, -8.0, 6.0)
  variables = drawn_by(regressor.init, *map(jnp.asarray, (VERTICES, JOINTS, FEATURE)))
  return jax.jit(lambda *inputs: jnp.concatenate(regressor.apply(variables, *inputs), axis=-1))


def test_cross_attention_reads_joints_and_no_other_vertex():
  """Vertex queries over joint keys (Table 1): every joint counts, in any order."""
  outputs = crossing_only()
  start = outputs(VERTICES, JOINTS, FEATURE)
  for joint in range(len(JOINTS)):
    moved = outputs(VERTICES, JOINTS + 0.05 * (np.arange(len(JOINTS)) == joint)[:, None], FEATURE)
    assert (np.abs(moved - start).max(axis=-1) > SEEN_M).all(), f'joint {joint} counts for nothing'
  np.testing.assert_allclose(outputs(VERTICES, JOINTS[::-1], FEATURE), start, atol=1e-6)
  others = np.arange(len(VERTICES)) != 5
  moved = outputs(VERTICES + 0.05 * ~others[:, None], JOINTS, FEATURE)
  np.testing.assert_array_equal(moved[:, others], start[:, others])
  assert np.abs(moved[:, 5] - start[:, 5]).max() > SEEN_M


def toy_network(base: str, branches: str):
  config = get_config('toy')
  settings = dataclasses.replace(config.model, vertex_offset_from=base, branches=branches)
  return create_network(dataclasses.replace(config, model=settings))


@pytest.fixture(scope='module', params=['template', 'prior', 'alone'])
def two_photos(request, model):
  """What offsets count from, and a function of a factor of the last layer of the vertices' means.

  It gives the prior's mean for two photos, or None, and the posterior's vertices.
  """
  base = 'prior' if request.param == 'prior' else 'template'
  network = toy_network(base, 'posterior' if request.param == 'alone' else 'both')
  variables = drawn_network(network, model)
  images = jnp.asarray(RNG.standard_normal((2, 64, 64, 3), np.float32))

  @jax.jit
  def estimate_with(mean_head):
    params = dict(variables['params'])
    head = jax.tree.map(lambda leaf: mean_head * leaf, params['vertex_regressor']['mean'])
    params['vertex_regressor'] = {**params['vertex_regressor'], 'mean': head}
    estimate = network.apply({**variables, 'params': params}, images, model, train=False)
    prior = None if estimate.prior is None else estimate.prior.vertices.mean
    return prior, estimate.posterior.vertices

  return base, estimate_with


def test_offsets_count_from_the_mesh_that_the_setting_names(two_photos, model):
  """With a mean head of zero the posterior is that mesh, whatever branches there are."""
  base, estimate_with = two_photos
  prior, posterior = estimate_with(0.0)
  template = np.asarray(model.v_template - regress_joints(model, model.v_template)[:1])
  if prior is not None:  # else the two would be one
    assert np.abs(np.asarray(prior) - template).max() > 0.01
  expected = template if base == 'template' else prior
  expected = np.broadcast_to(expected, posterior.mean.shape)
  np.testing.assert_allclose(posterior.mean, expected, atol=1e-7)


def test_offsets_and_deviations_follow_the_photo(two_photos):
  """AMVUR itself sees the photo, not only the mesh that it adds to."""
  _, estimate_with = two_photos
  (_, own), (_, base) = estimate_with(1.0), estimate_with(0.0)
  offsets = np.asarray(own.mean - base.mean)
  assert np.abs(offsets[0] - offsets[1]).max() > 10 * SEEN_M
  assert np.abs(own.log_variance[0] - own.log_variance[1]).max() > 1e-3
