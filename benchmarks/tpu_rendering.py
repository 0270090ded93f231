"""Compiles the rendering functions for a TPU. This needs the TPU's compiler, but no TPU.

  python -m benchmarks.tpu_rendering

The compiler is in `libtpu` (`pip install libtpu`). For each function the benchmark prints the
seconds to lower and to compile it, the memory of the compiled program, and the operations and bytes
that the compiler counts. It counts the body of a loop once, and soft pictures of these posed hands
take the printed number of steps. The compiler reports an error if a program does not fit into a
chip's memory. Nothing is run, so speed and numerics on a TPU are not measured.
"""

import importlib.util
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental import topologies

from benchmarks.rasterizer import posed_hands
from experiments.launching import launch, refuse_arguments
from hand_jax.rendering.rasterize import rasterize, visible_vertices
from hand_jax.rendering.soft import default_blur_radius, soft_blend, soft_silhouette
from hand_jax.rendering.surfaces import interpolate
from hand_jax.rendering.tiles import FACES_AT_ONCE, tiles_of

_TOPOLOGY = flags.DEFINE_string('topology', 'v5e:2x2', 'Name of the TPU topology to compile for.')
# The flags --batch, images per chip, and --size are defined in benchmarks.rasterizer.
_VERTICES, _FACES = 778, 1538
_MIB = 2**20
_SIGMA = 1.0


def rendering_functions(size: int) -> dict[str, Callable]:
  """Returns functions by name, of vertices (batch, V, 3), faces and attributes (batch, V, 3)."""

  def image_loss(vertices, faces, attributes):
    fragments = rasterize(vertices, faces, size, size)
    return jnp.sum(interpolate(fragments, faces, attributes) ** 2)

  functions = {
    'rasterize': lambda vertices, faces, _: rasterize(vertices, faces, size, size),
    'visible_vertices': lambda vertices, faces, _: visible_vertices(vertices, faces, size, size),
    'rasterize and interpolate, gradient': jax.grad(image_loss, argnums=(0, 2)),
  }

  def silhouette(vertices, faces, _):
    return soft_silhouette(vertices, faces, size, size, _SIGMA)

  def blend(vertices, faces, attributes):
    return soft_blend(vertices, faces, attributes, 0.0, size, size, _SIGMA, 0.01).rgb

  def slope_of(picture):
    return jax.grad(lambda *arrays: jnp.sum(picture(*arrays) ** 2), argnums=(0, 2))

  return functions | {
    'soft_silhouette': silhouette,
    'soft_silhouette, gradient': slope_of(silhouette),
    'soft_blend': blend,
    'soft_blend, gradient': slope_of(blend),
  }


def loop_steps(batch: int, size: int) -> int:
  """Counts the steps of the loop over faces in soft pictures of posed hands."""
  vertices, faces = posed_hands(batch, size)
  corners = jnp.asarray(vertices)[:, faces, :2]
  radius = default_blur_radius(_SIGMA, len(faces))
  tiles = tiles_of(corners, jnp.ones(corners.shape[:2], bool), radius, size, size)
  return -(-int(tiles.counts.max()) // FACES_AT_ONCE)


def compile_for(device, function: Callable, batch: int) -> str:
  """Compiles a function for one chip, and describes the seconds and the memory in a line of text.

  Args:
    device: the chip.
    function: one of `rendering_functions`.
    batch: number of images.
  """
  sharding = jax.sharding.SingleDeviceSharding(device)
  floats = jax.ShapeDtypeStruct((batch, _VERTICES, 3), jnp.float32, sharding=sharding)
  faces = jax.ShapeDtypeStruct((_FACES, 3), jnp.int32, sharding=sharding)
  start = time.perf_counter()
  lowered = jax.jit(function).lower(floats, faces, floats)
  middle = time.perf_counter()
  compiled = lowered.compile()
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  assert memory is not None and cost is not None, 'a TPU program reports its memory and its cost'
  moved = cost.get('bytes accessed', 0) / _MIB
  end = time.perf_counter()
  return (
    f'lower {middle - start:5.1f} s  compile {end - middle:6.1f} s'
    f'  temporary {memory.temp_size_in_bytes / _MIB:8.2f} MiB'
    f'  arguments {memory.argument_size_in_bytes / _MIB:6.2f} MiB'
    f'  results {memory.output_size_in_bytes / _MIB:6.2f} MiB'
    f'  {cost.get("flops", 0) / 1e9:8.3f} Gflop  {moved:8.1f} MiB moved'
  )


def main(argv: list[str]) -> None:
  """Compiles every function and prints its line."""
  refuse_arguments(argv)
  if importlib.util.find_spec('libtpu') is None:
    print('libtpu is not installed, nothing was compiled: pip install libtpu')
    return
  # Only the compiler is used, so libtpu need not query the metadata service of a cloud machine.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  batch, size = flags.FLAGS.batch, flags.FLAGS.size
  topology = topologies.get_topology_desc(platform='tpu', topology_name=_TOPOLOGY.value)
  device = topology.devices[0]
  print(f'{batch} images of {size} x {size} pixels on one {device.device_kind}')
  steps = loop_steps(batch, size)
  print(f'soft pictures: {steps} steps of each loop over the faces of all tiles')
  for name, function in rendering_functions(size).items():
    print(f'{name:36s} {compile_for(device, function, batch)}', flush=True)


if __name__ == '__main__':
  launch(main)
