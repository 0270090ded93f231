"""Joint orders: permutations, parents and the facts of the data formats."""

import numpy as np
import pytest

from hand_jax.mano.joints import (
  BONES,
  DATASET_TO_STANDARD,
  FINGERTIP_VERTICES,
  JOINT_NAMES,
  MANO_JOINT_NAMES,
  MANO_PARENTS,
  MANO_TO_STANDARD,
  STANDARD_PARENTS,
  STANDARD_TO_MANO,
)

TIPS = tuple(f'{finger}_tip' for finger in ('thumb', 'index', 'middle', 'ring', 'pinky'))


@pytest.mark.parametrize('order', [*DATASET_TO_STANDARD.values(), STANDARD_TO_MANO])
def test_every_joint_order_is_a_permutation(order):
  assert sorted(order) == list(range(21))


def test_gathering_mano_joints_and_tips_gives_the_standard_names():
  names = MANO_JOINT_NAMES + TIPS
  assert tuple(names[i] for i in MANO_TO_STANDARD) == JOINT_NAMES
  assert tuple(JOINT_NAMES[i] for i in STANDARD_TO_MANO) == names


def test_standard_order_is_wrist_then_fingers_from_base_to_tip():
  assert JOINT_NAMES[0] == 'wrist'
  assert [JOINT_NAMES.index(tip) for tip in TIPS] == [4, 8, 12, 16, 20]
  assert JOINT_NAMES[9] == 'middle_mcp'


def test_both_orders_have_the_same_skeleton():
  for joint, parent in zip(MANO_JOINT_NAMES[1:], MANO_PARENTS[1:], strict=True):
    standard_parent = STANDARD_PARENTS[JOINT_NAMES.index(joint)]
    assert JOINT_NAMES[standard_parent] == MANO_JOINT_NAMES[parent]


def test_bones_reach_every_joint_once():
  assert len(BONES) == 20
  assert sorted(child for _, child in BONES) == list(range(1, 21))
  assert all(parent < child for parent, child in BONES)


def test_fingertips_are_five_different_vertices_of_manos_mesh():
  for tips in FINGERTIP_VERTICES.values():
    assert len(set(tips)) == 5
    assert np.min(tips) >= 0
    assert np.max(tips) < 778
