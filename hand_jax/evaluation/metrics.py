"""Measures the accuracy of hands in numpy and float64.

There are Procrustes alignments, MPJPE, PCK curves and AUC, F-scores and rank correlations.
"""

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from hand_jax.types import ArrayLike

AUC_LIMIT_MM = 50.0
AUC_THRESHOLDS = 100
F_SCORE_THRESHOLDS_MM = (5.0, 15.0)
MM_PER_M = 1000.0
POINT_SIZE_M = 1e-9  # smaller than this, a prediction is one point with rounding noise


def _float64(name: str, points: ArrayLike) -> np.ndarray:
  points = np.asarray(points, dtype=np.float64)
  if not np.isfinite(points).all():
    raise ValueError(f'{name}: expected finite coordinates, found NaN or infinity')
  return points


def procrustes_align(
  predicted: Float[ArrayLike, '*batch points 3'], target: Float[ArrayLike, '*batch points 3']
) -> Float[np.ndarray, '*batch points 3']:
  """Moves the prediction onto the target by the best similarity (rotation, scale, shift).

  The best one is found by least squares over the points of each example. Its rotation is proper,
  never a reflection (Umeyama 1991), which is the usual meaning of PA-MPJPE. Points that all
  coincide are moved to the target's centre.

  Raises:
    ValueError: a coordinate is not finite.
  """
  predicted, target = _float64('predicted', predicted), _float64('target', target)
  centre = target.mean(axis=-2, keepdims=True)
  predicted = predicted - predicted.mean(axis=-2, keepdims=True)
  covariance = np.swapaxes(target - centre, -1, -2) @ predicted
  left, singular, right = np.linalg.svd(covariance)
  # Where the best orthogonal map would mirror, the smallest singular direction is turned round.
  signs = np.ones_like(singular)
  signs[..., 2] = np.sign(np.linalg.det(left) * np.linalg.det(right))
  rotation = (left * signs[..., None, :]) @ right
  size_squared = np.sum(predicted**2, axis=(-2, -1))
  covered = np.sum(singular * signs, axis=-1)
  scale = np.divide(
    covered, size_squared, out=np.zeros_like(covered), where=size_squared > POINT_SIZE_M**2
  )
  return scale[..., None, None] * (predicted @ np.swapaxes(rotation, -1, -2)) + centre


def alignment_scale(
  predicted: Float[ArrayLike, '*batch points 3'], aligned: Float[ArrayLike, '*batch points 3']
) -> Float[np.ndarray, '*batch']:
  """Computes the factor by which `procrustes_align` made each example larger.

  It is 0 for points that all coincide.
  """

  def size(points: ArrayLike) -> np.ndarray:
    points = np.asarray(points, np.float64)
    centred = points - points.mean(axis=-2, keepdims=True)
    return np.asarray(np.linalg.norm(centred, axis=(-2, -1)))

  before = size(predicted)
  return np.asarray(
    np.divide(size(aligned), before, out=np.zeros_like(before), where=before > POINT_SIZE_M)
  )


def procrustes_align_official(
  predicted: Float[ArrayLike, '*batch points 3'], target: Float[ArrayLike, '*batch points 3']
) -> Float[np.ndarray, '*batch points 3']:
  """Aligns as the FreiHAND and HO3D evaluations do, which allow reflections.

  Both point sets are divided by their norms plus 1e-8 before the orthogonal Procrustes problem is
  solved. The one without reflections is `procrustes_align`.

  Raises:
    ValueError: a coordinate is not finite.
  """
  predicted, target = _float64('predicted', predicted), _float64('target', target)
  centre = target.mean(axis=-2, keepdims=True)
  target = target - centre
  predicted = predicted - predicted.mean(axis=-2, keepdims=True)
  target_size = np.linalg.norm(target, axis=(-2, -1), keepdims=True) + 1e-8
  predicted = predicted / (np.linalg.norm(predicted, axis=(-2, -1), keepdims=True) + 1e-8)
  left, singular, right = np.linalg.svd(np.swapaxes(target / target_size, -1, -2) @ predicted)
  scale = singular.sum(axis=-1)[..., None, None] * target_size
  return scale * (predicted @ np.swapaxes(left @ right, -1, -2)) + centre


