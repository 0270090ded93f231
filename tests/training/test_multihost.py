"""Two processes train as one: same numbers, one set of files."""

import json
import pathlib
import socket
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.runs.checkpoints import load_for_inference
from hand_jax.training.loop import train_and_evaluate
from tests.drawn_hands import DrawnSource
from tests.runs.test_checkpoints import SETTINGS
from tests.toy_mano import make_toy_mano

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
WORKER = """
import sys

import jax

rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_default_matmul_precision', 'highest')
jax.config.update('jax_compilation_cache_dir', sys.argv[4])
jax.distributed.initialize(f'127.0.0.1:{port}', 2, rank)
assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 2, 1)

from tests.training.test_multihost import run

run(folder)
jax.distributed.shutdown()
"""


def run(folder: str):
  """The same short run in every process, in a folder they share."""
  model = make_toy_mano()
  config = apply_overrides(get_config('toy'), SETTINGS)
  source, validation = DrawnSource(model, 6), DrawnSource(model, 3, seed=1)
  return train_and_evaluate(config, folder, model, source, validation)


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


def read_metrics(folder: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """The run of two processes with a device each, and of this process with two devices."""
  both, single = tmp_path_factory.mktemp('two'), tmp_path_factory.mktemp('one')
  port, cache = str(free_port()), jax.config.jax_compilation_cache_dir
  workers = [
    subprocess.Popen(
      [sys.executable, '-c', WORKER, str(rank), port, str(both), cache],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for rank in range(2)
  ]
  try:
    run(str(single))
    outputs = [worker.communicate(timeout=900)[0] for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  for worker, output in zip(workers, outputs, strict=True):
    assert worker.returncode == 0, output[-3000:]
  return both, single, outputs


def test_two_processes_log_what_one_with_two_devices_does(folders):
  both, single, _ = folders
  lines, expected = read_metrics(both), read_metrics(single)
  assert [line['step'] for line in lines] == [1, 2, 3, 4]
  for ours, theirs in zip(lines, expected, strict=True):
    assert set(ours) == set(theirs)
    for name in set(ours) - {'examples_per_second', 'seconds_left'}:
      np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_first_process_alone_reports(folders):
  _, _, (first, second) = folders
  assert 'step 4/4' in first and 'step' not in second


def test_their_checkpoint_restores_in_one_process(folders):
  both, single, _ = folders
  config, variables = load_for_inference(str(both))
  expected_config, expected = load_for_inference(str(single))
  assert config == expected_config
  chex.assert_trees_all_close(variables, expected, rtol=1e-2, atol=1e-3)
