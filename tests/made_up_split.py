"""Makes up a split of true and predicted hands with sigmas, and its metrics by plain loops."""

import jax.numpy as jnp
import numpy as np
import scipy.spatial
import scipy.stats

from hand_jax.evaluation import evaluate, metrics
from hand_jax.models.branches import BRANCHES
from hand_jax.types import (
  DiagonalGaussian,
  HandBatch,
  HandEstimate,
  HandGaussians,
  HandParameters,
)

VERTICES = 40
JOINTS = 21
EXAMPLES = 11
CROP_SIDE = 48
Rotation = scipy.spatial.transform.Rotation


def joint_regressor():
  weights = np.random.default_rng(100).uniform(size=(JOINTS, VERTICES)) ** 8
  return weights / weights.sum(1, keepdims=True)


def camera_vectors(rotations):
  """Makes cameras with a given R (`points_hand @ R`): its first two columns, then T and s."""
  vectors = np.zeros((len(rotations), 10), np.float32)
  vectors[:, :3], vectors[:, 3:6] = rotations[:, :, 0], rotations[:, :, 1]
  vectors[:, 8:] = [0.5, 1.0]
  return vectors


class World:
  """A made-up split of true and predicted hands and rotations, with sigmas.

  `known_2d` gives it 2D labels, and `branches` lists the branches of its network.
  """

  branches = BRANCHES

  def __init__(self, seed=0, noise=0.006, turn=0.1):
    rng = np.random.default_rng(seed)
    shape = (EXAMPLES, VERTICES, 3)
    template = rng.normal(size=shape[1:]) * 0.04
    self.vertices = (template + rng.normal(size=shape) * 0.01).astype(np.float32)
    self.rotation = Rotation.random(EXAMPLES, random_state=rng).as_matrix()
    turn_by = Rotation.from_rotvec(turn * rng.normal(size=(EXAMPLES, 3))).as_matrix()
    self.predicted_rotation = self.rotation @ turn_by
    self.predicted = {
      name: (self.vertices + rng.normal(size=shape) * noise * factor).astype(np.float32)
      for name, factor in (('posterior', 1.0), ('prior', 2.0))
    }
    self.log_variance = np.log(rng.uniform(1e-6, 1e-4, size=shape)).astype(np.float32)
    self.has_3d = np.ones(EXAMPLES, bool)
    points = (EXAMPLES, JOINTS, 2)
    self.predicted_2d = {name: rng.uniform(-1, 1, points) for name in BRANCHES}
    self.joints_2d = np.full(points, np.nan)
    self.confidence = np.zeros(points[:2])

  def label_2d(self, seed=0):
    """Adds 2D labels with all kinds of gaps: confidence 0, NaN, infinity.

    Examples 2 and 5 have none.
    """
    rng = np.random.default_rng(seed)
    self.joints_2d = rng.uniform(-1, 1, self.joints_2d.shape)
    self.confidence = rng.choice([0.0, 0.2, 1.0], size=self.confidence.shape, p=[0.3, 0.3, 0.4])
    self.confidence[7], self.confidence[8] = 1.0, np.eye(JOINTS)[3]
    self.joints_2d[rng.uniform(size=self.joints_2d.shape) < 0.1] = np.nan
    self.joints_2d[0, 4], self.joints_2d[1, 2] = [np.inf, 0.1], np.nan
    self.joints_2d[8, 3] = 0.25
    self.confidence[2], self.joints_2d[5] = 0.0, np.nan
    return self

  def batch(self, rows, padding=0):
    """Returns the rows as a HandBatch. Padding rows hold NaN."""

    def padded(values, filling=np.nan):
      full = np.full((len(rows) + padding, *values.shape[1:]), filling, values.dtype)
      full[: len(rows)] = values[rows]
      return full

    count = len(rows) + padding
    ones = np.ones(count, bool)
    return HandBatch(
      image=np.zeros((count, CROP_SIDE, CROP_SIDE, 3), np.uint8),
      example_id=np.array([str(row) for row in rows] + [''] * padding),
      global_index=padded(np.arange(EXAMPLES, dtype=np.int32), 0),
      is_left=~ones,
      vertices_hand=padded(self.vertices),
      joints_hand=padded((joint_regressor() @ self.vertices).astype(np.float32)),
      has_3d=padded(self.has_3d, True),
      # Of padding too, so that counting it would show.
      joints_normalized=padded(self.joints_2d.astype(np.float32), 0.5),
      joint_confidence=padded(self.confidence.astype(np.float32), 1.0),
      camera=padded(camera_vectors(self.rotation)),
      camera_mask=np.ones((count, 10), bool),
      intrinsics=np.zeros((count, 3, 3), np.float32),
      root_camera=np.full((count, 3), np.nan, np.float32),
      has_root=~ones,
      hand_mask=np.zeros((count, 4, 4), bool),
      has_mask=~ones,
      vertex_colors=np.full((count, *self.vertices.shape[1:]), np.nan, np.float32),
      vertex_visible=np.zeros((count, self.vertices.shape[1]), bool),
      has_vertex_colors=~ones,
      is_padding=np.arange(count) >= len(rows),
    )

  def estimate(self, batch):
    """Looks up a network's output for the batch by example id."""
    rows = np.array([int(name or 0) for name in batch.example_id])

    def gaussians(name):
      if name not in self.branches:
        return None
      vertices, log_variance = self.predicted[name][rows], self.log_variance[rows]
      joints_2d = jnp.asarray(self.predicted_2d[name][rows], jnp.float32)
      unused = jnp.zeros((len(rows), JOINTS, 3))
      return HandGaussians(
        DiagonalGaussian(jnp.asarray(vertices), jnp.asarray(log_variance)),
        DiagonalGaussian(unused, unused),
        DiagonalGaussian(joints_2d, jnp.zeros_like(joints_2d)),
      )

    camera = jnp.asarray(camera_vectors(self.predicted_rotation)[rows])
    zeros = jnp.zeros((len(rows), 1))
    return HandEstimate(
      parameters=HandParameters(zeros, zeros, zeros, zeros) if 'prior' in self.branches else None,
      camera=DiagonalGaussian(camera, jnp.zeros_like(camera)),
      prior=gaussians('prior'),
      posterior=gaussians('posterior'),
    )

  def evaluate(self, batches=None, **settings):
    batches = batches or [self.batch(range(EXAMPLES))]
    return evaluate.evaluate_batches(self.estimate, batches, joint_regressor(), **settings)


def naive_metrics(predicted, target, prefix=''):
  """Computes one example's metrics by plain loops and scipy."""
  values = {}
  for name, metric, area, ours, theirs in (
    ('joints', 'mpjpe_mm', 'auc_joints', joint_regressor() @ predicted, joint_regressor() @ target),
    ('vertices', 'mpvpe_mm', 'auc_vertices', predicted, target),
  ):
    if prefix:
      ours = metrics.procrustes_align(ours, theirs)
    distances = [1000 * np.linalg.norm(p - t) for p, t in zip(ours, theirs, strict=True)]
    values[prefix + metric] = np.mean(distances)
    thresholds = np.linspace(0, 50, 100)
    curve = [np.mean([d <= t for d in distances]) for t in thresholds]
    values[prefix + area] = np.trapezoid(curve, thresholds) / 50
    if name == 'vertices':
      to_target, _ = scipy.spatial.cKDTree(theirs).query(ours)
      to_predicted, _ = scipy.spatial.cKDTree(ours).query(theirs)
      for limit in (5, 15):
        shares = np.mean(to_target < limit / 1000), np.mean(to_predicted < limit / 1000)
        values[f'{prefix}f_score_{limit}mm'] = scipy.stats.hmean(shares)
  return values
