"""The evidence of a photo about a hand: points with standard deviations, and their residuals.

Each kind of evidence compares the 21 joints B V of a hand in camera axes (metres) with observed
points. The fit also estimates the place of the camera, and how each set of 3D points is turned,
shifted and scaled.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.geometry.rotations import axis_angle_to_matrix
from hand_jax.types import ArrayLike

_MM_PER_M = 1000.0
# Points closer together than this, in pixels or metres, count as this far apart.
_SMALLEST_EXTENT = 1e-4
# Without intrinsics the focal length is estimated from the photo's larger side. Phones, webcams and
# crops of their photos have 0.7 to 2 times that side.
_FOCAL_PER_SIDE, _LOG_FOCAL_SIGMA = 1.2, 0.5
_KNOWN_LOG_FOCAL_SIGMA = 0.01
# Points nearer to the camera than this share of the hand's distance are projected as if they were
# at that distance, so that projections are always finite.
_NEAREST_SHARE = 0.1


class HandEvidence(NamedTuple):
  """Observations of one right hand with their standard deviations.

  A point whose sigma is infinite is unknown, and may hold anything, NaN included. Pixels are those
  of the upright photo in which the hand is a right hand.
  """

  points_image: Float[ArrayLike, '*batch 21 2']
  """Pixels of the joints."""
  image_sigma: Float[ArrayLike, '*batch 21']
  """Pixels, per axis."""
  points_world: Float[ArrayLike, '*batch 21 3']
  """The landmark network's points in metres, in the axes of the photo's camera. They are known up
  to a shift, a scale and a rotation."""
  world_sigma: Float[ArrayLike, '*batch 21']
  """Metres, per axis."""
  points_heads: Float[ArrayLike, '*batch 21 3']
  """The heads' joints in metres, in the same axes. They are known up to a shift, a scale and a
  small rotation."""
  heads_sigma: Float[ArrayLike, '*batch 21']
  """Metres, per axis."""
  principal_point: Float[ArrayLike, '*batch 2']
  """Pixels. It is the photo's centre where it is unknown."""
  log_focal_length: Float[ArrayLike, '*batch']
  """Natural logarithm of the focal length in pixels."""
  log_focal_sigma: Float[ArrayLike, '*batch']
  """Standard deviation of that logarithm."""


class PointErrors(NamedTuple):
  """Standard deviations of points per axis in mm, as one number or one for each joint.

  An infinite one makes its points unknown.
  """

  image: Float[ArrayLike, '*points']
  """Errors of the image points, measured at the hand's distance."""
  world: Float[ArrayLike, '*points']
  """Errors of the landmark network's world points."""
  heads: Float[ArrayLike, '*points']
  """Errors of the heads' joints."""


def hand_evidence(
  points_image: Float[ArrayLike, '*batch 21 2'],
  points_world: Float[ArrayLike, '*batch 21 3'],
  photo_size: tuple[int, int],
  errors: PointErrors,
  intrinsics: Float[ArrayLike, '3 3'] | None = None,
  points_heads: Float[ArrayLike, '*batch 21 3'] | None = None,
) -> HandEvidence:
  """Collects the evidence of points in one photo, for each hand of a batch.

  A point with a coordinate that is not finite is unknown.

  Args:
    points_image: pixels of the upright photo in which the hand is a right hand.
    points_world: the landmark network's points in metres, in that photo's axes. Their size converts
      errors of the image points from mm to pixels.
    photo_size: the photo's width and height in pixels.
    errors: the standard deviations of the points.
    intrinsics: those of that photo in pixels, or None where they are unknown.
    points_heads: the heads' joints in metres, in the photo's axes, or None where there are none.
  """
  points_image, points_world = np.asarray(points_image), np.asarray(points_world)
  batch = points_image.shape[:-2]
  if points_heads is None:
    points_heads, errors = np.zeros_like(points_world), errors._replace(heads=np.inf)
  if intrinsics is None:
    principal_point = np.asarray(photo_size) / 2
    focal_length, log_focal_sigma = _FOCAL_PER_SIDE * max(photo_size), _LOG_FOCAL_SIGMA
  else:
    intrinsics = np.asarray(intrinsics)
    principal_point = intrinsics[:2, 2]
    focal_length = np.sqrt(intrinsics[0, 0] * intrinsics[1, 1])
    log_focal_sigma = _KNOWN_LOG_FOCAL_SIGMA
  known = _is_known(points_image) & _is_known(points_world)
  pixels_per_metre = _extent(points_image, known) / _extent(points_world[..., :2], known)
  image, world, heads = (np.asarray(error) / _MM_PER_M for error in errors)

  def filled(value, *shape: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, np.float32), (*batch, *shape))

  def sigma_of(points, sigma) -> np.ndarray:
    return filled(np.where(_is_known(points), sigma, np.inf), 21)

  return HandEvidence(
    points_image=points_image.astype(np.float32),
    image_sigma=sigma_of(points_image, image * pixels_per_metre[..., None]),
    points_world=points_world.astype(np.float32),
    world_sigma=sigma_of(points_world, world),
    points_heads=np.asarray(points_heads, np.float32),
    heads_sigma=sigma_of(points_heads, heads),
    principal_point=filled(principal_point, 2),
    log_focal_length=filled(np.log(focal_length)),
    log_focal_sigma=filled(log_focal_sigma),
  )


