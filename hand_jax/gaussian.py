"""Independent normal variables: likelihood, divergence, sampling, and how maps move them.

`exact` below means that sigma is one thing everywhere (`log_variance` is the logarithm of a
variance), as the mathematics needs; `paper` means the letter of the paper's supplementary, where
one sigma is a standard deviation in the likelihood and stands in a variance's place in the KL.
See docs/derivations.md.
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
  """-ln N(value; mean, variance), element by element, in nats.

  Equal to eq. 4 of the paper with its sigma read as exp(log_variance / 2): both conventions agree.
  """
  residual = value - gaussian.mean
  return 0.5 * (LOG_TWO_PI + gaussian.log_variance + residual**2 * jnp.exp(-gaussian.log_variance))


def gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Float[Array, '*shape']:
  """KL(q || p), element by element, in nats: zero if and only if the two are equal."""
  log_ratio = q.log_variance - p.log_variance
  difference = q.mean - p.mean
  # expm1 keeps the digits of a small divergence, which the sum of exp and -1 loses.
  return 0.5 * (jnp.expm1(log_ratio) - log_ratio + difference**2 * jnp.exp(-p.log_variance))


def paper_gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Float[Array, '*shape']:
  """Eq. 5 to the letter, with sigma = exp(log_variance / 2): 1/2 [ln sp/sq - 1 + (sq + d^2)/sp].

  It is the KL between Gaussians whose *variances* are those sigmas, so it depends on the unit of
  length (erratum 1).
  """
  halves = [DiagonalGaussian(g.mean, 0.5 * g.log_variance) for g in (q, p)]
  return gaussian_kl(*halves)


def sample_gaussian(
  key: Key[Array, ''], gaussian: DiagonalGaussian, scale: float = 1.0
) -> Float[Array, '*shape']:
  """One reparameterised sample: mean + scale * sigma * noise. Differentiable in both moments."""
  noise = jax.random.normal(key, gaussian.mean.shape, gaussian.mean.dtype)
  return gaussian.mean + scale * jnp.exp(0.5 * gaussian.log_variance) * noise


def scale_gaussian(gaussian: DiagonalGaussian, factor: float) -> DiagonalGaussian:
  """The Gaussian of factor * x: a change of unit (factor 100: metres to centimetres).

  Raises ValueError for a factor that is not positive.
  """
  if not factor > 0:
    raise ValueError(f'scale_gaussian: expected a factor above zero, got {factor!r}.')
  return DiagonalGaussian(gaussian.mean * factor, gaussian.log_variance + 2 * float(np.log(factor)))


def linear_map_gaussian(
  matrix: Float[Array, 'outputs inputs'], gaussian: DiagonalGaussian
) -> DiagonalGaussian:
  """Marginals of A x for x with independent coordinates: mean A m, variance (A∘A) v.

  `gaussian` has shape (..., inputs, columns); the matrix acts on the axis before the last, as
  B V does (erratum 2). Exact for the marginals; correlations between outputs are dropped.
  """
  matmul = lambda a, b: jnp.matmul(a, b, precision='highest')  # noqa: E731
  # The largest variance is factored out, so that neither tiny nor huge units leave float32's range.
  largest = jax.lax.stop_gradient(gaussian.log_variance.max())
  variance = matmul(matrix**2, jnp.exp(gaussian.log_variance - largest))
  return DiagonalGaussian(matmul(matrix, gaussian.mean), jnp.log(variance) + largest)


def linearize_gaussian(
  function: Callable[[Float[Array, '*inputs']], Float[Array, '*outputs']],
  gaussian: DiagonalGaussian,
) -> DiagonalGaussian:
  """Marginals of f(x) to first order: mean f(m), variance the row sums of (J∘J) v.

  Exact for affine f; otherwise its error falls by four when sigma halves. Needs one
  forward-mode product per input number, so it is for small inputs (a camera, a joint).
  """
  mean, push = jax.linearize(function, gaussian.mean)
  size = gaussian.mean.size
  basis = jnp.eye(size, dtype=gaussian.mean.dtype).reshape(size, *gaussian.mean.shape)
  columns = jax.vmap(push)(basis)
  variance = jnp.tensordot(
    jnp.exp(gaussian.log_variance).reshape(size), columns**2, axes=1, precision='highest'
  )
  return DiagonalGaussian(mean, jnp.log(variance))
