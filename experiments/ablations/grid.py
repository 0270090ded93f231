"""Lists every training run of the ablations, and the rows of every table that they fill.

A run is a named config with overrides. Tables share runs: the supervised Bayesian run, for
instance, is a row of Tables 3 and 5 and of the branches.
Edit settings here. The command (`experiments/ablations/running.py`) distinguishes rows of the new
settings from those of the old ones.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.configs.names import get_config
from experiments.configs.synthetic import L2_FULL, L2_WEAK, WEAK_ELBO, WEAK_L2
from hand_jax.config import LossConfig
from hand_jax.evaluation.hand_errors import SILHOUETTE_IOU as IOU

# All runs train on the cached features of a frozen landmark network. Each takes some minutes.
CONFIG = 'synthetic_features'
SHARED = (
  'training.num_steps=1000',
  'training.log_every=50',
  'training.checkpoint_every=500',
  'training.evaluate_every=1000000',  # The run is then evaluated only at its last step.
  'training.validation_examples=64',
)
SEEDS = (0, 1, 2, 3, 4)

# Hands of the test split have shapes of the model. The other split has meshes that no shape and
# pose of the model can reach.
TEST, MISMATCH = 'test', 'mismatch'
SPLITS = {TEST: 'test', MISMATCH: 'test_mismatch'}
"""The names of the splits in the prepared broad hands, by their names in the rows."""
HANDS = ('broad', 'displaced')
"""The kinds of hands to train on, each prepared in a folder of its name."""

TABLES = ('3', '4', '5', 'branches', 'weak_start', 'convention', 'unit', 'silhouette')
# An earlier version measured this table. Its rows stay, and each one names its own command.
KEPT_TABLES = ('weak',)
PHOTO_TABLE = 'weak_start'
"""The rows of this table are also measured on folders of photos."""


class AblationRun(NamedTuple):
  """One training run. `init_from` and `camera_prior` name runs that are trained before it.

  Those runs have the same seed. `hands` names the kind of hands on which the run is trained.
  """

  name: str
  overrides: tuple[str, ...] = ()
  hands: str = 'broad'
  init_from: tuple[str, ...] = ()
  camera_prior: str = ''
  config: str = CONFIG

  @property
  def needs(self) -> tuple[str, ...]:
    """Lists the runs that this one starts from, each once."""
    return tuple(dict.fromkeys((*self.init_from, *filter(None, [self.camera_prior]))))


class Entry(NamedTuple):
  """One row of a table, without its seed. It has the printed words, and names a run and a branch.

  The difference to another row of the table, with the same supervision and split, is shown with its
  interval. `against` and `against_branch` name that row, and `metric` names the main figure of the
  comparison.
  """

  table: str
  setting: str
  supervision: str  # 'full' or 'weak'
  run: str
  branch: str = 'posterior'
  split: str = TEST
  against: str = ''
  against_branch: str = 'posterior'
  metric: str = 'pa_mpvpe_mm'


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


def _loss(wanted: LossConfig) -> tuple[str, ...]:
  """Lists the overrides that give the runs' config another loss."""
  present = dataclasses.asdict(get_config(CONFIG).loss)
  settings = dataclasses.asdict(wanted).items()
  return tuple(f'loss.{name}={value}' for name, value in settings if value != present[name])


# As in Table 1, AMVUR reads only the pooled vector.
GLOBAL = (
  'model.attention.image_features=global',
  'model.attention.map_channels=0',
  'model.attention.rounds=1',
)
# These runs have only the prior-net and the camera model (Algorithm 5).
ALONE = (*GLOBAL, 'model.branches=prior', 'model.vertex_offset_from=template')
# Without V3D no vertex labels are used, neither for the posterior nor for the prior. The divergence
# stays, because it needs no label and determines the depth of the posterior's mesh.
NO_V3D = ('loss.vertices_likelihood=0', 'loss.prior_vertices=0')
WEAK = ('data.labels=2d',)
# These settings give the likelihood and the divergence the weights of the paper. Table 4, the
# conventions, the units and the silhouettes are about this objective.
BY_PRECISION = ('loss.coordinate_weights=likelihood', 'loss.kl=1')
# These runs start from the network in the package.
FROM_RELEASE = (
  *SHARED,
  *BY_PRECISION,
  'training.init_from=release',
  'training.checkpoint_every=100',
)
FURTHER = ('optimizer.learning_rate=3e-4',)  # for runs that start from a trained one

