"""What a row of the benchmark measures, and how it is timed."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

Call = Callable[[], object]
ROUNDS = 3
LEAST_REPEATS = 15
# A round of a fast row goes on for so many seconds, or for so many repetitions.
ROUND_SECONDS, MOST_REPEATS = 1.0, 100
# Threads that still spin from one competitor's work would disturb the next.
PAUSE_SECONDS = 0.003


class Contest(NamedTuple):
  """Functions that do the same work and return when it is done."""

  ours: Call
  peers: Mapping[str, Call]
  """By name. The fastest of them counts. Empty: nothing does the same."""
  difference: float | None = None
  """The largest difference of results, as a share of the largest value."""
  compiled: Any = None
  """Our compiled program, which tells its arithmetic and its memory."""
  work: float | None = None
  """Arithmetic operations of a call of ours, where the compiler does not count them."""
  moved: float | None = None
  """Bytes that a call has to read and write, for rows that memory bounds."""


class Timing(NamedTuple):
  """Medians in milliseconds of each round."""

  peer: str
  ours_ms: list[float]
  peer_ms: list[float]

  def best(self) -> tuple[float, float | None]:
    """Returns both medians of the round with the lowest ratio."""
    if not self.peer:
      return min(self.ours_ms), None
    return min(zip(self.ours_ms, self.peer_ms, strict=True), key=lambda pair: pair[0] / pair[1])


def relative_difference(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
  """Returns the largest difference of pairs of arrays, each as a share of its largest value."""
  shares = []
  for a, b in zip(ours, theirs, strict=True):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    shares.append(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))
  return float(max(shares))


def timed(contest: Contest, quick: bool = False) -> Timing:
  """Times ours and the fastest peer in turn, in rounds.

  Args:
    contest: what is timed.
    quick: whether one round of three repetitions is enough, to try the benchmark itself.
  """
  contest.ours()
  peer = fastest_peer(contest, 1 if quick else 4)
  calls = [contest.ours] + ([contest.peers[peer]] if peer else [])
  rounds = [_round(calls, 3 if quick else LEAST_REPEATS) for _ in range(1 if quick else ROUNDS)]
  ours = [medians[0] for medians in rounds]
  return Timing(peer, ours, [medians[1] for medians in rounds] if peer else [])


def fastest_peer(contest: Contest, repeats: int) -> str:
  """Finds the peer with the lowest median in a heat. No peer gives an empty name."""
  for call in contest.peers.values():
    call()
  if len(contest.peers) < 2:
    return next(iter(contest.peers), '')
  seconds = {name: [] for name in contest.peers}
  for _ in range(repeats):
    for name, call in contest.peers.items():
      seconds[name].append(_seconds(call))
  return min(seconds, key=lambda name: statistics.median(seconds[name]))


def _round(calls: list[Call], least: int) -> list[float]:
  """Times the calls in turn, `least` times or more. Returns their medians in milliseconds."""
  seconds = [[] for _ in calls]
  start = time.perf_counter()
  gc.collect()
  for repeat in range(MOST_REPEATS):
    order = range(len(calls)) if repeat % 2 else reversed(range(len(calls)))
    for number in order:
      seconds[number].append(_seconds(calls[number]))
    if repeat + 1 >= least and time.perf_counter() - start > ROUND_SECONDS:
      break
  return [1e3 * statistics.median(values) for values in seconds]


def _seconds(call: Call) -> float:
  time.sleep(PAUSE_SECONDS)
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def compile_call(function: Callable, *arguments: Any) -> tuple[Any, Call]:
  """Compiles a function for its arguments. Returns the program and a call that waits for it."""
  compiled = jax.jit(function).lower(*arguments).compile()
  return compiled, lambda: jax.block_until_ready(compiled(*arguments))
