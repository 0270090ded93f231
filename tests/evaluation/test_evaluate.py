"""Evaluation of a split: against plain loops, every example once, and the mean hand."""

import math

import hypothesis
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
from hypothesis import strategies as st

from hand_jax.evaluation import evaluate, mean_hand
from hand_jax.evaluation.metrics import procrustes_align
from hand_jax.evaluation.results_text import results_table
from hand_jax.evaluation.uncertainty import FRAMES
from hand_jax.models.branches import BRANCHES, best_branch
from tests.made_up_split import (
  CROP_SIDE,
  EXAMPLES,
  JOINTS,
  VERTICES,
  Rotation,
  World,
  naive_metrics,
)

seeds = st.integers(0, 2**32 - 1)


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


def flat(figures, prefix=''):
  """The numbers of nested dictionaries and lists by their way."""
  if isinstance(figures, dict | list):
    pairs = figures.items() if isinstance(figures, dict) else enumerate(figures)
    parts = [flat(value, f'{prefix}.{name}') for name, value in pairs]
    return {name: value for part in parts for name, value in part.items()}
  return {prefix: figures}


@pytest.mark.slow
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
  for frame in FRAMES:  # of single precision
    pair = [flat(results['uncertainty'].pop(frame)) for results in (parts, whole)]
    assert pair[0] == pytest.approx(pair[1], rel=1e-5, abs=1e-5)
  for part in (*BRANCHES, 'uncertainty', 'joints_2d'):
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
  table = results_table(world.evaluate())
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
  lines = results_table(results).splitlines()
  assert lines[0].split() == [branch, 'mean', 'hand', 'gain']
  rows = {line.split()[0]: line.split()[1:] for line in lines}
  ours, theirs = results[branch]['mpjpe_mm'], results['mean_hand']['mpjpe_mm']
  assert rows['mpjpe_mm'] == [f'{ours:.2f}', f'{theirs:.2f}', f'{100 * (1 - ours / theirs):.1f}%']
  spearman = f"Spearman correlation of the {branch}'s sigma with error"
  place = next(number for number, line in enumerate(lines) if line.startswith(spearman))
  assert f': {branch} {results["joints_2d"][f"{branch}_px"]:.2f} px, in' in lines[place - 1]
  shares = [f'{results["uncertainty"][frame]["coverage_68"]:.1%}' for frame in FRAMES]
  assert lines[place + 2].split()[-3:] == shares


def test_the_best_branch_is_the_posterior_where_there_is_one():
  world = World()
  estimate = world.estimate(world.batch([0, 1]))
  assert best_branch(estimate) is estimate.posterior
  assert best_branch(estimate._replace(posterior=None)) is estimate.prior
  assert best_branch(estimate._replace(prior=None)) is estimate.posterior


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


# Every figure of uncertainty, frame by frame.


def test_figures_of_each_frame_match_plain_loops():
  world = World(2)
  uncertainty = world.evaluate()['uncertainty']
  q = scipy.stats.norm.ppf(0.84)
  inside = {frame: [] for frame in FRAMES}
  nlls = {frame: [] for frame in FRAMES}
  for row in range(EXAMPLES):
    rotation = world.predicted_rotation[row]
    true = world.vertices[row].astype(np.float64) @ world.rotation[row]
    mean = world.predicted['posterior'][row].astype(np.float64)
    aligned = procrustes_align(mean @ rotation, true)
    scale = np.linalg.norm(aligned[3] - aligned[8]) / np.linalg.norm(mean[3] - mean[8])
    for vertex in range(VERTICES):
      covariance = np.diag(np.exp(world.log_variance[row, vertex].astype(np.float64)))
      turned = rotation.T @ covariance @ rotation
      cases = {
        'hand_frame': (mean[vertex] - world.vertices[row, vertex], np.diag(covariance)),
        'root_relative': (mean[vertex] @ rotation - true[vertex], np.diag(turned)),
        'aligned': (aligned[vertex] - true[vertex], np.full(3, scale**2 * turned.trace() / 3)),
      }
      for frame, (error, variance) in cases.items():
        inside[frame] += list(abs(error) <= q * np.sqrt(variance))
        density = scipy.stats.norm.logpdf(1000 * error, scale=1000 * np.sqrt(variance))
        nlls[frame] += list(-density)
  for frame in FRAMES:
    figures = uncertainty[frame]
    assert figures['coordinates'] == EXAMPLES * VERTICES * 3
    assert figures['coverage_68'] == pytest.approx(np.mean(inside[frame]), abs=1e-9)
    assert figures['nll'] == pytest.approx(np.mean(nlls[frame]), rel=1e-5)
  across = uncertainty['across_examples_camera_axes']
  assert uncertainty['root_relative']['spearman_examples'] == pytest.approx(across)
  assert uncertainty['root_relative']['mean_error_mm'] == pytest.approx(
    world.evaluate()['posterior']['mpvpe_mm'], rel=1e-6
  )
  assert uncertainty['aligned']['mean_error_mm'] == pytest.approx(
    world.evaluate()['posterior']['pa_mpvpe_mm'], rel=1e-6
  )


def test_a_wrong_orientation_uncovers_the_root_relative_frame_alone():
  world = with_sigma(World(noise=0.002, turn=0.3), 0.002)
  uncertainty = world.evaluate()['uncertainty']
  assert uncertainty['hand_frame']['coverage_68'] == pytest.approx(0.68, abs=0.04)
  assert uncertainty['root_relative']['coverage_68'] < 0.4
  # Seven degrees of freedom of 120 went into the alignment.
  assert uncertainty['aligned']['coverage_68'] == pytest.approx(0.69, abs=0.05)


def test_without_full_there_are_no_frames():
  assert not set(World().evaluate(full=False)['uncertainty']) & set(FRAMES)


def test_a_hand_collapsed_to_a_point_is_measured():
  world = World()
  world.predicted['posterior'][:] = 0.01
  uncertainty = world.evaluate()['uncertainty']
  assert uncertainty['aligned']['coordinates'] == 0 and uncertainty['aligned']['nll'] is None
  assert uncertainty['hand_frame']['coordinates'] == EXAMPLES * VERTICES * 3
