"""Fits the calibration of sigma to rendered hands that no other stage was trained on."""

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int

from hand_jax.evaluation.calibration import coverage_scales, likelihood_scales
from hand_jax.fitting.sigma_calibration import (
  SigmaCalibration,
  hand_factor,
  no_calibration,
  vertex_groups,
)
from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.release.fitted import FittedHands
from hand_jax.types import ManoModel

# Errors have heavier tails than a Gaussian, so one factor cannot reach both coverages exactly.
_LEVELS = (0.68, 0.95)


def fit_calibration(fitted: FittedHands, model: ManoModel) -> SigmaCalibration:
  """Fits the two weights by the likelihood of the joints' errors, and then each part's factor.

  Args:
    fitted: hands with the fit's own sigma, not calibrated.
    model: the hand model, which defines the parts of the hand.
  """
  # The wrist is the origin, so it has neither error nor sigma.
  errors, sigma, groups = fitted.joint_errors[:, 1:], fitted.joint_sigma[:, 1:], joint_groups()[1:]
  groups = np.unique(groups, return_inverse=True)[1]
  blank = no_calibration(len(model.v_template))

  def hands_factor(weights: np.ndarray) -> Float[np.ndarray, 'hands 1 1']:
    found = blank._replace(scale_weight=weights[0], fit_weight=weights[1])
    return hand_factor(found, fitted.log_scale, fitted.joint_sigma_mm)[:, None, None]

  def negative_log_likelihood(weights: np.ndarray) -> float:
    scaled = hands_factor(weights) * sigma
    return float(np.log(scaled * likelihood_scales(errors, scaled, groups)[groups][:, None]).mean())

  weights = scipy.optimize.minimize(
    negative_log_likelihood, np.array([1.0, -0.5]), method='Nelder-Mead'
  ).x
  factor = hands_factor(weights)
  vertex_factor = part_factors(
    fitted.vertex_errors, factor * fitted.vertex_sigma, vertex_groups(model)
  )
  joint_factor = part_factors(errors, factor * sigma, groups)
  return SigmaCalibration(
    vertex_factor=vertex_factor.astype(np.float32),
    joint_factor=np.append(1.0, joint_factor).astype(np.float32),
    scale_weight=np.asarray(weights[0], np.float32),
    fit_weight=np.asarray(weights[1], np.float32),
  )


def calibrated(fitted: FittedHands, calibration: SigmaCalibration) -> FittedHands:
  """Scales the sigmas of hands that were fitted without a calibration."""
  factor = hand_factor(calibration, fitted.log_scale, fitted.joint_sigma_mm)[:, None]
  vertices = factor * np.asarray(calibration.vertex_factor)
  joints = factor * np.asarray(calibration.joint_factor)
  return fitted._replace(
    vertex_sigma=vertices[..., None] * fitted.vertex_sigma,
    joint_sigma=joints[..., None] * fitted.joint_sigma,
    joint_sigma_mm=joints * fitted.joint_sigma_mm,
  )


def part_factors(
  errors: Float[np.ndarray, 'hands points 3'],
  sigma: Float[np.ndarray, 'hands points 3'],
  groups: Int[np.ndarray, ' points'],
) -> Float[np.ndarray, ' points']:
  """Fits each part's factor of sigma, and gives it to every point of the part.

  The factor is the geometric mean of the two factors that reach coverages of 68 and 95 %.

  Args:
    errors: errors per axis, mm.
    sigma: the deviations to correct, mm.
    groups: the part of each point, numbered from 0.

  Raises:
    ValueError: a part has no known error.
  """
  scales = [coverage_scales(errors, sigma, groups, level) for level in _LEVELS]
  return np.sqrt(scales[0] * scales[1])[groups]


def joint_groups() -> Int[np.ndarray, '21']:
  """Numbers the part of each joint.

  The fingers' joints of one level (such as MCP or tip) are one part. Each joint of the thumb, and
  the wrist, is a part of its own.
  """
  names = [name if name.startswith('thumb') else name.split('_')[-1] for name in JOINT_NAMES]
  return np.unique(names, return_inverse=True)[1]
