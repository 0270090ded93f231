"""Anatomy of the fingers: joint-angle limits by joint and axis, and penalties for unlikely poses.

Angles are the components of each joint's rotation vector along three anatomical axes. They are
given for a right hand in MANO's axes (fingers along -x, palm facing -y, thumb on the +z side).
Flexion bends towards the palm. Abduction moves a finger towards the thumb's side, and the thumb
away from the palm. Twist turns about the bone, whose axis points outwards. Mirror a left hand's
pose before you use these functions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.geometry.precision import full_precision
from hand_jax.mano.joints import FINGERS, MANO_JOINT_NAMES
from hand_jax.types import ArrayLike


class JointLimits(NamedTuple):
  """Limits of one joint: the smallest and largest angle about each axis, degrees."""

  flexion: tuple[float, float]
  abduction: tuple[float, float]
  twist: tuple[float, float]


# These are active ranges of motion from clinical goniometry, rounded to 5 degrees. A few degrees of
# slack are added about axes that a real joint lacks but a fitted hand model uses.
JOINT_LIMITS = {
  'index_mcp': JointLimits((-30, 95), (-20, 25), (-12, 12)),
  'index_pip': JointLimits((-10, 115), (-8, 8), (-8, 8)),
  'index_dip': JointLimits((-15, 85), (-8, 8), (-8, 8)),
  'middle_mcp': JointLimits((-30, 95), (-20, 20), (-12, 12)),
  'middle_pip': JointLimits((-10, 115), (-8, 8), (-8, 8)),
  'middle_dip': JointLimits((-15, 85), (-8, 8), (-8, 8)),
  'pinky_mcp': JointLimits((-30, 95), (-35, 15), (-15, 15)),
  'pinky_pip': JointLimits((-10, 115), (-10, 10), (-10, 10)),
  'pinky_dip': JointLimits((-15, 85), (-8, 8), (-8, 8)),
  'ring_mcp': JointLimits((-30, 95), (-25, 15), (-12, 12)),
  'ring_pip': JointLimits((-10, 115), (-8, 8), (-8, 8)),
  'ring_dip': JointLimits((-15, 85), (-8, 8), (-8, 8)),
  'thumb_cmc': JointLimits((-30, 45), (-25, 50), (-40, 20)),
  'thumb_mcp': JointLimits((-15, 65), (-15, 15), (-12, 12)),
  'thumb_ip': JointLimits((-25, 85), (-8, 8), (-8, 8)),
}

# The bones of a flat hand fan out. Each finger points this many degrees to the thumb's side.
_FINGER_YAW = {'index': 6.0, 'middle': 0.0, 'ring': -8.0, 'pinky': -16.0}
# The flat thumb points outwards, forwards and a little down. Its nail faces up and outwards.
_THUMB_BONE, _THUMB_NAIL = (-0.75, -0.2, 0.63), (0.5, 0.45, 0.75)


def _joint_axes(joint: str) -> np.ndarray:
  """Returns the flexion, abduction and twist axes of a joint as orthonormal rows."""
  finger = joint.split('_')[0]
  if finger == 'thumb':
    bone, dorsal = np.asarray(_THUMB_BONE), np.asarray(_THUMB_NAIL)
  else:
    yaw = np.deg2rad(_FINGER_YAW[finger])
    bone, dorsal = np.asarray([-np.cos(yaw), 0, np.sin(yaw)]), np.asarray([0.0, 1, 0])
  bone = bone / np.linalg.norm(bone)
  dorsal = dorsal - (dorsal @ bone) * bone
  dorsal = dorsal / np.linalg.norm(dorsal)
  return np.stack([np.cross(dorsal, bone), dorsal, bone])


_JOINTS = MANO_JOINT_NAMES[1:]

ANATOMICAL_AXES = np.stack([_joint_axes(name) for name in _JOINTS]).astype(np.float32)
"""Unit vectors of each joint's flexion, abduction and twist axes, of shape (15, 3, 3).

