"""Reads feature maps at points of the crop, and reduces their channels by a fixed projection."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def sample_bilinear(
  feature_map: Float[Array, 'batch height width channels'],
  points_normalized: Float[Array, 'batch points 2'],
) -> Float[Array, 'batch points channels']:
  """Samples maps bilinearly at points in [-1, 1] across them.

  Points beyond the outermost pixel centres take the value at the border. Pixel centres lie at
  half-integers, so a point means the same place in maps of any resolution.
  """
  height, width = feature_map.shape[1:3]
  x, x_share = _cell((points_normalized[..., 0] + 1) * width / 2 - 0.5, width)
  y, y_share = _cell((points_normalized[..., 1] + 1) * height / 2 - 0.5, height)

  def at(row, column):
    return jax.vmap(lambda one, row, column: one[row, column])(feature_map, row, column)

  right, below = jnp.minimum(x + 1, width - 1), jnp.minimum(y + 1, height - 1)
  top = at(y, x) * (1 - x_share) + at(y, right) * x_share
  bottom = at(below, x) * (1 - x_share) + at(below, right) * x_share
  return top * (1 - y_share) + bottom * y_share


def _cell(position: Array, size: int) -> tuple[Array, Array]:
  """Splits a position, counted from the first pixel's centre, into a pixel and a remainder.

  The remainder is the weight of the next pixel.
  """
  position = jnp.clip(position, 0, size - 1)
  first = jnp.floor(position)
  return first.astype(jnp.int32), (position - first)[..., None]


def map_projection(channels: int, width: int, seed: int) -> Float[np.ndarray, '{channels} {width}']:
  """Draws a fixed matrix of orthonormal columns, for projecting the channels of a map.

  The directions are random, so that distances keep their proportions on average.

  Args:
    channels: number of channels of the map.
    width: number of channels after the projection.
    seed: seed of the directions.
  """
  drawn = np.random.default_rng((seed, channels)).normal(size=(width, channels)).T
  basis, upper = np.linalg.qr(drawn)
  # The signs make the factorisation unique, so the first columns are the same at every width.
  return (basis * np.sign(np.diag(upper))[None]).astype(np.float32)


def reduce_maps(
  last_map: Float[Array, 'batch _h1 _w1 _last'],
  middle_map: Float[Array, 'batch _h2 _w2 _middle'],
  width: int,
  seed: int = 0,
) -> tuple[Float[Array, 'batch _h1 _w1 {width}'], Float[Array, 'batch _h2 _w2 {width}']]:
  """Reduces the channels of the landmark network's maps by fixed projections.

  Args:
    last_map: the map whose mean is the pooled vector, at 1/32 of the crop's side.
    middle_map: the finer map, at 1/16 of the crop's side.
    width: number of channels of both results.
    seed: seed of the projections. Networks that sample maps use 0.
  """
  last, middle = (
    found @ map_projection(found.shape[-1], width, seed) for found in (last_map, middle_map)
  )
  return last, middle
