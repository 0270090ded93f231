"""The compiled step on 1 to 8 devices of two examples each: size, memory and all-reduces."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from hand_jax.models.hand_network import create_network
from hand_jax.training.state import create_optimizer
from hand_jax.training.step import make_train_step
from tests.training.compiled_steps import CONFIG, abstract_inputs

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
COMPILED = ('mesh:1', 'mesh:8', 'pmap:2', 'pmap:8')


@pytest.fixture(scope='module')
def programs():
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': str(jax.config.jax_compilation_cache_dir),
  }
  finished = subprocess.run(
    [sys.executable, '-m', 'tests.training.compiled_steps', *COMPILED],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert finished.returncode == 0, finished.stderr[-3000:]
  return dict(zip(COMPILED, json.loads(finished.stdout), strict=True))


def size(program) -> int:
  return sum(program['opcodes'].values())


@pytest.mark.parametrize('few, many', [('mesh:1', 'mesh:8'), ('pmap:2', 'pmap:8')])
def test_program_and_memory_per_device_do_not_grow_with_the_devices(programs, few, many):
  few, many = programs[few], programs[many]
  # One device needs no all-reduces, and their divisions are simplified away.
  assert size(few) > 2000 and abs(size(many) - size(few)) < 0.1 * size(few)
  assert many['temp_bytes'] == pytest.approx(few['temp_bytes'], rel=0.01)
  for name in ('argument_bytes', 'output_bytes', 'alias_bytes'):
    assert many[name] == few[name]


@pytest.mark.parametrize('name', COMPILED)
def test_the_state_is_donated(programs, name):
  """What a step puts out is written where its state was, but for the metrics."""
  program = programs[name]
  assert program['alias_bytes'] > 0.95 * program['output_bytes'] > 10_000


def test_gradients_are_reduced_once_beside_the_statistics(programs):
  """XLA joins reductions that need not wait for one another, so their number and sum are counted.

  Three layers of batch normalisation average two moments per channel forwards and backwards, each
  layer after the one before.
  """
  state, batch, model = abstract_inputs(CONFIG, 2)
  step = make_train_step(CONFIG, create_network(CONFIG), create_optimizer(CONFIG.optimizer, 12))
  _, metrics = jax.eval_shape(step, state, batch, model)
  channels = (16, 32, 64)
  statistics = 2 * 2 * sum(channels)
  # Squared errors do not reach the camera's log-variance, and XLA leaves its gradients of zero out.
  unused = count(state.params['camera_model']['log_variance'])
  learned = count((state.params, state.batch_stats)) - unused
  # Learning rate, the gradient's norm and the skipped steps are computed from what was reduced.
  terms = len(metrics) - 3
  for name in ('mesh:8', 'pmap:2', 'pmap:8'):
    found = programs[name]['all_reduced_numbers']
    assert len(found) <= 2 * len(channels) + 1
    assert sum(found) == learned + terms + statistics


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
