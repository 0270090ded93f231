"""Ranking by sigma: naive loops, ties, the best and the worst order, and bootstrap intervals."""

import numpy as np
import pytest
import scipy.stats

from hand_jax.evaluation import ranking


def made_up(count=30, seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(1, 5, count), rng.exponential(2, count)


def test_the_curve_matches_plain_loops():
  sigma, error = made_up()
  curve = ranking.risk_coverage(sigma, error)
  pairs = sorted(zip(sigma, error, strict=True))
  for kept in range(1, len(error) + 1):
    assert curve.shares[kept - 1] == pytest.approx(kept / 30)
    assert curve.risk[kept - 1] == pytest.approx(np.mean([e for _, e in pairs[:kept]]))
    assert curve.oracle[kept - 1] == pytest.approx(np.mean(sorted(error)[:kept]))
  area = sum(curve.risk - curve.oracle) / len(error)
  assert ranking.sparsification_error(curve) == pytest.approx(area / np.mean(error))


def test_perfect_ranking_has_no_sparsification_error():
  _, error = made_up()
  curve = ranking.risk_coverage(np.sqrt(error) + 7, error)
  assert ranking.sparsification_error(curve) == pytest.approx(0, abs=1e-12)
  reversed_order = ranking.sparsification_error(ranking.risk_coverage(-error, error))
  assert reversed_order > ranking.uninformative_sparsification_error(curve) > 0


def test_three_errors_by_hand():
  """Errors 1 2 6, mean 3: the oracle keeps 1, 1.5, 3; the reversed order 6, 4, 3."""
  error = np.array([1.0, 2.0, 6.0])
  worst = ranking.risk_coverage(-error, error)
  np.testing.assert_allclose(worst.oracle, [1, 1.5, 3])
  np.testing.assert_allclose(worst.risk, [6, 4, 3])
  assert ranking.sparsification_error(worst) == pytest.approx((5 + 2.5) / 3 / 3)
  assert ranking.uninformative_sparsification_error(worst) == pytest.approx((2 + 1.5) / 3 / 3)


def test_a_constant_sigma_keeps_the_mean_error():
  _, error = made_up()
  curve = ranking.risk_coverage(np.full(30, 2.0), error)
  np.testing.assert_allclose(curve.risk, error.mean())
  assert ranking.sparsification_error(curve) == pytest.approx(
    ranking.uninformative_sparsification_error(curve)
  )


def test_ties_are_the_mean_over_their_orders():
  sigma = np.array([1.0, 2.0, 2.0, 2.0, 3.0])
  error = np.array([4.0, 1.0, 3.0, 8.0, 2.0])
  curves = []
  for order in ([1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]):
    rows = [0, *order, 4]
    curves.append(ranking.risk_coverage(np.arange(5.0), error[rows]).risk)
    np.testing.assert_allclose(
      ranking.risk_coverage(sigma[rows], error[rows]).risk,
      ranking.risk_coverage(sigma, error).risk,
    )
  np.testing.assert_allclose(ranking.risk_coverage(sigma, error).risk, np.mean(curves, axis=0))


def test_one_example_and_no_error_at_all():
  curve = ranking.risk_coverage(np.ones(1), np.full(1, 3.0))
  assert (curve.shares.tolist(), curve.risk.tolist()) == ([1.0], [3.0])
  assert ranking.sparsification_error(curve) == 0
  perfect = ranking.risk_coverage(np.arange(4.0), np.zeros(4))
  assert ranking.sparsification_error(perfect) == 0
  for sigma, error in ((np.ones(0), np.ones(0)), (np.array([np.nan]), np.ones(1))):
    with pytest.raises(ValueError, match='at least one value, and finite'):
      ranking.risk_coverage(sigma, error)


def test_sigma_of_another_unit_ranks_alike():
  sigma, error = made_up()
  curve, scaled = (ranking.risk_coverage(factor * sigma, error) for factor in (1, 1000))
  np.testing.assert_array_equal(curve.risk, scaled.risk)
  in_metres = ranking.risk_coverage(sigma, error / 1000)
  assert ranking.sparsification_error(in_metres) == pytest.approx(
    ranking.sparsification_error(curve)
  )


# Intervals.


def test_the_interval_matches_a_loop_of_scipy():
  sigma, error = made_up(25)
  low, high = ranking.spearman_interval(sigma, error, resamples=4000)
  rng = np.random.default_rng(99)
  drawn = [rng.integers(25, size=25) for _ in range(4000)]
  correlations = [scipy.stats.spearmanr(sigma[rows], error[rows]).statistic for rows in drawn]
  # Both are of 4000 draws; the ends of two such loops differ by some 0.02.
  np.testing.assert_allclose([low, high], np.quantile(correlations, [0.025, 0.975]), atol=0.04)


def test_the_interval_is_repeatable_and_blind_to_the_order():
  sigma, error = made_up(25)
  expected = ranking.spearman_interval(sigma, error)
  order = np.random.default_rng(5).permutation(25)
  assert ranking.spearman_interval(sigma[order], error[order]) == expected
  assert ranking.spearman_interval(sigma, error, seed=1) != expected
  low, high = ranking.spearman_interval(sigma, error, level=0.5)
  assert expected[0] < low < high < expected[1]


def test_draws_in_parts_are_all_there(monkeypatch):
  sigma, error = made_up(25)
  expected = ranking.spearman_interval(sigma, error)
  monkeypatch.setattr(ranking, '_VALUES_AT_ONCE', 25 * 7)
  np.testing.assert_allclose(ranking.spearman_interval(sigma, error), expected, atol=1e-12)


def test_a_perfect_order_is_sure_and_chance_is_not():
  _, error = made_up(40)
  assert ranking.spearman_interval(error**2, error) == pytest.approx((1.0, 1.0))
  low, high = ranking.spearman_interval(*made_up(40))
  assert low < 0 < high


def test_no_interval_where_none_is_defined():
  three = np.array([1.0, 2.0, 3.0])
  assert ranking.spearman_interval(three[:2], three[:2]) is None
  assert ranking.spearman_interval(np.ones(3), three) is None
  assert ranking.spearman_interval(three, np.ones(3)) is None
  assert ranking.spearman_interval(three, three) == pytest.approx((1.0, 1.0))


# Within points.


def test_within_points_matches_scipy_with_unknown_pairs_left_out():
  rng = np.random.default_rng(2)
  sigma, error = rng.uniform(1, 2, (12, 4)), rng.uniform(0, 9, (12, 4))
  whole = [scipy.stats.spearmanr(sigma[:, p], error[:, p]).statistic for p in range(4)]
  assert ranking.spearman_within_points(sigma, error) == pytest.approx(np.mean(whole))
  error[[0, 3], 1], sigma[5, 2], error[1:, 3] = np.nan, np.nan, np.nan
  rows = [np.arange(12), np.delete(np.arange(12), [0, 3]), np.delete(np.arange(12), 5)]
  parts = [scipy.stats.spearmanr(sigma[r, p], error[r, p]).statistic for p, r in enumerate(rows)]
  # The last point has one pair left, and so no correlation.
  assert ranking.spearman_within_points(sigma, error) == pytest.approx(np.mean(parts))


def test_within_points_of_one_example_is_undefined_and_of_constants_nothing():
  assert ranking.spearman_within_points(np.ones((1, 3)), np.ones((1, 3))) is None
  error = np.random.default_rng(0).uniform(size=(6, 3))
  assert ranking.spearman_within_points(np.ones((6, 3)), error) == 0
