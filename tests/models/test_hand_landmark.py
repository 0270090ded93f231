"""The landmark network: equal to the published one, and its shape as a backbone."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.models import hand_landmark
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import HandLandmarkNetwork, normalize_crops
from tests.drawn_variables import drawn_by
from tools.drawn_hand import draw_test_picture

pytestmark = pytest.mark.slow

FIXTURE = pathlib.Path(__file__).parent.parent / 'fixtures' / 'hand_networks.npz'


@pytest.fixture(scope='module')
def output():
  crop = jnp.asarray(draw_test_picture(224))[None]
  variables = load_bundled_parameters('hand_landmark')
  run = jax.jit(lambda v, x: HandLandmarkNetwork().apply(v, normalize_crops(x)))
  return jax.device_get(run(variables, crop))


@pytest.fixture(scope='module')
def published():
  with np.load(FIXTURE) as arrays:
    return {name.removeprefix('hand_landmark/'): array for name, array in arrays.items()}


# Both sides compute in float32 from the same half-precision weights. Their sums differ in order, by
# about 1e-6 of the values; the tolerances leave a factor of ten for another machine's order.
def test_landmarks_equal_the_published_networks(output, published):
  expected = published['Identity'].reshape(1, 21, 3)
  np.testing.assert_allclose(output.landmarks, expected, atol=2e-3)  # pixels of 224
  assert np.ptp(expected[0, :, 0]) > 50  # The picture has a hand, or equality would say little.


def test_world_landmarks_equal_the_published_networks(output, published):
  expected = published['Identity_3'].reshape(1, 21, 3)
  np.testing.assert_allclose(output.world_landmarks, expected, atol=2e-6)  # metres


def test_presence_and_side_equal_the_published_networks(output, published):
  assert published['Identity_1'] > 0.8
  np.testing.assert_allclose(output.presence, published['Identity_1'][0], atol=2e-5)
  np.testing.assert_allclose(output.right, published['Identity_2'][0], atol=2e-5)


def test_the_vector_is_the_mean_of_the_last_map(output):
  np.testing.assert_allclose(output.global_feature, output.last_map.mean((1, 2)), atol=1e-5)


def test_outputs_are_linear_in_the_vector(output):
  head = load_bundled_parameters('hand_landmark')['params']['world_landmarks']
  expected = output.global_feature @ np.asarray(head['kernel']) + np.asarray(head['bias'])
  np.testing.assert_allclose(output.world_landmarks.reshape(1, 63), expected, atol=1e-6)


@pytest.mark.parametrize('side', [64, 224])
def test_maps_shrink_as_stated(side):
  variables = jax.eval_shape(
    HandLandmarkNetwork().init, jax.random.key(0), jnp.zeros((1, side, side, 3))
  )
  shapes = jax.eval_shape(HandLandmarkNetwork().apply, variables, jnp.zeros((2, side, side, 3)))
  assert shapes.global_feature.shape == (2, 1152)
  assert shapes.last_map.shape == (2, side // 32, side // 32, 1152)
  assert shapes.middle_map.shape == (2, side // 16, side // 16, 112)
  assert shapes.shallow_map.shape == (2, side // 2, side // 2, 16)
  assert shapes.fine_map.shape == (2, side // 4, side // 4, 24)
  assert shapes.coarse_map.shape == (2, side // 8, side // 8, 40)


def test_gradients_reach_every_parameter(monkeypatch):
  """Of one block of each stage, and of two of one."""
  stages = [stage._replace(blocks=1) for stage in hand_landmark.STAGES]
  stages[1] = stages[1]._replace(blocks=2)
  monkeypatch.setattr(hand_landmark, 'STAGES', tuple(stages))
  crop = jnp.asarray(draw_test_picture(32))[None]
  variables = drawn_by(HandLandmarkNetwork().init, jnp.zeros((1, 32, 32, 3)))

  def loss(variables):
    output = HandLandmarkNetwork().apply(variables, normalize_crops(crop))
    return sum((x**2).sum() for x in output[:4])

  gradients = jax.jit(jax.grad(loss))(variables)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    assert np.isfinite(leaf).all() and np.any(leaf), path


def test_an_unknown_network_is_named():
  with pytest.raises(ValueError, match="no bundled network 'face'"):
    load_bundled_parameters('face')
