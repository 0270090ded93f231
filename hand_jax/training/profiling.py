"""Traces steps of a run with JAX's profiler, for TensorBoard and Perfetto."""

import pathlib
import re
import tempfile
from typing import Any, NamedTuple

import jax

from hand_jax.files.buckets import open_path, upload

PROFILE_NAME = 'profile'


class ProfiledSteps(NamedTuple):
  """The first and the last step that are traced. Steps count from 1, as in the log."""

  first: int
  last: int


def parse_profiled_steps(text: str, num_steps: int) -> ProfiledSteps:
  """Reads FIRST:LAST, two steps of a run.

  Args:
    text: the value of --profile_steps.
    num_steps: number of steps of the run.

  Raises:
    ValueError: the text is of another form, or names steps that the run does not have.
  """
  found = re.fullmatch(r'(\d+):(\d+)', text)
  steps = ProfiledSteps(int(found[1]), int(found[2])) if found else None
  if steps is None or not 1 <= steps.first <= steps.last <= num_steps:
    raise ValueError(
      f'--profile_steps={text}: expected FIRST:LAST, two of the steps 1 to {num_steps} of the '
      'run, such as 10:12.'
    )
  return steps


class Profiler:
  """Traces the requested steps into `profile/` of a workdir. Use it in a `with` block.

  A run that continues after the first of these steps traces the rest.

  Args:
    workdir: the run's folder.
    steps: the steps to trace, or None for none.
  """

  def __init__(self, workdir: str, steps: ProfiledSteps | None):
    self._folder, self._steps = open_path(workdir) / PROFILE_NAME, steps
    self._is_tracing = False
    # JAX writes to folders of this computer.
    is_local = isinstance(self._folder, pathlib.Path)
    self._temporary = None if is_local else tempfile.TemporaryDirectory()

  def start(self, step: int) -> None:
    """Begins the trace if this step, which comes next, belongs to it."""
    if self._steps is None or self._is_tracing:
      return
    if self._steps.first <= step <= self._steps.last:
      jax.profiler.start_trace(self._temporary.name if self._temporary else str(self._folder))
      self._is_tracing = True

  def stop(self, step: int, outputs: Any) -> None:
    """Waits for the outputs and ends the trace, if this step was its last one."""
    if self._is_tracing and self._steps is not None and step >= self._steps.last:
      jax.block_until_ready(outputs)
      self._end()

  def _end(self) -> None:
    self._is_tracing = False
    jax.profiler.stop_trace()
    if self._temporary:
      upload(pathlib.Path(self._temporary.name), self._folder)
    if jax.process_index() == 0:
      print(f'The trace of steps is in {self._folder}.', flush=True)

  def __enter__(self) -> 'Profiler':
    return self

  def __exit__(self, *_) -> None:
    # A run that stops within these steps keeps what was traced.
    if self._is_tracing:
      self._end()
    if self._temporary:
      self._temporary.cleanup()
