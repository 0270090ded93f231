"""A preparation that is stopped, in any way: its workers end, and it says so in one line."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from hand_jax.preparing.records import worker_processes

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
DEADLINE_S = 120


def stuck_render(seed, split, indices, image_size, hands):
  """Work that no worker would come back from; it leaves a mark that it has begun."""
  pathlib.Path(os.environ['MARKS'], str(os.getpid())).touch()
  time.sleep(10 * DEADLINE_S)


def run_stuck():
  """The command itself, with nothing but the rendering replaced."""
  from absl import app

  from experiments import prepare_dataset
  from hand_jax.preparing import building, data_sets

  def prepare_stuck(create_builder, request):
    settings = {'examples': {'train': 100}, 'image_size': 64, 'seed': 0}
    return building.prepare(
      create_builder,
      pathlib.Path(request.data_dir),
      settings,
      workers=request.workers,
      render=stuck_render,
    )

  recipe = data_sets.RECIPES['synthetic_hands']._replace(prepare=prepare_stuck)
  data_sets.RECIPES['synthetic_hands'] = recipe
  prepare_dataset.define_flags()
  app.run(prepare_dataset.main)


def start_stuck(folder):
  """A preparation whose two workers are both at work, in a process group of its own."""
  marks = folder / 'marks'
  marks.mkdir()
  arguments = ['--dataset=synthetic_hands', f'--data_dir={folder / "data"}', '--workers=2']
  process = subprocess.Popen(
    [
      sys.executable,
      '-c',
      'from tests.preparing.test_stopping import run_stuck; run_stuck()',
      *arguments,
    ],
    cwd=ROOT,
    env=os.environ | {'MARKS': str(marks), 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  deadline = time.monotonic() + DEADLINE_S
  while len(list(marks.iterdir())) < 2:
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline, 'the workers never began'
    time.sleep(0.05)
  return process


def end_of_all(process):
  """What was written, once the last process that could write is gone: workers inherit the pipes."""
  try:
    return process.communicate(timeout=DEADLINE_S)
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail('a process outlived the preparation')


@pytest.mark.parametrize(
  'number, stop',
  [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill), (signal.SIGTERM, os.killpg)],
  ids=['ctrl-c', 'terminate', 'terminate-all'],
)
def test_a_stopped_preparation_ends_whole(number, stop, tmp_path):
  process = start_stuck(tmp_path)
  stop(process.pid, number)  # Ctrl-C reaches the workers too
  assert end_of_all(process) == ('', 'Stopped; nothing was left behind.\n')
  assert process.returncode == 128 + number
  assert list((tmp_path / 'data').iterdir()) == []


def test_the_workers_of_a_killed_preparation_end(tmp_path):
  process = start_stuck(tmp_path)
  process.kill()
  end_of_all(process)
  assert process.returncode == -signal.SIGKILL


def test_interrupts_are_left_to_the_parent():
  """From a worker's first moment: one that is still importing would print a traceback."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
  with worker_processes(2) as executor:
    assert signal.SIGINT in executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
    assert executor.submit(signal.getsignal, signal.SIGINT).result() is signal.SIG_IGN
  assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
