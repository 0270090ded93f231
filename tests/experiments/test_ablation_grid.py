"""The grid of ablations: which runs there are, what they differ by and start from."""

import shlex

import pytest

from experiments.ablations import grid as ablation_grid
from experiments.ablations import running as ablations
from experiments.ablations.grid import (
  ENTRIES,
  RUNS,
  AblationRun,
  Job,
  lineage,
  plan_jobs,
  with_photos,
)
from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides, config_differences
from tests.fake_ablations import config_of

SEEDS = [0, 1, 2]


def test_the_tables_hold_what_they_should():
  printed = {}
  for entry in ENTRIES:
    printed.setdefault(entry.table, set()).add((entry.setting, entry.supervision, entry.branch))
  assert printed['3'] == {
    (setting, supervision, 'posterior')
    for setting in ('Bayesian', 'L2')
    for supervision in ('full', 'weak')
  } | {(f'Bayesian, {weights}', 'full', 'posterior') for weights in ('kl 1', 'by precision')}
  rows = ('J2D', 'J2D + C', 'J2D + C + J3D', 'J2D + C + J3D + V3D')
  assert printed['4'] == {(row, 'full', 'posterior') for row in rows}
  assert printed['5'] == {
    *(('Bayesian', 'full', branch) for branch in ('prior', 'posterior')),
    ('L2', 'full', 'posterior'),
  }
  assert printed['branches'] == {
    ('prior_alone', 'full', 'prior'),
    ('prior', 'full', 'prior'),
    ('posterior_global', 'full', 'posterior'),
    ('posterior_sampled', 'full', 'posterior'),
  }
  assert printed['weak_start'] == {
    ('start', 'weak', 'prior'),
    ('algorithm_2', 'weak', 'posterior'),
  }
  assert printed['convention'] == {(name, 'full', 'posterior') for name in ('paper', 'exact')}
  assert printed['unit'] == {(name, 'full', 'posterior') for name in ('1 mm', '1 cm')}
  assert printed['silhouette'] == {(name, 'full', 'posterior') for name in ('off', 'on')}
  assert set(printed) == set(ablation_grid.TABLES)
  keys = {ablations.entry_key(entry, 0) for entry in ENTRIES}
  assert len(keys) == len(ENTRIES)
  on_two = {(entry.setting, entry.split) for entry in ENTRIES if entry.table == 'branches'}
  assert len(on_two) == 8 and {split for _, split in on_two} == {'test', 'mismatch'}


def test_the_branches_compare_at_equal_budget(settings):
  for suffix, hands in (('', 'broad'), ('-displaced', 'displaced')):
    ours, alone, pooled = (
      config_of(f'{name}{suffix}', settings, 3) for name in ('bayesian', 'prior-alone', 'global')
    )
    assert ours.data.hands == hands and ours.data.data_dir == f'prepared/{hands}'
    assert ours.model.attention.image_features == 'sampled'
    for other in (alone, pooled):
      assert (other.data, other.training) == (ours.data, ours.training)
      assert other.optimizer == ours.optimizer
      assert other.model.attention.image_features == 'global'
    assert alone.model.branches == 'prior' and pooled.model.branches == 'both'
    paths = {text.partition(': ')[0] for text in config_differences(ours, pooled)}
    assert all(path.startswith('model.attention.') for path in paths)
  by_place = {(e.setting, e.split): e for e in ENTRIES if e.table == 'branches'}
  for split in ('test', 'mismatch'):
    assert by_place['prior', split].run == by_place['posterior_sampled', split].run


def test_a_row_is_compared_with_another_one_of_its_kind():
  for entry in ENTRIES:
    others = [
      other
      for other in ENTRIES
      if (other.table, other.supervision, other.split)
      == (entry.table, entry.supervision, entry.split)
      and (other.setting, other.branch) == (entry.against, entry.against_branch)
    ]
    assert len(others) == bool(entry.against), entry
    assert entry not in others


def test_photos_add_rows_of_one_table_alone():
  entries = with_photos(ENTRIES, ['one', 'two'])
  more = entries[len(ENTRIES) :]
  assert entries[: len(ENTRIES)] == ENTRIES
  assert [(entry.setting, entry.split) for entry in more] == [
    (setting, name) for name in ('one', 'two') for setting in ('start', 'algorithm_2')
  ]
  assert {entry.table for entry in more} == {'weak_start'}


