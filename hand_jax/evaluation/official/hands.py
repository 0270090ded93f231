"""Puts a network's hands into a benchmark's form: absolute, in its axes and joint order."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Float

from hand_jax.data.prepared import prepared_builder
from hand_jax.evaluation.evaluate import (
  EstimateFn,
  RootHands,
  camera_rotations,
  has_labels,
  known_joints,
  predicted_hands,
)
from hand_jax.evaluation.official.rules import Benchmark, OfficialScores
from hand_jax.evaluation.official.submission import DECIMALS
from hand_jax.geometry.cameras import (
  NEAR_M,
  SCALE_UNIT_M,
  absolute_depth,
  camera_from_vector,
  denormalize_points,
  scale_per_metre,
)
from hand_jax.mano.assets import with_fingertips
from hand_jax.mano.joints import FINGERTIP_VERTICES
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.branches import best_branch
from hand_jax.types import ArrayLike, HandBatch, HandCamera, HandEstimate, ManoModel

# Largest depth in metres. A hand whose predicted scale is zero or negative is placed there.
FARTHEST_M = 10.0
# Factors that turn OpenCV's axes (x right, y down, z forward) into OpenGL's (x right, y up, z
# backward), and back.
OPENGL_AXES = np.array([1.0, -1.0, -1.0])


def benchmark_regressor(
  model: ManoModel, benchmark: Benchmark
) -> Float[np.ndarray, 'joints vertices']:
  """Gives the model's extended joint regressor B, with the benchmark's own fingertip vertices.

  Those are vertices of MANO's mesh. A hand model with another mesh keeps its own.
  """
  if tuple(model.fingertip_vertices.tolist()) in FINGERTIP_VERTICES.values():
    model = with_fingertips(model, benchmark.fingertips)
  return np.asarray(extended_joint_regressor(model), np.float64)


def predicted_roots(
  cameras: Float[ArrayLike, 'batch 10'],
  joints_root: Float[np.ndarray, 'batch joints 3'],
  intrinsics: Float[ArrayLike, 'batch 3 3'],
  crop_side: int,
) -> Float[np.ndarray, 'batch 3']:
  """Finds where the origin of `joints_root` lies in camera space, in metres.

  The predicted weak-perspective camera gives each joint's place in the crop, and so a ray. The root
  is placed by least squares where the joints lie closest to their rays. The simpler 2 f / (s W) is
  the depth of the joints' middle, which can be centimetres from the wrist's. It is used, up to
  `FARTHEST_M`, where the fitted depth is not between `NEAR_M` and `FARTHEST_M`, as for a scale of
  zero.

  Args:
    cameras: the predicted cameras.
    joints_root: the joints about the wrist in camera axes, metres.
    intrinsics: camera matrices of the crops, pixels.
    crop_side: side of the crops, pixels.
  """
  camera = camera_from_vector(np.asarray(cameras, np.float64))
  intrinsics = np.asarray(intrinsics, np.float64)
  scale = scale_per_metre(camera)[:, None]
  normalized = scale * joints_root[..., :2] + camera.translation[:, None, :2]
  rays = _rays(denormalize_points(np.asarray(normalized), crop_side), intrinsics)
  # A joint at (x, z) lies on the ray a if x + t_x = a (z + t_z), and likewise for y.
  offsets = rays * joints_root[..., 2:] - joints_root[..., :2]
  spread = rays - rays.mean(axis=1, keepdims=True)
  along = -(spread * (offsets - offsets.mean(axis=1, keepdims=True))).sum(axis=(1, 2))
  width = (spread**2).sum(axis=(1, 2))
  depth = along / np.where(width > 0, width, 1.0)
  place = offsets.mean(axis=1) + depth[:, None] * rays.mean(axis=1)
  fitted = np.concatenate([place, depth[:, None]], axis=1)
  usable = (depth > NEAR_M) & (depth <= FARTHEST_M)
  return np.where(usable[:, None], fitted, _first_order_roots(camera, intrinsics, crop_side))


def _first_order_roots(
  camera: HandCamera, intrinsics: Float[np.ndarray, 'batch 3 3'], crop_side: int
) -> Float[np.ndarray, 'batch 3']:
  """Places roots on the ray through (T_x, T_y) at `absolute_depth`, but at most at `FARTHEST_M`."""
  focal = intrinsics[:, [0, 1], [0, 1]].mean(axis=1)
  smallest_scale = 2 * SCALE_UNIT_M * focal / (FARTHEST_M * crop_side)
  scale = np.maximum(camera.scale, smallest_scale[:, None])
  depth = np.asarray(absolute_depth(camera._replace(scale=scale), focal, crop_side))
  place = np.asarray(camera.translation)[:, None, :2]
  rays = _rays(denormalize_points(place, crop_side), intrinsics)[:, 0]
  return depth[:, None] * np.concatenate([rays, np.ones((len(rays), 1))], axis=1)


def _rays(
  pixels: Float[np.ndarray, 'batch points 2'], intrinsics: Float[np.ndarray, 'batch 3 3']
) -> Float[np.ndarray, 'batch points 2']:
  """Gives x and y at depth 1 of the rays through the pixels."""
  homogeneous = np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], axis=2)
  return np.linalg.solve(intrinsics[:, None], homogeneous[..., None])[..., :2, 0]


def absolute_hands(
  hands: RootHands,
  predicted_root: Float[np.ndarray, 'batch 3'],
  known_root: Float[ArrayLike, 'batch 3'],
  has_root: Bool[np.ndarray, ' batch'],
  is_left: Bool[np.ndarray, ' batch'],
) -> RootHands:
  """Moves hands from their wrist into camera space, and mirrors left ones back.

  Where the root is known (HO3D gives it), the predicted wrist is put on it. Elsewhere the origin of
  the hand's frame is put on the predicted root. Values that are not used may be NaN.

  Args:
    hands: the hands about their wrist, as right hands.
    predicted_root: the result of `predicted_roots`, camera space, metres.
    known_root: the wrist in camera space, metres.
    has_root: which of the known roots to use.
    is_left: which hands are left ones.

  Returns:
    The hands in camera space, metres.
  """
  wrist = np.where(has_root[:, None], hands.joints[:, 0], 0.0)
  root = np.where(has_root[:, None], np.asarray(known_root, np.float64), predicted_root)
  side = np.where(is_left[:, None], [[-1.0, 1.0, 1.0]], 1.0)
  moved = (
    (points - wrist[:, None] + root[:, None]) * side[:, None]
    for points in (hands.vertices, hands.joints)
  )
  return RootHands(*moved)


def in_file_convention(hands: RootHands, benchmark: Benchmark) -> RootHands:
  """Turns camera-space hands into the benchmark's own axes and joint order.

  They come with x right, y down, z forward and in the standard joint order.
  """
  axes = OPENGL_AXES if benchmark.is_opengl else np.ones(3)
  joints = hands.joints[:, list(benchmark.joint_order)]
  return RootHands(hands.vertices * axes.reshape(1, 1, 3), joints * axes.reshape(1, 1, 3))


def benchmark_predictions(
  estimate: HandEstimate,
  batch: HandBatch,
  regressor: Float[np.ndarray, 'joints vertices'],
  benchmark: Benchmark,
) -> RootHands:
  """Makes the predictions of a submission for the batch's examples, without padding.

  Where the split gives the root and the benchmark's files do too (HO3D), the hand is placed on it.
  Where the root belongs to the ground truth (FreiHAND), the predicted camera and the intrinsics
  place the hand.

  Args:
    estimate: the network's estimate for the batch.
    batch: the examples.
    regressor: the result of `benchmark_regressor`.
    benchmark: the benchmark.

  Returns:
    Absolute hands in the benchmark's axes and joint order, metres.

  Raises:
    ValueError: an example has neither a root that may be used nor intrinsics.
  """
  real = ~np.asarray(batch.is_padding)
  given = np.asarray(batch.has_root) & benchmark.gives_root
  for row in np.flatnonzero(real & ~given):
    if not np.isfinite(batch.intrinsics[row]).all():
      raise ValueError(
        f'Example {str(batch.example_id[row])!r} cannot be placed in camera space: it has '
        f'{"neither a root nor" if benchmark.gives_root else "no"} camera intrinsics.'
      )
  # Whole batches all have one shape, so this is compiled only once.
  rotations = camera_rotations(estimate.camera.mean)
  hands = predicted_hands(best_branch(estimate), rotations, regressor)
  placed = (~given)[:, None, None] & real[:, None, None]
  intrinsics = np.where(placed, batch.intrinsics, np.eye(3)[None])
  roots = predicted_roots(estimate.camera.mean, hands.joints, intrinsics, batch.image.shape[1])
  hands = absolute_hands(hands, roots, batch.root_camera, given, np.asarray(batch.is_left))
  hands = in_file_convention(hands, benchmark)
  return RootHands(hands.vertices[real], hands.joints[real])


class PreparedLabels:
  """The 3D labels of a prepared split as they are stored, whose pictures are not decoded.

  Batches hold labels about the wrist in the hand's own frame. They hold none where the orientation
  is not known, as in HO3D's evaluation split, so that these labels are read separately.

  Args:
    name: name of the data set.
    data_dir: folder of prepared data sets.
    split: name of the split.
  """

  def __init__(self, name: str, data_dir: str, split: str):
    import tensorflow_datasets as tfds

    skipped = {field: tfds.decode.SkipDecoding() for field in ('image', 'hand_mask')}
    self._records = prepared_builder(name, data_dir).as_data_source(split, decoders=skipped)

  def load(self, index: int) -> RootHands | None:
    """Reads one example's hand in camera space (metres, standard joint order).

    It is None where the example is not labelled.
    """
    record = self._records[index]
    vertices, joints = record['vertices_camera'], record['joints_camera']
    if not (len(vertices) and len(joints) and (record['joint_confidence'] > 0).all()):
      return None
    return RootHands(np.asarray(vertices, np.float64)[None], np.asarray(joints, np.float64)[None])


class BenchmarkRun:
  """Collects a network's predictions over a benchmark's split, and measures them where labelled.

  `walk` passes batches on and estimates each once. `estimate` then gives that estimate to whoever
  walks through the batches.

  Args:
    benchmark: the benchmark.
    estimate_fn: maps a batch to the network's estimate for all its rows.
    model: the hand model.
    labels: the labels of the split.
  """

  def __init__(
    self,
    benchmark: Benchmark,
    estimate_fn: EstimateFn,
    model: ManoModel,
    labels: PreparedLabels,
  ):
    self.scores = OfficialScores(benchmark)
    # Whether the batches hold labels that our own metrics can measure.
    self.has_batch_labels = False
    self.is_finished = False
    self._benchmark, self._estimate_fn, self._labels = benchmark, estimate_fn, labels
    self._regressor = benchmark_regressor(model, benchmark)
    self._estimate: HandEstimate | None = None
    self._predictions: list[RootHands] = []

  def walk(self, batches: Iterable[HandBatch]) -> Iterator[HandBatch]:
    """Passes the batches on and takes in their predictions."""
    for batch in batches:
      self._estimate = self._estimate_fn(batch)
      self._take_in(batch, self._estimate)
      self.has_batch_labels |= bool(has_labels(batch).any() or known_joints(batch).any())
      yield batch
    self.is_finished = True

  def estimate(self, batch: HandBatch) -> HandEstimate:
    """Gives the estimate for the batch that `walk` gave last."""
    del batch
    assert self._estimate is not None
    return self._estimate

  def predictions(self) -> RootHands:
    """Joins all predictions in the benchmark's axes and joint order, as a file holds them."""
    return RootHands(*(np.concatenate(parts) for parts in zip(*self._predictions, strict=True)))

  def _take_in(self, batch: HandBatch, estimate: HandEstimate) -> None:
    hands = benchmark_predictions(estimate, batch, self._regressor, self._benchmark)
    stored = RootHands(*(points.astype(np.float32) for points in hands))
    self._predictions.append(stored)
    # Predictions are measured as they would be read back from a file.
    hands = RootHands(*(np.round(points.astype(np.float64), DECIMALS) for points in stored))
    real = ~np.asarray(batch.is_padding)
    truths = [self._labels.load(int(index)) for index in np.asarray(batch.global_index)[real]]
    labelled = np.array([truth is not None for truth in truths], bool)
    if labelled.any():
      known = [truth for truth in truths if truth is not None]
      truth = RootHands(*(np.concatenate(parts) for parts in zip(*known, strict=True)))
      truth = in_file_convention(truth, self._benchmark)
      self.scores.add(
        hands.joints[labelled], hands.vertices[labelled], truth.joints, truth.vertices
      )
