"""Measures whether sigma ranks errors, by risk-coverage curves and by rank correlations."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.evaluation.metrics import spearman_correlation

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_LEVEL = 0.95
# Ranks are computed for this many values at once.
_VALUES_AT_ONCE = 2_000_000


class RiskCoverage(NamedTuple):
  """The mean error of the values that are kept when those of largest sigma are refused.

  It is in the unit of the errors.
  """

  shares: Float[np.ndarray, ' kept']
  """The shares that are kept: 1/n, 2/n, and so on up to 1."""
  risk: Float[np.ndarray, ' kept']
  """The mean error when values are kept by sigma, the smallest first."""
  oracle: Float[np.ndarray, ' kept']
  """The mean error when values are kept by the error itself. No sigma does better."""


def risk_coverage(sigma: Float[np.ndarray, ' n'], error: Float[np.ndarray, ' n']) -> RiskCoverage:
  """Computes the risk-coverage curve (El-Yaniv and Wiener 2010).

  Read from right to left, it is a sparsification plot. Chance decides which of several equal sigmas
  is kept first. The curve is the mean over their orders, so that a constant sigma makes it flat.

  Raises:
    ValueError: there is no value, or one is not finite.
  """
  if not error.size or not (np.isfinite(sigma).all() and np.isfinite(error).all()):
    raise ValueError('sigma and error: expected at least one value, and finite ones')
  error = error.astype(np.float64)
  _, block, counts = np.unique(sigma, return_inverse=True, return_counts=True)
  means = np.bincount(block, error) / counts
  kept = np.arange(1, error.size + 1)
  return RiskCoverage(
    shares=kept / error.size,
    risk=np.cumsum(np.repeat(means, counts)) / kept,
    oracle=np.cumsum(np.sort(error)) / kept,
  )


def sparsification_error(curve: RiskCoverage) -> float:
  """Computes AUSE, the area between the curve by sigma and the oracle's (Ilg et al. 2018).

  It is the mean over all shares of their difference, divided by the mean error of everything, and
  so has no unit. At best it is 0. It is also 0 where there is no error at all.
  """
  area = float(np.mean(curve.risk - curve.oracle))
  return area / float(curve.risk[-1]) if curve.risk[-1] > 0 else 0.0


def uninformative_sparsification_error(curve: RiskCoverage) -> float:
  """Computes the AUSE that a constant sigma has on the same errors, for comparison."""
  return sparsification_error(curve._replace(risk=np.full_like(curve.risk, curve.risk[-1])))


def varies(values: Float[np.ndarray, ' n']) -> bool:
  """Returns whether two values differ. Otherwise no rank correlation is defined."""
  return values.size > 1 and bool((values != values[0]).any())


def spearman_interval(
  sigma: Float[np.ndarray, ' n'],
  error: Float[np.ndarray, ' n'],
  level: float = BOOTSTRAP_LEVEL,
  resamples: int = BOOTSTRAP_RESAMPLES,
  seed: int = 0,
) -> tuple[float, float] | None:
  """Finds an interval for Spearman's correlation by the percentile bootstrap (Efron 1979).

  Examples are drawn with replacement. Draws in which either side is constant are left out. The
  order of the examples does not matter.

  Args:
    sigma: one number per example.
    error: one number per example.
    level: the share of draws that the interval holds.
    resamples: the number of draws.
    seed: seed of the draws.

  Returns:
    Both ends, or None where there are fewer than three examples or either side does not vary.
  """
  if sigma.size < 3 or not (varies(sigma) and varies(error)):
    return None
  order = np.lexsort((error, sigma))
  sigma, error = sigma[order], error[order]
  rng = np.random.default_rng(seed)
  at_once = max(1, _VALUES_AT_ONCE // sigma.size)
  correlations = []
  for start in range(0, resamples, at_once):
    count = min(at_once, resamples - start)
    drawn = rng.integers(sigma.size, size=(count, sigma.size)).T
    sigmas, errors = sigma[drawn], error[drawn]
    defined = (sigmas != sigmas[0]).any(axis=0) & (errors != errors[0]).any(axis=0)
    correlations.append(spearman_correlation(sigmas[:, defined], errors[:, defined]))
  tails = [(1 - level) / 2, (1 + level) / 2]
  low, high = np.quantile(np.concatenate(correlations), tails)
  return float(low), float(high)


def spearman_within_points(
  sigma: Float[np.ndarray, 'examples points'], error: Float[np.ndarray, 'examples points']
) -> float | None:
  """Correlates a point's sigma with its error across examples, and averages over points.

  Both are ranked. A point whose sigma is the same in all examples counts as 0. A pair with NaN in
  either array is left out. The result is None where no point has two pairs.
  """
  known = np.isfinite(sigma) & np.isfinite(error)
  points = known.sum(axis=0) > 1
  if not points.any():
    return None
  if known.all():
    return float(spearman_correlation(sigma, error).mean())
  correlations = [
    spearman_correlation(sigma[known[:, point], point], error[known[:, point], point])
    for point in np.flatnonzero(points)
  ]
  return float(np.mean(correlations))
