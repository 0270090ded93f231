"""Whether sigma has the right size: proper scores, coverage, binned errors, factors that mend it.

Every function takes the errors of a mean and the standard deviations that were stated for them,
axis by axis and in one unit. A coordinate counts where both are known (not NaN). The densities are
normal and the axes are taken one by one, except where a function says otherwise. `docs/results.md`
explains the figures in words, `docs/derivations.md` gives their formulas.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

ENCE_BINS = 10
RELIABILITY_LEVELS = np.linspace(0.05, 0.95, 19)

_NORMAL = scipy.stats.norm


class Coverage(NamedTuple):
  """Shares that lie inside the central intervals of one level."""

  level: float
  """What the shares should be."""
  coordinates: float
  """Of all coordinates."""
  axes: Float[np.ndarray, '3']
  """Of the coordinates of each axis; NaN where none is known."""
  points: float
  """Of points, inside the ellipsoid of this level (axes uncorrelated); NaN without any point."""


class Reliability(NamedTuple):
  """The share of coordinates inside their central interval, for each level."""

  levels: Float[np.ndarray, ' levels']
  shares: Float[np.ndarray, ' levels']


class BinnedErrors(NamedTuple):
  """Coordinates in bins of like sigma, the surest first."""

  rms_sigma: Float[np.ndarray, ' bins']
  rms_error: Float[np.ndarray, ' bins']
  counts: Int[np.ndarray, ' bins']


def known_coordinates(
  error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape']
) -> Bool[np.ndarray, '*shape']:
  """Tells which coordinates have both an error and a sigma.

  Raises:
    ValueError: a sigma is not above zero and finite, or an error infinite, where both are known.
  """
  known = ~(np.isnan(error) | np.isnan(sigma))
  if not ((sigma > 0) & np.isfinite(sigma))[known].all():
    raise ValueError('sigma: expected finite numbers above zero, or NaN where there is none')
  if not np.isfinite(error[known]).all():
    raise ValueError('error: expected finite numbers, or NaN where there is none')
  return known


def _known(error: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The known coordinates in float64, flat.

  Raises:
    ValueError: there is none, or see `known_coordinates`.
  """
  known = known_coordinates(error, sigma)
  if not known.any():
    raise ValueError('no coordinate has both an error and a sigma: there is nothing to score')
  return error[known].astype(np.float64), sigma[known].astype(np.float64)


