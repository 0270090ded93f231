"""Training steps compiled for any number of CPU devices, and what their programs say.

`python -m tests.training.compiled_steps mesh:1 mesh:8` prints a JSON list with one program each.
"""

import collections
import json
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.names import get_config
from hand_jax.config import ExperimentConfig
from hand_jax.models.hand_network import create_network
from hand_jax.training import parallel
from hand_jax.training.placement import MeshPlacement
from hand_jax.training.state import create_optimizer, create_train_state
from hand_jax.training.step import make_train_step
from hand_jax.types import HandBatch
from tests.toy_mano import make_toy_mano

# HLO's text of an instruction: `%name = type opcode(operands), attributes`.
INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%[\w.-]+ = (?:\(.*?\)|\S+) ([\w-]+)\(', re.MULTILINE)
PER_DEVICE = 2
CONFIG = get_config('toy_prior_weak')


def abstract_batch(config: ExperimentConfig, size: int, vertices: int) -> HandBatch:
  """Shapes and types of a batch of `size` examples."""
  side = config.model.image_size
  shapes = {
    'image': ((side, side, 3), jnp.uint8),
    'global_index': ((), jnp.int32),
    'is_left': ((), bool),
    'vertices_hand': ((vertices, 3), jnp.float32),
    'joints_hand': ((21, 3), jnp.float32),
    'has_3d': ((), bool),
    'joints_normalized': ((21, 2), jnp.float32),
    'joint_confidence': ((21,), jnp.float32),
    'camera': ((10,), jnp.float32),
    'camera_mask': ((10,), bool),
    'intrinsics': ((3, 3), jnp.float32),
    'root_camera': ((3,), jnp.float32),
    'has_root': ((), bool),
    'hand_mask': ((side, side), bool),
    'has_mask': ((), bool),
    'vertex_colors': ((vertices, 3), jnp.float32),
    'vertex_visible': ((vertices,), bool),
    'has_vertex_colors': ((), bool),
    'is_padding': ((), bool),
  }
  fields = {
    name: jax.ShapeDtypeStruct((size, *shape), dtype) for name, (shape, dtype) in shapes.items()
  }
  return HandBatch(example_id=None, **fields)


def abstract_inputs(config: ExperimentConfig, size: int) -> tuple[Any, HandBatch, Any]:
  """Shapes of state, batch and hand model."""
  model = make_toy_mano()
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = jax.eval_shape(lambda: create_train_state(config, network, optimizer, model))
  model = jax.eval_shape(lambda: model)
  return state, abstract_batch(config, size, len(model.v_template)), model


def compile_step(config: ExperimentConfig, kind: str, devices: int) -> jax.stages.Compiled:
  """Compiles the step of `devices` devices with `PER_DEVICE` examples each."""
  network = create_network(config, axis_name=parallel.AXIS_NAME)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  step = make_train_step(config, network, optimizer)
  state, batch, model = abstract_inputs(config, PER_DEVICE * devices)
  if kind == 'mesh':
    mapped = MeshPlacement(jax.devices()[:devices]).map_train_step(step)
    return mapped.lower(state, batch, model).compile()

  def with_axis(tree: Any, divided: int = 1) -> Any:
    def of_devices(leaf):
      shape = (leaf.shape[0] // divided, *leaf.shape[1:]) if divided > 1 else leaf.shape
      return jax.ShapeDtypeStruct((devices, *shape), leaf.dtype)

    return jax.tree.map(of_devices, tree)

  mapped = parallel.map_train_step(step, jax.devices()[:devices])
  return mapped.lower(with_axis(state), with_axis(batch, devices), with_axis(model)).compile()


def describe(compiled: jax.stages.Compiled) -> dict[str, Any]:
  """Counts a program's instructions by kind, and its bytes per device."""
  text = compiled.as_text()
  memory = compiled.memory_analysis()
  all_reduces = re.findall(r'^.* all-reduce(?:-start)?\(.*$', text, re.MULTILINE)
  return {
    'opcodes': collections.Counter(INSTRUCTION.findall(text)),
    'all_reduced_numbers': [count_numbers(line) for line in all_reduces],
    'temp_bytes': memory.temp_size_in_bytes,
    'argument_bytes': memory.argument_size_in_bytes,
    'output_bytes': memory.output_size_in_bytes,
    'alias_bytes': memory.alias_size_in_bytes,
  }


def count_numbers(instruction: str) -> int:
  """Counts the numbers in an instruction's output, which may be a tuple."""
  output = instruction.partition(' = ')[2].partition(' all-reduce')[0]
  shapes = re.findall(r'[a-z]+\d+\[([\d,]*)\]', output)
  return sum(int(np.prod([int(n) for n in shape.split(',') if n])) for shape in shapes)


def main(arguments: list[str]) -> None:
  programs = []
  for argument in arguments:
    kind, _, devices = argument.partition(':')
    programs.append(describe(compile_step(CONFIG, kind, int(devices))))
  print(json.dumps(programs))


if __name__ == '__main__':
  jax.config.update('jax_num_cpu_devices', 8)
  jax.config.update('jax_numpy_rank_promotion', 'raise')
  main(sys.argv[1:])