def _is_known(points: ArrayLike) -> np.ndarray:
  return np.all(np.isfinite(np.asarray(points)), axis=-1)


def _extent(points: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Gives the known points' root mean square distance from their mean, at least the smallest."""
  known = known[..., None]
  count = np.maximum(known.sum(axis=-2, keepdims=True), 1)
  points = np.where(known, points, 0.0)
  centred = np.where(known, points - points.sum(axis=-2, keepdims=True) / count, 0.0)
  extent = np.sqrt(np.sum(centred**2, axis=(-2, -1)) / count[..., 0, 0])
  return np.asarray(np.maximum(extent, _SMALLEST_EXTENT))


class PinholeView(NamedTuple):
  """The place of a hand in a pinhole camera.

  The focal length in pixels is the product of pixels per metre and distance.
  """

  centre: Float[Array, '2']
  """The pixel of the hand's centre."""
  log_pixels_per_metre: Float[Array, '']
  """Logarithm of the pixels that a metre covers at the hand's centre."""
  log_distance: Float[Array, '']
  """Logarithm of the distance of the hand's centre in metres, along the viewing axis."""


class Alignment(NamedTuple):
  """The rotation, shift and scale that take the hand's joints to a set of 3D points."""

  turn: Float[Array, '3']
  """Axis-angle rotation."""
  shift: Float[Array, '3']
  """Metres."""
  log_scale: Float[Array, '']
  """Logarithm of a factor."""


def project_view(
  view: PinholeView, points: Float[Array, 'points 3'], principal_point: Float[ArrayLike, '2']
) -> Float[Array, 'points 2']:
  """Projects points by a pinhole camera to pixels of the photo.

  The focal length is f = pixels_per_metre * distance. For a large distance this form stays accurate
  and tends to weak perspective.

  Args:
    view: the place of the hand's centre.
    points: metres, camera axes, relative to the hand's centre.
    principal_point: pixels.
  """
  pixels_per_metre, distance = jnp.exp(view.log_pixels_per_metre), jnp.exp(view.log_distance)
  # This is the slope of the ray through the hand's centre.
  slope = (view.centre - principal_point) / (pixels_per_metre * distance)
  depth = jnp.maximum(1 + points[:, 2:] / distance, _NEAREST_SHARE)
  sideways = points[:, :2] - slope[None] * points[:, 2:]
  return view.centre[None] + pixels_per_metre * sideways / depth


def view_position(view: PinholeView, principal_point: Float[ArrayLike, '2']) -> Float[Array, '3']:
  """Computes the position of the hand's centre in camera space, in metres."""
  offset = (view.centre - principal_point) / jnp.exp(view.log_pixels_per_metre)
  return jnp.concatenate([offset, jnp.exp(view.log_distance)[None]])


def image_residuals(
  evidence: HandEvidence, view: PinholeView, joints: Float[Array, '21 3']
) -> Float[Array, '21 2']:
  """Compares the projected joints with the image points.

  Args:
    evidence: the observed points.
    view: the place of the hand's centre.
    joints: metres, camera axes, relative to the hand's centre.

  Returns:
    Projected minus observed pixels in standard deviations, and zero for unknown points.
  """
  projected = project_view(view, joints, jnp.asarray(evidence.principal_point))
  return _whitened(projected, evidence.points_image, evidence.image_sigma)


def world_residuals(
  evidence: HandEvidence, alignment: Alignment, joints: Float[Array, '21 3']
) -> Float[Array, '21 3']:
  """Compares the aligned joints with the landmark network's world points.

  Args:
    evidence: the observed points.
    alignment: the transform from the hand to those points.
    joints: metres, camera axes, relative to the hand's centre.

  Returns:
    Aligned minus observed metres in standard deviations, and zero for unknown points.
  """
  return _whitened(_moved(joints, alignment), evidence.points_world, evidence.world_sigma)


def heads_residuals(
  evidence: HandEvidence, alignment: Alignment, joints: Float[Array, '21 3']
) -> Float[Array, '21 3']:
  """Compares the aligned joints with the heads' joints, as `world_residuals` does.

  Args:
    evidence: the observed points.
    alignment: the transform from the hand to those points.
    joints: metres, camera axes, relative to the hand's centre.
  """
  return _whitened(_moved(joints, alignment), evidence.points_heads, evidence.heads_sigma)


def _moved(joints: Array, alignment: Alignment) -> Array:
  rotation = axis_angle_to_matrix(alignment.turn)
  return jnp.exp(alignment.log_scale) * joints @ rotation.T + alignment.shift[None]


def focal_residual(evidence: HandEvidence, view: PinholeView) -> Float[Array, '']:
  """Compares the logarithm of the view's focal length with the evidence, in standard deviations."""
  log_focal_length = view.log_pixels_per_metre + view.log_distance
  return (log_focal_length - evidence.log_focal_length) / evidence.log_focal_sigma


def _whitened(predicted: Array, observed: ArrayLike, sigma: ArrayLike) -> Array:
  known = jnp.isfinite(sigma)[:, None]
  # Mask the inputs too: an unknown point may be NaN, which would turn its zero gradient into NaN.
  observed = jnp.where(known, observed, 0.0)
  sigma = jnp.where(known, jnp.asarray(sigma)[:, None], 1.0)
  return jnp.where(known, (predicted - observed) / sigma, 0.0)
