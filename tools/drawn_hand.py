"""Draws a simple open hand of rounded sticks, which every machine computes alike."""

import numpy as np
from jaxtyping import Float, UInt8

_SKIN = np.array([224.0, 172.0, 140.0])
_BACKGROUND = np.array([70.0, 90.0, 110.0])
# Each row is a stick of a right palm, whose thumb is to the right. It holds x and y of both ends
# and the half width in hand lengths. The wrist is the origin, and y points down.
_STICKS = np.array(
  [
    [0.00, 0.02, 0.00, 0.70, 0.13],  # forearm
    [-0.04, -0.06, -0.15, -0.40, 0.09],  # palm
    [-0.02, -0.06, -0.05, -0.42, 0.10],
    [0.02, -0.06, 0.05, -0.42, 0.10],
    [0.04, -0.08, 0.12, -0.40, 0.09],
    [0.10, -0.12, 0.25, -0.32, 0.06],  # thumb
    [0.25, -0.32, 0.34, -0.48, 0.045],
    [0.14, -0.46, 0.22, -0.82, 0.042],  # index to little finger
    [0.05, -0.48, 0.07, -0.92, 0.044],
    [-0.06, -0.48, -0.10, -0.86, 0.042],
    [-0.16, -0.44, -0.25, -0.70, 0.036],
  ]
)
# These are the tips of thumb, index, middle, ring and little finger, in hand lengths.
FINGERTIPS = _STICKS[6:, 2:4]


def draw_hand(
  picture: UInt8[np.ndarray, 'height width 3'],
  wrist: tuple[float, float],
  length: float,
  turn: tuple[float, float] = (1.0, 0.0),
  mirrored: bool = False,
) -> Float[np.ndarray, '5 2']:
  """Draws a hand into the picture, shaded like round sticks.

  Args:
    picture: the picture, which is changed.
    wrist: where the wrist goes, in pixels.
    length: approximate distance from the wrist to the tip of the middle finger, in pixels.
    turn: cosine and sine of the clockwise rotation from a hand whose fingers point up.
    mirrored: whether the thumb is on the left instead of the right before the rotation.

  Returns:
    The fingertips in pixels of the picture, the thumb first.
  """
  cosine, sine = turn
  to_picture = length * np.array([[cosine, sine], [-sine, cosine]])
  if mirrored:
    to_picture = np.diag([-1.0, 1.0]) @ to_picture
  # Only the part of the picture that the hand can reach is computed.
  low = np.maximum(np.array(wrist) - 1.1 * length, 0).astype(int)
  high = np.maximum(np.array(wrist) + 1.1 * length, 0).astype(int)
  part = picture[low[1] : high[1], low[0] : high[0]]
  rows, columns = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5
  points = np.stack([columns, rows], -1) + low
  height = np.zeros(part.shape[:2])
  for stick in _STICKS:
    start, end = stick[:2] @ to_picture + wrist, stick[2:4] @ to_picture + wrist
    radius, along = stick[4] * length, end - start
    share = np.clip(((points - start) @ along) / (along @ along), 0.0, 1.0)
    offset = points - start - share[..., None] * along
    inside = 1.0 - (offset**2).sum(-1) / radius**2
    height = np.maximum(height, np.sqrt(np.maximum(inside, 0.0)) * radius)
  drawn = height > 0
  shade = 0.6 + 0.4 * np.sqrt(np.minimum(height[drawn] / (0.06 * length), 1.0))
  part[drawn] = np.round(shade[:, None] * _SKIN)
  return FINGERTIPS @ to_picture + wrist


def draw_test_picture(side: int) -> UInt8[np.ndarray, 'side side 3']:
  """Draws one hand with its fingers up, which fills most of a square picture."""
  picture = np.empty((side, side, 3), np.uint8)
  picture[:] = _BACKGROUND
  draw_hand(picture, (0.48 * side, 0.82 * side), 0.68 * side)
  return picture
