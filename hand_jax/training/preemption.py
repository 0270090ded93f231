"""Notices that a run's machine is about to be taken away, so that the run is saved in time.

Schedulers send SIGTERM some seconds before they end a process. A run that gets it saves its state
at the next step and ends with exit code 143. Shells report this code for a process that SIGTERM
ended.
"""

import signal
import threading

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM


class Preempted(SystemExit):
  """Ends a run that SIGTERM stopped and that has been saved. The process exits with 143."""

  def __init__(self, workdir: str, step: int):
    super().__init__(EXIT_CODE)
    self.workdir, self.step = workdir, step

  def __str__(self) -> str:
    return (
      f'Stopped by SIGTERM and saved in {self.workdir} at step {self.step}. The same command '
      'continues the run.'
    )


class PreemptionWatch:
  """Reports at points of a run whether it has to be saved now. Use it in a `with` block.

  Hosts of a distributed run have to stop at the same point. JAX's preemption service finds that
  point, so all hosts have to call `is_due` equally often. A single process handles SIGTERM itself,
  but only if the block runs in its main thread, because Python handles signals nowhere else.
  """

  def __init__(self):
    self._is_requested = False
    self._points = 0
    self._former = None

  def is_due(self) -> bool:
    """Returns whether the run has to be saved now. All hosts call it at the same points."""
    if not self._is_requested and jax.distributed.is_initialized():
      self._points += 1
      self._is_requested = multihost_utils.reached_preemption_sync_point(self._points)
    return self._is_requested

  def _request(self, *_) -> None:
    self._is_requested = True

  def __enter__(self) -> 'PreemptionWatch':
    # In a run of several hosts, JAX's service handles SIGTERM.
    if (
      not jax.distributed.is_initialized() and threading.current_thread() is threading.main_thread()
    ):
      self._former = signal.signal(signal.SIGTERM, self._request)
    return self

  def __exit__(self, *_) -> None:
    if self._former is not None:
      signal.signal(signal.SIGTERM, self._former)
