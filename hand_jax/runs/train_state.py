"""Defines `TrainState`, the whole state of a run."""

from typing import Any

from flax import struct


class TrainState(struct.PyTreeNode):
  """Everything a step reads and writes. All of it is in a checkpoint.

  `step` counts finished steps. `key` (raw uint32) is the run's PRNG key and never changes. A step
  that draws random numbers folds `step` and each example's global index into it.
  """

  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  key: Any


def state_variables(state: TrainState) -> dict[str, Any]:
  """Returns the variables that `network.apply` takes."""
  return {'params': state.params, 'batch_stats': state.batch_stats}
