"""Writes the lines that a run prints when it starts."""

import jax
import numpy as np

from hand_jax.config import ExperimentConfig
from hand_jax.runs.train_state import TrainState
from hand_jax.training.state import count_parameters, learning_rate_schedule


def describe_parameters(config: ExperimentConfig, state: TrainState) -> str:
  """Names the config, and counts the parameters of each part of its network."""
  sizes = count_parameters(state.params)
  parts = ', '.join(f'{name} {size:,}' for name, size in sizes.items())
  return f'{config.name}: {sum(sizes.values()):,} parameters ({parts}).'


def describe_devices() -> str:
  """Counts the devices of all hosts."""
  return f'{jax.device_count()} {jax.default_backend()} device(s)'


def describe_extension(config: ExperimentConfig, former_steps: int, step: int) -> str:
  """Describes the new schedule of the learning rate of an extended run.

  Args:
    config: the config of the run after the extension.
    former_steps: the number of steps of the run before the extension.
    step: the step at which the run continues.
  """
  steps = config.training.num_steps
  before, now = (learning_rate_schedule(config.optimizer, count) for count in (former_steps, steps))
  first, following, last = (
    float(np.asarray(rate)) for rate in (before(step), now(step), now(steps))
  )
  return (
    f'Extended from {former_steps} to {steps} steps. The schedule of the learning rate is restated '
    f'for all {steps}: at step {step} it goes from {first:.3g} to '
    f'{following:.3g}, and reaches {last:.3g} at the last step. A run that had '
    f'{steps} steps from its start has other numbers.'
  )
