"""Fits the calibration of sigma to rendered hands that no other stage was trained on."""

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int

from hand_jax.evaluation.calibration import likelihood_scales
from hand_jax.fitting.sigma_calibration import (
  SigmaCalibration,
  axis_factors,
  hand_factor,
  no_calibration,
  vertex_groups,
)
from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.release.fitted import FittedHands
from hand_jax.student_t import negative_log_density
from hand_jax.types import ManoModel

# The search for the numbers of the calibration starts at a = 1, b = -1/2, a depth factor of 1 and 4
# degrees of freedom. Positive numbers are searched by their logarithm.
_START = (1.0, -0.5, 0.0, np.log(4.0))
# Without bounds the degrees of freedom of Gaussian errors would grow without end.
_DEGREES_OF_FREEDOM = (1.5, 1e3)


def fit_calibration(fitted: FittedHands, model: ManoModel) -> SigmaCalibration:
  """Fits all numbers by the likelihood of the errors under Student's t.

  The errors of the joints give the numbers that all parts share. With these, those of the vertices
  give the factors of the mesh's parts.

  Args:
    fitted: hands with the fit's own sigma, not calibrated.
    model: the hand model, which defines the parts of the hand.
  """
  # The wrist is the origin, so it has neither error nor sigma.
  errors, sigma, groups = fitted.joint_errors[:, 1:], fitted.joint_sigma[:, 1:], joint_groups()[1:]
  groups = np.unique(groups, return_inverse=True)[1]
  blank = no_calibration(len(model.v_template))

  def unpacked(numbers: np.ndarray) -> SigmaCalibration:
    scale_weight, fit_weight, log_depth, log_degrees = numbers[: len(_START)]
    return blank._replace(
      joint_factor=np.append(1.0, np.exp(numbers[len(_START) :])[groups]),
      scale_weight=scale_weight,
      fit_weight=fit_weight,
      depth_factor=np.exp(log_depth),
      degrees_of_freedom=np.exp(log_degrees),
    )

  def mean_nll(numbers: np.ndarray) -> float:
    found = unpacked(numbers)
    scaled = shared_factors(fitted, found) * found.joint_factor[1:, None] * sigma
    return float(negative_log_density(errors, scaled, float(found.degrees_of_freedom)).mean())

  parts = groups.max() + 1
  ones = unpacked(np.concatenate([_START, np.zeros(parts)]))
  raw = likelihood_scales(errors, shared_factors(fitted, ones) * sigma, groups)
  start = np.concatenate([_START, np.log(raw)])
  bounds = [(None, None)] * 3 + [tuple(np.log(_DEGREES_OF_FREEDOM))] + [(None, None)] * parts
  found = unpacked(scipy.optimize.minimize(mean_nll, start, method='L-BFGS-B', bounds=bounds).x)
  vertex_sigma = shared_factors(fitted, found) * fitted.vertex_sigma
  vertex_factor = part_factors(
    fitted.vertex_errors, vertex_sigma, vertex_groups(model), float(found.degrees_of_freedom)
  )
  numbers = found._replace(vertex_factor=vertex_factor)
  return SigmaCalibration(*(np.asarray(number, np.float32) for number in numbers))


def shared_factors(
  fitted: FittedHands, calibration: SigmaCalibration
) -> Float[np.ndarray, 'hands 1 3']:
  """Gives the factors that all points of a hand share, axis by axis."""
  factor = hand_factor(calibration, fitted.log_scale, fitted.joint_sigma_mm)
  return factor[:, None, None] * axis_factors(calibration)


def calibrated(fitted: FittedHands, calibration: SigmaCalibration) -> FittedHands:
  """Scales the sigmas of hands that were fitted without a calibration."""
  shared = shared_factors(fitted, calibration)
  joint_sigma = shared * np.asarray(calibration.joint_factor)[:, None] * fitted.joint_sigma
  return fitted._replace(
    vertex_sigma=shared * np.asarray(calibration.vertex_factor)[:, None] * fitted.vertex_sigma,
    joint_sigma=joint_sigma,
    joint_sigma_mm=np.sqrt(np.mean(joint_sigma**2, axis=-1)),
  )


def part_factors(
  errors: Float[np.ndarray, 'hands points 3'],
  sigma: Float[np.ndarray, 'hands points 3'],
  groups: Int[np.ndarray, ' points'],
  degrees_of_freedom: float,
) -> Float[np.ndarray, ' points']:
  """Fits each part's factor of sigma by the likelihood, and gives it to every point of the part.

  Args:
    errors: errors per axis, mm.
    sigma: the sigmas to correct, mm.
    groups: the part of each point, numbered from 0.
    degrees_of_freedom: those of the errors.

  Raises:
    ValueError: a part has no known error.
  """
  return likelihood_scales(errors, sigma, groups, degrees_of_freedom)[groups]


def joint_groups() -> Int[np.ndarray, '21']:
  """Numbers the part of each joint.

  The fingers' joints of one level (such as MCP or tip) are one part. Each joint of the thumb, and
  the wrist, is a part of its own.
  """
  names = [name if name.startswith('thumb') else name.split('_')[-1] for name in JOINT_NAMES]
  return np.unique(names, return_inverse=True)[1]
