"""The heads on the landmark network: what they may depend on, and what not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_jax.models.joint_heads import JointHeads, disagreement, landmark_inputs


@pytest.fixture(scope='module')
def points():
  rng = np.random.default_rng(0)
  landmarks = rng.normal(size=(3, 21, 3)).astype(np.float32) * 30 + 100
  world = rng.normal(size=(3, 21, 3)).astype(np.float32) * 0.05
  return jnp.asarray(landmarks), jnp.asarray(world)


@pytest.fixture(scope='module')
def heads():
  module = JointHeads()
  variables = module.init(jax.random.key(0), jnp.zeros((1, 1152)), jnp.zeros((1, 126)))
  # The last layer starts at zero; the tests want a scale that depends on something.
  kernel = jax.random.normal(jax.random.key(1), (32, 1))
  variables['params']['scale']['kernel'] = kernel
  return module, variables


def test_inputs_know_neither_place_nor_size_in_the_crop(points):
  landmarks, world = points
  inputs = landmark_inputs(landmarks, world)
  moved = np.asarray(landmarks) * 1.7 + [11.0, -5.0, 0.0]
  np.testing.assert_allclose(
    landmark_inputs(moved.astype(np.float32), world + 0.02), inputs, atol=1e-4
  )
  assert np.abs(landmark_inputs(landmarks, 1.1 * world) - inputs).max() > 0.01  # metric


def test_joints_are_about_their_mean_and_both_experts_count(points, heads):
  module, variables = heads
  inputs = landmark_inputs(*points)
  vectors = jnp.asarray(np.random.default_rng(1).normal(size=(3, 1152)), jnp.float32)
  estimate = module.apply(variables, vectors, inputs)
  np.testing.assert_allclose(estimate.joints.mean(axis=1), 0, atol=1e-6)
  other_vector = module.apply(variables, vectors[::-1], inputs)
  other_points = module.apply(variables, vectors, inputs[::-1])
  assert np.abs(other_vector.joints - estimate.joints).max() > 1e-3
  assert np.abs(other_points.joints - estimate.joints).max() > 1e-3


def test_disagreement_is_blind_to_turns_and_shifts():
  rng = np.random.default_rng(2)
  joints = rng.normal(size=(1, 21, 3)).astype(np.float32)
  turn = Rotation.from_rotvec([0.4, -1.0, 0.3]).as_matrix().astype(np.float32)
  np.testing.assert_allclose(
    disagreement(jnp.asarray(joints), jnp.asarray(joints @ turn.T + 2)), 0, atol=1e-5
  )
  # One joint moved: it disagrees with all 20 others, each of them with it alone.
  moved = joints.copy()
  moved[0, 8] += [0, 0, 50]
  found = np.asarray(disagreement(jnp.asarray(joints), jnp.asarray(moved)))[0]
  far = np.linalg.norm(moved[0] - moved[0, 8], axis=-1)
  near = np.linalg.norm(joints[0] - joints[0, 8], axis=-1)
  np.testing.assert_allclose(found[8], np.abs(far - near).sum() / 21, rtol=1e-3)
  np.testing.assert_allclose(np.delete(found, 8), np.delete(np.abs(far - near) / 21, 8), rtol=1e-3)


def test_the_error_scale_teaches_the_experts_nothing(points, heads):
  module, variables = heads
  inputs, vectors = landmark_inputs(*points), jnp.ones((3, 1152))

  def scale(parameters):
    return module.apply({'params': parameters}, vectors, inputs).log_scale.sum()

  slopes = jax.grad(scale)(variables['params'])
  for name in ('of_vector', 'of_points'):
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(slopes[name]))
  assert np.abs(slopes['scale']['kernel']).max() > 0
