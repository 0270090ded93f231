"""The broad sampler of hand poses: named gestures, and fingers that bend independently.

The classic sampler, `pose_families.py`, moves all fingers of a hand together. A hand of this
sampler is a named gesture, or has independent fingers, or comes from one of the classic families.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hand_jax.mano.anatomy import pose_within_limits
from hand_jax.mano.pose_families import fan_fingers, sample_hand_pose, thumb_angles

KIND_WEIGHTS = {'gesture': 0.58, 'independent': 0.24, 'classic': 0.18}
"""Probabilities of the three kinds of pose.

A pose is a named gesture, has independent fingers, or comes from a classic family.
"""


class Bend(NamedTuple):
  """A way to bend a finger."""

  weight: float
  """Probability of this bend for a finger that bends independently."""
  mcp: tuple[float, float]
  """Range of MCP flexion, degrees."""
  pip: tuple[float, float]
  """Range of PIP flexion, degrees."""


BENDS = {
  'straight': Bend(0.32, (-18, 27), (-3, 18)),
  'curled': Bend(0.25, (32, 86), (78, 110)),
  'half': Bend(0.12, (5, 55), (25, 75)),
  'hook': Bend(0.09, (-15, 25), (60, 105)),
  'table': Bend(0.1, (50, 90), (-3, 25)),
  'any': Bend(0.12, (-20, 92), (-3, 112)),
  'pinch': Bend(0.0, (48, 66), (36, 56)),
}


class Thumb(NamedTuple):
  """A place of the thumb, and how often a thumb that is not part of a gesture takes it."""

  beside_straight: float
  """Probability of this place when the index or the middle finger is straight."""
  beside_bent: float
  """Probability of this place when neither index nor middle finger is straight."""
  mean: tuple[float, float, float, float, float]
  """Mean degrees of CMC flexion, abduction and twist, then of MCP and IP flexion."""


THUMBS = {
  'out': Thumb(0.25, 0.2, (-12, 5, 0, 0, 0)),
  'far': Thumb(0.15, 0.15, (-20, 10, 5, -5, -5)),
  'beside': Thumb(0.15, 0.2, (-5, -10, 0, 5, 0)),
  'opposed': Thumb(0.2, 0.1, (0, 35, -15, 12, 20)),
  'tucked': Thumb(0.1, 0.2, (3, 25, -13, 42, 50)),
  'over': Thumb(0.05, 0.15, (-2, 25, -13, 42, 60)),
  'across': Thumb(0.1, 0.0, (15, 10, -5, 30, 40)),
  'pinch': Thumb(0.0, 0.0, (15, 25, -12, 18, 26)),
}


class Gesture(NamedTuple):
  """A named gesture."""

  weight: float
  """How likely the gesture is, relative to the others."""
  fingers: str
  """The bends of index, middle, ring and pinky, as names in `BENDS`."""
  thumbs: str
  """The possible places of the thumb, all equally likely, as names in `THUMBS`."""


GESTURES = {
  'open': Gesture(3, 'straight straight straight straight', 'out far beside'),
  'fist': Gesture(1.5, 'curled curled curled curled', 'tucked over beside'),
  'point': Gesture(2, 'straight curled curled curled', 'tucked over beside'),
  'gun': Gesture(1, 'straight curled curled curled', 'out far'),
  'victory': Gesture(3, 'straight straight curled curled', 'tucked over'),
  'two_and_thumb': Gesture(2.5, 'straight straight curled curled', 'out far'),
  'two_closed': Gesture(2.5, 'straight straight curled curled', 'tucked beside'),
  'three': Gesture(1.5, 'straight straight straight curled', 'tucked across'),
  'four': Gesture(1, 'straight straight straight straight', 'across opposed'),
  'thumb_up': Gesture(1, 'curled curled curled curled', 'out far'),
  'little_finger': Gesture(1, 'curled curled curled straight', 'tucked over beside'),
  'shaka': Gesture(1, 'curled curled curled straight', 'out far'),
  'horns': Gesture(1, 'straight curled curled straight', 'tucked over'),
  'love': Gesture(1, 'straight curled curled straight', 'out far'),
  'last_three': Gesture(1, 'curled straight straight straight', 'opposed beside'),
  'ok': Gesture(1, 'pinch straight straight straight', 'pinch'),
  'pinch_closed': Gesture(1, 'pinch curled curled curled', 'pinch'),
  'middle_down': Gesture(1, 'straight curled straight straight', 'opposed tucked'),
  'ring_down': Gesture(1, 'straight straight curled straight', 'opposed tucked'),
  'claw': Gesture(1, 'hook hook hook hook', 'out opposed'),
  'cup': Gesture(1.5, 'half half half half', 'opposed out'),
  'flat_bend': Gesture(1, 'table table table table', 'opposed beside'),
  'bent_index': Gesture(1, 'hook curled curled curled', 'tucked beside'),
  'bent_two': Gesture(1, 'hook hook curled curled', 'tucked out'),
}

# Probability that a finger of a gesture takes any bend instead of its own.
_ODD_FINGER = 0.06
# All fingers of a hand share this part of the variance within a range.
_COMMON = 0.5
_DIP_OVER_PIP, _DIP_OVER_PIP_SPREAD, _DIP_SPREAD = 0.6, 0.18, 7.0
# The palm stops a fingertip, so flexion of all three joints together has this limit in degrees.
_MOST_FLEXION = 220.0
_FAN_MEAN, _FAN_SPREAD, _FAN_RANGE = 4.0, 5.0, (-2.0, 14.0)
_THUMB_NOISE = 1.1

_BEND_NAMES, _THUMB_NAMES = list(BENDS), list(THUMBS)
_RANGES = np.asarray([[bend.mcp, bend.pip] for bend in BENDS.values()], np.float32)
_BEND_WEIGHTS = np.asarray([bend.weight for bend in BENDS.values()], np.float32)
_THUMB_MEANS = np.asarray([thumb.mean for thumb in THUMBS.values()], np.float32)
_FREE_THUMBS = np.asarray(
  [[t.beside_straight for t in THUMBS.values()], [t.beside_bent for t in THUMBS.values()]],
  np.float32,
)
_GESTURE_WEIGHTS = np.asarray([g.weight for g in GESTURES.values()], np.float32)
_GESTURE_WEIGHTS /= _GESTURE_WEIGHTS.sum()
_GESTURE_FINGERS = np.asarray(
  [[_BEND_NAMES.index(name) for name in g.fingers.split()] for g in GESTURES.values()], np.int32
)
_GESTURE_THUMBS = np.asarray(
  [[name in g.thumbs.split() for name in _THUMB_NAMES] for g in GESTURES.values()], np.float32
)


def sample_gesture_pose(key: jax.Array) -> Float[Array, '45']:
  """Draws a pose of a right hand inside the joint limits.

  The pose is axis-angle relative to zero pose, in radians. Its kind is drawn by `KIND_WEIGHTS`.
  """
  keys = jax.random.split(key, 4)
  weights = jnp.asarray(list(KIND_WEIGHTS.values()))
  kind = jax.random.choice(keys[0], len(KIND_WEIGHTS), p=weights)
  named_bends, named_thumb = _named_gesture(keys[1])
  free_bends, free_thumb = _free_hand(keys[2])
  is_named = kind == 0
  posed = _pose(
    keys[3],
    jnp.where(is_named, named_bends, free_bends),
    jnp.where(is_named, named_thumb, free_thumb),
  )
  return jnp.where(kind == 2, sample_hand_pose(keys[3]), posed)


def _named_gesture(key: jax.Array) -> tuple[Int[Array, '4'], Int[Array, '']]:
  """Draws one of `GESTURES`.

  Returns the indices of its fingers' bends in `BENDS`, and of its thumb's place in `THUMBS`.
  """
  keys = jax.random.split(key, 3)
  gesture = jax.random.choice(keys[0], len(GESTURES), p=_GESTURE_WEIGHTS)
  is_odd = jax.random.bernoulli(keys[1], _ODD_FINGER, (4,))
  bends = jnp.where(is_odd, _BEND_NAMES.index('any'), jnp.asarray(_GESTURE_FINGERS)[gesture])
  thumb = jax.random.categorical(keys[2], jnp.log(jnp.asarray(_GESTURE_THUMBS)[gesture]))
  return bends, thumb


def _free_hand(key: jax.Array) -> tuple[Int[Array, '4'], Int[Array, '']]:
  """Draws independent bends of the fingers, and a place of the thumb that depends on them.

  Returns the indices of the bends in `BENDS`, and of the place in `THUMBS`.
  """
  keys = jax.random.split(key, 2)
  bends = jax.random.choice(keys[0], len(BENDS), (4,), p=_BEND_WEIGHTS)
  is_bent = jnp.all(bends[:2] != _BEND_NAMES.index('straight')).astype(jnp.int32)
  thumb = jax.random.categorical(keys[1], jnp.log(jnp.asarray(_FREE_THUMBS)[is_bent]))
  return bends, thumb


def _pose(key: jax.Array, bends: Int[Array, '4'], thumb: Int[Array, '']) -> Float[Array, '45']:
  """Draws angles within the ranges of four bends, and round the mean of a thumb's place."""
  keys = jax.random.split(key, 7)
  low, high = jnp.moveaxis(jnp.asarray(_RANGES)[bends], -1, 0)  # each finger, MCP or PIP
  # The angles are uniform within each range, yet correlated between the fingers.
  common = jax.random.normal(keys[0], (1, 2))
  own = jax.random.normal(keys[1], (4, 2))
  share = jax.scipy.stats.norm.cdf(_COMMON**0.5 * common + (1 - _COMMON) ** 0.5 * own)
  mcp, pip = jnp.moveaxis(low + share * (high - low), -1, 0)
  coupling = _DIP_OVER_PIP + _DIP_OVER_PIP_SPREAD * jax.random.normal(keys[2], (4,))
  dip = coupling * pip + _DIP_SPREAD * jax.random.normal(keys[3], (4,))
  dip = jnp.minimum(dip, jnp.maximum(_MOST_FLEXION - mcp - pip, 0.0))
  fan = jnp.clip(_FAN_MEAN + _FAN_SPREAD * jax.random.normal(keys[4]), *_FAN_RANGE)
  flexion = jnp.stack([mcp, pip, dip], axis=-1)
  fingers = fan_fingers(jax.random.split(keys[5], 2), flexion, fan, jnp.clip(mcp / 90, 0, 1))
  means = jnp.asarray(_THUMB_MEANS)[thumb]
  return pose_within_limits(fingers, thumb_angles(keys[6], means, jnp.asarray(_THUMB_NOISE)))


POSE_SAMPLERS = {'classic': sample_hand_pose, 'broad': sample_gesture_pose}
"""The samplers of hand poses by name, which `HANDS` in `hand_jax/synthetic/scene.py` refers to."""
