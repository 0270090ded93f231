"""The head that tells which pixels show the hand: its layers, and what it depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.models.mask_head import (
  MaskHead,
  MaskMaps,
  _enlarged,
  _neighbourhoods,
  enlarged_mask,
)

CHANNELS = (1152, 112, 40, 24, 16)


@pytest.fixture(scope='module')
def maps():
  rng = np.random.default_rng(0)
  sides = (1, 2, 4, 8, 16)
  drawn = [
    rng.normal(size=(2, side, side, channels)).astype(np.float32)
    for side, channels in zip(sides, CHANNELS, strict=True)
  ]
  return MaskMaps(*map(jnp.asarray, drawn))


@pytest.fixture(scope='module')
def variables(maps):
  return jax.jit(MaskHead().init)(jax.random.key(0), maps)


def test_every_parameter_and_map_counts(maps, variables):
  def loss(variables, maps):
    return jnp.sum(MaskHead().apply(variables, maps) ** 2)

  assert jax.eval_shape(MaskHead().apply, variables, maps).shape == (2, 16, 16)
  of_variables, of_maps = jax.jit(jax.grad(loss, (0, 1)))(variables, maps)
  for leaf in jax.tree.leaves(of_variables) + list(of_maps):
    assert np.abs(leaf).max() > 0


def test_a_crop_does_not_depend_on_the_others(maps, variables):
  alone = MaskHead().apply(variables, jax.tree.map(lambda found: found[:1], maps))
  np.testing.assert_allclose(MaskHead().apply(variables, maps)[:1], alone, atol=1e-5)


def test_a_dense_layer_on_neighbourhoods_is_a_convolution():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 3, 6)).astype(np.float32)
  found = _neighbourhoods(jnp.asarray(x)) @ kernel.reshape(27, 6)
  expected = jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_enlarging_keeps_places():
  """A ramp over the picture stays the same ramp, but for the border."""
  ramp = (jnp.arange(8) + 0.5)[None, None, :, None] * jnp.ones((1, 8, 1, 1))
  enlarged = _enlarged(ramp)
  assert enlarged.shape == (1, 16, 16, 1)
  expected = (np.arange(16) + 0.5) / 2
  np.testing.assert_allclose(enlarged[0, 3, 1:-1, 0], expected[1:-1], atol=1e-5)


def test_the_mask_is_where_the_hand_is_more_likely_than_not():
  log_odds = jnp.full((1, 4, 4), -1.0).at[0, 1:3, 2:].set(3.0)
  mask = np.asarray(enlarged_mask(log_odds, 8))
  assert mask.shape == (1, 8, 8)
  assert mask[0, 2:6, 4:].all() and not mask[0, :, :3].any() and not mask[0, 0].any()
