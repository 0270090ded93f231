"""Compiles a run's training step for devices that this machine does not have.

XLA's compiler for TPUs comes as a package (libtpu) that needs no TPU. It compiles the same step
that `train_and_evaluate` runs, over the mesh of `training.parallel` 'mesh'.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from hand_jax.config import ExperimentConfig
from hand_jax.models.hand_network import CAMERA_MODULES, create_network, initialize_network
from hand_jax.training import parallel
from hand_jax.training.accelerators import (
  ACCELERATORS,
  Accelerator,
  Roofline,
  estimate_roofline,
)
from hand_jax.training.objective import create_objective
from hand_jax.training.placement import MeshPlacement
from hand_jax.training.state import create_optimizer, create_train_state
from hand_jax.training.step import make_train_step
from hand_jax.types import HandBatch, ImageFeatures, ManoModel

_JOINTS = 21
_VECTOR_SIZE = 1152
# This matches the size of an array in a program's text, such as f32[64,3].
_ARRAY = re.compile(r'\b(f32|bf16|f16|s32|u32|pred)\[([\d,]*)\]')
_BYTES = {'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2, 'f16': 2, 'pred': 1}
_ALL_REDUCE = re.compile(r'^\s*(?:ROOT )?\S+ = (.*?) all-reduce(?:-start)?\(', re.MULTILINE)
# This matches XLA's message if a program needs more memory than the device has, such as
# 'Used 16.12G of 15.75G hbm'.
_OUT_OF_MEMORY = re.compile(r'Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm')
_UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30}


class Topology(NamedTuple):
  """Devices to compile for. `accelerator` is None for simulated CPU devices."""

  name: str
  devices: list[Any]
  accelerator: Accelerator | None
  devices_per_chip: int


class CompiledStep(NamedTuple):
  """The needs of a training step on each device, read from its compiled program."""

  fits: bool
  peak_bytes: int
  """The largest amount of memory in use at once, on each device."""
  hbm_bytes: int | None
  """The memory of each device. None for CPU devices."""
  flops: float | None = None
  """Operations of one device, if the step fits. The body of a loop counts once."""
  bytes_accessed: float | None = None
  all_reduces: int | None = None
  reduced_bytes: int | None = None
  """Bytes that all of the all-reduces average."""
  roofline: Roofline | None = None


def find_topology(name: str) -> Topology:
  """Describes the devices of a topology, such as 'v5e:16x16', or 'cpu:2' for simulated devices.

  Raises:
    ValueError: the topology is unknown, or the compiler for TPUs is not installed.
  """
  kind, _, shape = name.partition(':')
  if kind == 'cpu':
    return _cpu_topology(name, shape)
  if kind not in ACCELERATORS or not shape:
    raise ValueError(
      f'--topology={name}: expected one of {", ".join(ACCELERATORS)} with a shape, such as '
      'v5e:16x16, or cpu:2.'
    )
  from jax.experimental import topologies  # loads the compiler, which few commands need

  try:
    devices = topologies.get_topology_desc(platform='tpu', topology_name=name).devices
  except Exception as error:  # libtpu raises errors of various types
    reason = ' '.join(str(error).split())[:200]
    if 'TPU support not installed' in reason:  # whose advice installs what only a TPU needs
      raise ValueError(
        f"--topology={name} needs the compiler for TPUs: pip install 'hand-jax[tpu-aot]', in a "
        "checkout pip install -e '.[tpu-aot]'."
      ) from None
    raise ValueError(
      f'--topology={name} cannot be compiled for. It needs the compiler for TPUs (pip install '
      f"'hand-jax[tpu-aot]') and a shape that exists: {reason}"
    ) from None
  chips = {tuple(device.coords) for device in devices}
  return Topology(name, list(devices), ACCELERATORS[kind], len(devices) // len(chips))


def _cpu_topology(name: str, shape: str) -> Topology:
  available = jax.devices('cpu')
  if not shape.isdigit() or not 1 <= int(shape) <= len(available):
    raise ValueError(
      f'--topology={name}: expected cpu: and a number of devices up to {len(available)} '
      '(JAX_NUM_CPU_DEVICES simulates more).'
    )
  return Topology(name, available[: int(shape)], None, 1)


def batch_shapes(config: ExperimentConfig, size: int, num_vertices: int) -> HandBatch:
  """Returns the shapes and types of a training batch, as the input pipeline makes it.

  Args:
    config: the run's config.
    size: number of examples.
    num_vertices: number of vertices of the hand model.
  """
  side, vertices = config.model.image_size, num_vertices

  def array(dtype: type, *shape: int) -> Any:
    return jax.ShapeDtypeStruct((size, *shape), dtype)

  features = None
  if config.data.features == 'cached':
    channels = config.model.attention.map_channels
    points = array(np.float32, _JOINTS, 3)
    last, middle = (array(np.float32, n, n, channels) for n in (side // 32, side // 16))
    features = ImageFeatures(
      array(np.float32, _VECTOR_SIZE),
      None,
      points,
      world_landmarks=points,
      reduced_maps=(last, middle) if channels else None,
    )
  small = config.loss.silhouette_side
  silhouette = array(np.uint8, small, small) if config.loss.silhouette else None
  return HandBatch(
    image=array(np.uint8, side, side, 3),
    example_id=None,
    global_index=array(np.int32),
    is_left=array(np.bool_),
    vertices_hand=array(np.float32, vertices, 3),
    joints_hand=array(np.float32, _JOINTS, 3),
    has_3d=array(np.bool_),
    joints_normalized=array(np.float32, _JOINTS, 2),
    joint_confidence=array(np.float32, _JOINTS),
    camera=array(np.float32, 10),
    camera_mask=array(np.bool_, 10),
    intrinsics=array(np.float32, 3, 3),
    root_camera=array(np.float32, 3),
    has_root=array(np.bool_),
    hand_mask=array(np.bool_, side, side),
    has_mask=array(np.bool_),
    vertex_colors=array(np.float32, vertices, 3),
    vertex_visible=array(np.bool_, vertices),
    has_vertex_colors=array(np.bool_),
    is_padding=array(np.bool_),
    features=features,
    silhouette=silhouette,
  )


class StepArguments(NamedTuple):
  """Shapes and types of all arguments of a training step."""

  state: Any
  batch: HandBatch
  model: Any
  camera_prior: Any


def step_arguments(config: ExperimentConfig, model: ManoModel, batch_size: int) -> StepArguments:
  """Finds the shapes of a step's arguments without computing anything.

  The camera prior of the elbo has the shapes of the run's own network.

  Args:
    config: the run's config.
    model: the hand model.
    batch_size: number of examples in the batch of all devices.
  """
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = jax.eval_shape(lambda model: create_train_state(config, network, optimizer, model), model)
  camera_prior = None
  if create_objective(config).needs_camera_prior:
    variables = jax.eval_shape(
      lambda model: initialize_network(network, jax.random.key(0), model), model
    )
    camera_prior = {
      collection: {name: tree for name, tree in parts.items() if name in CAMERA_MODULES}
      for collection, parts in variables.items()
    }
  batch = batch_shapes(config, batch_size, model.v_template.shape[0])
  model_shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model)
  return StepArguments(state, batch, model_shapes, camera_prior)


def compile_step(
  config: ExperimentConfig, model: ManoModel, topology: Topology, per_device_batch: int
) -> CompiledStep:
  """Compiles the training step for a topology, and reads its needs from the program.

  Args:
    config: the run's config. Its batch size is not used.
    model: the hand model.
    topology: the devices.
    per_device_batch: number of examples on each device.
  """
  network = create_network(config, axis_name=parallel.AXIS_NAME)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  prior_config = config if create_objective(config).needs_camera_prior else None
  step = make_train_step(config, network, optimizer, prior_config)
  placement = MeshPlacement(topology.devices)
  arguments = step_arguments(config, model, per_device_batch * len(topology.devices))
  lowered = placement.map_train_step(step).lower(*placement.place_shapes(arguments))
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    return _too_large(error, topology)
  return _read_program(compiled, topology)


def largest_batch(fits: Callable[[int], bool], step: int = 8, most: int = 8192) -> int:
  """Finds the largest batch that fits, by doubling and then halving the interval.

  Args:
    fits: returns whether a batch of this many examples fits.
    step: the result is a multiple of this, or 0 if even this does not fit.
    most: the largest batch to try.
  """
  good, bad = 0, step
  while bad <= most and fits(bad):
    good, bad = bad, 2 * bad
  bad = min(bad, most + step)
  while bad - good > step:
    middle = (good + bad) // 2 // step * step
    good, bad = (middle, bad) if fits(middle) else (good, middle)
  return good


def _hbm_bytes(topology: Topology) -> int | None:
  if topology.accelerator is None:
    return None
  return topology.accelerator.hbm_bytes // topology.devices_per_chip


def _too_large(error: Exception, topology: Topology) -> CompiledStep:
  """Reads the memory that a step would have needed, or raises the error if it has another cause."""
  found = read_shortage(error)
  if found is None:
    raise error
  return CompiledStep(False, *found)


def read_shortage(error: Exception) -> tuple[int, int] | None:
  """Reads the bytes that XLA needed and had for a program that does not fit.

  It returns None for other errors.
  """
  found = _OUT_OF_MEMORY.search(str(error))
  if found is None:
    return None
  used, limit = (int(float(found[i]) * _UNITS[found[i + 1]]) for i in (1, 3))
  return used, limit


def peak_bytes(compiled: Any) -> int:
  """Returns the largest amount of memory that a compiled program uses at once on each device."""
  memory = compiled.memory_analysis()
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )


def _read_program(compiled: Any, topology: Topology) -> CompiledStep:
  peak, cost = peak_bytes(compiled), compiled.cost_analysis()
  count, reduced = read_all_reduces(compiled.as_text())
  flops, accessed = float(cost['flops']), float(cost['bytes accessed'])
  hbm, roofline = _hbm_bytes(topology), None
  if topology.accelerator is not None:
    roofline = estimate_roofline(
      topology.accelerator,
      flops,
      accessed,
      reduced,
      len(topology.devices),
      topology.devices_per_chip,
    )
  return CompiledStep(
    hbm is None or peak <= hbm, peak, hbm, flops, accessed, count, reduced, roofline
  )


def read_all_reduces(program: str) -> tuple[int, int]:
  """Counts the all-reduces in a compiled program's text, and the bytes that they average."""
  operations = _ALL_REDUCE.findall(program)
  sizes = [
    _BYTES[kind] * int(np.prod([int(n) for n in shape.split(',') if n]))
    for operation in operations
    for kind, shape in _ARRAY.findall(operation)
  ]
  return len(operations), sum(sizes)
