"""Compiles the rendering functions for a TPU. This needs the TPU's compiler, but no TPU.

  python -m benchmarks.tpu_rendering

The compiler is in `libtpu` (`pip install libtpu`). For each function the benchmark prints the
seconds to lower and to compile it, and the memory of the compiled program. The compiler reports an
error where a program does not fit into a chip's memory. Nothing is run, so that speed and numerics
on a TPU are not measured.
"""

import importlib.util
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.experimental import topologies

from hand_jax.rendering.rasterize import rasterize, visible_vertices
from hand_jax.rendering.surfaces import interpolate

_TOPOLOGY = flags.DEFINE_string('topology', 'v5e:2x2', 'Name of the TPU topology to compile for.')
_BATCH = flags.DEFINE_integer('batch', 8, 'Images per chip.')
_SIZE = flags.DEFINE_integer('size', 224, 'Height and width in pixels.')
_VERTICES, _FACES = 778, 1538
_MIB = 2**20


def rendering_functions(size: int) -> dict[str, Callable]:
  """Returns functions of vertices (batch, V, 3), faces and attributes (batch, V, 3), by name."""

  def image_loss(vertices, faces, attributes):
    fragments = rasterize(vertices, faces, size, size)
    return jnp.sum(interpolate(fragments, faces, attributes) ** 2)

  functions = {
    'rasterize': lambda vertices, faces, _: rasterize(vertices, faces, size, size),
    'visible_vertices': lambda vertices, faces, _: visible_vertices(vertices, faces, size, size),
    'rasterize and interpolate, gradient': jax.grad(image_loss, argnums=(0, 2)),
  }
  if importlib.util.find_spec('hand_jax.rendering.soft') is not None:
    from hand_jax.rendering.soft import soft_silhouette

    def silhouette_loss(vertices, faces, _):
      return jnp.sum(soft_silhouette(vertices, faces, size, size, 1.0) ** 2)

    functions['soft_silhouette, gradient'] = jax.grad(silhouette_loss)
  return functions


def compile_for(device, function: Callable, batch: int) -> str:
  """Compiles a function for one chip, and describes the seconds and the memory in a line of text.

  Args:
    device: the chip.
    function: one of `rendering_functions`.
    batch: how many images.
  """
  sharding = jax.sharding.SingleDeviceSharding(device)
  floats = jax.ShapeDtypeStruct((batch, _VERTICES, 3), jnp.float32, sharding=sharding)
  faces = jax.ShapeDtypeStruct((_FACES, 3), jnp.int32, sharding=sharding)
  start = time.perf_counter()
  lowered = jax.jit(function).lower(floats, faces, floats)
  middle = time.perf_counter()
  memory = lowered.compile().memory_analysis()
  end = time.perf_counter()
  return (
    f'lower {middle - start:5.1f} s  compile {end - middle:6.1f} s'
    f'  temporary {memory.temp_size_in_bytes / _MIB:8.2f} MiB'
    f'  arguments {memory.argument_size_in_bytes / _MIB:6.2f} MiB'
    f'  results {memory.output_size_in_bytes / _MIB:6.2f} MiB'
  )


def main(_) -> None:
  """Compiles every function and prints its line."""
  if importlib.util.find_spec('libtpu') is None:
    print('libtpu is not installed, nothing was compiled: pip install libtpu')
    return
  # Only the compiler is used, so libtpu need not ask the metadata service of a cloud machine.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  topology = topologies.get_topology_desc(platform='tpu', topology_name=_TOPOLOGY.value)
  device = topology.devices[0]
  print(
    f'{_BATCH.value} images of {_SIZE.value} x {_SIZE.value} pixels on one {device.device_kind}'
  )
  for name, function in rendering_functions(_SIZE.value).items():
    print(f'{name:36s} {compile_for(device, function, _BATCH.value)}', flush=True)


if __name__ == '__main__':
  app.run(main)
