"""Independent normal variables: likelihood, divergence, sampling, and how maps move them.

There are two conventions. In `exact`, sigma is a standard deviation everywhere, as the mathematics
needs. `paper` follows the paper's supplementary as it is printed: there the same sigma is a
standard deviation in the likelihood and takes the place of a variance in the KL. In both,
`log_variance` is the natural logarithm of a variance. See docs/derivations.md.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from hand_jax.types import DiagonalGaussian

Convention = Literal['paper', 'exact']

LOG_TWO_PI = float(np.log(2 * np.pi))


def gaussian_nll(
  gaussian: DiagonalGaussian, value: Float[Array, '*shape']
) -> Float[Array, '*shape']:
  """Computes -ln N(value | mean, variance) of each element, in nats.

  This equals eq. 4 of the paper with its sigma read as exp(log_variance / 2), so both conventions
  agree.
  """
  residual = value - gaussian.mean
  return 0.5 * (LOG_TWO_PI + gaussian.log_variance + residual**2 * jnp.exp(-gaussian.log_variance))


def gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Float[Array, '*shape']:
  """Computes KL(q || p) of each element, in nats. It is zero only where q and p are equal."""
  log_ratio = q.log_variance - p.log_variance
  difference = q.mean - p.mean
  # expm1 keeps the digits of a small divergence, which exp(x) - 1 would lose.
  return 0.5 * (jnp.expm1(log_ratio) - log_ratio + difference**2 * jnp.exp(-p.log_variance))


def paper_gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Float[Array, '*shape']:
  """Computes eq. 5 as printed, with sigma = exp(log_variance / 2).

  With d the difference of the means, this is 1/2 [ln(sigma_p / sigma_q) - 1 + (sigma_q + d^2) /
  sigma_p]. It is the KL between Gaussians whose *variances* are those sigmas, so it depends on the
  unit of length (erratum 1).
  """
  halves = [DiagonalGaussian(g.mean, 0.5 * g.log_variance) for g in (q, p)]
  return gaussian_kl(*halves)


def sample_gaussian(
  key: Key[Array, ''], gaussian: DiagonalGaussian, scale: float | Float[Array, ''] = 1.0
) -> Float[Array, '*shape']:
  """Draws one reparameterised sample, mean + scale * sigma * noise.

  The sample is differentiable with respect to the mean and the log-variance.

  Args:
    key: decides the noise.
    gaussian: the variables to draw.
    scale: multiplies their standard deviations.
  """
  noise = jax.random.normal(key, gaussian.mean.shape, gaussian.mean.dtype)
  return gaussian.mean + scale * jnp.exp(0.5 * gaussian.log_variance) * noise


def scale_gaussian(gaussian: DiagonalGaussian, factor: float) -> DiagonalGaussian:
  """Returns the Gaussian of factor * x, which is x in another unit.

  A factor of 100 takes metres to centimetres.

  Raises:
    ValueError: the factor is not positive.
  """
  if not factor > 0:
    raise ValueError(f'scale_gaussian: expected a factor above zero, got {factor!r}.')
  return DiagonalGaussian(gaussian.mean * factor, gaussian.log_variance + 2 * float(np.log(factor)))


def linear_map_gaussian(
  matrix: Float[Array, 'outputs inputs'], gaussian: DiagonalGaussian
) -> DiagonalGaussian:
  """Computes the marginals of A x for independent coordinates x: mean A m, variance (A∘A) v.

  The matrix acts on the last axis but one of `gaussian`, as in B V (erratum 2). The marginals are
  exact. Correlations between outputs are dropped.
  """
  matmul = lambda a, b: jnp.matmul(a, b, precision='highest')  # noqa: E731
  # Factor out the largest variance, so that values stay in float32's range in any unit of length.
  largest = jax.lax.stop_gradient(gaussian.log_variance.max())
  variance = matmul(matrix**2, jnp.exp(gaussian.log_variance - largest))
  return DiagonalGaussian(matmul(matrix, gaussian.mean), jnp.log(variance) + largest)


def linearize_gaussian(
  function: Callable[[Float[Array, '*inputs']], Float[Array, '*outputs']],
  gaussian: DiagonalGaussian,
) -> DiagonalGaussian:
  """Computes the marginals of f(x) to first order: mean f(m), variance (J∘J) v.

  J is the Jacobian of f at the mean m. The result is exact for affine f. For other f its error
  falls to a quarter when sigma halves. It takes one forward-mode product for each number of the
  input, so it suits small inputs such as a camera or a joint.
  """
  mean, push = jax.linearize(function, gaussian.mean)
  size = gaussian.mean.size
  basis = jnp.eye(size, dtype=gaussian.mean.dtype).reshape(size, *gaussian.mean.shape)
  columns = jax.vmap(push)(basis)
  variance = jnp.tensordot(
    jnp.exp(gaussian.log_variance).reshape(size), columns**2, axes=1, precision='highest'
  )
  return DiagonalGaussian(mean, jnp.log(variance))
