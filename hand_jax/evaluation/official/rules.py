"""Computes the official metrics of FreiHAND and HO3D by their names, units and rules.

Both evaluations work on absolute camera coordinates in metres and print centimetres. Their quirks
are kept. Our own figures, which allow no reflections, stand beside them under other names
(`strict_...`). Only the official ones can be compared with the figures of a paper.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.spatial
from jaxtyping import Bool, Float

from hand_jax.evaluation import metrics
from hand_jax.mano.joints import STANDARD_TO_MANO

THRESHOLDS_M = np.linspace(0.0, 0.05, 100)
F_THRESHOLDS_M = (0.005, 0.015)
CM_PER_M = 100.0
NOT_MEASURED = -1.0  # replaces figures of a mesh without the ground truth's vertices
NO_AUGMENTATION = 'none'

# These joints of HO3D's order end the bone that gives a hand its scale.
_WRIST, _MIDDLE_MCP = 0, 4


class Benchmark(NamedTuple):
  """The conventions of one official evaluation for its files and figures."""

  title: str
  fingertips: str
  """The name of its set of fingertip vertices (`FINGERTIP_VERTICES`)."""
  samples: int
  """The number of samples in the real evaluation split."""
  joint_order: tuple[int, ...]
  """The standard joint that stands at each place of its own order."""
  is_opengl: bool
  """Whether its camera looks along -z with y up. Otherwise it looks along +z with y down."""
  gives_root: bool
  """Whether the place of the wrist is part of the input."""
  alignments: tuple[str, ...]
  """How joints are aligned, by the names that its figures use."""


def _ho3d(version: str, samples: int) -> Benchmark:
  alignments = ('procrustes_al', 'scale_trans_al')
  return Benchmark(f'HO3D {version}', 'ho3d', samples, STANDARD_TO_MANO, True, True, alignments)


BENCHMARKS = {
  'freihand': Benchmark('FreiHAND', 'freihand', 3960, tuple(range(21)), False, False, ('al',)),
  'ho3d_v2': _ho3d('v2', 11524),
  'ho3d_v3': _ho3d('v3', 20137),
}


class PointErrors:
  """Adds up the errors of numbered points over samples, so that memory does not grow with them."""

  def __init__(self):
    self.samples = 0
    self._sums: Any = 0.0  # (points,)
    self._reached: Any = 0  # (points, thresholds): how many errors have this first threshold

  def add(
    self,
    predicted: Float[np.ndarray, 'samples points 3'],
    target: Float[np.ndarray, 'samples points 3'],
  ) -> None:
    """Takes in some samples. All points are in metres."""
    errors = np.sqrt(np.sum(np.square(predicted - target), axis=-1))
    samples, points = errors.shape
    bins = len(THRESHOLDS_M) + 1
    # An error equal to a threshold is within it.
    first = np.searchsorted(THRESHOLDS_M, errors, side='left')
    counts = np.bincount((first + bins * np.arange(points)).ravel(), minlength=points * bins)
    self.samples += samples
    self._sums = self._sums + errors.sum(axis=0)
    self._reached = self._reached + counts.reshape(points, bins)[:, :-1]

  def mean_m(self) -> float:
    """Averages the errors over the samples and then over the points, in metres."""
    return float(np.mean(self._sums / self.samples))

  def curves(self) -> Float[np.ndarray, 'points thresholds']:
    """Computes each point's PCK curve: the share of samples within each threshold (inclusive)."""
    return np.cumsum(self._reached, axis=1) / self.samples

  def auc(self) -> float:
    """Averages over points the area under their curve from 0 to 50 mm.

    The area is taken by the trapezoid rule and is 1 at most.
    """
    whole = np.trapezoid(np.ones_like(THRESHOLDS_M), THRESHOLDS_M)
    return float(np.mean(np.trapezoid(self.curves(), THRESHOLDS_M, axis=1) / whole))


def align_scale_translation(
  predicted: Float[np.ndarray, 'samples joints 3'], target: Float[np.ndarray, 'samples joints 3']
) -> Float[np.ndarray, 'samples joints 3']:
  """Aligns the length of one bone and the wrist, which is HO3D's second alignment.

  The prediction is scaled until its bone from wrist to middle MCP is as long as the target's. Then
  its wrist is put on the target's. Joints are in HO3D's order. A hand whose bone has no length is
  not divided by it.
  """
  lengths = [
    np.sqrt(np.sum(np.square(hands[:, _MIDDLE_MCP] - hands[:, _WRIST]), axis=-1))[:, None, None]
    for hands in (predicted, target)
  ]
  own, wanted = lengths
  scaled = predicted / np.where(own > 0, own, 1.0) * wanted
  return scaled - scaled[:, :1] + target[:, :1]


