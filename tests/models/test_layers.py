"""Platform-dependent convolutions, folded batch normalisation, and the small layers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from hand_jax.models import layers

# Kernel size, stride, padding rule, image size: even and odd, square and not.
DEPTHWISE_CASES = [
  (3, 1, 'torch', (7, 5)),
  (3, 2, 'torch', (8, 6)),
  (3, 2, 'same', (8, 7)),
  (5, 2, 'same', (8, 9)),
  (5, 1, 'same', (4, 4)),
  (5, 2, 'torch', (5, 8)),
]


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def reference_conv(x, kernel, stride, padding):
  """XLA's own with channels first, as PyTorch has them."""
  groups = x.shape[-1] // kernel.shape[2]
  x, kernel = jnp.transpose(x, (0, 3, 1, 2)), jnp.transpose(kernel, (3, 2, 0, 1))
  y = lax.conv_general_dilated(x, kernel, (stride, stride), padding, feature_group_count=groups)
  return jnp.transpose(y, (0, 2, 3, 1))


def assert_close(actual, expected, tolerance):
  """By the largest difference over the largest value: entries near zero carry no information."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape
  assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def naive_depthwise(x, kernel, stride, padding):
  padded = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
  size = kernel.shape[0]
  height, width = [(n - size) // stride + 1 for n in padded.shape[1:3]]
  output = np.zeros((x.shape[0], height, width, x.shape[3]))
  for row in range(height):
    for column in range(width):
      top, left = row * stride, column * stride
      patch = padded[:, top : top + size, left : left + size]
      output[:, row, column] = (patch * np.asarray(kernel)[None, :, :, 0]).sum((1, 2))
  return output


@pytest.mark.parametrize('size, stride', [((8, 8), 2), ((7, 9), 2), ((9, 4), 1), ((5, 6), 3)])
@pytest.mark.parametrize('kernel_size', [1, 3, 5])
def test_same_padding_is_xlas(kernel_size, stride, size):
  expected = lax.padtype_to_pads(size, (kernel_size,) * 2, (stride,) * 2, 'SAME')
  assert layers.conv_padding('same', kernel_size, stride, size) == tuple(map(tuple, expected))


def test_torch_padding_is_symmetric():
  assert layers.conv_padding('torch', 7, 2, (8, 8)) == ((3, 3), (3, 3))
  assert layers.conv_padding('torch', 1, 2, (8, 8)) == ((0, 0), (0, 0))


@pytest.mark.parametrize('kernel_size, stride, rule, size', DEPTHWISE_CASES)
def test_depthwise_matches_naive_loops(kernel_size, stride, rule, size):
  x, kernel = normal(0, 2, *size, 3), normal(1, kernel_size, kernel_size, 1, 3)
  padding = layers.conv_padding(rule, kernel_size, stride, size)
  actual = jax.jit(layers.depthwise_conv, static_argnums=(2, 3))(x, kernel, stride, padding)
  assert_close(actual, naive_depthwise(x, kernel, stride, padding), 1e-6)


@pytest.mark.parametrize('kernel_size, stride, rule, size', DEPTHWISE_CASES)
def test_depthwise_gradients_match_xla(kernel_size, stride, rule, size):
  x, kernel = normal(0, 2, *size, 3), normal(1, kernel_size, kernel_size, 1, 3)
  padding = layers.conv_padding(rule, kernel_size, stride, size)
  assert_same_gradients(layers.depthwise_conv, x, kernel, stride, padding)


@pytest.mark.parametrize(
  'kernel_size, stride, rule, size', [*DEPTHWISE_CASES, (7, 2, 'torch', (9, 8))]
)
def test_dense_matches_xla(kernel_size, stride, rule, size):
  x, kernel = normal(0, 2, *size, 3), normal(1, kernel_size, kernel_size, 3, 4)
  padding = layers.conv_padding(rule, kernel_size, stride, size)
  assert_same_gradients(layers.dense_conv, x, kernel, stride, padding)


@pytest.mark.parametrize('stride', [1, 2])
def test_pointwise_matches_xla(stride):
  x, kernel = normal(0, 2, 5, 6, 3), normal(1, 1, 1, 3, 4)
  assert_same_gradients(layers.pointwise_conv, x, kernel, stride, ((0, 0), (0, 0)))


def assert_same_gradients(conv, x, kernel, stride, padding):
  """Value and both gradients against XLA's convolution and its own derivative."""

  @functools.partial(jax.jit, static_argnums=0)
  def evaluate(function, x, kernel):
    value, pull_back = jax.vjp(lambda x, k: function(x, k, stride, padding), x, kernel)
    # A gradient that differs from place to place, so that a shift would show.
    return value, pull_back(jnp.sin(jnp.arange(value.size)).reshape(value.shape))

  actual, actual_gradients = evaluate(conv, x, kernel)
  expected, expected_gradients = evaluate(reference_conv, x, kernel)
  assert_close(actual, expected, 1e-6)
  for ours, theirs in zip(actual_gradients, expected_gradients, strict=True):
    assert_close(ours, theirs, 2e-6)


