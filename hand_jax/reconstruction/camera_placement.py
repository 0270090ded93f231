"""Places a hand in the space of the photo's camera, by a known or assumed focal length.

A photo shows how large a hand looks, but not how far away it is. A hand twice as large at twice the
distance gives the same picture, and so does a longer focal length. Depth is therefore as uncertain
as the hand's size, and also as the focal length if that is not given.
"""

import numbers
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Larger than the spread of adults' hands, because a photo cannot distinguish a child's hand from a
# hand that is farther away.
SIZE_SIGMA = 0.10
DEFAULT_FOCAL_SIGMA = 0.25
DEFAULT_FIELD_OF_VIEW_DEG = 70.0
# Millimetres: the diagonal of a 24 x 36 mm frame, which "35 mm equivalent" refers to.
_FRAME_DIAGONAL_MM = 43.27
# EXIF data with a focal length outside this range (mm) are wrong.
_FOCAL_35MM_RANGE = (5.0, 2000.0)
# The range of given focal lengths, in diagonals of the photo: from an extreme wide-angle lens to an
# extreme telephoto lens.
_GIVEN_RANGE = (0.2, 20.0)
GIVEN, EXIF, ASSUMED = 'given', 'exif', 'assumed'
_SOURCES = {
  GIVEN: 'given',
  EXIF: 'from the EXIF data (FocalLengthIn35mmFilm)',
  ASSUMED: f'assumed: a diagonal field of view of {DEFAULT_FIELD_OF_VIEW_DEG:.0f} degrees',
}


class PhotoCamera(NamedTuple):
  """Holds the pinhole camera of a photo, in square pixels of the upright photo."""

  focal_length_px: float
  principal_point: tuple[float, float]
  source: str = GIVEN
  """Where the focal length comes from: 'given', 'exif' or 'assumed'."""

  @property
  def source_text(self) -> str:
    """Describes the source of the focal length in words."""
    return _SOURCES[self.source]

  @property
  def intrinsics(self) -> Float[np.ndarray, '3 3'] | None:
    """Returns the intrinsic matrix in pixels, or None where the focal length is only assumed."""
    if self.source == ASSUMED:
      return None
    focal, (x, y) = self.focal_length_px, self.principal_point
    return np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]], np.float64)

  def scaled(self, factor: float) -> 'PhotoCamera':
    """Returns the camera of the same photo resized by `factor` along each side."""
    x, y = self.principal_point
    return PhotoCamera(factor * self.focal_length_px, (factor * x, factor * y), self.source)

  @property
  def relative_depth_sigma(self) -> float:
    """Returns one sigma of a hand's distance as a share of that distance."""
    return float(np.hypot(SIZE_SIGMA, DEFAULT_FOCAL_SIGMA * (self.source == ASSUMED)))


def photo_camera(
  photo_size: tuple[int, int],
  focal_length_px: float | int | None = None,
  focal_35mm: float | None = None,
) -> PhotoCamera:
  """Chooses the camera of a photo.

  A given focal length comes first, then that of the EXIF data. Without either the diagonal field of
  view is assumed to be 70 degrees.

  Args:
    photo_size: the upright photo's width and height in pixels. Its centre is the principal point.
    focal_length_px: the focal length in pixels, where it is known.
    focal_35mm: EXIF's `FocalLengthIn35mmFilm`. Impossible values are ignored.

  Raises:
    ValueError: the given focal length is not a finite number above zero, or it is impossible for a
      photo of this size.
    TypeError: the focal length is not a number.
  """
  width, height = photo_size
  diagonal, centre = float(np.hypot(width, height)), (width / 2, height / 2)
  if focal_length_px is not None:
    check_lens(focal_length_px, photo_size)
    return PhotoCamera(float(focal_length_px), centre, GIVEN)
  low, high = _FOCAL_35MM_RANGE
  if focal_35mm is not None and low <= focal_35mm <= high:
    return PhotoCamera(focal_35mm * diagonal / _FRAME_DIAGONAL_MM, centre, EXIF)
  half_angle = np.radians(DEFAULT_FIELD_OF_VIEW_DEG / 2)
  return PhotoCamera(float(diagonal / 2 / np.tan(half_angle)), centre, ASSUMED)


