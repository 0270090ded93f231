"""Closed forms against scipy, quadrature, properties and limits, in float64."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from jax.test_util import check_grads

from hand_jax import gaussian as gaussians
from hand_jax.types import DiagonalGaussian
from tests.reference import losses as reference

pytestmark = pytest.mark.usefixtures('float64')


def normal(mean, log_variance):
  return DiagonalGaussian(jnp.asarray(mean, float), jnp.asarray(log_variance, float))


def random_gaussian(seed, shape):
  generator = np.random.default_rng(seed)
  return normal(generator.normal(size=shape), generator.normal(size=shape))


def sigma_of(g):
  return np.exp(0.5 * np.asarray(g.log_variance))


gaussian_kl, paper_gaussian_kl, gaussian_nll, linear_map_gaussian, sample_gaussian = map(
  jax.jit,
  (
    gaussians.gaussian_kl,
    gaussians.paper_gaussian_kl,
    gaussians.gaussian_nll,
    gaussians.linear_map_gaussian,
    gaussians.sample_gaussian,
  ),
)
slope_of = {kl: jax.jit(jax.grad(kl)) for kl in (gaussian_kl, paper_gaussian_kl)}
PAIRS = [
  ((0.0, 0.0), (0.0, 0.0)),
  ((0.3, -2.0), (-0.1, 0.5)),
  ((1.5, 1.0), (-0.5, -1.0)),
  ((0.02, -9.0), (0.01, -7.0)),
]
numbers = st.floats(-4, 4)
few_examples = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)


def test_nll_is_the_density_of_scipy():
  g = random_gaussian(0, (4, 7, 3))
  value = random_gaussian(1, (4, 7, 3)).mean
  expected = -scipy.stats.norm.logpdf(value, g.mean, sigma_of(g))
  np.testing.assert_allclose(gaussian_nll(g, value), expected, rtol=1e-12, atol=1e-14)


def test_nll_is_equation_4_with_sigma_a_standard_deviation():
  g = random_gaussian(2, (5, 3))
  value = random_gaussian(3, (5, 3)).mean
  expected = reference.nll(value, g.mean, sigma_of(g))
  np.testing.assert_allclose(gaussian_nll(g, value).sum(), expected, rtol=1e-12)


@pytest.mark.parametrize(('q', 'p'), PAIRS)
def test_kl_is_its_integral(q, p):
  frozen_q, frozen_p = (scipy.stats.norm(mean, np.exp(0.5 * lv)) for mean, lv in (q, p))
  width = 12 * frozen_q.std()
  expected, _ = scipy.integrate.quad(
    lambda x: frozen_q.pdf(x) * (frozen_q.logpdf(x) - frozen_p.logpdf(x)),
    q[0] - width,
    q[0] + width,
    epsabs=1e-12,
  )
  value = gaussian_kl(normal(*q), normal(*p))
  np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-10)


def test_kl_in_three_dimensions_is_cross_entropy_less_entropy():
  q, p = random_gaussian(4, (3,)), random_gaussian(5, (3,))
  joint_q, joint_p = (
    scipy.stats.multivariate_normal(g.mean, np.diag(np.exp(g.log_variance))) for g in (q, p)
  )
  # ln p is quadratic: four Gauss-Hermite nodes integrate it exactly.
  nodes, weights = np.polynomial.hermite_e.hermegauss(4)
  grid = np.stack(np.meshgrid(nodes, nodes, nodes, indexing='ij'), -1).reshape(-1, 3)
  weight = np.einsum('i,j,k->ijk', weights, weights, weights).ravel() / weights.sum() ** 3
  cross_entropy = -weight @ joint_p.logpdf(np.asarray(q.mean) + grid * sigma_of(q))
  expected = cross_entropy - joint_q.entropy()
  np.testing.assert_allclose(gaussian_kl(q, p).sum(), expected, rtol=1e-10)


@few_examples
@hypothesis.given(numbers, numbers, numbers, numbers, numbers, st.floats(0.05, 20))
def test_kl_is_non_negative_and_blind_to_shift_and_unit(mq, lq, mp, lp, shift, factor):
  q, p = normal(mq, lq), normal(mp, lp)
  kl = float(gaussian_kl(q, p))
  assert kl >= 0
  shifted = gaussian_kl(normal(mq + shift, lq), normal(mp + shift, lp))
  np.testing.assert_allclose(shifted, kl, rtol=1e-9, atol=1e-9)
  scaled = gaussian_kl(gaussians.scale_gaussian(q, factor), gaussians.scale_gaussian(p, factor))
  np.testing.assert_allclose(scaled, kl, rtol=1e-8, atol=1e-9)


@pytest.mark.slow
@few_examples
@hypothesis.given(numbers, numbers, st.floats(0.001, 1), st.sampled_from(['mean', 'log_variance']))
@pytest.mark.parametrize('divergence', [gaussian_kl, paper_gaussian_kl])
def test_kl_is_zero_only_at_equality(divergence, mean, log_variance, step, field):
  g = normal(mean, log_variance)
  assert divergence(g, g) == 0.0
  slope = slope_of[divergence](g, g)
  np.testing.assert_allclose(slope, (0.0, 0.0), atol=1e-12)
  assert divergence(g._replace(**{field: getattr(g, field) + step}), g) > 0


def test_small_kl_keeps_its_digits_in_float32():
  with jax.enable_x64(False):
    value = gaussian_kl(normal(0.0, 1e-3), normal(0.0, 0.0))
  assert value.dtype == jnp.float32
  # 1/2 (e^x - 1 - x) = x^2 / 4 + x^3 / 12 + ...
  np.testing.assert_allclose(value, 0.25e-6 + 1e-9 / 12, rtol=2e-3)


def test_nll_is_least_where_the_variance_is_the_squared_error():
  error = 0.07
  slope = jax.grad(
    lambda lv: gaussian_nll(normal(0.0, 0.0)._replace(log_variance=lv), jnp.asarray(error))
  )
  np.testing.assert_allclose(slope(jnp.log(error**2)), 0.0, atol=1e-12)
  assert slope(jnp.log(error**2) - 0.1) < 0 < slope(jnp.log(error**2) + 0.1)


def test_paper_kl_is_equation_5_to_the_letter():
  q, p = random_gaussian(6, (9,)), random_gaussian(7, (9,))
  expected = reference.kl_letter(q.mean, sigma_of(q), p.mean, sigma_of(p))
  np.testing.assert_allclose(paper_gaussian_kl(q, p).sum(), expected, rtol=1e-12)


def test_erratum_1_one_sigma_cannot_be_both_a_deviation_and_a_variance():
  """Eq. 5 is not the KL of eq. 4's densities, and its value depends on the unit of length."""
  q, p = normal(0.3, 2 * np.log(0.5)), normal(0.1, 2 * np.log(2.0))
  frozen_q, frozen_p = scipy.stats.norm(0.3, 0.5), scipy.stats.norm(0.1, 2.0)
  truth, _ = scipy.integrate.quad(
    lambda x: frozen_q.pdf(x) * (frozen_q.logpdf(x) - frozen_p.logpdf(x)), -8, 8
  )
  letter = paper_gaussian_kl(q, p)
  np.testing.assert_allclose(gaussian_kl(q, p), truth, rtol=1e-8)
  assert abs(letter - truth) > 0.3 * truth
  # It is the KL of the densities whose *variances* are 0.5 and 2.
  np.testing.assert_allclose(
    letter, gaussian_kl(normal(0.3, np.log(0.5)), normal(0.1, np.log(2.0))), rtol=1e-12
  )
  in_millimetres = paper_gaussian_kl(
    gaussians.scale_gaussian(q, 10.0), gaussians.scale_gaussian(p, 10.0)
  )
  # The term in the means grows with the unit, the others stay.
  np.testing.assert_allclose(in_millimetres - letter, 0.5 * (10 - 1) * 0.2**2 / 2.0, rtol=1e-10)


