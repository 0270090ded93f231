"""Accuracy of hands in numpy and float64: Procrustes, MPJPE, AUC, F-scores, rank correlation."""

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
  """The prediction after the similarity (rotation, scale, shift) that brings it nearest the target.

  Least squares over the points of each example; the rotation is proper, never a reflection
  (Umeyama 1991, the usual meaning of PA-MPJPE). Points all in one place go to the target's centre.

  Raises:
    ValueError: a coordinate is not finite.
  """
  predicted, target = _float64('predicted', predicted), _float64('target', target)
  centre = target.mean(axis=-2, keepdims=True)
  predicted = predicted - predicted.mean(axis=-2, keepdims=True)
  covariance = np.swapaxes(target - centre, -1, -2) @ predicted
  left, singular, right = np.linalg.svd(covariance)
  # The smallest singular direction is turned round where the best orthogonal map would mirror.
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
  """The factor by which `procrustes_align` made each example larger; 0 for points in one place."""

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
  """`procrustes_align` as the FreiHAND and HO3D evaluations define it: reflections are allowed.

  Both sets are divided by their norms plus 1e-8 before the orthogonal Procrustes problem is solved.

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
  """Euclidean distance of every point to its own target in mm, for inputs in metres."""
  difference = np.asarray(predicted, dtype=np.float64) - np.asarray(target, dtype=np.float64)
  return MM_PER_M * np.linalg.norm(difference, axis=-1)


def known_point_errors(
  predicted: Float[ArrayLike, 'batch points axes'],
  target: Float[ArrayLike, 'batch points axes'],
  known: Bool[np.ndarray, 'batch points'],
) -> Float[np.ndarray, ' batch']:
  """Mean distance of each example's known points to their targets, in the unit of the inputs.

  Points that are not known may hold anything, NaN included; every example must know one.

  Raises:
    ValueError: a known coordinate is not finite.
  """
  shown = known[..., None]
  # On the inputs, so that nothing of an unknown point is ever computed with.
  predicted = _float64('predicted', np.where(shown, predicted, 0.0))
  target = _float64('target', np.where(shown, target, 0.0))
  distances = np.linalg.norm(predicted - target, axis=-1)
  return distances.sum(axis=-1) / known.sum(axis=-1)


def mpjpe_mm(
  predicted_joints: Float[ArrayLike, '*batch joints 3'],
  target_joints: Float[ArrayLike, '*batch joints 3'],
) -> Float[np.ndarray, '*batch']:
  """Mean per-joint position error of each example in mm; joints in metres, in one frame.

  PA-MPJPE is this after `procrustes_align`.
  """
  return point_errors_mm(predicted_joints, target_joints).mean(axis=-1)


def mpvpe_mm(
  predicted_vertices: Float[ArrayLike, '*batch vertices 3'],
  target_vertices: Float[ArrayLike, '*batch vertices 3'],
) -> Float[np.ndarray, '*batch']:
  """Mean per-vertex position error of each example in mm; vertices in metres, in one frame."""
  return point_errors_mm(predicted_vertices, target_vertices).mean(axis=-1)


def pck_curve(
  errors_mm: Float[np.ndarray, '*batch'], thresholds_mm: Float[np.ndarray, ' thresholds']
) -> Float[np.ndarray, ' thresholds']:
  """Share of all the errors that are at most each threshold."""
  ordered = np.sort(errors_mm, axis=None)
  return np.searchsorted(ordered, thresholds_mm, side='right') / ordered.size


def auc_0_to_50mm(errors_mm: Float[np.ndarray, '*batch points']) -> Float[np.ndarray, '*batch']:
  """Area under the PCK curve from 0 to 50 mm for each example, in [0, 1].

  100 evenly spaced thresholds, both ends included, trapezoid rule (FreiHAND and HO3D). The area is
  linear in the curve, so the mean of this over examples is the official figure: curves over the
  examples of each keypoint, then a mean over keypoints.
  """
  thresholds = np.linspace(0.0, AUC_LIMIT_MM, AUC_THRESHOLDS)
  # One error's curve is a step: 0 before `first`, 1 from there on; its trapezoid area is exact.
  first = np.searchsorted(thresholds, errors_mm, side='left')
  intervals = AUC_THRESHOLDS - 1
  areas = np.where(first == 0, intervals, np.maximum(intervals - first + 0.5, 0.0)) / intervals
  return areas.mean(axis=-1)


def nearest_distances_mm(
  predicted: Float[ArrayLike, 'predicted 3'], target: Float[ArrayLike, 'target 3']
) -> tuple[Float[np.ndarray, ' predicted'], Float[np.ndarray, ' target']]:
  """Distance in mm of each predicted point to the nearest target, and of each target back."""
  predicted = np.asarray(predicted, dtype=np.float64)
  target = np.asarray(target, dtype=np.float64)
  # Near the origin the expanded square loses no digits that matter: 1e-8 mm for hands.
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
  """F-score of each example at each threshold: harmonic mean of precision and recall of vertices.

  A vertex counts when its nearest vertex of the other mesh is nearer than (strictly) the threshold;
  vertices only, not surfaces (Knapitsch et al. 2017, as in FreiHAND and HO3D). 0 if none counts.
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
  """Ranks along the first axis, from 1; equal values share the mean of their ranks."""
  return scipy.stats.rankdata(values, axis=0)


def spearman_correlation(
  first: Float[ArrayLike, 'n *rest'], second: Float[ArrayLike, 'n *rest']
) -> Float[np.ndarray, '*rest']:
  """Spearman's rank correlation along the first axis, ties averaged.

  Exactly 0 where either side is constant: what does not vary tells nothing.

  Raises:
    ValueError: a value is not finite.
  """
  first, second = _float64('first', first), _float64('second', second)
  middle = (first.shape[0] + 1) / 2  # the exact mean of ranks, so that constants centre to zero
  first, second = average_ranks(first) - middle, average_ranks(second) - middle
  scale = np.sqrt(np.sum(first**2, axis=0) * np.sum(second**2, axis=0))
  covariance = np.sum(first * second, axis=0)
  return np.asarray(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0))
