"""Metrics against scipy, against plain loops, and by their properties."""

import hypothesis
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import scipy.stats
from hypothesis import strategies as st

from hand_jax.evaluation import metrics

seeds = st.integers(0, 2**32 - 1)
quick = hypothesis.settings(max_examples=40, deadline=None)


def random_pair(seed, batch=(3,), points=21, noise=0.02):
  rng = np.random.default_rng(seed)
  target = rng.normal(size=(*batch, points, 3)) * 0.05
  return target + rng.normal(size=target.shape) * noise, target


def random_rotation(rng):
  return scipy.spatial.transform.Rotation.random(random_state=rng).as_matrix()


def align_with_kabsch(predicted, target):
  """One example by scipy: the best proper rotation, then the scale by least squares."""
  predicted = predicted - predicted.mean(0)
  rotation, _ = scipy.spatial.transform.Rotation.align_vectors(target - target.mean(0), predicted)
  turned = rotation.apply(predicted)
  scale = np.sum(turned * (target - target.mean(0))) / np.sum(turned**2)
  return scale * turned + target.mean(0)


def align_official_with_scipy(predicted, target):
  """One example as the official scripts describe it, on scipy's solver."""
  centre = target.mean(0)
  target, predicted = target - centre, predicted - predicted.mean(0)
  size = np.linalg.norm(target) + 1e-8
  predicted = predicted / (np.linalg.norm(predicted) + 1e-8)
  rotation, scale = scipy.linalg.orthogonal_procrustes(target / size, predicted)
  return predicted @ rotation.T * scale * size + centre


@pytest.mark.parametrize('noise', [0.005, 0.05, 0.5])
def test_alignment_matches_scipys_kabsch(noise):
  predicted, target = random_pair(0, noise=noise)
  expected = [align_with_kabsch(*pair) for pair in zip(predicted, target, strict=True)]
  np.testing.assert_allclose(metrics.procrustes_align(predicted, target), expected, atol=1e-7)


def test_the_scale_of_an_alignment_is_found_from_its_points():
  predicted, target = random_pair(0)
  aligned = metrics.procrustes_align(predicted, target)
  scale = metrics.alignment_scale(predicted, aligned)
  assert scale.shape == (3,)
  # Distances between the points of one hand grow by it.
  before, after = (
    np.linalg.norm(hands[:, 4] - hands[:, 9], axis=-1) for hands in (predicted, aligned)
  )
  np.testing.assert_allclose(scale, after / before)
  doubled = metrics.alignment_scale(2 * predicted + 1, aligned)
  np.testing.assert_allclose(doubled, scale / 2)
  assert metrics.alignment_scale(np.ones((21, 3)), target[0]) == 0


@pytest.mark.parametrize('mirror', [1.0, -1.0])
def test_official_alignment_matches_scipys_orthogonal_procrustes(mirror):
  predicted, target = random_pair(1)
  predicted = predicted * [mirror, 1, 1]
  expected = [align_official_with_scipy(*pair) for pair in zip(predicted, target, strict=True)]
  aligned = metrics.procrustes_align_official(predicted, target)
  np.testing.assert_allclose(aligned, expected, atol=1e-12)


def test_official_alignment_has_the_disparity_of_scipys_procrustes():
  predicted, target = random_pair(2, batch=())
  _, _, disparity = scipy.spatial.procrustes(target, predicted)
  residual = metrics.procrustes_align_official(predicted, target) - target
  relative = np.sum(residual**2) / np.sum((target - target.mean(0)) ** 2)
  np.testing.assert_allclose(relative, disparity, rtol=1e-5)


@quick
@hypothesis.given(seeds, st.floats(0.1, 10))
def test_alignment_undoes_a_similarity(seed, scale):
  rng = np.random.default_rng(seed)
  target = rng.normal(size=(2, 21, 3)) * 0.1
  predicted = scale * target @ random_rotation(rng) + rng.normal(size=3)
  for align in (metrics.procrustes_align, metrics.procrustes_align_official):
    # The official form adds 1e-8 to each norm, which shows at that size.
    np.testing.assert_allclose(align(predicted, target), target, atol=1e-6 * (1 + 1 / scale))


