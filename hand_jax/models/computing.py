"""Chooses the precision of the costly parts, and the activations kept for gradients.

The costly parts are the backbone and the attention blocks. Parameters, batch statistics, the pooled
vector, the heads and all geometry are always float32, because the three digits of bfloat16 are too
few for metres and pixels.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

BATCH_MOMENTS = 'batch_moments'


class Computing(NamedTuple):
  """The settings of `model.compute_dtype` and `training.remat` for the costly parts."""

  is_bfloat16: bool = False
  """Whether activations are bfloat16. Layers follow the type of their input."""
  remat: bool = False
  """Whether a gradient computes a block's activations again instead of keeping them."""

  def cast(self, x: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """Converts activations to bfloat16, or leaves them as they are."""
    return x.astype(jnp.bfloat16) if self.is_bfloat16 else x

  def block(self, module: type[nn.Module], static_argnums: tuple[int, ...] = ()) -> Any:
    """Returns the class of a block, which keeps only its inputs for the gradient with `remat`.

    The moments of batch normalisation are kept too, so that devices average them only once.

    Args:
      module: the class of the block.
      static_argnums: the indices of arguments that are not arrays, where 0 is the block itself.
    """
    if not self.remat:
      return module
    policy = jax.checkpoint_policies.save_only_these_names(BATCH_MOMENTS)
    return nn.remat(module, static_argnums=static_argnums, policy=policy)


def named_moments(moments: Float[Array, '*shape']) -> Float[Array, '*shape']:
  """Marks the moments, which `Computing.block` keeps in addition to the inputs."""
  return checkpoint_name(moments, BATCH_MOMENTS)


def accumulator_dtype(dtype: jnp.dtype) -> jnp.dtype:
  """Returns the type for sums over many values of a type, which is float32 or wider."""
  return jnp.promote_types(dtype, jnp.float32)


def spatial_mean(
  x: Float[Array, 'batch height width channels'],
) -> Float[Array, 'batch channels']:
  """Averages maps over their pixels, in float32 where they are bfloat16."""
  return x.mean((1, 2), dtype=accumulator_dtype(x.dtype))
