"""Scores of sigma's size: closed forms of normal errors, quadrature, and what must not matter."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from hand_jax.evaluation import calibration

NORMAL = scipy.stats.norm
COUNT = 30_000
# The quantiles of a normal variable in even steps: its moments without the noise of samples. What
# is cut off beyond the last step costs 1e-4 of the variance.
GRID = NORMAL.ppf((np.arange(COUNT) + 0.5) / COUNT)


def normal_errors(true_sigma, stated_sigma, seed=0):
  """Errors of one deviation and sigmas of another, as points in a random order."""
  error = np.random.default_rng(seed).permutation(true_sigma * GRID).reshape(-1, 10, 3)
  return error, np.full_like(error, stated_sigma)


@pytest.mark.parametrize('sigma', [0.3, 1.0, 4.0])
def test_right_sigma_has_the_scores_of_the_closed_forms(sigma):
  error, stated = normal_errors(sigma, sigma)
  expected = 0.5 * np.log(2 * np.pi * np.e * sigma**2)
  assert calibration.mean_nll(error, stated) == pytest.approx(expected, abs=1e-4)
  crps = calibration.mean_crps(error, stated)
  assert crps == pytest.approx(sigma / np.sqrt(np.pi), rel=1e-4)
  assert calibration.mean_squared_z(error, stated) == pytest.approx(1, rel=2e-4)
  one_sigma, two_sigma = (NORMAL.cdf(k) - NORMAL.cdf(-k) for k in (1, 2))
  assert (round(one_sigma, 3), round(two_sigma, 3)) == (0.683, 0.954)
  for level in (0.68, one_sigma, 0.95, two_sigma):
    found = calibration.coverage(error, stated, level)
    assert found.coordinates == pytest.approx(level, abs=2 / COUNT)


@pytest.mark.parametrize('factor', [0.5, 2.0])
def test_wrong_sigma_has_the_scores_of_the_closed_forms(factor):
  """The stated deviation is half or twice the true one, 3."""
  true = 3.0
  stated = factor * true
  error, sigma = normal_errors(true, stated)
  nll = 0.5 * np.log(2 * np.pi * stated**2) + 0.5 / factor**2
  assert calibration.mean_nll(error, sigma) == pytest.approx(nll, abs=4e-4)
  # E|X - Y| - E|X - X'| / 2 of the stated X and the true Y.
  crps = np.sqrt(2 / np.pi) * np.hypot(true, stated) - stated / np.sqrt(np.pi)
  assert calibration.mean_crps(error, sigma) == pytest.approx(crps, rel=1e-4)
  assert calibration.mean_squared_z(error, sigma) == pytest.approx(1 / factor**2, rel=2e-4)
  for level in (0.68, 0.95):
    inside = 2 * NORMAL.cdf(factor * NORMAL.ppf((1 + level) / 2)) - 1
    found = calibration.coverage(error, sigma, level)
    assert found.coordinates == pytest.approx(inside, abs=2 / COUNT)
  ence = calibration.expected_normalized_error(calibration.binned_errors(error, sigma))
  assert ence == pytest.approx(abs(1 - 1 / factor), rel=1e-3)


@pytest.mark.parametrize('score', [calibration.mean_nll, calibration.mean_crps])
def test_proper_scores_are_least_for_the_right_sigma(score):
  values = [score(*normal_errors(2.0, stated)) for stated in (1.0, 1.8, 2.0, 2.2, 4.0)]
  assert min(values) == values[2]


@pytest.mark.parametrize('error, sigma', [(0.0, 1.0), (1.7, 0.6), (-4.0, 2.5)])
def test_one_coordinate_matches_quadrature(error, sigma):
  """CRPS is the squared area between the step of the truth and the stated distribution."""

  def squared(x):
    return (NORMAL.cdf(x, scale=sigma) - (x >= error)) ** 2

  parts = ((-np.inf, error), (error, np.inf))
  expected = sum(scipy.integrate.quad(squared, *part)[0] for part in parts)
  assert calibration.mean_crps(np.array([error]), np.array([sigma])) == pytest.approx(expected)
  nll = -NORMAL.logpdf(error, scale=sigma)
  assert calibration.mean_nll(np.array([error]), np.array([sigma])) == pytest.approx(nll)


def test_crps_tends_to_the_absolute_error():
  error = np.array([3.0, -1.0])
  assert calibration.mean_crps(error, np.full(2, 1e-9)) == pytest.approx(2.0)


def test_points_are_covered_as_the_chi_square_distribution_says():
  rng = np.random.default_rng(0)
  sigma = rng.uniform(0.5, 5, (40_000, 3))
  error = rng.normal(size=sigma.shape) * sigma
  for level in (0.68, 0.95):
    found = calibration.coverage(error, sigma, level)
    # Three deviations of a share of 40,000.
    noise = 3 * np.sqrt(level * (1 - level) / len(error))
    assert found.points == pytest.approx(level, abs=noise)
    np.testing.assert_allclose(found.axes, level, atol=noise)
    assert found.level == level


def test_points_with_a_shared_scale_are_covered_as_fishers_distribution_says():
  """Three normal axes over the root of one chi-square variable: Student's t in space."""
  rng, degrees = np.random.default_rng(0), 4.0
  scale = np.sqrt(degrees / rng.chisquare(degrees, (40_000, 1)))
  error = rng.normal(size=(40_000, 3)) * scale
  sigma = np.full_like(error, scipy.stats.t.ppf(NORMAL.cdf(1), degrees))
  for level in (0.68, 0.95):
    found = calibration.coverage(error, sigma, level, degrees)
    assert found.points == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / len(error)))


