"""Tells which vertices of an estimated mesh an object hides, from a mask of the hand."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from hand_jax.geometry.cameras import transform_points
from hand_jax.geometry.warping import warp_image

# Meshes and estimated masks are some millimetres off. A vertex counts as seen this close to the
# mask, as a share of the crop's side, which is about 4 mm.
_MISFIT = 0.02


def near_hand_mask(
  hand_mask: Bool[np.ndarray, 'height width'] | None,
  photo_to_crop: Float[np.ndarray, '3 3'],
  side: int,
  vertices_image: Float[np.ndarray, 'vertices 2'],
) -> Bool[np.ndarray, ' vertices']:
  """Tells which vertices lie where the photo shows the hand, or a few millimetres beside it.

  Args:
    hand_mask: where the photo shows the hand. With None all vertices count.
    photo_to_crop: maps the photo to a square crop of the hand.
    side: of the crop, pixels.
    vertices_image: the vertices in pixels of the photo.
  """
  if hand_mask is None:
    return np.ones(len(vertices_image), bool)
  shown = (warp_image(255 * hand_mask.astype(np.uint8), photo_to_crop, side) > 127).astype(np.uint8)
  reach = 2 * round(_MISFIT * side) + 1
  shown = cv2.dilate(shown, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) > 0
  pixels = transform_points(photo_to_crop, np.asarray(vertices_image, np.float64))
  inside = ((pixels >= 0) & (pixels < side)).all(axis=1)
  column, row = np.clip(np.floor(pixels), 0, side - 1).astype(int).T
  return inside & shown[row, column]