def align_by_joints(
  vertices: Float[np.ndarray, 'samples predicted_vertices 3'],
  predicted: Float[np.ndarray, 'samples joints 3'],
  target: Float[np.ndarray, 'samples joints 3'],
) -> Float[np.ndarray, 'samples predicted_vertices 3']:
  """Aligns meshes of another vertex count than the target's by the alignment of their joints.

  This is done as in the official scripts. The mesh turns about its own centre, which moves as far
  as the joints' centre does. The scale takes the joints' size from the target without dividing by
  the prediction's size. The size of the result is therefore wrong by that factor, and so are the
  scripts' aligned F-scores for meshes other than MANO's.

  Args:
    vertices: the predicted meshes, metres.
    predicted: the predicted joints, metres.
    target: the true joints, metres.
  """
  aligned = np.empty_like(vertices)
  for out, mesh, ours, theirs in zip(aligned, vertices, predicted, target, strict=True):
    centres = theirs.mean(axis=0), ours.mean(axis=0)
    size = np.linalg.norm(theirs - centres[0]) + 1e-8
    own_size = np.linalg.norm(ours - centres[1]) + 1e-8
    rotation, scale = scipy.linalg.orthogonal_procrustes(
      (theirs - centres[0]) / size, (ours - centres[1]) / own_size
    )
    middle = mesh.mean(axis=0)
    out[:] = (mesh - middle) @ rotation.T * scale * size + centres[0] - centres[1] + middle
  return aligned


def vertex_f_scores(
  predicted: Float[np.ndarray, 'samples predicted_vertices 3'],
  target: Float[np.ndarray, 'samples vertices 3'],
) -> Float[np.ndarray, 'samples thresholds']:
  """Computes each sample's F-scores of vertices at 5 and 15 mm.

  A vertex counts if the nearest vertex of the other mesh is strictly nearer than the threshold.
  Distances do not go to the surface. The score is 0 where no vertex counts.
  """
  scores = np.zeros((len(predicted), len(F_THRESHOLDS_M)))
  for row, ours, theirs in zip(scores, predicted, target, strict=True):
    to_target, to_predicted = _nearest_m(ours, theirs), _nearest_m(theirs, ours)
    for column, threshold in enumerate(F_THRESHOLDS_M):
      recall, precision = np.mean(to_target < threshold), np.mean(to_predicted < threshold)
      if recall + precision > 0:
        row[column] = 2 * recall * precision / (recall + precision)
  return scores


def _nearest_m(
  points: Float[np.ndarray, 'points 3'], others: Float[np.ndarray, 'others 3']
) -> Float[np.ndarray, ' points']:
  """Finds each point's distance to the nearest other, or infinity if that is too far to count."""
  tree = scipy.spatial.KDTree(others, balanced_tree=False, compact_nodes=False)
  distances, _ = tree.query(points, distance_upper_bound=2 * max(F_THRESHOLDS_M))
  return distances


def is_mirrored(
  predicted: Float[np.ndarray, 'samples points 3'], target: Float[np.ndarray, 'samples points 3']
) -> Bool[np.ndarray, ' samples']:
  """Returns whether the official alignment turns the prediction into its mirror image."""
  centred = [points - points.mean(axis=1, keepdims=True) for points in (predicted, target)]
  return np.linalg.det(np.swapaxes(centred[1], 1, 2) @ centred[0]) < 0


