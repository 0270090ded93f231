"""Checks whether sigma has the right size, and fits factors that correct it.

Every function takes the errors of a mean and the standard deviations (sigma) that were stated for
them, axis by axis and in one unit. A coordinate counts where its error and its sigma are both known
(not NaN). Each axis is taken by itself, except where a function says otherwise. Densities are
normal, or those of Student's t where `degrees_of_freedom` is finite (see `hand_jax.student_t`).
`docs/results.md` explains the figures in words, and `docs/derivations.md` gives their formulas.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from hand_jax.student_t import (
  ellipsoid_in_sigmas,
  interval_in_sigmas,
  negative_log_density,
  ranked_probability_score,
  sigmas_per_scale,
)

ENCE_BINS = 10
RELIABILITY_LEVELS = np.linspace(0.05, 0.95, 19)
# The fit of a factor ends where no step changes it by more than this share.
_FACTOR_TOLERANCE = 1e-7


class Coverage(NamedTuple):
  """The shares that lie inside the central intervals of one level."""

  level: float
  """The share that these intervals should hold, between 0 and 1."""
  coordinates: float
  """The share of all known coordinates that lie inside."""
  axes: Float[np.ndarray, '3']
  """The same share for each axis, or NaN where no coordinate of the axis is known."""
  points: float
  """The share of points that lie inside the ellipsoid of this level.

  Axes are taken as uncorrelated. It is NaN where no point has all three axes known.
  """


class Reliability(NamedTuple):
  """The share of coordinates inside their central interval, for each level."""

  levels: Float[np.ndarray, ' levels']
  """The shares that the intervals should hold."""
  shares: Float[np.ndarray, ' levels']
  """The shares of coordinates that lie inside."""


class BinnedErrors(NamedTuple):
  """Coordinates that are sorted into bins of similar sigma, the smallest sigma first."""

  rms_sigma: Float[np.ndarray, ' bins']
  """The root mean square of the sigmas that each bin holds."""
  rms_error: Float[np.ndarray, ' bins']
  """The root mean square of the errors that each bin holds."""
  counts: Int[np.ndarray, ' bins']
  """How many coordinates each bin holds."""


def known_coordinates(
  error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape']
) -> Bool[np.ndarray, '*shape']:
  """Returns which coordinates have both an error and a sigma.

  Raises:
    ValueError: a known coordinate has a sigma that is not finite and above zero, or an infinite
      error.
  """
  known = ~(np.isnan(error) | np.isnan(sigma))
  if not ((sigma > 0) & np.isfinite(sigma))[known].all():
    raise ValueError('sigma: expected finite numbers above zero, or NaN where none is stated')
  if not np.isfinite(error[known]).all():
    raise ValueError('error: expected finite numbers, or NaN where it is unknown')
  return known


def _known(error: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Selects the known coordinates as flat float64 arrays: errors and sigmas.

  Raises:
    ValueError: no coordinate is known, or one is not valid (see `known_coordinates`).
  """
  known = known_coordinates(error, sigma)
  if not known.any():
    raise ValueError('no coordinate has both an error and a sigma: there is nothing to score')
  return error[known].astype(np.float64), sigma[known].astype(np.float64)


def mean_nll(
  error: Float[np.ndarray, '*shape'],
  sigma: Float[np.ndarray, '*shape'],
  degrees_of_freedom: float = np.inf,
) -> float:
  """Averages the negative log-likelihood of the errors over coordinates, in nats.

  The value depends on the unit: in mm it is ln 1000 = 6.9 higher than in metres. For normal errors
  a sigma of the right size gives 1/2 ln(2 pi e sigma^2) on average. Any other sigma gives more
  (Gneiting and Raftery 2007).

  Raises:
    ValueError: no coordinate is known, or one is not valid (see `known_coordinates`).
  """
  error, sigma = _known(error, sigma)
  return float(np.mean(negative_log_density(error, sigma, degrees_of_freedom)))


def mean_crps(
  error: Float[np.ndarray, '*shape'],
  sigma: Float[np.ndarray, '*shape'],
  degrees_of_freedom: float = np.inf,
) -> float:
  """Averages the continuous ranked probability score over coordinates, in the unit of the errors.

  The score tends to the absolute error as sigma goes to zero. For normal errors its average is
  sigma / sqrt(pi) where sigma has the right size.

  Raises:
    ValueError: no coordinate is known, or one is not valid (see `known_coordinates`).
  """
  error, sigma = _known(error, sigma)
  return float(np.mean(ranked_probability_score(error, sigma, degrees_of_freedom)))


