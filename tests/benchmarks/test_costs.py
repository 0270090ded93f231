import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import pytest

from benchmarks import costs
from benchmarks.report import replace_table
from experiments.configs.names import get_config
from hand_jax.config import AttentionConfig
from hand_jax.training.ahead_of_time import step_arguments

MIB = 2**20
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'performance.md'


def test_costs_of_a_product_are_its_own():
  side = 512
  compiled = (
    jax.jit(jnp.dot).lower(*[jax.ShapeDtypeStruct((side, side), jnp.float32)] * 2).compile()
  )
  cost = costs.Cost.read(compiled)
  assert cost.arguments_mib == 2 * 4 * side**2 / MIB
  assert cost.results_mib == 4 * side**2 / MIB
  assert cost.gflop == pytest.approx(2e-9 * side**3, rel=1e-3)


def test_results_written_over_arguments_do_not_count():
  array = jax.ShapeDtypeStruct((MIB,), jnp.float32)
  add = lambda x: x + 1  # noqa: E731
  kept, over = (
    costs.Cost.read(jax.jit(add, donate_argnums=donated).lower(array).compile())
    for donated in ((), 0)
  )
  assert (kept.arguments_mib, kept.results_mib) == (4, 4)
  assert (over.arguments_mib, over.results_mib) == (4, 0)


def test_all_vertices_are_the_head_without_blending():
  settings = AttentionConfig(coarse_vertices=195)
  assert costs.head_settings(settings, 778, 778, 2).coarse_vertices == 0
  reduced = costs.head_settings(settings, 778, 98, 2)
  assert (reduced.coarse_vertices, reduced.self_layers) == (98, 2)


def test_the_head_costs_its_products(model):
  width, vertices, joints, total = 64, 40, 21, len(model.v_template)
  attention = AttentionConfig(width=width, heads=2, mlp_ratio=2)
  config = get_config('toy')
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention=attention))
  found = costs.head_costs(config, model, vertices, 1)
  embedding = 2 * costs.CHANNELS * width
  square = 2 * width**2
  # Projections of queries and outputs, of keys and values, both products of attention, and the MLP.
  attend = lambda keys: (2 * vertices + 2 * keys) * square + 4 * vertices * keys * width  # noqa: E731
  mlp = 4 * vertices * square
  outputs = 2 * (2 * vertices * width * 3 + 2 * total * vertices * 3)
  products = embedding + attend(joints) + mlp + attend(vertices) + mlp + outputs
  expected = 1e-9 * costs.HEAD_BATCH * products
  # Normalisation, softmax and GELU come on top.
  assert expected < found['forward'].gflop < 1.2 * expected
  assert found['gradients'].gflop > 2.5 * expected
  assert found['gradients'].temporaries_mib > found['forward'].temporaries_mib


@pytest.mark.slow
def test_a_training_step_writes_over_its_state(model):
  config = get_config('toy_prior_weak')  # which compiles in half of the time
  both = costs.network_costs(config, model, 1)
  inference, step = both['inference'], both['training step']
  state = step_arguments(config, model, 1).state
  state_mib = sum(4 * leaf.size for leaf in jax.tree.leaves(state)) / MIB
  assert step.arguments_mib > state_mib
  assert step.results_mib < 0.05 * state_mib
  assert step.gflop > 2 * inference.gflop
  assert step.temporaries_mib > inference.temporaries_mib


def test_a_table_has_a_line_under_its_head():
  assert costs.markdown(('a', 'b'), [('1', '2')]) == '| a | b |\n| --- | --- |\n| 1 | 2 |'


@pytest.mark.parametrize(
  ('marks', 'rows'),
  [
    (costs.NETWORK_MARKS, 2 * len(costs.BATCHES) * len(costs.SIDES)),
    (costs.HEAD_MARKS, len(costs.HEAD_VERTICES) * len(costs.HEAD_LAYERS)),
  ],
  ids=['network', 'head'],
)
def test_the_documentation_has_the_whole_tables(marks, rows):
  page = PAGE.read_text()
  table = page.split(marks.start)[1].split(marks.end)[0].strip()
  assert replace_table(page, table, marks) == page
  assert len(table.splitlines()) == 2 + rows