@pytest.mark.parametrize('depthwise', [True, False])
def test_the_platform_chooses_the_form(depthwise):
  conv = layers.depthwise_conv if depthwise else layers.pointwise_conv
  kernel = normal(1, 3, 3, 1, 4) if depthwise else normal(1, 1, 1, 4, 4)
  padding = ((1, 1), (1, 1)) if depthwise else ((0, 0), (0, 0))

  def gradients(x, kernel):
    return jax.grad(lambda x, k: (conv(x, k, 1, padding) ** 2).sum(), (0, 1))(x, kernel)

  traced = jax.jit(gradients).trace(normal(0, 1, 4, 4, 4), kernel)
  for platform in ('tpu', 'cuda'):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    # Forward, gradient of the input, gradient of the kernel.
    assert text.count('stablehlo.convolution') == 3
  assert 'stablehlo.convolution' not in traced.lower(lowering_platforms=('cpu',)).as_text()


def conv_norm_variables(module, x, seed=0):
  """Initial variables with running statistics, scale and bias away from 0 and 1."""
  variables = jax.jit(module.init, static_argnums=2)(jax.random.key(seed), x, False)
  leaves, structure = jax.tree.flatten(variables)
  rng = np.random.default_rng(seed)
  leaves = [leaf + jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), jnp.float32) for leaf in leaves]
  return jax.tree.unflatten(structure, leaves)


def test_running_statistics_match_the_unfolded_formula():
  module = layers.ConvNorm(5, 3, 2, padding='same', epsilon=1e-3)
  x = normal(0, 2, 6, 6, 3)
  variables = conv_norm_variables(module, x)
  params, stats = variables['params'], variables['batch_stats']
  y = reference_conv(x, params['kernel'], 2, ((0, 1), (0, 1)))
  expected = (y - stats['mean'][None, None, None]) / np.sqrt(stats['var'] + 1e-3)[None, None, None]
  expected = expected * params['scale'][None, None, None] + params['bias'][None, None, None]
  assert_close(module.apply(variables, x, False), expected, 1e-6)


def test_training_normalises_and_updates_by_momentum():
  module = layers.ConvNorm(5, momentum=0.8)
  x = normal(0, 3, 4, 4, 3)
  variables = conv_norm_variables(module, x)
  params, stats = variables['params'], variables['batch_stats']
  apply = jax.jit(functools.partial(module.apply, mutable=['batch_stats']), static_argnums=2)
  output, updated = apply(variables, x, True)

  y = np.einsum('bhwi,io->bhwo', np.asarray(x, np.float64), np.asarray(params['kernel'][0, 0]))
  mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
  normalised = (y - mean) / np.sqrt(var + 1e-5)
  expected = normalised * np.asarray(params['scale']) + np.asarray(params['bias'])
  assert_close(output, expected, 2e-6)
  new = updated['batch_stats']
  np.testing.assert_allclose(new['mean'], 0.8 * np.asarray(stats['mean']) + 0.2 * mean, rtol=1e-5)
  unbiased = y.var((0, 1, 2), ddof=1)
  np.testing.assert_allclose(new['var'], 0.8 * np.asarray(stats['var']) + 0.2 * unbiased, rtol=1e-5)


