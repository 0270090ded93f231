"""Compiles a training step for TPUs that this machine does not have.

python -m experiments.compile_for --config=synthetic_supervised --topology=v5e:16x16
"""

import contextlib
import dataclasses
import os
import re

import jax
from absl import flags

from experiments.configs.names import get_config
from experiments.launching import launch, start
from experiments.path_flags import define_path
from hand_jax.config_text import apply_overrides
from hand_jax.runs.hand_models import load_training_model
from hand_jax.setting_checks import validate_config
from hand_jax.training.ahead_of_time import (
  CompiledStep,
  compile_step,
  find_topology,
  largest_batch,
)
from hand_jax.training.compiled_report import as_json, describe

FLAGS = flags.FLAGS
DOES_NOT_FIT = 3
_MOST_SIMULATED = 64


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


def simulate_devices(topology: str) -> None:
  """Simulates the CPU devices of a topology such as cpu:2, unless JAX's devices are in use already.

  Other topologies are left to `find_topology`, and so are the messages about wrong ones.
  """
  kind, _, count = topology.partition(':')
  if kind != 'cpu' or not re.fullmatch(r'\d{1,3}', count) or int(count) > _MOST_SIMULATED:
    return
  if 'JAX_NUM_CPU_DEVICES' not in os.environ:
    with contextlib.suppress(RuntimeError):  # of devices in use
      jax.config.update('jax_num_cpu_devices', int(count))


def main(argv: list[str]) -> int:
  """Reads the flags, compiles the step, and prints its memory and cost."""
  start(argv, 'settings are given as --set a.b=value')
  simulate_devices(FLAGS.topology)
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
