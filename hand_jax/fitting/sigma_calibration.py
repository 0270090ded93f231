"""From the fit's own uncertainty to errors of the size that renders show.

The fit believes that the errors of its points are independent and that its model is right, so its
sigma has the wrong size, and the wrong spread between hands. Two numbers mend the spread and one
factor for each part of the hand the size:

  sigma = part's factor * Laplace sigma * exp(a s + b log m)

s is what the heads say of the hand's errors (`JointEstimate.log_scale`), m the mean of the Laplace
sigmas of its joints in mm.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.fitting.refine import RefinedHand
from hand_jax.types import ArrayLike


class SigmaCalibration(NamedTuple):
  """The factors; ones and zeros leave the fit's sigma as it is."""

  vertex_factor: Float[ArrayLike, 'vertices']
  joint_factor: Float[ArrayLike, '21']
  scale_weight: Float[ArrayLike, '']
  """a."""
  fit_weight: Float[ArrayLike, '']
  """b; at -1 the size of the fit's sigma would tell nothing about the hand."""


def no_calibration(vertices: int) -> SigmaCalibration:
  """What leaves the fit's sigma as it is."""
  zero = np.float32(0)
  return SigmaCalibration(np.ones(vertices, np.float32), np.ones(21, np.float32), zero, zero)


def hand_factor(
  calibration: SigmaCalibration,
  log_scale: Float[ArrayLike, '*hands'],
  joint_sigma_mm: Float[ArrayLike, '*hands 21'],
) -> Float[np.ndarray, '*hands']:
  """What a hand's sigmas are multiplied by beside their part's factor."""
  # Joints without any sigma are those of a made-up hand; they must not turn into infinity.
  mean = np.maximum(np.mean(np.asarray(joint_sigma_mm, np.float64), axis=-1), 1e-3)
  weighted = calibration.scale_weight * log_scale + calibration.fit_weight * np.log(mean)
  return np.asarray(np.exp(weighted))


def calibrate(mesh: RefinedHand, calibration: SigmaCalibration, log_scale: float) -> RefinedHand:
  """One hand with its uncertainty at the size of measured errors."""
  factor = np.float32(hand_factor(calibration, np.asarray(log_scale), mesh.joint_sigma_mm))
  vertices = factor * np.asarray(calibration.vertex_factor)
  joints = factor * np.asarray(calibration.joint_factor)
  return mesh._replace(
    vertex_covariance=mesh.vertex_covariance * vertices[:, None, None] ** 2,
    joint_covariance=mesh.joint_covariance * joints[:, None, None] ** 2,
    vertex_sigma_mm=mesh.vertex_sigma_mm * vertices,
    joint_sigma_mm=mesh.joint_sigma_mm * joints,
  )
