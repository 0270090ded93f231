"""The interval of a paired difference: known answers, coverage, and what widens it."""

import numpy as np
import pytest

from hand_jax.evaluation.paired_intervals import paired_interval

RNG_SEED = 3


def simulated(rng, seed_spread, hand_spread, noise, seeds=5, hands=60, shift=0.0):
  of_seeds = seed_spread * rng.normal(size=(seeds, 1))
  of_hands = hand_spread * rng.normal(size=(1, hands))
  return shift + of_seeds + of_hands + noise * rng.normal(size=(seeds, hands))


def test_equal_errors_differ_by_nothing():
  errors = np.random.default_rng(RNG_SEED).normal(size=(3, 20))
  assert tuple(paired_interval(errors, errors)) == (0.0, 0.0, 0.0)


def test_a_constant_shift_is_found_exactly():
  # Values that floats hold exactly, so that nothing is rounded.
  errors = np.random.default_rng(RNG_SEED).integers(0, 64, size=(4, 16)) / 8
  assert tuple(paired_interval(errors - 0.75, errors)) == (-0.75, -0.75, -0.75)


def test_the_sides_are_mirrored_and_calls_agree():
  rng = np.random.default_rng(RNG_SEED)
  first, second = simulated(rng, 1, 1, 1, shift=2.0), simulated(rng, 1, 1, 1)
  found = paired_interval(first, second)
  assert found == paired_interval(first, second)
  assert found.low < found.difference < found.high
  np.testing.assert_allclose(found.difference, (first - second).mean())
  back = paired_interval(second, first)
  np.testing.assert_allclose([back.low, back.high], [-found.high, -found.low], rtol=1e-9)


def test_hands_alone_give_the_interval_of_a_mean():
  """With one seed and many hands it is the normal interval, which is known in closed form."""
  differences = np.random.default_rng(RNG_SEED).normal(1.0, 2.0, size=(1, 1000))
  found = paired_interval(differences, np.zeros_like(differences), draws=10000)
  half = 1.959964 * differences.std() / np.sqrt(differences.size)
  expected = differences.mean() + half * np.array([-1, 1])
  np.testing.assert_allclose([found.low, found.high], expected, atol=0.06 * half)


def test_more_seeds_on_the_same_hands_do_not_shrink_what_hands_cause():
  of_hands = np.random.default_rng(RNG_SEED).normal(size=(1, 200))
  one = paired_interval(of_hands, np.zeros_like(of_hands))
  repeated = np.repeat(of_hands, 5, axis=0)
  many = paired_interval(repeated, np.zeros_like(repeated))
  np.testing.assert_allclose(many.high - many.low, one.high - one.low, rtol=0.1)


def test_seeds_that_disagree_widen_it_by_their_own_spread():
  of_seeds = np.repeat([[0.0], [1.0]], 50, axis=1)
  found = paired_interval(of_seeds, np.zeros_like(of_seeds))
  # Two seeds: the variance of one is 1/2, and a draw takes the same one twice half of the time.
  np.testing.assert_allclose([found.low, found.high], 0.5 + np.sqrt(0.5) * np.array([-1, 1]))


@pytest.mark.parametrize(
  'seed_spread, hand_spread, noise, least',
  # Quantiles of five seeds know less than a t distribution would, hence the lower first bound.
  [(1.0, 0.5, 0.5, 0.80), (0.1, 1.0, 1.0, 0.90), (0.0, 1.0, 0.2, 0.90)],
)
def test_it_covers_the_truth_about_as_often_as_it_says(seed_spread, hand_spread, noise, least):
  rng, inside, repeats = np.random.default_rng(RNG_SEED), 0, 300
  for _ in range(repeats):
    first = simulated(rng, seed_spread, hand_spread, noise, shift=-0.3)
    found = paired_interval(first, np.zeros_like(first), draws=400)
    inside += found.low <= -0.3 <= found.high
  assert least <= inside / repeats <= 0.99


@pytest.mark.parametrize(
  'first, second, message',
  [
    (np.zeros((2, 3)), np.zeros((2, 4)), r'\(2, 3\) and \(2, 4\)'),
    (np.zeros((0, 3)), np.zeros((0, 3)), 'equal seeds'),
    (np.full((1, 2), np.nan), np.zeros((1, 2)), 'finite'),
  ],
)
def test_what_cannot_be_paired_is_refused(first, second, message):
  with pytest.raises(ValueError, match=message):
    paired_interval(first, second)
