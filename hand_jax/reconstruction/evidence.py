"""What a photo says about a hand, as points with standard deviations, and what a fit leaves of it.

Each kind of evidence compares the 21 joints B V of a hand in camera axes (metres) with what was
observed. Its unknown circumstances are part of the fit: where the camera is, and how the network's
world points are turned, shifted and scaled.
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
  principal_point: Float[ArrayLike, '*batch 2']
  """Pixels; the photo's centre where it is not known."""
  log_focal_length: Float[ArrayLike, '*batch']
  """Natural logarithm of the focal length in pixels."""
  log_focal_sigma: Float[ArrayLike, '*batch']


def landmark_evidence(
  points_image: Float[ArrayLike, '*batch 21 2'],
  points_world: Float[ArrayLike, '*batch 21 3'],
  photo_size: tuple[int, int],
  image_sigma_mm: float,
  world_sigma_mm: float,
  intrinsics: Float[ArrayLike, '3 3'] | None = None,
) -> HandEvidence:
  """The evidence of a landmark network's points in one photo, for each hand of a batch.

  Args:
    points_image: pixels of the upright photo in which the hand is a right hand.
    points_world: metres, in that photo's axes.
    photo_size: the photo's width and height in pixels.
    image_sigma_mm: one-sigma error of the image points per axis, at the hand's distance. The world
      points' size tells how many pixels that is.
    world_sigma_mm: one-sigma error of the world points per axis.
    intrinsics: of that photo, pixels; None where they are not known.

  Returns:
    Evidence with the same error for all of a hand's points.
  """
  points_image, points_world = np.asarray(points_image), np.asarray(points_world)
  batch = points_image.shape[:-2]
  if intrinsics is None:
    principal_point = np.asarray(photo_size) / 2
    focal_length, log_focal_sigma = _FOCAL_PER_SIDE * max(photo_size), _LOG_FOCAL_SIGMA
  else:
    intrinsics = np.asarray(intrinsics)
    principal_point = intrinsics[:2, 2]
    focal_length = np.sqrt(intrinsics[0, 0] * intrinsics[1, 1])
    log_focal_sigma = _KNOWN_LOG_FOCAL_SIGMA
  pixels_per_metre = _extent(points_image) / _extent(points_world[..., :2])
  image_sigma = image_sigma_mm / _MM_PER_M * pixels_per_metre[..., None]

  def filled(value, *shape: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, np.float32), (*batch, *shape))

  return HandEvidence(
    points_image=points_image.astype(np.float32),
    image_sigma=filled(image_sigma, points_image.shape[-2]),
    points_world=points_world.astype(np.float32),
    world_sigma=filled(world_sigma_mm / _MM_PER_M, points_world.shape[-2]),
    principal_point=filled(principal_point, 2),
    log_focal_length=filled(np.log(focal_length)),
    log_focal_sigma=filled(log_focal_sigma),
  )


def _extent(points: np.ndarray) -> np.ndarray:
  """Root mean square distance from the mean, not below what is one point."""
  centred = points - points.mean(axis=-2, keepdims=True)
  extent = np.sqrt(np.mean(np.sum(centred**2, axis=-1), axis=-1))
  return np.asarray(np.maximum(extent, _SMALLEST_EXTENT))


class PinholeView(NamedTuple):
  """Where a hand is seen: its centre's pixel, pixels per metre there, and its distance in metres.

  The focal length is `pixels_per_metre * distance`.
  """

  centre: Float[Array, '2']
  log_pixels_per_metre: Float[Array, '']
  log_distance: Float[Array, '']


class WorldAlignment(NamedTuple):
  """How world points lie to the hand: axis-angle rotation, shift (metres), logarithm of a scale."""

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
  evidence: HandEvidence, alignment: WorldAlignment, joints: Float[Array, '21 3']
) -> Float[Array, '21 3']:
  """The joints as the world points have them, minus those points, in sigmas; zero where unknown."""
  rotation = axis_angle_to_matrix(alignment.turn)
  moved = jnp.exp(alignment.log_scale) * joints @ rotation.T + alignment.shift[None]
  return _whitened(moved, evidence.points_world, evidence.world_sigma)


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
