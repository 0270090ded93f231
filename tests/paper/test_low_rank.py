"""Normal variables with common causes against dense algebra, limits and samples, in float64."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

from hand_jax import gaussian as gaussians
from hand_jax import low_rank
from hand_jax.types import DiagonalGaussian, LowRankGaussian

pytestmark = pytest.mark.usefixtures('float64')

compiled_kl, compiled_nll = jax.jit(low_rank.low_rank_kl), jax.jit(low_rank.low_rank_nll)
marginals = jax.jit(low_rank.marginals)
diagonal_kl = jax.jit(lambda q, p: gaussians.gaussian_kl(q, p).sum())
diagonal_nll = jax.jit(lambda p, value: gaussians.gaussian_nll(p, value).sum())
# More variables than causes, as for vertices, and fewer, as for projected joints.
SHAPES = [((7, 3), 4), ((4, 2), 11)]


def random_pair(seed, shape=(7, 3), causes=4):
  """A diagonal q and a low-rank p of order one."""
  normal = np.random.default_rng(seed).normal
  q = DiagonalGaussian(jnp.asarray(normal(size=shape)), jnp.asarray(normal(size=shape)))
  p = LowRankGaussian(
    jnp.asarray(normal(size=shape)),
    jnp.asarray(normal(size=shape)),
    jnp.asarray(normal(size=(*shape, causes))),
  )
  return q, p


def without_causes(p, causes=4):
  return p._replace(factor=jnp.zeros((*p.mean.shape, causes)))


def covariance(p):
  factor = np.asarray(p.factor).reshape(p.mean.size, -1)
  return np.diag(np.exp(np.ravel(p.own_log_variance))) + factor @ factor.T


def dense_kl(q, p):
  """The divergence of multivariate normals as textbooks write it."""
  variance, wide = np.exp(np.ravel(q.log_variance)), covariance(p)
  precision, difference = np.linalg.inv(wide), np.ravel(q.mean - p.mean)
  trace = np.diag(precision) @ variance
  log_determinants = np.linalg.slogdet(wide)[1] - np.log(variance).sum()
  return 0.5 * (trace + difference @ precision @ difference - len(wide) + log_determinants)


@pytest.mark.parametrize(('shape', 'causes'), SHAPES)
def test_divergence_and_likelihood_are_those_of_dense_algebra(shape, causes):
  for seed in range(3):
    q, p = random_pair(seed, shape, causes)
    np.testing.assert_allclose(compiled_kl(q, p), dense_kl(q, p), rtol=1e-11)
    dense = scipy.stats.multivariate_normal(np.ravel(p.mean), covariance(p))
    nll = compiled_nll(p, q.mean)
    np.testing.assert_allclose(nll, -dense.logpdf(np.ravel(q.mean)), rtol=1e-11)


@pytest.mark.parametrize('size', [1, 2, 17])
def test_the_inverse_root_and_determinant_are_those_of_lapack(size):
  """Of matrices whose pivots differ by up to a million."""
  normal = np.random.default_rng(size).normal
  scale = np.diag(np.exp(normal(scale=3.0, size=size)))
  matrix = np.eye(size) + scale @ np.cov(normal(size=(size, 3 * size))).reshape(size, size) @ scale
  inverse_root, log_determinant = jax.jit(low_rank.invert_root)(jnp.asarray(matrix))
  np.testing.assert_allclose(inverse_root @ np.linalg.cholesky(matrix), np.eye(size), atol=1e-9)
  np.testing.assert_allclose(log_determinant, np.linalg.slogdet(matrix)[1], rtol=1e-11)


def test_unknown_values_are_integrated_out():
  q, p = random_pair(0)
  known = np.random.default_rng(1).random(p.mean.shape) < 0.5
  kept = np.ravel(known)
  dense = scipy.stats.multivariate_normal(np.ravel(p.mean)[kept], covariance(p)[np.ix_(kept, kept)])
  nll = compiled_nll(p, q.mean, jnp.asarray(known))
  np.testing.assert_allclose(nll, -dense.logpdf(np.ravel(q.mean)[kept]), rtol=1e-11)
  assert compiled_nll(p, q.mean, jnp.zeros(p.mean.shape, bool)) == 0


def test_without_causes_the_formulas_are_the_diagonal_ones():
  q, p = random_pair(2)
  p = without_causes(p)
  diagonal = DiagonalGaussian(p.mean, p.own_log_variance)
  np.testing.assert_allclose(compiled_kl(q, p), diagonal_kl(q, diagonal), rtol=1e-12)
  np.testing.assert_allclose(compiled_nll(p, q.mean), diagonal_nll(diagonal, q.mean), rtol=1e-12)
  for found, expected in zip(marginals(p), diagonal, strict=True):
    np.testing.assert_array_equal(found, expected)
  assert compiled_kl(diagonal, p) == 0
  slopes = jax.jit(jax.grad(low_rank.low_rank_kl, argnums=1))(q, p)
  assert all(np.isfinite(slope).all() for slope in slopes)


def test_large_own_variances_hide_the_causes():
  """The excess over the diagonal formula falls with the own variance that the causes share."""
  q, p = random_pair(3)
  excess = []
  for growth in (6.0, 7.0):
    wide = p._replace(own_log_variance=p.own_log_variance + 2 * growth)
    diagonal = diagonal_kl(q, DiagonalGaussian(wide.mean, wide.own_log_variance))
    excess.append(float(compiled_kl(q, wide) - diagonal))
  np.testing.assert_allclose(excess[0] / excess[1], np.exp(2), rtol=1e-3)
  assert abs(excess[0]) < 1e-3


@pytest.mark.slow
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(st.integers(0, 10_000), st.floats(0.05, 20), st.floats(-4, 4))
def test_the_divergence_is_positive_and_blind_to_unit_and_shift(seed, factor, shift):
  q, p = random_pair(seed, (3, 2), 2)
  kl = compiled_kl(q, p)
  assert kl > 0
  scaled = compiled_kl(gaussians.scale_gaussian(q, factor), low_rank.scale_low_rank(p, factor))
  np.testing.assert_allclose(scaled, kl, rtol=1e-10)
  moved = (each._replace(mean=each.mean + shift) for each in (q, p))
  np.testing.assert_allclose(compiled_kl(*moved), kl, rtol=1e-10)
  turned = p._replace(factor=p.factor @ np.asarray([[0.6, 0.8], [-0.8, 0.6]]))
  np.testing.assert_allclose(compiled_kl(q, turned), kl, rtol=1e-10)


@pytest.mark.slow
def test_gradients_are_finite_differences_to_second_order():
  q, p = random_pair(4, (4, 2), 3)
  check_grads(compiled_kl, (q, p), order=2, modes=['rev'], rtol=1e-5)
  likelihood = jax.jit(lambda p: compiled_nll(p, q.mean))
  check_grads(likelihood, (p,), order=2, modes=['rev'], rtol=1e-5)
  log_variance = jax.jit(lambda p: marginals(p).log_variance)
  check_grads(log_variance, (p,), order=2, modes=['rev'], rtol=1e-5)


def test_batches_under_jit_are_the_hands_one_by_one():
  pairs = [random_pair(seed) for seed in range(3)]
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *pairs)
  found = jax.jit(jax.vmap(low_rank.low_rank_kl))(*stacked)
  expected = [compiled_kl(*pair) for pair in pairs]
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_samples_have_the_whole_covariance_and_the_marginals():
  _, p = random_pair(5, (2, 2), 3)
  draw = jax.jit(jax.vmap(lambda key: low_rank.sample_low_rank(key, p, 2.0)))
  samples = np.asarray(draw(jax.random.split(jax.random.key(0), 20000))).reshape(-1, 4)
  wide = 4 * covariance(p)
  # A sample covariance deviates by about sqrt(2 / n) of the variances, here 1 %.
  scale = np.sqrt(np.outer(np.diag(wide), np.diag(wide)))
  np.testing.assert_allclose(np.cov(samples.T) / scale, wide / scale, atol=0.04)
  np.testing.assert_allclose(samples.mean(0), np.ravel(p.mean), atol=0.1)
  marginal = np.exp(marginals(p).log_variance).ravel()
  np.testing.assert_allclose(marginal, np.diag(covariance(p)), rtol=1e-12)


def test_strong_causes_keep_their_digits_in_float32():
  """The causes move the variables a hundred times as far as these move by themselves."""
  q, p = random_pair(6, (200, 3), 8)
  p = p._replace(own_log_variance=p.own_log_variance - 2 * np.log(100))
  moved = p.factor @ np.random.default_rng(0).normal(size=8)
  q = DiagonalGaussian(p.mean + moved, p.own_log_variance)
  with jax.enable_x64(False):
    single = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32), (q, p))
    found = compiled_kl(*single)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, dense_kl(q, p), rtol=3e-5)


def test_a_factor_that_is_no_unit_is_refused():
  with pytest.raises(ValueError, match=r'a factor above zero, got -1\.0'):
    low_rank.scale_low_rank(random_pair(0)[1], -1.0)