def test_each_axis_has_its_own_coverage():
  error, sigma = normal_errors(1.0, 1.0)
  sigma *= [0.5, 1.0, 100.0]
  half, right, all_of_it = calibration.coverage(error, sigma, 0.95).axes
  assert half == pytest.approx(2 * NORMAL.cdf(0.5 * NORMAL.ppf(0.975)) - 1, abs=0.02)
  assert right == pytest.approx(0.95, abs=0.01) and all_of_it == 1


def test_the_border_of_an_interval_is_inside():
  error = np.full((1, 3), NORMAL.ppf(0.84))
  assert calibration.coverage(error * (1 - 1e-12), np.ones((1, 3)), 0.68).coordinates == 1
  assert calibration.coverage(error * (1 + 1e-9), np.ones((1, 3)), 0.68).coordinates == 0


def test_unknown_coordinates_change_nothing():
  rng = np.random.default_rng(1)
  sigma = rng.uniform(0.5, 2, (50, 4, 3))
  error = rng.normal(size=sigma.shape)
  holes = error.copy()
  extra = np.concatenate([holes, np.full((7, 4, 3), np.nan)])
  sigmas = np.concatenate([sigma, rng.uniform(1, 2, (7, 4, 3))])
  extra = np.concatenate([extra, rng.normal(size=(7, 4, 3))])  # errors without a sigma
  sigmas = np.concatenate([sigmas, np.full((7, 4, 3), np.nan)])
  for score in (calibration.mean_nll, calibration.mean_crps, calibration.mean_squared_z):
    assert score(extra, sigmas) == score(error, sigma)
  whole, holed = (calibration.coverage(*pair, 0.68) for pair in ((error, sigma), (extra, sigmas)))
  assert whole.coordinates == holed.coordinates and whole.points == holed.points
  np.testing.assert_array_equal(whole.axes, holed.axes)
  curve = calibration.reliability(extra, sigmas)
  np.testing.assert_array_equal(curve.shares, calibration.reliability(error, sigma).shares)
  bins = calibration.binned_errors(extra, sigmas)
  np.testing.assert_array_equal(bins.rms_error, calibration.binned_errors(error, sigma).rms_error)


def test_an_axis_that_is_never_known_has_no_coverage():
  error, sigma = np.ones((5, 3)), np.full((5, 3), 10.0)
  error[:, 2] = np.nan
  found = calibration.coverage(error, sigma, 0.95)
  assert found.axes[:2].tolist() == [1, 1] and np.isnan(found.axes[2]) and np.isnan(found.points)
  assert found.coordinates == 1


