"""Compiles a training step for TPUs that this machine does not have.

python -m experiments.compile_for --config=synthetic_supervised --topology=v5e:16x16
"""

import dataclasses
import json

import jax
from absl import flags

from experiments.configs.names import get_config
from experiments.launching import launch, start
from experiments.path_flags import define_path
from hand_jax.config import ExperimentConfig, validate_config
from hand_jax.config_text import apply_overrides
from hand_jax.runs.hand_models import load_training_model
from hand_jax.training.ahead_of_time import (
  CompiledStep,
  Topology,
  compile_step,
  find_topology,
  largest_batch,
)

FLAGS = flags.FLAGS
DOES_NOT_FIT = 3


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  flags.DEFINE_string(
    'config', None, 'An experiment. `python -m experiments.configs` lists them.', flag_values=values
  )
  flags.DEFINE_multi_string(
    'set', [], 'A setting, as a.b=value. May be repeated.', flag_values=values
  )
  flags.DEFINE_string(
    'topology',
    None,
    'Devices: v4, v5e, v5p or v6e and a shape, such as v5e:16x16; or cpu:2.',
    flag_values=values,
  )
  flags.DEFINE_integer('per_device_batch', 64, 'Examples of each device.', 1, flag_values=values)
  flags.DEFINE_bool(
    'largest', False, 'Finds the largest --per_device_batch that fits.', flag_values=values
  )
  define_path(
    'mano_dir',
    None,
    'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.',
    values=values,
  )
  flags.mark_flags_as_required(['config', 'topology'], values)


def describe(step: CompiledStep, topology: Topology, config: ExperimentConfig, batch: int) -> str:
  """Describes a compiled step in lines for people."""
  devices = len(topology.devices)
  memory = f'Memory of each device: {step.peak_bytes / 2**30:.2f} GiB'
  if step.hbm_bytes is not None:
    memory += f' of {step.hbm_bytes / 2**30:.2f} GiB'
  lines = [
    f'{config.name} on {topology.name}: {devices} devices, {batch} examples each.',
    memory + ('.' if step.fits else ': it does not fit.'),
  ]
  if step.flops is not None and step.bytes_accessed is not None and step.reduced_bytes is not None:
    lines += [
      f'Each device: {step.flops / 1e9:.1f} GFLOP, {step.bytes_accessed / 1e9:.2f} GB read and '
      'written (the body of a loop counts once).',
      f'{step.all_reduces} all-reduces of {step.reduced_bytes / 1e6:.1f} MB.',
    ]
  if step.roofline is not None:
    lines += _describe_time(step, config, batch * devices)
  return '\n'.join(lines)


def _describe_time(step: CompiledStep, config: ExperimentConfig, batch: int) -> list[str]:
  roofline = step.roofline
  assert roofline is not None
  per_second = 1e3 * batch / roofline.step_ms
  lines = [
    f'At least {roofline.step_ms:.1f} ms a step: arithmetic {roofline.compute_ms:.1f}, memory '
    f'{roofline.memory_ms:.1f}, all-reduces {roofline.network_ms:.2f} ms, at peak rates. '
    'It was compiled, not run: a real step takes longer.',
    f'At most {per_second:.0f} examples/s.',
  ]
  if config.data.train_examples:
    seconds = config.data.train_examples / per_second
    lines.append(f'An epoch of {config.data.train_examples} examples: at least {seconds:.1f} s.')
  return lines


def as_json(step: CompiledStep, topology: Topology, config: str, batch: int) -> str:
  """Writes the figures as one line of JSON. Those of a step that does not fit are null."""
  roofline = step.roofline
  return json.dumps(
    {
      'config': config,
      'topology': topology.name,
      'devices': len(topology.devices),
      'per_device_batch': batch,
      'fits': step.fits,
      'peak_bytes_per_device': step.peak_bytes,
      'hbm_bytes': step.hbm_bytes,
      'flops': step.flops,
      'bytes_accessed': step.bytes_accessed,
      'all_reduces': step.all_reduces,
      'step_ms_estimate': None if roofline is None else round(roofline.step_ms, 4),
    }
  )


def main(argv: list[str]) -> int:
  """Reads the flags, compiles the step, and prints what it needs."""
  start(argv, 'settings are given as --set a.b=value')
  config = apply_overrides(get_config(FLAGS.config), FLAGS.set)
  # The mesh is what is compiled. A pmap of the same step cannot be compiled for absent devices.
  training = dataclasses.replace(config.training, parallel='mesh')
  config = validate_config(dataclasses.replace(config, training=training))
  model = load_training_model(config.data.dataset, FLAGS.mano_dir, ())
  topology = find_topology(FLAGS.topology)
  compiled: dict[int, CompiledStep] = {}

  def compile_once(batch: int) -> CompiledStep:
    if batch not in compiled:
      compiled[batch] = compile_step(config, model, topology, batch)
      print(describe(compiled[batch], topology, config, batch), flush=True)
    return compiled[batch]

  batch = FLAGS.per_device_batch
  if FLAGS.largest:
    if topology.accelerator is None:
      raise ValueError('--largest needs a --topology with memory of its own, such as v5e:16x16.')
    found = largest_batch(lambda batch: compile_once(batch).fits)
    batch = found or 8
    print(f'The largest batch of each device that fits: {found} (a multiple of 8).')
  step = compile_once(batch)
  print(as_json(step, topology, FLAGS.config, batch))
  return 0 if step.fits else DOES_NOT_FIT


if __name__ == '__main__':
  jax.config.update('jax_platforms', 'cpu')
  define_flags()
  launch(main)