The joints follow MANO's order, and the three axes of a joint are rows.
"""

_LIMITS = np.asarray([JOINT_LIMITS[name] for name in _JOINTS], np.float32)
LOWER_LIMITS, UPPER_LIMITS = _LIMITS[..., 0], _LIMITS[..., 1]  # (15, 3) degrees


@full_precision
def pose_to_angles(hand_pose: Float[ArrayLike, '*batch 45']) -> Float[Array, '*batch 15 3']:
  """Converts a hand pose (axis-angle, radians) to anatomical angles in degrees.

  The last axis holds flexion, abduction and twist.
  """
  vectors = jnp.asarray(hand_pose).reshape(hand_pose.shape[:-1] + (15, 3))
  return jnp.rad2deg(jnp.einsum('jab,...jb->...ja', ANATOMICAL_AXES, vectors))


@full_precision
def angles_to_pose(angles: Float[ArrayLike, '*batch 15 3']) -> Float[Array, '*batch 45']:
  """Converts anatomical angles in degrees to a hand pose (axis-angle, radians)."""
  vectors = jnp.einsum('jab,...ja->...jb', ANATOMICAL_AXES, jnp.deg2rad(angles))
  return vectors.reshape(angles.shape[:-2] + (45,))


# Places in MANO's order of the joints of index, middle, ring, pinky and then thumb.
_PLACES = np.asarray(
  [[_JOINTS.index(f'{f}_{s}') for s in ('mcp', 'pip', 'dip')] for f in FINGERS[1:]]
  + [[_JOINTS.index(f'thumb_{s}') for s in ('cmc', 'mcp', 'ip')]]
).reshape(-1)


def pose_within_limits(
  fingers: Float[Array, '4 3 3'], thumb: Float[Array, '1 3 3']
) -> Float[Array, '45']:
  """Builds a hand pose from angles in degrees, clipped to the limits.

  The axes of both arguments are finger, joint and anatomical axis. Fingers go from index to pinky
  with the joints MCP, PIP and DIP. The joints of the thumb are CMC, MCP and IP.
  """
  angles = jnp.zeros((15, 3)).at[_PLACES].set(jnp.concatenate([fingers, thumb]).reshape(15, 3))
  # Clip half a degree inside the limits, because the conversion to radians and back rounds.
  angles = jnp.clip(angles, LOWER_LIMITS + 0.5, UPPER_LIMITS - 0.5)
  return angles_to_pose(angles)


def joint_limit_penalty(hand_pose: Float[Array, '*batch 45']) -> Float[Array, '*batch']:
  """Sums the squared excess over the limits, over all joints and axes, in square radians.

  Inside the limits the penalty and its gradient are zero. The penalty is continuously
  differentiable everywhere.
  """
  angles = pose_to_angles(hand_pose)
  leading = (None,) * (angles.ndim - 2)
  below = jax.nn.relu(LOWER_LIMITS[leading] - angles)
  above = jax.nn.relu(angles - UPPER_LIMITS[leading])
  return jnp.sum(jnp.square(jnp.deg2rad(below + above)), axis=(-2, -1))


def relaxed_pose_penalty(
  hand_pose: Float[Array, '*batch 45'], relaxed_pose: Float[ArrayLike, '45']
) -> Float[Array, '*batch']:
  """Sums the squared distances from a relaxed pose, over all joints and axes.

  Each distance is measured in units of half the range between its limits, because a finger may
  bend far, but hardly sideways or about its bone.
  """
  angles, relaxed = pose_to_angles(hand_pose), pose_to_angles(relaxed_pose)
  leading = (None,) * (angles.ndim - 2)
  half_range = (UPPER_LIMITS - LOWER_LIMITS) / 2
  return jnp.sum(jnp.square((angles - relaxed[leading]) / half_range[leading]), axis=(-2, -1))
