"""Robust nonlinear least squares by damped Gauss-Newton steps, and the Laplace covariance.

The energy of unknowns x is the sum of squares of ordinary residuals plus a robust sum over blocks
of residuals. A block is one observation, for example a joint's (x, y, z). With r its residuals and
c the robust limit, it counts by a pseudo-Huber function, 2 c^2 (sqrt(1 + |r|^2 / c^2) - 1). This is
about |r|^2 far below the limit and about 2 c |r| far beyond it. Residuals are in standard
deviations, so that half the energy is a negative log-density up to a constant. `minimize` solves
one problem. Use vmap for a batch.
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
  """The residuals of a problem at some unknowns, in standard deviations."""

  blocks: tuple[Float[Array, 'observations axes'], ...]
  """Each row is one observation, which gets less weight as a whole where it is an outlier."""
  plain: Float[Array, ' residuals']
  """These residuals count with their square."""


class Minimum(NamedTuple):
  """The unknowns that were found, the energy there, and the normal matrix J^T W J."""

  unknowns: Float[Array, ' unknowns']
  energy: Float[Array, '']
  normal_matrix: Float[Array, 'unknowns unknowns']


ResidualFn = Callable[[Float[Array, ' unknowns']], Residuals]


def minimize(
  residual_fn: ResidualFn,
  start: Float[Array, ' unknowns'],
  steps: int,
  robust_limit: float | Float[Array, ''],
) -> Minimum:
  """Takes damped Gauss-Newton steps (Levenberg-Marquardt) from `start`.

  A step that does not lower the energy is not taken, and the next one is damped more. The number
  of steps is fixed, so that a batch compiles to one small loop.

  Args:
    residual_fn: the problem. It must be differentiable in forward mode.
    start: the first unknowns, scaled so that they are of order one.
    steps: the number of steps to try.
    robust_limit: the size in standard deviations above which a block counts linearly.

  Returns:
    The unknowns with the lowest energy that was found, that energy and their normal matrix.
  """

  def step(state, _):
    best, gradient, damping = state
    damped = best.normal_matrix + jnp.diag(damping * jnp.diagonal(best.normal_matrix))
    unknowns = best.unknowns - cho_solve(cho_factor(damped, lower=True), gradient)
    proposed, proposed_gradient = _evaluate(residual_fn, unknowns, robust_limit)
    # A comparison with NaN is false, so a step to NaN is not taken.
    better = proposed.energy < best.energy
    best, gradient = jax.tree.map(
      lambda new, old: jnp.where(better, new, old),
      (proposed, proposed_gradient),
      (best, gradient),
    )
    factor = jnp.where(better, _DAMPING_AFTER_SUCCESS, _DAMPING_AFTER_FAILURE)
    return (best, gradient, jnp.clip(damping * factor, *_DAMPING_RANGE)), None

  # The first round evaluates the start itself, so that the loop holds the problem's only copy.
  unknown = Minimum(
    start, jnp.asarray(jnp.inf, start.dtype), jnp.eye(len(start), dtype=start.dtype)
  )
  damping = jnp.asarray(_FIRST_DAMPING / _DAMPING_AFTER_SUCCESS, start.dtype)
  state = (unknown, jnp.zeros_like(start), damping)
  (best, _, _), _ = jax.lax.scan(step, state, None, length=steps + 1)
  return best


def _evaluate(
  residual_fn: ResidualFn, unknowns: Array, robust_limit: float | Array
) -> tuple[Minimum, Array]:
  """Computes energy, normal matrix J^T W J and half the gradient, J^T W r, at some unknowns."""
  residuals, push = jax.linearize(residual_fn, unknowns)
  # Each array gets a leading axis over the unknowns.
  derivatives = jax.vmap(push)(jnp.eye(len(unknowns), dtype=unknowns.dtype))
  energy, values, rows = jnp.sum(residuals.plain**2), [residuals.plain], [derivatives.plain]
  for block, change in zip(residuals.blocks, derivatives.blocks, strict=True):
    root = jnp.sqrt(1 + jnp.sum(block**2, axis=-1) / robust_limit**2)
    # The pseudo-Huber function's weight in iteratively reweighted least squares is 1 / root.
    shrink = (1 / jnp.sqrt(root))[:, None]
    energy = energy + 2 * robust_limit**2 * jnp.sum(root - 1)
    values.append((shrink * block).reshape(-1))
    rows.append((shrink[None] * change).reshape(len(unknowns), -1))
  jacobian = jnp.concatenate(rows, axis=1)
  gradient = jacobian @ jnp.concatenate(values)
  return Minimum(unknowns, energy, jacobian @ jacobian.T), gradient


def laplace_factor(minimum: Minimum, last: int) -> Float[Array, 'last last']:
  """Factorises the marginal Laplace covariance of the last unknowns as F F^T, and returns F.

  The covariance of all unknowns is the inverse of J^T W J at the minimum. This is the Gauss-Newton
  form: second derivatives of the residuals are left out, and robust blocks have their weight at the
  minimum. F maps independent standard normal numbers to deviations of these unknowns. A quantity
  that depends on them by a Jacobian A therefore has the factor A F.

  Args:
    minimum: the result of `minimize`.
    last: the number of unknowns to keep. The others are integrated out.
  """
  # The last block of the Cholesky factor is the factor of the Schur complement.
  lower = jnp.linalg.cholesky(minimum.normal_matrix)[-last:, -last:]
  return solve_triangular(lower, jnp.eye(last, dtype=lower.dtype), lower=True).T
