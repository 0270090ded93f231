"""Estimates MANO parameters by the prior-net, and a camera by the camera model.

Both read the global feature.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.mano.model import mano_forward, pca_to_pose, regress_joints
from hand_jax.types import DiagonalGaussian, HandParameters, ManoModel

# The camera before any training, in HandCamera's stored scaling. The hand has the camera's axes, is
# half a metre away and fills most of the crop.
INITIAL_CAMERA = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.5, 0.7)
# The camera's log-variance stays within this distance of zero.
MAX_CAMERA_LOG_VARIANCE = 8.0
SMALL_INIT = nn.initializers.variance_scaling(0.01, 'fan_in', 'truncated_normal')


class Mlp(nn.Module):
  """Dense layers with a GELU between them. The last layer's weights start near zero."""

  hidden: tuple[int, ...]
  outputs: int

  @nn.compact
  def __call__(self, features: Float[Array, 'batch inputs']) -> Float[Array, 'batch outputs']:
    for width in self.hidden:
      features = nn.gelu(nn.Dense(width)(features))
    return nn.Dense(self.outputs, kernel_init=SMALL_INIT, name='output')(features)


class PriorNet(nn.Module):
  """Estimates hand pose and shape from the global feature (Table 1).

  It returns 45 pose numbers, or fewer PCA coefficients, and 10 of shape (erratum 6). The pose is an
  offset from the hand model's mean pose, so an untrained network gives a relaxed hand. Global
  orientation and translation are zero, because the camera holds them.
  """

  hidden: tuple[int, ...]
  pose_components: int

  @nn.compact
  def __call__(
    self, global_feature: Float[Array, 'batch channels'], model: ManoModel
  ) -> HandParameters:
    shapes = model.shapedirs.shape[-1]
    outputs = Mlp(self.hidden, self.pose_components + shapes, name='mlp')(global_feature)
    pose, betas = outputs[:, : self.pose_components], outputs[:, self.pose_components :]
    if self.pose_components < model.hands_mean.shape[0]:
      hand_pose = jax.vmap(pca_to_pose, in_axes=(None, 0))(model, pose)
    else:
      hand_pose = model.hands_mean[None] + pose
    zeros = jnp.zeros((outputs.shape[0], 3), outputs.dtype)
    return HandParameters(zeros, hand_pose, betas, zeros)


class PriorSigma(nn.Module):
  """Estimates the log-variance of the prior's vertices, in length units squared.

  The output has three numbers per bone, which skinning weights spread over the vertices. A tanh
  bounds them. They start near zero, which corresponds to the paper's sigma_v = 1.
  """

  hidden: tuple[int, ...]

  @nn.compact
  def __call__(
    self, global_feature: Float[Array, 'batch channels'], model: ManoModel
  ) -> Float[Array, 'batch vertices 3']:
    bones = model.lbs_weights.shape[1]
    raw = Mlp(self.hidden, 3 * bones, name='mlp')(global_feature)
    per_bone = 6.0 * jnp.tanh(raw / 6.0).reshape(-1, bones, 3)
    return jnp.einsum('vb,nbd->nvd', model.lbs_weights, per_bone, precision='highest')


class CameraModel(nn.Module):
  """Maps the global feature to a Gaussian over the camera's ten stored numbers (end of Table 1).

  The log-variance starts at `initial_log_variance`. This is a constant, so an untrained head also
  starts there.
  """

  hidden: tuple[int, ...]
  initial_log_variance: float

  @nn.compact
  def __call__(self, global_feature: Float[Array, 'batch channels']) -> DiagonalGaussian:
    initial = jnp.asarray(INITIAL_CAMERA, global_feature.dtype)
    offset = Mlp(self.hidden, len(INITIAL_CAMERA), name='mean')(global_feature)
    raw = Mlp(self.hidden, len(INITIAL_CAMERA), name='log_variance')(global_feature)
    # tanh keeps the variance between e^-8 and e^8 whatever the last layer gives.
    bound = MAX_CAMERA_LOG_VARIANCE
    start = bound * math.atanh(self.initial_log_variance / bound)
    log_variance = bound * jnp.tanh((raw + start) / bound)
    return DiagonalGaussian(initial[None] + offset, log_variance)


def hand_frame_vertices(model: ManoModel, parameters: HandParameters) -> Float[Array, 'vertices 3']:
  """Poses MANO's vertices with the regressed wrist at the origin (metres, hand frame)."""
  vertices = mano_forward(model, parameters).vertices
  return vertices - regress_joints(model, vertices)[:1]
