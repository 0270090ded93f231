import time

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import contest


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch):
  """All objects of the other tests would be searched, in seconds."""
  monkeypatch.setattr(contest.gc, 'collect', lambda: 0)


def sleeper(seconds):
  return lambda: time.sleep(seconds)


def test_the_round_with_the_lowest_ratio_counts():
  timing = contest.Timing('peer', [4.0, 3.0, 5.0], [2.0, 3.0, 10.0])
  assert timing.best() == (5.0, 10.0)


def test_without_a_peer_the_fastest_round_counts():
  assert contest.Timing('', [4.0, 3.0, 5.0], []).best() == (3.0, None)


def test_the_fastest_peer_is_found():
  peers = {'slow': sleeper(0.02), 'fast': sleeper(0.0)}
  assert contest.fastest_peer(contest.Contest(sleeper(0), peers), repeats=2) == 'fast'


def test_both_sides_run_equally_often_and_in_alternating_order(monkeypatch):
  monkeypatch.setattr(contest, 'ROUND_SECONDS', 0.0)
  monkeypatch.setattr(contest, 'PAUSE_SECONDS', 0.0)
  calls = []
  sides = contest.Contest(lambda: calls.append('ours'), {'peer': lambda: calls.append('peer')})
  timing = contest.timed(sides)
  assert len(timing.ours_ms) == len(timing.peer_ms) == contest.ROUNDS
  rounds = calls[2:]  # after one call of each
  assert len(rounds) == 2 * contest.ROUNDS * contest.LEAST_REPEATS
  assert timing.repeats == [contest.LEAST_REPEATS] * contest.ROUNDS
  pairs = [tuple(rounds[i : i + 2]) for i in range(0, len(rounds), 2)]
  assert set(pairs) == {('ours', 'peer'), ('peer', 'ours')}


def test_slow_calls_are_repeated_less_often(monkeypatch):
  monkeypatch.setattr(contest, 'SLOW_ROUND_SECONDS', 0.0)
  monkeypatch.setattr(contest, 'PAUSE_SECONDS', 0.0)
  timing = contest.timed(contest.Contest(lambda: None, {'peer': lambda: None}))
  assert timing.repeats == [contest.SLOW_REPEATS] * contest.ROUNDS


def test_a_trial_runs_every_peer_and_times_the_first(monkeypatch):
  monkeypatch.setattr(contest, 'ROUND_SECONDS', 0.0)
  calls = []
  peers = {name: lambda name=name: calls.append(name) for name in ('a', 'b')}
  timing = contest.timed(contest.Contest(lambda: None, peers), quick=True)
  assert (timing.peer, timing.repeats, calls) == ('a', [1], ['a', 'b', 'a'])


def test_the_search_for_the_fastest_peer_ends_in_time(monkeypatch):
  calls = []
  peers = {name: lambda name=name: calls.append(name) for name in ('a', 'b')}
  monkeypatch.setattr(contest, 'SEARCH_SECONDS', 0.0)
  contest.fastest_peer(contest.Contest(lambda: None, peers), repeats=9)
  assert calls == ['a', 'b', 'a', 'b']  # once to warm up, and once timed


def test_difference_is_a_share_of_the_largest_value():
  theirs = [np.array([1.0, -4.0]), np.array([10.0])]
  ours = [jnp.array([1.0, -3.0]), jnp.array([10.0])]
  assert contest.relative_difference(ours, theirs) == pytest.approx(0.25)


def test_a_difference_of_nan_is_not_small():
  for ours in ([np.nan, 1.0], [1.0, np.nan]):
    pairs = [[np.array([value]) for value in values] for values in (ours, [1.0, 1.0])]
    assert not contest.relative_difference(*pairs) <= 1e-3


def test_results_that_are_zero_everywhere_compare_nothing():
  with pytest.raises(ValueError, match='zero everywhere'):
    contest.relative_difference([np.ones(3), np.zeros(3)], [np.ones(3), np.zeros(3)])


def test_a_kernel_may_differ_in_a_few_channels_alone():
  theirs = np.random.default_rng(0).normal(size=(1, 1, 7, 40))
  few, many = theirs.copy(), theirs.copy()
  few[..., :2] *= 1.1
  many[..., :8] *= 1.1
  assert contest.kernel_difference(few * (1 + 1e-5), theirs) == pytest.approx(1e-5)
  assert contest.kernel_difference(many, theirs) == pytest.approx(0.1)
  assert not contest.kernel_difference(theirs * np.nan, theirs) <= 1e-3


def test_compiled_calls_give_the_result():
  compiled, call = contest.compile_call(lambda x: 2 * x, jnp.arange(3.0))
  assert call().tolist() == [0.0, 2.0, 4.0]
  assert compiled.memory_analysis().output_size_in_bytes == 12
