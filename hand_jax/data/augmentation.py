"""Turns a `HandExample` into one row of a `HandBatch`.

Left hands are mirrored, photos are cropped and changed at random, and the labels move with the
picture.
"""

import dataclasses
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from hand_jax.config import AugmentationConfig
from hand_jax.data.upright import UPRIGHT_JOINTS, turn_upright
from hand_jax.examples import HandExample
from hand_jax.geometry.cameras import (
  CAMERA_SIZE,
  crop_affine,
  crop_intrinsics,
  fit_weak_perspective,
  mirror_affine,
  mirror_intrinsics,
  normalize_points,
  perspective_from_intrinsics,
  project_perspective,
  rotation_in_plane,
  rotation_to_stored,
  transform_points,
)
from hand_jax.geometry.warping import warp_image
from hand_jax.types import HandBatch, ImageFeatures

_MIRROR = np.diag([-1.0, 1.0, 1.0])
# Scale and translation are fitted where at least this many joints are known. Two joints would
# determine them, but unreliably.
_MIN_FIT_JOINTS = 6
_LEVELS = np.arange(256) / 255
# These matrices act on RGB values. The brightness of red, green and blue is from ITU-R BT.601.
_KEEP_COLORS = np.eye(3)
_TO_GREY = np.array([[0.299, 0.587, 0.114]] * 3)


@dataclasses.dataclass(frozen=True)
class CropChange:
  """One draw of an augmentation, which by default changes nothing."""

  rotation: float = 0.0  # turns the picture in the crop: radians, from x (right) to y (down)
  scale: float = 1.0  # multiplies the hand's size in the crop
  shift: tuple[float, float] = (0.0, 0.0)  # moves the crop's centre, in fractions of its side
  gains: tuple[float, float, float] = (1.0, 1.0, 1.0)  # per colour channel
  gamma: float = 1.0
  saturation: float = 1.0


class Placement(NamedTuple):
  """Where a photo lies in its crop, and how the crop's colours change."""

  photo_to_crop: np.ndarray  # (3, 3) affine in pixels, which also mirrors a left hand
  side: int
  change: CropChange


def sample_crop_change(config: AugmentationConfig, rng: np.random.Generator) -> CropChange:
  """Draws every change from its range, which is symmetric about no change."""
  rotation, shift_x, shift_y, saturation, brightness = rng.uniform(-1.0, 1.0, 5)
  # The logarithms of scale and gamma are uniform, so that x and 1/x are equally likely.
  scale, gamma = np.exp(rng.uniform(-1.0, 1.0, 2))
  strength = config.color_strength
  tints = 1 + 0.5 * strength * rng.uniform(-1.0, 1.0, 3)
  gains = ((1 + strength * brightness) * tints).tolist()
  return CropChange(
    rotation=float(np.deg2rad(config.rotation_degrees) * rotation),
    scale=float((1 + config.scale_fraction) ** np.log(scale)),
    shift=(config.shift_fraction * float(shift_x), config.shift_fraction * float(shift_y)),
    gains=(gains[0], gains[1], gains[2]),
    gamma=float((1 + strength) ** np.log(gamma)),
    saturation=float(1 + strength * saturation),
  )


def upright_change(example: HandExample, change: CropChange) -> CropChange:
  """Adds to a change the turn that puts the hand upright, which comes before the change's own.

  For a left hand it is the turn of the mirrored picture, which the crop shows. An example whose
  wrist or middle finger's base is unknown is not turned.

  Args:
    example: a photo with its labels, of a left or a right hand.
    change: the other changes of the crop.
  """
  if not (example.joint_confidence[UPRIGHT_JOINTS] > 0).all():
    return change
  turn = turn_upright(example.joints_image)
  turn = -turn if example.side == 'left' else turn
  return dataclasses.replace(change, rotation=change.rotation + turn)


def mirror_example(example: HandExample) -> HandExample:
  """Mirrors the photo and every label (u -> width - u, x -> -x), which swaps the hand's side."""
  mask = example.hand_mask
  return _mirror_labels(example)._replace(
    image=cv2.flip(example.image, 1),
    hand_mask=None if mask is None else cv2.flip(mask.view(np.uint8), 1).view(bool),
  )


def _mirror_labels(example: HandExample) -> HandExample:
  """Does what `mirror_example` does, but leaves the photo and the mask as they are."""
  width = example.image.shape[1]
  x, y, box_width, box_height = example.box_xywh

  def mirror_points(points: np.ndarray | None) -> np.ndarray | None:
    return None if points is None else points @ _MIRROR

  return example._replace(
    side='left' if example.side == 'right' else 'right',
    box_xywh=np.array([width - x - box_width, y, box_width, box_height]),
    joints_image=transform_points(mirror_affine(width), example.joints_image),
    intrinsics=None if example.intrinsics is None else mirror_intrinsics(example.intrinsics, width),
    vertices_camera=mirror_points(example.vertices_camera),
    joints_camera=mirror_points(example.joints_camera),
    global_orient=None
    if example.global_orient is None
    else example.global_orient * np.array([1.0, -1.0, -1.0]),
  )


