"""The free hand's proportions, and skinning weights that follow moved joints; on a made-up hand."""

import numpy as np
import pytest

from tests.tools.test_free_hand_builder import random_hand
from tools.free_hand import layout, proportions, skeleton, skinning


def flat_random_hand():
  """The random hand straightened, in metres, with skin 2 mm beyond each finger's tip."""
  points, nodes, weights = random_hand()
  points, nodes = skeleton.flatten(0.1 * points, 0.1 * nodes[:16], 0.1 * nodes[16:], weights)
  chains = [layout.chain_of(finger) for finger in range(5)]
  ends = [nodes[c[3]] + 0.002 * skeleton.finger_frame(k)[0] for k, c in enumerate(chains)]
  last = np.eye(16)[[chain[2] for chain in chains]]
  return np.concatenate([points, ends]), nodes, np.concatenate([weights, last])


def test_proportions_bring_a_hand_to_the_tables_lengths():
  points, nodes, weights = flat_random_hand()
  length = proportions.hand_length(points, nodes, weights)
  fitted = proportions.fit_proportions(points, nodes, weights)
  new_points, new_nodes, rig = proportions.apply_proportions(points, nodes, weights, fitted)
  wanted = proportions.segment_lengths(length)
  for finger, name in enumerate(layout.FINGER_NAMES):
    chain = list(layout.chain_of(finger))
    bones = np.diff(new_nodes[chain], axis=0)
    lengths = np.linalg.norm(bones, axis=1)
    np.testing.assert_allclose(lengths[:2], wanted[finger, :2], rtol=1e-9)
    direction = skeleton.finger_frame(finger)[0]
    own = new_points[weights[:, chain[2]] > 0.5]
    assert ((own - new_nodes[chain[2]]) @ direction).max() == pytest.approx(wanted[finger, 2])
    np.testing.assert_allclose(bones / lengths[:, None], np.tile(direction, (3, 1)), atol=1e-9)
    if name != 'thumb':
      share = np.linalg.norm(new_nodes[chain[0]] - new_nodes[0]) / length
      assert share == pytest.approx(proportions.KNUCKLE_SHARES[name])
      np.testing.assert_allclose(rig[chain[1:]], new_nodes[chain[1:]])
  # What lies half way between two of the rig's joints still does.
  np.testing.assert_allclose(new_points[1], (rig[1] + rig[2]) / 2, atol=1e-9)


def test_segments_grow_with_the_hand_and_keep_their_shares():
  small, large = (proportions.segment_lengths(length) for length in (0.17, 0.20))
  np.testing.assert_allclose(large / small, 0.20 / 0.17)
  bones = np.array([proportions.BONES_MM[name][1:3] for name in layout.FINGER_NAMES[:4]])
  shares, published = small[:4, :2] / small[1, :2].sum(), bones / bones[1].sum()
  np.testing.assert_allclose(shares, published, rtol=0.04)


def test_a_longer_and_wider_palm_leaves_the_fingers_alone():
  points, nodes, weights = flat_random_hand()
  new_points, new_nodes = proportions.scale_palm(points, nodes, weights, 0.1, 0.2)
  for finger in range(5):
    chain = list(layout.chain_of(finger))
    np.testing.assert_allclose(np.diff(new_nodes[chain], axis=0), np.diff(nodes[chain], axis=0))
    assert new_nodes[chain[0], 2] == pytest.approx(1.2 * nodes[chain[0], 2])
  reach = -nodes[[1, 4, 7, 10], 0].mean()
  np.testing.assert_allclose(new_nodes[4, 0], nodes[4, 0] - 0.1 * min(-nodes[4, 0], reach))
  shift = new_points[:9] - points[:9]  # the first finger's
  np.testing.assert_allclose(shift, np.tile(new_nodes[1] - nodes[1], (9, 1)), atol=1e-12)
  unchanged = proportions.scale_palm(points, nodes, weights, 0.0, 0.0)
  np.testing.assert_allclose(unchanged[0], points, atol=1e-12)


def test_weights_move_with_their_joint():
  """A rod of points along the index: where its first bone takes over moves with the knuckle."""
  _, nodes, _ = flat_random_hand()
  direction = skeleton.finger_frame(0)[0]
  along = np.linspace(-0.03, 0.05, 161)
  rod = nodes[1] + along[:, None] * direction
  share = np.clip(along / 0.01 + 0.5, 0, 1)
  weights = np.zeros((161, 16))
  weights[:, 1], weights[:, 0] = share, 1 - share
  np.testing.assert_allclose(skinning.move_weights(rod, weights, nodes, nodes), weights, atol=1e-5)
  joints = nodes.copy()
  joints[1] -= 0.006 * direction
  joints[2] = joints[1] + 0.05 * direction
  moved = skinning.move_weights(rod, weights, nodes, joints)
  np.testing.assert_allclose(moved.sum(axis=1), 1.0)
  half = np.interp(0.5, moved[:, 1], along)
  assert half == pytest.approx(-0.006, abs=5e-4)


def test_the_thumbs_second_joint_takes_its_weights_along_and_no_more_of_the_hand():
  _, nodes, _ = flat_random_hand()
  direction = skeleton.finger_frame(4)[0]
  along = np.linspace(0.0, 0.08, 161)
  rod = nodes[13] + along[:, None] * direction
  middle = np.linalg.norm(nodes[14] - nodes[13])
  share = np.clip((along - middle) / 0.01 + 0.5, 0, 1)
  weights = np.zeros((161, 16))
  weights[:, 0] = 0.25
  weights[:, 13], weights[:, 14] = 0.75 * (1 - share), 0.75 * share
  joints = nodes.copy()
  joints[14] += 0.008 * direction
  moved = skinning.move_weights(rod, weights, nodes, joints)
  np.testing.assert_allclose(moved[:, 0], 0.25, atol=1e-9)
  half = np.interp(0.375, moved[:, 14], along)
  assert half == pytest.approx(middle + 0.008, abs=1e-3)
