"""Measures a network over a split: every example once, each branch, and the mean hand."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hand_jax.config import ExperimentConfig
from hand_jax.evaluation import metrics
from hand_jax.evaluation.mean_hand import MeanHand
from hand_jax.evaluation.uncertainty import Names, PointErrors, uncertainty_figures
from hand_jax.geometry.cameras import camera_from_vector, camera_rotation
from hand_jax.models.branches import branches_of
from hand_jax.models.estimating import estimate_images
from hand_jax.models.hand_network import create_network
from hand_jax.types import (
  ArrayLike,
  DiagonalGaussian,
  HandBatch,
  HandEstimate,
  HandGaussians,
  ManoModel,
)

ERROR_NAMES = ('mpjpe_mm', 'mpvpe_mm', 'pa_mpjpe_mm', 'pa_mpvpe_mm')
METRIC_NAMES = (
  *ERROR_NAMES,
  *('auc_joints', 'auc_vertices', 'pa_auc_joints', 'pa_auc_vertices'),
  *('f_score_5mm', 'f_score_15mm', 'pa_f_score_5mm', 'pa_f_score_15mm'),
)

NAMES = Names('examples', 'vertices')
"""The words for examples and points in the keys of the uncertainty figures."""

EstimateFn = Callable[[HandBatch], HandEstimate]
"""Maps a batch to a network's estimate for all its rows."""


def make_estimate_fn(
  config: ExperimentConfig, variables: dict[str, Any], model: ManoModel
) -> EstimateFn:
  """Makes the function with which `evaluate_batches` runs a trained network.

  Args:
    config: the run's configuration, which determines the network and the normalisation of images.
    variables: the network's parameters and batch statistics.
    model: the hand model.

  Returns:
    A compiled function from a batch to its estimate. It runs on this process' first device.
  """
  network, variables = create_network(config), jax.device_put(variables)
  return lambda batch: estimate_images(network, variables, batch.image, model)


class RootHands(NamedTuple):
  """Hands with their wrist at the origin, in camera axes, metres and float64."""

  vertices: Float[np.ndarray, 'batch vertices 3']
  joints: Float[np.ndarray, 'batch joints 3']


class Uncertainty(NamedTuple):
  """Sigmas and errors of examples' vertices in mm, which `calibration` compares."""

  sigma_mm: Float[np.ndarray, 'examples vertices']
  """The stated deviation of a vertex, which is the root of the mean of its three variances."""
  error_hand_mm: Float[np.ndarray, 'examples vertices']
  """The distance from mean to label in the hand frame, where sigma is defined."""
  error_root_mm: Float[np.ndarray, 'examples vertices']
  """The distance in camera axes, which includes the error of the global orientation."""


_Arrays = TypeVar('_Arrays', Uncertainty, PointErrors)


def hand_metrics(
  predicted: RootHands,
  target: RootHands,
  full: bool = True,
  aligned_from: RootHands | None = None,
) -> dict[str, Float[np.ndarray, ' batch']]:
  """Computes the metrics of each example.

  Joints and vertices are aligned separately by Procrustes (rotation, scale and shift, without
  reflection).

  Args:
    predicted: the hands to measure.
    target: the true hands.
    full: whether to compute all of `METRIC_NAMES` or only `ERROR_NAMES`.
    aligned_from: hands to align in place of `predicted`, for a baseline that has a second hand for
      the aligned errors.

  Returns:
    The values of all examples by the metric's name.

  Raises:
    ValueError: a coordinate is not finite.
  """
  aligned_from = aligned_from or predicted
  aligned = RootHands(
    vertices=metrics.procrustes_align(aligned_from.vertices, target.vertices),
    joints=metrics.procrustes_align(aligned_from.joints, target.joints),
  )
  values = {}
  for prefix, hands in (('', predicted), ('pa_', aligned)):
    joint_errors = metrics.point_errors_mm(hands.joints, target.joints)
    vertex_errors = metrics.point_errors_mm(hands.vertices, target.vertices)
    values[f'{prefix}mpjpe_mm'] = joint_errors.mean(axis=1)
    values[f'{prefix}mpvpe_mm'] = vertex_errors.mean(axis=1)
    if full:
      values[f'{prefix}auc_joints'] = metrics.auc_0_to_50mm(joint_errors)
      values[f'{prefix}auc_vertices'] = metrics.auc_0_to_50mm(vertex_errors)
      scores = metrics.f_scores(hands.vertices, target.vertices, metrics.F_SCORE_THRESHOLDS_MM)
      values[f'{prefix}f_score_5mm'], values[f'{prefix}f_score_15mm'] = scores.T
  return values


