"""Evaluation of a split: against plain loops, every example once, and the mean hand."""

import math

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
from hypothesis import strategies as st

from hand_jax.data.synthetic import render_examples
from hand_jax.evaluation import evaluate, mean_hand, metrics
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
seeds = st.integers(0, 2**32 - 1)


def joint_regressor():
  weights = np.random.default_rng(100).uniform(size=(JOINTS, VERTICES)) ** 8
  return weights / weights.sum(1, keepdims=True)


def camera_vectors(rotations):
  """Cameras whose R (`points_hand @ R`) is given: its first two columns, then T and s."""
  vectors = np.zeros((len(rotations), 10), np.float32)
  vectors[:, :3], vectors[:, 3:6] = rotations[:, :, 0], rotations[:, :, 1]
  vectors[:, 8:] = [0.5, 1.0]
  return vectors


class World:
  """A made-up split: true hands and rotations, predicted ones, and sigmas.

  `known_2d` gives it 2D labels; `branches` are those its network has.
  """

  branches = evaluate.BRANCHES

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
    self.predicted_2d = {name: rng.uniform(-1, 1, points) for name in evaluate.BRANCHES}
    self.joints_2d = np.full(points, np.nan)
    self.confidence = np.zeros(points[:2])

  def label_2d(self, seed=0):
    """2D labels with every kind of gap: confidence 0, NaN, infinity; example 2 and 5 have none."""
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
    """The rows as a HandBatch; padding rows repeat nothing and hold NaN."""

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
    """What a network would return for the batch, looked up by example id."""
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
  """One example's metrics by plain loops and scipy."""
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


@pytest.mark.parametrize('branch', ['posterior', 'prior'])
def test_a_split_matches_plain_loops(branch):
  world = World()
  expected = []
  for row in range(EXAMPLES):
    target = world.vertices[row].astype(np.float64) @ world.rotation[row]
    predicted = world.predicted[branch][row] @ world.predicted_rotation[row]
    expected.append(naive_metrics(predicted, target) | naive_metrics(predicted, target, 'pa_'))
  results = world.evaluate()
  assert results['examples'] == EXAMPLES
  assert tuple(sorted(results[branch])) == tuple(sorted(evaluate.METRIC_NAMES))
  for name in evaluate.METRIC_NAMES:
    mean = np.mean([values[name] for values in expected])
    np.testing.assert_allclose(results[branch][name], mean, rtol=1e-5, err_msg=name)


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(st.permutations(range(EXAMPLES)), st.integers(1, 6))
def test_batches_and_padding_change_nothing(order, size):
  world = World().label_2d()
  groups = [list(order[start : start + size]) for start in range(0, EXAMPLES, size)]
  batches = [world.batch(rows, padding=size - len(rows)) for rows in groups]
  batches.append(world.batch([], padding=2))
  whole, parts = world.evaluate(), world.evaluate(batches)
  assert parts['examples'] == EXAMPLES
  assert whole['uncertainty'].pop('branch') == parts['uncertainty'].pop('branch')
  for part in (*evaluate.BRANCHES, 'uncertainty', 'joints_2d'):
    assert parts[part] == pytest.approx(whole[part], rel=1e-9)


@pytest.mark.parametrize('field', ['has_3d', 'camera_mask'])
def test_examples_without_labels_are_left_out(field):
  world = World()
  batch = world.batch(range(EXAMPLES))
  masked = getattr(batch, field).copy()
  masked[3:] = False
  vertices, camera = batch.vertices_hand.copy(), batch.camera.copy()
  vertices[3:], camera[3:] = np.nan, np.nan
  batch = batch._replace(vertices_hand=vertices, camera=camera, **{field: masked})
  results, expected = world.evaluate([batch]), world.evaluate([world.batch(range(3))])
  assert results['examples'] == 3
  assert results['posterior'] == pytest.approx(expected['posterior'], rel=1e-9)
  batch = batch._replace(**{field: np.zeros_like(masked)})
  with pytest.raises(ValueError, match='no example of the split has 3D labels or 2D joints'):
    world.evaluate([batch])


# Errors in 2D.


def naive_errors_2d(world, branch):
  """Pixels per example by plain loops; None where no joint is known."""
  errors = []
  for row in range(EXAMPLES):
    distances = []
    for joint in range(JOINTS):
      x, y = world.joints_2d[row, joint]
      if world.confidence[row, joint] > 0 and math.isfinite(x) and math.isfinite(y):
        predicted = world.predicted_2d[branch][row, joint]
        # From [-1, 1] to pixels of the crop.
        pixels = [(u + 1) / 2 * CROP_SIDE for u in (x, y, *predicted)]
        distances.append(math.dist(pixels[:2], pixels[2:]))
    errors.append(sum(distances) / len(distances) if distances else None)
  return errors


