"""Convolutions that are fast on CPUs and accelerators, and convolution with batch normalisation.

XLA's CPU backend is slow at depthwise convolutions and at the weight gradients of all others. On
CPUs the same sums are therefore written as shifted multiply-adds and as matrix products.
Accelerators use `lax.conv_general_dilated`. `jax.lax.platform_dependent` chooses the form when a
function is lowered, so there is one model and one parameter tree. `hand-jax export` writes the form
of one platform.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hand_jax.models.computing import accumulator_dtype, named_moments, spatial_mean

Padding = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)
Activation = Callable[[jax.Array], jax.Array]

# Initialise with fan-out scaling, as the papers on residual networks do.
kernel_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


@jax.custom_jvp
def relu6(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
  """Computes min(max(x, 0), 6), EfficientNet-Lite's activation.

  The gradient is 0 at both limits and beyond them.
  """
  return jnp.minimum(jnp.maximum(x, 0.0), 6.0)


@relu6.defjvp
def _relu6_derivative(primals, tangents):
  (x,), (tangent,) = primals, tangents
  return relu6(x), jnp.where((x > 0) & (x < 6), tangent, jnp.zeros_like(tangent))


def conv_padding(
  rule: Literal['torch', 'same'], kernel_size: int, stride: int, size: tuple[int, int]
) -> Padding:
  """Counts the rows and columns of zeros around an image that a convolution needs.

  Args:
    rule: 'torch' puts kernel_size // 2 zeros on every side. 'same' is TensorFlow's SAME, with the
      output size ceil(size / stride). It puts an odd zero at the bottom and right, so with stride 2
      on even sizes it differs from 'torch'.
    kernel_size: pixels along either axis.
    stride: pixels along either axis.
    size: height and width of the image.
  """
  if rule == 'torch':
    side = (kernel_size // 2, kernel_size // 2)
    return side, side
  totals = [max((-(-n // stride) - 1) * stride + kernel_size - n, 0) for n in size]
  above, left = (total // 2 for total in totals)
  return (above, totals[0] - above), (left, totals[1] - left)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _pointwise_conv(
  x: Float[Array, 'batch height width inputs'],
  kernel: Float[Array, '1 1 inputs outputs'],
  stride: int,
  padding: Padding,
) -> Float[Array, 'batch _h _w outputs']:
  """Convolves 1x1, on CPUs by a two-dimensional matrix product. `padding` must be zero."""
  del padding
  return lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(_pointwise_matmul, stride=stride),
    default=functools.partial(_lax_conv, stride=stride, padding=((0, 0), (0, 0))),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise_conv(
  x: Float[Array, 'batch height width channels'],
  kernel: Float[Array, 'size size 1 channels'],
  stride: int,
  padding: Padding,
) -> Float[Array, 'batch _h _w channels']:
  """Filters every channel by its own kernel, on CPUs by size * size shifted multiply-adds."""
  filtered = lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(_depthwise_shifts, stride=stride, padding=padding),
    default=functools.partial(_lax_conv, stride=stride, padding=padding),
  )
  return jnp.asarray(filtered)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense_conv(
  x: Float[Array, 'batch height width inputs'],
  kernel: Float[Array, 'size size inputs outputs'],
  stride: int,
  padding: Padding,
) -> Float[Array, 'batch _h _w outputs']:
  """Convolves with every input channel for each output, everywhere by XLA's own form."""
  return _lax_conv(x, kernel, stride, padding)


def _lax_conv(x, kernel, stride, padding):
  """Convolves by XLA. With one input channel per filter the convolution is depthwise."""
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1] // kernel.shape[2],
  )


def _pointwise_matmul(x, kernel, stride):
  if stride > 1:
    x = x[:, ::stride, ::stride]
  rows = jnp.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0])
  return rows.reshape(*x.shape[:3], kernel.shape[-1])