def mean_nll(error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape']) -> float:
  """Averages -ln N(error; 0, sigma^2) over coordinates, in nats.

  Its value depends on the unit: in mm it is ln 1000 = 6.9 above that in metres. Sigma of the right
  size gives 1/2 ln(2 pi e sigma^2), every other a larger value (Gneiting and Raftery 2007).
  """
  error, sigma = _known(error, sigma)
  return float(np.mean(0.5 * np.log(2 * np.pi) + np.log(sigma) + 0.5 * (error / sigma) ** 2))


def mean_crps(error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape']) -> float:
  """Averages the continuous ranked probability score over coordinates, in the unit of the errors.

  Closed form for a normal density (Gneiting et al. 2005). It tends to |error| as sigma vanishes,
  and is sigma / sqrt(pi) on average where sigma has the right size.
  """
  error, sigma = _known(error, sigma)
  z = error / sigma
  score = z * (2 * _NORMAL.cdf(z) - 1) + 2 * _NORMAL.pdf(z) - 1 / np.sqrt(np.pi)
  return float(np.mean(sigma * score))


def mean_squared_z(error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape']) -> float:
  """Averages (error / sigma)^2 over coordinates: 1 where sigma has the right size."""
  error, sigma = _known(error, sigma)
  return float(np.mean((error / sigma) ** 2))


def coverage(
  error: Float[np.ndarray, '*batch 3'], sigma: Float[np.ndarray, '*batch 3'], level: float
) -> Coverage:
  """Counts what lies inside the central intervals of a level.

  An interval is symmetric, from -q sigma to q sigma with q the normal quantile of (1 + level) / 2.
  A point's ellipsoid holds squared distances, in sigmas, up to the chi-square quantile of three
  degrees of freedom; only points whose three axes are known count there.

  Args:
    error: of the mean, per axis.
    sigma: the stated deviation, per axis.
    level: what the shares should be, between 0 and 1.
  """
  _known(error, sigma)  # there is something to count
  squared_z = (error.astype(np.float64) / sigma).reshape(-1, 3) ** 2
  known = ~np.isnan(squared_z)
  inside = squared_z <= _NORMAL.ppf((1 + level) / 2) ** 2
  whole = known.all(axis=1)
  in_ellipsoid = squared_z[whole].sum(axis=1) <= scipy.stats.chi2.ppf(level, 3)
  counts = known.sum(axis=0)
  axes = np.divide(inside.sum(axis=0), counts, out=np.full(3, np.nan), where=counts > 0)
  return Coverage(
    level,
    coordinates=float(inside.sum() / known.sum()),
    axes=axes,
    points=float(np.mean(in_ellipsoid)) if whole.any() else float('nan'),
  )


def reliability(
  error: Float[np.ndarray, '*shape'],
  sigma: Float[np.ndarray, '*shape'],
  levels: Float[np.ndarray, ' levels'] = RELIABILITY_LEVELS,
) -> Reliability:
  """Finds for each level the share of coordinates in that interval (Kuleshov et al. 2018)."""
  error, sigma = _known(error, sigma)
  ordered = np.sort(np.abs(error) / sigma)
  inside = np.searchsorted(ordered, _NORMAL.ppf((1 + levels) / 2), side='right')
  return Reliability(levels, inside / ordered.size)


def binned_errors(
  error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape'], bins: int = ENCE_BINS
) -> BinnedErrors:
  """Sorts coordinates by sigma into bins of equal counts, with the root mean squares of each.

  Equal sigmas share a bin, so that the order of the input says nothing: a constant sigma makes one
  bin. Bins that stay empty are left out.
  """
  error, sigma = _known(error, sigma)
  place = (scipy.stats.rankdata(sigma) - 0.5) / sigma.size
  bin_of = np.minimum((place * bins).astype(int), bins - 1)
  counts = np.bincount(bin_of, minlength=bins)
  used = counts > 0

  def root_mean_squares(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.bincount(bin_of, values**2, bins)[used] / counts[used])

  return BinnedErrors(root_mean_squares(sigma), root_mean_squares(error), counts[used])


def expected_normalized_error(binned: BinnedErrors) -> float:
  """ENCE (Levi et al. 2022): how far the error of a bin is from its sigma, as a share of sigma.

  The mean over bins of |rms_sigma - rms_error| / rms_sigma. Chance alone keeps it above zero, the
  more the fewer values a bin holds.
  """
  return float(np.mean(np.abs(binned.rms_sigma - binned.rms_error) / binned.rms_sigma))


def likelihood_scales(
  error: Float[np.ndarray, '*batch points 3'],
  sigma: Float[np.ndarray, '*batch points 3'],
  groups: Int[np.ndarray, ' points'],
) -> Float[np.ndarray, ' groups']:
  """Fits the factor of sigma that makes the errors of each group likeliest.

  That is sqrt(mean(error^2 / sigma^2)), where the derivative of `mean_nll` by the factor is zero
  (Laves et al. 2020). Heavy tails make it larger than coverage needs.

  Args:
    error: of the mean, per axis, NaN where unknown.
    sigma: the stated deviation, per axis.
    groups: the group of each point, numbered from 0.

  Raises:
    ValueError: a group has no known coordinate.
  """
  scales = [
    np.sqrt(mean_squared_z(*of_group)) for of_group in _coordinates_of_groups(error, sigma, groups)
  ]
  return np.array(scales)


def coverage_scales(
  error: Float[np.ndarray, '*batch points 3'],
  sigma: Float[np.ndarray, '*batch points 3'],
  groups: Int[np.ndarray, ' points'],
  level: float,
) -> Float[np.ndarray, ' groups']:
  """Fits the smallest factor of sigma with which intervals of a level hold that share of a group.

  It is the quantile of |error| / sigma over the normal quantile, as split conformal prediction
  chooses it (Papadopoulos et al. 2002), without the allowance for small samples.

  Args:
    error: of the mean, per axis, NaN where unknown.
    sigma: the stated deviation, per axis.
    groups: the group of each point, numbered from 0.
    level: the share to reach, between 0 and 1.

  Raises:
    ValueError: a group has no known coordinate.
  """
  normal_quantile = _NORMAL.ppf((1 + level) / 2)
  scales = [
    np.quantile(np.abs(errors) / sigmas, level, method='inverted_cdf') / normal_quantile
    for errors, sigmas in _coordinates_of_groups(error, sigma, groups)
  ]
  return np.array(scales)


def scale_sigma(
  sigma: Float[np.ndarray, '*batch points 3'],
  scales: Float[np.ndarray, ' groups'],
  groups: Int[np.ndarray, ' points'],
) -> Float[np.ndarray, '*batch points 3']:
  """Multiplies the sigma of every point by its group's factor."""
  return sigma * scales[groups][:, None]


def _coordinates_of_groups(
  error: np.ndarray, sigma: np.ndarray, groups: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
  """The known coordinates of each group, flat."""
  known = known_coordinates(error, sigma)
  found = []
  for group in range(int(groups.max()) + 1):
    of_group = known & (groups == group)[:, None]
    if not of_group.any():
      raise ValueError(
        f'groups: group {group} has no coordinate with an error and a sigma to fit a factor to'
      )
    found.append((error[of_group].astype(np.float64), sigma[of_group].astype(np.float64)))
  return found
