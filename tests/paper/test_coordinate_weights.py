"""The even weights of a likelihood's coordinates, by loops, gradients and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hand_jax.gaussian import paper_gaussian_kl
from hand_jax.losses import evenly_weighted_nll, masked_nll
from hand_jax.types import DiagonalGaussian
from tests.loss_hands import GAUSSIAN_TERMS, UNIT, batch_of, random_inputs, terms_of

pytestmark = pytest.mark.usefixtures('float64')

HANDS, POINTS = 3, 7


def drawn_points(seed=0):
  """Gaussians whose deviations range over a factor of fifty, labels, and weights with zeros."""
  generator = np.random.default_rng(seed)
  mean, value = generator.normal(size=(2, HANDS, POINTS, 3))
  deviation = np.exp(generator.uniform(-3, 1, size=mean.shape))
  weight = generator.uniform(0.2, 1, size=(HANDS, POINTS))
  weight[0, 2:4] = 0
  return mean, deviation, value, weight


def gaussian_of(mean, deviation):
  return DiagonalGaussian(jnp.asarray(mean), 2 * jnp.log(jnp.asarray(deviation)))


def sums(function, gaussian, value, weight):
  return function(gaussian, jnp.asarray(value), jnp.asarray(weight))


def test_the_sum_is_that_of_loops():
  mean, deviation, value, weight = drawn_points()
  found = sums(evenly_weighted_nll, gaussian_of(mean, deviation), value, weight)
  for hand in range(HANDS):
    points = [point for point in range(POINTS) if weight[hand, point] > 0]
    typical = np.mean([deviation[hand, point] ** 2 for point in points])
    expected = 0.0
    for point in points:
      for axis in range(3):
        place = hand, point, axis
        density = scipy.stats.norm(mean[place], deviation[place]).logpdf(value[place])
        expected -= weight[hand, point] * deviation[place] ** 2 / typical * density
    np.testing.assert_allclose(found[hand], expected, rtol=1e-12)


def test_every_mean_follows_its_error_alike():
  """The likelihood's own gradient follows errors in precise coordinates thousands of times more."""
  mean, deviation, value, weight = drawn_points()
  value[0, 2:4] = np.nan  # Unknown labels, and points whose variance then does not count either.
  deviation[0, 2:4] = 1e3
  slopes = {
    function: jax.grad(
      lambda m, function=function: sums(function, gaussian_of(m, deviation), value, weight).sum()
    )(jnp.asarray(mean))
    for function in (evenly_weighted_nll, masked_nll)
  }
  known = np.repeat(weight[..., None] > 0, 3, axis=-1)
  typical = np.mean(deviation**2, axis=(1, 2), where=known, keepdims=True)
  errors = np.where(known, weight[..., None] * (mean - np.nan_to_num(value)), 0)
  np.testing.assert_allclose(slopes[evenly_weighted_nll], errors / typical, rtol=1e-10)
  np.testing.assert_allclose(slopes[masked_nll], errors / deviation**2, rtol=1e-10)


def test_every_variance_is_still_best_at_the_squared_error():
  mean, _, value, _ = drawn_points()
  weight = np.ones((HANDS, POINTS))

  def total(log_variance):
    return sums(
      evenly_weighted_nll, DiagonalGaussian(jnp.asarray(mean), log_variance), value, weight
    ).sum()

  def slope(factor):
    return jax.grad(total)(jnp.log(factor * jnp.asarray(value - mean) ** 2))

  np.testing.assert_allclose(slope(1.0), 0.0, atol=1e-12)
  assert (slope(1.1) > 0).all() and (slope(0.9) < 0).all()


def test_equal_variances_give_the_likelihood():
  mean, _, value, weight = drawn_points()
  for deviation in (1e-16, 0.3, 1e6):
    gaussian = gaussian_of(mean, np.full(mean.shape, deviation))
    even, plain = (
      sums(function, gaussian, value, weight) for function in (evenly_weighted_nll, masked_nll)
    )
    np.testing.assert_allclose(even, plain, rtol=1e-12)


def test_a_hand_without_labels_has_no_term():
  mean, deviation, value, weight = drawn_points()
  weight[1], value[1] = 0, np.nan

  def total(values):
    terms = sums(evenly_weighted_nll, gaussian_of(values, deviation), value, weight)
    return terms.sum(), terms

  slopes, found = jax.grad(total, has_aux=True)(jnp.asarray(mean))
  assert found[1] == 0 and np.isfinite(found).all()
  assert (slopes[1] == 0).all() and np.isfinite(slopes).all() and (slopes[2] != 0).all()


def test_the_setting_changes_the_posteriors_likelihoods_alone():
  inputs = random_inputs()
  batch = batch_of(inputs)
  plain, even = (
    terms_of(inputs, batch, prior_vertices=1.0, coordinate_weights=weights)
    for weights in ('likelihood', 'even')
  )
  changed = {name for name in plain if not np.allclose(plain[name], even[name], rtol=1e-9)}
  assert changed == {name for name in GAUSSIAN_TERMS if name.endswith('_nll')}
  posterior = gaussian_of(
    np.asarray(inputs['posterior_mean']) / UNIT,
    np.exp(0.5 * np.asarray(inputs['posterior_log_variance'])) / UNIT,
  )
  labels = np.asarray(batch.vertices_hand) / UNIT
  expected = sums(evenly_weighted_nll, posterior, labels, np.ones(labels.shape[:2]))
  np.testing.assert_allclose(even['vertices_nll'], expected, rtol=1e-9)


def test_the_divergence_pulls_at_the_sigma_of_precise_coordinates():
  """The gradient is zero where sigma^2 = error^2 + (k m / 2) (1 - sigma), in `paper`."""
  deviation = np.array([0.4, 0.6, 0.9])[None, :, None] * np.ones((1, 3, 3))
  for kl in (0.02, 0.1):
    typical = np.mean(deviation**2)
    error = np.sqrt(deviation**2 - kl * typical / 2 * (1 - deviation))
    gaussian = gaussian_of(np.zeros_like(error), deviation)

    def total(log_variance, gaussian=gaussian, error=error, kl=kl):
      posterior = gaussian._replace(log_variance=log_variance)
      prior = gaussian_of(np.zeros_like(error), np.ones_like(error))
      nll = sums(evenly_weighted_nll, posterior, error, np.ones((1, 3)))
      return nll.sum() + kl * paper_gaussian_kl(posterior, prior).sum()

    np.testing.assert_allclose(jax.grad(total)(gaussian.log_variance), 0.0, atol=1e-12)
  # The figures of docs/derivations.md, for an error of 2.3 mm in centimetres.
  for kl, typical, ratio in ((1, 0.6, 1.74), (1, 0.8, 2.05), (0.1, 0.6, 1.12), (0.1, 0.8, 1.20)):
    sigma = 0.23
    for _ in range(200):
      sigma = np.sqrt(0.23**2 + kl * typical**2 / 2 * (1 - sigma))
    assert sigma / 0.23 == pytest.approx(ratio, abs=0.01)
