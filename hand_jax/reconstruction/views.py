"""Draws a reconstruction over its photo, upright and not mirrored."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

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
# Between a hand's mesh and its label, as a share of the mesh's larger side.
_LABEL_GAP = 0.05


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
  drawn = [scale * hand.photo_scale for hand in hands]
  joints = [
    _whole(one * hand.joints_image, picture) for one, hand in zip(drawn, hands, strict=True)
  ]
  meshes = [
    _whole(one * hand.vertices_image, picture) for one, hand in zip(drawn, hands, strict=True)
  ]
  colors = [_HAND_COLORS[number % 5] for number in range(len(hands))]
  for points, color in zip(joints, colors, strict=True):
    _draw_bones(picture, points, color, unit)
  labels: list[np.ndarray] = []
  for number, hand in enumerate(hands):
    text, taken = f'{number + 1} {hand.side}', [*meshes, *labels]
    labels.append(_draw_label(picture, text, taken, number, colors[number], unit))
  quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
  return cv2.imencode('.jpg', np.ascontiguousarray(picture[..., ::-1]), quality)[1].tobytes()


def _whole(
  points: Float[np.ndarray, 'points 2'], picture: np.ndarray
) -> Int[np.ndarray, 'points 2']:
  """Rounds pixels of a picture to those of OpenCV, whose centres are whole numbers."""
  # Far coordinates would overflow OpenCV's integers.
  limit = 4 * max(picture.shape)
  return np.round(np.clip(points.astype(np.float64) - 0.5, -limit, limit)).astype(int)


def _draw_bones(
  picture: np.ndarray, points: np.ndarray, color: tuple[int, int, int], unit: float
) -> None:
  """Draws bones with lines `unit` times as wide as on a small picture."""
  for parent, child in BONES:
    ends = tuple(map(int, points[parent])), tuple(map(int, points[child]))
    cv2.line(picture, *ends, (255, 255, 255), round(4 * unit), cv2.LINE_AA)
    cv2.line(picture, *ends, color, max(1, round(2 * unit)), cv2.LINE_AA)


def _draw_label(
  picture: np.ndarray,
  label: str,
  hands: Sequence[np.ndarray],
  number: int,
  color: tuple[int, int, int],
  unit: float,
) -> Int[np.ndarray, 'points 2']:
  """Writes a label beside one of the hands, whose mesh is `hands[number]`.

  Returns:
    Points all along the label, so that further labels can keep off it.
  """
  font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5 * unit
  thickness = max(1, round(unit))
  (width, height), below = cv2.getTextSize(label, font, size, thickness)
  size_px = (width + 6, height + 3 + max(below, 4))
  # The hand may be somewhat larger than the mesh.
  gap = round(4 * unit + _LABEL_GAP * np.ptp(hands[number], axis=0).max())
  x, y = label_place(hands, number, size_px, picture.shape[1::-1], gap)
  cv2.rectangle(picture, (x, y), (x + size_px[0], y + size_px[1]), color, -1)
  place = (x + 3, y + height + 3)
  cv2.putText(picture, label, place, font, size, (0, 0, 0), thickness, cv2.LINE_AA)
  columns, rows = np.meshgrid(np.linspace(x, x + size_px[0], 20), [y, y + size_px[1]])
  return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(int)


def label_place(
  hands: Sequence[Int[np.ndarray, '_ 2']],
  number: int,
  size: tuple[int, int],
  picture_size: tuple[int, int],
  gap: int,
) -> tuple[int, int]:
  """Finds the place of a hand's label: above, below, left or right of it, where there is room.

  A place that covers no point of any hand is preferred. Where there is no room beside the hand, the
  label lies over its upper left corner.

  Args:
    hands: points of all hands, and of other things to keep off, in pixels of the picture.
    number: which hand the label is of, counted from 0.
    size: width and height of the label, pixels.
    picture_size: width and height of the picture, pixels.
    gap: pixels between the label and the box of a hand's points.

  Returns:
    The label's left and upper edges.
  """
  low, high = hands[number].min(axis=0), hands[number].max(axis=0)
  extent, room = np.array(size), np.maximum(np.array(picture_size) - size, 0)
  # To stay in the picture, a label above or below moves sideways, and one beside up or down.
  x, y = np.clip(low[0], 0, room[0]), np.clip((low[1] + high[1] - size[1]) // 2, 0, room[1])
  outside = [
    np.array([x, low[1] - gap - size[1]]),
    np.array([x, high[1] + gap]),
    np.array([low[0] - gap - size[0], y]),
    np.array([high[0] + gap, y]),
  ]
  points = np.concatenate(hands)
  fitting = [place for place in outside if ((place >= 0) & (place <= room)).all()]
  free = [
    place
    for place in fitting
    if not ((points > place - gap) & (points < place + extent + gap)).all(axis=1).any()
  ]
  place = (free or fitting or [np.clip(outside[0], 0, room)])[0]
  return int(place[0]), int(place[1])