@pytest.mark.parametrize('sigma', [0.0, -1.0, np.inf])
def test_a_sigma_that_is_none_is_refused(sigma):
  sigmas = np.array([[1.0, sigma, 1.0]])
  with pytest.raises(ValueError, match='sigma: expected finite numbers above zero'):
    calibration.mean_nll(np.ones((1, 3)), sigmas)
  unknown = np.array([[1.0, np.nan, 1.0]])
  assert np.isfinite(calibration.mean_nll(unknown, sigmas))


def test_what_cannot_be_scored_is_refused():
  nothing = np.full((2, 3), np.nan)
  with pytest.raises(ValueError, match='nothing to score'):
    calibration.coverage(nothing, np.ones((2, 3)), 0.68)
  with pytest.raises(ValueError, match='error: expected finite'):
    calibration.mean_crps(np.array([np.inf]), np.ones(1))


def test_reliability_is_the_diagonal_for_the_right_sigma_and_known_for_half_of_it():
  curve = calibration.reliability(*normal_errors(2.0, 2.0))
  np.testing.assert_allclose(curve.shares, curve.levels, atol=2 / COUNT)
  half = calibration.reliability(*normal_errors(2.0, 1.0))
  expected = 2 * NORMAL.cdf(0.5 * NORMAL.ppf((1 + half.levels) / 2)) - 1
  np.testing.assert_allclose(half.shares, expected, atol=2 / COUNT)


def test_bins_of_like_sigma_show_their_own_errors():
  """Ten sigmas, each with normal errors of its own size: ENCE is nothing but the grid's cut."""
  sizes = np.linspace(1, 10, 10)
  error, sigma = np.outer(sizes, GRID), np.repeat(sizes[:, None], COUNT, axis=1)
  mixed = np.random.default_rng(0).permutation(error.size)
  binned = calibration.binned_errors(error.ravel()[mixed], sigma.ravel()[mixed])
  np.testing.assert_allclose(binned.rms_sigma, sizes, rtol=1e-12)
  np.testing.assert_allclose(binned.rms_error, sizes, rtol=1e-4)
  assert binned.counts.tolist() == [COUNT] * 10
  assert calibration.expected_normalized_error(binned) < 1e-4
  # Errors that do not follow sigma: right on average over all, wrong in every bin.
  constant = np.full(sigma.shape, np.sqrt(np.mean(sizes**2))) * GRID
  binned = calibration.binned_errors(constant, sigma)
  assert calibration.mean_squared_z(constant, sigma) != pytest.approx(1, rel=0.1)
  expected = np.mean(np.abs(sizes - np.sqrt(np.mean(sizes**2))) / sizes)
  assert calibration.expected_normalized_error(binned) == pytest.approx(expected, rel=1e-3)


def test_bins_have_equal_counts_and_ties_stay_together():
  error = np.arange(1.0, 21.0)
  assert calibration.binned_errors(error, error, 4).counts.tolist() == [5, 5, 5, 5]
  constant = calibration.binned_errors(error, np.full(20, 3.0), 4)
  assert constant.counts.tolist() == [20]
  assert constant.rms_error == pytest.approx([np.sqrt(np.mean(error**2))])
  sigma = np.repeat([1.0, 2.0], [15, 5])
  order = np.random.default_rng(0).permutation(20)
  tied = [calibration.binned_errors(error[rows], sigma[rows], 4) for rows in (slice(None), order)]
  assert tied[0].counts.tolist() == tied[1].counts.tolist() == [15, 5]
  np.testing.assert_allclose(tied[0].rms_error, tied[1].rms_error)
  one = calibration.binned_errors(np.array([2.0]), np.array([1.0]))
  assert one.counts.tolist() == [1] and calibration.expected_normalized_error(one) == 1


# Factors of sigma.

GROUPS = np.array([0, 0, 1, 2, 1, 2])
TRUE_SCALES = np.array([0.5, 3.0, 1.25])