def change_colors(
  image: UInt8[np.ndarray, 'height width 3'], change: CropChange
) -> UInt8[np.ndarray, 'height width 3']:
  """Applies gamma, channel gains and saturation to an RGB image, and clips the result.

  Black stays black, and with it the zero padding of a crop.
  """
  if (change.gains, change.gamma, change.saturation) == ((1.0, 1.0, 1.0), 1.0, 1.0):
    return image
  levels = np.round(255 * _LEVELS**change.gamma).astype(np.uint8)
  mix = change.saturation * _KEEP_COLORS + (1 - change.saturation) * _TO_GREY
  return cv2.transform(cv2.LUT(image, levels), mix * np.asarray(change.gains)[None])


def make_row(
  example: HandExample,
  global_index: int,
  image_size: int,
  crop_factor: float,
  num_vertices: int,
  change: CropChange | None = None,
) -> HandBatch:
  """Makes one row of a `HandBatch`, without a batch axis.

  It calls `make_labels` and then `add_picture`.

  Args:
    example: a photo with its labels, of a left or a right hand.
    global_index: the example's number in its source.
    image_size: side of the crop in pixels.
    crop_factor: side of the crop's square over the larger side of the hand's box.
    num_vertices: number of rows of vertex labels where the example has none.
    change: the augmentation, or None to change nothing.

  Returns:
    The row, with a left hand mirrored into a right one.
  """
  change = change or CropChange()
  row, placement = make_labels(example, global_index, image_size, crop_factor, num_vertices, change)
  return add_picture(row, placement, example.image, example.hand_mask)


def make_labels(
  example: HandExample,
  global_index: int,
  image_size: int,
  crop_factor: float,
  num_vertices: int,
  change: CropChange,
) -> tuple[HandBatch, Placement]:
  """Makes a row without its picture and mask, which are None.

  Only the photo's size is used, not its pixels. A left hand is first mirrored into a right one.

  The crop is a square around the box. Turning the picture in the crop turns the camera axes with
  it, so vertices and joints in the hand frame do not change. The camera label holds R from the
  global orientation, T_z from the wrist's depth, and s, T_x and T_y from a least-squares fit.
  Unknown intrinsics are NaN.

  Args:
    example: a photo with its labels, of a left or a right hand.
    global_index: the example's number in its source.
    image_size: side of the crop in pixels.
    crop_factor: side of the crop's square over the larger side of the hand's box.
    num_vertices: number of rows of vertex labels where the example has none.
    change: the augmentation.

  Returns:
    The row, and the placement that `add_picture` or `add_features` needs to complete it.
  """
  is_left = example.side == 'left'
  if is_left:
    example = _mirror_labels(example)
  affine = crop_affine(
    np.asarray(example.box_xywh, np.float64),
    image_size,
    crop_factor / change.scale,
    change.rotation,
    change.shift,
  )
  # The transform into the crop also mirrors the photo, so that it need not be copied.
  photo_to_crop = affine @ mirror_affine(example.image.shape[1]) if is_left else affine
  confidence = example.joint_confidence
  joints_image = np.where(confidence[:, None] > 0, example.joints_image, 0.0)
  joints_normalized = normalize_points(transform_points(affine, joints_image), image_size)
  labels = _labels_3d(example, joints_normalized, num_vertices, change.rotation)
  row = HandBatch(
    image=None,
    example_id=example.example_id,
    global_index=np.int32(global_index),
    is_left=np.bool_(is_left),
    joints_normalized=joints_normalized.astype(np.float32),
    joint_confidence=confidence.astype(np.float32),
    intrinsics=_crop_intrinsics(example.intrinsics, affine),
    hand_mask=None,
    has_mask=np.bool_(False),
    is_padding=np.bool_(False),
    **labels,
    **_vertex_labels(example, affine, image_size, num_vertices, change),
  )
  return row, Placement(photo_to_crop, image_size, change)


def add_picture(
  row: HandBatch,
  placement: Placement,
  image: UInt8[np.ndarray, 'height width 3'],
  hand_mask: Bool[np.ndarray, 'height width'] | None,
) -> HandBatch:
  """Completes a row of `make_labels` with the crop of its photo and mask.

  Args:
    row: the row that `make_labels` returned.
    placement: the placement that it returned with the row.
    image: the whole photo in RGB, not mirrored.
    hand_mask: the pixels of the photo that show the hand, or None where this is unknown.
  """
  affine, side, change = placement
  return row._replace(
    image=change_colors(warp_image(image, affine, side), change),
    hand_mask=_warp_mask(hand_mask, affine, side),
    has_mask=np.bool_(hand_mask is not None),
  )


