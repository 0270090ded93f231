"""Batches put on devices ahead of their steps: order, position, errors and depth."""

import itertools

import pytest

from hand_jax.training.prefetch import DevicePrefetch


class Batches:
  """Numbers for batches, which fail at `broken` and end at `end`, and tells what was asked for."""

  def __init__(self, broken: int = 99, end: int = 99):
    self.taken, self._broken, self._end = 0, broken, end

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> int:
    number = self.taken
    if number == self._broken:
      raise KeyError(number)
    if number == self._end:
      raise StopIteration
    self.taken += 1
    return number


def test_batches_keep_their_order_and_are_placed_once():
  placed = []
  prefetch = DevicePrefetch(Batches(end=5), lambda batch: placed.append(batch) or -batch)
  taken = list(prefetch)
  assert [item.host for item in taken] == placed == [0, 1, 2, 3, 4]
  assert [item.on_devices for item in taken] == [0, -1, -2, -3, -4]
  with pytest.raises(StopIteration):
    next(prefetch)


@pytest.mark.parametrize('depth', [1, 2, 3])
def test_the_next_batches_are_placed_before_a_step_asks_for_them(depth):
  batches, placed = Batches(), []
  prefetch = DevicePrefetch(batches, placed.append, depth=depth)
  for step in range(1, 5):
    next(prefetch)
    assert len(placed) == batches.taken == step + depth - 1


def test_the_position_counts_what_was_taken_not_what_was_placed():
  prefetch = DevicePrefetch(Batches(), lambda batch: batch, position=7)
  positions = []
  for _ in itertools.islice(prefetch, 3):
    positions.append(prefetch.position)
  assert positions == [8, 9, 10]


def test_an_error_waits_for_the_step_of_its_batch():
  prefetch = DevicePrefetch(Batches(broken=3), lambda batch: batch)
  assert [next(prefetch).host for _ in range(3)] == [0, 1, 2]
  for _ in range(2):
    with pytest.raises(KeyError):
      next(prefetch)
  assert prefetch.position == 3