def test_samples_follow_the_distribution():
  g = normal(np.full(4000, 1.5), np.full(4000, np.log(0.04)))
  sample = sample_gaussian(jax.random.key(0), g)
  assert scipy.stats.kstest(sample, scipy.stats.norm(1.5, 0.2).cdf).pvalue > 0.01
  wide = sample_gaussian(jax.random.key(0), g, scale=3.0)
  np.testing.assert_allclose(wide - 1.5, 3.0 * (sample - 1.5), rtol=1e-12, atol=1e-14)
  other = sample_gaussian(jax.random.key(1), g)
  assert abs(np.corrcoef(sample, other)[0, 1]) < 0.06


def test_samples_are_differentiable_in_both_moments():
  g = random_gaussian(8, (6,))
  key = jax.random.key(2)
  slope = jax.jit(jax.grad(lambda g: sample_gaussian(key, g).sum()))(g)
  np.testing.assert_allclose(slope.mean, 1.0)
  expected = 0.5 * (sample_gaussian(key, g) - g.mean)
  np.testing.assert_allclose(slope.log_variance, expected, rtol=1e-10, atol=1e-14)


def test_expected_log_ratio_of_samples_is_the_kl():
  q, p = normal(0.3, -0.4), normal(-0.2, 0.6)
  count = 20000
  wide = DiagonalGaussian(*(jnp.full(count, value) for value in q))
  sample = sample_gaussian(jax.random.key(3), wide)
  ratios = scipy.stats.norm.logpdf(sample, 0.3, np.exp(-0.2)) - scipy.stats.norm.logpdf(
    sample, -0.2, np.exp(0.3)
  )
  standard_error = ratios.std() / np.sqrt(count)
  assert abs(ratios.mean() - gaussian_kl(q, p)) < 4 * standard_error


