"""Normal variables with a few common causes: likelihood, divergence, sampling, and linear maps.

A variable x_i = mean_i + own error + sum_j factor_ij c_j shares its causes c ~ N(0, 1) with the
others, so the covariance is D + L L^T with D diagonal and L of k columns. Nothing here builds the
n x n matrix: time grows as n k^2. See docs/derivations.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
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
  inverse_root, log_determinant = _solved_causes(causes)
  distance = _squared_distance(inverse_root, causes, residual)
  return 0.5 * (count * LOG_TWO_PI + jnp.sum(own) + log_determinant + distance)


@full_precision
def low_rank_kl(q: DiagonalGaussian, p: LowRankGaussian) -> Float[Array, '']:
  """Computes KL(q || p) of all variables together, in nats.

  It is exact. It is zero only if q and p are equal, hence never where p has common causes. Without
  any it is the sum of `gaussian_kl` over D.
  """
  causes, difference, own = _standardized(p, q.mean - p.mean)
  inverse_root, log_determinant = _solved_causes(causes)
  log_ratio = q.log_variance.reshape(-1) - own
  # The share of q's variance along the causes: tr(M^-1 A^T (V / D) A).
  weighted = causes.T @ (jnp.exp(log_ratio)[:, None] * causes)
  explained = jnp.sum((inverse_root @ weighted) * inverse_root)
  # expm1 keeps the digits of a small divergence, as in gaussian_kl.
  apart = jnp.sum(jnp.expm1(log_ratio) - log_ratio)
  distance = _squared_distance(inverse_root, causes, difference)
  return 0.5 * (apart + log_determinant - explained + distance)


def sample_low_rank(
  key: Key[Array, ''], gaussian: LowRankGaussian, scale: float | Float[Array, ''] = 1.0
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


def _solved_causes(causes: Float[Array, 'variables causes']) -> tuple[Array, Array]:
  """Gives C^-1 with C C^T = M = I + A^T A, the causes' precision given the variables.

  Adds ln det M.
  """
  return invert_root(jnp.eye(causes.shape[1], dtype=causes.dtype) + causes.T @ causes)


@jax.custom_jvp
def invert_root(
  matrix: Float[Array, 'size size'],
) -> tuple[Float[Array, 'size size'], Float[Array, '']]:
  """Computes the inverse of a small matrix's Cholesky factor, and the determinant's logarithm.

  It eliminates one column after the other below the diagonal, which needs no pivoting for positive
  definite matrices. The inverse of the whole matrix would lose digits that its root keeps: what
  large directions leave of small ones. LAPACK would be as good, but jaxlib 0.10 hands the matrices
  of a batch to the threads that run the program: on two cores, two such calls at a time wait for
  each other for ever.
  """
  rows = jnp.arange(len(matrix))

  def eliminate(index: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
    rest, steps = state
    share = jnp.where(rows > index, rest[:, index] / rest[index, index], 0.0)
    return rest - jnp.outer(share, rest[index]), steps - jnp.outer(share, steps[index])

  start = matrix, jnp.eye(len(matrix), dtype=matrix.dtype)
  rest, steps = jax.lax.fori_loop(0, len(matrix), eliminate, start)
  pivots = jnp.diagonal(rest)
  return steps / jnp.sqrt(pivots)[:, None], jnp.sum(jnp.log(pivots))


@invert_root.defjvp
def _invert_root_jvp(primals, tangents):
  (matrix,), (change,) = primals, tangents
  inverse_root, log_determinant = invert_root(matrix)
  # C^-1 dM C^-T is X + X^T with X = C^-1 dC, which is lower triangular.
  relative = inverse_root @ change @ inverse_root.T
  lower = jnp.tril(relative, -1) + 0.5 * jnp.diag(jnp.diagonal(relative))
  return (inverse_root, log_determinant), (-lower @ inverse_root, jnp.trace(relative))


def _squared_distance(
  inverse_root: Float[Array, 'causes causes'],
  causes: Float[Array, 'variables causes'],
  difference: Float[Array, 'variables'],
) -> Float[Array, '']:
  """r^T (I + A A^T)^-1 r = min over c of |r - A c|^2 + |c|^2.

  The sum of two squares loses no digits where the causes explain nearly all of r, as the difference
  that Woodbury's identity has would, and an error of c counts in second order alone.
  """
  explaining = inverse_root.T @ (inverse_root @ (causes.T @ difference))
  return jnp.sum((difference - causes @ explaining) ** 2) + jnp.sum(explaining**2)
