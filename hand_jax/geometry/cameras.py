"""Weak-perspective and perspective cameras, their labels, and the geometry of a crop.

Functions whose arrays are annotated `ArrayLike` compute in NumPy when every argument is a NumPy
array (the data pipeline, on the host) and in JAX otherwise.
"""

from types import ModuleType
from typing import NamedTuple, TypeVar

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
# Depths below this (metres) are replaced by it before a projection. Results stay finite there, but
# no longer are a true projection.
NEAR_M = 1e-3


# Functions that keep the kind of array that they are given.
AnyArray = TypeVar('AnyArray', jax.Array, np.ndarray)


def _namespace(*arrays) -> ModuleType:
  return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


# Functions of the paper's weak-perspective camera C = (R, T, s).


def camera_from_vector(vector: Float[ArrayLike, '*batch 10']) -> HandCamera:
  """Names the ten stored numbers of a camera: 6 for R, 3 for T and 1 for s."""
  return HandCamera(vector[..., :6], vector[..., 6:9], vector[..., 9:])


def camera_to_vector(camera: HandCamera) -> Float[ArrayLike, '*batch 10']:
  """Joins a camera into its ten stored numbers. This inverts `camera_from_vector`."""
  return _namespace(*camera).concatenate(tuple(camera), axis=-1)


def rotation_to_stored(rotation: Float[ArrayLike, '*batch 3 3']) -> Float[ArrayLike, '*batch 6']:
  """Returns the six numbers that store R: its first column, then its second.

  The projection uses these two columns only.
  """
  columns = _namespace(rotation).swapaxes(rotation[..., :2], -1, -2)
  return columns.reshape(*columns.shape[:-2], 6)


def camera_rotation(camera: HandCamera) -> Float[Array, '*batch 3 3']:
  """Builds the R of `joints_root = joints_hand @ R` from the six stored numbers.

  This R is the transpose of the global orientation's matrix.
  """
  return rotation_6d_to_matrix(camera.rotation_6d)


def scale_per_metre(camera: HandCamera) -> Float[ArrayLike, '*batch 1']:
  """Converts the stored scale to the paper's s, in normalised crop units per metre."""
  return camera.scale / SCALE_UNIT_M


def hand_to_root(
  camera: HandCamera, points_hand: Float[Array, '*batch points 3']
) -> Float[Array, '*batch points 3']:
  """Rotates points of the hand frame into camera axes.

  Points are in metres before and after, and the wrist stays at the origin.
  """
  return jnp.matmul(points_hand, camera_rotation(camera), precision='highest')


def project_points(
  camera: HandCamera, points_hand: Float[Array, '*batch points 3']
) -> Float[Array, '*batch points 2']:
  """Projects points by weak perspective: the first two coordinates of s x R + T.

  This is S(x) in the paper, below Eq. 17. The points are in metres in the hand frame, and the
  result is in normalised crop coordinates. T_z is not used.
  """
  scale = jnp.expand_dims(scale_per_metre(camera), -2)
  translation = jnp.expand_dims(camera.translation[..., :2], -2)
  return scale * hand_to_root(camera, points_hand)[..., :2] + translation


def vertices_in_crop(
  camera: HandCamera, vertices_hand: Float[Array, '*batch vertices 3'], side: int
) -> Float[Array, '*batch vertices 3']:
  """Converts vertices to the pixels and depths of a square crop, as the rasterizer takes them.

  Depth is relative to the wrist and in pixels too. Weak perspective has one scale along all axes,
  so normals computed from the result are right.

  Args:
    camera: weak-perspective camera of the crop.
    vertices_hand: vertices in the hand frame, metres.
    side: side of the crop, pixels.

  Returns:
    Pixel x, pixel y and depth in pixels, which grows away from the camera.
  """
  scale = jnp.expand_dims(scale_per_metre(camera), -2) * side / 2
  pixels = denormalize_points(project_points(camera, vertices_hand), side)
  depth = scale * hand_to_root(camera, vertices_hand)[..., 2:]
  return jnp.concatenate([pixels, depth], axis=-1)