def mean_squared_z(error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape']) -> float:
  """Averages (error / sigma)^2 over coordinates, which gives 1 where sigma has the right size.

  Raises:
    ValueError: no coordinate is known, or one is not valid (see `known_coordinates`).
  """
  error, sigma = _known(error, sigma)
  return float(np.mean((error / sigma) ** 2))


def coverage(
  error: Float[np.ndarray, '*batch 3'],
  sigma: Float[np.ndarray, '*batch 3'],
  level: float,
  degrees_of_freedom: float = np.inf,
) -> Coverage:
  """Counts the coordinates and points that lie inside the central intervals of a level.

  Each interval runs from -q sigma to q sigma, where q is the quantile of (1 + level) / 2, such as
  1.96 for normal errors and a level of 0.95. A point lies inside its ellipsoid if its distance, in
  sigmas, is at most the ellipsoid's half axis. Only points whose three axes are all known count
  there.

  Args:
    error: errors of the mean, per axis.
    sigma: the stated deviations, per axis.
    level: the share that the intervals should hold, between 0 and 1.
    degrees_of_freedom: those of the errors, infinite for normal ones.

  Returns:
    The shares that were found inside.

  Raises:
    ValueError: no coordinate is known, or one is not valid (see `known_coordinates`).
  """
  _known(error, sigma)  # raises an error where there is nothing to count
  squared_z = (error.astype(np.float64) / sigma).reshape(-1, 3) ** 2
  known = ~np.isnan(squared_z)
  inside = squared_z <= interval_in_sigmas(level, degrees_of_freedom) ** 2
  whole = known.all(axis=1)
  in_ellipsoid = squared_z[whole].sum(axis=1) <= ellipsoid_in_sigmas(level, degrees_of_freedom) ** 2
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
  degrees_of_freedom: float = np.inf,
) -> Reliability:
  """Finds the share of coordinates inside the interval of each level (Kuleshov et al. 2018).

  Args:
    error: errors of the mean, per axis.
    sigma: the stated deviations, per axis.
    levels: the shares that the intervals should hold, between 0 and 1.
    degrees_of_freedom: those of the errors, infinite for normal ones.

  Raises:
    ValueError: no coordinate is known, or one is not valid (see `known_coordinates`).
  """
  error, sigma = _known(error, sigma)
  ordered = np.sort(np.abs(error) / sigma)
  widths = [interval_in_sigmas(level, degrees_of_freedom) for level in levels.tolist()]
  inside = np.searchsorted(ordered, widths, side='right')
  return Reliability(levels, inside / ordered.size)


def binned_errors(
  error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape'], bins: int = ENCE_BINS
) -> BinnedErrors:
  """Sorts coordinates by sigma into bins of equal counts, and averages each bin.

  Equal sigmas share a bin, so the order of the input has no effect and a constant sigma makes one
  bin. Bins that stay empty are left out.

  Args:
    error: errors of the mean, per axis.
    sigma: the stated deviations, per axis.
    bins: the largest number of bins.

  Returns:
    The root mean squares of sigma and error in each bin.

  Raises:
    ValueError: no coordinate is known, or one is not valid (see `known_coordinates`).
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
  """Computes the expected normalised calibration error, ENCE (Levi et al. 2022).

  It is the mean over bins of `|rms_sigma - rms_error| / rms_sigma`, the relative difference of
  errors from their sigma. Even for a correct sigma it is above zero by chance, and more so with
  fewer values in a bin.
  """
  return float(np.mean(np.abs(binned.rms_sigma - binned.rms_error) / binned.rms_sigma))


def likelihood_scales(
  error: Float[np.ndarray, '*batch points 3'],
  sigma: Float[np.ndarray, '*batch points 3'],
  groups: Int[np.ndarray, ' points'],
  degrees_of_freedom: float = np.inf,
) -> Float[np.ndarray, ' groups']:
  """Fits for each group the factor of sigma that maximises the likelihood of its errors.

  For normal errors the factor is sqrt(mean(error^2 / sigma^2)) (Laves et al. 2020). For Student's t
  expectation maximisation repeats this with weights that are small for large errors (Lange, Little
  and Taylor 1989).

  Args:
    error: errors of the mean, per axis, NaN where unknown.
    sigma: the stated deviations, per axis.
    groups: the group of each point, numbered from 0.
    degrees_of_freedom: those of the errors, infinite for normal ones.

  Raises:
    ValueError: a group has no known coordinate, or a coordinate is not valid (see
      `known_coordinates`).
  """
  per_scale = sigmas_per_scale(degrees_of_freedom)
  return np.array(
    [
      per_scale * _student_scale((errors / sigmas) ** 2, degrees_of_freedom)
      for errors, sigmas in _coordinates_of_groups(error, sigma, groups)
    ]
  )


def _student_scale(squares: Float[np.ndarray, ' count'], degrees_of_freedom: float) -> float:
  """Finds the scale of Student's t at which the likelihood of squared errors is largest."""
  found = float(np.sqrt(squares.mean()))
  while found > 0 and np.isfinite(degrees_of_freedom):
    weights = (degrees_of_freedom + 1) / (degrees_of_freedom + squares / found**2)
    before, found = found, float(np.sqrt(np.mean(weights * squares)))
    if abs(found - before) <= _FACTOR_TOLERANCE * before:
      break
  return found


def scale_sigma(
  sigma: Float[np.ndarray, '*batch points 3'],
  scales: Float[np.ndarray, ' groups'],
  groups: Int[np.ndarray, ' points'],
) -> Float[np.ndarray, '*batch points 3']:
  """Multiplies the sigma of every point by its group's factor.

  Args:
    sigma: the stated deviations, per axis.
    scales: the factor of each group.
    groups: the group of each point, numbered from 0.
  """
  return sigma * scales[groups][:, None]


def _coordinates_of_groups(
  error: np.ndarray, sigma: np.ndarray, groups: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Selects the known coordinates of each group as flat arrays."""
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
