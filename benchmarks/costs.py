"""Shows the memory and the arithmetic of our compiled programs, by size of batch and network.

  python -m benchmarks.costs

The programs are compiled for CPUs and then read. None of them runs, so other programs on the
machine do not affect the figures. The two tables are printed and written into docs/performance.md.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.report import Marks, replace_table, three_digits
from experiments.configs.names import get_config
from experiments.launching import launch, start
from hand_jax.config import AttentionConfig, ExperimentConfig
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.model import regress_joints
from hand_jax.models.estimating import estimate_images
from hand_jax.models.hand_network import create_network
from hand_jax.models.vertex_regressor import VertexRegressor, query_vertices
from hand_jax.runs.train_state import state_variables
from hand_jax.training.ahead_of_time import step_arguments
from hand_jax.training.state import create_optimizer
from hand_jax.training.step import make_train_step
from hand_jax.types import ManoModel

CONFIG = 'synthetic_supervised'
BATCHES, SIDES = (1, 8, 32), (112, 224)
# The pooled features of ResNet-50, the backbone of the config.
CHANNELS = 2048
HEAD_BATCH, HEAD_VERTICES, HEAD_LAYERS = 8, (98, 195, 389, 778), (1, 2, 4)
NETWORK_MARKS = Marks(
  '<!-- memory of the network: written by python -m benchmarks.costs -->',
  '<!-- end of the memory of the network -->',
)
HEAD_MARKS = Marks(
  '<!-- cost of the head: written by python -m benchmarks.costs -->',
  '<!-- end of the cost of the head -->',
)
PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'performance.md'
_MIB, _GFLOP = 2**20, 1e9


class Cost(NamedTuple):
  """The needs of a compiled program."""

  temporaries_mib: float
  arguments_mib: float
  results_mib: float
  """Without results that are written over arguments, such as the state of a training step."""
  gflop: float

  @classmethod
  def read(cls, compiled: Any) -> 'Cost':
    """Reads the needs that the compiler states. It counts the body of a loop once."""
    memory = compiled.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    sizes = (memory.temp_size_in_bytes, memory.argument_size_in_bytes, results)
    return cls(*(size / _MIB for size in sizes), compiled.cost_analysis()['flops'] / _GFLOP)


def network_costs(config: ExperimentConfig, model: ManoModel, batch: int) -> dict[str, Cost]:
  """Compiles the whole network for a batch of uint8 crops.

  Args:
    config: its backbone, image size and objective count.
    model: the hand model.
    batch: number of crops.

  Returns:
    The costs of inference and of a training step, by name.
  """
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  arguments = step_arguments(config, model, batch)
  variables = state_variables(arguments.state)
  inference = estimate_images.lower(network, variables, arguments.batch.image, arguments.model)
  step = jax.jit(make_train_step(config, network, optimizer), donate_argnums=0).lower(*arguments)
  programs = {'inference': inference, 'training step': step}
  return {name: Cost.read(lowered.compile()) for name, lowered in programs.items()}


def head_costs(
  config: ExperimentConfig, model: ManoModel, vertices: int, layers: int
) -> dict[str, Cost]:
  """Compiles AMVUR's head for the pooled features of `HEAD_BATCH` photos.

  Args:
    config: the sizes of the head, of which the next two arguments replace two.
    model: the hand model.
    vertices: number of vertices that have tokens.
    layers: number of self-attention layers.

  Returns:
    The costs of the forward pass, and of the gradients by parameters and features, by name.
  """
  settings = head_settings(config.model.attention, len(model.v_template), vertices, layers)
  unit = config.loss.length_unit_m
  head = VertexRegressor(
    settings, unit, config.model.min_log_variance, config.model.max_log_variance
  )
  joints = regress_joints(model, model.v_template)
  template = model.v_template - joints[:1]
  queries = query_vertices(template, settings)
  feature = jax.ShapeDtypeStruct((HEAD_BATCH, CHANNELS), jnp.float32)

  def forward(variables, feature, template, joints, queries):
    return head.apply(variables, template, joints, feature, queries=queries)

  def value(variables, feature, given, *hand):
    found = forward(variables, feature, *hand)
    return sum(jnp.vdot(a, b) for a, b in zip(found, given, strict=True))

  hand = (template, joints - joints[:1], queries)
  variables = jax.eval_shape(head.init, jax.random.key(0), *hand[:2], feature, None, queries)
  given = jax.eval_shape(forward, variables, feature, *hand)
  programs: dict[str, tuple[Callable, tuple]] = {
    'forward': (forward, (variables, feature, *hand)),
    'gradients': (jax.value_and_grad(value, (0, 1)), (variables, feature, given, *hand)),
  }
  return {
    name: Cost.read(jax.jit(function).lower(*arguments).compile())
    for name, (function, arguments) in programs.items()
  }


def head_settings(
  settings: AttentionConfig, total: int, vertices: int, layers: int
) -> AttentionConfig:
  """Sets the number of vertices with tokens, and of self-attention layers.

  Args:
    settings: the other sizes.
    total: number of vertices of the hand model.
    vertices: number of vertices that have tokens.
    layers: number of self-attention layers.
  """
  # Zero stands for all vertices, which need no blending.
  coarse = 0 if vertices == total else vertices
  return dataclasses.replace(settings, coarse_vertices=coarse, self_layers=layers)


def network_table() -> str:
  """Compiles the network for all batches and image sizes. Returns a table of its memory."""
  config, model = get_config(CONFIG), load_mano_model()
  rows = []
  for side in SIDES:
    sized = dataclasses.replace(config, model=dataclasses.replace(config.model, image_size=side))
    for batch in BATCHES:
      for name, cost in network_costs(sized, model, batch).items():
        cells = [three_digits(size) for size in cost[:3]]
        rows.append((name, str(side), str(batch), *cells))
        print(*rows[-1], flush=True)
  rows.sort(key=lambda row: row[0])
  head = ('program', 'pixels', 'batch', 'temporaries, MiB', 'arguments, MiB', 'results, MiB')
  return markdown(head, rows)


def head_table() -> str:
  """Compiles AMVUR's head for all its sizes. Returns a table of arithmetic and memory."""
  config, model = get_config(CONFIG), load_mano_model()
  rows = []
  for vertices in HEAD_VERTICES:
    for layers in HEAD_LAYERS:
      costs = head_costs(config, model, vertices, layers).values()
      gflop = [three_digits(cost.gflop) for cost in costs]
      memory = [three_digits(cost.temporaries_mib) for cost in costs]
      rows.append((str(vertices), str(layers), *gflop, *memory))
      print(*rows[-1], flush=True)
  head = (
    'vertices with tokens',
    'self-attention layers',
    'forward, GFLOP',
    'gradients, GFLOP',
    'temporaries of forward, MiB',
    'temporaries of gradients, MiB',
  )
  return markdown(head, rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Joins the cells of a table."""
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def main(argv: list[str]) -> None:
  """Makes both tables, prints them and writes them into the page."""
  start(argv)
  # The page states the memory on CPUs, whatever other devices this machine has.
  jax.config.update('jax_platforms', 'cpu')
  for marks, make_table in ((HEAD_MARKS, head_table), (NETWORK_MARKS, network_table)):
    table = make_table()
    print(table)
    PAGE.write_text(replace_table(PAGE.read_text(), table, marks))


if __name__ == '__main__':
  launch(main)
