"""What a photo says about a hand, as points with standard deviations, and what a fit leaves of it.

Each kind of evidence compares the 21 joints B V of a hand in camera axes (metres) with what was
observed. Its unknown circumstances are part of the fit: where the camera is, and how the two sets
of 3D points are turned, shifted and scaled.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.geometry.rotations import axis_angle_to_matrix
from hand_jax.types import ArrayLike

_MM_PER_M = 1000.0
# Pixels or metres: points closer together than this tell no size.
_SMALLEST_EXTENT = 1e-4
# Without intrinsics: phones, webcams and crops of their photos have 0.7 to 2 times the larger side.
_FOCAL_PER_SIDE, _LOG_FOCAL_SIGMA = 1.2, 0.5
_KNOWN_LOG_FOCAL_SIGMA = 0.01
# Points nearer than this share of the hand's distance are projected as if there: always finite.
_NEAREST_SHARE = 0.1


class HandEvidence(NamedTuple):
  """Observations of one right hand, with one-sigma errors. A point of infinite sigma is unknown.

  Unknown points may hold anything, NaN included. Pixels are those of the upright photo in which the
  hand is a right hand.
  """

  points_image: Float[ArrayLike, '*batch 21 2']
  """Pixels of the joints."""
  image_sigma: Float[ArrayLike, '*batch 21']
  """Pixels, per axis."""
  points_world: Float[ArrayLike, '*batch 21 3']
  """Metres, axes of the photo's camera; known up to a shift, a scale and a rotation."""
  world_sigma: Float[ArrayLike, '*batch 21']
  """Metres, per axis."""
  points_heads: Float[ArrayLike, '*batch 21 3']
  """Metres, of the heads, in the same axes; known up to a shift, a scale and a small rotation."""
  heads_sigma: Float[ArrayLike, '*batch 21']
  """Metres, per axis."""
  principal_point: Float[ArrayLike, '*batch 2']
  """Pixels; the photo's centre where it is not known."""
  log_focal_length: Float[ArrayLike, '*batch']
  """Natural logarithm of the focal length in pixels."""
  log_focal_sigma: Float[ArrayLike, '*batch']


class PointErrors(NamedTuple):
  """One-sigma errors per axis in mm, each one number or one for each joint; infinite: unknown."""

  image: Float[ArrayLike, '*points']
  """Of the image points, at the hand's distance."""
  world: Float[ArrayLike, '*points']
  heads: Float[ArrayLike, '*points']


def hand_evidence(
  points_image: Float[ArrayLike, '*batch 21 2'],
  points_world: Float[ArrayLike, '*batch 21 3'],
  photo_size: tuple[int, int],
  errors: PointErrors,
  intrinsics: Float[ArrayLike, '3 3'] | None = None,
  points_heads: Float[ArrayLike, '*batch 21 3'] | None = None,
) -> HandEvidence:
  """The evidence of points seen in one photo, for each hand of a batch.

  A point with a coordinate that is not finite is unknown, and no other point is.

  Args:
    points_image: pixels of the upright photo in which the hand is a right hand.
    points_world: the landmark network's, metres, in that photo's axes. Their size tells how many
      pixels an error of the image points in mm is.
    photo_size: the photo's width and height in pixels.
    errors: of the points.
    intrinsics: of that photo, pixels; None where they are not known.
    points_heads: the heads' joints, metres, in the photo's axes; None where there are none.
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
  return np.isfinite(np.asarray(points)).all(axis=-1)


def _extent(points: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Root mean square distance of the known points from their mean, not below what is one point."""
  known = known[..., None]
  count = np.maximum(known.sum(axis=-2, keepdims=True), 1)
  points = np.where(known, points, 0.0)
  centred = np.where(known, points - points.sum(axis=-2, keepdims=True) / count, 0.0)
  extent = np.sqrt(np.sum(centred**2, axis=(-2, -1)) / count[..., 0, 0])
  return np.asarray(np.maximum(extent, _SMALLEST_EXTENT))


class PinholeView(NamedTuple):
  """Where a hand is seen: its centre's pixel, pixels per metre there, and its distance in metres.

  The focal length is `pixels_per_metre * distance`.
  """

  centre: Float[Array, '2']
  log_pixels_per_metre: Float[Array, '']
  log_distance: Float[Array, '']


class Alignment(NamedTuple):
  """How 3D points lie to the hand: axis-angle rotation, shift (metres), logarithm of a scale."""

  turn: Float[Array, '3']
  shift: Float[Array, '3']
  log_scale: Float[Array, '']


def project_view(
  view: PinholeView, points: Float[Array, 'points 3'], principal_point: Float[Array, '2']
) -> Float[Array, 'points 2']:
  """Pixels of points in camera axes (metres) whose origin is the hand's centre.

  This is the pinhole camera of focal length f = pixels_per_metre * distance, written so that a
  large distance is harmless: it tends to weak perspective.
  """
  pixels_per_metre, distance = jnp.exp(view.log_pixels_per_metre), jnp.exp(view.log_distance)
  # Slope of the ray through the hand's centre.
  slope = (view.centre - principal_point) / (pixels_per_metre * distance)
  depth = jnp.maximum(1 + points[:, 2:] / distance, _NEAREST_SHARE)
  sideways = points[:, :2] - slope[None] * points[:, 2:]
  return view.centre[None] + pixels_per_metre * sideways / depth


def view_position(view: PinholeView, principal_point: Float[Array, '2']) -> Float[Array, '3']:
  """Where the hand's centre is in camera space, metres."""
  offset = (view.centre - principal_point) / jnp.exp(view.log_pixels_per_metre)
  return jnp.concatenate([offset, jnp.exp(view.log_distance)[None]])


def image_residuals(
  evidence: HandEvidence, view: PinholeView, joints: Float[Array, '21 3']
) -> Float[Array, '21 2']:
  """Projected minus observed pixels, in sigmas; zero for unknown points."""
  projected = project_view(view, joints, jnp.asarray(evidence.principal_point))
  return _whitened(projected, evidence.points_image, evidence.image_sigma)


def world_residuals(
  evidence: HandEvidence, alignment: Alignment, joints: Float[Array, '21 3']
) -> Float[Array, '21 3']:
  """The joints as the world points have them, minus those points, in sigmas; zero where unknown."""
  return _whitened(_moved(joints, alignment), evidence.points_world, evidence.world_sigma)


def heads_residuals(
  evidence: HandEvidence, alignment: Alignment, joints: Float[Array, '21 3']
) -> Float[Array, '21 3']:
  """The same for the heads' joints."""
  return _whitened(_moved(joints, alignment), evidence.points_heads, evidence.heads_sigma)


def _moved(joints: Array, alignment: Alignment) -> Array:
  rotation = axis_angle_to_matrix(alignment.turn)
  return jnp.exp(alignment.log_scale) * joints @ rotation.T + alignment.shift[None]


def focal_residual(evidence: HandEvidence, view: PinholeView) -> Float[Array, '']:
  """How far the view's focal length is from what is known about it, in sigmas."""
  log_focal_length = view.log_pixels_per_metre + view.log_distance
  return (log_focal_length - evidence.log_focal_length) / evidence.log_focal_sigma


def _whitened(predicted: Array, observed: ArrayLike, sigma: ArrayLike) -> Array:
  known = jnp.isfinite(sigma)[:, None]
  # On the inputs too: an unknown point may be NaN, and so would its zero gradient.
  observed = jnp.where(known, observed, 0.0)
  sigma = jnp.where(known, jnp.asarray(sigma)[:, None], 1.0)
  return jnp.where(known, (predicted - observed) / sigma, 0.0)