def point_errors_mm(
  predicted: Float[ArrayLike, '*batch points 3'], target: Float[ArrayLike, '*batch points 3']
) -> Float[np.ndarray, '*batch points']:
  """Computes the distance of every point to its own target in mm, for inputs in metres."""
  difference = np.asarray(predicted, dtype=np.float64) - np.asarray(target, dtype=np.float64)
  return MM_PER_M * np.linalg.norm(difference, axis=-1)


def known_point_errors(
  predicted: Float[ArrayLike, 'batch points axes'],
  target: Float[ArrayLike, 'batch points axes'],
  known: Bool[np.ndarray, 'batch points'],
) -> Float[np.ndarray, ' batch']:
  """Averages the distances of each example's known points to their targets.

  Args:
    predicted: the points, in any unit.
    target: their targets, in the same unit.
    known: which points count. The others may hold anything, NaN included. Every example needs at
      least one known point.

  Returns:
    The mean distance of each example, in the unit of the inputs.

  Raises:
    ValueError: a known coordinate is not finite.
  """
  shown = known[..., None]
  # Inputs are masked before any arithmetic, so that NaN of unknown points cannot spread.
  predicted = _float64('predicted', np.where(shown, predicted, 0.0))
  target = _float64('target', np.where(shown, target, 0.0))
  distances = np.linalg.norm(predicted - target, axis=-1)
  return distances.sum(axis=-1) / known.sum(axis=-1)


def mpjpe_mm(
  predicted_joints: Float[ArrayLike, '*batch joints 3'],
  target_joints: Float[ArrayLike, '*batch joints 3'],
) -> Float[np.ndarray, '*batch']:
  """Computes the mean per-joint position error of each example in mm.

  Joints are in metres and in one frame. PA-MPJPE is this error after `procrustes_align`.
  """
  return point_errors_mm(predicted_joints, target_joints).mean(axis=-1)


def mpvpe_mm(
  predicted_vertices: Float[ArrayLike, '*batch vertices 3'],
  target_vertices: Float[ArrayLike, '*batch vertices 3'],
) -> Float[np.ndarray, '*batch']:
  """Computes the mean per-vertex position error of each example in mm.

  Vertices are in metres and in one frame.
  """
  return point_errors_mm(predicted_vertices, target_vertices).mean(axis=-1)


def pck_curve(
  errors_mm: Float[np.ndarray, '*batch'], thresholds_mm: Float[np.ndarray, ' thresholds']
) -> Float[np.ndarray, ' thresholds']:
  """Computes the share of all errors that are at most each threshold."""
  ordered = np.sort(errors_mm, axis=None)
  return np.searchsorted(ordered, thresholds_mm, side='right') / ordered.size


def auc_0_to_50mm(errors_mm: Float[np.ndarray, '*batch points']) -> Float[np.ndarray, '*batch']:
  """Computes the area under the PCK curve from 0 to 50 mm for each example, in [0, 1].

  The curve has 100 evenly spaced thresholds, both ends included, and its area is taken by the
  trapezoid rule, as FreiHAND and HO3D do. They draw a curve over the examples for each keypoint and
  average the areas over keypoints. The mean of this function over examples is the same figure,
  because the area is linear in the curve.
  """
  thresholds = np.linspace(0.0, AUC_LIMIT_MM, AUC_THRESHOLDS)
  # The curve of one error steps from 0 to 1 at `first`, so its trapezoid area has a closed form.
  first = np.searchsorted(thresholds, errors_mm, side='left')
  intervals = AUC_THRESHOLDS - 1
  areas = np.where(first == 0, intervals, np.maximum(intervals - first + 0.5, 0.0)) / intervals
  return areas.mean(axis=-1)


