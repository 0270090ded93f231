"""Compares an exported network in ONNX Runtime with the same network in this package.

  python -m benchmarks.exported_network --workdir=RUN

This needs ONNX Runtime (pip install -e '.[onnx]'). Both sides compute everything from crops to
meshes, sigma and camera in float32, in turn and in one process. The StableHLO program of `hand-jax
export` is measured as well. On a shared machine only the ratios are reliable.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
import onnxruntime
from absl import flags, logging
from jax import export

from benchmarks.interleave import compare
from experiments.launching import launch, refuse_arguments
from hand_jax.exporting.crop_program import create_crop_program
from hand_jax.exporting.exported_run import (
  ExportedRun,
  exported_files,
  load_exported_run,
  stablehlo,
)

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_REPEATS = flags.DEFINE_integer('repeats', 15, 'Timed calls of each competitor.')
_THREADS = flags.DEFINE_integer('threads', 2, 'Threads that ONNX Runtime may use.')
_BATCHES = flags.DEFINE_list('batches', ['1', '8'], 'Crops in a batch.')


def onnx_call(run: ExportedRun) -> Callable[[np.ndarray, np.ndarray], list]:
  """Returns a function that runs the ONNX program."""
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = _THREADS.value
  content = exported_files(run, 'onnx')['hand_network.onnx']
  session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
  return lambda crops, is_left: session.run(None, {'crops': crops, 'is_left': is_left})


def package_call(run: ExportedRun) -> Callable[[np.ndarray, np.ndarray], object]:
  """Returns a function that runs the network as the package does, with the same outputs."""

  @jax.jit
  def estimate(variables, model, crops, is_left):
    return create_crop_program(run.config, variables, model)(crops, is_left)

  variables, model = jax.device_put((run.variables, run.model))
  return lambda crops, is_left: jax.device_get(estimate(variables, model, crops, is_left))


def stablehlo_call(run: ExportedRun) -> Callable[[np.ndarray, np.ndarray], object]:
  """Returns a function that runs the StableHLO program."""
  program = jax.jit(export.deserialize(bytearray(stablehlo(run, 'cpu'))).call)
  return lambda crops, is_left: jax.device_get(program(crops, is_left))


def main(argv: list[str]) -> None:
  """Measures the three programs and prints the ratios."""
  refuse_arguments(argv)
  logging.set_verbosity(logging.ERROR)  # Orbax would log dozens of lines.
  run = load_exported_run(_WORKDIR.value)
  calls = {
    'ONNX Runtime': onnx_call(run),
    'hand_jax': package_call(run),
    'hand_jax, StableHLO': stablehlo_call(run),
  }
  side = run.config.model.image_size
  for count in map(int, _BATCHES.value):
    crops = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    is_left = np.arange(count) % 2 == 1
    print(f'{run.config.name}, batch {count}, {_THREADS.value} threads:')
    compare(
      {name: functools.partial(call, crops, is_left) for name, call in calls.items()},
      _REPEATS.value,
    )


if __name__ == '__main__':
  launch(main)
