"""Collects what the image shows at the joints and vertices of an estimated hand.

The paper gives every token of AMVUR the same pooled vector (Table 1). Here each token also reads
the image where its own joint or vertex is seen. The points of the landmark network add more than
the feature maps: they show how far each joint of the estimated hand is from its detected point, in
the image and in space.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hand_jax.config import ModelConfig
from hand_jax.geometry.alignment import fit_scale_and_shift, rotation_between
from hand_jax.geometry.cameras import camera_from_vector, project_points
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.map_sampling import reduce_maps, sample_bilinear
from hand_jax.types import ImageFeatures, ManoModel

# Residuals are inputs in centimetres.
RESIDUAL_UNIT_M = 0.01
# Residuals much longer than this are shortened to about it. Where the landmarks do not fit the hand
# at all, the fitted scale is tiny and residuals in the image come to many metres.
LONGEST_RESIDUAL_M = 0.04
# A joint's residual reaches the vertices about this far from it, on the template.
_REACH_M = 0.015


class TokenEvidence(NamedTuple):
  """Inputs for each token besides its template position and the pooled vector."""

  vertices: Float[Array, 'batch vertices inputs']
  joints: Float[Array, 'batch joints inputs']


class JointResiduals(NamedTuple):
  """The differences between the landmark network's points and an estimated hand's joints.

  The fitted view of the hand follows them.
  """

  image: Float[Array, 'batch 21 3']
  """Differences in the image, in metres, hand frame. Their component along the viewing axis is
  zero."""
  space: Float[Array, 'batch 21 3']
  """Differences from the network's points in space, in metres, hand frame."""
  rotation: Float[Array, 'batch 3 3']
  """Matrix from the hand frame to camera axes, for column vectors."""
  scale: Float[Array, 'batch']
  """Normalised crop units per metre."""
  shift: Float[Array, 'batch 2']
  """The hand frame's origin in the crop, in [-1, 1]."""


class ImageEvidence(nn.Module):
  """Collects the evidence about an estimated hand, see `AttentionConfig.image_features`."""

  config: ModelConfig

  @nn.compact
  def __call__(
    self,
    features: ImageFeatures,
    vertices_hand: Float[Array, 'batch vertices 3'],
    camera_mean: Float[Array, 'batch 10'],
    model: ManoModel,
    queries: Int[Array, 'queries'] | None = None,
  ) -> TokenEvidence:
    """Reads the image at the joints and vertices of a hand.

    No gradient flows into the hand or its camera, only into the maps.

    Args:
      features: the backbone's output.
      vertices_hand: the estimated hand in metres, hand frame.
      camera_mean: the estimated camera's ten stored numbers. It places the hand where the backbone
        gives no landmarks.
      model: a right hand's model.
      queries: ids of the vertices that have tokens. With None all vertices have tokens.

    Returns:
      For each token its place in the crop, the residuals if the backbone gives landmarks, and
      samples of the maps if the config requests their channels.
    """
    vertices_hand, camera_mean = jax.lax.stop_gradient((vertices_hand, camera_mean))
    joints_hand = extended_joints(model, vertices_hand)
    asked_hand = vertices_hand if queries is None else vertices_hand[:, queries]
    if features.landmarks is None:
      camera = camera_from_vector(camera_mean)
      places = [project_points(camera, points) for points in (asked_hand, joints_hand)]
      inputs = [[place] for place in places]
    else:
      residuals = joint_residuals(features, joints_hand)
      places = [_place(residuals, points) for points in (asked_hand, joints_hand)]
      bounded = [bound_length(found) for found in (residuals.image, residuals.space)]
      of_joints = jnp.concatenate(bounded, axis=-1) / RESIDUAL_UNIT_M
      reach = _reach(model) if queries is None else _reach(model)[queries]
      of_vertices = jnp.einsum('vk,bki->bvi', reach, of_joints, precision='highest')
      inputs = [[places[0], of_vertices], [places[1], of_joints]]
    for feature_map in self._maps(features):
      for place, parts in zip(places, inputs, strict=True):
        parts.append(sample_bilinear(feature_map.astype(place.dtype), place))
    return TokenEvidence(*(jnp.concatenate(parts, axis=-1) for parts in inputs))

  def _maps(self, features: ImageFeatures) -> list[Array]:
    """Returns the backbone's maps, reduced to the number of channels in the config."""
    channels = self.config.attention.map_channels
    if not channels:
      return []
    if features.reduced_maps is not None:
      return list(features.reduced_maps)
    if self.config.backbone.name == 'hand_landmark' and features.middle_map is not None:
      assert features.last_map is not None, 'the landmark network gives both'
      # Prepared features hold its maps reduced by the same matrices.
      return list(reduce_maps(features.last_map, features.middle_map, channels))
    if features.last_map is None:
      raise ValueError(
        f'model.attention.map_channels={channels} samples maps, and these features hold none: '
        f'prepare them with --feature_maps={channels}, or set model.attention.map_channels=0.'
      )
    return [nn.Dense(channels, name='reduce_map')(features.last_map)]