@jax.jit
def _camera_rotations(cameras: Float[Array, 'batch 10']) -> Float[Array, 'batch 3 3']:
  return camera_rotation(camera_from_vector(cameras))


def camera_rotations(cameras: Float[ArrayLike, 'batch 10']) -> Float[np.ndarray, 'batch 3 3']:
  """Computes the rotation R of each camera in float64, with `points_root = points_hand @ R`."""
  return np.asarray(_camera_rotations(jnp.asarray(cameras, jnp.float32)), np.float64)


def predicted_hands(
  gaussians: HandGaussians, rotations: Float[np.ndarray, 'batch 3 3'], regressor: np.ndarray
) -> RootHands:
  """Turns a branch's mean mesh into the axes of its predicted camera, with its joints B V.

  Args:
    gaussians: a branch's Gaussians in the hand frame, metres.
    rotations: R of the predicted cameras, from the hand frame to camera axes.
    regressor: the joint regressor B.
  """
  vertices = np.asarray(gaussians.vertices.mean, np.float64) @ rotations
  return RootHands(vertices, regressor @ vertices)


def target_hands(batch: HandBatch, rotations: Float[np.ndarray, 'batch 3 3']) -> RootHands:
  """Turns the labels of a batch, whose examples must all have them, into camera axes."""
  vertices = np.asarray(batch.vertices_hand, np.float64) @ rotations
  return RootHands(vertices, np.asarray(batch.joints_hand, np.float64) @ rotations)


def has_labels(batch: HandBatch) -> Bool[np.ndarray, ' batch']:
  """Returns which examples count in 3D: real ones with mesh, joints and their orientation."""
  oriented = np.asarray(batch.camera_mask)[:, :6].all(axis=1)
  return ~np.asarray(batch.is_padding) & np.asarray(batch.has_3d) & oriented


def known_joints(batch: HandBatch) -> Bool[np.ndarray, 'batch joints']:
  """Returns which 2D labels count: finite ones of positive confidence, in real examples."""
  finite = np.isfinite(np.asarray(batch.joints_normalized)).all(axis=-1)
  known = finite & (np.asarray(batch.joint_confidence) > 0)
  return known & ~np.asarray(batch.is_padding)[:, None]


def _select(tree: Any, keep: np.ndarray) -> Any:
  """Takes the kept rows of every array in a named tuple. Fields that are None stay None."""
  if tree is None:
    return None
  if isinstance(tree, tuple):
    return type(tree)(*(_select(field, keep) for field in tree))
  return np.asarray(tree)[keep]


def _uncertainty(
  vertices: DiagonalGaussian, batch: HandBatch, predicted: RootHands, target: RootHands
) -> Uncertainty:
  variance = np.exp(np.asarray(vertices.log_variance, np.float64))
  return Uncertainty(
    sigma_mm=metrics.MM_PER_M * np.sqrt(variance.mean(axis=-1)),
    error_hand_mm=metrics.point_errors_mm(vertices.mean, batch.vertices_hand),
    error_root_mm=metrics.point_errors_mm(predicted.vertices, target.vertices),
  )


