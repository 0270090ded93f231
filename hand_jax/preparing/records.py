"""What tfds builders of hand examples share: numbering, skips, workers, progress and digests."""

import collections
import contextlib
import hashlib
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import numpy as np

from hand_jax.examples import Skip

Report = Callable[[str, int, int], None]
"""Called with a split's name, the examples done and the examples there will be."""

Job = TypeVar('Job')


def no_report(split: str, done: int, count: int) -> None:
  """Where nobody watches."""


def numbered_records(
  split: str,
  records: Iterable[dict[str, Any] | Skip],
  count: int,
  digests: dict[str, str],
  report: Report = no_report,
  skips: list[Skip] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """A split's encoded records with their numbers, reported one by one.

  Skips are collected in `skips` and take no number. After the last record `digests[split]` holds
  the SHA-256 of them all.

  Raises:
    ValueError: a skip where `skips` is None, or nothing but skips.
  """
  digest, number = hashlib.sha256(), 0
  for done, record in enumerate(records, start=1):
    if isinstance(record, Skip):
      if skips is None:
        raise ValueError(f'{record.example_id}: {record.reason}.')
      skips.append(record)
    else:
      update_digest(digest, record)
      yield number, record
      number += 1
    report(split, done, count)
  if skips and not number:
    first = skips[0]
    raise ValueError(
      f'None of the {count} examples of split {split!r} can be used. The first, '
      f'{first.example_id}: {first.reason}.'
    )
  digests[split] = digest.hexdigest()


@contextlib.contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor | None]:
  """That many processes, or None for one: this process itself. None of them outlives this one."""
  if count == 1:
    yield None
    return
  others = set(multiprocessing.active_children())
  # JAX runs threads, which a forked process would not have.
  executor = ProcessPoolExecutor(
    count, mp_context=multiprocessing.get_context('spawn'), initializer=_follow_parent
  )
  # A process keeps the blocked signals of the thread that starts it: one that is still importing
  # must not be interrupted either.
  blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    for _ in range(count):
      executor.submit(os.getpid)
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
  try:
    yield executor
  except BaseException:
    # What they are working on is wanted no more, and may take long.
    for worker in set(multiprocessing.active_children()) - others:
      worker.terminate()
    raise
  finally:
    executor.shutdown(cancel_futures=True)


def _follow_parent() -> None:
  """In a worker: Ctrl-C is left to the parent, and the worker ends when the parent is gone."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
  parent.join()
  # The main thread may be waiting for work that nobody will give.
  os._exit(1)


def results_in_order(
  make: Callable[[Job], list[Any]],
  jobs: Iterable[Job],
  executor: ProcessPoolExecutor | None = None,
  ahead: int = 4,
) -> Iterator[Any]:
  """What `make` gives for each job, in order, made by the executor's processes where there is one.

  At most `ahead` jobs are made ahead, so that memory does not grow with their number.
  """
  if executor is None:
    for job in jobs:
      yield from make(job)
    return
  pending: collections.deque = collections.deque()
  for job in jobs:
    pending.append(executor.submit(make, job))
    if len(pending) > ahead:
      yield from pending.popleft().result()
  while pending:
    yield from pending.popleft().result()


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
