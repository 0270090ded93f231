"""Draws a reconstruction over its photo, upright and not mirrored."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.geometry.cameras import crop_affine, transform_points
from hand_jax.geometry.warping import warp_image
from hand_jax.mano.joints import BONES
from hand_jax.reconstruction.hand_data import HandData
from hand_jax.reconstruction.meshes import legend_image, sigma_colors, sigma_range_mm
from hand_jax.rendering.overlay import PAPER, overlay_panels, texture_panels

PANEL_SIDE = 480
# The longer side, in pixels, of the picture of all hands of a photo.
_HANDS_SIDE = 1280
# Okabe and Ito's colours, which people with any colour vision can tell apart.
_HAND_COLORS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (213, 94, 0))
_JPEG_QUALITY = 88


def display_vertices(reconstruction: HandData, crop_side: int) -> Float[np.ndarray, 'vertices 3']:
  """Projects vertices to pixels of an upright, unmirrored crop, with their depth in pixels."""
  to_crop, pixels = display_affine(reconstruction, crop_side)
  scale = reconstruction.pixels_per_metre
  depth = scale * pixels * reconstruction.vertices[:, 2:]
  return np.concatenate(
    [transform_points(to_crop, reconstruction.vertices_image.astype(np.float64)), depth], axis=1
  )


def display_affine(reconstruction: HandData, side: int) -> tuple[Float[np.ndarray, '3 3'], float]:
  """Computes the affine from the photo to the network's crop at another size, and its scale.

  The result neither mirrors the photo nor turns it.
  """
  affine, network_side = reconstruction.crop_affine, reconstruction.crop_side
  middle = np.full((1, 2), network_side / 2)
  (centre,) = transform_points(np.linalg.inv(affine), middle)
  shown = network_side / abs(np.linalg.det(affine[:2, :2])) ** 0.5
  box = np.array([*(centre - shown / 2), shown, shown])
  return crop_affine(box, side, 1.0), float(side / shown)


def display_crop(reconstruction: HandData, side: int) -> Float[np.ndarray, 'side side 3']:
  """Cuts out the part of the photo that the network saw, with colours in [0, 1].

  Pixels outside the photo have the background colour.
  """
  image = reconstruction.photo
  whole_to_crop, _ = display_affine(reconstruction, side)
  shrink = 1 / reconstruction.photo_scale
  to_crop = whole_to_crop @ np.diag([shrink, shrink, 1.0])
  inside = warp_image(np.full_like(image, 255), to_crop, side) / np.float32(255)
  return warp_image(image, to_crop, side) / np.float32(255) + PAPER * (1 - inside)


def overlay_image(
  reconstruction: HandData,
) -> UInt8[np.ndarray, 'panel_height width2 3']:
  """Draws the crop, the mesh over it, and the mesh coloured by sigma with a legend."""
  range_mm = sigma_range_mm(reconstruction.vertex_sigma_mm)
  return overlay_panels(
    display_crop(reconstruction, PANEL_SIDE),
    display_vertices(reconstruction, PANEL_SIDE),
    reconstruction.faces,
    sigma_colors(reconstruction.vertex_sigma_mm, range_mm),
    legend_image(range_mm, PANEL_SIDE),
  )


def texture_image(
  reconstruction: HandData,
) -> UInt8[np.ndarray, 'panel_height width2 3']:
  """Draws the photo crop, the hand in its own colours over it, and the hand from two other sides.

  The reconstruction must have `vertex_colors`.
  """
  colors = reconstruction.vertex_colors
  if colors is None:
    raise ValueError('the reconstruction has no colours: its network has no texture branch.')
  return texture_panels(
    display_crop(reconstruction, PANEL_SIDE),
    display_vertices(reconstruction, PANEL_SIDE),
    reconstruction.faces,
    colors,
  )


def hands_image(hands: Sequence[HandData]) -> bytes:
  """Draws the bones of all hands, numbered, over the photo, as a JPEG of at most 1280 pixels.

  Args:
    hands: the hands of one photo, at least one.
  """
  photo = hands[0].photo
  scale = min(1.0, _HANDS_SIDE / max(photo.shape[:2]))
  size = [max(1, round(scale * length)) for length in photo.shape[1::-1]]
  picture = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
  unit = max(max(size) / 640, 0.5)
  for number, hand in enumerate(hands, start=1):
    drawn = scale * hand.photo_scale
    _draw_hand(picture, hand, f'{number} {hand.side}', _HAND_COLORS[(number - 1) % 5], drawn, unit)
  quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
  return cv2.imencode('.jpg', np.ascontiguousarray(picture[..., ::-1]), quality)[1].tobytes()


def _draw_hand(
  picture: np.ndarray,
  hand: HandData,
  label: str,
  color: tuple[int, int, int],
  scale: float,
  unit: float,
) -> None:
  """Draws bones and a label, with lines `unit` times as wide as on a small picture."""
  # OpenCV's pixel centres are whole numbers, and far coordinates would overflow its integers.
  limit = 4 * max(picture.shape)
  points = np.clip(scale * hand.joints_image.astype(np.float64) - 0.5, -limit, limit)
  points = np.round(points).astype(int)
  for parent, child in BONES:
    ends = tuple(map(int, points[parent])), tuple(map(int, points[child]))
    cv2.line(picture, *ends, (255, 255, 255), round(4 * unit), cv2.LINE_AA)
    cv2.line(picture, *ends, color, max(1, round(2 * unit)), cv2.LINE_AA)
  font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5 * unit
  (width, height), _ = cv2.getTextSize(label, font, size, 1)
  x = int(np.clip(points[:, 0].min(), 2, max(2, picture.shape[1] - width - 4)))
  y = int(np.clip(points[:, 1].min() - 4 * unit, height + 4, max(height + 4, picture.shape[0] - 4)))
  cv2.rectangle(picture, (x - 3, y - height - 3), (x + width + 3, y + 4), color, -1)
  cv2.putText(picture, label, (x, y), font, size, (0, 0, 0), max(1, round(unit)), cv2.LINE_AA)
