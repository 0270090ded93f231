"""Runs struck by 20 SIGKILLs and 5 SIGTERMs at random moments log and end as one in peace.

`make test-faults` runs these tests, which take minutes. `make test` leaves them out.
"""

import collections
import json
import os
import pathlib
import random
import subprocess
import sys

import chex
import jax
import pytest

from hand_jax.runs.checkpoints import load_for_inference
from tests.host_processes import ROOT, host_settings

pytestmark = pytest.mark.faults

CHAINS = 5
# Rows and checkpoints fall together at some steps and not at others. Files are counted from the
# start of a process, which writes about 30 before its first step.
SETTINGS = [
  *('training.num_steps=40', 'training.log_every=3', 'training.evaluate_every=6'),
  *('training.checkpoint_every=4', 'training.validation_examples=5', 'data.train_examples=10'),
]
MOMENTS = {'step': 7, 'file': 90, 'row': 2, 'saved': 2}


def strikes_of(chain: int) -> list[str]:
  """Signal and moment of each strike: every kind of moment for SIGKILL, and one SIGTERM."""
  draw = random.Random(chain)
  kinds = [*MOMENTS]
  draw.shuffle(kinds)
  strikes = [f'SIGKILL@{kind}:{draw.randint(1, MOMENTS[kind])}' for kind in kinds]
  strikes.insert(draw.randint(0, 4), f'SIGTERM@step:{draw.randint(1, 7)}')
  return strikes


def train(workdir: pathlib.Path, *program: str) -> subprocess.CompletedProcess:
  cache = jax.config.jax_compilation_cache_dir
  sets = [part for setting in SETTINGS for part in ('--set', setting)]
  flags = [f'--workdir={workdir}', '--config=toy', f'--compilation_cache_dir={cache}-faults']
  return subprocess.run(
    [sys.executable, '-m', *program, *flags, *sets],
    cwd=ROOT,
    env={**os.environ, **host_settings(devices=2)},
    capture_output=True,
    text=True,
    check=False,
  )


def read_rows(folder: pathlib.Path) -> list[dict]:
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  clock = ('examples_per_second', 'seconds_left')
  return [{name: row[name] for name in row if name not in clock} for row in rows]


@pytest.fixture(scope='module')
def peaceful(tmp_path_factory):
  folder = tmp_path_factory.mktemp('peaceful')
  done = train(folder, 'experiments.train')
  assert done.returncode == 0, done.stderr[-3000:]
  return folder


def test_the_strikes_are_20_sigkills_and_5_sigterms():
  names = [strike[:7] for chain in range(CHAINS) for strike in strikes_of(chain)]
  assert collections.Counter(names) == {'SIGKILL': 20, 'SIGTERM': 5}


@pytest.mark.parametrize('chain', range(CHAINS))
def test_a_struck_run_logs_and_ends_as_one_in_peace(chain, peaceful, tmp_path):
  done = train(tmp_path, 'tests.faults.struck_train', ','.join(strikes_of(chain)))
  assert done.returncode == 0, done.stderr[-3000:]
  newest = 0
  for strike, code, step in json.loads(done.stdout.splitlines()[-1]):
    assert code == (-9 if strike.startswith('SIGKILL') else 143), (strike, done.stderr[-3000:])
    assert (step or 0) >= newest, strike
    newest = step or 0
  done = train(tmp_path, 'experiments.train')
  assert done.returncode == 0, done.stderr[-3000:]
  assert read_rows(tmp_path) == read_rows(peaceful)
  chex.assert_trees_all_equal(*(load_for_inference(str(run))[1] for run in (tmp_path, peaceful)))
  names = sorted(path.name for path in (tmp_path / 'checkpoints').iterdir())
  assert names == ['36', '40']
  assert (
    not list(tmp_path.rglob('*.unfinished')) and not (tmp_path / 'damaged_checkpoints').exists()
  )
