"""Fakes ablation runs without training: their settings, runs and rows."""

import pathlib
import re

import numpy as np

from experiments.ablations import running as ablations
from experiments.ablations.grid import RUNS, SPLITS, Job
from experiments.ablations.measuring import Measured
from hand_jax.evaluation.evaluate import ERROR_NAMES, METRIC_NAMES
from hand_jax.evaluation.hand_errors import JOINTS_2D, HandErrors
from hand_jax.runs.checkpoints import claim_workdir

CONTRACT = {'table', 'setting', 'supervision', 'seed', 'branch', 'split', *ERROR_NAMES}
CONTRACT |= {'mean_hand_pa_mpjpe_mm', 'steps', 'commit', 'command'}
BASELINE = 16.0
HANDS = 4
# The branches' errors differ by this much on every hand.
PRIOR_ABOVE = 100.0
EXAMPLES = (('broad', 8000), ('displaced', 7000))


def make_settings(folder):
  output = folder / 'docs' / 'results' / 'ablations.json'
  return ablations.Settings(folder / 'runs', 'prepared', output, (), 'abc1234', EXAMPLES)


def config_of(run: str, settings, seed: int = 0):
  return ablations.job_config(Job(RUNS[run], seed, ()), settings)


def faked_errors(name: str, split: str, full: bool) -> HandErrors:
  """Makes errors that differ by run, hand, branch and figure, and are similar for a run's seeds."""
  hands = np.arange(HANDS) / 8
  figures = METRIC_NAMES if full else ERROR_NAMES
  if split not in SPLITS:
    figures = ('mpjpe_mm', 'pa_mpjpe_mm')
  values = {
    branch: {
      figure: above + number + hands + len(name)
      for number, figure in enumerate((*METRIC_NAMES, JOINTS_2D))
      if figure in (*figures, JOINTS_2D)
    }
    for branch, above in (('posterior', 0.0), ('prior', PRIOR_ABOVE))
  }
  return HandErrors(np.array([f'{split}-{hand}' for hand in range(HANDS)]), values)


class Faked:
  """Replaces training and evaluation. `stop` maps a run's folder to the error of its training."""

  def __init__(self, stop=()):
    self.trained, self.measured, self.stop = [], [], dict(stop)
    self.splits: dict[str, tuple] = {}

  def train(self, config, workdir):
    name = pathlib.Path(workdir).name
    self.trained.append(name)
    claim_workdir(workdir, config)
    if name in self.stop:
      raise self.stop[name]
    (pathlib.Path(workdir) / 'checkpoints' / str(config.training.num_steps)).mkdir(parents=True)

  def measure(self, workdir, splits, full):
    name = pathlib.Path(workdir).name
    self.measured.append(name)
    self.splits[name] = tuple(splits)
    return {
      split: Measured(
        faked_errors(name, split, split in full), BASELINE if split in SPLITS else None
      )
      for split in splits
    }

  def run(self, jobs, settings, **more):
    return ablations.run_jobs(jobs, settings, self.train, self.measure, **more)


def make_row(table='3', setting='Bayesian', supervision='full', seed=0, branch='posterior', **more):
  values = {name: 1 + number / 8 for number, name in enumerate(METRIC_NAMES)}
  return {
    'table': table,
    'setting': setting,
    'supervision': supervision,
    'seed': seed,
    'branch': branch,
    'split': 'test',
    'hands': 'broad',
    **values,
    'mean_hand_pa_mpjpe_mm': BASELINE,
    'steps': 320,
    'steps_before': 0,
    'batch_size': 32,
    'train_examples': 24576,
    'test_examples': 1000,
    'seconds': 200.0,
    'commit': 'abc1234',
    'command': f'python -m train {setting} {seed} && python -m evaluate {setting} {seed}',
    **more,
  }


def table_cells(text: str, title: str) -> list[list[str]]:
  """Returns the cells of the first table under a heading, the header included."""
  section = text.split(f'### {title}')[1]
  found = re.search(r'(?:^\|.*\n)+', section, re.MULTILINE)
  assert found, title
  cells = [line.strip('| \n').split(' | ') for line in found.group().strip().split('\n')]
  assert set(cells.pop(1)) == {'---'} and len({len(line) for line in cells}) == 1
  return cells