def add_features(row: HandBatch, placement: Placement, features: ImageFeatures) -> HandBatch:
  """Completes a row of `make_labels` with a backbone's features instead of a picture.

  The row's picture is black, and it has no hand mask.

  Args:
    row: the row that `make_labels` returned.
    placement: the placement that it returned with the row.
    features: what the backbone computed from this crop.
  """
  side = placement.side
  return row._replace(
    image=np.broadcast_to(np.uint8(0), (side, side, 3)),
    hand_mask=np.broadcast_to(np.bool_(False), (side, side)),
    has_mask=np.bool_(False),
    features=features,
  )


def _crop_intrinsics(
  intrinsics: np.ndarray | None, affine: Float[np.ndarray, '3 3']
) -> Float[np.ndarray, '3 3']:
  if intrinsics is None:
    return np.full((3, 3), np.nan, np.float32)
  return crop_intrinsics(affine, intrinsics.astype(np.float64)).astype(np.float32)


def _warp_mask(
  mask: Bool[np.ndarray, 'height width'] | None, affine: Float[np.ndarray, '3 3'], side: int
) -> Bool[np.ndarray, 'side side']:
  if mask is None:
    return np.zeros((side, side), bool)
  return warp_image(mask.view(np.uint8) * np.uint8(255), affine, side) > 127


def _vertex_labels(
  example: HandExample,
  affine: Float[np.ndarray, '3 3'],
  side: int,
  num_vertices: int,
  change: CropChange,
) -> dict[str, Any]:
  """Returns vertex colours, changed like the picture, and which visible vertices the crop shows."""
  colors, visible = example.vertex_colors, example.vertex_visible
  if colors is None or visible is None or example.vertices_camera is None:
    return {
      'vertex_colors': np.zeros((num_vertices, 3), np.float32),
      'vertex_visible': np.zeros(num_vertices, bool),
      'has_vertex_colors': np.bool_(False),
    }
  as_image = np.round(255 * np.clip(colors, 0, 1)).astype(np.uint8)[:, None]
  if example.intrinsics is not None:
    camera = perspective_from_intrinsics(example.intrinsics.astype(np.float64))
    points = project_perspective(camera, example.vertices_camera.astype(np.float64))
    points = transform_points(affine, np.asarray(points))
    visible = visible & ((points >= 0) & (points < side)).all(axis=1)
  return {
    'vertex_colors': change_colors(as_image, change)[:, 0].astype(np.float32) / 255,
    'vertex_visible': visible,
    'has_vertex_colors': np.bool_(True),
  }


def _labels_3d(
  example: HandExample, joints_normalized: np.ndarray, num_vertices: int, rotation: float
) -> dict[str, Any]:
  """Returns hand-frame labels, root and camera, whose camera axes turn with the crop."""
  joints_camera, vertices_camera = example.joints_camera, example.vertices_camera
  turn = rotation_in_plane(rotation)
  camera, camera_mask = np.zeros(CAMERA_SIZE), np.zeros(CAMERA_SIZE, bool)
  root = np.zeros(3)
  hand_rotation = None
  if example.global_orient is not None:
    orientation, _ = cv2.Rodrigues(np.asarray(example.global_orient, np.float64))
    hand_rotation = (turn @ orientation).T  # R takes row vectors of the hand frame to camera axes
    camera[:6], camera_mask[:6] = rotation_to_stored(hand_rotation), True
  if joints_camera is not None:
    joints_camera = joints_camera.astype(np.float64) @ turn.T
    root = joints_camera[0]
    camera[8], camera_mask[8] = root[2], True
    confidence = example.joint_confidence.astype(np.float64)
    if (confidence > 0).sum() >= _MIN_FIT_JOINTS:
      fit = fit_weak_perspective(joints_camera - root[None], joints_normalized, confidence)
      camera[6:8], camera[9:] = fit.translation, fit.scale
      camera_mask[[6, 7, 9]] = True
  vertices_hand = np.zeros((num_vertices, 3))
  joints_hand = np.zeros((len(example.joints_image), 3))
  has_3d = False
  if not (hand_rotation is None or joints_camera is None or vertices_camera is None):
    has_3d = True
    vertices_camera = vertices_camera.astype(np.float64) @ turn.T
    vertices_hand = (vertices_camera - root[None]) @ hand_rotation.T
    joints_hand = (joints_camera - root[None]) @ hand_rotation.T
  return {
    'vertices_hand': vertices_hand.astype(np.float32),
    'joints_hand': joints_hand.astype(np.float32),
    'has_3d': np.bool_(has_3d),
    'camera': camera.astype(np.float32),
    'camera_mask': camera_mask,
    'root_camera': root.astype(np.float32),
    'has_root': np.bool_(joints_camera is not None),
  }