def vertex_errors(
  vertices: DiagonalGaussian,
  labels: Float[ArrayLike, 'batch vertices 3'],
  rotations: Float[np.ndarray, 'batch 3 3'],
  target: RootHands,
) -> dict[str, PointErrors]:
  """Computes the error and sigma of every vertex, by the name of its frame (`FRAMES`).

  Values are in mm, axis by axis and in single precision. Root-relative variances are those of the
  hand frame, turned into the camera's axes. They do not include the uncertainty of the orientation,
  which the Gaussians of the vertices do not
  describe. Aligned sigmas have the alignment's scale and use
  a vertex's mean variance along every axis, because the alignment turns the axes.

  Args:
    vertices: a branch's Gaussians in the hand frame, metres.
    labels: the true vertices in the hand frame, metres.
    rotations: R of the predicted cameras, from the hand frame to camera axes.
    target: the true hands in camera axes.

  Raises:
    ValueError: a coordinate is not finite.
  """
  mean = np.asarray(vertices.mean, np.float64)
  variance = np.exp(np.asarray(vertices.log_variance, np.float64))
  root = mean @ rotations
  aligned = metrics.procrustes_align(root, target.vertices)
  scale = metrics.alignment_scale(root, aligned)[:, None]
  stated = np.sqrt(variance.mean(axis=-1))
  along_camera = np.sqrt(variance @ rotations**2)
  # The alignment shrinks points that coincide to nothing (scale 0), which leaves them no sigma.
  same_along_all = np.repeat(np.where(scale > 0, scale * stated, np.nan)[..., None], 3, axis=-1)
  frames = {
    'hand_frame': (mean - np.asarray(labels, np.float64), np.sqrt(variance), stated),
    'root_relative': (root - target.vertices, along_camera, stated),
    'aligned': (aligned - target.vertices, same_along_all, stated),
  }
  return {
    name: PointErrors(*((metrics.MM_PER_M * values).astype(np.float32) for values in arrays))
    for name, arrays in frames.items()
  }


def calibration(uncertainty: Uncertainty) -> dict[str, float]:
  """Measures how well sigma predicts the error, by rank correlations and by sizes in mm.

  It gives these figures:

  - `across_examples` is the Spearman correlation of an example's mean sigma with its mean error.
  - `within_vertices` is that of one vertex's sigma with its error over the examples, averaged over
    vertices. A sigma that is constant per vertex scores exactly 0 here, and a prior of fixed size
    scores 0 in both.
  - Both take errors in the hand frame, where sigma is defined. With `_camera_axes` in the name they
    take errors that include the orientation's.
  - `mean_sigma_mm` and `mean_error_mm` are averages over all vertices.
  - `squared_error_over_variance` averages `|error|^2 / (3 sigma^2)`. It is 1 when sigma has the
    right size, and above 1 when sigma is too small.
  """
  sigma = uncertainty.sigma_mm
  values = {}
  for name, error in (
    ('', uncertainty.error_hand_mm),
    ('_camera_axes', uncertainty.error_root_mm),
  ):
    across = metrics.spearman_correlation(sigma.mean(axis=1), error.mean(axis=1))
    values[f'across_examples{name}'] = float(across)
    values[f'within_vertices{name}'] = float(metrics.spearman_correlation(sigma, error).mean())
  error = uncertainty.error_hand_mm
  values['mean_sigma_mm'] = float(sigma.mean())
  values['mean_error_mm'] = float(error.mean())
  values['squared_error_over_variance'] = float(np.mean(error**2 / (3 * sigma**2)))
  return values