def check_focal_length(focal_length_px: float | int) -> None:
  """Checks that a focal length is a finite number above zero.

  Raises:
    TypeError: it is not a number.
    ValueError: it is not finite, or not above zero.
  """
  if isinstance(focal_length_px, bool) or not isinstance(focal_length_px, numbers.Real):
    raise TypeError(f'The focal length is {focal_length_px!r}, expected a number of pixels.')
  if not 0 < focal_length_px < float('inf'):
    raise ValueError(
      f'The focal length is {focal_length_px:g}, expected pixels: a finite number above zero.'
    )


def check_lens(
  focal_length_px: float | int, photo_size: tuple[int, int], flag: str = 'focal_length_px'
) -> None:
  """Checks that a lens for photos of this size may have a focal length.

  Args:
    focal_length_px: the focal length in pixels.
    photo_size: the photo's width and height in pixels.
    flag: where the focal length was given, for the message.

  Raises:
    ValueError: no lens has it. Where it may be a 35 mm equivalent in mm, the message says how many
      pixels that is.
    TypeError: it is no number.
  """
  check_focal_length(focal_length_px)
  width, height = photo_size
  diagonal = float(np.hypot(width, height))
  low, high = (factor * diagonal for factor in _GIVEN_RANGE)
  if low <= focal_length_px <= high:
    return
  pixels = focal_length_px * diagonal / _FRAME_DIAGONAL_MM
  hint = ''
  if _FOCAL_35MM_RANGE[0] <= focal_length_px <= _FOCAL_35MM_RANGE[1] and low <= pixels <= high:
    hint = f' If {focal_length_px:g} is a 35 mm equivalent in mm, write {flag}={pixels:.0f}.'
  raise ValueError(
    f'The focal length of {focal_length_px:g} pixels fits no lens for a photo of {width} x '
    f'{height}: expected {low:.0f} to {high:.0f}.{hint}'
  )


def camera_from_intrinsics(intrinsics: Float[np.ndarray, '3 3']) -> PhotoCamera:
  """Makes a camera from an intrinsic matrix in pixels, with the mean of both focal lengths.

  The mean is the geometric one.
  """
  focal = float(np.sqrt(intrinsics[0, 0] * intrinsics[1, 1]))
  return PhotoCamera(focal, (float(intrinsics[0, 2]), float(intrinsics[1, 2])), GIVEN)


def place_in_camera(
  joints: Float[np.ndarray, 'joints 3'],
  joints_image: Float[np.ndarray, 'joints 2'],
  camera: PhotoCamera,
  pixels_per_metre: float,
) -> Float[np.ndarray, '3']:
  """Finds the position of the wrist in camera space that best projects the joints to their pixels.

  A joint (x, y, z) relative to the wrist at t projects to u if f (x + t_x) = (u - c) (z + t_z), and
  likewise for y. These equations are linear in t and are solved by least squares.

  Args:
    joints: metres relative to the wrist, camera axes.
    joints_image: the joints in pixels of the photo.
    camera: the photo's camera.
    pixels_per_metre: the scale of the hand in weak perspective. It gives the depth if the
      least-squares solution lies behind the camera.
  """
  focal = camera.focal_length_px
  joints = np.asarray(joints, np.float64)
  offsets = np.asarray(joints_image, np.float64) - np.array([camera.principal_point])
  rows = np.zeros((len(joints), 2, 3))
  rows[:, 0, 0] = rows[:, 1, 1] = focal
  rows[:, :, 2] = -offsets
  known = offsets * joints[:, 2:] - focal * joints[:, :2]
  place = np.linalg.lstsq(rows.reshape(-1, 3), known.reshape(-1), rcond=None)[0]
  if place[2] + joints[:, 2].min() > 0:
    return place
  # An untrained network may give any joints. Weak perspective always has a solution.
  depth = focal / pixels_per_metre
  return np.array([*(offsets[0] * depth / focal), depth])