@pytest.mark.parametrize('branch', ['posterior', 'prior'])
def test_errors_in_2d_match_plain_loops(branch):
  world = World().label_2d()
  world.has_3d[[0, 4, 8]] = False  # they count in 2D all the same
  errors = [error for error in naive_errors_2d(world, branch) if error is not None]
  assert len(errors) == EXAMPLES - 2
  batches = [world.batch(range(6), padding=2), world.batch(range(6, EXAMPLES), padding=3)]
  results = world.evaluate(batches)
  assert results['examples'] == EXAMPLES - 3
  assert results['joints_2d']['examples'] == EXAMPLES - 2
  assert results['joints_2d']['crop_size_px'] == CROP_SIDE
  # Labels and predictions pass through single precision.
  assert results['joints_2d'][f'{branch}_px'] == pytest.approx(np.mean(errors), rel=1e-6)


def test_an_unknown_joint_is_never_looked_at():
  world = World().label_2d()
  expected = world.evaluate()['joints_2d']
  unknown = (world.confidence == 0) | ~np.isfinite(world.joints_2d).all(-1)
  world.joints_2d[unknown] = np.inf
  for predicted in world.predicted_2d.values():
    predicted[unknown] = np.nan
  assert world.evaluate()['joints_2d'] == expected
  world.predicted_2d['prior'][8, 3, 1] = np.nan  # a known one
  with pytest.raises(ValueError, match='predicted: expected finite'):
    world.evaluate()


def test_3d_errors_do_not_depend_on_2d_labels():
  results, expected = World().label_2d().evaluate(), World().evaluate()
  assert 'joints_2d' not in expected
  assert {name: value for name, value in results.items() if name != 'joints_2d'} == expected


def test_2d_labels_alone_are_enough():
  world = World().label_2d()
  expected = world.evaluate()['joints_2d']
  mean = mean_hand.compute_mean_hand(world.vertices.astype(np.float64))
  world.has_3d[:] = False
  world.vertices[:], world.rotation[:] = np.nan, np.nan
  assert world.evaluate(mean_hand=mean) == {'examples': 0, 'joints_2d': expected}
  table = evaluate.format_table(world.evaluate())
  assert table == (
    f'Mean 2D error of the joints: posterior {expected["posterior_px"]:.2f} px, '
    f'prior {expected["prior_px"]:.2f} px, in crops of 48 px, over 9 examples'
  )


# Networks of one branch alone.


@pytest.mark.parametrize('branch', ['posterior', 'prior'])
def test_a_branch_alone_is_measured_as_beside_the_other(branch):
  world = World().label_2d()
  mean = mean_hand.compute_mean_hand(world.vertices.astype(np.float64) @ world.rotation)
  both = world.evaluate(mean_hand=mean)
  assert both['uncertainty']['branch'] == 'posterior'
  world.branches = (branch,)
  alone = world.evaluate(mean_hand=mean)
  assert set(alone) == {branch, 'mean_hand', 'examples', 'uncertainty', 'joints_2d'}
  assert alone[branch] == both[branch] and alone['mean_hand'] == both['mean_hand']
  assert alone['uncertainty']['branch'] == branch
  assert set(alone['joints_2d']) == {f'{branch}_px', 'examples', 'crop_size_px'}
  assert alone['joints_2d'][f'{branch}_px'] == both['joints_2d'][f'{branch}_px']
  error = np.linalg.norm(world.predicted[branch].astype(np.float64) - world.vertices, axis=-1)
  assert alone['uncertainty']['mean_error_mm'] == pytest.approx(1000 * error.mean(), rel=1e-6)


@pytest.mark.parametrize('branch', ['posterior', 'prior'])
def test_the_table_of_a_branch_alone(branch):
  world = World().label_2d()
  world.branches = (branch,)
  mean = mean_hand.compute_mean_hand(world.vertices.astype(np.float64) @ world.rotation)
  results = world.evaluate(mean_hand=mean)
  lines = evaluate.format_table(results).splitlines()
  assert lines[0].split() == [branch, 'mean', 'hand', 'gain']
  rows = {line.split()[0]: line.split()[1:] for line in lines}
  ours, theirs = results[branch]['mpjpe_mm'], results['mean_hand']['mpjpe_mm']
  assert rows['mpjpe_mm'] == [f'{ours:.2f}', f'{theirs:.2f}', f'{100 * (1 - ours / theirs):.1f}%']
  assert f': {branch} {results["joints_2d"][f"{branch}_px"]:.2f} px, in' in lines[-2]
  assert lines[-1].startswith(f"Spearman correlation of the {branch}'s sigma with error")


