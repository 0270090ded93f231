"""Joint limits: anatomy on the free hand, the penalties' shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hand_jax.mano.anatomy import (
  ANATOMICAL_AXES,
  JOINT_LIMITS,
  LOWER_LIMITS,
  UPPER_LIMITS,
  angles_to_pose,
  joint_limit_penalty,
  pose_to_angles,
  relaxed_pose_penalty,
)
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.joints import JOINT_NAMES, MANO_JOINT_NAMES
from hand_jax.mano.model import mano_forward
from hand_jax.types import HandParameters

MODEL = load_mano_model()
JOINTS = MANO_JOINT_NAMES[1:]
FINGERS = ['thumb', 'index', 'middle', 'ring', 'pinky']
FLEXION, ABDUCTION, TWIST = range(3)
forward = jax.jit(mano_forward)


def posed_joints(hand_pose) -> np.ndarray:
  hand = HandParameters(jnp.zeros(3), jnp.asarray(hand_pose), jnp.zeros(10), jnp.zeros(3))
  return np.asarray(forward(MODEL, hand).joints)


def bent(joint: str, axis: int, degrees: float) -> np.ndarray:
  angles = np.zeros((15, 3), np.float32)
  angles[JOINTS.index(joint), axis] = degrees
  return angles


def tip(joint: str) -> int:
  return JOINT_NAMES.index(joint.split('_')[0] + '_tip')


def test_every_joint_has_its_limits_and_they_contain_zero():
  assert set(JOINT_LIMITS) == set(JOINTS)
  assert np.all(LOWER_LIMITS < 0)
  assert np.all(UPPER_LIMITS > 0)


def test_axes_are_orthonormal_and_right_handed():
  product = ANATOMICAL_AXES @ np.swapaxes(ANATOMICAL_AXES, 1, 2)
  np.testing.assert_allclose(product, np.tile(np.eye(3), (15, 1, 1)), atol=1e-6)
  # Flexion turns the back's normal into the bone: dorsal x bone.
  expected = np.cross(ANATOMICAL_AXES[:, ABDUCTION], ANATOMICAL_AXES[:, TWIST])
  np.testing.assert_allclose(ANATOMICAL_AXES[:, FLEXION], expected, atol=1e-6)


@pytest.mark.parametrize('joint', JOINTS)
def test_flexion_curls_the_fingertip_towards_the_palm(joint):
  flat = posed_joints(np.zeros(45))
  move = posed_joints(angles_to_pose(bent(joint, FLEXION, 30)))[tip(joint)] - flat[tip(joint)]
  if joint.startswith('thumb'):
    # Into the palm: downwards and across to the little finger's side.
    assert move[1] < 0
    assert move[2] < 0
  else:
    assert move[1] < -0.8 * np.linalg.norm(move[[0, 2]])
    assert move[0] > 0


@pytest.mark.parametrize('joint', JOINTS)
def test_abduction_moves_towards_the_thumb_and_the_thumb_off_the_palm(joint):
  flat = posed_joints(np.zeros(45))
  move = posed_joints(angles_to_pose(bent(joint, ABDUCTION, 10)))[tip(joint)] - flat[tip(joint)]
  direction = -move[1] if joint.startswith('thumb') else move[2]
  assert direction > 0.7 * np.linalg.norm(move)


@pytest.mark.parametrize('finger', FINGERS)
def test_twist_leaves_the_fingertip_where_it_is(finger):
  joint = next(name for name in JOINTS if name.startswith(finger))
  move = posed_joints(angles_to_pose(bent(joint, TWIST, 10)))[tip(joint)]
  flat = posed_joints(np.zeros(45))[tip(joint)]
  bend = posed_joints(angles_to_pose(bent(joint, FLEXION, 10)))[tip(joint)]
  assert np.linalg.norm(move - flat) < 0.25 * np.linalg.norm(bend - flat)


def test_angles_and_poses_invert_each_other():
  angles = np.random.default_rng(0).normal(size=(4, 15, 3)).astype(np.float32) * 40
  np.testing.assert_allclose(pose_to_angles(angles_to_pose(jnp.asarray(angles))), angles, atol=1e-3)


def test_penalty_is_zero_inside_with_zero_gradient():
  rng = np.random.default_rng(0)
  angles = rng.uniform(LOWER_LIMITS + 0.01, UPPER_LIMITS - 0.01, (20, 15, 3)).astype(np.float32)
  poses = angles_to_pose(jnp.asarray(angles))
  np.testing.assert_array_equal(joint_limit_penalty(poses), np.zeros(20))
  gradient = jax.grad(lambda pose: joint_limit_penalty(pose).sum())(poses)
  np.testing.assert_array_equal(gradient, np.zeros((20, 45)))


@pytest.mark.parametrize('axis', range(3))
def test_penalty_outside_is_the_squared_excess_on_either_side(axis):
  for j, joint in enumerate(JOINTS):
    for limit, sign in ((UPPER_LIMITS, 1), (LOWER_LIMITS, -1)):
      angles = bent(joint, axis, limit[j, axis] + sign * 20)
      value = joint_limit_penalty(angles_to_pose(jnp.asarray(angles)))
      np.testing.assert_allclose(value, np.deg2rad(20) ** 2, rtol=1e-3)


@pytest.mark.slow
def test_penalty_has_smooth_gradients():
  with jax.enable_x64(True):
    pose = jnp.asarray(np.random.default_rng(1).normal(size=45) * 1.5, jnp.float64)
    check_grads(jax.jit(joint_limit_penalty), (pose,), order=1, modes=['rev'], atol=1e-5, rtol=1e-5)
    jump = jax.grad(joint_limit_penalty)(angles_to_pose(jnp.asarray(UPPER_LIMITS + 1e-6)))
  assert float(jnp.abs(jump).max()) < 1e-6


def test_the_free_hands_mean_pose_is_inside_the_limits():
  assert float(joint_limit_penalty(MODEL.hands_mean)) == 0.0


def test_the_relaxed_pose_penalty_counts_in_half_ranges():
  """Written out: bending a finger by half its range costs one, so does a slight turn sideways."""
  relaxed = np.asarray(angles_to_pose(jnp.full((15, 3), 2.0)))
  assert relaxed_pose_penalty(jnp.asarray(relaxed), relaxed) == pytest.approx(0, abs=1e-9)
  joint = JOINTS.index('middle_pip')
  for axis, half_range in ((0, 62.5), (1, 8.0), (2, 8.0)):  # of -10..115, -8..8 and -8..8 degrees
    angles = np.full((15, 3), 2.0)
    angles[joint, axis] -= half_range
    penalty = relaxed_pose_penalty(angles_to_pose(jnp.asarray(angles)), relaxed)
    assert penalty == pytest.approx(1, rel=1e-4)
  poses = np.random.default_rng(0).normal(scale=0.3, size=(2, 45)).astype(np.float32)
  batched = relaxed_pose_penalty(jnp.asarray(poses), relaxed)
  for pose, penalty in zip(poses, batched, strict=True):
    differences = np.asarray(pose_to_angles(pose)) - 2.0
    limits = [JOINT_LIMITS[name] for name in JOINTS]
    expected = sum(
      (differences[j, a] / ((high - low) / 2)) ** 2
      for j, joint_limits in enumerate(limits)
      for a, (low, high) in enumerate(joint_limits)
    )
    assert penalty == pytest.approx(expected, rel=1e-3)
