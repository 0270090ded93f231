"""Makes the same `Reconstruction` from a fitted hand as a trained run gives."""

import math

import numpy as np
from jaxtyping import Bool, UInt8

from hand_jax.detection.hand_views import HandView
from hand_jax.fitting.detected import FittedHand
from hand_jax.geometry.cameras import crop_affine, mirror_affine
from hand_jax.mano.assets import hand_model_name
from hand_jax.reconstruction.camera_placement import PhotoCamera, place_in_camera
from hand_jax.reconstruction.hand_colors import color_hand
from hand_jax.reconstruction.hand_data import MaskSource
from hand_jax.reconstruction.occlusion import near_hand_mask
from hand_jax.reconstruction.reconstruction import Reconstruction
from hand_jax.reconstruction.trained_network import visible_in_photo
from hand_jax.types import ManoModel

FIT = 'fit'
"""The branch of a hand that was fitted to the evidence of its photo."""
_MM_PER_M = 1000.0
# Pictures show a square with this side in pixels. It is larger than the hand's box by this factor.
_SHOWN_SIDE, _SHOWN_FACTOR = 224, 1.25


def fitted_reconstruction(
  fitted: FittedHand,
  model: ManoModel,
  photo: UInt8[np.ndarray, 'height width 3'],
  photo_name: str,
  camera: PhotoCamera,
  view: HandView,
  hand_mask: Bool[np.ndarray, 'height width'],
  mask_source: MaskSource,
) -> Reconstruction:
  """Makes the reconstruction of a fitted hand.

  Args:
    fitted: the hand, in the photo's axes and pixels.
    model: the right hand's model that was fitted.
    photo: upright RGB.
    photo_name: the photo's name.
    camera: the photo's camera, in which the hand is placed.
    view: the hand as it was seen in the photo.
    hand_mask: where the photo shows the hand.
    mask_source: where the mask comes from.
  """
  detected, mesh, degrees = fitted.detected, fitted.mesh, fitted.degrees_of_freedom
  size = (photo.shape[1], photo.shape[0])
  is_left = detected.side == 'left'
  box = np.asarray(detected.box_xywh, np.float64)
  shown = crop_affine(_mirrored_box(box, size[0]) if is_left else box, _SHOWN_SIDE, _SHOWN_FACTOR)
  photo_to_crop = shown @ mirror_affine(size[0]) if is_left else shown
  # The fit's own focal length explains the pixels best, so it decides visibility. Positions in the
  # camera use the photo's focal length.
  pixels = np.asarray(mesh.vertices_image, np.float64)
  faces = np.asarray(model.faces)
  pixels_per_metre = float(mesh.pixels_per_metre)
  depth = pixels_per_metre * np.asarray(mesh.vertices, np.float64)[:, 2:]
  # The colours are computed while the rest is gathered.
  colors = color_hand(view, np.concatenate([pixels, depth], axis=1), model, hand_mask)
  visible = visible_in_photo(np.asarray(mesh.vertices), pixels, faces, size)
  covariance = np.diagonal(mesh.joint_covariance, axis1=-2, axis2=-1)
  return Reconstruction(
    vertices=np.asarray(mesh.vertices, np.float32),
    joints=np.asarray(mesh.joints, np.float32),
    faces=faces[:, ::-1] if is_left else faces,
    vertex_sigma_mm=np.asarray(mesh.vertex_sigma_mm, np.float32),
    vertex_visible=visible & near_hand_mask(hand_mask, photo_to_crop, _SHOWN_SIDE, pixels),
    vertex_colors=np.asarray(colors),
    vertices_image=pixels.astype(np.float32),
    joint_sigma_mm=np.asarray(mesh.joint_sigma_mm, np.float32),
    joint_sigma_xyz_mm=(_MM_PER_M * np.sqrt(covariance)).astype(np.float32),
    joints_image=np.asarray(mesh.joints_image, np.float32),
    pixels_per_metre=pixels_per_metre,
    wrist_camera=place_in_camera(
      np.asarray(mesh.joints), np.asarray(mesh.joints_image), camera, pixels_per_metre
    ),
    camera=camera,
    is_left=is_left,
    box_xywh=box,
    crop_affine=photo_to_crop,
    crop_side=_SHOWN_SIDE,
    parameters=mesh.parameters,
    parameters_error_mm=0.0,
    branch=FIT,
    hand_model=hand_model_name(model),
    camera_mean=None,
    camera_log_variance=None,
    photo=photo,
    photo_name=photo_name,
    detection=detected,
    mask_source=mask_source,
    sigma_degrees_of_freedom=degrees if math.isfinite(degrees) else None,
  )


def _mirrored_box(box_xywh: np.ndarray, width: int) -> np.ndarray:
  return np.array([width - box_xywh[0] - box_xywh[2], *box_xywh[1:]])
