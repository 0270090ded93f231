"""Resampled photos against means over each pixel, for shrinking by any factor and turns."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from hand_jax.geometry.warping import warp_image


def test_shrinking_does_not_alias():
  """A checkerboard of single pixels becomes grey; plain bilinear sampling keeps black and white."""
  board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
  affine = np.diag([64 / 512, 64 / 512, 1.0])
  affine[:2, 2] = 0.013
  shrunk = warp_image(board, affine, 64)
  assert shrunk[2:-2, 2:-2].std() < 4
  np.testing.assert_allclose(shrunk[2:-2, 2:-2].mean(), 127.5, atol=1.5)
  plain = cv2.warpAffine(board, affine[:2], (64, 64), flags=cv2.INTER_NEAREST)
  assert abs(plain.mean() - 127.5) > 100  # every sample fell on the same colour


@pytest.mark.parametrize('factor', [2, 3, 8])
def test_shrinking_by_a_whole_number_averages_blocks(factor):
  side = 32
  noise = np.random.default_rng(0).integers(0, 256, (side * factor, side * factor), np.uint8)
  shrunk = warp_image(noise, np.diag([1 / factor, 1 / factor, 1.0]), side)
  blocks = noise.reshape(side, factor, side, factor).mean((1, 3))
  # Each halving on the way rounds to whole levels.
  np.testing.assert_allclose(shrunk, blocks, atol=1.1)


def mean_over_crop_pixels(image, affine, side, samples=6):
  """Each crop pixel as the mean of samples^2 bilinear samples spread over it."""
  inverse = np.linalg.inv(affine)
  places = (np.arange(side * samples) + 0.5) / samples
  x, y = np.meshgrid(places, places)
  u, v, _ = np.einsum('ij,jkl->ikl', inverse, np.stack([x, y, np.ones_like(x)]))
  fine = map_coordinates(image.astype(np.float64), [v - 0.5, u - 0.5], order=1, cval=0.0)
  return fine.reshape(side, samples, side, samples).mean((1, 3))


@pytest.mark.parametrize('shrink', [1.05, 1.1, 1.3, 1.7, 1.95, 2.4, 3.7, 5.2])
@pytest.mark.parametrize('rotation', [0.0, 0.4, -2.0])
def test_crops_are_means_over_their_pixels(shrink, rotation):
  side, size = 64, 420
  rng = np.random.default_rng(1)
  # Detail of every scale, as photos have: each halving of scale halves the contrast.
  image = sum(
    cv2.resize(
      rng.uniform(-1, 1, (n, n)) * 400 / n**0.5, (size, size), interpolation=cv2.INTER_CUBIC
    )
    for n in (6, 12, 24, 48, 96, 192)
  )
  image = np.clip(128 + 0.5 * image, 0, 255).astype(np.uint8)
  cosine, sine = np.cos(rotation) / shrink, np.sin(rotation) / shrink
  affine = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
  affine[:2, 2] = side / 2 + 0.3 - affine[:2, :2] @ (size / 2, size / 2)
  expected = mean_over_crop_pixels(image, affine, side)
  for picture in (image, np.stack([image] * 3, -1)):
    crop = warp_image(picture, affine, side).reshape(side, side, -1)[..., 0].astype(np.float64)
    error = (crop - expected)[3:-3, 3:-3]
    # Rounding alone gives 0.3 to 0.5. Plain bilinear sampling gives 0.8 to 6 from a shrink of 1.3,
    # a shift by half a pixel of the photo 4 or more, averaging before the turn 2 to 6.
    assert np.sqrt((error**2).mean()) < (0.7 if shrink < 4 else 1.0)
    assert abs(error.mean()) < 0.2  # halving rounds up


def test_an_axis_of_one_channel_stays():
  grey = np.random.default_rng(0).integers(0, 255, (12, 10, 1), np.uint8)
  for shift in (0.0, 500.0):
    affine = np.array([[0.5, 0, shift], [0, 0.5, 0], [0, 0, 1]])
    crop = warp_image(grey, affine, 4)
    np.testing.assert_array_equal(crop[..., 0], warp_image(grey[..., 0], affine, 4))
    assert crop.shape == (4, 4, 1)