def test_the_best_branch_is_the_posterior_where_there_is_one():
  world = World()
  estimate = world.estimate(world.batch([0, 1]))
  assert evaluate.best_branch(estimate) is estimate.posterior
  assert evaluate.best_branch(estimate._replace(posterior=None)) is estimate.prior
  assert evaluate.best_branch(estimate._replace(prior=None)) is estimate.posterior


def test_one_sigma_for_everything_correlates_with_nothing():
  """A prior's deviation is one length unit: it is the same for all vertices of all photos."""
  world = with_sigma(World(), 0.01)
  world.branches = ('prior',)
  uncertainty = world.evaluate()['uncertainty']
  correlations = [value for name, value in uncertainty.items() if name.startswith(('acr', 'with'))]
  assert correlations == [0.0] * 4
  assert uncertainty['branch'] == 'prior'
  assert uncertainty['mean_sigma_mm'] == pytest.approx(10, rel=1e-6)
  error = 1000 * np.linalg.norm(world.predicted['prior'] - world.vertices, axis=-1)
  expected = np.mean(error**2) / (3 * 10**2)
  assert uncertainty['squared_error_over_variance'] == pytest.approx(expected, rel=1e-5)


# Everything, some of it, and what sigma tells.


def test_a_perfect_prediction():
  results = World(noise=0.0, turn=0.0).evaluate()
  for name, value in results['posterior'].items():
    # The rotation goes through single precision: 1e-7 of 0.1 m is 1e-5 mm, and not exactly zero is
    # above the first threshold of the curve, half an interval of its area.
    atol = 0.5 / 99 + 1e-9 if 'auc' in name else 5e-5
    np.testing.assert_allclose(value, 0 if name.endswith('_mm') else 1, atol=atol, err_msg=name)


def test_a_wrong_orientation_counts_only_before_alignment():
  world = World(noise=0.0, turn=0.0)
  angle = 0.2
  about_x = Rotation.from_rotvec([angle, 0, 0]).as_matrix()
  world.predicted_rotation = world.rotation @ about_x
  # A turn about x moves a point by its distance from that axis times the chord of the angle.
  root = world.vertices.astype(np.float64) @ world.rotation
  expected = 1000 * 2 * np.sin(angle / 2) * np.linalg.norm(root[..., 1:], axis=-1).mean()
  posterior = world.evaluate()['posterior']
  np.testing.assert_allclose(posterior['mpvpe_mm'], expected, rtol=1e-5)
  np.testing.assert_allclose(posterior['pa_mpvpe_mm'], 0, atol=5e-5)


def test_without_full_only_the_errors_are_computed():
  world = World()
  results, cheap = world.evaluate(), world.evaluate(full=False)
  assert tuple(cheap['posterior']) == evaluate.ERROR_NAMES
  for name in evaluate.ERROR_NAMES:
    assert cheap['prior'][name] == results['prior'][name]


def test_a_prediction_that_is_not_finite_is_refused():
  world = World()
  world.predicted['prior'][2, 3] = np.nan
  with pytest.raises(ValueError, match='predicted: expected finite'):
    world.evaluate()


def with_sigma(world, sigma):
  """The world with one sigma (metres) for the coordinates of each example and vertex."""
  shape = world.log_variance.shape
  sigma = np.broadcast_to(sigma, shape[:2])[..., None]
  world.log_variance = np.broadcast_to(np.log(sigma**2), shape).astype(np.float32)
  return world


def test_calibration_matches_scipy_in_both_frames():
  world = World(1)
  uncertainty = world.evaluate()['uncertainty']
  sigma = np.sqrt(np.mean(np.exp(world.log_variance.astype(np.float64)), axis=-1))
  posterior = world.predicted['posterior'].astype(np.float64)
  root = posterior @ world.predicted_rotation - world.vertices @ world.rotation
  for name, difference in (('', posterior - world.vertices), ('_camera_axes', root)):
    error = np.linalg.norm(difference, axis=-1)
    across = scipy.stats.spearmanr(sigma.mean(1), error.mean(1)).statistic
    within = [scipy.stats.spearmanr(sigma[:, v], error[:, v]).statistic for v in range(VERTICES)]
    np.testing.assert_allclose(uncertainty[f'across_examples{name}'], across, atol=1e-9)
    np.testing.assert_allclose(uncertainty[f'within_vertices{name}'], np.mean(within), atol=1e-9)
  np.testing.assert_allclose(uncertainty['mean_sigma_mm'], 1000 * sigma.mean(), rtol=1e-5)