RUNS = {
  run.name: run
  for run in (
    AblationRun('bayesian', SHARED),
    AblationRun('l2', (*SHARED, *_loss(L2_FULL))),
    AblationRun('by-precision', (*SHARED, *BY_PRECISION)),
    AblationRun('kl-1', (*SHARED, 'loss.kl=1')),
    AblationRun('global', (*SHARED, *GLOBAL)),
    AblationRun('prior-alone', (*SHARED, *ALONE, *_loss(L2_FULL))),
    AblationRun('j2d', (*SHARED, *BY_PRECISION, *NO_V3D, 'loss.joints=0', 'loss.camera=0')),
    AblationRun('j2d-c', (*SHARED, *BY_PRECISION, *NO_V3D, 'loss.joints=0')),
    AblationRun('j2d-c-j3d', (*SHARED, *BY_PRECISION, *NO_V3D)),
    AblationRun('exact', (*SHARED, *BY_PRECISION, 'loss.convention=exact')),
    AblationRun('unit-1mm', (*SHARED, *BY_PRECISION, 'loss.length_unit_m=0.001')),
    # These hands have meshes that no shape and pose of the model can reach.
    AblationRun('bayesian-displaced', SHARED, hands='displaced'),
    AblationRun('global-displaced', (*SHARED, *GLOBAL), hands='displaced'),
    AblationRun('prior-alone-displaced', (*SHARED, *ALONE, *_loss(L2_FULL)), hands='displaced'),
    AblationRun('silhouette-off', FROM_RELEASE),
    AblationRun('silhouette-on', (*FROM_RELEASE, 'loss.silhouette=30000')),
    # These runs use 2D joints alone. The first has squared errors, and the others start from it.
    AblationRun('start', (*SHARED, *WEAK, *ALONE, *_loss(L2_WEAK))),
    AblationRun(
      'weak-bayesian',
      (*SHARED, *WEAK, *FURTHER, *_loss(WEAK_ELBO)),
      init_from=('start',),
      camera_prior='start',
    ),
    AblationRun('weak-l2', (*SHARED, *WEAK, *FURTHER, *_loss(WEAK_L2)), init_from=('start',)),
  )
}


def _branches(split: str, suffix: str) -> tuple[Entry, ...]:
  """Lists the rows of one split, from the runs whose names end with the suffix."""
  full, network = 'full', f'bayesian{suffix}'
  return (
    Entry(
      'branches',
      'prior_alone',
      full,
      f'prior-alone{suffix}',
      'prior',
      split,
      against='posterior_sampled',
    ),
    Entry('branches', 'prior', full, network, 'prior', split, 'prior_alone', 'prior'),
    Entry(
      'branches', 'posterior_global', full, f'global{suffix}', 'posterior', split, 'prior', 'prior'
    ),
    Entry('branches', 'posterior_sampled', full, network, 'posterior', split, 'prior', 'prior'),
  )


