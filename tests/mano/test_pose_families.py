"""The classic sampler of poses: inside the limits, of its families, fingers that bend together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.mano.anatomy import joint_limit_penalty, pose_to_angles
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.joints import FINGERS, JOINT_NAMES, MANO_JOINT_NAMES
from hand_jax.mano.model import mano_forward
from hand_jax.mano.pose_families import POSE_FAMILIES, sample_hand_pose
from hand_jax.types import HandParameters

MODEL = load_mano_model()
JOINTS = MANO_JOINT_NAMES[1:]
FLEXION = 0
forward = jax.jit(mano_forward)
SAMPLES = jax.jit(jax.vmap(sample_hand_pose))(jax.random.split(jax.random.key(0), 2000))


def posed_joints(hand_pose) -> np.ndarray:
  hand = HandParameters(jnp.zeros(3), jnp.asarray(hand_pose), jnp.zeros(10), jnp.zeros(3))
  return np.asarray(forward(MODEL, hand).joints)


@pytest.mark.slow
def test_samples_are_inside_the_limits_and_repeat_with_their_key():
  assert SAMPLES.shape == (2000, 45)
  assert float(joint_limit_penalty(SAMPLES).max()) == 0.0
  np.testing.assert_array_equal(
    sample_hand_pose(jax.random.key(3)), sample_hand_pose(jax.random.key(3))
  )


def test_families_are_a_distribution():
  np.testing.assert_allclose(sum(family.weight for family in POSE_FAMILIES.values()), 1)


@pytest.mark.slow
def test_samples_hold_open_hands_fists_points_and_pinches():
  angles = np.asarray(pose_to_angles(SAMPLES))
  knuckles = angles[:, [JOINTS.index(f'{f}_pip') for f in FINGERS[1:]], FLEXION]
  assert np.mean(np.all(knuckles < 25, axis=1)) > 0.1  # open
  assert np.mean(np.all(knuckles > 80, axis=1)) > 0.05  # fist
  pointing = (knuckles[:, 0] < 25) & np.all(knuckles[:, 1:] > 70, axis=1)
  assert np.mean(pointing) > 0.05
  joints = np.stack([posed_joints(pose) for pose in SAMPLES[:300]])
  distance = np.linalg.norm(joints[:, JOINT_NAMES.index('thumb_tip')] - joints[:, 8], axis=1)
  open_enough = np.asarray(knuckles[:300, 1] < 60)
  assert np.mean((distance < 0.025) & open_enough) > 0.03  # pinch
  # Every flexion uses a good part of its range.
  assert np.all(np.std(angles[:, :, FLEXION], axis=0) > 6)


def test_neighbouring_fingers_and_the_joints_of_one_finger_bend_together():
  angles = np.asarray(pose_to_angles(SAMPLES))[:, :, FLEXION]

  def correlation(first: str, second: str) -> float:
    return np.corrcoef(angles[:, JOINTS.index(first)], angles[:, JOINTS.index(second)])[0, 1]

  assert correlation('index_pip', 'index_dip') > 0.9
  assert correlation('middle_mcp', 'middle_pip') > 0.7
  assert correlation('middle_pip', 'ring_pip') > 0.7
  assert correlation('index_pip', 'pinky_pip') < 0.9  # the index goes its own way most