def test_change_of_unit_shifts_the_nll_by_a_constant():
  g = random_gaussian(9, (5, 3))
  value = random_gaussian(10, (5, 3)).mean
  scaled = gaussian_nll(gaussians.scale_gaussian(g, 100.0), 100 * value)
  expected = gaussian_nll(g, value) + np.log(100)
  np.testing.assert_allclose(scaled, expected, rtol=1e-12)


@pytest.mark.parametrize('factor', [0.0, -2.0, float('nan')])
def test_change_of_unit_refuses(factor):
  with pytest.raises(ValueError, match='factor above zero'):
    gaussians.scale_gaussian(normal(0.0, 0.0), factor)


def test_linear_map_is_the_diagonal_of_the_full_covariance():
  g = random_gaussian(11, (6, 3))
  matrix = np.random.default_rng(12).normal(size=(4, 6))
  result = linear_map_gaussian(jnp.asarray(matrix), g)
  np.testing.assert_allclose(result.mean, matrix @ g.mean, rtol=1e-12)
  for column in range(3):
    covariance = matrix @ np.diag(np.exp(g.log_variance[:, column])) @ matrix.T
    variance = np.exp(result.log_variance[:, column])
    np.testing.assert_allclose(variance, np.diag(covariance), rtol=1e-12)


@pytest.mark.parametrize('log_variance', [-95.0, 0.0, 95.0])
def test_linear_map_survives_extreme_units_in_float32(log_variance):
  with jax.enable_x64(False):
    matrix = jnp.asarray([[0.5, 0.5]], jnp.float32)
    g = normal(np.zeros((2, 1)), np.full((2, 1), log_variance))
    result = linear_map_gaussian(matrix, g)
  np.testing.assert_allclose(result.log_variance, log_variance + np.log(0.5), rtol=1e-6)


def test_linearized_map_is_exact_for_affine_functions():
  g = random_gaussian(13, (6, 3))
  matrix = jnp.asarray(np.random.default_rng(14).normal(size=(4, 6)))
  result = jax.jit(lambda g: gaussians.linearize_gaussian(lambda x: matrix @ x + 2.0, g))(g)
  expected = linear_map_gaussian(matrix, g)
  np.testing.assert_allclose(result.mean, expected.mean + 2.0, rtol=1e-12)
  np.testing.assert_allclose(result.log_variance, expected.log_variance, rtol=1e-10, atol=1e-12)


def pinhole(point):
  return 480.0 * point[:2] / point[2] + 112.0


def pinhole_variance(mean, sigma):
  """Gauss-Hermite, 24 nodes a side: converged to rounding at these sigmas."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(24)
  grid = np.stack(np.meshgrid(nodes, nodes, nodes, indexing='ij'), -1).reshape(-1, 3)
  weight = np.einsum('i,j,k->ijk', weights, weights, weights).ravel() / weights.sum() ** 3
  pixels = np.asarray(jax.jit(jax.vmap(pinhole))(jnp.asarray(mean + grid * sigma)))
  centre = weight @ pixels
  return weight @ (pixels - centre) ** 2


@pytest.mark.slow
def test_linearized_variance_improves_fourfold_when_sigma_halves():
  mean, sigma = np.array([0.05, -0.03, 0.7]), np.array([0.02, 0.015, 0.03])
  errors = []
  linearized = jax.jit(functools.partial(gaussians.linearize_gaussian, pinhole))
  for halvings in range(4):
    small = sigma / 2**halvings
    result = linearized(normal(mean, 2 * np.log(small)))
    errors.append(np.abs(np.exp(result.log_variance) / pinhole_variance(mean, small) - 1))
  np.testing.assert_allclose(np.array(errors[:-1]) / np.array(errors[1:]), 4.0, rtol=0.06)


@pytest.mark.slow
def test_gradients_to_second_order():
  q, p = random_gaussian(15, (4, 3)), random_gaussian(16, (4, 3))
  value = random_gaussian(17, (4, 3)).mean
  matrix = jnp.asarray(np.random.default_rng(18).normal(size=(2, 4)))
  functions = (
    lambda q, p: gaussians.gaussian_kl(q, p).sum(),
    lambda q, p: gaussians.paper_gaussian_kl(q, p).sum(),
    lambda q, p: gaussians.gaussian_nll(q, value).sum() + gaussians.gaussian_nll(p, value).sum(),
    lambda q, p: sum(jnp.sin(x).sum() for x in gaussians.linear_map_gaussian(matrix, q)),
    lambda q, p: sum(
      jnp.sin(x).sum() for x in gaussians.linearize_gaussian(lambda x: jnp.sin(x @ x.T), q)
    ),
  )
  for function in functions:
    compiled = jax.jit(function)
    check_grads(compiled, (q, p), order=1, modes=['rev'], rtol=1e-4, atol=1e-4)
    check_grads(compiled, (q, p), order=2, modes=['fwd'], rtol=1e-4, atol=1e-4)