def test_sigma_is_the_root_of_the_mean_variance_in_mm():
  world = World()
  world.log_variance[:] = np.log(np.array([0.001, 0.002, 0.005]) ** 2)
  expected = np.sqrt((1 + 4 + 25) / 3)
  result = world.evaluate()['uncertainty']['mean_sigma_mm']
  np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_a_constant_sigma_per_vertex_scores_exactly_zero_within_vertices():
  """Though it is the better the further out a vertex lies, it says nothing about the photo."""
  world = with_sigma(World(), np.linspace(0.001, 0.01, VERTICES)[None])
  uncertainty = world.evaluate()['uncertainty']
  assert uncertainty['within_vertices'] == 0.0
  assert uncertainty['within_vertices_camera_axes'] == 0.0
  assert uncertainty['across_examples'] == 0.0


def test_a_sigma_that_knows_the_error_scores_one():
  world = World()
  error = np.linalg.norm(world.predicted['posterior'] - world.vertices, axis=-1)
  uncertainty = with_sigma(world, error / np.sqrt(3)).evaluate()['uncertainty']
  assert uncertainty['across_examples'] == pytest.approx(1.0)
  assert uncertainty['within_vertices'] == pytest.approx(1.0)
  assert uncertainty['squared_error_over_variance'] == pytest.approx(1.0, rel=1e-4)


def test_sigma_of_the_right_size_has_unit_squared_error_over_variance():
  noise = 0.004
  world = World(noise=noise)
  uncertainty = with_sigma(world, noise).evaluate()['uncertainty']
  # 11 * 40 * 3 samples: a standard deviation of sqrt(2 / 1320) = 0.04.
  assert uncertainty['squared_error_over_variance'] == pytest.approx(1.0, abs=0.12)


# The mean hand.


def naive_generalised_mean(shapes, rounds=200):
  """Turn every unit shape onto the mean by scipy, take the best constant again, in plain loops."""
  units = [s - s.mean(0) for s in shapes]
  size = np.sqrt(np.mean([np.sum(u**2) for u in units]))
  units = [u / np.linalg.norm(u) for u in units]
  mean = units[0]
  for _ in range(rounds):
    total = np.zeros_like(mean)
    for unit in units:
      turned = Rotation.align_vectors(mean, unit)[0].apply(unit)
      total += np.sum(turned * mean) * turned
    mean = total / np.linalg.norm(total)
  return size * mean


def test_generalised_mean_matches_plain_loops():
  shapes = World().vertices.astype(np.float64)
  np.testing.assert_allclose(
    mean_hand.generalised_procrustes_mean(shapes, tolerance=1e-12),
    naive_generalised_mean(shapes),
    atol=1e-8,
  )


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(seeds)
def test_generalised_mean_of_one_shape_moved_about_is_that_shape(seed):
  rng = np.random.default_rng(seed)
  shape = rng.normal(size=(VERTICES, 3)) * 0.05
  turned = [
    rng.uniform(0.5, 2) * shape @ turn + rng.normal(size=3)
    for turn in Rotation.random(6, random_state=rng).as_matrix()
  ]
  mean = mean_hand.generalised_procrustes_mean(np.array(turned))
  np.testing.assert_allclose(metrics.procrustes_align(mean, shape), shape, atol=1e-6)
  size = np.sqrt(np.mean([np.sum((t - t.mean(0)) ** 2) for t in turned]))
  np.testing.assert_allclose(np.linalg.norm(mean), size)


def test_generalised_mean_beats_other_constants_after_alignment():
  shapes = World().vertices.astype(np.float64)
  shapes /= np.linalg.norm(shapes - shapes.mean(1, keepdims=True), axis=(1, 2), keepdims=True)
  mean = mean_hand.generalised_procrustes_mean(shapes, tolerance=1e-10)

  def squared_error(constant):
    aligned = metrics.procrustes_align(np.broadcast_to(constant, shapes.shape), shapes)
    return np.sum((aligned - shapes) ** 2)

  best = squared_error(mean)
  rng = np.random.default_rng(0)
  for size in (1e-4, 1e-2, 1e-1):
    assert squared_error(mean + size * rng.normal(size=mean.shape)) > best
  assert squared_error(shapes[0]) > best


