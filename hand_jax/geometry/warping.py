"""Photos resampled by an affine without aliasing, for crops of any size."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# Below this shrink factor bilinear sampling differs from area averaging by less than a third of a
# grey level.
_SMOOTHED_FROM = 1.1


def warp_image(
  image: UInt8[np.ndarray, 'height width *channels'],
  affine: Float[np.ndarray, '3 3'],
  side: int,
) -> UInt8[np.ndarray, 'side side *channels']:
  """Resamples an image by an affine without aliasing.

  Pixel positions are continuous, and the first pixel's centre is (0.5, 0.5). Where the crop is
  smaller than the part of the image that it shows, each crop pixel is about the mean over its area.
  For a shrink factor below two, the image is smoothed before bilinear sampling. For a larger
  factor, a warp at a whole multiple of the side is averaged down.

  Args:
    image: 8-bit grey or colour image.
    affine: maps image pixels to crop pixels, as `crop_affine` builds it.
    side: side of the square crop, pixels.

  Returns:
    The crop. It is zero where it lies outside the image.
  """
  (xx, xy, _), (yx, yy, _), _ = affine.tolist()
  shrink = abs(xx * yy - xy * yx) ** -0.5
  left, top, right, bottom = _shown_part(affine, side, int(2 * shrink) + 3, image.shape)
  if left >= right or top >= bottom:
    return np.zeros((side, side, *image.shape[2:]), np.uint8)
  part, factor = image[top:bottom, left:right], 1
  # Halve a photo that shrinks far more, so that the intermediate picture stays below 4 x the side.
  while shrink > 4:
    part, factor, shrink = _halve(part), 2 * factor, shrink / 2
  multiple = 1 if shrink < 2 - 1e-3 else int(np.ceil(shrink - 1e-3))
  if multiple == 1 and shrink > _SMOOTHED_FROM:
    part = _smooth(part, shrink)
  # This matrix maps pixels of the part to those of the warp. OpenCV counts both from pixel centres.
  matrix = factor * multiple * affine[:2]
  corner = affine[:2] @ (left + factor / 2, top + factor / 2, 1.0)
  matrix[:, 2] = multiple * corner - 0.5
  has_colors = part.ndim == 3 and part.shape[2] == 3
  if has_colors:  # OpenCV warps four channels more than twice as fast as three.
    part = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
  size = (side * multiple, side * multiple)
  crop = cv2.warpAffine(part, matrix, size, flags=cv2.INTER_LINEAR, borderValue=0)
  if multiple > 1:
    crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
  crop = cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB) if has_colors else crop
  # OpenCV drops an axis of one channel.
  return crop.reshape(side, side, *image.shape[2:])


def _shown_part(
  affine: Float[np.ndarray, '3 3'], side: int, margin: int, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
  """Returns left, top, right and bottom of the part that the crop shows, `margin` pixels wider."""
  inverse = cv2.invertAffineTransform(affine[:2])
  borders = []
  for (along_x, along_y, start), size in zip(inverse.tolist(), shape[1::-1], strict=True):
    low = start + side * (min(along_x, 0.0) + min(along_y, 0.0))
    high = start + side * (max(along_x, 0.0) + max(along_y, 0.0))
    borders.append((max(0, int(low) - margin), min(size, int(high) + margin)))
  (left, right), (top, bottom) = borders
  return left, top, right, bottom


def _halve(image: np.ndarray) -> np.ndarray:
  """Averages blocks of 2 x 2 pixels. An odd row or column is completed with black."""
  height, width = image.shape[:2]
  if height % 2 or width % 2:
    border = cv2.BORDER_CONSTANT
    image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, border, value=0)
  size = ((width + 1) // 2, (height + 1) // 2)
  return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _smooth(image: np.ndarray, shrink: float) -> np.ndarray:
  """Removes the detail that bilinear samples `shrink` pixels apart (1 to 2) would alias.

  Pixels outside the image count as black. The weight of the neighbours is fitted on photos and on
  noise, so that the samples come closest to means over shrink x shrink pixels.
  """
  neighbour = 0.14 * shrink - 0.075
  kernel = np.array([neighbour, 1 - 2 * neighbour, neighbour])
  return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
