"""Colours the vertices of a fitted hand by the texture branch in the package."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from hand_jax.detection.networks import compile_well
from hand_jax.detection.reading import DetectedHand
from hand_jax.detection.regions import photo_to_crop, region_from_landmarks
from hand_jax.geometry.cameras import mirror_affine, normalize_points, transform_points
from hand_jax.geometry.warping import warp_image
from hand_jax.mano.model import regress_joints
from hand_jax.models.applying import apply_network
from hand_jax.models.backbone import landmark_features
from hand_jax.models.bundled import BUNDLED_TEXTURE, load_bundled_parameters
from hand_jax.models.hand_landmark import INPUT_SIDE, HandLandmarkNetwork, normalize_crops
from hand_jax.models.hand_network import HIDING_DISTANCE
from hand_jax.models.map_sampling import sample_bilinear
from hand_jax.models.texture_regressor import TextureRegressor
from hand_jax.rendering.rasterize import visible_vertices
from hand_jax.rendering.surfaces import vertex_normals
from hand_jax.types import ManoModel


def color_hand(
  image: UInt8[np.ndarray, 'height width 3'],
  hand: DetectedHand,
  vertices_image: Float[np.ndarray, 'vertices 3'],
  model: ManoModel,
  hand_mask: Bool[np.ndarray, 'height width'],
) -> Float[np.ndarray, 'vertices 3']:
  """Estimates the display RGB of each vertex in [0, 1], with the photo's light.

  Args:
    image: RGB, upright.
    hand: the hand in it.
    vertices_image: the mesh in pixels of the photo, with a depth in pixels from the wrist.
    model: the right hand's model whose mesh it is. A left hand's mesh is its mirrored one.
    hand_mask: where the photo shows the hand. Pixels outside it colour no vertex.
  """
  region = region_from_landmarks(np.asarray(hand.landmarks_image, np.float64))
  to_crop = photo_to_crop(region, INPUT_SIDE)
  if hand.side == 'left':
    to_crop = mirror_affine(INPUT_SIDE) @ to_crop
  crop = warp_image(image, to_crop, INPUT_SIDE)
  mask = warp_image(255 * hand_mask.astype(np.uint8), to_crop, INPUT_SIDE) > 127
  points = np.asarray(vertices_image, np.float64)
  pixels = transform_points(to_crop, points[:, :2])
  depth = INPUT_SIDE / region.side * points[:, 2:]
  vertices = np.concatenate([pixels, depth], axis=1).astype(np.float32)
  template = model.v_template - regress_joints(model, model.v_template)[:1]
  colors = _program()(
    _variables(), crop[None], mask[None], vertices[None], np.asarray(template), model.faces
  )
  return np.asarray(colors[0])


@functools.cache
def _variables() -> tuple[dict[str, Any], dict[str, Any]]:
  return load_bundled_parameters('hand_landmark'), load_bundled_parameters('hand_texture')['params']


@functools.cache
def _program() -> Callable:
  def apply(
    variables: Any, crops: Array, masks: Array, vertices: Array, template: Array, faces: Array
  ) -> Array:
    backbone, texture = variables
    images = normalize_crops(crops)
    output = apply_network(HandLandmarkNetwork(), backbone, images)
    features = landmark_features(output)
    norm = {'params': texture['feature_norm']}
    vector = apply_network(nn.LayerNorm(), norm, features.global_feature)
    side = crops.shape[1]
    visible = visible_vertices(vertices, faces, side, side, HIDING_DISTANCE, masks)
    points = normalize_points(vertices[..., :2], side)
    return apply_network(
      TextureRegressor(BUNDLED_TEXTURE),
      {'params': texture['texture_regressor']},
      features._replace(global_feature=vector),
      points,
      visible,
      jnp.asarray(template),
      vertex_normals(vertices, faces),
      sample_bilinear(images, points),
    )

  return compile_well('hand_texture', apply)
