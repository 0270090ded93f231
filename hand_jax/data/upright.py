"""Computes how a hand is turned in a picture, from its joints."""

import numpy as np
from jaxtyping import Float

from hand_jax.geometry.cameras import angle_from_upright
from hand_jax.mano.joints import JOINT_NAMES

UPRIGHT_JOINTS = [JOINT_NAMES.index('wrist'), JOINT_NAMES.index('middle_mcp')]
"""The joints that determine the turn: the wrist and the middle finger's base."""


def turn_upright(joints_image: Float[np.ndarray, '21 2']) -> float:
  """Computes the turn after which the middle finger's base lies straight above the wrist.

  The joints are pixels of a picture. The turn is what `crop_affine` takes as its rotation, in
  radians. It is 0 where the two joints are one point, which has no direction.
  """
  wrist, middle_base = UPRIGHT_JOINTS
  return -angle_from_upright(joints_image[middle_base] - joints_image[wrist])