@pytest.mark.parametrize('run', RUNS)
def test_every_run_is_a_valid_config(run, settings):
  config = config_of(run, settings, seed=7)
  assert config.training.seed == 7 and config.data.data_dir == f'prepared/{RUNS[run].hands}'
  assert config.data.features == 'cached' and config.optimizer.backbone_learning_rate_scale == 0
  assert all(need in RUNS for need in RUNS[run].needs)
  shown = [entry.run for entry in ENTRIES]
  needed = [need for other in RUNS.values() for need in other.needs]
  assert run in shown + needed


@pytest.mark.parametrize('entry', ENTRIES, ids=lambda e: f'{e.table}: {e.setting}, {e.split}')
def test_a_row_has_the_supervision_and_the_branch_it_names(entry, settings):
  config = config_of(entry.run, settings)
  assert config.model.branches in ('both', entry.branch)
  assert config.data.labels == {'full': '3d', 'weak': '2d'}[entry.supervision]
  # All that any row starts from, and so all that went into a weak row, saw 2D joints alone.
  for job in lineage(Job(RUNS[entry.run], 0, ())):
    assert ablations.job_config(job, settings).data.labels == '2d'
  base = config_of('bayesian', settings)
  sizes = (config.training.num_steps, config.training.batch_size)
  assert sizes == (base.training.num_steps, base.training.batch_size)


@pytest.mark.parametrize(
  'run, differences',
  [
    ('j2d', {'loss.joints': 0.0, 'loss.camera': 0.0}),
    ('j2d-c', {'loss.joints': 0.0}),
    ('j2d-c-j3d', {}),
  ],
)
def test_a_loss_fewer_takes_its_labels_away_and_leaves_the_divergence(run, differences, settings):
  full, without = config_of('by-precision', settings), config_of(run, settings)
  differences = {**differences, 'loss.vertices_likelihood': 0.0}
  if full.loss.prior_vertices:
    differences['loss.prior_vertices'] = 0.0
  found = config_differences(without, full)
  assert {text.partition(': ')[0] for text in found} == set(differences)
  for path, value in differences.items():
    assert getattr(without.loss, path.split('.')[1]) == value
  assert without.loss.vertices > 0


@pytest.mark.parametrize(
  'run, path, value',
  [('exact', 'loss.convention', 'exact'), ('unit-1mm', 'loss.length_unit_m', 0.001)],
)
def test_a_run_differs_from_the_full_one_by_what_its_row_says(run, path, value, settings):
  found = config_differences(config_of(run, settings), config_of('by-precision', settings))
  assert [text.partition(': ')[0] for text in found] == [path]
  assert getattr(config_of(run, settings).loss, path.split('.')[1]) == value
  loss = config_of('by-precision', settings).loss
  assert (loss.kind, loss.convention, loss.length_unit_m) == ('gaussian', 'paper', 0.01)
  assert min(loss.vertices, loss.joints, loss.joints_2d, loss.camera) > 0


def test_the_papers_weights_are_apart_from_the_other_settings(settings):
  ours, kl, paper = (config_of(run, settings) for run in ('bayesian', 'kl-1', 'by-precision'))
  (found,) = config_differences(kl, ours)
  assert found.startswith('loss.kl: ') and (kl.loss.kl, ours.loss.kl) == (1.0, 0.1)
  (found,) = config_differences(paper, kl)
  assert found.startswith('loss.coordinate_weights: ')
  assert (paper.loss.coordinate_weights, kl.loss.coordinate_weights) == ('likelihood', 'even')


def test_runs_with_and_without_silhouettes_differ_by_that_alone(settings):
  off, on = config_of('silhouette-off', settings), config_of('silhouette-on', settings)
  (found,) = config_differences(on, off)
  assert found.startswith('loss.silhouette: ') and on.loss.silhouette > 0 == off.loss.silhouette
  paper = config_of('by-precision', settings).loss
  for name in ('coordinate_weights', 'kl'):
    assert getattr(off.loss, name) == getattr(paper, name)
  # Both go on from the network in the package.
  assert off.training.init_from == ('release',)


def test_weak_runs_compare_at_equal_budget_from_one_start(settings):
  ours, theirs = config_of('weak-bayesian', settings), config_of('weak-l2', settings)
  paths = {text.partition(': ')[0] for text in config_differences(ours, theirs)}
  assert 'loss.kind' in paths and ours.loss.kind == 'elbo' and theirs.loss.kind == 'l2'
  assert all(path.startswith('loss.') or path == 'training.camera_prior' for path in paths)
  # Each seed has a start of its own.
  for seed in (0, 2):
    start = str(settings.workdir / f'start-seed{seed}')
    for run in ('weak-bayesian', 'weak-l2'):
      assert config_of(run, settings, seed).training.init_from == (start,)
    assert config_of('weak-bayesian', settings, seed).training.camera_prior == start
  assert config_of('start', settings).model.branches == 'prior'


