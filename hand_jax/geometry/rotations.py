"""Rotations as axis-angle vectors, matrices and six numbers, with finite gradients.

Matrices act on column vectors: `rotated = matrix @ point`. All functions take any leading axes.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.types import ArrayLike

# Below this squared angle (square radians) the Taylor series is exact to float32.
_SMALL_SQUARED_ANGLE = 1e-6
# The reflection x -> -x turns axis-angle (x, y, z) into (x, -y, -z).
_MIRROR_SIGNS = (1.0, -1.0, -1.0)


def axis_angle_to_matrix(axis_angle: Float[ArrayLike, '*batch 3']) -> Float[Array, '*batch 3 3']:
  """Converts axis-angle vectors (radians) to rotation matrices by Rodrigues' formula.

  The formula is R = I + a K + b K², where K is the cross-product matrix of the vector and t its
  length. a = sin(t)/t and b = (1 - cos(t))/t² come from their series near zero, so that value and
  gradient are exact there.
  """
  x, y, z = axis_angle[..., 0], axis_angle[..., 1], axis_angle[..., 2]
  squared = x * x + y * y + z * z
  small = squared < _SMALL_SQUARED_ANGLE
  # `where` guards the input too, because the branch not taken must not produce a NaN gradient.
  safe = jnp.where(small, 1.0, squared)
  angle = jnp.sqrt(safe)
  a = jnp.where(small, 1.0 - squared / 6.0, jnp.sin(angle) / angle)
  # 1 - cos(t) = 2 sin²(t/2) keeps its digits at small angles.
  half_sine = jnp.sin(0.5 * angle)
  b = jnp.where(small, 0.5 - squared / 24.0, 2.0 * half_sine * half_sine / safe)
  ax, ay, az = a * x, a * y, a * z
  bxy, bxz, byz = b * x * y, b * x * z, b * y * z
  bxx, byy, bzz = b * x * x, b * y * y, b * z * z
  rows = [
    [1.0 - byy - bzz, bxy - az, bxz + ay],
    [bxy + az, 1.0 - bxx - bzz, byz - ax],
    [bxz - ay, byz + ax, 1.0 - bxx - byy],
  ]
  return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _matrix_to_quaternion(matrix: Float[Array, '*batch 3 3']) -> Float[Array, '*batch 4']:
  """Computes the unit quaternion (w, x, y, z) with w >= 0.

  There are four equivalent forms, and each rotation uses the best conditioned one.
  """
  m00, m01, m02 = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2]
  m10, m11, m12 = matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2]
  m20, m21, m22 = matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2]
  # Row i is 4 q_i times the quaternion. The row of the largest q_i loses no digits.
  candidates = jnp.stack(
    [
      jnp.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], -1),
      jnp.stack([m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20], -1),
      jnp.stack([m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m21 + m12], -1),
      jnp.stack([m10 - m01, m02 + m20, m21 + m12, 1 - m00 - m11 + m22], -1),
    ],
    -2,
  )
  diagonal = jnp.stack([candidates[..., i, i] for i in range(4)], -1)
  best = jnp.argmax(diagonal, -1)[..., None, None]
  chosen = jnp.take_along_axis(candidates, best, axis=-2)[..., 0, :]
  quaternion = chosen / jnp.linalg.norm(chosen, axis=-1, keepdims=True)
  return jnp.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def matrix_to_axis_angle(matrix: Float[Array, '*batch 3 3']) -> Float[Array, '*batch 3']:
  """Converts rotation matrices to axis-angle vectors whose angles are in [0, pi] radians.

  At exactly pi the sign of the axis is arbitrary. Gradients are finite at the identity and at pi.
  """
  quaternion = _matrix_to_quaternion(matrix)
  w, xyz = quaternion[..., :1], quaternion[..., 1:]
  squared = jnp.sum(xyz * xyz, axis=-1, keepdims=True)
  small = squared < _SMALL_SQUARED_ANGLE
  sine = jnp.sqrt(jnp.where(small, 1.0, squared))
  # The factor is angle / sine with angle = 2 atan2(sine, w). Near zero its series is
  # 2/w (1 - s²/(3 w²)).
  safe_w = jnp.where(small, w, 1.0)
  factor = jnp.where(
    small,
    2.0 / safe_w * (1.0 - squared / (3.0 * safe_w * safe_w)),
    2.0 * jnp.arctan2(sine, jnp.where(small, 1.0, w)) / sine,
  )
  return factor * xyz


def matrix_to_rotation_6d(matrix: Float[Array, '*batch 3 3']) -> Float[Array, '*batch 6']:
  """Takes the first two columns of rotation matrices, one after the other.

  Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019.
  """
  return jnp.concatenate([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)


def rotation_6d_to_matrix(rotation_6d: Float[ArrayLike, '*batch 6']) -> Float[Array, '*batch 3 3']:
  """Builds rotation matrices from two stored columns by Gram-Schmidt.

  The third column is the cross product of the other two. Columns that are too short or too
  parallel (squared length below 1e-12) give a finite matrix that may not be a rotation. Its
  gradients are finite too.
  """
  columns = jnp.asarray(rotation_6d)
  first = _normalize(columns[..., :3])
  second = columns[..., 3:]
  second = _normalize(second - jnp.sum(first * second, axis=-1, keepdims=True) * first)
  return jnp.stack([first, second, jnp.cross(first, second)], axis=-1)


def _normalize(vector: Float[Array, '*batch 3']) -> Float[Array, '*batch 3']:
  squared = jnp.sum(vector * vector, axis=-1, keepdims=True)
  return vector / jnp.sqrt(jnp.maximum(squared, 1e-12))


def mirror_axis_angle(axis_angle: Float[ArrayLike, '*batch 3']) -> Float[Array, '*batch 3']:
  """Mirrors rotation vectors by x -> -x: (x, y, z) becomes (x, -y, -z)."""
  vector = jnp.asarray(axis_angle)
  signs = np.asarray(_MIRROR_SIGNS, vector.dtype)
  return vector * signs.reshape((1,) * (vector.ndim - 1) + (3,))
