"""Runs the default program on rendered hands, and compares its results with the truth.

The calibration and the card use the errors.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.detection.hand_views import view_hand
from hand_jax.detection.masks import estimate_hand_mask
from hand_jax.detection.reading import read_regions
from hand_jax.evaluation.metrics import MM_PER_M, point_errors_mm, procrustes_align
from hand_jax.fitting.detected import SeenHand, fit_detected_hands
from hand_jax.fitting.released_weights import Release
from hand_jax.release.readings import ReadingPlan, jittered_regions
from hand_jax.student_t import interval_in_sigmas
from hand_jax.synthetic.hands import render_examples
from hand_jax.types import ManoModel

_BLOCK = 32
_COVERAGES = {'coverage_68': 0.68, 'coverage_95': 0.95}


class FittedHands(NamedTuple):
  """Root-relative errors and sigmas of rendered hands, in mm and along the camera's axes."""

  vertex_errors: Float[np.ndarray, 'hands vertices 3']
  vertex_sigma: Float[np.ndarray, 'hands vertices 3']
  joint_errors: Float[np.ndarray, 'hands 21 3']
  joint_sigma: Float[np.ndarray, 'hands 21 3']
  joint_sigma_mm: Float[np.ndarray, 'hands 21']
  """The root of the mean of a joint's three variances."""
  pa_joint_errors: Float[np.ndarray, 'hands 21']
  """The joints' distances from the truth after Procrustes alignment."""
  log_scale: Float[np.ndarray, 'hands']
  """The heads' estimate of the scale of the hand's errors (`JointEstimate`)."""


def fit_rendered(model: ManoModel, release: Release, plan: ReadingPlan) -> FittedHands:
  """Runs the program on rendered right hands, each in one jittered square round its joints.

  Args:
    model: a right hand's model.
    release: the weights of the program.
    plan: the hands to render.
  """
  parts = []
  for start in range(0, plan.count, _BLOCK):
    block = range(start, min(start + _BLOCK, plan.count))
    examples = render_examples(plan.seed, plan.split, block, plan.image_size, hands=plan.hands)
    detected = [
      read_regions(example.image, jittered_regions(example, plan, index)[:1], 'right')[0]
      for index, example in zip(block, examples, strict=True)
    ]
    size = (plan.image_size, plan.image_size)
    masks = [
      estimate_hand_mask(view_hand(example.image, hand), *size)
      for hand, example in zip(detected, examples, strict=True)
    ]
    seen = [SeenHand(hand, size) for hand in detected]
    hands = fit_detected_hands(model, seen, release, lambda: masks)  # noqa: B023
    for example, hand in zip(examples, hands, strict=True):
      mesh = hand.mesh
      joints = np.asarray(example.joints_camera, np.float64)
      vertices = np.asarray(example.vertices_camera, np.float64) - joints[:1]
      joints = joints - joints[:1]
      parts.append(
        FittedHands(
          vertex_errors=MM_PER_M * (np.asarray(mesh.vertices) - vertices),
          vertex_sigma=_sigma(np.asarray(mesh.vertex_covariance)),
          joint_errors=MM_PER_M * (np.asarray(mesh.joints) - joints),
          joint_sigma=_sigma(np.asarray(mesh.joint_covariance)),
          joint_sigma_mm=np.asarray(mesh.joint_sigma_mm),
          pa_joint_errors=point_errors_mm(procrustes_align(mesh.joints, joints), joints),
          log_scale=np.asarray(hand.log_scale),
        )
      )
  return FittedHands(*(np.stack(arrays) for arrays in zip(*parts, strict=True)))


def _sigma(covariance: Float[np.ndarray, 'points 3 3']) -> np.ndarray:
  return MM_PER_M * np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))


def summary(fitted: FittedHands, degrees_of_freedom: float) -> dict[str, float]:
  """Averages a split's figures, rounded to the significant digits.

  `coverage_...` are shares of vertex coordinates inside their interval. The other figures are in
  mm.

  Args:
    fitted: the hands.
    degrees_of_freedom: those of the errors' distribution.
  """
  values = {
    'pa_mpjpe_mm': float(fitted.pa_joint_errors.mean()),
    'mpjpe_mm': float(np.linalg.norm(fitted.joint_errors[:, 1:], axis=-1).mean()),
    'mpvpe_mm': float(np.linalg.norm(fitted.vertex_errors, axis=-1).mean()),
    'mean_vertex_sigma_mm': float(fitted.vertex_sigma.mean()),
  }
  for name, level in _COVERAGES.items():
    width = interval_in_sigmas(level, degrees_of_freedom)
    inside = np.abs(fitted.vertex_errors) <= width * fitted.vertex_sigma
    values[name] = float(inside.mean())
  return {name: round(value, 4) for name, value in values.items()}
