"""Colours the vertices of a fitted hand by the texture branch in the package."""

import functools
from collections.abc import Callable
from typing import Any

import cv2
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hand_jax.detection.hand_views import HandView
from hand_jax.files.traced_programs import keep_traced
from hand_jax.geometry.cameras import normalize_points, transform_points
from hand_jax.geometry.warping import warp_image
from hand_jax.models.applying import apply_network
from hand_jax.models.backbone import landmark_features
from hand_jax.models.bundled import BUNDLED_TEXTURE, load_bundled_parameters
from hand_jax.models.hand_landmark import INPUT_SIDE, HandLandmarkOutput, normalize_crops
from hand_jax.models.hand_network import HIDING_DISTANCE
from hand_jax.models.map_sampling import sample_bilinear
from hand_jax.models.texture_regressor import TextureRegressor
from hand_jax.rendering.rasterize import visible_vertices
from hand_jax.rendering.surfaces import vertex_normals
from hand_jax.types import ManoModel

# Pixels of the crop at the mask's rim that colour nothing. They are mixed with the background, and
# meshes and estimated masks are off by as much.
_RIM = 2


def color_hand(
  view: HandView,
  vertices_image: Float[np.ndarray, 'vertices 3'],
  model: ManoModel,
  hand_mask: Bool[np.ndarray, 'height width'],
) -> Float[Array, 'vertices 3']:
  """Estimates the display RGB of each vertex in [0, 1], with the photo's light.

  The colours are an array of JAX, which is still being computed when the function returns.

  Args:
    view: the hand in the photo, see `view_hand`.
    vertices_image: the mesh in pixels of the photo, with a depth in pixels from the wrist.
    model: the right hand's model whose mesh it is. A left hand's mesh is its mirrored one.
    hand_mask: where the photo shows the hand. Pixels outside it and at its rim colour no vertex.
  """
  shown = warp_image(255 * hand_mask.astype(np.uint8), view.photo_to_crop, INPUT_SIDE)
  mask = cv2.erode(shown, np.ones((2 * _RIM + 1, 2 * _RIM + 1), np.uint8)) > 127
  points = np.asarray(vertices_image, np.float64)
  pixels = transform_points(view.photo_to_crop, points[:, :2])
  crop_scale = abs(np.linalg.det(view.photo_to_crop)) ** 0.5
  depth = crop_scale * points[:, 2:]
  vertices = np.concatenate([pixels, depth], axis=1).astype(np.float32)
  # With NumPy, because JAX compiles these few products one by one for their first use.
  template = np.asarray(model.v_template)
  wrist = np.asarray(model.joint_regressor)[0] @ template
  return _program()(
    _parameters(),
    view.output,
    view.crop[None],
    mask[None],
    vertices[None],
    template - wrist,
    model.faces,
  )


@functools.cache
def _parameters() -> dict[str, Any]:
  return load_bundled_parameters('hand_texture')['params']


@functools.cache
def _program() -> Callable:
  def apply(
    texture: Any,
    output: HandLandmarkOutput,
    crops: Array,
    masks: Array,
    vertices: Array,
    template: Array,
    faces: Array,
  ) -> Array:
    images = normalize_crops(crops)
    features = landmark_features(output)
    norm = {'params': texture['feature_norm']}
    vector = apply_network(nn.LayerNorm(), norm, features.global_feature)
    side = crops.shape[1]
    visible = visible_vertices(vertices, faces, side, side, HIDING_DISTANCE, masks)
    points = normalize_points(vertices[..., :2], side)
    (colors,) = apply_network(
      TextureRegressor(BUNDLED_TEXTURE),
      {'params': texture['texture_regressor']},
      features._replace(global_feature=vector),
      points,
      visible,
      jnp.asarray(template),
      vertex_normals(vertices, faces),
      sample_bilinear(images, points),
    )
    return colors

  return keep_traced('hand_texture', apply, (HandLandmarkOutput,))
