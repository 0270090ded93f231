"""Computes intervals of the difference between two settings with equal seeds, on equal hands."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

DRAWS = 2000
LEVEL = 0.95


class PairedInterval(NamedTuple):
  """A mean difference and the ends of its interval, in the unit of the compared errors."""

  difference: float
  low: float
  high: float


def paired_interval(
  first: Float[np.ndarray, 'seeds hands'],
  second: Float[np.ndarray, 'same_seeds same_hands'],
  draws: int = DRAWS,
  level: float = LEVEL,
) -> PairedInterval:
  """Computes the interval of `first - second` by a bootstrap over seeds and hands.

  Every draw takes n of the n seeds with replacement, then the same for hands, and averages the
  differences. All seeds were measured on the same hands, so one draw of hands serves all its seeds.
  Separate draws would treat the hands of different seeds as independent. The draws are the same at
  each call.

  A bootstrap of n seeds underestimates their variance by the factor (n - 1) / n. The seeds'
  deviations are enlarged to correct this. With a single seed the interval only covers the spread of
  hands.

  Args:
    first: errors, one row for each seed and one column for each hand.
    second: the errors of the other setting, with the same seeds and hands.
    draws: number of draws.
    level: share of the draws inside the interval. The rest lies in equal parts below and above.

  Raises:
    ValueError: the two have different shapes or no values, or one is not finite.
  """
  if first.shape != second.shape or not first.size:
    raise ValueError(
      f'Paired errors need equal seeds and hands, got {first.shape} and {second.shape}.'
    )
  differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
  if not np.isfinite(differences).all():
    raise ValueError('Paired errors should be finite numbers; got NaN or infinity.')
  seeds, hands = differences.shape
  mean, of_seeds = differences.mean(), differences.mean(axis=1, keepdims=True)
  widened = np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0
  differences = differences + (widened - 1) * (of_seeds - mean)
  rng = np.random.default_rng(0)
  seed_counts, hand_counts = (_draw_counts(rng, draws, count) for count in (seeds, hands))
  means = np.sum((seed_counts @ (differences - mean)) * hand_counts, axis=1) / (seeds * hands)
  low, high = mean + np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
  return PairedInterval(float(mean), float(low), float(high))


def _draw_counts(
  rng: np.random.Generator, draws: int, count: int
) -> Int[np.ndarray, 'draws count']:
  """Draws `count` of `count` things with replacement, and counts how often each was drawn.

  This is much faster than NumPy's multinomial, which draws each count by itself.
  """
  drawn = rng.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
  return np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count)
