"""Puts batches on devices while earlier steps run."""

import collections
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hand_jax.types import HandBatch


class PlacedBatch(NamedTuple):
  """A batch on the host, with the examples' ids, and the same batch on the devices."""

  host: HandBatch
  on_devices: HandBatch


class DevicePrefetch(Iterator[PlacedBatch]):
  """An iterator over batches in order, which are put on devices `depth` - 1 batches ahead.

  `position` counts the batches that were taken, but not those that were put ahead. A run that
  continues from there takes the next batch. An error in a later batch is raised when that batch is
  due.

  Args:
    batches: the batches on the host.
    place: puts a batch on devices, and does not wait for it to arrive.
    position: number of batches that the run has taken before.
    depth: number of batches on the devices at once, including the one that a step reads.
  """

  def __init__(
    self,
    batches: Iterator[HandBatch],
    place: Callable[[HandBatch], HandBatch],
    position: int = 0,
    depth: int = 2,
  ):
    self.position = position
    self._batches, self._place, self._depth = batches, place, depth
    self._ahead: collections.deque[PlacedBatch | Exception] = collections.deque()

  def __next__(self) -> PlacedBatch:
    # The last step was started before this is called, and runs while the next batch is put.
    while len(self._ahead) < self._depth and not self._has_ended():
      try:
        batch = next(self._batches)
        self._ahead.append(PlacedBatch(batch, self._place(batch)))
      except Exception as error:  # It is kept until its turn. The end of the batches is one too.
        self._ahead.append(error)
    item = self._ahead[0]
    if isinstance(item, Exception):
      raise item
    self._ahead.popleft()
    self.position += 1
    return item

  def _has_ended(self) -> bool:
    return bool(self._ahead) and isinstance(self._ahead[-1], Exception)
