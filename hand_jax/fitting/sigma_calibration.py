"""Scales the fit's own uncertainty to the size of errors that were measured on rendered hands.

The fit assumes that the errors of its points are independent and that its model is right.
Therefore its sigma has the wrong size, and differs wrongly between hands. Two numbers a and b
correct the differences, one factor for each part of the hand corrects the size, and one for depth
corrects the axis that the photo shows least:

  sigma = part's factor * axis's factor * Laplace sigma * exp(a s + b log m)

Here s is the heads' estimate of the scale of the hand's errors (`JointEstimate.log_scale`), and m
is the mean of the Laplace sigmas of the hand's joints in mm. What remains unknown of a hand's scale
gives its errors heavy tails. They have Student's t distribution, see `hand_jax.student_t`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from hand_jax.fitting.posterior import RefinedHand, sigma_mm
from hand_jax.types import ArrayLike, ManoModel


class SigmaCalibration(NamedTuple):
  """The numbers of a calibration.

  Factors of one and weights of zero do not change sigma.
  """

  vertex_factor: Float[ArrayLike, 'vertices']
  """Multiplies the sigma of each vertex."""
  joint_factor: Float[ArrayLike, '21']
  """Multiplies the sigma of each joint."""
  scale_weight: Float[ArrayLike, '']
  """The number a."""
  fit_weight: Float[ArrayLike, '']
  """The number b. With b = -1 the mean size of the fit's sigma would not count."""
  depth_factor: Float[ArrayLike, '']
  """Multiplies the sigma along the camera's axis."""
  degrees_of_freedom: Float[ArrayLike, '']
  """Those of the errors' distribution. Infinity stands for a Gaussian."""


def no_calibration(vertices: int) -> SigmaCalibration:
  """Makes the calibration that does not change the fit's sigma."""
  zero, one, infinite = (np.asarray(number, np.float32) for number in (0, 1, np.inf))
  factors = np.ones(vertices, np.float32), np.ones(21, np.float32)
  return SigmaCalibration(*factors, zero, zero, one, infinite)


def axis_factors(calibration: SigmaCalibration) -> Float[np.ndarray, '3']:
  """Gives the factors of sigma along the camera's axes x, y and z."""
  return np.array([1.0, 1.0, calibration.depth_factor])


def vertex_groups(model: ManoModel) -> Int[np.ndarray, ' vertices']:
  """Numbers the part of each vertex.

  A vertex belongs to the bone that moves it most. The palm comes first, then the inner, middle and
  outer bones of fingers, then those of the thumb.
  """
  bone = np.asarray(model.lbs_weights).argmax(axis=1)
  level = (bone - 1) % 3 + 1
  return np.where(bone == 0, 0, np.where(bone >= 13, 3 + level, level))


def calibration_for(
  model: ManoModel, calibration: SigmaCalibration, calibrated: ManoModel
) -> SigmaCalibration:
  """Gives the factors of a calibration to the vertices of another hand model, part by part.

  The vertices of each hand model have an order of their own.

  Args:
    model: the hand model to use.
    calibration: the calibration, in which all vertices of a part have the same factor.
    calibrated: the hand model that it was measured with.
  """
  factors = dict(zip(vertex_groups(calibrated).tolist(), calibration.vertex_factor, strict=True))
  taken = [factors[part] for part in vertex_groups(model).tolist()]
  return calibration._replace(vertex_factor=np.asarray(taken, np.float32))


def hand_factor(
  calibration: SigmaCalibration,
  log_scale: Float[ArrayLike, '*hands'],
  joint_sigma_mm: Float[ArrayLike, '*hands 21'],
) -> Float[np.ndarray, '*hands']:
  """Computes the factor exp(a s + b log m) that all parts of a hand share.

  Args:
    calibration: the numbers a and b.
    log_scale: the heads' estimate s for each hand.
    joint_sigma_mm: the Laplace sigmas of the hand's joints, whose mean is m.
  """
  # A made-up hand may have sigmas of zero, whose logarithm would be infinite.
  mean = np.maximum(np.mean(np.asarray(joint_sigma_mm, np.float64), axis=-1), 1e-3)
  weighted = calibration.scale_weight * log_scale + calibration.fit_weight * np.log(mean)
  return np.asarray(np.exp(weighted))


def calibrate(mesh: RefinedHand, calibration: SigmaCalibration, log_scale: float) -> RefinedHand:
  """Scales the uncertainty of one hand to the size of measured errors.

  Args:
    mesh: the fitted hand.
    calibration: the factors and weights.
    log_scale: the heads' estimate for this hand, see `JointEstimate`.
  """
  factor = hand_factor(calibration, np.asarray(log_scale), mesh.joint_sigma_mm)
  axes = factor * axis_factors(calibration)
  vertices = _scaled(mesh.vertex_covariance, axes, calibration.vertex_factor)
  joints = _scaled(mesh.joint_covariance, axes, calibration.joint_factor)
  return mesh._replace(
    vertex_covariance=vertices,
    joint_covariance=joints,
    vertex_sigma_mm=sigma_mm(vertices),
    joint_sigma_mm=sigma_mm(joints),
  )


def _scaled(
  covariance: Float[ArrayLike, 'points 3 3'],
  axes: Float[np.ndarray, '3'],
  factors: Float[ArrayLike, ' points'],
) -> Float[np.ndarray, 'points 3 3']:
  by_axis = np.asarray(factors)[:, None] * axes
  scaled = np.asarray(covariance) * by_axis[:, :, None] * by_axis[:, None]
  return scaled.astype(np.float32)
