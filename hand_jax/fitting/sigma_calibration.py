"""Scales the fit's own uncertainty to the size of errors that were measured on rendered hands.

The fit assumes that the errors of its points are independent and that its model is right.
Therefore its sigma has the wrong size, and differs wrongly between hands. Two numbers a and b
correct the differences, and one factor for each part of the hand corrects the size:

  sigma = part's factor * Laplace sigma * exp(a s + b log m)

Here s is the heads' estimate of the scale of the hand's errors (`JointEstimate.log_scale`), and m
is the mean of the Laplace sigmas of the hand's joints in mm.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from hand_jax.fitting.posterior import RefinedHand
from hand_jax.types import ArrayLike, ManoModel


class SigmaCalibration(NamedTuple):
  """The numbers of a calibration. Factors of one and weights of zero do not change sigma."""

  vertex_factor: Float[ArrayLike, 'vertices']
  """Multiplies the sigma of each vertex."""
  joint_factor: Float[ArrayLike, '21']
  """Multiplies the sigma of each joint."""
  scale_weight: Float[ArrayLike, '']
  """The number a."""
  fit_weight: Float[ArrayLike, '']
  """The number b. With b = -1 the mean size of the fit's sigma would not count."""


def no_calibration(vertices: int) -> SigmaCalibration:
  """Makes the calibration that does not change the fit's sigma."""
  zero = np.zeros((), np.float32)
  return SigmaCalibration(np.ones(vertices, np.float32), np.ones(21, np.float32), zero, zero)


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
  factor = np.float32(hand_factor(calibration, np.asarray(log_scale), mesh.joint_sigma_mm))
  vertices = factor * np.asarray(calibration.vertex_factor)
  joints = factor * np.asarray(calibration.joint_factor)
  return mesh._replace(
    vertex_covariance=mesh.vertex_covariance * vertices[:, None, None] ** 2,
    joint_covariance=mesh.joint_covariance * joints[:, None, None] ** 2,
    vertex_sigma_mm=mesh.vertex_sigma_mm * vertices,
    joint_sigma_mm=mesh.joint_sigma_mm * joints,
  )
