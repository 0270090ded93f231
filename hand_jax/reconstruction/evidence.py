"""What a photo says about a hand, as points with standard deviations, and what a fit leaves of it.

Each kind of evidence compares the 21 joints B V of a hand in camera axes (metres) with what was
observed. Its unknown circumstances are part of the fit: where the camera is, and how the network's
world points are turned, shifted and scaled.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.geometry.rotations import axis_angle_to_matrix
from hand_jax.types import ArrayLike

# Shorter depths are projected as if at this share of the hand's distance: finite and differentiable.
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
