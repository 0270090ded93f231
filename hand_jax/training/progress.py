"""Collects the metrics of a run's steps, counts skipped steps, and writes rows of means."""

import math
from collections.abc import Callable
from typing import Any

import jax

from hand_jax.config import ExperimentConfig
from hand_jax.training import parallel
from hand_jax.training.reports import RunLog, Stopwatch
from hand_jax.training.step import SKIPPED

_NAMED_EXAMPLES = 20


class Progress:
  """Collects metrics since the last row of the log, and averages them into the next.

  A step's metrics are fetched while the next step runs, so that devices do not wait for the host. A
  skipped step, whose numbers were not finite, counts as skipped and is left out of the means.

  Args:
    config: the run's config.
    saved: the result of `to_json` in the checkpoint that the run continues from, or nothing.
    unreplicate: copies the metrics of a step to the host, as the run's `Placement` does.
  """

  def __init__(
    self,
    config: ExperimentConfig,
    saved: dict[str, Any] | None = None,
    unreplicate: Callable[[Any], Any] = parallel.unreplicate,
  ):
    self._training, self._unreplicate = config.training, unreplicate
    saved = saved or {}
    batch_size, num_steps = config.training.batch_size, config.training.num_steps
    self._watch = Stopwatch(batch_size, num_steps, saved.get('speed', ()))
    self._pending: tuple[int, dict[str, jax.Array], list[str]] | None = None
    self._sums: dict[str, float] = dict(saved.get('sums', {}))
    self._learning_rate: float = saved.get('learning_rate', 0.0)
    self._steps: int = saved.get('steps', 0)
    self._skipped: int = saved.get('skipped', 0)
    self._skipped_in_a_row: int = saved.get('skipped_in_a_row', 0)
    self._skipped_examples: list[str] = list(saved.get('skipped_examples', ()))

  def to_json(self) -> dict[str, Any]:
    """Returns the part of a checkpoint that gives the next row the same numbers after a restart.

    Call `flush` first.
    """
    return {
      'sums': self._sums,
      'learning_rate': self._learning_rate,
      'steps': self._steps,
      'skipped': self._skipped,
      'skipped_in_a_row': self._skipped_in_a_row,
      'skipped_examples': self._skipped_examples,
      'speed': self._watch.to_json(),
    }

  @property
  def has_row(self) -> bool:
    """Whether any step was taken since the last row."""
    return self._steps + self._skipped > 0

  def add(self, step: int, metrics: dict[str, jax.Array], example_ids: list[str]) -> None:
    """Takes the metrics of a step, which are replicated and perhaps not computed yet.

    Args:
      step: number of the step.
      metrics: the metrics by name, replicated on the devices.
      example_ids: names of this host's examples in the step.

    Raises:
      FloatingPointError: see `flush`.
    """
    self.flush()
    self._pending = (step, metrics, example_ids)

  def flush(self) -> None:
    """Waits for the metrics that were taken last.

    Raises:
      FloatingPointError: `training.max_skipped_steps` in a row were skipped. The message names the
        last one's metrics that are not finite, and these steps' examples.
    """
    if self._pending is None:
      return
    step, metrics, example_ids = self._pending
    values = {name: float(value) for name, value in self._unreplicate(metrics).items()}
    self._pending = None
    self._watch.step()
    self._learning_rate = values.pop('learning_rate')
    if values.pop(SKIPPED):
      self._skip(step, values, example_ids)
      return
    self._steps += 1
    self._skipped_in_a_row, self._skipped_examples = 0, []
    for name, value in values.items():
      self._sums[name] = self._sums.get(name, 0.0) + value

  def write_row(self, log: RunLog | None, step: int, extra: dict[str, float]) -> None:
    """Writes the means since the last row, and begins the next one.

    Args:
      log: the log, or None on hosts that write none.
      step: number of the row.
      extra: further figures of this step.
    """
    means = {name: value / self._steps for name, value in self._sums.items()}
    row = {**means, 'learning_rate': self._learning_rate, SKIPPED: self._skipped, **extra}
    if log:
      log.write({'step': step, **row, **self._watch.read(step)})
    self._sums, self._steps, self._skipped = {}, 0, 0
    self._watch.restart()

  def _skip(self, step: int, values: dict[str, float], example_ids: list[str]) -> None:
    self._skipped += 1
    self._skipped_in_a_row += 1
    self._skipped_examples = [*self._skipped_examples, *example_ids]
    if self._skipped_in_a_row < self._training.max_skipped_steps:
      return
    names = list(dict.fromkeys(self._skipped_examples))
    bad = [f'{name} = {value}' for name, value in values.items() if not math.isfinite(value)]
    shown = ', '.join(names[:_NAMED_EXAMPLES])
    if len(names) > _NAMED_EXAMPLES:
      shown += f' and {len(names) - _NAMED_EXAMPLES} more'
    raise FloatingPointError(
      f'Training stopped at step {step}: {self._skipped_in_a_row} step(s) in a row were skipped, '
      f'because numbers were not finite: {", ".join(bad) or "a gradient"}. Examples: {shown}. A '
      'lower optimizer.learning_rate or optimizer.gradient_clip_norm may help; the last checkpoint '
      'is from before these steps.'
    )
