"""Weak-perspective and perspective cameras, their labels, and the geometry of a crop.

Functions whose arrays are annotated `ArrayLike` compute in NumPy when every argument is a NumPy
array (the data pipeline, on the host) and in JAX otherwise.
"""

from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.geometry.precision import full_precision
from hand_jax.geometry.rotations import rotation_6d_to_matrix
from hand_jax.types import ArrayLike, HandCamera, PerspectiveCamera

CAMERA_SIZE = 10
# `HandCamera.scale` counts crop units per decimetre, so that every stored number is of order one.
SCALE_UNIT_M = 0.1
# Depths below this (metres) are projected as if at it: finite, though no longer a projection.
NEAR_M = 1e-3


def _namespace(*arrays) -> ModuleType:
  return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


# The paper's C = (R, T, s).


def camera_from_vector(vector: Float[ArrayLike, '*batch 10']) -> HandCamera:
  """The ten stored numbers as a named camera: 6 for R, 3 for T, 1 for s."""
  return HandCamera(vector[..., :6], vector[..., 6:9], vector[..., 9:])


def camera_to_vector(camera: HandCamera) -> Float[ArrayLike, '*batch 10']:
  """The inverse of `camera_from_vector`, in the stored scaling."""
  return _namespace(*camera).concatenate(tuple(camera), axis=-1)


def rotation_to_stored(rotation: Float[ArrayLike, '*batch 3 3']) -> Float[ArrayLike, '*batch 6']:
  """The stored six numbers of R: its first two columns (all the projection uses), one by one."""
  columns = _namespace(rotation).swapaxes(rotation[..., :2], -1, -2)
  return columns.reshape(*columns.shape[:-2], 6)


def camera_rotation(camera: HandCamera) -> Float[Array, '*batch 3 3']:
  """R in `joints_root = joints_hand @ R`: the transpose of the global orientation's matrix."""
  return rotation_6d_to_matrix(camera.rotation_6d)


def scale_per_metre(camera: HandCamera) -> Float[ArrayLike, '*batch 1']:
  """The s of the paper for points in metres: normalised crop units per metre."""
  return camera.scale / SCALE_UNIT_M


def hand_to_root(
  camera: HandCamera, points_hand: Float[Array, '*batch points 3']
) -> Float[Array, '*batch points 3']:
  """Turns points of the hand frame into camera axes; metres, the wrist stays at the origin."""
  return jnp.matmul(points_hand, camera_rotation(camera), precision='highest')


def project_points(
  camera: HandCamera, points_hand: Float[Array, '*batch points 3']
) -> Float[Array, '*batch points 2']:
  """S(x), weak perspective: the first two coordinates of s x R + T (paper, below eq. 17).

  Points in metres in the hand frame; the result in normalised crop coordinates. T_z takes no part.
  """
  scale = jnp.expand_dims(scale_per_metre(camera), -2)
  translation = jnp.expand_dims(camera.translation[..., :2], -2)
  return scale * hand_to_root(camera, points_hand)[..., :2] + translation


def vertices_in_crop(
  camera: HandCamera, vertices_hand: Float[Array, '*batch vertices 3'], side: int
) -> Float[Array, '*batch vertices 3']:
  """What the rasterizer takes: pixels of a square crop, and the depth from the wrist in pixels too.

  Weak perspective has one scale along all axes, so normals computed from the result are right.
  """
  scale = jnp.expand_dims(scale_per_metre(camera), -2) * side / 2
  pixels = denormalize_points(project_points(camera, vertices_hand), side)
  depth = scale * hand_to_root(camera, vertices_hand)[..., 2:]
  return jnp.concatenate([pixels, depth], axis=-1)


def project_points_affine(
  camera: HandCamera, points_hand: Float[Array, '*batch points 3']
) -> Float[Array, '*batch points 2']:
  """`project_points` with the six stored numbers as they stand, without Gram-Schmidt.

  Equal to it where they are two orthonormal columns; linear in them everywhere.
  """
  scale = jnp.expand_dims(scale_per_metre(camera), -2)
  translation = jnp.expand_dims(camera.translation[..., :2], -2)
  turned = jnp.matmul(points_hand, _stored_columns(camera), precision='highest')
  return scale * turned + translation


