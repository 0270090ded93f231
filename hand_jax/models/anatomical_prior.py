"""Gives the prior over vertices a covariance that follows from joint angles and hand shape."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.config import AnatomyConfig
from hand_jax.mano.anatomy import LOWER_LIMITS, UPPER_LIMITS
from hand_jax.mano.jacobian import hand_frame_derivatives
from hand_jax.models.prior_net import Mlp
from hand_jax.types import HandParameters, LowRankGaussian, ManoModel

# A learned factor of an angle's deviation stays between exp(-2) and exp(2).
MAX_LOG_FACTOR = 2.0


def stated_deviations(angle_share: float, shapes: int) -> Float[np.ndarray, 'numbers']:
  """Returns the deviations of the 45 anatomical angles in radians, then of the shape numbers.

  An angle's deviation is `angle_share` of its range, a shape number's is 1, as in MANO's own data.
  """
  angles = angle_share * np.deg2rad(UPPER_LIMITS - LOWER_LIMITS).reshape(-1)
  return np.concatenate([angles, np.ones(shapes)]).astype(np.float32)


class AnatomicalPrior(nn.Module):
  """Gives the prior's mesh the covariance J Sigma J^T + eps^2 I.

  J holds the derivatives of the vertices by joint angles and shape numbers at the prior's own
  parameters. Sigma is diagonal. Its angles may have deviations that are read from the image.
  """

  hidden: tuple[int, ...]
  settings: AnatomyConfig
  length_unit_m: float

  @nn.compact
  def __call__(
    self,
    global_feature: Float[Array, 'batch channels'],
    model: ManoModel,
    parameters: HandParameters,
    mean: Float[Array, 'batch vertices 3'],
  ) -> LowRankGaussian:
    """Adds the covariance to a mesh.

    Args:
      global_feature: the backbone's pooled vector, normalised.
      model: a right hand's model.
      parameters: the prior-net's hand.
      mean: the vertices of that hand, in metres, in the hand frame.
    """
    derivatives = jax.vmap(hand_frame_derivatives, in_axes=(None, 0))(model, parameters)
    shapes = model.shapedirs.shape[-1]
    deviations = jnp.asarray(stated_deviations(self.settings.angle_share, shapes))[None]
    if self.settings.angle_deviations == 'learned':
      angles = deviations.shape[-1] - shapes
      raw = Mlp(self.hidden, angles, name='mlp')(global_feature)
      factors = jnp.exp(MAX_LOG_FACTOR * jnp.tanh(raw / MAX_LOG_FACTOR))
      deviations = deviations * jnp.pad(factors, ((0, 0), (0, shapes)), constant_values=1.0)
    own = 2 * float(np.log(self.settings.vertex_sigma * self.length_unit_m))
    return LowRankGaussian(
      mean, jnp.full_like(mean, own), derivatives * deviations[:, None, None, :]
    )