def _pad_space(x, padding):
  return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def _depthwise_shifts(x, kernel, stride, padding):
  """Adds up the products of each kernel row, and then the rows.

  A processor can work on several rows at once. One long sum would make it wait for each addition.
  """
  size = kernel.shape[0]
  padded = _pad_space(x, padding)
  height, width = (((n - size) // stride) + 1 for n in padded.shape[1:3])

  def term(row: int, column: int) -> Array:
    window = padded[
      :,
      row : row + (height - 1) * stride + 1 : stride,
      column : column + (width - 1) * stride + 1 : stride,
    ]
    return window * kernel[row, column][None, None]

  rows = [
    functools.reduce(jnp.add, [term(row, column) for column in range(size)]) for row in range(size)
  ]
  return functools.reduce(jnp.add, rows)


def _depthwise_input_gradient(x, kernel, g, stride, padding):
  """Computes the transposed convolution as shifts of the gradient, spread out by the stride."""
  size = kernel.shape[0]
  edges = []
  for n, out, (before, _) in zip(x.shape[1:3], g.shape[1:3], padding, strict=True):
    spread = (out - 1) * stride + 1
    low = size - 1 - before
    edges.append((low, n + size - 1 - spread - low, stride - 1))
  spread = lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
  return _depthwise_shifts(spread, kernel[::-1, ::-1], 1, ((0, 0), (0, 0)))


def _depthwise_kernel_gradient(x, kernel, g, stride, padding):
  """Scans over output rows, so that the sums of every tap and output column stay in the cache.

  XLA's CPU code adds whole rows several times faster than it sums along them, so the sum over the
  columns comes last, once.
  """
  size = kernel.shape[0]
  batch, height, width, channels = g.shape
  padded = _pad_space(x, padding)

  def add_row(totals, index):
    image, row = index // height, index % height
    g_row = lax.dynamic_slice(g, (image, row, 0, 0), (1, 1, width, channels))[0]
    x_rows = lax.dynamic_slice(
      padded, (image, row * stride, 0, 0), (1, size, padded.shape[2], channels)
    )[0]
    windows = [
      x_rows[:, column : column + (width - 1) * stride + 1 : stride] for column in range(size)
    ]
    return tuple(t + w * g_row for t, w in zip(totals, windows, strict=True)), None

  start = jnp.zeros((size, width, channels), accumulator_dtype(g.dtype))
  totals, _ = lax.scan(add_row, (start,) * size, jnp.arange(batch * height))
  return jnp.stack([t.sum(1) for t in totals], axis=1)[:, :, None].astype(kernel.dtype)


def _dense_kernel_gradient(x, kernel, g, stride, padding):
  """Computes one matrix product for each row of the kernel, over all pixels of the output.

  The columns of a row stand side by side as channels, so that the products of few input channels
  are not too thin.
  """
  size, _, inputs, outputs = kernel.shape
  padded = _pad_space(x, padding)
  height, width = ((n - 1) * stride + 1 for n in g.shape[1:3])
  shifted = [padded[:, :, column : column + width : stride] for column in range(size)]
  columns = jnp.concatenate(shifted, axis=-1)
  pixels = g.reshape(-1, outputs)
  rows = [
    jnp.dot(columns[:, row : row + height : stride].reshape(-1, size * inputs).T, pixels)
    for row in range(size)
  ]
  return jnp.stack(rows).reshape(kernel.shape).astype(kernel.dtype)


def _save_inputs(conv, x, kernel, stride, padding):
  return conv(x, kernel, stride, padding), (x, kernel)


def _lax_backward(x, kernel, g, stride, padding):
  _, pull_back = jax.vjp(lambda x, k: _lax_conv(x, k, stride, padding), x, kernel)
  return pull_back(g)


def _pointwise_backward(stride, padding, saved, g):
  del padding

  def matmul_backward(x, kernel, g):
    return jax.vjp(functools.partial(_pointwise_matmul, stride=stride), x, kernel)[1](g)

  lax_backward = functools.partial(_lax_backward, stride=stride, padding=((0, 0), (0, 0)))
  return lax.platform_dependent(*saved, g, cpu=matmul_backward, default=lax_backward)


def _depthwise_backward(stride, padding, saved, g):
  def shifts_backward(x, kernel, g):
    return (
      _depthwise_input_gradient(x, kernel, g, stride, padding),
      _depthwise_kernel_gradient(x, kernel, g, stride, padding),
    )

  lax_backward = functools.partial(_lax_backward, stride=stride, padding=padding)
  return lax.platform_dependent(*saved, g, cpu=shifts_backward, default=lax_backward)


def _dense_backward(stride, padding, saved, g):
  lax_backward = functools.partial(_lax_backward, stride=stride, padding=padding)

  def products_backward(x, kernel, g):
    by_input = jax.linear_transpose(lambda x: _lax_conv(x, kernel, stride, padding), x)(g)[0]
    return by_input, _dense_kernel_gradient(x, kernel, g, stride, padding)

  return lax.platform_dependent(*saved, g, cpu=products_backward, default=lax_backward)


# The derivative rules choose the platform again. Differentiating through the first choice would
# keep the saved values of both forms in memory at once.
_pointwise_conv.defvjp(functools.partial(_save_inputs, _pointwise_conv), _pointwise_backward)
_depthwise_conv.defvjp(functools.partial(_save_inputs, _depthwise_conv), _depthwise_backward)
_dense_conv.defvjp(functools.partial(_save_inputs, _dense_conv), _dense_backward)

# A network with many equal layers traces and lowers a jitted function once, which halves the time
# before the first output.
pointwise_conv = jax.jit(_pointwise_conv, static_argnums=(2, 3))
depthwise_conv = jax.jit(_depthwise_conv, static_argnums=(2, 3))
dense_conv = jax.jit(_dense_conv, static_argnums=(2, 3))


def batch_moments(
  x: Float[Array, 'batch height width channels'], axis_name: str | None = None
) -> tuple[Float[Array, 'channels'], Float[Array, 'channels']]:
  """Computes the mean and the biased variance of each channel, in float32 or wider.

  Args:
    x: a batch of maps.
    axis_name: the axis over devices, if the moments are those of the batches of all devices.
  """
  x = x.astype(accumulator_dtype(x.dtype))
  moments = jnp.stack([x.mean((0, 1, 2)), (x * x).mean((0, 1, 2))])
  if axis_name is not None:
    moments = lax.pmean(moments, axis_name)
  mean, mean_square = named_moments(moments)
  return mean, jnp.maximum(mean_square - mean * mean, 0.0)


class ConvNorm(nn.Module):
  """A convolution without bias, batch normalisation and an activation.

  With running statistics in training (`frozen`) the normalisation is folded into the kernel, which
  saves passes over the image forwards and backwards. Scale and bias are still trained.

  Only `train=True` without `frozen` updates `batch_stats`, by new = momentum * old +
  (1 - momentum) * batch. The variance in `batch_stats` is unbiased, as in PyTorch. `axis_name` is
  the axis over devices to average moments over.

  The output has the input's type. Parameters, statistics and the normalisation are float32.
  """

  features: int
  kernel_size: int = 1
  stride: int = 1
  depthwise: bool = False
  padding: Literal['torch', 'same'] = 'torch'
  activation: Activation | None = None
  momentum: float = 0.9
  epsilon: float = 1e-5
  frozen: bool = False
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width inputs'], train: bool
  ) -> Float[Array, 'batch _h _w features']:
    dtype = x.dtype
    inputs = 1 if self.depthwise else x.shape[-1]
    shape = (self.kernel_size, self.kernel_size, inputs, self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    scale = self.param('scale', nn.initializers.ones, (self.features,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (self.features,), jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, (self.features,), jnp.float32)

    if train and not self.frozen:
      x = self._convolve(x, kernel)
      axis_name = None if self.is_initializing() else self.axis_name
      mean, var = batch_moments(x, axis_name)
      if not self.is_initializing():
        count = x[..., 0].size * (lax.psum(1, axis_name) if axis_name else 1)
        self._update(running_mean, mean)
        self._update(running_var, var * (count / max(count - 1, 1)))
      factor = scale * lax.rsqrt(var + self.epsilon)
      y = x * factor[None, None, None] + (bias - mean * factor)[None, None, None]
    else:
      factor = scale * lax.rsqrt(running_var.value + self.epsilon)
      if train:
        x = self._convolve(x, kernel * factor[None, None, None])
      else:
        # One pass over the image both scales and shifts it, and no pass over the kernel is needed.
        x = self._convolve(x, kernel) * factor[None, None, None]
      y = x + (bias - running_mean.value * factor)[None, None, None]
    y = y.astype(dtype)
    return y if self.activation is None else self.activation(y)

  def _convolve(self, x, kernel):
    kernel = kernel.astype(x.dtype)
    padding = conv_padding(self.padding, self.kernel_size, self.stride, x.shape[1:3])
    if self.depthwise:
      return depthwise_conv(x, kernel, self.stride, padding)
    convolve = pointwise_conv if self.kernel_size == 1 else dense_conv
    return convolve(x, kernel, self.stride, padding)

  def _update(self, variable, value):
    new = self.momentum * variable.value + (1 - self.momentum) * value
    variable.value = lax.stop_gradient(new)


class SqueezeExcite(nn.Module):
  """Multiplies channels by gates from the mean: sigmoid(W2 silu(W1 mean)) (Hu et al. 2018)."""

  squeezed: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width channels']
  ) -> Float[Array, 'batch height width channels']:
    pooled = spatial_mean(x)
    hidden = nn.silu(nn.Dense(self.squeezed, name='reduce')(pooled))
    gates = nn.sigmoid(nn.Dense(x.shape[-1], name='expand')(hidden))
    return (x * gates[:, None, None]).astype(x.dtype)


def max_pool(
  x: Float[Array, 'batch height width channels'],
) -> Float[Array, 'batch _h _w channels']:
  """Takes 3x3 maxima with stride 2, as ResNet does. The border of one pixel is never a maximum."""
  border = cast(Any, ((1, 1), (1, 1)))  # Flax declares a string here, but accepts numbers too.
  return nn.max_pool(x, (3, 3), (2, 2), border)