def test_squared_errors_differ_from_the_gaussians_by_their_loss_alone(settings):
  for run, bayesian in (('l2', 'bayesian'), ('weak-l2', 'weak-bayesian')):
    ours = config_of(run, settings)
    assert ours.loss.kind == 'l2'
    paths = {d.partition(': ')[0] for d in config_differences(ours, config_of(bayesian, settings))}
    assert all(path.startswith('loss.') or path == 'training.camera_prior' for path in paths)
  assert config_of('l2', settings).loss == get_config('synthetic_small_amvur_supervised').loss
  assert config_of('prior-alone', settings).loss == config_of('l2', settings).loss
  weak = config_of('weak-l2', settings).loss
  assert weak.joints_2d > 0 == weak.vertices == weak.camera
  penalties = ('projection', 'orthonormality', 'joint_limits', 'shape_prior', 'pose_prior')
  bayesian = config_of('weak-bayesian', settings).loss
  assert [getattr(weak, p) for p in penalties] == [getattr(bayesian, p) for p in penalties]


def test_a_job_is_trained_once_for_all_tables():
  jobs = plan_jobs(ablation_grid.TABLES, SEEDS)
  assert len({job.name for job in jobs}) == len(jobs) == len(SEEDS) * len(RUNS)
  by_name = {job.name: job for job in jobs}
  for seed in SEEDS:
    for run, tables in (
      ('bayesian', ['3', '5', '5', 'branches', 'branches']),
      ('by-precision', ['3', '4', 'convention', 'unit']),
    ):
      assert [entry.table for entry in by_name[f'{run}-seed{seed}'].entries] == tables
  # Every seed's comparison is whole before the next seed begins.
  assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
  for supervision in ('full', 'weak'):
    some = plan_jobs(ablation_grid.TABLES, SEEDS, supervision=supervision)
    assert {entry.supervision for job in some for entry in job.entries} == {supervision}
    assert {job.name for job in some} < {job.name for job in jobs}
  assert {job.run.name for job in plan_jobs(['5'], [1])} == {'bayesian', 'l2'}
  assert ablation_grid.SEEDS == (0, 1, 2, 3, 4)


def test_what_a_job_starts_from_comes_in_order(monkeypatch):
  for name, links in (
    ('first', {}),
    ('second', {'init_from': ('first',)}),
    ('third', {'init_from': ('second', 'first'), 'camera_prior': 'first'}),
  ):
    monkeypatch.setitem(RUNS, name, AblationRun(name, **links))
  job = Job(RUNS['third'], 5, ())
  assert [before.name for before in lineage(job)] == ['first-seed5', 'second-seed5']


def test_the_command_gives_the_config_again(settings):
  job = Job(RUNS['weak-bayesian'], 2, ())
  settings = settings._replace(overrides=('training.num_steps=9', 'loss.kl=0.5'))
  steps = [
    shlex.split(step) for step in ablations.reproduce(job, 'mismatch', settings).split(' && ')
  ]
  assert [step[2] for step in steps] == ['experiments.train'] * 2 + ['experiments.evaluate']
  for step, each in zip(steps, (*lineage(job), job), strict=False):
    assert step[3:5] == [f'--config={each.run.config}', f'--workdir={settings.folder(each)}']
    assert step[5::2] == ['--set'] * len(step[5::2])
    assert len({text.partition('=')[0] for text in step[6::2]}) == len(step[6::2])
    config = apply_overrides(get_config(each.run.config), step[6::2])
    assert config == ablations.job_config(each, settings)
    assert config.training.num_steps == 9 and config.loss.kl == 0.5
  assert steps[-1][3:] == [
    f'--workdir={settings.folder(job)}',
    *('--dataset=synthetic_hands', '--split=test_mismatch', '--data_dir=prepared/broad'),
    '--limit=500',
  ]
  photos = ablations.reproduce(job, 'mine', settings).split(' && ')[-1]
  assert photos == (
    'python -m experiments.ablations --table=weak_start --seeds=2 --photos=mine=photos/mine'
  )