class OfficialScores:
  """Adds up the metrics of one benchmark over batches of samples.

  Batches may come in any order, and each sample counts once. All points are in metres, in the
  benchmark's own axes and joint order. `scores` gives the official figures, `strict_scores` ours,
  and `curves` the PCK curves of both.
  """

  def __init__(self, benchmark: Benchmark):
    self.benchmark = benchmark
    self._has_mesh = self._has_vertices = True
    joints = ('xyz', *(f'xyz_{alignment}' for alignment in benchmark.alignments))
    self._official = {name: PointErrors() for name in (*joints, 'mesh', 'mesh_al')}
    self._strict = {name: PointErrors() for name in ('strict_xyz_al', 'strict_mesh_al')}
    self._f_sums: dict[str, Any] = {'f_score': 0.0, 'f_al_score': 0.0, 'strict_f_al_score': 0.0}
    self._mirrored = {'strict_mirrored_xyz': 0, 'strict_mirrored_mesh': 0}

  @property
  def samples(self) -> int:
    """Counts the samples that were taken in."""
    return self._official['xyz'].samples

  def add(
    self,
    joints: Float[np.ndarray, 'samples 21 3'],
    vertices: Float[np.ndarray, 'samples predicted_vertices 3'],
    true_joints: Float[np.ndarray, 'samples 21 3'],
    true_vertices: Float[np.ndarray, 'samples vertices 3'],
  ) -> None:
    """Takes in some samples. Predictions of joints alone have meshes without vertices.

    Args:
      joints: the predicted joints.
      vertices: the predicted meshes, whose vertices may be more or fewer than the true ones.
      true_joints: the true joints.
      true_vertices: the true meshes.

    Raises:
      ValueError: a coordinate is not finite.
    """
    joints, vertices, true_joints, true_vertices = (
      np.asarray(points, np.float64) for points in (joints, vertices, true_joints, true_vertices)
    )
    self._add_joints(joints, true_joints)
    if not vertices.shape[1]:
      self._has_mesh = self._has_vertices = False
      return
    self._f_sums['f_score'] += vertex_f_scores(vertices, true_vertices).sum(axis=0)
    self._has_mesh = vertices.shape[1] == true_vertices.shape[1]
    if self._has_mesh:
      self._add_mesh(vertices, true_vertices)
    else:
      aligned = align_by_joints(vertices, joints, true_joints)
      self._f_sums['f_al_score'] += vertex_f_scores(aligned, true_vertices).sum(axis=0)

  def _add_joints(self, joints: np.ndarray, true_joints: np.ndarray) -> None:
    self._official['xyz'].add(joints, true_joints)
    for alignment in self.benchmark.alignments:
      if alignment == 'scale_trans_al':
        aligned = align_scale_translation(joints, true_joints)
      else:
        aligned = metrics.procrustes_align_official(joints, true_joints)
      self._official[f'xyz_{alignment}'].add(aligned, true_joints)
    self._strict['strict_xyz_al'].add(metrics.procrustes_align(joints, true_joints), true_joints)
    self._mirrored['strict_mirrored_xyz'] += int(is_mirrored(joints, true_joints).sum())

  def _add_mesh(self, vertices: np.ndarray, true_vertices: np.ndarray) -> None:
    self._official['mesh'].add(vertices, true_vertices)
    mirrored = is_mirrored(vertices, true_vertices)
    self._mirrored['strict_mirrored_mesh'] += int(mirrored.sum())
    aligned = metrics.procrustes_align_official(vertices, true_vertices)
    self._official['mesh_al'].add(aligned, true_vertices)
    scores = vertex_f_scores(aligned, true_vertices)
    self._f_sums['f_al_score'] += scores.sum(axis=0)
    rigid = metrics.procrustes_align(vertices, true_vertices)
    self._strict['strict_mesh_al'].add(rigid, true_vertices)
    if mirrored.any():  # elsewhere both alignments are the same
      scores[mirrored] = vertex_f_scores(rigid[mirrored], true_vertices[mirrored])
    self._f_sums['strict_f_al_score'] += scores.sum(axis=0)

  def scores(self) -> dict[str, float]:
    """Gives the official figures by their official names, errors in cm.

    Where predicted meshes have another number of vertices than the true ones, their errors and
    areas are -1. (The scripts' files say -100 for the error, because they turn the -1 into cm.)
    Where there are joints alone, all figures of the mesh are -1.

    Raises:
      ValueError: nothing was added.
    """
    if not self.samples:
      raise ValueError('There is no sample to measure.')
    return self._errors(self._official) | self._f_scores('f_score', 'f_al_score')

  def strict_scores(self) -> dict[str, float | int]:
    """Gives the figures aligned without reflections (as usual for PA-MPJPE), errors in cm.

    `strict_mirrored_...` count the samples that the official alignment mirrors. Where such a count
    is 0, the figures differ from the official ones by rounding alone.
    """
    if self._has_mesh:
      f_scores = self._f_scores('strict_f_al_score')
    else:
      f_scores = {f'strict_f_al_score_{_mm(value)}': NOT_MEASURED for value in F_THRESHOLDS_M}
    return self._errors(self._strict) | f_scores | self._mirrored

  def curves(self) -> dict[str, list[float]]:
    """Averages the PCK curves at `THRESHOLDS_M` over the points, as far as they were measured."""
    return {
      name: errors.curves().mean(axis=0).tolist()
      for name, errors in (self._official | self._strict).items()
      if errors.samples
    }

  def _errors(self, series: dict[str, PointErrors]) -> dict[str, float]:
    figures = {}
    for name, errors in series.items():
      measured = errors.samples > 0
      figures[f'{name}_mean3d'] = CM_PER_M * errors.mean_m() if measured else NOT_MEASURED
      figures[f'{name}_auc3d'] = errors.auc() if measured else NOT_MEASURED
    return figures

  def _f_scores(self, *names: str) -> dict[str, float]:
    if not self._has_vertices:
      return {
        f'{name}_{_mm(threshold)}': NOT_MEASURED for threshold in F_THRESHOLDS_M for name in names
      }
    return {
      f'{name}_{_mm(threshold)}': float(self._f_sums[name][column] / self.samples)
      for column, threshold in enumerate(F_THRESHOLDS_M)
      for name in names
    }


def _mm(threshold_m: float) -> int:
  return round(1000 * threshold_m)


def official_text(scores: dict[str, Any]) -> str:
  """Writes the official figures as the scripts' scores.txt does, one `name: value` per line.

  Figures that were not measured are `NOT_MEASURED`, as for meshes of another vertex count.
  """
  names = [name for name in scores if name.startswith(('xyz_', 'mesh_', 'f_'))]
  return '\n'.join(f'{name}: {scores[name]:f}' for name in names)
