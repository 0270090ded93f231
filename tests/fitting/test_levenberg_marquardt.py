"""Robust least squares on problems whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

from hand_jax.fitting.levenberg_marquardt import Residuals, laplace_factor, minimize


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.slow
def test_a_linear_problem_is_solved_and_its_covariance_is_the_inverse_normal_matrix():
  matrix, target = random(30, 6), random(30, seed=1)
  result = minimize(lambda x: Residuals((), matrix @ x - target), jnp.zeros(6), 12, 1.0)
  expected, residual, _, _ = np.linalg.lstsq(np.asarray(matrix), np.asarray(target))
  np.testing.assert_allclose(result.unknowns, expected, atol=1e-9)
  np.testing.assert_allclose(result.energy, residual[0], rtol=1e-12)
  covariance = np.linalg.inv(np.asarray(matrix.T @ matrix))
  for last in (6, 2):
    factor = laplace_factor(result, last)
    np.testing.assert_allclose(factor @ factor.T, covariance[-last:, -last:], rtol=1e-9)


def test_rosenbrock_valley_is_followed_to_its_end():
  def rosenbrock(x):
    return Residuals((), jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]))

  result = minimize(rosenbrock, jnp.asarray([-1.2, 1.0]), 60, 1.0)
  np.testing.assert_allclose(result.unknowns, [1, 1], atol=1e-6)


@pytest.mark.slow
def test_steps_never_raise_the_energy():
  def hard(x):
    return Residuals(((jnp.sin(3 * x) + x**2)[:, None],), jnp.exp(x) - 2)

  start = random(5) * 2
  energies = [float(minimize(hard, start, steps, 1.0).energy) for steps in range(8)]
  assert energies == sorted(energies, reverse=True) and energies[-1] < energies[0]


def test_no_step_returns_the_start_with_its_energy():
  result = minimize(lambda x: Residuals((), 3 * x), jnp.asarray([1.0, 2.0]), 0, 1.0)
  np.testing.assert_allclose(result.unknowns, [1, 2])
  assert float(result.energy) == pytest.approx(45)
  np.testing.assert_allclose(result.normal_matrix, 9 * np.eye(2))


def test_robust_minimum_is_that_of_another_solver():
  points = np.asarray(random(12, 2)) * 0.3
  points[0] += [40, -30]
  limit = 0.7

  def residual_fn(x):
    return Residuals((x[None] - jnp.asarray(points),), 0.1 * x)

  def energy(x):
    root = np.sqrt(1 + np.sum((x - points) ** 2, axis=1) / limit**2)
    # least_squares sums squares.
    return np.concatenate([np.sqrt(2 * limit**2 * (root - 1)), 0.1 * x])

  expected = least_squares(energy, np.zeros(2), xtol=1e-14, ftol=1e-14, gtol=1e-14)
  result = minimize(residual_fn, jnp.zeros(2), 40, limit)
  np.testing.assert_allclose(result.unknowns, expected.x, atol=1e-6)
  assert float(result.energy) == pytest.approx(2 * expected.cost, rel=1e-9)
  # The far point hardly moves it, where the plain mean would be 3 away.
  assert np.linalg.norm(result.unknowns) < 0.3


def test_a_step_to_nowhere_is_not_taken():
  def residual_fn(x):
    return Residuals((), jnp.where(x < -0.5, jnp.nan, x + 1))

  result = minimize(residual_fn, jnp.asarray([3.0]), 30, 1.0)
  assert np.isfinite(result.unknowns).all() and -0.5 <= float(result.unknowns[0]) < 1
