"""Ablation runs without training: settings, faked runs, made-up rows."""

import pathlib

from experiments.ablations import running as ablations
from experiments.ablations.grid import RUNS, Job
from hand_jax.evaluation.evaluate import METRIC_NAMES
from hand_jax.runs.checkpoints import claim_workdir

CONTRACT = {'table', 'setting', 'supervision', 'seed', 'branch', *METRIC_NAMES}
CONTRACT |= {'mean_hand_pa_mpjpe_mm', 'steps', 'commit', 'command'}
BASELINE = 16.0


def make_settings(folder):
  output = folder / 'docs' / 'results' / 'ablations.json'
  return ablations.Settings(folder / 'runs', 'prepared', output, (), 'abc1234', 24576)


def config_of(run: str, settings, seed: int = 0):
  return ablations.job_config(Job(RUNS[run], seed, ()), settings)


class Faked:
  """Stands for training and evaluation; `stop` maps a run's folder to what its training raises."""

  def __init__(self, stop=()):
    self.trained, self.measured, self.stop = [], [], dict(stop)

  def train(self, config, workdir):
    name = pathlib.Path(workdir).name
    self.trained.append(name)
    claim_workdir(workdir, config)
    if name in self.stop:
      raise self.stop[name]
    (pathlib.Path(workdir) / 'checkpoints' / str(config.training.num_steps)).mkdir(parents=True)

  def measure(self, workdir, data_dir):
    assert data_dir == 'prepared'
    self.measured.append(pathlib.Path(workdir).name)
    posterior = {name: float(number) for number, name in enumerate(METRIC_NAMES)}
    prior = {name: 100 + value for name, value in posterior.items()}
    results = {'posterior': posterior, 'prior': prior, 'examples': 1000}
    return results | {'mean_hand': dict.fromkeys(METRIC_NAMES, BASELINE)}

  def run(self, jobs, settings):
    return ablations.run_jobs(jobs, settings, self.train, self.measure)


def make_row(table='3', setting='Bayesian', supervision='full', seed=0, branch='posterior', **more):
  values = {name: 1 + number / 8 for number, name in enumerate(METRIC_NAMES)}
  return {
    'table': table,
    'setting': setting,
    'supervision': supervision,
    'seed': seed,
    'branch': branch,
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
