"""Makes the small hand masks that `loss.silhouette` compares a drawn hand with."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from hand_jax.data.augmentation import Placement
from hand_jax.examples import HandExample
from hand_jax.geometry.cameras import (
  perspective_from_intrinsics,
  project_perspective,
  transform_points,
)
from hand_jax.geometry.warping import warp_image
from hand_jax.types import SILHOUETTE_FULL, SILHOUETTE_UNKNOWN

# Meshes are drawn at this multiple of the side, since OpenCV draws whole pixels of an outline.
_FINER = 4
# OpenCV takes corners of polygons as whole numbers with this many bits behind the point.
_FRACTION_BITS = 4
# Triangles that reach farther out of the picture than this many pixels are not drawn.
_FARTHEST = 2**15


class SilhouetteMaker:
  """Makes silhouettes of one size, each from an example's mask, mesh and crop.

  Where the labelled mesh covers most of a pixel and the mask does not, something hides the hand:
  its shape behind that is unknown, and the pixel is marked so. Without a mesh no pixel of a known
  mask is. Without a mask all pixels are.

  Args:
    side: side of the silhouettes, pixels.
    faces: vertex ids of the hand model's faces.
  """

  def __init__(self, side: int, faces: Any):
    self._side, self._faces = side, np.asarray(faces)

  def __call__(
    self,
    example: HandExample,
    hand_mask: Bool[np.ndarray, 'height width'] | None,
    placement: Placement,
  ) -> UInt8[np.ndarray, 'side side']:
    """Makes one silhouette, as `HandBatch.silhouette` describes it.

    Args:
      example: the labels. Its own mask and photo are not read.
      hand_mask: the pixels of the photo that show the hand, or None where this is unknown.
      placement: where the photo lies in the crop.
    """
    side = self._side
    if hand_mask is None:
      return np.full((side, side), SILHOUETTE_UNKNOWN, np.uint8)
    scale = np.diag([side / placement.side, side / placement.side, 1.0])
    shown = warp_image(
      hand_mask.view(np.uint8) * np.uint8(SILHOUETTE_FULL), scale @ placement.photo_to_crop, side
    )
    if example.vertices_camera is None or example.intrinsics is None:
      return shown
    camera = perspective_from_intrinsics(example.intrinsics.astype(np.float64))
    points = project_perspective(camera, example.vertices_camera.astype(np.float64))
    points = transform_points(placement.photo_to_crop, np.asarray(points))
    whole = draw_mesh(points * (side / placement.side), self._faces, side)
    hidden = whole.astype(np.int16) - shown > SILHOUETTE_FULL // 2
    return np.where(hidden, np.uint8(SILHOUETTE_UNKNOWN), shown)


def draw_mesh(
  points: Float[np.ndarray, 'vertices 2'], faces: np.ndarray, side: int
) -> UInt8[np.ndarray, 'side side']:
  """Draws which share of each pixel a mesh covers, times `SILHOUETTE_FULL`.

  Args:
    points: the vertices in pixels.
    faces: vertex ids of the faces.
    side: side of the picture, pixels.
  """
  # OpenCV counts from pixel centres.
  corners = (points * _FINER - 0.5)[faces]
  corners = corners[(np.abs(corners) < _FARTHEST).all(axis=(1, 2))]
  polygons = np.round(corners * 2**_FRACTION_BITS).astype(np.int32)
  picture = np.zeros((side * _FINER, side * _FINER), np.uint8)
  for polygon in polygons:
    cv2.fillConvexPoly(picture, polygon, SILHOUETTE_FULL, shift=_FRACTION_BITS)
  return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
