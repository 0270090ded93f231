"""Robust nonlinear least squares by damped Gauss-Newton steps, and the Laplace covariance.

The energy of unknowns x is the sum of squares of ordinary residuals plus a robust sum over blocks
of residuals. A block is one observation, say a joint's (x, y, z). Residuals are in standard
deviations, so that half the energy is a negative log-density up to a constant. One problem at a
time, use vmap for a batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular
from jaxtyping import Array, Float

# The damping is relative to the diagonal of the normal matrix. These bounds only keep it finite.
_FIRST_DAMPING = 1e-2
_DAMPING_RANGE = (1e-6, 1e4)
_DAMPING_AFTER_SUCCESS, _DAMPING_AFTER_FAILURE = 0.3, 5.0


class Residuals(NamedTuple):
  """What a problem leaves at some unknowns, in standard deviations.

  `blocks` holds arrays of (observations, axes): each row is one observation, down-weighted as a
  whole where it is an outlier. `plain` are residuals that count with their square.
  """

  blocks: tuple[Float[Array, 'observations axes'], ...]
  plain: Float[Array, ' residuals']


class Minimum(NamedTuple):
  """The unknowns that were found and their energy."""

  unknowns: Float[Array, ' unknowns']
  energy: Float[Array, '']


ResidualFn = Callable[[Float[Array, ' unknowns']], Residuals]


def robust_energy(residuals: Residuals, robust_limit: float) -> Float[Array, '']:
  """The energy: |r|^2 for small blocks, 2 c |r| far beyond the limit c, plain squares as they are.

  A block counts 2 c^2 (sqrt(1 + |r|^2 / c^2) - 1), the pseudo-Huber function.
  """
  energy = jnp.sum(residuals.plain**2)
  for block in residuals.blocks:
    energy = energy + 2 * robust_limit**2 * jnp.sum(_root(block, robust_limit) - 1)
  return energy


def _root(block: Array, robust_limit: float) -> Array:
  return jnp.sqrt(1 + jnp.sum(block**2, axis=-1) / robust_limit**2)


def _weighted(residuals: Residuals, roots: tuple[Array, ...]) -> Array:
  """All residuals in one vector, robust ones times the square root of their weight 1 / root."""
  blocks = [
    (block / jnp.sqrt(root)[:, None]).reshape(-1)
    for block, root in zip(residuals.blocks, roots, strict=True)
  ]
  return jnp.concatenate([*blocks, residuals.plain])


def _normal_equations(
  residual_fn: ResidualFn, unknowns: Array, robust_limit: float
) -> tuple[Array, Array]:
  """J^T W J and J^T W r with the weights of iteratively reweighted least squares."""
  roots = tuple(_root(block, robust_limit) for block in residual_fn(unknowns).blocks)
  values, push = jax.linearize(lambda x: _weighted(residual_fn(x), roots), unknowns)
  # (unknowns, residuals): a row per unknown.
  jacobian = jax.vmap(push)(jnp.eye(unknowns.shape[0], dtype=unknowns.dtype))
  return jacobian @ jacobian.T, jacobian @ values


def minimize(
  residual_fn: ResidualFn,
  start: Float[Array, ' unknowns'],
  steps: int,
  robust_limit: float,
) -> Minimum:
  """Takes damped Gauss-Newton steps (Levenberg-Marquardt) from `start`.

  A step that does not lower the energy is not taken, and the next one is damped more. The number
  of steps is fixed, so that a batch compiles to one small loop.

  Args:
    residual_fn: the problem, differentiable in forward mode.
    start: first unknowns. They should be scaled to be of order one.
    steps: how many steps to try.
    robust_limit: standard deviations from which on a block counts linearly.

  Returns:
    The best unknowns that were met, and their energy.
  """

  def energy_of(unknowns: Array) -> Array:
    return robust_energy(residual_fn(unknowns), robust_limit)

  def step(state, _):
    unknowns, energy, damping = state
    matrix, gradient = _normal_equations(residual_fn, unknowns, robust_limit)
    diagonal = jnp.diagonal(matrix)
    damped = matrix + jnp.diag(damping * diagonal)
    proposed = unknowns - cho_solve(cho_factor(damped, lower=True), gradient)
    proposed_energy = energy_of(proposed)
    # A comparison with NaN is false: such a step is not taken.
    better = proposed_energy < energy
    factor = jnp.where(better, _DAMPING_AFTER_SUCCESS, _DAMPING_AFTER_FAILURE)
    damping = jnp.clip(damping * factor, *_DAMPING_RANGE)
    unknowns = jnp.where(better, proposed, unknowns)
    return (unknowns, jnp.where(better, proposed_energy, energy), damping), None

  damping = jnp.asarray(_FIRST_DAMPING, start.dtype)
  (unknowns, energy, _), _ = jax.lax.scan(
    step, (start, energy_of(start), damping), None, length=steps
  )
  return Minimum(unknowns, energy)


def laplace_factor(
  residual_fn: ResidualFn, unknowns: Float[Array, ' unknowns'], robust_limit: float
) -> Float[Array, 'unknowns unknowns']:
  """A matrix F with F F^T the Laplace covariance at a minimum: the inverse of J^T W J.

  It is the Gauss-Newton form: second derivatives of the residuals are left out, and robust blocks
  count with their weight at the minimum. F maps independent standard normal numbers to deviations
  of the unknowns, so derived quantities have the factor (their Jacobian) F.
  """
  matrix, _ = _normal_equations(residual_fn, unknowns, robust_limit)
  lower = jnp.linalg.cholesky(matrix)
  identity = jnp.eye(unknowns.shape[0], dtype=unknowns.dtype)
  return solve_triangular(lower, identity, lower=True).T