def test_generalised_mean_says_when_it_does_not_settle():
  with pytest.raises(ValueError, match='still moves after 1 rounds'):
    mean_hand.generalised_procrustes_mean(World().vertices, tolerance=1e-12, max_rounds=1)


def test_the_mean_hand_is_used_before_and_after_alignment():
  world = World()
  root = world.vertices.astype(np.float64) @ world.rotation
  mean = mean_hand.compute_mean_hand(root)
  assert mean.examples == EXAMPLES
  np.testing.assert_allclose(mean.vertices_root, np.mean(root, axis=0))
  results = world.evaluate(
    [world.batch([0, 1, 2]), world.batch(range(3, EXAMPLES))], mean_hand=mean
  )
  plain = [naive_metrics(mean.vertices_root, target) for target in root]
  aligned = [naive_metrics(mean.vertices_aligned, target, 'pa_') for target in root]
  for values in (plain, aligned):
    for name in values[0]:
      expected = np.mean([example[name] for example in values])
      np.testing.assert_allclose(results['mean_hand'][name], expected, rtol=1e-5, err_msg=name)


def test_root_vertices_are_mirrored_for_left_hands():
  vertices = np.array([[0.1, 0.2, 0.9], [0.0, 0.1, 1.0]], np.float32)
  joints = np.array([[0.0, 0.1, 1.0]] * JOINTS, np.float32)
  expected = np.array([[0.1, 0.1, -0.1], [0, 0, 0]])
  right = mean_hand.root_vertices(vertices, joints, 'right')
  np.testing.assert_allclose(right, expected, atol=1e-7)
  left = mean_hand.root_vertices(vertices, joints, 'left')
  np.testing.assert_allclose(left, expected * [-1, 1, 1], atol=1e-7)
  with pytest.raises(ValueError, match='there are none'):
    mean_hand.compute_mean_hand([])


def test_synthetic_meshes_need_no_rendering():
  examples = render_examples(5, 'train', range(3), 32)
  expected = [
    mean_hand.root_vertices(example.vertices_camera, example.joints_camera, example.side)
    for example in examples
  ]
  ours = mean_hand.rendered_root_vertices(5, 'train', 3)
  # The labels are stored about the camera, up to a metre away, in single precision.
  np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_the_mean_hand_is_cached_by_what_went_in(tmp_path):
  path = tmp_path / 'deep' / 'mean.npz'
  calls = []

  def vertices():
    calls.append(1)
    return World(len(calls)).vertices.astype(np.float64)

  first = mean_hand.cached_mean_hand(path, 'first 11 of train', vertices)
  again = mean_hand.cached_mean_hand(path, 'first 11 of train', vertices)
  assert len(calls) == 1
  np.testing.assert_array_equal(again.vertices_aligned, first.vertices_aligned)
  assert again.examples == EXAMPLES
  other = mean_hand.cached_mean_hand(path, 'first 12 of train', vertices)
  assert len(calls) == 2
  assert not np.allclose(other.vertices_root, first.vertices_root)
  assert [p.name for p in path.parent.iterdir()] == ['mean.npz']


def test_the_table_shows_every_metric_and_the_gain_over_the_mean_hand():
  world = World()
  mean = mean_hand.compute_mean_hand(world.vertices.astype(np.float64) @ world.rotation)
  results = world.evaluate(mean_hand=mean)
  table = evaluate.format_table(results)
  rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
  for name in evaluate.METRIC_NAMES:
    posterior, prior, baseline = (float(value) for value in rows[name][:3])
    assert posterior == pytest.approx(results['posterior'][name], abs=0.006)
    assert prior == pytest.approx(results['prior'][name], abs=0.006)
    assert baseline == pytest.approx(results['mean_hand'][name], abs=0.006)
  ours, theirs = results['posterior']['pa_mpjpe_mm'], results['mean_hand']['pa_mpjpe_mm']
  gain = float(rows['pa_mpjpe_mm'][3].rstrip('%'))
  assert gain == pytest.approx(100 * (1 - ours / theirs), abs=0.06)
  shares = results['posterior']['auc_joints'] - results['mean_hand']['auc_joints']
  assert float(rows['auc_joints'][3]) == pytest.approx(shares, abs=6e-4)
  assert f'over {EXAMPLES} examples' in table
  assert 'mean hand' not in evaluate.format_table(world.evaluate())
