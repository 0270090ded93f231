"""The broad sampler of poses: inside the limits, and as various as hands are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.mano import gestures
from hand_jax.mano.anatomy import LOWER_LIMITS, UPPER_LIMITS, joint_limit_penalty, pose_to_angles
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.gestures import BENDS, GESTURES, KIND_WEIGHTS, THUMBS, sample_gesture_pose
from hand_jax.mano.joints import MANO_JOINT_NAMES
from tools.pose_statistics import measure_poses, sample_poses

pytestmark = pytest.mark.slow

JOINTS = MANO_JOINT_NAMES[1:]
FINGERS = ('index', 'middle', 'ring', 'pinky')


# One program for all tests of 200 poses.
pose_all = jax.jit(jax.vmap(gestures._pose))


@pytest.fixture(scope='module')
def poses():
  return sample_poses('broad', 8000)


@pytest.fixture(scope='module')
def measured(poses):
  """What 8,000 draws of each sampler look like, by the sampler's name."""
  model = load_mano_model()
  return {
    'broad': measure_poses(poses, model),
    'classic': measure_poses(sample_poses('classic', 8000), model),
  }


def flexion(poses, joint) -> np.ndarray:
  angles = np.asarray(pose_to_angles(poses))[:, :, 0]
  return np.stack([angles[:, JOINTS.index(f'{finger}_{joint}')] for finger in FINGERS], axis=1)


def test_poses_are_inside_the_limits_and_repeat_with_their_key(poses):
  assert poses.shape == (8000, 45)
  assert float(joint_limit_penalty(poses).max()) == 0.0
  keys = jax.random.split(jax.random.key(0), 8000)
  alone = jax.jit(sample_gesture_pose)(keys[17])
  np.testing.assert_allclose(alone, poses[17], atol=1e-6)
  assert len(np.unique(np.round(np.asarray(poses), 5), axis=0)) == 8000


def test_fingers_go_their_own_ways(measured):
  """More than classic ones do, and often in the patterns that gestures and signs are made of."""
  broad, classic = measured['broad'], measured['classic']
  assert 0.10 <= broad.two_straight_two_folded <= 0.25
  assert broad.pinky_alone_straight >= 0.03
  assert broad.index_alone_straight >= 0.08
  assert 0.05 < broad.all_straight < 0.3
  assert broad.index_pinky_correlation < 0.3 < classic.index_pinky_correlation
  assert broad.index_mcp_pip_correlation < 0.7 < classic.index_mcp_pip_correlation
  assert broad.pip_dip_correlation < 0.93 < classic.pip_dip_correlation
  assert broad.five_components < 0.9 < classic.five_components


def test_hands_intersect_themselves_no_deeper_than_classic_ones(measured):
  assert measured['broad'].mean_penetration_m <= measured['classic'].mean_penetration_m


def test_every_flexion_uses_most_of_its_range(poses):
  angles = np.asarray(pose_to_angles(poses))[:, :, 0]
  low, high = np.percentile(angles, [1, 99], axis=0)
  used = (high - low) / (UPPER_LIMITS - LOWER_LIMITS)[:, 0]
  assert np.all(used > 0.5), dict(zip(JOINTS, used, strict=True))


def test_all_combinations_of_straight_and_folded_fingers_occur(poses):
  folded = flexion(poses, 'pip') > 60
  straight = (flexion(poses, 'mcp') < 30) & (flexion(poses, 'pip') < 30)
  decided = np.all(folded | straight, axis=1)
  patterns = folded[decided] @ (1 << np.arange(4))
  shares = np.bincount(patterns, minlength=16) / len(poses)
  assert np.all(shares > 0.002), shares


def test_hooks_and_table_tops_occur(poses):
  mcp, pip = flexion(poses, 'mcp'), flexion(poses, 'pip')
  assert np.mean((mcp < 25) & (pip > 70)) > 0.03
  assert np.mean((mcp > 50) & (pip < 30)) > 0.03


@pytest.mark.parametrize('name', GESTURES)
def test_gestures_are_drawn_as_their_table_says(name, monkeypatch):
  """With one gesture alone and no odd finger, all angles lie in the ranges of its bends."""
  gesture = GESTURES[name]
  number = list(GESTURES).index(name)
  monkeypatch.setattr(gestures, '_GESTURE_WEIGHTS', np.eye(len(GESTURES), dtype=np.float32)[number])
  monkeypatch.setattr(gestures, '_ODD_FINGER', 0.0)
  bends, thumbs = jax.vmap(gestures._named_gesture)(jax.random.split(jax.random.key(1), 200))
  named = [[list(BENDS)[bend] for bend in row] for row in np.asarray(bends)]
  assert all(row == gesture.fingers.split() for row in named)
  assert {list(THUMBS)[thumb] for thumb in np.asarray(thumbs)} == set(gesture.thumbs.split())
  keys = jax.random.split(jax.random.key(2), 200)
  posed = pose_all(keys, bends, thumbs)
  for joint in ('mcp', 'pip'):
    found = flexion(posed, joint)
    for finger, bend in enumerate(gesture.fingers.split()):
      low, high = getattr(BENDS[bend], joint)
      assert np.all(found[:, finger] > low - 0.01) and np.all(found[:, finger] < high + 0.01)
      # A range is filled, not only touched.
      assert np.ptp(found[:, finger]) > 0.8 * (high - low)


def test_tables_are_distributions():
  assert sum(KIND_WEIGHTS.values()) == pytest.approx(1)
  assert sum(bend.weight for bend in BENDS.values()) == pytest.approx(1)
  for beside in ('beside_straight', 'beside_bent'):
    assert sum(getattr(thumb, beside) for thumb in THUMBS.values()) == pytest.approx(1)


def test_fingertips_stop_at_the_palm():
  curled = jnp.full((200, 4), list(BENDS).index('curled'))
  keys = jax.random.split(jax.random.key(3), 200)
  posed = pose_all(keys, curled, jnp.zeros(200, int))
  together = sum(flexion(posed, joint) for joint in ('mcp', 'pip', 'dip'))
  assert together.max() <= 220.1 and together.max() > 210
