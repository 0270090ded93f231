"""Tries a run before it is started: its config, data, memory and one step. It writes nothing."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from hand_jax.config import ExperimentConfig
from hand_jax.data.example_sources import ExampleSource
from hand_jax.data.pipeline import training_batches
from hand_jax.runs.checkpoints import check_workdir
from hand_jax.runs.sources import latest_step
from hand_jax.setting_checks import validate_config
from hand_jax.training.ahead_of_time import peak_bytes, read_shortage
from hand_jax.training.announcing import describe_devices, describe_parameters
from hand_jax.training.hosts import check_same_settings, check_same_step, failing_together
from hand_jax.training.parts import RunParts, check_batch_size, make_parts, open_sources
from hand_jax.training.step import SKIPPED
from hand_jax.training.warm_start import describe_warm_start
from hand_jax.types import HandBatch, ManoModel

_ADVICE = (
  'A smaller training.batch_size, training.accumulate_steps, training.remat=blocks or '
  'model.compute_dtype=bfloat16 needs less.'
)


def dry_run(
  config: ExperimentConfig,
  workdir: str,
  model: ManoModel,
  train_source: ExampleSource | None = None,
  validation_source: ExampleSource | None = None,
  extend: bool = False,
) -> Iterator[str]:
  """Checks the inputs of `train_and_evaluate`, takes one step, and yields lines about both.

  The step is the first step of a new run, even if `workdir` holds a run. All hosts take part.

  Args:
    config: the run's config.
    workdir: the run's folder, which need not exist and is not written to.
    model: the hand model.
    train_source: the examples to train on. With None the config chooses them.
    validation_source: the examples to measure on. With None the config chooses them.
    extend: whether the run in `workdir` will be extended.

  Raises:
    ValueError, OSError: as `train_and_evaluate`.
    FloatingPointError: the step's numbers are not finite.
    MemoryError: the step does not fit into the devices.
  """
  with failing_together():
    validate_config(config)
    check_batch_size(config.training.batch_size, config.training.accumulate_steps)
    is_old = check_workdir(workdir, config, extend)
    step = latest_step(workdir)
  check_same_settings(config)
  check_same_step(workdir, step)
  training = config.training
  yield f'Config {config.name}: {training.num_steps} steps of {training.batch_size} examples.'
  yield (
    f'Workdir {workdir}: '
    + ('continues a run' + (f' after step {step}.' if step else '.') if is_old else 'a new run.')
  )
  kinds = ', '.join(sorted({device.device_kind for device in jax.devices()}))
  yield (
    f'Devices: {describe_devices()} ({kinds}) of {jax.process_count()} host(s), by '
    f'{training.parallel}.'
  )
  with failing_together():
    sources = open_sources(config, train_source, validation_source)
  yield (
    f'Data {config.data.dataset}: {len(sources.training)} examples to train on, '
    f'{len(sources.validation)} to validate on.'
  )
  with failing_together():
    parts = make_parts(config, workdir, model)
    batch = _first_batch(sources.training, config, model)
  yield describe_parameters(config, parts.initial_state)
  if parts.start.sources:
    yield from describe_warm_start(parts.start)
  yield from _try_step(parts, batch)
  yield 'Nothing was written. Without --dry_run the same command trains.'


def _first_batch(source: ExampleSource, config: ExperimentConfig, model: ManoModel) -> HandBatch:
  place = jax.process_index(), jax.process_count()
  count = len(model.v_template)
  with training_batches(source, config, count, 0, *place, model.faces) as batches:
    return next(batches)


def _try_step(parts: RunParts, batch: HandBatch) -> Iterator[str]:
  """Compiles the step, takes it, and yields lines about its memory and its loss."""
  placement = parts.placements.training
  state, constants = placement.replicate(parts.initial_state), placement.replicate(parts.constants)
  on_devices = placement.shard_batch(batch)
  try:
    compiled = parts.train_step.lower(state, on_devices, *constants).compile()
    yield _describe_memory(compiled)
    _, metrics = compiled(state, on_devices, *constants)
    metrics = placement.unreplicate(metrics)
  except jax.errors.JaxRuntimeError as error:
    raise _shortage(error) from error
  values = {name: float(np.asarray(value)) for name, value in metrics.items()}
  if values.pop(SKIPPED, 0.0):
    bad = ', '.join(f'{name} = {value}' for name, value in values.items() if not np.isfinite(value))
    raise FloatingPointError(f'The first step has numbers that are not finite: {bad}.')
  yield f'One step: total loss {values["total"]:.4g}, gradient norm {values["gradient_norm"]:.4g}.'


def _describe_memory(compiled: Any) -> str:
  text = f'Memory of each device, as compiled: {peak_bytes(compiled) / 2**20:.1f} MiB'
  limit = (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit')
  return text + (f' of {limit / 2**20:.1f} MiB.' if limit else '.')


def _shortage(error: Exception) -> Exception:
  """Makes the error of a step that does not fit, or returns an error that has another cause."""
  if found := read_shortage(error):
    used, limit = (f'{size / 2**30:.2f} GiB' for size in found)
    return MemoryError(f'The step does not fit: it needs {used} of {limit} a device. {_ADVICE}')
  if 'RESOURCE_EXHAUSTED' in str(error):
    return MemoryError(f'The step does not fit into the memory of a device. {_ADVICE}')
  return error
