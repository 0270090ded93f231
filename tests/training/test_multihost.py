"""Two processes train as one by the command itself, are stopped together, and go on as one."""

import json
import os
import pathlib
import signal

import chex
import jax
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.mano.assets import load_mano_model
from hand_jax.runs.checkpoints import load_for_inference
from hand_jax.runs.sources import latest_step
from hand_jax.training import loop
from hand_jax.training.preemption import Preempted
from tests.host_processes import host_processes
from tests.toy_runs import share_compiled_steps

pytestmark = pytest.mark.slow

# The prior-net alone compiles in half of the time. Its gradients and statistics are averaged too.
CONFIG = 'toy_prior_weak'
# No number of steps is too large here, because the run is stopped. Five examples to validate on do
# not divide by two batches of four, nor ten to train on by a whole number of them.
SETTINGS = [
  *('training.num_steps=100000', 'training.checkpoint_every=100000', 'training.log_every=2'),
  *('training.evaluate_every=8', 'training.validation_examples=5', 'data.train_examples=10'),
  'model.image_size=32',
]


def command(workdir: pathlib.Path, processes: int, settings=SETTINGS):
  """The arguments of one process by rank and port."""

  def arguments(rank: int, port: int) -> list[str]:
    flags = [f'--coordinator=127.0.0.1:{port}', f'--num_processes={processes}']
    flags += [f'--process_id={rank}', f'--compilation_cache_dir={cache_folder(rank)}']
    sets = [part for setting in settings for part in ('--set', setting)]
    return [
      *('-m', 'experiments.train', f'--config={CONFIG}', f'--workdir={workdir}', '--distributed'),
      *(flags + sets),
    ]

  return arguments


def cache_folder(rank: int) -> str:
  """Of each rank its own: JAX writes entries that others might read half-written."""
  return f'{jax.config.jax_compilation_cache_dir}-host{rank}'


def give_programs() -> None:
  """Gives the second process what the first, which alone may write, compiled in earlier runs."""
  first, second = (pathlib.Path(cache_folder(rank)) for rank in range(2))
  for folder in (first, second):
    folder.mkdir(exist_ok=True)
  for entry in set(os.listdir(first)) - set(os.listdir(second)):
    os.link(first / entry, second / entry)


def read_rows(folder: pathlib.Path) -> list[dict]:
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  clock = ('examples_per_second', 'seconds_left')
  return [{name: row[name] for name in row if name not in clock} for row in rows]


def train_here(folder: pathlib.Path, stop: int, monkeypatch) -> None:
  """The same run in this process, stopped after a step."""
  add = loop.Progress.add

  def adding(progress, step, *arguments):
    add(progress, step, *arguments)
    if step == stop:
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(loop.Progress, 'add', adding)
  config = apply_overrides(get_config(CONFIG), SETTINGS)
  with pytest.raises(Preempted):
    loop.train_and_evaluate(config, str(folder), load_mano_model())


def run_stopped(folder: pathlib.Path, settings=SETTINGS):
  """A run of two processes, of which the second gets SIGTERM after the second row."""
  give_programs()
  with host_processes(2, command(folder, 2, settings)) as (first, second):
    for line in first.stdout:
      if line.startswith('step 4/'):
        second.send_signal(signal.SIGTERM)
        break
    outputs = [process.communicate(timeout=600) for process in (first, second)]
    codes = [process.returncode for process in (first, second)]
  return folder, codes, outputs


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
  return run_stopped(tmp_path_factory.mktemp('two'))


def test_sigterm_in_one_process_saves_the_run_and_ends_all_with_143(stopped):
  folder, codes, ((_, first), (output, second)) = stopped
  assert codes == [143, 143], (first[-2000:], second[-2000:])
  step = latest_step(str(folder))
  assert step >= 4 and f'saved in {folder} at step {step}.' in first
  assert 'step' not in output and 'Stopped' not in second


def test_two_processes_do_what_one_with_two_devices_does(stopped, tmp_path, monkeypatch, capsys):
  """And what two saved, one continues."""
  folder, _, _ = stopped
  step = latest_step(str(folder))
  share_compiled_steps(monkeypatch)
  train_here(tmp_path, step, monkeypatch)
  assert latest_step(str(tmp_path)) == step
  rows, expected = read_rows(folder), read_rows(tmp_path)
  assert [row['step'] for row in rows[:2]] == [2, 4] and len(rows) == len(expected)
  for ours, theirs in zip(rows, expected, strict=True):
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6, atol=1e-6)
  variables, others = (load_for_inference(str(place))[1] for place in (folder, tmp_path))
  chex.assert_trees_all_close(variables, others, rtol=0, atol=1e-6)

  train_here(folder, step + 2, monkeypatch)
  assert f'after step {step} on 2 cpu device(s)' in capsys.readouterr().out
  assert latest_step(str(folder)) == step + 2
  longer = read_rows(folder)
  assert longer[: len(rows)] == rows and len(longer) == len(rows) + 1


def test_a_mesh_over_two_processes_does_what_pmap_does(stopped, tmp_path):
  folder, codes, outputs = run_stopped(tmp_path, [*SETTINGS, 'training.parallel=mesh'])
  assert codes == [143, 143], [error[-2000:] for _, error in outputs]
  assert latest_step(str(folder)) >= 4
  rows, expected = read_rows(folder)[:2], read_rows(stopped[0])[:2]
  assert [row['step'] for row in rows] == [2, 4]
  for ours, theirs in zip(rows, expected, strict=True):
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6, atol=1e-6)
