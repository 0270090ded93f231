"""The rotation, and the scale and shift in an image, that carry one set of points to another.

Unlike a singular value decomposition, these closed forms consist of sums and products, so that
they run in any compiled program and can be exported.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

# Each squaring of the quaternion matrix doubles the exponent of its eigenvalues' ratios.
_SQUARINGS = 14
_TINY = 1e-12


def rotation_between(
  source: Float[Array, '*batch points 3'], target: Float[Array, '*batch points 3']
) -> Float[Array, '*batch 3 3']:
  """Finds the rotation that brings source points nearest to target points, both about the origin.

  This is Horn's closed form (1987): the quaternion is the eigenvector of a symmetric 4x4 matrix
  that belongs to the largest eigenvalue. Repeated squaring of the shifted matrix isolates it.

  Args:
    source: points, in any unit.
    target: the points that correspond to them.

  Returns:
    Matrices for column vectors: `matrix @ source` is near `target`. They are proper rotations, for
    flat and mirrored point sets too.
  """
  s = jnp.einsum('...ni,...nj->...ij', source, target, precision='highest')
  xx, yy, zz = s[..., 0, 0], s[..., 1, 1], s[..., 2, 2]
  yz, zx, xy = (s[..., i, j] - s[..., j, i] for i, j in ((1, 2), (2, 0), (0, 1)))
  sum_yz, sum_zx, sum_xy = (s[..., i, j] + s[..., j, i] for i, j in ((1, 2), (2, 0), (0, 1)))
  rows = [
    [xx + yy + zz, yz, zx, xy],
    [yz, xx - yy - zz, sum_xy, sum_zx],
    [zx, sum_xy, yy - xx - zz, sum_yz],
    [xy, sum_zx, sum_yz, zz - xx - yy],
  ]
  matrix = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
  size = jnp.sqrt(jnp.sum(matrix**2, axis=(-2, -1), keepdims=True)) + _TINY
  # The shift makes every eigenvalue positive, so that the largest one is the largest in size.
  matrix = matrix / size + jnp.broadcast_to(jnp.eye(4), matrix.shape)
  for _ in range(_SQUARINGS):
    matrix = jnp.matmul(matrix, matrix, precision='highest')
    matrix = matrix / jnp.trace(matrix, axis1=-2, axis2=-1)[..., None, None]
  # The matrix is q q^T by now. Its largest column is the best conditioned multiple of q.
  diagonal = jnp.diagonal(matrix, axis1=-2, axis2=-1)
  largest = jnp.argmax(diagonal, axis=-1)[..., None, None]
  quaternion = jnp.take_along_axis(matrix, largest, axis=-1)[..., 0]
  return quaternion_to_matrix(quaternion)


def quaternion_to_matrix(quaternion: Float[Array, '*batch 4']) -> Float[Array, '*batch 3 3']:
  """Converts quaternions (w, x, y, z) of any length above zero to rotation matrices."""
  length = jnp.sqrt(jnp.sum(quaternion**2, axis=-1, keepdims=True))
  w, x, y, z = jnp.moveaxis(quaternion / length, -1, 0)
  rows = [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ]
  return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def fit_scale_and_shift(
  source: Float[Array, '*batch points dims'], target: Float[Array, '*batch points dims']
) -> tuple[Float[Array, '*batch'], Float[Array, '*batch dims']]:
  """Fits target = scale * source + shift by least squares.

  Args:
    source: points, in any unit.
    target: the points that correspond to them.

  Returns:
    The scale, which is kept positive, and the shift.
  """
  source_mean, target_mean = (points.mean(axis=-2, keepdims=True) for points in (source, target))
  centred = source - source_mean
  variance = jnp.sum(centred**2, axis=(-2, -1))
  covariance = jnp.sum(centred * (target - target_mean), axis=(-2, -1))
  smallest = _TINY + 1e-3 * jnp.sqrt(variance) * jnp.sqrt(
    jnp.sum((target - target_mean) ** 2, axis=(-2, -1))
  )
  scale = jnp.maximum(covariance, smallest) / (variance + _TINY)
  shift = target_mean - scale[..., None, None] * source_mean
  return scale, shift[..., 0, :]
