"""Shows on the terminal how many examples have been measured."""

import sys
from collections.abc import Iterable, Iterator

from hand_jax.types import HandBatch


def with_progress(batches: Iterable[HandBatch], total: int) -> Iterator[HandBatch]:
  """Passes the batches on and counts their examples in a line on the terminal."""
  done = 0
  for batch in batches:
    yield batch
    done += int((~batch.is_padding).sum())
    print_progress(done, f'of {total} examples')


def print_progress(done: int, rest: str) -> None:
  """Prints a line that the next one replaces. It prints nothing where the output is no terminal."""
  if sys.stdout.isatty():
    print(f'Measured {done} {rest}', end='\r', flush=True)
