"""What tfds builders of hand examples share: numbering, progress and a digest of each split."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

Report = Callable[[str, int, int], None]
"""Called with a split's name, the examples done and the examples there will be."""


def no_report(split: str, done: int, count: int) -> None:
  """Where nobody watches."""


def numbered_records(
  split: str,
  records: Iterable[dict[str, Any]],
  count: int,
  digests: dict[str, str],
  report: Report = no_report,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """A split's encoded records with their numbers, reported one by one.

  After the last one `digests[split]` holds the SHA-256 of them all.
  """
  digest = hashlib.sha256()
  for index, record in enumerate(records):
    update_digest(digest, record)
    yield index, record
    report(split, index + 1, count)
  digests[split] = digest.hexdigest()


def update_digest(digest, record: dict[str, Any]) -> None:
  """Adds a record to a hash: its encoded pictures and labels, in the order of their names."""
  for name in sorted(record):
    value = record[name]
    digest.update(name.encode())
    if hasattr(value, 'getvalue'):
      digest.update(value.getvalue())
    elif isinstance(value, np.ndarray):
      digest.update(f'{value.dtype} {value.shape}'.encode() + value.tobytes())
    else:
      digest.update(str(value).encode())
