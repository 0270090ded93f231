"""A line on the terminal that counts what has been measured."""

import sys
from collections.abc import Iterable, Iterator

from hand_jax.types import HandBatch


def with_progress(batches: Iterable[HandBatch], total: int) -> Iterator[HandBatch]:
  """The batches, with a line on the terminal that counts their examples."""
  done = 0
  for batch in batches:
    yield batch
    done += int((~batch.is_padding).sum())
    print_progress(done, f'of {total} examples')


def print_progress(done: int, rest: str) -> None:
  """A line on the terminal that the next one replaces; nothing elsewhere."""
  if sys.stdout.isatty():
    print(f'Measured {done} {rest}', end='\r', flush=True)
