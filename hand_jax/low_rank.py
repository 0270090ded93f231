"""Normal variables with a few common causes: likelihood, divergence, sampling, and linear maps.

A variable x_i = mean_i + own error + sum_j factor_ij c_j shares its causes c ~ N(0, 1) with the
others, so the covariance is D + L L^T with D diagonal and L of k columns. Nothing here builds the
n x n matrix: time grows as n k^2. See docs/derivations.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float, Key

from hand_jax.gaussian import LOG_TWO_PI
from hand_jax.geometry.precision import full_precision
from hand_jax.types import DiagonalGaussian, LowRankGaussian


def marginals(gaussian: LowRankGaussian) -> DiagonalGaussian:
  """Computes each variable's own Gaussian, which forgets what it has in common with the others."""
  own = gaussian.own_log_variance
  common = jnp.sum(gaussian.factor**2, axis=-1)
  return DiagonalGaussian(gaussian.mean, own + jnp.log1p(common * jnp.exp(-own)))


@full_precision
def low_rank_nll(
  gaussian: LowRankGaussian,
  value: Float[Array, '*shape'],
  known: Bool[Array, '*shape'] | None = None,
) -> Float[Array, '']:
  """Computes -ln N(value | mean, D + L L^T) of all variables together, in nats.

  Args:
    gaussian: the variables.
    value: one value for each, finite also where it is unknown.
    known: which values count. The others are integrated out. None counts all.
  """
  causes, residual, own = _standardized(gaussian, value - gaussian.mean)
  if known is None:
    count = float(residual.size)
  else:
    count = jnp.sum(known)
    seen = known.reshape(-1)
    causes, residual = jnp.where(seen[:, None], causes, 0.0), jnp.where(seen, residual, 0.0)
    own = jnp.where(seen, own, 0.0)
  root = _precision_root(causes)
  log_determinant = jnp.sum(own) + _log_determinant(root)
  return 0.5 * (count * LOG_TWO_PI + log_determinant + _squared_distance(root, causes, residual))


@full_precision
def low_rank_kl(q: DiagonalGaussian, p: LowRankGaussian) -> Float[Array, '']:
  """Computes KL(q || p) of all variables together, in nats.

  It is exact. It is zero only if q and p are equal, hence never where p has common causes. Without
  any it is the sum of `gaussian_kl` over D.
  """
  causes, difference, own = _standardized(p, q.mean - p.mean)
  root = _precision_root(causes)
  log_ratio = q.log_variance.reshape(-1) - own
  # How much of each variable the causes explain, in [0, 1).
  explained = jnp.sum(solve_triangular(root, causes.T, lower=True) ** 2, axis=0)
  # expm1 keeps the digits of a small divergence, as in gaussian_kl.
  apart = jnp.sum(jnp.expm1(log_ratio) - log_ratio)
  together = _log_determinant(root) - jnp.sum(jnp.exp(log_ratio) * explained)
  return 0.5 * (apart + together + _squared_distance(root, causes, difference))


def sample_low_rank(
  key: Key[Array, ''], gaussian: LowRankGaussian, scale: float = 1.0
) -> Float[Array, '*shape']:
  """Draws one reparameterised sample: mean + scale * (own deviation * noise + factor @ causes).

  Args:
    key: decides the noise and the causes.
    gaussian: the variables to draw.
    scale: multiplies all deviations.
  """
  own_key, cause_key = jax.random.split(key)
  mean, factor = gaussian.mean, gaussian.factor
  own = jnp.exp(0.5 * gaussian.own_log_variance)
  noise = own * jax.random.normal(own_key, mean.shape, mean.dtype)
  causes = jax.random.normal(cause_key, factor.shape[-1:], mean.dtype)
  return mean + scale * (noise + jnp.matmul(factor, causes, precision='highest'))


def scale_low_rank(gaussian: LowRankGaussian, factor: float) -> LowRankGaussian:
  """Returns the Gaussian of factor * x, which is x in another unit.

  Raises:
    ValueError: the factor is not positive.
  """
  if not factor > 0:
    raise ValueError(f'scale_low_rank: expected a factor above zero, got {factor!r}.')
  return LowRankGaussian(
    gaussian.mean * factor,
    gaussian.own_log_variance + 2 * float(np.log(factor)),
    gaussian.factor * factor,
  )


def _standardized(gaussian: LowRankGaussian, difference: Array) -> tuple[Array, Array, Array]:
  """Divides the factor and a difference by the own deviations, in flat order. Adds ln D."""
  own = gaussian.own_log_variance.reshape(-1)
  precision_root = jnp.exp(-0.5 * own)
  causes = gaussian.factor.reshape(own.size, -1) * precision_root[:, None]
  return causes, difference.reshape(-1) * precision_root, own


def _precision_root(causes: Float[Array, 'variables causes']) -> Float[Array, 'causes causes']:
  """The lower Cholesky factor of M = I + A^T A, the causes' precision given the variables."""
  return jnp.linalg.cholesky(jnp.eye(causes.shape[1], dtype=causes.dtype) + causes.T @ causes)


def _log_determinant(root: Float[Array, 'causes causes']) -> Float[Array, '']:
  return 2 * jnp.sum(jnp.log(jnp.diagonal(root)))


def _squared_distance(
  root: Float[Array, 'causes causes'],
  causes: Float[Array, 'variables causes'],
  difference: Float[Array, 'variables'],
) -> Float[Array, '']:
  """r^T (I + A A^T)^-1 r = min over c of |r - A c|^2 + |c|^2.

  The sum of two squares loses no digits where the causes explain nearly all of r, as the difference
  that Woodbury's identity has would, and an error of c counts in second order alone.
  """
  explaining = cho_solve((root, True), causes.T @ difference)
  return jnp.sum((difference - causes @ explaining) ** 2) + jnp.sum(explaining**2)
