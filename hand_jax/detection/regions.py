"""Places turned squares of a photo that show one hand with its fingers up, and crops them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.detection.anchors import MIDDLE_BASE, WRIST
from hand_jax.geometry.cameras import angle_from_upright, transform_points
from hand_jax.geometry.warping import warp_image

# The landmark network was trained on squares of these proportions (MediaPipe's pipeline). The first
# pair is relative to the palm's box, the second to the box around `_STEADY_LANDMARKS`.
_PALM_SCALE, _PALM_SHIFT = 2.6, 0.5
_LANDMARK_SCALE, _LANDMARK_SHIFT = 2.0, 0.1
# The wrist, the thumb without its tip, and the bases and first joints of the fingers hardly move
# with the fingertips, so the square stays in place while fingers bend.
_STEADY_LANDMARKS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
_INDEX_BASE, _MIDDLE_BASE, _RING_BASE = 5, 9, 13


class HandRegion(NamedTuple):
  """A turned square of the photo."""

  centre: tuple[float, float]
  """x and y in pixels. The first pixel's centre is (0.5, 0.5)."""
  side: float
  """Pixels."""
  angle: float
  """The turn from upright in radians, clockwise as seen."""


def region_from_palm(
  centre: Float[np.ndarray, '2'],
  size: Float[np.ndarray, '2'],
  points: Float[np.ndarray, '7 2'],
) -> HandRegion:
  """Places the square that should show the whole hand of a palm, with the middle finger upwards.

  Args:
    centre: x and y of the palm's box, in pixels of the photo.
    size: width and height of that box.
    points: the palm's seven points, see `Palms`.
  """
  angle = angle_from_upright(points[MIDDLE_BASE] - points[WRIST])
  side = float(size.max())
  return _shifted(centre, _PALM_SHIFT * side, _PALM_SCALE * side, angle)


def region_from_landmarks(landmarks: Float[np.ndarray, '21 2']) -> HandRegion:
  """Places the square for another reading of a hand whose 21 landmarks (pixels) are known."""
  bases = (landmarks[_INDEX_BASE] + landmarks[_RING_BASE]) / 2
  angle = angle_from_upright((bases + landmarks[_MIDDLE_BASE]) / 2 - landmarks[0])
  upright = landmarks[list(_STEADY_LANDMARKS)] @ _rotation(angle)
  low, high = upright.min(0), upright.max(0)
  extent = high - low
  centre = _rotation(angle) @ ((low + high) / 2)
  return _shifted(
    centre, _LANDMARK_SHIFT * float(extent[1]), _LANDMARK_SCALE * float(extent.max()), angle
  )


def photo_to_crop(region: HandRegion, side: int) -> Float[np.ndarray, '3 3']:
  """Computes the affine from photo pixels to pixels of the region's crop, `side` x `side`."""
  affine = np.eye(3)
  affine[:2, :2] = _rotation(region.angle).T * (side / region.side)
  affine[:2, 2] = side / 2 - affine[:2, :2] @ region.centre
  return affine


def crop_region(
  image: UInt8[np.ndarray, 'height width 3'], region: HandRegion, side: int
) -> UInt8[np.ndarray, 'side side 3']:
  """Cuts the region out upright and without aliasing. Pixels outside the photo are black.

  Args:
    image: the photo.
    region: the square to show.
    side: the crop's side in pixels.
  """
  return warp_image(image, photo_to_crop(region, side), side)


def points_in_photo(
  points: Float[np.ndarray, 'points 2'], region: HandRegion, side: int
) -> Float[np.ndarray, 'points 2']:
  """Maps pixels of a region's crop back to pixels of the photo.

  Args:
    points: x and y in pixels of the crop.
    region: the square that the crop shows.
    side: the crop's side in pixels.
  """
  return transform_points(np.linalg.inv(photo_to_crop(region, side)), points)


def turn_with_region(
  points: Float[np.ndarray, 'points 3'], region: HandRegion
) -> Float[np.ndarray, 'points 3']:
  """Turns 3D points from the axes of the region's crop to those of the photo (x right, y down)."""
  return np.concatenate([points[:, :2] @ _rotation(region.angle).T, points[:, 2:]], 1)


def _rotation(angle: float) -> np.ndarray:
  """Makes the matrix that turns column vectors (x right, y down) clockwise as seen."""
  cosine, sine = np.cos(angle), np.sin(angle)
  return np.array([[cosine, -sine], [sine, cosine]])


def _shifted(centre: np.ndarray, up: float, side: float, angle: float) -> HandRegion:
  """Moves a square by `up` pixels towards its own top."""
  x, y = centre + _rotation(angle) @ np.array([0.0, -up])
  return HandRegion((float(x), float(y)), side, angle)