def project_points_affine(
  camera: HandCamera, points_hand: Float[Array, '*batch points 3']
) -> Float[Array, '*batch points 2']:
  """Projects points like `project_points`, but uses the six stored numbers without Gram-Schmidt.

  Both functions agree where the stored numbers are two orthonormal columns. This one is linear in
  the stored numbers everywhere.
  """
  scale = jnp.expand_dims(scale_per_metre(camera), -2)
  translation = jnp.expand_dims(camera.translation[..., :2], -2)
  turned = jnp.matmul(points_hand, _stored_columns(camera), precision='highest')
  return scale * turned + translation


def orthonormality_penalty(camera: HandCamera) -> Float[Array, '*batch']:
  """Sums the squares of M^T M - 1, where M holds the two stored columns of R.

  The penalty is zero exactly where the columns are orthonormal.
  """
  columns = _stored_columns(camera)
  gram = jnp.matmul(jnp.swapaxes(columns, -1, -2), columns, precision='highest')
  return jnp.sum((gram - jnp.eye(2).reshape((1,) * (gram.ndim - 2) + (2, 2))) ** 2, axis=(-1, -2))


def _stored_columns(camera: HandCamera) -> Float[Array, '*batch 3 2']:
  stored = camera.rotation_6d
  return jnp.swapaxes(stored.reshape(stored.shape[:-1] + (2, 3)), -1, -2)


class WeakPerspectiveFit(NamedTuple):
  """A weak-perspective camera fitted to points, and the error that remains."""

  scale: Float[ArrayLike, '*batch 1']
  """The scale as `HandCamera` stores it, in crop units per decimetre."""
  translation: Float[ArrayLike, '*batch 2']
  """T_x and T_y, in normalised crop units."""
  residual: Float[ArrayLike, '*batch']
  """The weighted root mean square distance that remains, in normalised crop units."""


def fit_weak_perspective(
  points_root: Float[ArrayLike, '*batch points 3'],
  points_normalized: Float[ArrayLike, '*batch points 2'],
  weights: Float[ArrayLike, '*batch points'],
) -> WeakPerspectiveFit:
  """Fits the s and T that minimise the sum of w |s p + T - q|^2 over the points.

  Where fewer than two distinct points have weight, the scale is zero. Callers must mask such
  labels.

  Args:
    points_root: the 3D points p, metres, camera axes.
    points_normalized: the 2D points q, normalised crop coordinates.
    weights: the weights w. Points of weight zero may hold anything, NaN included.

  Returns:
    The fitted scale and translation, and the error that remains.
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
  # Points whose spread is below a thousandth of a millimetre count as one point.
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
  """Computes the depth at which s holds: z = 2 f / (s W).

  To first order this is the depth of the root. More exactly, it is the depth of the middle of the
  points that s was fitted to.

  Args:
    camera: weak-perspective camera of the crop.
    focal_length: the focal length f, pixels.
    crop_side: the side W of the crop, in the same pixels as f.

  Returns:
    The depth in metres.
  """
  xp = _namespace(camera.scale, focal_length)
  return xp.asarray(2 * focal_length / (scale_per_metre(camera)[..., 0] * crop_side))


# Functions of the pinhole camera.


def perspective_from_intrinsics(intrinsics: Float[ArrayLike, '*batch 3 3']) -> PerspectiveCamera:
  """Reads a camera from a 3 x 3 matrix without skew.

  The matrix is in pixels and is applied to column vectors.
  """
  focal_length = _namespace(intrinsics).stack(
    (intrinsics[..., 0, 0], intrinsics[..., 1, 1]), axis=-1
  )
  return PerspectiveCamera(focal_length, intrinsics[..., :2, 2])


def perspective_to_intrinsics(camera: PerspectiveCamera) -> Float[ArrayLike, '*batch 3 3']:
  """Builds the 3 x 3 matrix of a pinhole camera, for column vectors."""
  xp = _namespace(*camera)
  (fx, fy), (cx, cy) = (xp.moveaxis(values, -1, 0) for values in camera)
  zero, one = xp.zeros_like(fx), xp.ones_like(fx)
  entries = xp.stack((fx, zero, cx, zero, fy, cy, zero, zero, one), axis=-1)
  return entries.reshape(*entries.shape[:-1], 3, 3)


def project_perspective(
  camera: PerspectiveCamera, points_camera: Float[ArrayLike, '*batch points 3']
) -> Float[ArrayLike, '*batch points 2']:
  """Projects points in camera space to pixels.

  Points are in metres, with x right, y down and z forward. Depths below `NEAR_M` count as `NEAR_M`,
  which keeps values and gradients finite.
  """
  xp = _namespace(points_camera, *camera)
  depth = xp.maximum(points_camera[..., 2:], NEAR_M)
  return (
    camera.focal_length[..., None, :] * points_camera[..., :2] / depth
    + camera.principal_point[..., None, :]
  )


# Functions of pixels, crops and mirrors. An affine is a 3 x 3 matrix for column vectors (x, y, 1).


def normalize_points(
  points_image: Float[AnyArray, '*batch points 2'], side: float | int
) -> Float[AnyArray, '*batch points 2']:
  """Maps pixels of a square crop to [-1, 1] across the crop: 2 u / side - 1."""
  return 2 * points_image / side - 1


def denormalize_points(
  points_normalized: Float[AnyArray, '*batch points 2'], side: float | int
) -> Float[AnyArray, '*batch points 2']:
  """Maps [-1, 1] across a square crop to pixels. This inverts `normalize_points`."""
  return (points_normalized + 1) * side / 2


def crop_affine(
  box_xywh: Float[np.ndarray, '4'],
  crop_side: int,
  factor: float = 2.0,
  rotation: float = 0.0,
  shift: tuple[float, float] = (0.0, 0.0),
) -> Float[np.ndarray, '3 3']:
  """Builds the affine from image pixels to crop pixels, for a square round a box.

  Args:
    box_xywh: left, top, width and height of the box, image pixels.
    crop_side: side of the crop, pixels.
    factor: side of the square, as a multiple of the box's larger side.
    rotation: turns the picture inside the crop, radians, from x towards y.
    shift: moves the centre of the square along x and y, as fractions of the square's side.

  Returns:
    The affine, a 3 x 3 matrix for column vectors (x, y, 1).

  Raises:
    ValueError: the box has no area, or a number is not finite.
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
  """Builds the affine that mirrors an image of this width left to right: u -> width - u."""
  return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