def nearest_distances_mm(
  predicted: Float[ArrayLike, 'predicted 3'], target: Float[ArrayLike, 'target 3']
) -> tuple[Float[np.ndarray, ' predicted'], Float[np.ndarray, ' target']]:
  """Finds the distance in mm from each predicted point to the nearest target, and back.

  Inputs are in metres.

  Returns:
    The distances of the predicted points, and those of the targets.
  """
  predicted = np.asarray(predicted, dtype=np.float64)
  target = np.asarray(target, dtype=np.float64)
  # The expanded square below is accurate near the origin: it errs by 1e-8 mm for hands.
  origin = target.mean(axis=0)
  predicted, target = predicted - origin, target - origin
  ones = np.ones_like
  predicted_squared = np.sum(predicted**2, axis=1, keepdims=True)
  target_squared = np.sum(target**2, axis=1, keepdims=True)
  rows = np.concatenate([-2.0 * predicted, predicted_squared, ones(predicted_squared)], axis=1)
  columns = np.concatenate([target, ones(target_squared), target_squared], axis=1)
  squared = rows @ columns.T
  to_target, to_predicted = squared.min(axis=1), squared.min(axis=0)
  return (
    MM_PER_M * np.sqrt(np.maximum(to_target, 0.0)),
    MM_PER_M * np.sqrt(np.maximum(to_predicted, 0.0)),
  )


def f_scores(
  predicted_vertices: Float[ArrayLike, 'batch predicted 3'],
  target_vertices: Float[ArrayLike, 'batch target 3'],
  thresholds_mm: tuple[float, ...] = F_SCORE_THRESHOLDS_MM,
) -> Float[np.ndarray, 'batch thresholds']:
  """Computes each example's F-score: the harmonic mean of precision and recall of vertices.

  A vertex counts when the nearest vertex of the other mesh is strictly nearer than the threshold.
  Distances go to vertices and not to surfaces (Knapitsch et al. 2017, as in FreiHAND and HO3D). The
  score is 0 if no vertex counts.

  Args:
    predicted_vertices: the predicted meshes, metres.
    target_vertices: the true meshes in the same frame, metres.
    thresholds_mm: the distances below which a vertex counts.

  Returns:
    The score of each example at each threshold.
  """
  scores = np.zeros((len(predicted_vertices), len(thresholds_mm)))
  for row, predicted, target in zip(scores, predicted_vertices, target_vertices, strict=True):
    to_target, to_predicted = nearest_distances_mm(predicted, target)
    for column, threshold in enumerate(thresholds_mm):
      precision, recall = np.mean(to_target < threshold), np.mean(to_predicted < threshold)
      if precision + recall > 0:
        row[column] = 2 * precision * recall / (precision + recall)
  return scores


def average_ranks(values: Float[np.ndarray, 'n *rest']) -> Float[np.ndarray, 'n *rest']:
  """Gives values their ranks along the first axis, from 1. Equal values share their mean rank."""
  return scipy.stats.rankdata(values, axis=0)


def spearman_correlation(
  first: Float[ArrayLike, 'n *rest'], second: Float[ArrayLike, 'n *rest']
) -> Float[np.ndarray, '*rest']:
  """Computes Spearman's rank correlation along the first axis.

  Equal values share the mean of their ranks. The correlation is exactly 0 where either side is
  constant, because a constant holds no information.

  Raises:
    ValueError: a value is not finite.
  """
  first, second = _float64('first', first), _float64('second', second)
  middle = (first.shape[0] + 1) / 2  # the exact mean of ranks, so that constants centre to zero
  first, second = average_ranks(first) - middle, average_ranks(second) - middle
  scale = np.sqrt(np.sum(first**2, axis=0) * np.sum(second**2, axis=0))
  covariance = np.sum(first * second, axis=0)
  return np.asarray(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0))
