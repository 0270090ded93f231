"""Numbers, hashes and reports the records of tfds builders, and makes them in worker processes."""

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
"""It is called with a split's name, and the numbers of finished and of all examples."""

Job = TypeVar('Job')


def no_report(split: str, done: int, count: int) -> None:
  """Does nothing, for builds whose progress nobody watches.

  Args:
    split: name of the split.
    done: number of finished examples.
    count: number of all examples.
  """


def numbered_records(
  split: str,
  records: Iterable[dict[str, Any] | Skip],
  count: int,
  digests: dict[str, str],
  report: Report = no_report,
  skips: list[Skip] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields the encoded records of a split with their numbers, and reports them one by one.

  Args:
    split: name of the split.
    records: its records. A skip takes no number.
    count: number of records there will be, with the skips.
    digests: after the last record, `digests[split]` is set to the SHA-256 of all records.
    report: called after each record or skip.
    skips: collects the skips. None makes the first skip an error.

  Raises:
    ValueError: there is a skip and `skips` is None, or there is nothing but skips.
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
  """Starts that many processes, or none for a count of 1, where this process does the work.

  The context gives the executor, or None for a count of 1. No worker outlives this process.
  """
  if count == 1:
    yield None
    return
  others = set(multiprocessing.active_children())
  # JAX runs threads, which a forked process would lack.
  executor = ProcessPoolExecutor(
    count, mp_context=multiprocessing.get_context('spawn'), initializer=_follow_parent
  )
  # A process inherits the blocked signals of the thread that starts it. So Ctrl-C does not
  # interrupt one that is still importing.
  blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    for _ in range(count):
      executor.submit(os.getpid)
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
  try:
    yield executor
  except BaseException:
    # Nobody wants the work in progress any more, and it may take long.
    for worker in set(multiprocessing.active_children()) - others:
      worker.terminate()
    raise
  finally:
    executor.shutdown(cancel_futures=True)


def _follow_parent() -> None:
  """Makes a worker leave Ctrl-C to its parent, and end when the parent is gone."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
  parent.join()
  # The main thread may be waiting for work that will never come.
  os._exit(1)


def results_in_order(
  make: Callable[[Job], list[Any]],
  jobs: Iterable[Job],
  executor: ProcessPoolExecutor | None = None,
  ahead: int = 4,
) -> Iterator[Any]:
  """Yields the results of all jobs, in order.

  Args:
    make: makes the results of one job.
    jobs: the jobs.
    executor: runs `make` in its processes. None runs it in this process.
    ahead: largest number of jobs made ahead, so that memory does not grow with their number.
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
  """Adds a record to a hash: its encoded pictures and labels, sorted by name."""
  for name in sorted(record):
    value = record[name]
    digest.update(name.encode())
    if hasattr(value, 'getvalue'):
      digest.update(value.getvalue())
    elif isinstance(value, np.ndarray):
      digest.update(f'{value.dtype} {value.shape}'.encode() + value.tobytes())
    else:
      digest.update(str(value).encode())