@full_precision
def transform_points(
  affine: Float[AnyArray, '*batch 3 3'], points_image: Float[AnyArray, '*batch points 2']
) -> Float[AnyArray, '*batch points 2']:
  """Moves pixel positions by an affine."""
  xp = _namespace(affine, points_image)
  turned = points_image @ xp.swapaxes(affine[..., :2, :2], -1, -2)
  return turned + affine[..., None, :2, 2]


def rotation_in_plane(angle: float) -> Float[np.ndarray, '3 3']:
  """Builds the matrix of a turn about the viewing axis, from x (right) towards y (down).

  The angle is in radians and the matrix acts on column vectors. A picture turned by `rotation` in
  `crop_affine` shows camera-space points turned by this matrix. Row vectors become
  `points @ rotation_in_plane(angle).T`, and a camera's R becomes `R @ rotation_in_plane(angle).T`.
  """
  cosine, sine = np.cos(angle), np.sin(angle)
  return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def angle_from_upright(direction: Float[np.ndarray, '2']) -> float:
  """Computes the angle of a direction in a picture from straight up, in radians.

  It grows clockwise as seen, that is from x (right) towards y (down). A direction of no length has
  the angle 0.
  """
  x, y = np.asarray(direction, np.float64)
  return float(np.arctan2(x, -y)) if x or y else 0.0


def affine_rotation(affine: Float[np.ndarray, '3 3']) -> float:
  """Recovers the angle that `crop_affine` was given, in radians.

  The affine must not mirror.
  """
  return float(np.arctan2(affine[1, 0], affine[0, 0]))


def crop_intrinsics(
  affine: Float[np.ndarray, '3 3'], intrinsics: Float[np.ndarray, '3 3']
) -> Float[np.ndarray, '3 3']:
  """Computes a crop's intrinsics, for camera-space points turned as the crop is.

  The points are turned by `rotation_in_plane(affine_rotation(affine))`. The result is exact for any
  intrinsics. It has no skew when the two focal lengths are equal or the angle is zero.
  """
  return affine @ intrinsics @ rotation_in_plane(-affine_rotation(affine))


def mirror_intrinsics(
  intrinsics: Float[np.ndarray, '3 3'], width: float | int
) -> Float[np.ndarray, '3 3']:
  """Computes the intrinsics of a mirrored image, for camera-space points with x -> -x."""
  return mirror_affine(width) @ intrinsics @ np.diag([-1.0, 1.0, 1.0])