@quick
@hypothesis.given(seeds)
def test_alignment_does_not_depend_on_the_predictions_own_frame(seed):
  rng = np.random.default_rng(seed)
  predicted, target = random_pair(seed)
  moved = 3.0 * predicted @ random_rotation(rng) + rng.normal(size=3)
  np.testing.assert_allclose(
    metrics.procrustes_align(moved, target), metrics.procrustes_align(predicted, target), atol=1e-9
  )


@quick
@hypothesis.given(seeds)
def test_no_nearby_similarity_fits_better(seed):
  rng = np.random.default_rng(seed)
  predicted, target = random_pair(seed, batch=(), noise=0.05)
  best = metrics.procrustes_align(predicted, target)
  centre = target.mean(0)
  for size in (1e-3, 1e-1):
    turn = scipy.spatial.transform.Rotation.from_rotvec(size * rng.normal(size=3)).as_matrix()
    other = (1 + size * rng.normal()) * (best - centre) @ turn + centre + size * rng.normal(size=3)
    assert np.sum((best - target) ** 2) <= np.sum((other - target) ** 2)


def test_a_mirrored_hand_aligns_only_in_the_official_way():
  _, target = random_pair(3)
  mirrored = target * [-1, 1, 1]
  np.testing.assert_allclose(metrics.procrustes_align_official(mirrored, target), target, atol=1e-6)
  assert metrics.mpjpe_mm(metrics.procrustes_align(mirrored, target), target).min() > 5


@pytest.mark.parametrize(
  'align', [metrics.procrustes_align, metrics.procrustes_align_official], ids=['own', 'official']
)
@pytest.mark.parametrize('place', [0.25, 0.3])
def test_points_in_one_place_go_to_the_targets_centre(place, align):
  _, target = random_pair(4)
  expected = np.broadcast_to(target.mean(-2, keepdims=True), target.shape)
  np.testing.assert_allclose(align(np.full_like(target, place), target), expected, atol=1e-6)


def test_alignment_refuses_values_that_are_not_finite():
  predicted, target = random_pair(5)
  predicted[1, 2, 0] = np.nan
  with pytest.raises(ValueError, match='predicted: expected finite'):
    metrics.procrustes_align(predicted, target)


def test_single_precision_inputs_are_taken_in_double():
  predicted, target = (x.astype(np.float32) for x in random_pair(6))
  assert metrics.procrustes_align(predicted, target).dtype == np.float64
  assert metrics.mpjpe_mm(predicted, target).dtype == np.float64


def test_errors_are_distances_in_mm():
  target = np.zeros((2, 2, 3))
  predicted = target + [[[0.003, 0.004, 0.0], [0, 0, 0]], [[0, 0, 0.001], [0, 0, -0.003]]]
  np.testing.assert_allclose(metrics.point_errors_mm(predicted, target), [[5, 0], [1, 3]])
  np.testing.assert_allclose(metrics.mpjpe_mm(predicted, target), [2.5, 2])
  np.testing.assert_allclose(metrics.mpvpe_mm(predicted, target), [2.5, 2])


@quick
@hypothesis.given(seeds)
def test_auc_is_the_trapezoid_of_the_pck_curve(seed):
  """The official order: per keypoint over the examples, then the mean over keypoints."""
  rng = np.random.default_rng(seed)
  errors = rng.gamma(1.5, 20.0, size=(7, 5))
  thresholds = np.linspace(0, 0.05, 100) * 1000
  errors[0, 0], errors[1, 1], errors[2, 2] = 0.0, 50.0, thresholds[37]
  areas = []
  for keypoint in range(5):
    curve = [np.mean([e <= t for e in errors[:, keypoint]]) for t in thresholds]
    areas.append(np.trapezoid(curve, thresholds) / np.trapezoid(np.ones(100), thresholds))
  np.testing.assert_allclose(metrics.auc_0_to_50mm(errors).mean(), np.mean(areas), rtol=1e-12)
  total = metrics.pck_curve(errors, thresholds)
  np.testing.assert_allclose(np.trapezoid(total, thresholds) / 50, np.mean(areas), rtol=1e-12)


def test_auc_at_its_ends():
  errors = np.array([[0.0, 0.0], [50.001, np.inf], [50.0, 50.0]])
  np.testing.assert_allclose(metrics.auc_0_to_50mm(errors), [1.0, 0.0, 0.5 / 99])