ENTRIES = (
  Entry('3', 'L2', 'full', 'l2', metric='pa_mpjpe_mm'),
  Entry('3', 'Bayesian', 'full', 'bayesian', against='L2', metric='pa_mpjpe_mm'),
  Entry('3', 'Bayesian, kl 1', 'full', 'kl-1', against='L2', metric='pa_mpjpe_mm'),
  Entry('3', 'Bayesian, by precision', 'full', 'by-precision', against='L2', metric='pa_mpjpe_mm'),
  Entry('3', 'L2', 'weak', 'weak-l2', metric='pa_mpjpe_mm'),
  Entry('3', 'Bayesian', 'weak', 'weak-bayesian', against='L2', metric='pa_mpjpe_mm'),
  Entry('4', 'J2D', 'full', 'j2d', metric='mpvpe_mm'),
  Entry('4', 'J2D + C', 'full', 'j2d-c', against='J2D', metric='mpvpe_mm'),
  Entry('4', 'J2D + C + J3D', 'full', 'j2d-c-j3d', against='J2D + C', metric='mpvpe_mm'),
  Entry(
    '4', 'J2D + C + J3D + V3D', 'full', 'by-precision', against='J2D + C + J3D', metric='mpvpe_mm'
  ),
  Entry('5', 'Bayesian', 'full', 'bayesian', 'prior'),
  Entry('5', 'Bayesian', 'full', 'bayesian', against='Bayesian', against_branch='prior'),
  Entry('5', 'L2', 'full', 'l2', against='Bayesian'),
  *_branches(TEST, ''),
  *_branches(MISMATCH, '-displaced'),
  Entry('weak_start', 'start', 'weak', 'start', 'prior', metric='pa_mpjpe_mm'),
  Entry(
    'weak_start',
    'algorithm_2',
    'weak',
    'weak-bayesian',
    against='start',
    against_branch='prior',
    metric='pa_mpjpe_mm',
  ),
  Entry('convention', 'paper', 'full', 'by-precision'),
  Entry('convention', 'exact', 'full', 'exact', against='paper'),
  Entry('unit', '1 mm', 'full', 'unit-1mm', against='1 cm'),
  Entry('unit', '1 cm', 'full', 'by-precision'),
  Entry('silhouette', 'off', 'full', 'silhouette-off', metric=IOU),
  Entry('silhouette', 'on', 'full', 'silhouette-on', against='off', metric=IOU),
)


def with_photos(entries: Sequence[Entry], photos: Iterable[str]) -> tuple[Entry, ...]:
  """Adds the rows of `PHOTO_TABLE` that are measured on photos, one for each name of a folder."""
  more = (
    entry._replace(split=name)
    for name in photos
    for entry in entries
    if entry.table == PHOTO_TABLE and entry.split == TEST
  )
  return (*entries, *more)


def plan_jobs(
  tables: Iterable[str],
  seeds: Sequence[int] = SEEDS,
  entries: Sequence[Entry] = ENTRIES,
  runs: dict[str, AblationRun] = RUNS,
  supervision: str = '',
) -> list[Job]:
  """Lists the jobs behind the rows of some tables, each once, in the order of seeds and tables.

  A job that several tables show fills the rows of all of them. All comparisons of a seed are
  complete before the next seed begins.

  Args:
    tables: names of tables, see `TABLES`.
    seeds: seeds of all runs.
    entries: the rows of all tables.
    runs: all runs by their names.
    supervision: 'full' or 'weak' for the rows of one supervision, or empty for all.
  """
  entries = [entry for entry in entries if supervision in ('', entry.supervision)]
  shown: dict[tuple[str, int], list[Entry]] = {}
  for seed in seeds:
    for table in tables:
      for entry in entries:
        if entry.table == table:
          shown.setdefault((entry.run, seed), []).append(entry)
  return [Job(runs[name], seed, tuple(rows)) for (name, seed), rows in shown.items()]


def lineage(job: Job, runs: dict[str, AblationRun] = RUNS) -> list[Job]:
  """Lists the jobs that a job starts from, directly or not, in the order of their training."""
  found: dict[str, Job] = {}
  for name in job.run.needs:
    start = Job(runs[name], job.seed, ())
    found |= {before.name: before for before in lineage(start, runs)} | {start.name: start}
  return list(found.values())
