"""TrainState, the only state of a run."""

from typing import Any

import flax
from jaxtyping import Array


@flax.struct.dataclass
class TrainState:
  """Everything a step reads and writes; all of it is in a checkpoint.

  `step` counts finished steps. `key` (raw uint32) is the run's PRNG key and stays what it is:
  a step that draws folds `step` and each example's global index into it.
  """

  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  key: Any


def state_variables(state: TrainState) -> dict[str, Array | Any]:
  """What `network.apply` takes."""
  return {'params': state.params, 'batch_stats': state.batch_stats}
