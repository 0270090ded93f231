"""Times our functions and those of other libraries in turn, for one row of the benchmark."""

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
# A round of a fast row ends after this many seconds, or after this many repetitions.
ROUND_SECONDS, MOST_REPEATS = 1.0, 100
# A round of slow calls ends after this many seconds, if it has this many repetitions. Without this
# limit, calls that take ten seconds would need most of the benchmark's time.
SLOW_ROUND_SECONDS, SLOW_REPEATS = 20.0, 2
# The search for the fastest peer ends after this many seconds, if each peer ran once.
SEARCH_SECONDS = 20.0
# Threads that still spin from one competitor's work would disturb the next one.
PAUSE_SECONDS = 0.003


class Contest(NamedTuple):
  """Functions that do the same work and return when it is done."""

  ours: Call
  peers: Mapping[str, Call]
  """Functions of other libraries by name. The fastest one counts. It may be empty."""
  difference: float | None = None
  """The largest difference of results, as a share of the largest value."""
  compiled: Any = None
  """Our compiled program, which reports its arithmetic and its memory."""
  work: float | None = None
  """Arithmetic operations of one call of ours, if `compiled` does not count them."""
  moved: float | None = None
  """Bytes that a call has to read and write, for rows that memory limits."""


class Timing(NamedTuple):
  """The medians of each round, in milliseconds."""

  peer: str
  ours_ms: list[float]
  peer_ms: list[float]
  repeats: Sequence[int] = ()
  """The number of repetitions in each round."""

  def best(self) -> tuple[float, float | None]:
    """Returns both medians of the round with the lowest ratio."""
    if not self.peer:
      return min(self.ours_ms), None
    return min(zip(self.ours_ms, self.peer_ms, strict=True), key=lambda pair: pair[0] / pair[1])


def relative_difference(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
  """Returns the largest difference of pairs of arrays, as a share of each pair's largest value.

  Raises:
    ValueError: one of their arrays is zero everywhere, so that its comparison would show nothing.
  """
  shares = []
  for a, b in zip(ours, theirs, strict=True):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not b.any():
      raise ValueError(
        f'results of shape {b.shape} are zero everywhere, so they show no difference.'
      )
    shares.append(np.abs(a - b).max() / np.abs(b).max())
  return float(np.max(shares))  # which is NaN if any share is


def kernel_difference(ours: Any, theirs: Any) -> float:
  """Returns a difference of two gradients of a kernel that nine of ten channels do not exceed.

  The loss has corners where an activation crosses zero in a ReLU. Rounding errors move a few of
  hundred thousands of activations across, each of which changes the gradient of its output channel
  by several percent. In ResNet-50 this happens to about one of forty channels.

  Args:
    ours: the gradient, with output channels last.
    theirs: the same gradient. Differences are shares of a channel's largest value in it.
  """
  a, b = (np.asarray(x, np.float64).reshape(-1, np.shape(x)[-1]) for x in (ours, theirs))
  shares = np.abs(a - b).max(0) / np.maximum(np.abs(b).max(0), 1e-12)
  return float(np.quantile(shares, 0.9, method='higher'))


def timed(contest: Contest, quick: bool = False) -> Timing:
  """Times ours and the fastest peer in turn, in rounds.

  Args:
    contest: the functions to time.
    quick: whether to time only one round, which may have one repetition, for a trial of the
      benchmark. The first peer then counts.
  """
  contest.ours()
  peer = fastest_peer(contest, 0 if quick else 4)
  calls = [contest.ours] + ([contest.peers[peer]] if peer else [])
  rounds = [_round(calls, 1 if quick else LEAST_REPEATS) for _ in range(1 if quick else ROUNDS)]
  ours = [medians[0] for medians, _ in rounds]
  theirs = [medians[1] for medians, _ in rounds] if peer else []
  return Timing(peer, ours, theirs, [repeats for _, repeats in rounds])


def fastest_peer(contest: Contest, repeats: int) -> str:
  """Finds the peer with the lowest median in `repeats` runs, or in fewer if they are slow.

  Each peer runs once before. Without repeats it is the first peer, and without peers the name is
  empty.
  """
  for call in contest.peers.values():
    call()
  if len(contest.peers) < 2 or not repeats:
    return next(iter(contest.peers), '')
  seconds = {name: [] for name in contest.peers}
  start = time.perf_counter()
  for repeat in range(repeats):
    if repeat and time.perf_counter() - start > SEARCH_SECONDS:
      break
    for name, call in contest.peers.items():
      seconds[name].append(_seconds(call))
  return min(seconds, key=lambda name: statistics.median(seconds[name]))


def _round(calls: list[Call], least: int) -> tuple[list[float], int]:
  """Times the calls in turn, `least` times or more, or less often if they are slow.

  Returns:
    Their medians in milliseconds, and how often each was timed.
  """
  seconds = [[] for _ in calls]
  start = time.perf_counter()
  gc.collect()
  for repeat in range(MOST_REPEATS):
    order = range(len(calls)) if repeat % 2 else reversed(range(len(calls)))
    for number in order:
      seconds[number].append(_seconds(calls[number]))
    spent = time.perf_counter() - start
    done = repeat + 1 >= least and spent > ROUND_SECONDS
    if done or (repeat + 1 >= SLOW_REPEATS and spent > SLOW_ROUND_SECONDS):
      break
  return [1e3 * statistics.median(values) for values in seconds], len(seconds[0])


def _seconds(call: Call) -> float:
  time.sleep(PAUSE_SECONDS)
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def compile_call(function: Callable, *arguments: Any) -> tuple[Any, Call]:
  """Compiles a function for its arguments. Returns the program and a call that waits for it."""
  compiled = jax.jit(function).lower(*arguments).compile()
  return compiled, lambda: jax.block_until_ready(compiled(*arguments))