@pytest.mark.slow
def test_frozen_uses_and_keeps_running_statistics():
  x = normal(0, 2, 4, 4, 3)
  frozen = layers.ConvNorm(5, frozen=True)
  variables = conv_norm_variables(frozen, x)
  output, updated = frozen.apply(variables, x, True, mutable=['batch_stats'])
  chex.assert_trees_all_equal(updated['batch_stats'], variables['batch_stats'])
  assert_close(output, layers.ConvNorm(5).apply(variables, x, False), 1e-6)
  gradients = jax.grad(lambda p: frozen.apply({**variables, 'params': p}, x, True).sum())(
    variables['params']
  )
  assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradients))


@pytest.mark.slow
def test_two_devices_normalise_as_one():
  """Halves with different means, so that per-device moments would differ."""
  x = jnp.concatenate([normal(0, 2, 4, 4, 3), 2.0 + 3.0 * normal(1, 2, 4, 4, 3)])
  single = layers.ConvNorm(5, 3, activation=layers.relu6)
  variables = conv_norm_variables(single, x)

  def step(module, variables, x):
    def loss(params):
      output, updated = module.apply(
        {**variables, 'params': params}, x, True, mutable=['batch_stats']
      )
      return (output**2).mean(), updated

    return jax.value_and_grad(loss, has_aux=True)(variables['params'])

  expected = jax.jit(functools.partial(step, single))(variables, x)
  parallel = layers.ConvNorm(5, 3, activation=layers.relu6, axis_name='batch')

  @functools.partial(jax.pmap, axis_name='batch', in_axes=(None, 0))
  def parallel_step(variables, x):
    (loss, updated), gradients = step(parallel, variables, x)
    return (lax.pmean(loss, 'batch'), updated), lax.pmean(gradients, 'batch')

  actual = parallel_step(variables, x.reshape(2, 2, 4, 4, 3))
  for device in range(2):
    one = jax.tree.map(lambda leaf, device=device: leaf[device], actual)
    chex.assert_trees_all_close(one, expected, rtol=2e-5, atol=1e-6)


def test_relu6_clips_and_stops_gradients():
  x = jnp.array([-1.0, 0.0, 0.5, 5.9, 6.0, 7.0])
  np.testing.assert_array_equal(layers.relu6(x), np.float32([0, 0, 0.5, 5.9, 6, 6]))
  gradient = jax.grad(lambda x: layers.relu6(x).sum())(x)
  np.testing.assert_array_equal(gradient, [0, 0, 1, 1, 0, 0])


def test_squeeze_excite_is_a_gate_per_channel():
  x = normal(0, 2, 3, 4, 6)
  module = layers.SqueezeExcite(2)
  variables = jax.jit(module.init)(jax.random.key(0), x)
  params = jax.tree.map(np.asarray, variables['params'])
  for example in range(2):
    pooled = np.asarray(x[example], np.float64).mean((0, 1))
    hidden = pooled @ params['reduce']['kernel'] + params['reduce']['bias']
    hidden = hidden / (1 + np.exp(-hidden))
    gate = 1 / (1 + np.exp(-(hidden @ params['expand']['kernel'] + params['expand']['bias'])))
    assert_close(module.apply(variables, x)[example], np.asarray(x[example]) * gate, 1e-6)


def test_max_pool_ignores_its_padding():
  x = -1.0 - jnp.abs(normal(0, 1, 6, 4, 2))
  actual = np.asarray(layers.max_pool(x))
  assert actual.shape == (1, 3, 2, 2)
  for row in range(3):
    for column in range(2):
      rows = slice(max(2 * row - 1, 0), 2 * row + 2)
      columns = slice(max(2 * column - 1, 0), 2 * column + 2)
      expected = np.asarray(x)[0, rows, columns].max((0, 1))
      np.testing.assert_array_equal(actual[0, row, column], expected)