def orthonormality_penalty(camera: HandCamera) -> Float[Array, '*batch']:
  """The sum of squares of M^T M - 1, M the two stored columns: zero where they are orthonormal."""
  columns = _stored_columns(camera)
  gram = jnp.matmul(jnp.swapaxes(columns, -1, -2), columns, precision='highest')
  return jnp.sum((gram - jnp.eye(2).reshape((1,) * (gram.ndim - 2) + (2, 2))) ** 2, axis=(-1, -2))


def _stored_columns(camera: HandCamera) -> Float[Array, '*batch 3 2']:
  stored = camera.rotation_6d
  return jnp.swapaxes(stored.reshape(stored.shape[:-1] + (2, 3)), -1, -2)


class WeakPerspectiveFit(NamedTuple):
  """Scale (stored: crop units per decimetre), T_x T_y, and the weighted rms distance they leave."""

  scale: Float[ArrayLike, '*batch 1']
  translation: Float[ArrayLike, '*batch 2']
  residual: Float[ArrayLike, '*batch']


def fit_weak_perspective(
  points_root: Float[ArrayLike, '*batch points 3'],
  points_normalized: Float[ArrayLike, '*batch points 2'],
  weights: Float[ArrayLike, '*batch points'],
) -> WeakPerspectiveFit:
  """The s and T that minimise sum of w |s p + T - q|^2 over 3D points p and crop points q.

  `points_root` in metres, camera axes. Points of weight zero may hold anything, NaN included.
  Where fewer than two distinct points have weight the scale is zero: mask such labels.
  """
  xp = _namespace(points_root, points_normalized, weights)
  known = (weights > 0)[..., None]
  weight = xp.where(known, weights[..., None], 0.0)
  points = xp.where(known, points_root[..., :2], 0.0)
  targets = xp.where(known, points_normalized, 0.0)
  weight_sum = weight.sum(axis=-2)
  safe_sum = xp.where(weight_sum > 0, weight_sum, 1.0)
  point_mean = (weight * points).sum(axis=-2) / safe_sum
  target_mean = (weight * targets).sum(axis=-2) / safe_sum
  centred_points = points - point_mean[..., None, :]
  centred_targets = targets - target_mean[..., None, :]
  spread = (weight * centred_points**2).sum(axis=(-2, -1))
  covariance = (weight * centred_points * centred_targets).sum(axis=(-2, -1))
  # Below a thousandth of a millimetre the points are one point.
  distinct = spread > 1e-12 * safe_sum[..., 0]
  scale = xp.where(distinct, covariance / xp.where(distinct, spread, 1.0), 0.0)
  errors = weight * (scale[..., None, None] * centred_points - centred_targets) ** 2
  return WeakPerspectiveFit(
    scale=scale[..., None] * SCALE_UNIT_M,
    translation=target_mean - scale[..., None] * point_mean,
    residual=xp.sqrt(errors.sum(axis=(-2, -1)) / safe_sum[..., 0]),
  )


def absolute_depth(
  camera: HandCamera, focal_length: Float[ArrayLike, '*batch'] | float, crop_side: float | int
) -> Float[ArrayLike, '*batch']:
  """The depth in metres at which s holds, z = 2 f / (s W), f and the crop's side W in pixels.

  To first order the root's; more exactly that of the middle of the points that s was fitted to.
  """
  xp = _namespace(camera.scale, focal_length)
  return xp.asarray(2 * focal_length / (scale_per_metre(camera)[..., 0] * crop_side))


# The pinhole.


def perspective_from_intrinsics(intrinsics: Float[ArrayLike, '*batch 3 3']) -> PerspectiveCamera:
  """Reads a 3 x 3 matrix without skew: pixels, applied to column vectors."""
  focal_length = _namespace(intrinsics).stack(
    (intrinsics[..., 0, 0], intrinsics[..., 1, 1]), axis=-1
  )
  return PerspectiveCamera(focal_length, intrinsics[..., :2, 2])


def perspective_to_intrinsics(camera: PerspectiveCamera) -> Float[ArrayLike, '*batch 3 3']:
  """The 3 x 3 matrix of a pinhole, for column vectors."""
  xp = _namespace(*camera)
  (fx, fy), (cx, cy) = (xp.moveaxis(values, -1, 0) for values in camera)
  zero, one = xp.zeros_like(fx), xp.ones_like(fx)
  entries = xp.stack((fx, zero, cx, zero, fy, cy, zero, zero, one), axis=-1)
  return entries.reshape(*entries.shape[:-1], 3, 3)


