"""Sampling of feature maps at points of the crop, and the fixed projection of their channels."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from hand_jax.models.map_sampling import map_projection, sample_bilinear


@pytest.mark.parametrize('shape', [(12, 12), (5, 9), (1, 1)])
def test_bilinear_sampling_is_scipy_s(shape):
  rng = np.random.default_rng(1)
  image = rng.normal(size=(*shape, 3)).astype(np.float32)
  points = rng.uniform(-1.2, 1.2, (50, 2)).astype(np.float32)
  sampled = sample_bilinear(jnp.asarray(image)[None], jnp.asarray(points)[None])[0]
  # Pixel centres at half-integers; beyond the outermost the border goes on.
  row, column = (points[:, ::-1].T + 1) / 2 * np.array(shape)[:, None] - 0.5
  for channel in range(3):
    expected = scipy.ndimage.map_coordinates(
      image[..., channel].astype(np.float64), (row, column), order=1, mode='nearest'
    )
    np.testing.assert_allclose(sampled[:, channel], expected, atol=2e-6)


def test_a_map_of_half_the_resolution_is_sampled_at_the_same_place():
  """A ramp across the image, seen at two resolutions, has the same value at a point."""

  def ramp(size):
    centre = (np.arange(size) + 0.5) / size * 2 - 1
    return jnp.asarray(np.stack(np.meshgrid(centre, 3 * centre), -1), jnp.float32)[None]

  points = jnp.asarray([[[0.3, -0.4], [-0.7, 0.1]]])
  expected = points * jnp.asarray([1.0, 3.0])[None, None]
  for size in (16, 32):
    np.testing.assert_allclose(sample_bilinear(ramp(size), points), expected, atol=1e-6)


def test_the_projection_is_orthonormal_fixed_and_nested():
  wide, narrow = map_projection(112, 8, 3), map_projection(112, 3, 3)
  np.testing.assert_allclose(wide.T @ wide, np.eye(8), atol=1e-6)
  np.testing.assert_allclose(wide[:, :3], narrow, atol=1e-6)
  assert np.abs(map_projection(112, 3, 4) - narrow).max() > 0.01
