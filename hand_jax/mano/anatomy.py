"""Anatomy of the fingers: joint-angle limits by joint and axis, their penalty, and sampled poses.

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

from hand_jax.mano.joints import MANO_JOINT_NAMES
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


def pose_to_angles(hand_pose: Float[ArrayLike, '*batch 45']) -> Float[Array, '*batch 15 3']:
  """Degrees of flexion, abduction and twist of each joint."""
  vectors = jnp.asarray(hand_pose).reshape(hand_pose.shape[:-1] + (15, 3))
  return jnp.rad2deg(jnp.einsum('jab,...jb->...ja', ANATOMICAL_AXES, vectors))


def angles_to_pose(angles: Float[ArrayLike, '*batch 15 3']) -> Float[Array, '*batch 45']:
  """The hand pose (axis-angle, radians) of anatomical angles in degrees."""
  vectors = jnp.einsum('jab,...ja->...jb', ANATOMICAL_AXES, jnp.deg2rad(angles))
  return vectors.reshape(angles.shape[:-2] + (45,))


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


class PoseFamily(NamedTuple):
  """A kind of pose: how likely it is, its mean and its spread; curls in [0, 1], the rest degrees.

  Curls are of index, middle, ring, pinky: `knuckle_curl` bends the MCP joints, `finger_curl` the
  two outer ones. `shared` is the deviation all four fingers have in common, `own` each finger's.
  `thumb` is CMC flexion, abduction and twist, then MCP and IP flexion; `thumb_noise` scales how far
  it strays from there.
  """

  weight: float
  knuckle_curl: tuple[float, float, float, float]
  finger_curl: tuple[float, float, float, float]
  shared: float
  own: float
  spread: float
  thumb: tuple[float, float, float, float, float]
  thumb_noise: float


# Pinch and fist were solved for on the free hand: thumb tip on the index tip, or over the fingers.
POSE_FAMILIES = {
  'relaxed': PoseFamily(
    0.20, (0.2, 0.25, 0.3, 0.3), (0.25, 0.3, 0.3, 0.3), 0.08, 0.06, 2, (0, 10, -5, 10, 15), 1.0
  ),
  'open': PoseFamily(
    0.16, (0.0, 0.0, 0.0, 0.0), (0.03, 0.03, 0.03, 0.03), 0.06, 0.03, 10, (-12, 5, 0, 0, 0), 1.0
  ),
  'fist': PoseFamily(
    0.10, (0.85, 0.9, 0.9, 0.9), (0.9, 0.92, 0.92, 0.9), 0.05, 0.03, -1, (-2, 25, -13, 42, 60), 0.5
  ),
  'point': PoseFamily(
    0.10, (0.1, 0.8, 0.85, 0.85), (0.05, 0.85, 0.88, 0.85), 0.06, 0.05, 0, (3, 25, -13, 42, 50), 0.7
  ),
  'pinch': PoseFamily(
    0.12,
    (0.64, 0.3, 0.25, 0.22),
    (0.42, 0.3, 0.28, 0.25),
    0.03,
    0.04,
    2,
    (15, 25, -12, 18, 26),
    0.4,
  ),
  'grasp': PoseFamily(
    0.17, (0.45, 0.48, 0.5, 0.5), (0.45, 0.48, 0.48, 0.45), 0.15, 0.05, 5, (0, 35, -15, 12, 20), 1.0
  ),
  'free': PoseFamily(
    0.15, (0.4, 0.4, 0.4, 0.4), (0.4, 0.4, 0.4, 0.4), 0.1, 0.35, 4, (5, 22, -8, 15, 20), 1.3
  ),
}

_KNUCKLE_DEGREES = 90.0
_PIP_DEGREES = 110.0
_DIP_OVER_PIP = 0.62  # The two outer joints share a tendon: they bend together.
_SPREAD_PATTERN = np.asarray([1.0, 0.1, -0.8, -1.6], np.float32)  # index, middle, ring, pinky
_THUMB_NOISE = np.asarray([7.0, 8, 6, 10, 14], np.float32)
_FIELDS = {
  name: np.asarray([getattr(family, name) for family in POSE_FAMILIES.values()], np.float32)
  for name in PoseFamily._fields
}
_STANDARD_FINGERS = ('index', 'middle', 'ring', 'pinky')
# Where a (finger, MCP/PIP/DIP) angle belongs in MANO's order, index to pinky then thumb.
_PLACES = np.asarray(
  [[_JOINTS.index(f'{f}_{s}') for s in ('mcp', 'pip', 'dip')] for f in _STANDARD_FINGERS]
  + [[_JOINTS.index(f'thumb_{s}') for s in ('cmc', 'mcp', 'ip')]]
).reshape(-1)


def sample_hand_pose(key: jax.Array) -> Float[Array, '45']:
  """A natural pose of a right hand inside the limits: axis-angle relative to zero pose, radians.

  A family of POSE_FAMILIES is drawn first; the four fingers then vary together and each a little on
  its own, the two outer joints of a finger bend together, and bent fingers spread less.
  """
  keys = jax.random.split(key, 5)
  family = jax.random.choice(keys[0], len(POSE_FAMILIES), p=_FIELDS['weight'])
  of_family = {name: jnp.asarray(values)[family] for name, values in _FIELDS.items()}
  shared = of_family['shared'] * jax.random.normal(keys[1])
  own = of_family['own'] * jax.random.normal(keys[2], (2, 4))
  # A finger's knuckle and outer joints mostly curl together.
  knuckle = jnp.clip(of_family['knuckle_curl'] + shared + 0.9 * own[0] + 0.2 * own[1], -0.15, 1)
  outer = jnp.clip(of_family['finger_curl'] + shared + 0.6 * own[0] + 0.6 * own[1], -0.05, 1)
  fingers = _finger_angles(keys[3], knuckle, outer, of_family['spread'])
  thumb = _thumb_angles(keys[4], of_family['thumb'], of_family['thumb_noise'])
  angles = jnp.zeros((15, 3)).at[_PLACES].set(jnp.concatenate([fingers, thumb]).reshape(15, 3))
  # Half a degree inside, so that rounding on the way to radians and back stays within the limits.
  angles = jnp.clip(angles, LOWER_LIMITS + 0.5, UPPER_LIMITS - 0.5)
  return angles_to_pose(angles)


def _finger_angles(
  key: jax.Array,
  knuckle: Float[Array, '4'],
  outer: Float[Array, '4'],
  spread: Float[Array, ''],
) -> Float[Array, '4 3 3']:
  """Degrees (finger, joint, axis) of the four fingers from their curls."""
  keys = jax.random.split(key, 4)
  coupling = _DIP_OVER_PIP + 0.1 * jax.random.normal(keys[0], (4,))
  pip = _PIP_DEGREES * outer
  flexion = jnp.stack([_KNUCKLE_DEGREES * knuckle, pip, coupling * pip], axis=-1)
  amount = spread + (2.0 + 0.4 * jnp.abs(spread)) * jax.random.normal(keys[1])
  abduction = amount * _SPREAD_PATTERN + 1.5 * jax.random.normal(keys[2], (4,))
  # Collateral ligaments hold a bent knuckle: it hardly spreads.
  abduction = abduction * (1.0 - 0.8 * jnp.clip(knuckle, 0, 1))
  sideways = jnp.zeros((4, 3)).at[:, 0].set(abduction)
  twist = jnp.asarray([2.0, 1.0, 1.0])[None] * jax.random.normal(keys[3], (4, 3))
  return jnp.stack([flexion, sideways, twist], axis=-1)


def _thumb_angles(
  key: jax.Array, mean: Float[Array, '5'], noise: Float[Array, '']
) -> Float[Array, '1 3 3']:
  """Degrees (1, joint, axis) of the thumb round a family's mean."""
  cmc_flexion, abduction, twist, mcp, ip = mean + noise * _THUMB_NOISE * jax.random.normal(
    key, (5,)
  )
  zero = jnp.zeros(())
  return jnp.stack(
    [
      jnp.stack([cmc_flexion, abduction, twist]),
      jnp.stack([mcp, zero, zero]),
      jnp.stack([ip, zero, zero]),
    ]
  )[None]