def bound_length(residuals: Float[Array, '*batch 3']) -> Float[Array, '*batch 3']:
  """Shortens vectors in metres smoothly below `LONGEST_RESIDUAL_M`, and keeps their directions."""
  ratio = residuals / LONGEST_RESIDUAL_M
  return residuals / jnp.sqrt(1 + jnp.sum(ratio**2, axis=-1, keepdims=True))


def extended_joints(
  model: ManoModel, vertices: Float[Array, 'batch vertices 3']
) -> Float[Array, 'batch 21 3']:
  """Computes the 21 joints B V of a batch of hands, in the frame and unit of the vertices."""
  regressor = extended_joint_regressor(model)
  return jnp.einsum('kv,bvd->bkd', regressor, vertices, precision='highest')


def joint_residuals(
  features: ImageFeatures, joints_hand: Float[Array, 'batch 21 3']
) -> JointResiduals:
  """Compares the landmark network's points with the joints of an estimated hand.

  The network's points in space are known up to rotation, scale and shift, and those in the image up
  to scale and shift. Both are fitted first, so that no residual depends on the estimated camera.

  Args:
    features: the landmark network's output.
    joints_hand: the estimated joints in metres, hand frame.

  Raises:
    ValueError: the features hold no landmarks, or no points in space.
  """
  if features.landmarks is None or features.world_landmarks is None:
    raise ValueError("residuals need the landmark network's points, and these features have none.")
  landmarks, world = jax.lax.stop_gradient((features.landmarks, features.world_landmarks))
  centred, seen = (points - points.mean(axis=-2, keepdims=True) for points in (joints_hand, world))
  rotation = rotation_between(centred, seen)
  # With row vectors, points @ rotation applies the inverse rotation.
  seen_hand = jnp.matmul(seen, rotation, precision='highest')
  scale, shift = fit_scale_and_shift(seen_hand, centred)
  space = scale[:, None, None] * seen_hand + shift[:, None] - centred
  turned = jnp.einsum('bij,bkj->bki', rotation, joints_hand, precision='highest')[..., :2]
  scale, shift = fit_scale_and_shift(turned, landmarks[..., :2])
  missed = landmarks[..., :2] - (scale[:, None, None] * turned + shift[:, None])
  image = jnp.einsum('bki,bij->bkj', missed / scale[:, None, None], rotation[:, :2])
  return JointResiduals(image, space, rotation, scale, shift)


def _place(residuals: JointResiduals, points_hand: Array) -> Float[Array, 'batch points 2']:
  """Projects points of the hand frame into the crop, by the view that fits the landmarks."""
  turned = jnp.einsum('bij,bnj->bni', residuals.rotation[:, :2], points_hand, precision='highest')
  return residuals.scale[:, None, None] * turned + residuals.shift[:, None]


def _reach(model: ManoModel) -> Float[Array, 'vertices 21']:
  """Computes the weights of the joints at each vertex, which sum to one."""
  template, joints = model.v_template, extended_joints(model, model.v_template[None])[0]
  squared = jnp.sum((template[:, None] - joints[None]) ** 2, axis=-1)
  return nn.softmax(-squared / (2 * _REACH_M**2), axis=-1)
