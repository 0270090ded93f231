"""Anatomy of the fingers: joint-angle limits by joint and axis, and what exceeding them costs.

Angles are the components of each joint's rotation vector along three anatomical axes, for a right
hand in MANO's axes (fingers along -x, palm facing -y, thumb on the +z side):
flexion bends towards the palm; abduction moves a finger towards the thumb's side and the thumb away
from the palm; twist turns about the bone, pointing outwards. A left hand's pose is mirrored first.
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
  """(smallest, largest) angle in degrees about each anatomical axis of one joint."""

  flexion: tuple[float, float]
  abduction: tuple[float, float]
  twist: tuple[float, float]


# Active ranges of motion as clinical goniometry gives them, rounded to 5 degrees, with a few
# degrees of slack about axes that a real joint lacks and a fitted hand model nevertheless uses.
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

# The bones of a flat hand fan out: degrees that each finger points to the thumb's side.
_FINGER_YAW = {'index': 6.0, 'middle': 0.0, 'ring': -8.0, 'pinky': -16.0}
# The flat thumb points outwards, forwards and a little down; its nail faces up and outwards.
_THUMB_BONE, _THUMB_NAIL = (-0.75, -0.2, 0.63), (0.5, 0.45, 0.75)


def _joint_axes(joint: str) -> np.ndarray:
  """Flexion, abduction and twist axes (rows, orthonormal) of a joint."""
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
"""(15, 3, 3): unit vectors of flexion, abduction and twist (rows) of each joint in MANO's order."""

_LIMITS = np.asarray([JOINT_LIMITS[name] for name in _JOINTS], np.float32)
LOWER_LIMITS, UPPER_LIMITS = _LIMITS[..., 0], _LIMITS[..., 1]  # (15, 3) degrees


@full_precision
def pose_to_angles(hand_pose: Float[ArrayLike, '*batch 45']) -> Float[Array, '*batch 15 3']:
  """Degrees of flexion, abduction and twist of each joint."""
  vectors = jnp.asarray(hand_pose).reshape(hand_pose.shape[:-1] + (15, 3))
  return jnp.rad2deg(jnp.einsum('jab,...jb->...ja', ANATOMICAL_AXES, vectors))


@full_precision
def angles_to_pose(angles: Float[ArrayLike, '*batch 15 3']) -> Float[Array, '*batch 45']:
  """The hand pose (axis-angle, radians) of anatomical angles in degrees."""
  vectors = jnp.einsum('jab,...ja->...jb', ANATOMICAL_AXES, jnp.deg2rad(angles))
  return vectors.reshape(angles.shape[:-2] + (45,))


# Where a (finger, MCP/PIP/DIP) angle belongs in MANO's order, index to pinky then thumb.
_PLACES = np.asarray(
  [[_JOINTS.index(f'{f}_{s}') for s in ('mcp', 'pip', 'dip')] for f in FINGERS[1:]]
  + [[_JOINTS.index(f'thumb_{s}') for s in ('cmc', 'mcp', 'ip')]]
).reshape(-1)


def pose_within_limits(
  fingers: Float[Array, '4 3 3'], thumb: Float[Array, '1 3 3']
) -> Float[Array, '45']:
  """The hand pose of angles in degrees (finger, joint, axis), clipped to the limits.

  Fingers go from index to pinky, their joints are MCP, PIP, DIP; the thumb's are CMC, MCP, IP.
  """
  angles = jnp.zeros((15, 3)).at[_PLACES].set(jnp.concatenate([fingers, thumb]).reshape(15, 3))
  # Half a degree inside, so that rounding on the way to radians and back stays within the limits.
  angles = jnp.clip(angles, LOWER_LIMITS + 0.5, UPPER_LIMITS - 0.5)
  return angles_to_pose(angles)


def joint_limit_penalty(hand_pose: Float[Array, '*batch 45']) -> Float[Array, '*batch']:
  """Sum over joints and axes of the squared excess over the limits, radians squared.

  Zero, with zero gradient, inside the limits; continuously differentiable everywhere.
  """
  angles = pose_to_angles(hand_pose)
  leading = (None,) * (angles.ndim - 2)
  below = jax.nn.relu(LOWER_LIMITS[leading] - angles)
  above = jax.nn.relu(angles - UPPER_LIMITS[leading])
  return jnp.sum(jnp.square(jnp.deg2rad(below + above)), axis=(-2, -1))


def relaxed_pose_penalty(
  hand_pose: Float[Array, '*batch 45'], relaxed_pose: Float[ArrayLike, '45']
) -> Float[Array, '*batch']:
  """Sum over joints and axes of the squared distance from a relaxed pose, each in units of half the
  range between its limits: a finger may bend far, but hardly sideways or about its bone.
  """
  angles, relaxed = pose_to_angles(hand_pose), pose_to_angles(relaxed_pose)
  leading = (None,) * (angles.ndim - 2)
  half_range = (UPPER_LIMITS - LOWER_LIMITS) / 2
  return jnp.sum(jnp.square((angles - relaxed[leading]) / half_range[leading]), axis=(-2, -1))
