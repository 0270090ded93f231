"""Holds layers for networks whose normalisation is folded into the convolutions."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.models.layers import (
  Activation,
  conv_padding,
  dense_conv,
  depthwise_conv,
  kernel_init,
  pointwise_conv,
)


class ConvBias(nn.Module):
  """Convolves with TensorFlow's SAME padding, adds a bias if `use_bias` is set, and activates.

  With `padded` the input has its padding already. The output has the input's type.
  """

  features: int
  kernel_size: int = 1
  stride: int = 1
  depthwise: bool = False
  use_bias: bool = True
  padded: bool = False
  activation: Activation | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width inputs']
  ) -> Float[Array, 'batch _h _w features']:
    inputs = 1 if self.depthwise else x.shape[-1]
    shape = (self.kernel_size, self.kernel_size, inputs, self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32).astype(x.dtype)
    padding = conv_padding('same', self.kernel_size, self.stride, (x.shape[1], x.shape[2]))
    padding = ((0, 0), (0, 0)) if self.padded else padding
    if self.depthwise:
      x = depthwise_conv(x, kernel, self.stride, padding)
    else:
      convolve = pointwise_conv if self.kernel_size == 1 else dense_conv
      x = convolve(x, kernel, self.stride, padding)
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
      x = (x + bias[None, None, None]).astype(x.dtype)
    return x if self.activation is None else self.activation(x)


class ChannelPRelu(nn.Module):
  """Keeps positive x and multiplies the rest by one slope per channel (He et al. 2015)."""

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width channels']
  ) -> Float[Array, 'batch height width channels']:
    slope = self.param('slope', nn.initializers.constant(0.25), (x.shape[-1],), jnp.float32)
    return jnp.where(x > 0, x, x * slope[None, None, None])
