"""Lists every training run of the ablations, and the rows of every table that they fill.

A run is a named config with overrides. Tables share runs: the supervised Bayesian run, for
instance, is a row of Tables 3, 4 and 5, of the table of conventions and of the table of units.
Settings are edited here. The command (`experiments/ablations/running.py`) refuses to mix rows of
the new settings with those of the old ones.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.configs.names import get_config
from experiments.configs.synthetic import L2_FULL, WEAK_L2
from hand_jax.config import LossConfig

# All runs but the longer weak one share these. Each takes five minutes on two CPU cores at most.
# They all start from the first stage of the longer run, which is the warm-up of Algorithm 5. The
# loss weights of the supervised ones are those of `make train-demo`.
BASE_OVERRIDES = (
  'model.image_size=80',
  'training.batch_size=16',
  'training.num_steps=200',
  'training.log_every=25',
  'training.checkpoint_every=200',
  'training.evaluate_every=1000000',  # The run is then evaluated at its last step alone.
  'training.validation_examples=64',
  'optimizer.warmup_steps=40',
)
SHORT_WEIGHTS = ('loss.camera=700', 'loss.joints_2d=5', 'loss.shape_prior=3')
START = 'weak-long-prior'
# The two stages of the longer weak run take 90 minutes together on two cores at most.
LONG_STEPS = {START: 6000, 'weak-long': 2500}
LONG_OVERRIDES = (
  'model.image_size=80',
  'training.batch_size=16',
  'training.log_every=100',
  'training.checkpoint_every=500',
  'training.evaluate_every=1000',
  'training.validation_examples=256',
)
# The run with the exact convention has these loss weights, or when empty those of the paper's.
EXACT_WEIGHTS: tuple[str, ...] = ()

TABLES = ('3', '4', '5', 'convention', 'unit', 'weak')
# The supervised runs of these tables, which hold the main comparison, are repeated over seeds. All
# other runs have seed 0 alone.
TABLES_OVER_SEEDS = ('3', '5')
# A run that others start from is trained once with this seed, and all seeds of the others share it.
START_SEED = 0


class AblationRun(NamedTuple):
  """One training run. `init_from` and `camera_prior` name runs that are trained before it.

  Those runs have the seed `START_SEED`.
  """

  name: str
  config: str
  overrides: tuple[str, ...] = ()
  init_from: tuple[str, ...] = ()
  camera_prior: str = ''

  @property
  def needs(self) -> tuple[str, ...]:
    """Lists the runs that this one starts from, each once."""
    return tuple(dict.fromkeys((*self.init_from, *filter(None, [self.camera_prior]))))


class Entry(NamedTuple):
  """One row of a table, without its seed: the words it prints, and the run and branch it shows."""

  table: str
  setting: str
  supervision: str  # 'full' or 'weak'
  run: str
  branch: str = 'posterior'


class Job(NamedTuple):
  """One run with one seed, and the rows that its evaluation fills."""

  run: AblationRun
  seed: int
  entries: tuple[Entry, ...]

  @property
  def name(self) -> str:
    """Names the folder of the run."""
    return job_name(self.run.name, self.seed)


def job_name(run: str, seed: int) -> str:
  """Names the folder of a run in the workdir."""
  return f'{run}-seed{seed}'


def _loss(wanted: LossConfig, config: str) -> tuple[str, ...]:
  """Lists the overrides that give a named config another loss."""
  present = dataclasses.asdict(get_config(config).loss)
  settings = dataclasses.asdict(wanted).items()
  return tuple(f'loss.{name}={value}' for name, value in settings if value != present[name])


def _small(name: str, *overrides: str, config: str = 'synthetic_small', **links) -> AblationRun:
  return AblationRun(name, config, BASE_OVERRIDES + overrides, init_from=(START,), **links)


def _bayesian(name: str, *overrides: str) -> AblationRun:
  return _small(name, *SHORT_WEIGHTS, *overrides)


def _long(name: str, config: str, *overrides: str, **links) -> AblationRun:
  steps = f'training.num_steps={LONG_STEPS[name]}'
  return AblationRun(name, config, (*LONG_OVERRIDES, steps, *overrides), **links)


RUNS = {
  run.name: run
  for run in (
    _bayesian('bayesian'),
    # Squared errors have weights of their own, which are those of Algorithm 6 (AMVUR alone).
    _small('l2', *_loss(L2_FULL, 'synthetic_small')),
    # Both weak runs take the same number of steps and share all but the loss.
    _small('weak-bayesian', config='synthetic_small_weak', camera_prior=START),
    _small('weak-l2', *_loss(WEAK_L2, 'synthetic_small_weak'), config='synthetic_small_weak'),
    _bayesian('j2d', 'loss.vertices=0', 'loss.joints=0', 'loss.camera=0'),
    _bayesian('j2d-c', 'loss.vertices=0', 'loss.joints=0'),
    _bayesian('j2d-c-j3d', 'loss.vertices=0'),
    _bayesian('exact', 'loss.convention=exact', *EXACT_WEIGHTS),
    _bayesian('unit-1mm', 'loss.length_unit_m=0.001'),
    _long(START, 'synthetic_small_prior_weak'),
    _long(
      'weak-long',
      'synthetic_small_prior_weak',
      'optimizer.learning_rate=5e-4',
      init_from=(START,),
    ),
  )
}

ENTRIES = (
  Entry('3', 'L2', 'full', 'l2'),
  Entry('3', 'Bayesian', 'full', 'bayesian'),
  Entry('3', 'L2', 'weak', 'weak-l2'),
  Entry('3', 'Bayesian', 'weak', 'weak-bayesian'),
  Entry('4', 'J2D', 'full', 'j2d'),
  Entry('4', 'J2D + C', 'full', 'j2d-c'),
  Entry('4', 'J2D + C + J3D', 'full', 'j2d-c-j3d'),
  Entry('4', 'J2D + C + J3D + V3D', 'full', 'bayesian'),
  Entry('5', 'Bayesian', 'full', 'bayesian', 'prior'),
  Entry('5', 'Bayesian', 'full', 'bayesian'),
  Entry('5', 'L2', 'full', 'l2'),
  Entry('convention', 'paper', 'full', 'bayesian'),
  Entry('convention', 'exact', 'full', 'exact'),
  Entry('unit', '1 mm', 'full', 'unit-1mm'),
  Entry('unit', '1 cm', 'full', 'bayesian'),
  Entry('weak', 'prior-net alone (starting point)', 'weak', 'weak-long-prior', 'prior'),
  Entry('weak', 'prior-net alone, longer run', 'weak', 'weak-long', 'prior'),
)


def plan_jobs(
  tables: Iterable[str],
  seeds: Sequence[int],
  entries: Sequence[Entry] = ENTRIES,
  runs: dict[str, AblationRun] = RUNS,
  supervision: str = '',
) -> list[Job]:
  """Lists the jobs behind the rows of some tables, each once, in the order of tables and seeds.

  A job that several tables show fills the rows of all of them.

  Args:
    tables: names of tables, see `TABLES`.
    seeds: seeds of the supervised runs of `TABLES_OVER_SEEDS`. All other runs have `START_SEED`.
    entries: the rows of all tables.
    runs: all runs by their names.
    supervision: 'full' or 'weak' for the rows of one supervision, or empty for all.
  """
  entries = [entry for entry in entries if supervision in ('', entry.supervision)]
  shown: dict[tuple[str, int], list[Entry]] = {}
  for table in tables:
    for seed in dict.fromkeys((*seeds, START_SEED)):
      for entry in entries:
        repeated = table in TABLES_OVER_SEEDS and entry.supervision == 'full'
        if entry.table == table and seed in (seeds if repeated else (START_SEED,)):
          shown.setdefault((entry.run, seed), []).append(entry)
  return [Job(runs[name], seed, tuple(rows)) for (name, seed), rows in shown.items()]


def lineage(job: Job, runs: dict[str, AblationRun] = RUNS) -> list[Job]:
  """Lists the jobs that a job starts from, directly or not, in the order of their training."""
  found: dict[str, Job] = {}
  for name in job.run.needs:
    start = Job(runs[name], START_SEED, ())
    found |= {before.name: before for before in lineage(start, runs)} | {start.name: start}
  return list(found.values())