def project_perspective(
  camera: PerspectiveCamera, points_camera: Float[ArrayLike, '*batch points 3']
) -> Float[ArrayLike, '*batch points 2']:
  """Pixels of points in camera space (metres; x right, y down, z forward).

  Depths below `NEAR_M` count as `NEAR_M`, which keeps values and gradients finite.
  """
  xp = _namespace(points_camera, *camera)
  depth = xp.maximum(points_camera[..., 2:], NEAR_M)
  return (
    camera.focal_length[..., None, :] * points_camera[..., :2] / depth
    + camera.principal_point[..., None, :]
  )


# Pixels, crops and mirrors. An affine is a 3 x 3 matrix for column vectors (x, y, 1).


def normalize_points(
  points_image: Float[ArrayLike, '*batch points 2'], side: float | int
) -> Float[ArrayLike, '*batch points 2']:
  """Pixels of a square crop to [-1, 1] across it: 2 u / side - 1."""
  return 2 * points_image / side - 1


def denormalize_points(
  points_normalized: Float[ArrayLike, '*batch points 2'], side: float | int
) -> Float[ArrayLike, '*batch points 2']:
  """The inverse of `normalize_points`."""
  return (points_normalized + 1) * side / 2


def crop_affine(
  box_xywh: Float[np.ndarray, '4'],
  crop_side: int,
  factor: float = 2.0,
  rotation: float = 0.0,
  shift: tuple[float, float] = (0.0, 0.0),
) -> Float[np.ndarray, '3 3']:
  """Image pixels to crop pixels: a square round the box, turned and shifted.

  The square's side is `factor` times the box's larger side; `shift` moves its centre by fractions
  of that side; `rotation` (radians, from x towards y) turns the picture inside the crop. Raises
  ValueError for a box without area.
  """
  x, y, width, height = (float(value) for value in box_xywh)
  side = max(width, height) * factor
  if not (min(width, height) > 0 and np.isfinite([x, y, side]).all() and side > 0):
    raise ValueError(
      f'Box x, y, width, height = {x:g}, {y:g}, {width:g}, {height:g}: expected finite numbers '
      'with width and height above zero.'
    )
  centre = np.array([x + width / 2 + shift[0] * side, y + height / 2 + shift[1] * side])
  affine = np.eye(3)
  affine[:2, :2] = crop_side / side * rotation_in_plane(rotation)[:2, :2]
  affine[:2, 2] = crop_side / 2 - affine[:2, :2] @ centre
  return affine


def mirror_affine(width: float | int) -> Float[np.ndarray, '3 3']:
  """Left to right over an image of this width: u -> width - u."""
  return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


@full_precision
def transform_points(
  affine: Float[ArrayLike, '*batch 3 3'], points_image: Float[ArrayLike, '*batch points 2']
) -> Float[ArrayLike, '*batch points 2']:
  """Moves pixel positions by an affine."""
  xp = _namespace(affine, points_image)
  turned = points_image @ xp.swapaxes(affine[..., :2, :2], -1, -2)
  return turned + affine[..., None, :2, 2]


def rotation_in_plane(angle: float) -> Float[np.ndarray, '3 3']:
  """The matrix, for column vectors, of a turn about the viewing axis: from x (right) to y (down).

  A picture turned by `rotation` in `crop_affine` shows camera-space points turned by this one:
  row vectors become `points @ rotation_in_plane(angle).T`, and a camera's R becomes
  `R @ rotation_in_plane(angle).T`.
  """
  cosine, sine = np.cos(angle), np.sin(angle)
  return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def affine_rotation(affine: Float[np.ndarray, '3 3']) -> float:
  """The angle of an affine without mirroring, in radians: what `crop_affine` was given."""
  return float(np.arctan2(affine[1, 0], affine[0, 0]))


def crop_intrinsics(
  affine: Float[np.ndarray, '3 3'], intrinsics: Float[np.ndarray, '3 3']
) -> Float[np.ndarray, '3 3']:
  """The crop's intrinsics, for camera-space points turned by `rotation_in_plane(angle)`.

  Exact for any intrinsics; free of skew when the two focal lengths are equal or the angle is zero.
  """
  return affine @ intrinsics @ rotation_in_plane(-affine_rotation(affine))


def mirror_intrinsics(
  intrinsics: Float[np.ndarray, '3 3'], width: float | int
) -> Float[np.ndarray, '3 3']:
  """The intrinsics of a mirrored image, for camera-space points with x -> -x."""
  return mirror_affine(width) @ intrinsics @ np.diag([-1.0, 1.0, 1.0])