def grouped_errors(examples=5000):
  """Errors whose deviation is the stated one times the factor of the point's group."""
  rng = np.random.default_rng(0)
  shape = (examples, len(GROUPS), 3)
  sigma = rng.uniform(0.5, 4, shape)
  quantiles = NORMAL.ppf((np.arange(3 * examples) + 0.5) / (3 * examples))
  normal = np.stack([rng.permutation(quantiles) for _ in GROUPS]).reshape(-1, examples, 3)
  return normal.swapaxes(0, 1) * sigma * TRUE_SCALES[GROUPS][:, None], sigma


def test_the_fit_finds_the_factors_of_normal_errors():
  error, sigma = grouped_errors()
  scales = calibration.likelihood_scales(error, sigma, GROUPS)
  np.testing.assert_allclose(scales, TRUE_SCALES, rtol=3e-4)


@pytest.mark.parametrize('degrees', [2.0, 3.5, 30.0])
def test_the_fit_finds_the_factors_of_heavy_tails(degrees):
  """Both intervals hold what they should, which no factor of a normal density reaches."""
  count = 18 * 1700
  steps = (np.arange(count) + 0.5) / count
  one_sigma = scipy.stats.t.ppf(NORMAL.cdf(1), degrees)
  error = np.random.default_rng(5).permutation(scipy.stats.t.ppf(steps, degrees)) / one_sigma
  error = error.reshape(-1, 6, 3) * TRUE_SCALES[GROUPS][:, None]
  scales = calibration.likelihood_scales(error, np.ones_like(error), GROUPS, degrees)
  np.testing.assert_allclose(scales, TRUE_SCALES, rtol=0.02)
  sigma = calibration.scale_sigma(np.ones_like(error), TRUE_SCALES, GROUPS)
  for level in (0.68, 0.95):
    found = calibration.coverage(error, sigma, level, degrees).coordinates
    assert found == pytest.approx(level, abs=2 / count)
  curve = calibration.reliability(error, sigma, degrees_of_freedom=degrees)
  np.testing.assert_allclose(curve.shares, curve.levels, atol=2 / count)
  as_normal = calibration.coverage(error, sigma, 0.95).coordinates
  assert as_normal < 0.95 - 0.001


@pytest.mark.parametrize('degrees', [np.inf, 4.0])
def test_the_likelihood_factor_is_where_the_nll_is_least(degrees):
  rng = np.random.default_rng(3)
  error, sigma = rng.standard_t(4, (40, 6, 3)), rng.uniform(0.5, 2, (40, 6, 3))
  scales = calibration.likelihood_scales(error, sigma, GROUPS, degrees)

  def nll(scales):
    return calibration.mean_nll(error, calibration.scale_sigma(sigma, scales, GROUPS), degrees)

  for group in range(3):
    for change in (0.99, 1.01):
      assert nll(scales * np.where(np.arange(3) == group, change, 1)) > nll(scales)


def test_normal_errors_scaled_by_their_factor_have_unit_squares():
  rng = np.random.default_rng(3)
  error, sigma = rng.standard_t(4, (40, 6, 3)), rng.uniform(0.5, 2, (40, 6, 3))
  scales = calibration.likelihood_scales(error, sigma, GROUPS)
  scaled = calibration.scale_sigma(sigma, scales, GROUPS)
  for group in range(3):
    points = group == GROUPS
    z = calibration.mean_squared_z(error[:, points], scaled[:, points])
    assert z == pytest.approx(1, rel=1e-12)


def test_factors_take_known_coordinates_alone_and_need_some():
  error, sigma = grouped_errors(50)
  expected = calibration.likelihood_scales(error[:30], sigma[:30], GROUPS)
  error[30:40], sigma[40:] = np.nan, np.nan
  np.testing.assert_allclose(calibration.likelihood_scales(error, sigma, GROUPS), expected)
  error[:, GROUPS == 1] = np.nan
  with pytest.raises(ValueError, match='group 1 has no coordinate'):
    calibration.likelihood_scales(error, sigma, GROUPS)


def test_scaling_reaches_every_point_of_a_group_alone():
  scaled = calibration.scale_sigma(np.ones((2, 6, 3)), TRUE_SCALES, GROUPS)
  assert scaled.shape == (2, 6, 3)
  np.testing.assert_array_equal(scaled[1, :, 2], [0.5, 0.5, 3, 1.25, 3, 1.25])
