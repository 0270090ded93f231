"""The classic sampler of hand poses: families round a mean, whose fingers bend together.

The broad sampler in `gestures.py` bends the fingers independently.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from hand_jax.mano.anatomy import pose_within_limits


class PoseFamily(NamedTuple):
  """A kind of pose: its probability, its mean and its spread.

  Curls are in [0, 1] and given for index, middle, ring and pinky.
  """

  weight: float
  """Probability of the family."""
  knuckle_curl: tuple[float, float, float, float]
  """Mean bend of the MCP joints, where 1 stands for 90 degrees."""
  finger_curl: tuple[float, float, float, float]
  """Mean bend of the two outer joints, where 1 stands for 110 degrees of PIP flexion."""
  shared: float
  """Standard deviation of the curl that all four fingers have in common."""
  own: float
  """Standard deviation of each finger's own curl."""
  spread: float
  """Mean angle in degrees by which the index leans to the thumb's side."""
  thumb: tuple[float, float, float, float, float]
  """Mean degrees of CMC flexion, abduction and twist, then of MCP and IP flexion."""
  thumb_noise: float
  """Factor on how far the thumb strays from its mean."""


# Pinch and fist were solved for on the free hand, so that the thumb tip meets the index tip or lies
# over the fingers.
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
_DIP_OVER_PIP = 0.62  # The two outer joints share a tendon, so they bend together.
_SPREAD_PATTERN = np.asarray([1.0, 0.1, -0.8, -1.6], np.float32)  # index, middle, ring, pinky
_THUMB_NOISE = np.asarray([7.0, 8, 6, 10, 14], np.float32)
_FIELDS = {
  name: np.asarray([getattr(family, name) for family in POSE_FAMILIES.values()], np.float32)
  for name in PoseFamily._fields
}


def sample_hand_pose(key: jax.Array) -> Float[Array, '45']:
  """Draws a natural pose of a right hand inside the joint limits.

  The pose is axis-angle relative to zero pose, in radians. A family of `POSE_FAMILIES` is drawn
  first. The four fingers then vary together, and each varies a little on its own. The two outer
  joints of a finger bend together, and bent fingers spread less.
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
  thumb = thumb_angles(keys[4], of_family['thumb'], of_family['thumb_noise'])
  return pose_within_limits(fingers, thumb)


def _finger_angles(
  key: jax.Array,
  knuckle: Float[Array, '4'],
  outer: Float[Array, '4'],
  spread: Float[Array, ''],
) -> Float[Array, '4 3 3']:
  """Draws the degrees (finger, joint, axis) of the four fingers, given their curls."""
  keys = jax.random.split(key, 4)
  coupling = _DIP_OVER_PIP + 0.1 * jax.random.normal(keys[0], (4,))
  pip = _PIP_DEGREES * outer
  flexion = jnp.stack([_KNUCKLE_DEGREES * knuckle, pip, coupling * pip], axis=-1)
  amount = spread + (2.0 + 0.4 * jnp.abs(spread)) * jax.random.normal(keys[1])
  return fan_fingers(keys[2:], flexion, amount, jnp.clip(knuckle, 0, 1))


def fan_fingers(
  keys: Key[Array, '2'],
  flexion: Float[Array, '4 3'],
  amount: Float[Array, ''],
  knuckle_bend: Float[Array, '4'],
) -> Float[Array, '4 3 3']:
  """Adds abduction and twist to flexions of the four fingers, index to pinky.

  Args:
    keys: two keys, for the random parts of abduction and twist.
    flexion: degrees of MCP, PIP and DIP.
    amount: degrees by which the index leans to the thumb's side. The others fan out with it.
    knuckle_bend: 0 for a straight knuckle, 1 for one that is bent at a right angle.

  Returns:
    Degrees (finger, joint, axis), with the axes flexion, abduction and twist.
  """
  abduction = amount * _SPREAD_PATTERN + 1.5 * jax.random.normal(keys[0], (4,))
  # Collateral ligaments hold a bent knuckle, so it hardly spreads.
  abduction = abduction * (1.0 - 0.8 * knuckle_bend)
  sideways = jnp.zeros((4, 3)).at[:, 0].set(abduction)
  twist = jnp.asarray([2.0, 1.0, 1.0])[None] * jax.random.normal(keys[1], (4, 3))
  return jnp.stack([flexion, sideways, twist], axis=-1)


def thumb_angles(
  key: jax.Array, mean: Float[Array, '5'], noise: Float[Array, '']
) -> Float[Array, '1 3 3']:
  """Draws the angles of a thumb round a mean.

  Args:
    key: the key of the random deviation.
    mean: degrees of CMC flexion, abduction and twist, then of MCP and IP flexion.
    noise: factor on the deviation. Most families use 1.

  Returns:
    Degrees (1, joint, axis), with the axes flexion, abduction and twist.
  """
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