@pytest.mark.parametrize('offset', [0.0, 0.7])
def test_nearest_distances_match_a_search_tree(offset):
  rng = np.random.default_rng(7)
  predicted, target = rng.normal(size=(60, 3)) * 0.03, rng.normal(size=(40, 3)) * 0.03
  predicted, target = predicted + offset, target + offset
  predicted[0] = target[0]
  to_target, to_predicted = metrics.nearest_distances_mm(predicted, target)
  expected, _ = scipy.spatial.cKDTree(target).query(predicted)
  # Exact zeros come out as the square root of rounding.
  np.testing.assert_allclose(to_target, 1000 * expected, atol=1e-6)
  expected, _ = scipy.spatial.cKDTree(predicted).query(target)
  np.testing.assert_allclose(to_predicted, 1000 * expected, atol=1e-6)


@quick
@hypothesis.given(seeds, st.floats(1, 40))
def test_f_score_matches_plain_loops(seed, threshold):
  rng = np.random.default_rng(seed)
  predicted, target = rng.normal(size=(2, 9, 3)) * 0.02, rng.normal(size=(2, 12, 3)) * 0.02
  expected = []
  for ours, theirs in zip(predicted, target, strict=True):
    distance = np.array([[1000 * np.linalg.norm(p - t) for t in theirs] for p in ours])
    precision = np.mean([min(row) < threshold for row in distance])
    recall = np.mean([min(column) < threshold for column in distance.T])
    both = precision + recall
    expected.append([2 * precision * recall / both if both else 0.0])
  np.testing.assert_allclose(metrics.f_scores(predicted, target, (threshold,)), expected)


def test_f_score_is_strict_and_bounded():
  grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(1, -1, 3)
  shifted = grid + [0.0078125, 0, 0]  # an exact binary fraction: 7.8125 mm
  np.testing.assert_array_equal(metrics.f_scores(grid, grid), [[1, 1]])
  np.testing.assert_array_equal(metrics.f_scores(shifted, grid), [[0, 1]])
  np.testing.assert_array_equal(metrics.f_scores(shifted, grid, (7.8, 7.9)), [[0, 1]])


def test_f_score_counts_only_what_is_strictly_nearer():
  step = 0.0078125
  one, two = np.zeros((1, 1, 3)), np.array([[[0.0, 0, 0], [step, 0, 0]]])
  for predicted, target in ((one, two), (two, one)):
    origin_free = predicted + 1.0, target + 1.0
    scores = metrics.f_scores(*origin_free, (1000 * step, 1001 * step))
    np.testing.assert_allclose(scores, [[2 / 3, 1]])
  np.testing.assert_array_equal(metrics.f_scores(one, one + 1, (0.0,)), [[0]])


@quick
@hypothesis.given(seeds, st.integers(2, 30), st.integers(2, 12))
def test_ranks_are_counts_and_correlation_matches_scipy_with_ties(seed, count, levels):
  rng = np.random.default_rng(seed)
  first = rng.integers(0, levels, size=(count, 4)).astype(float)
  second = np.round(first + rng.normal(size=(count, 4)), 0)
  # A value's rank: how many are below it, and the middle of those equal to it.
  below, equal = (compare(first[None], first[:, None]).sum(1) for compare in (np.less, np.equal))
  np.testing.assert_array_equal(metrics.average_ranks(first), below + (equal + 1) / 2)
  ours = metrics.spearman_correlation(first, second)
  for column in range(4):
    x, y = first[:, column], second[:, column]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
      assert ours[column] == 0.0
    else:
      expected = scipy.stats.spearmanr(x, y).statistic
      np.testing.assert_allclose(ours[column], expected, atol=1e-12)


@quick
@hypothesis.given(seeds)
def test_correlation_only_sees_the_order(seed):
  rng = np.random.default_rng(seed)
  first, second = rng.normal(size=(2, 25))
  same = metrics.spearman_correlation(first, second)
  assert metrics.spearman_correlation(np.exp(first), second) == same
  assert metrics.spearman_correlation(second, first) == same
  assert metrics.spearman_correlation(-first, second) == pytest.approx(-same)
  assert metrics.spearman_correlation(first, first) == pytest.approx(1.0)
