"""Turned squares of a photo that show one hand, fingers up: where they lie, and what they show."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.detection.anchors import MIDDLE_BASE, WRIST
from hand_jax.geometry.cameras import transform_points
from hand_jax.geometry.warping import warp_image

# The landmark network was trained on squares of these proportions (MediaPipe's pipeline): relative
# to the palm's box, and to the box round the landmarks of palm and lower fingers.
_PALM_SCALE, _PALM_SHIFT = 2.6, 0.5
_LANDMARK_SCALE, _LANDMARK_SHIFT = 2.0, 0.1
# Wrist, thumb without its tip, bases and first joints of the fingers: they hardly move with the
# fingertips, so that the square stays while fingers bend.
_STEADY_LANDMARKS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
_INDEX_BASE, _MIDDLE_BASE, _RING_BASE = 5, 9, 13


class HandRegion(NamedTuple):
  """A square of the photo, turned by `angle` (radians, clockwise as seen) from upright.

  `centre`: x, y in pixels, the first pixel's centre at (0.5, 0.5). `side`: pixels.
  """

  centre: tuple[float, float]
  side: float
  angle: float


def region_from_palm(
  centre: Float[np.ndarray, '2'],
  size: Float[np.ndarray, '2'],
  points: Float[np.ndarray, '7 2'],
) -> HandRegion:
  """Places the square that should show the whole hand of a palm, its middle finger upwards."""
  angle = _turn_upright(points[MIDDLE_BASE] - points[WRIST])
  side = float(size.max())
  return _shifted(centre, _PALM_SHIFT * side, _PALM_SCALE * side, angle)


def region_from_landmarks(landmarks: Float[np.ndarray, '21 2']) -> HandRegion:
  """Places the square for another look at a hand whose 21 landmarks (pixels) are known."""
  bases = (landmarks[_INDEX_BASE] + landmarks[_RING_BASE]) / 2
  angle = _turn_upright((bases + landmarks[_MIDDLE_BASE]) / 2 - landmarks[0])
  upright = landmarks[list(_STEADY_LANDMARKS)] @ _rotation(angle)
  low, high = upright.min(0), upright.max(0)
  extent = high - low
  centre = _rotation(angle) @ ((low + high) / 2)
  return _shifted(
    centre, _LANDMARK_SHIFT * float(extent[1]), _LANDMARK_SCALE * float(extent.max()), angle
  )


def photo_to_crop(region: HandRegion, side: int) -> Float[np.ndarray, '3 3']:
  """Gives the affine from photo pixels to pixels of the region's crop, `side` x `side`."""
  affine = np.eye(3)
  affine[:2, :2] = _rotation(region.angle).T * (side / region.side)
  affine[:2, 2] = side / 2 - affine[:2, :2] @ region.centre
  return affine


def crop_region(
  image: UInt8[np.ndarray, 'height width 3'], region: HandRegion, side: int
) -> UInt8[np.ndarray, 'side side 3']:
  """Shows the region upright in `side` x `side` pixels, without aliasing; black off the photo."""
  return warp_image(image, photo_to_crop(region, side), side)


def points_in_photo(
  points: Float[np.ndarray, 'points 2'], region: HandRegion, side: int
) -> Float[np.ndarray, 'points 2']:
  """Maps pixels of a region's crop of that side back to pixels of the photo."""
  return transform_points(np.linalg.inv(photo_to_crop(region, side)), points)


def turn_with_region(
  points: Float[np.ndarray, 'points 3'], region: HandRegion
) -> Float[np.ndarray, 'points 3']:
  """Turns 3D points from the axes of the region's crop to those of the photo (x right, y down)."""
  return np.concatenate([points[:, :2] @ _rotation(region.angle).T, points[:, 2:]], 1)


def _turn_upright(direction: np.ndarray) -> float:
  """The angle of a direction in the picture from straight up, clockwise as seen."""
  return float(np.arctan2(direction[0], -direction[1]))


def _rotation(angle: float) -> np.ndarray:
  """Turns columns (x right, y down) clockwise as seen."""
  cosine, sine = np.cos(angle), np.sin(angle)
  return np.array([[cosine, -sine], [sine, cosine]])


def _shifted(centre: np.ndarray, up: float, side: float, angle: float) -> HandRegion:
  """The square moved by `up` pixels towards its own top."""
  x, y = centre + _rotation(angle) @ np.array([0.0, -up])
  return HandRegion((float(x), float(y)), side, angle)
