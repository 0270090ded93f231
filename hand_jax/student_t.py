"""Student's t distribution of errors, stated by a sigma like a Gaussian's.

A Gaussian whose scale is itself uncertain is Student's t: if the square of the scale has an inverse
gamma distribution, the mixture has heavy tails, the more so the fewer its degrees of freedom.
Infinitely many give the Gaussian itself. Here sigma is half of the width of the interval that holds
68.3 % of the distribution, as for a Gaussian. It is not the standard deviation, which is larger and
infinite for two degrees of freedom or fewer. `docs/derivations.md` has the formulas.
"""

import numpy as np
from jaxtyping import Float
from scipy import special

_ONE_SIGMA = special.ndtr(1.0)


def sigmas_per_scale(degrees_of_freedom: float) -> float:
  """Returns sigma as a multiple of the scale of Student's t, which is 1 for a Gaussian."""
  return float(special.stdtrit(degrees_of_freedom, _ONE_SIGMA))


def interval_in_sigmas(level: float, degrees_of_freedom: float) -> float:
  """Returns half the width of the central interval that holds a share of errors, in sigmas.

  Args:
    level: the share, between 0 and 1.
    degrees_of_freedom: those of the errors, above 0. Infinity stands for a Gaussian.

  Raises:
    ValueError: the level is not between 0 and 1.
  """
  if not 0 < level < 1:
    raise ValueError(f'level: expected a share between 0 and 1, such as 0.95, not {level}.')
  quantile = special.stdtrit(degrees_of_freedom, (1 + level) / 2)
  return float(quantile / sigmas_per_scale(degrees_of_freedom))


def ellipsoid_in_sigmas(level: float, degrees_of_freedom: float) -> float:
  """Returns the half axis, in sigmas, of the ellipsoid that holds a share of points in space.

  The three axes share the uncertain scale: a third of the squared distance in scales has Fisher's F
  distribution.
  """
  if np.isinf(degrees_of_freedom):
    return float(np.sqrt(special.chdtri(3, 1 - level)))
  square = 3 * special.fdtri(3, degrees_of_freedom, level)
  return float(np.sqrt(square) / sigmas_per_scale(degrees_of_freedom))


def negative_log_density(
  error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape'], degrees_of_freedom: float
) -> Float[np.ndarray, '*shape']:
  """Computes the negative log-density of each error, in nats."""
  scale = sigma / sigmas_per_scale(degrees_of_freedom)
  return np.log(scale) - _log_density(error / scale, degrees_of_freedom)


def ranked_probability_score(
  error: Float[np.ndarray, '*shape'], sigma: Float[np.ndarray, '*shape'], degrees_of_freedom: float
) -> Float[np.ndarray, '*shape']:
  """Computes the continuous ranked probability score of each error, in the unit of the errors.

  The closed form is that of Jordan, Krüger and Lerch ("Evaluating probabilistic forecasts with
  scoringRules", 2019), and for a Gaussian that of Gneiting et al. (2005).

  Args:
    error: errors of the mean.
    sigma: half widths of the 68.3 % intervals.
    degrees_of_freedom: those of the errors. With 1 or fewer the score would be infinite.
  """
  scale = sigma / sigmas_per_scale(degrees_of_freedom)
  z, nu = error / scale, degrees_of_freedom
  density, below = np.exp(_log_density(z, nu)), special.stdtr(nu, z)
  if np.isinf(nu):
    spread, constant = 1.0, 1 / np.sqrt(np.pi)
  else:
    spread = (nu + z**2) / (nu - 1)
    betas = special.beta(0.5, nu - 0.5) / special.beta(0.5, nu / 2) ** 2
    constant = 2 * np.sqrt(nu) / (nu - 1) * betas
  return scale * (z * (2 * below - 1) + 2 * spread * density - constant)


def _log_density(
  z: Float[np.ndarray, '*shape'], degrees_of_freedom: float
) -> Float[np.ndarray, '*shape']:
  """Computes the log-density of errors in scales."""
  if np.isinf(degrees_of_freedom):
    return -0.5 * (z**2 + np.log(2 * np.pi))
  half = 0.5 * degrees_of_freedom
  constant = special.gammaln(half + 0.5) - special.gammaln(half) - 0.5 * np.log(2 * np.pi * half)
  return constant - (half + 0.5) * np.log1p(z**2 / degrees_of_freedom)