def evaluate_batches(
  estimate_fn: EstimateFn,
  batches: Iterable[HandBatch],
  joint_regressor: Float[ArrayLike, 'joints vertices'],
  *,
  mean_hand: MeanHand | None = None,
  full: bool = True,
) -> dict[str, Any]:
  """Averages the metrics over all labelled examples of the batches.

  Args:
    estimate_fn: maps a batch to the network's estimate for all its rows.
    batches: the split's examples. Each counts once, and padding never counts.
    joint_regressor: the hand model's extended regressor B, which gives all predicted joints.
    mean_hand: the baseline to measure as well, if any.
    full: whether to compute all metrics. Otherwise only the four of `ERROR_NAMES` and `calibration`
      are computed, which is cheap enough to follow a training.

  Returns:
    A dictionary with `examples`, the number of examples with 3D labels. Where there are any, also

    - `posterior` and `prior`, as far as the network has them, and `mean_hand`, where it was given:
      the mean of each metric.
    - `uncertainty`: the figures of `calibration` for the `branch` that it names (the posterior, or
      the prior of a network without a posterior). With `full` it also holds the figures of
      `uncertainty_figures` in each of `FRAMES`.

    Where any example has 2D labels, also `joints_2d` with

    - `posterior_px` and `prior_px`: how far projected joints are from the known labels
      (`known_joints`), in pixels of the network's crop, averaged over the joints of an example and
      then over examples.
    - `examples`, the number of examples with 2D labels, and `crop_size_px`, the side of the crop.

  Raises:
    ValueError: no example has 3D or 2D labels, or a prediction is not finite.
  """
  regressor = np.asarray(joint_regressor, np.float64)
  joints_2d = _Joints2D()
  sums: dict[str, dict[str, float]] = {}
  uncertainties = []
  errors: dict[str, list[PointErrors]] = {}
  branch_names: list[str] = []
  for batch in batches:
    keep, known = has_labels(batch), known_joints(batch)
    if not (keep.any() or known.any()):
      continue
    estimate = estimate_fn(batch)
    joints_2d.add(estimate, batch, known)
    if not keep.any():
      continue
    # Whole batches all have one shape, so this is compiled only once.
    rotations = camera_rotations(estimate.camera.mean)[keep]
    true_rotations = camera_rotations(batch.camera)[keep]
    branches = branches_of(_select(estimate, keep))
    batch = _select(batch._replace(image=None, hand_mask=None), keep)
    target = target_hands(batch, true_rotations)
    branch_names = list(branches)
    for name, gaussians in branches.items():
      hands = predicted_hands(gaussians, rotations, regressor)
      _add(sums, name, hand_metrics(hands, target, full))
      if name == branch_names[0]:
        uncertainties.append(_uncertainty(gaussians.vertices, batch, hands, target))
        if full:
          frames = vertex_errors(gaussians.vertices, batch.vertices_hand, rotations, target)
          for frame, values in frames.items():
            errors.setdefault(frame, []).append(values)
    if mean_hand is not None:
      _add(sums, 'mean_hand', _mean_hand_metrics(mean_hand, target, regressor, full))
  if not (uncertainties or joints_2d.examples):
    raise ValueError('Nothing to evaluate: no example of the split has 3D labels or 2D joints.')
  results: dict[str, Any] = {'examples': 0}
  if uncertainties:
    pooled = _pooled(uncertainties)
    examples = len(pooled.sigma_mm)
    results = {
      name: {metric: total / examples for metric, total in totals.items()}
      for name, totals in sums.items()
    }
    results['examples'] = examples
    results['uncertainty'] = {
      'branch': branch_names[0],
      **calibration(pooled),
      **{frame: uncertainty_figures(_pooled(parts), NAMES) for frame, parts in errors.items()},
    }
  if joints_2d.examples:
    results['joints_2d'] = joints_2d.means()
  return results


def _pooled(parts: list[_Arrays]) -> _Arrays:
  """Joins the examples of all parts, which are named tuples of arrays."""
  return type(parts[0])(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


class _Joints2D:
  """Sums of the branches' 2D errors, in pixels of the crop, over the examples with labels."""

  def __init__(self):
    self.examples = 0
    self._sums: dict[str, float] = {}
    self._crop_side = 0

  def add(
    self, estimate: HandEstimate, batch: HandBatch, known: Bool[np.ndarray, 'batch joints']
  ) -> None:
    keep = known.any(axis=1)
    self.examples += int(keep.sum())
    self._crop_side = batch.image.shape[1]
    target = np.asarray(batch.joints_normalized)[keep]
    for name, gaussians in branches_of(estimate).items():
      predicted = np.asarray(gaussians.joints_normalized.mean)[keep]
      errors = metrics.known_point_errors(predicted, target, known[keep])
      # The crop's side is 2 long in normalised coordinates.
      pixels = float(errors.sum()) * self._crop_side / 2
      self._sums[f'{name}_px'] = self._sums.get(f'{name}_px', 0.0) + pixels

  def means(self) -> dict[str, float | int]:
    means = {name: total / self.examples for name, total in self._sums.items()}
    return {**means, 'examples': self.examples, 'crop_size_px': self._crop_side}


def _add(sums: dict[str, dict[str, float]], name: str, values: dict[str, np.ndarray]) -> None:
  totals = sums.setdefault(name, dict.fromkeys(values, 0.0))
  for metric, per_example in values.items():
    totals[metric] += float(per_example.sum())


def _mean_hand_metrics(mean_hand: MeanHand, target: RootHands, regressor, full: bool):
  def repeated(vertices: np.ndarray) -> RootHands:
    vertices = np.broadcast_to(vertices, target.vertices.shape)
    return RootHands(vertices, regressor @ vertices)

  plain = repeated(mean_hand.vertices_root)
  return hand_metrics(plain, target, full, aligned_from=repeated(mean_hand.vertices_aligned))
