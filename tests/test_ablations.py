"""The ablations: the grid against what it should hold, resuming with faked runs, and the tables."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest

from experiments import ablation_grid, ablation_report, ablations
from experiments.ablation_grid import ENTRIES, RUNS, Entry, Job, Run, lineage, plan_jobs
from experiments.ablation_report import SECTION, format_markdown, load_rows, update_section
from experiments.configs import get_config
from hand_jax.config_text import apply_overrides, config_differences
from hand_jax.evaluation.evaluate import METRIC_NAMES
from hand_jax.training.checkpoints import claim_workdir

SEEDS = [0, 1, 2]
CONTRACT = {'table', 'setting', 'supervision', 'seed', 'branch', *METRIC_NAMES}
CONTRACT |= {'mean_hand_pa_mpjpe_mm', 'steps', 'commit', 'command'}
BASELINE = 16.0


@pytest.fixture
def settings(tmp_path):
  output = tmp_path / 'docs' / 'results' / 'ablations.json'
  return ablations.Settings(tmp_path / 'runs', 'prepared', output, (), 'abc1234', 24576)


def config_of(run: str, settings, seed: int = 0):
  return ablations.job_config(Job(RUNS[run], seed, ()), settings)


# The grid.


def test_the_tables_hold_what_they_should():
  printed = {}
  for entry in ENTRIES:
    printed.setdefault(entry.table, set()).add((entry.setting, entry.supervision, entry.branch))
  assert printed['3'] == {
    (setting, supervision, 'posterior')
    for setting in ('Bayesian', 'L2')
    for supervision in ('full', 'weak')
  }
  rows = ('J2D', 'J2D + C', 'J2D + C + J3D', 'J2D + C + J3D + V3D')
  assert printed['4'] == {(row, 'full', 'posterior') for row in rows}
  assert printed['5'] == {
    *(('Bayesian', 'full', branch) for branch in ('prior', 'posterior')),
    ('L2', 'full', 'posterior'),
  }
  assert printed['convention'] == {(name, 'full', 'posterior') for name in ('paper', 'exact')}
  assert printed['unit'] == {(name, 'full', 'posterior') for name in ('1 mm', '1 cm')}
  start = 'prior-net alone (starting point)'
  assert printed['weak'] == {
    (start, 'weak', 'prior'),
    ('prior-net alone, longer run', 'weak', 'prior'),
  }
  assert set(printed) == set(ablation_grid.TABLES)
  assert len({(e.table, e.setting, e.supervision, e.branch) for e in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize('run', RUNS)
def test_every_run_is_a_valid_config(run, settings):
  config = config_of(run, settings, seed=7)
  assert config.training.seed == 7 and config.data.data_dir == 'prepared'
  assert all(need in RUNS for need in RUNS[run].needs)
  shown = [entry.run for entry in ENTRIES]
  needed = [need for other in RUNS.values() for need in other.needs]
  assert run in shown + needed


@pytest.mark.parametrize('entry', ENTRIES, ids=lambda entry: f'{entry.table}: {entry.setting}')
def test_a_row_has_the_supervision_and_the_branch_it_names(entry, settings):
  config = config_of(entry.run, settings)
  assert config.model.branches in ('both', entry.branch)
  assert config.data.labels == {'full': '3d', 'weak': '2d'}[entry.supervision]
  # All that any row starts from, and so all that went into a weak row, saw 2D joints alone.
  for job in lineage(Job(RUNS[entry.run], 0, ())):
    assert ablations.job_config(job, settings).data.labels == '2d'
  if entry.table != 'weak':
    sizes = config.training.num_steps, config.training.batch_size, config.model.image_size
    base = config_of('bayesian', settings)
    assert sizes == (base.training.num_steps, base.training.batch_size, base.model.image_size)


@pytest.mark.parametrize(
  'run, differences',
  [
    ('j2d', {'loss.vertices': 0.0, 'loss.joints': 0.0, 'loss.camera': 0.0}),
    ('j2d-c', {'loss.vertices': 0.0, 'loss.joints': 0.0}),
    ('j2d-c-j3d', {'loss.vertices': 0.0}),
    ('exact', {'loss.convention': 'exact'}),
    ('unit-1mm', {'loss.length_unit_m': 0.001}),
  ],
)
def test_a_run_differs_from_the_full_one_by_what_its_row_says(run, differences, settings):
  found = config_differences(config_of(run, settings), config_of('bayesian', settings))
  assert {text.partition(': ')[0] for text in found} == set(differences)
  for path, value in differences.items():
    group, name = path.split('.')
    assert getattr(getattr(config_of(run, settings), group), name) == value
  loss = config_of('bayesian', settings).loss
  assert (loss.kind, loss.convention, loss.length_unit_m) == ('gaussian', 'paper', 0.01)
  assert min(loss.vertices, loss.joints, loss.joints_2d, loss.camera) > 0


def test_weak_runs_compare_at_equal_budget_from_one_start(settings):
  ours, theirs = config_of('weak-bayesian', settings), config_of('weak-l2', settings)
  paths = {text.partition(': ')[0] for text in config_differences(ours, theirs)}
  assert 'loss.kind' in paths and ours.loss.kind == 'elbo' and theirs.loss.kind == 'l2'
  assert all(path.startswith('loss.') or path == 'training.camera_prior' for path in paths)
  start = str(settings.workdir / 'weak-long-prior-seed0')
  # Also with another seed, so that the seeds share one start.
  for run in ('weak-bayesian', 'weak-l2'):
    assert config_of(run, settings, seed=2).training.init_from == (start,)
  assert ours.training.camera_prior == start
  # A camera model knows crops of its own size alone.
  for run, source in (('weak-bayesian', 'weak-long-prior'), ('weak-long', 'weak-long-prior')):
    assert config_of(run, settings).model.image_size == config_of(source, settings).model.image_size


def test_squared_errors_differ_from_the_gaussians_by_their_loss_alone(settings):
  for run, bayesian in (('l2', 'bayesian'), ('weak-l2', 'weak-bayesian')):
    ours = config_of(run, settings)
    assert ours.loss.kind == 'l2'
    paths = {d.partition(': ')[0] for d in config_differences(ours, config_of(bayesian, settings))}
    assert all(path.startswith('loss.') or path == 'training.camera_prior' for path in paths)
  assert config_of('l2', settings).loss == get_config('synthetic_small_amvur_supervised').loss
  weak = config_of('weak-l2', settings).loss
  assert weak.joints_2d > 0 == weak.vertices == weak.camera
  penalties = ('projection', 'orthonormality', 'joint_limits', 'shape_prior', 'pose_prior')
  bayesian = config_of('weak-bayesian', settings).loss
  assert [getattr(weak, p) for p in penalties] == [getattr(bayesian, p) for p in penalties]


def test_a_job_is_trained_once_for_all_tables():
  jobs = plan_jobs(ablation_grid.TABLES, SEEDS)
  assert len({job.name for job in jobs}) == len(jobs)
  by_name = {job.name: job for job in jobs}
  assert [entry.table for entry in by_name['bayesian-seed0'].entries] == [
    *('3', '4', '5', '5', 'convention', 'unit')
  ]
  assert [entry.table for entry in by_name['bayesian-seed2'].entries] == ['3', '5', '5']
  seeds = {}
  for job in jobs:
    seeds.setdefault(job.run.name, []).append(job.seed)
  assert seeds['l2'] == seeds['bayesian'] == SEEDS
  assert {tuple(seeds[name]) for name in seeds if name not in ('l2', 'bayesian')} == {(0,)}
  # Every seed's comparison is whole before the next seed begins.
  assert [job.seed for job in jobs[:8]] == [0] * 4 + [1] * 2 + [2] * 2
  for supervision in ('full', 'weak'):
    some = plan_jobs(ablation_grid.TABLES, SEEDS, supervision=supervision)
    assert {entry.supervision for job in some for entry in job.entries} == {supervision}
    assert {job.name for job in some} < {job.name for job in jobs}
  assert {job.run.name for job in plan_jobs(['5'], [1])} == {'bayesian', 'l2'}


def test_what_a_job_starts_from_comes_in_order(monkeypatch):
  for name, links in (
    ('first', {}),
    ('second', {'init_from': ('first',)}),
    ('third', {'init_from': ('second', 'first'), 'camera_prior': 'first'}),
  ):
    monkeypatch.setitem(RUNS, name, Run(name, 'toy', **links))
  job = Job(RUNS['third'], 5, ())
  assert [before.name for before in lineage(job)] == ['first-seed0', 'second-seed0']


def test_the_command_gives_the_config_again(settings):
  job = Job(RUNS['weak-bayesian'], 2, ())
  settings = settings._replace(overrides=('training.num_steps=9', 'loss.kl=0.5'))
  steps = [shlex.split(step) for step in ablations.reproduce(job, settings).split(' && ')]
  assert [step[2] for step in steps] == ['experiments.train'] * 2 + ['experiments.evaluate']
  for step, each in zip(steps, (*lineage(job), job), strict=False):
    assert step[3:5] == [f'--config={each.run.config}', f'--workdir={settings.folder(each)}']
    assert step[5::2] == ['--set'] * len(step[5::2])
    assert len({text.partition('=')[0] for text in step[6::2]}) == len(step[6::2])
    config = apply_overrides(get_config(each.run.config), step[6::2])
    assert config == ablations.job_config(each, settings)
    assert config.training.num_steps == 9 and config.loss.kl == 0.5
  assert steps[-1][3] == f'--workdir={settings.folder(job)}'


# Training and measuring, with faked runs.


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


def test_rows_hold_the_contract_and_what_was_measured(settings):
  jobs = plan_jobs(['4', '5'], [0])
  faked = Faked()
  assert faked.run(jobs, settings) == {}
  rows = json.loads(settings.output.read_text())
  assert len(rows) == 7 and all(set(row) >= CONTRACT for row in rows)
  by_key = {ablation_report.row_key(row): row for row in rows}
  posterior = by_key['5', 'Bayesian', 'full', 0, 'posterior']
  prior = by_key['5', 'Bayesian', 'full', 0, 'prior']
  for number, name in enumerate(METRIC_NAMES):
    assert posterior[name] == number and prior[name] == 100 + number
  assert posterior['mean_hand_pa_mpjpe_mm'] == BASELINE
  config = config_of('bayesian', settings)
  assert posterior['steps'] == config.training.num_steps
  assert posterior['batch_size'] == config.training.batch_size
  assert (posterior['train_examples'], posterior['test_examples']) == (24576, 1000)
  assert (posterior['commit'], posterior['steps_before']) == ('abc1234', 6000)
  assert posterior['command'] == ablations.reproduce(Job(RUNS['bayesian'], 0, ()), settings)
  # One training and one evaluation for the four rows of the supervised Bayesian run.
  assert sorted(faked.measured) == sorted(job.name for job in jobs)
  assert sorted(faked.trained) == sorted(['weak-long-prior-seed0', *faked.measured])
  assert settings.output.with_suffix('.md').read_text() == format_markdown(rows)


def test_a_stopped_call_goes_on_where_it_stopped(settings):
  jobs = plan_jobs(['4'], [0])
  names = [job.name for job in jobs]
  first = Faked({names[2]: KeyboardInterrupt()})
  with pytest.raises(KeyboardInterrupt):
    first.run(jobs, settings)
  rows = load_rows(settings.output)
  assert first.trained == ['weak-long-prior-seed0', *names[:3]]
  assert first.measured == names[:2] and len(rows) == 2
  assert settings.output.with_suffix('.md').read_text() == format_markdown(rows)
  second = Faked()
  second.run(jobs, settings)
  assert second.trained == second.measured == names[2:]
  assert load_rows(settings.output)[:2] == rows and len(load_rows(settings.output)) == 4
  third = Faked()
  third.run(jobs, settings)
  assert third.trained == third.measured == []


def test_a_trained_run_is_only_measured_for_another_table(settings):
  Faked().run(plan_jobs(['convention'], [0]), settings)
  faked = Faked()
  faked.run(plan_jobs(['5'], [0]), settings)
  assert faked.trained == ['l2-seed0'] and sorted(faked.measured) == ['bayesian-seed0', 'l2-seed0']
  keys = [ablation_report.row_key(row) for row in load_rows(settings.output)]
  assert len(keys) == len(set(keys)) == 5


def test_a_job_adds_only_the_rows_that_are_missing(settings):
  Faked().run(plan_jobs(['5'], [0]), settings)
  first = load_rows(settings.output)
  faked = Faked()
  faked.run(plan_jobs(['unit', '5'], [0]), settings)
  assert sorted(faked.trained) == ['unit-1mm-seed0']
  assert 'bayesian-seed0' in faked.measured and 'l2-seed0' not in faked.measured
  rows = load_rows(settings.output)
  assert rows[:3] == first and [row['table'] for row in rows[3:]] == ['unit'] * 2


def test_rows_that_others_wrote_meanwhile_are_kept(settings):
  jobs = plan_jobs(['convention'], [0])
  other = Faked()

  class Slow(Faked):
    def measure(self, workdir, data_dir):
      if not self.measured:
        elsewhere = settings._replace(workdir=settings.workdir / 'elsewhere')
        other.run(plan_jobs(['unit'], [0])[:1], elsewhere)
      return super().measure(workdir, data_dir)

  Slow().run(jobs, settings)
  assert {row['table'] for row in load_rows(settings.output)} == {'convention', 'unit'}


def test_starts_are_trained_once_and_before(settings, monkeypatch):
  monkeypatch.setitem(RUNS, 'start', Run('start', 'toy'))
  monkeypatch.setitem(RUNS, 'then', Run('then', 'toy', init_from=('start',)))
  entry = Entry('3', 'Bayesian', 'weak', 'then')
  jobs = [Job(RUNS['then'], seed, (entry,)) for seed in SEEDS]
  faked = Faked()
  faked.run(jobs, settings)
  assert faked.trained == ['start-seed0', 'then-seed0', 'then-seed1', 'then-seed2']
  assert faked.measured == faked.trained[1:]
  assert {row['steps_before'] for row in load_rows(settings.output)} == {12}


def test_a_run_that_leaves_the_numbers_does_not_stop_the_others(settings, monkeypatch):
  monkeypatch.setitem(RUNS, 'start', Run('start', 'toy'))
  monkeypatch.setitem(RUNS, 'then', Run('then', 'toy', init_from=('start',)))
  monkeypatch.setitem(RUNS, 'alone', Run('alone', 'toy'))
  entry = Entry('3', 'Bayesian', 'weak', 'then')
  jobs = [Job(RUNS['then'], seed, (entry,)) for seed in (0, 1)]
  jobs.append(Job(RUNS['alone'], 0, (entry._replace(supervision='full'),)))
  faked = Faked({'start-seed0': FloatingPointError('total = nan')})
  failures = faked.run(jobs, settings)
  assert failures == {
    'start-seed0': 'total = nan',
    'then-seed0': 'it starts from start-seed0',
    'then-seed1': 'it starts from start-seed0',
  }
  assert faked.trained == ['start-seed0', 'alone-seed0'] and faked.measured == ['alone-seed0']


def test_other_settings_are_refused_before_any_training(settings):
  jobs = plan_jobs(['convention'], [0])
  Faked().run(jobs[:1], settings)
  faked = Faked()
  other = settings._replace(overrides=('training.num_steps=7',))
  with pytest.raises(ValueError, match=r"'paper', 'full', 0.*other settings"):
    faked.run(jobs, other)
  # Without the row it is the folder that tells.
  elsewhere = other._replace(output=settings.output.with_name('other.json'))
  with pytest.raises(ValueError, match=r'another config.*num_steps'):
    faked.run(jobs[::-1], elsewhere)
  assert faked.trained == [] and not elsewhere.output.exists()


def test_rows_made_in_another_folder_are_kept(settings):
  jobs = plan_jobs(['convention'], [0])
  Faked().run(jobs, settings)
  faked = Faked()
  faked.run(jobs, settings._replace(workdir=settings.workdir / 'other', data_dir='/far/prepared'))
  assert faked.trained == []


def test_seconds_and_commits_add_up_over_calls(settings, monkeypatch):
  ticks = iter(range(0, 10000, 10))
  monkeypatch.setattr(ablations.time, 'monotonic', lambda: float(next(ticks)))
  jobs = plan_jobs(['convention'], [0])[1:]
  (job,) = jobs
  with pytest.raises(KeyboardInterrupt):
    Faked({job.name: KeyboardInterrupt()}).run(jobs, settings)
  assert ablations.read_note(settings.folder(job)) == {'seconds': 10.0, 'commits': ['abc1234']}
  Faked().run(jobs, settings._replace(commit='def5678'))
  (row,) = load_rows(settings.output)
  # Ten seconds of training twice, and ten of evaluation.
  assert (row['seconds'], row['commit']) == (30.0, 'abc1234+def5678')


def test_the_seconds_of_a_killed_run_are_unknown(settings):
  (job,) = plan_jobs(['convention'], [0])[1:]

  class Killed(Faked):
    def train(self, config, workdir):
      super().train(config, workdir)
      self.note = (pathlib.Path(workdir) / ablations.NOTE).read_text()

  killed = Killed()
  killed.run([job], settings)
  # What the disk held when the process would have been killed.
  (pathlib.Path(settings.folder(job)) / ablations.NOTE).write_text(killed.note)
  settings.output.unlink()
  Faked().run([job], settings)
  (row,) = load_rows(settings.output)
  assert row['seconds'] is None and row['commit'] == 'abc1234'
  assert '| - |' in format_markdown([row])


def test_a_failed_write_leaves_the_file_whole(settings, monkeypatch):
  jobs = plan_jobs(['convention'], [0])
  Faked().run(jobs[:1], settings)
  before = settings.output.read_text()
  with monkeypatch.context() as patched:
    replace = pathlib.Path.replace

    def fail_for_rows(path, target):
      if target == settings.output:
        raise OSError('full')
      return replace(path, target)

    patched.setattr(pathlib.Path, 'replace', fail_for_rows)
    with pytest.raises(OSError, match='full'):
      ablation_report.publish(settings.output, [make_row()])
  assert settings.output.read_text() == before

  class Broken(Faked):
    def measure(self, workdir, data_dir):
      results = super().measure(workdir, data_dir)
      results['posterior']['mpjpe_mm'] = float('nan')
      return results

  with pytest.raises(ValueError, match='JSON'):
    Broken().run(jobs, settings)
  assert settings.output.read_text() == before


@pytest.mark.parametrize(
  'text, message',
  [
    ('[{"table": "3"', 'not valid JSON'),
    ('{"table": "3"}', 'holds dict'),
    ('[3]', 'row 0 is 3'),
    ('[{"table": "3", "seed": 0}]', 'row 0 lacks setting'),
  ],
)
def test_what_is_no_list_of_rows_is_refused(text, message, settings):
  settings.output.parent.mkdir(parents=True)
  settings.output.write_text(text)
  faked = Faked()
  with pytest.raises(ValueError, match=message) as error:
    faked.run(plan_jobs(['convention'], [0]), settings)
  assert str(settings.output) in str(error.value)
  assert faked.trained == [] and settings.output.read_text() == text


def test_a_row_that_comes_twice_is_refused(tmp_path):
  path = tmp_path / 'rows.json'
  path.write_text(json.dumps([make_row(), make_row()]))
  with pytest.raises(ValueError, match='more than once'):
    load_rows(path)


def test_one_command_at_a_time(tmp_path):
  with ablations.only_one(tmp_path), pytest.raises(RuntimeError, match='Another ablation'):
    ablations.only_one(tmp_path).__enter__()
  with ablations.only_one(tmp_path):
    pass


# Markdown.


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


def table_cells(text: str, title: str) -> list[list[str]]:
  """The first table under a heading: header and lines, as cells."""
  section = text.split(f'### {title}')[1]
  table = re.search(r'(?:^\|.*\n)+', section, re.MULTILINE).group()
  cells = [line.strip('| \n').split(' | ') for line in table.strip().split('\n')]
  assert set(cells.pop(1)) == {'---'} and len({len(line) for line in cells}) == 1
  return cells


def test_seeds_become_mean_and_sample_deviation():
  errors, shares = [8.125, 8.5, 9.375], [0.81, 0.825, 0.8]
  rows = [
    make_row(seed=seed, pa_mpjpe_mm=error, pa_auc_joints=share, seconds=100.0 * seed)
    for seed, error, share in zip(SEEDS, errors, shares, strict=True)
  ]
  header, line = table_cells(format_markdown(rows), 'Table 3')
  found = dict(zip(header, line, strict=True))
  assert found['PA-MPJPE'] == f'{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}'
  assert found['PA AUC joints'] == f'{np.mean(shares):.3f} ± {np.std(shares, ddof=1):.3f}'
  assert (found['seeds'], found['seconds']) == ('0, 1, 2', '100')
  assert (found['steps'], found['images seen']) == ('320', '10,240')
  text = format_markdown(rows)
  for seed, error in zip(SEEDS, errors, strict=True):
    assert re.search(rf'\| Bayesian \| full \| posterior \| {seed} \|.*\| {error:.2f} \|', text)
  (one,) = table_cells(format_markdown(rows[:1]), 'Table 3')[1:]
  assert (
    '8.12' in one and '±' not in ' '.join(one) and 'Seed by seed' not in format_markdown(rows[:1])
  )


def test_the_columns_are_those_the_paper_prints():
  names = ['setting', 'supervision', 'branch', 'seeds']
  sizes = ['steps', 'images seen', 'seconds']
  aligned = ['PA AUC joints', 'PA-MPJPE', 'PA AUC vertices', 'PA-MPVPE', 'PA F@5', 'PA F@15']
  plain = ['MPJPE', 'MPVPE', 'F@5', 'F@15']
  both = ['MPJPE', 'PA-MPJPE', 'MPVPE', 'PA-MPVPE']
  gain = ['PA-MPJPE below the mean hand, %']
  titles = dict(zip(ablation_grid.TABLES, ('Table 3', 'Table 4', 'Table 5'), strict=False))
  titles |= {'convention': "The paper's letter", 'unit': 'The length', 'weak': 'The longer'}
  text = format_markdown([make_row(table) for table in ablation_grid.TABLES])
  values = {name: 1 + number / 8 for number, name in enumerate(METRIC_NAMES)}
  for table, columns in zip(titles, (aligned, plain, plain, both, both, both + gain), strict=True):
    header, line = table_cells(text, titles[table])
    assert header == names + columns + sizes
    found = dict(zip(header, line, strict=True))
    for title in columns:
      prefix = 'pa_' if title.startswith('PA') else ''
      if title in gain:
        expected = f'{100 * (1 - values["pa_mpjpe_mm"] / BASELINE):.1f}'
      elif 'F@' in title:
        expected = f'{values[prefix + "f_score_" + title.split("@")[1] + "mm"]:.3f}'
      elif 'AUC' in title:
        expected = f'{values[prefix + "auc_" + title.split()[-1]]:.3f}'
      else:
        expected = f'{values[prefix + title[-5:].lower() + "_mm"]:.2f}'
      assert found[title] == expected, (table, title)


def test_rows_are_shown_in_the_order_of_the_grid():
  rows = [
    make_row('4', 'J2D + C + J3D + V3D'),
    make_row('3', 'Bayesian', 'weak'),
    make_row('4', 'J2D + C'),
    make_row('3', 'Bayesian'),
    make_row('4', 'J2D'),
    make_row('4', 'something of an older grid'),
  ]
  text = format_markdown(rows)
  assert text.index('### Table 3') < text.index('### Table 4')
  settings = [line[0] for line in table_cells(text, 'Table 4')[1:]]
  assert settings == ['J2D', 'J2D + C', 'J2D + C + J3D + V3D', 'something of an older grid']
  assert [line[1] for line in table_cells(text, 'Table 3')[1:]] == ['full', 'weak']


def test_the_remarks_and_commands_say_how_to_repeat_it():
  shared = 'python -m train start && '
  rows = [make_row(seed=seed, command=f'{shared}python -m train {seed}') for seed in (0, 1)]
  rows.append(make_row('5', steps=160, steps_before=320, commit='def5678-dirty', seconds=None))
  text = format_markdown(rows)
  assert 'PA-MPJPE of 16.00 mm' in text and 'over 1000 test hands' in text
  assert 'from 24,576 training hands' in text
  assert 'Commit `abc1234`.' in text and 'Commit `def5678-dirty`.' in text
  found = dict(zip(*table_cells(text, 'Table 5'), strict=True))
  assert (found['steps'], found['seconds']) == ('160 after 320', '-')
  commands = re.findall('^    (.*)$', text, re.MULTILINE)
  assert commands[:3] == ['python -m train start', 'python -m train 0', 'python -m train 1']
  assert len(commands) == len(set(commands)) == 5
  # Runs of different sizes in one line are told apart.
  mixed = format_markdown([make_row(), make_row(seed=1, steps=640)])
  assert '| 320 / 640 | 10,240 / 20,480 |' in mixed


def test_without_rows_it_says_so():
  assert format_markdown([]) == 'No run has finished yet.\n'


def test_a_section_is_replaced_and_the_rest_kept(tmp_path):
  path = tmp_path / 'results.md'
  path.write_text(f'# Results\n\n{SECTION[0]}\nold\n{SECTION[1]}\n\nThe end.\n')
  for _ in range(2):
    update_section(path, 'new table\n')
    assert path.read_text() == (
      f'# Results\n\n{SECTION[0]}\n\nnew table\n\n{SECTION[1]}\n\nThe end.\n'
    )
  assert [file.name for file in tmp_path.iterdir()] == ['results.md']


@pytest.mark.parametrize(
  'content',
  [
    'nothing',
    SECTION[0],
    f'{SECTION[1]} {SECTION[0]}',
    f'{SECTION[0]}{SECTION[0]}{SECTION[1]}',
    f'{SECTION[0]}{SECTION[1]}{SECTION[1]}',
  ],
)
def test_a_document_without_its_two_markers_is_refused(content, settings):
  document = settings.output.parent.parent / 'results.md'
  document.parent.mkdir(parents=True)
  document.write_text(content)
  faked = Faked()
  with pytest.raises(ValueError, match=r'results\.md.*once each'):
    faked.run(plan_jobs(['convention'], [0]), settings)
  assert document.read_text() == content and faked.trained == []


def test_the_document_follows_the_rows(settings):
  document = settings.output.parent.parent / 'results.md'
  document.parent.mkdir(parents=True)
  document.write_text('\n'.join(SECTION))
  Faked().run(plan_jobs(['convention'], [0]), settings)
  text = format_markdown(load_rows(settings.output))
  assert document.read_text() == f'{SECTION[0]}\n\n{text.strip()}\n\n{SECTION[1]}'


# Flags and surroundings.


def test_tables_and_seeds_are_checked():
  assert ablations.parse_tables('all') == ablation_grid.TABLES
  assert ablations.parse_tables('3,unit') == ('3', 'unit')
  with pytest.raises(
    ValueError, match=r"Unknown table '2'.*3, 4, 5, convention, unit, weak or all"
  ):
    ablations.parse_tables('3,2')
  assert ablations.parse_seeds(['2', '0', '2']) == [2, 0]
  for wrong in (['1', 'x'], ['-1'], ['1.5'], []):
    with pytest.raises(ValueError, match='--seeds'):
      ablations.parse_seeds(wrong)


def test_missing_data_are_named_with_the_way_to_make_them(tmp_path):
  with pytest.raises(FileNotFoundError, match='No prepared synthetic_hands') as error:
    ablations.count_training_examples(str(tmp_path))
  assert f'experiments.prepare_dataset --dataset=synthetic_hands --data_dir={tmp_path}' in str(
    error.value
  )


@pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
def test_the_commit_tells_changed_code_but_not_documents(tmp_path, monkeypatch):
  monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
  assert ablations.current_commit(tmp_path) == 'unknown'

  def git(*arguments):
    identity = ['-c', 'user.name=a', '-c', 'user.email=a@b.c']
    command = ['git', '-C', str(tmp_path), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

  (tmp_path / 'docs').mkdir()
  for name in ('code.py', 'docs/results.md'):
    (tmp_path / name).write_text('1')
  git('init', '-q')
  git('add', '.')
  git('commit', '-q', '-m', 'first')
  commit = git('rev-parse', '--short', 'HEAD')
  assert len(commit) >= 7 and ablations.current_commit(tmp_path) == commit
  (tmp_path / 'docs/results.md').write_text('2')
  (tmp_path / 'new.py').write_text('not tracked')
  assert ablations.current_commit(tmp_path) == commit
  (tmp_path / 'code.py').write_text('2')
  assert ablations.current_commit(tmp_path) == f'{commit}-dirty'


def test_the_published_tables_are_those_of_the_published_rows():
  rows = load_rows(ablations.ROOT / 'docs' / 'results' / 'ablations.json')
  assert {row['table'] for row in rows} == set(ablation_grid.TABLES)
  assert all(set(row) >= CONTRACT for row in rows)
  assert format_markdown(rows).strip() in (ablations.ROOT / 'docs' / 'results.md').read_text()
  longer, start = (
    next(row for row in rows if row['table'] == 'weak' and name in row['setting'])
    for name in ('longer', 'start')
  )
  # What the document says of the longer run.
  assert longer['pa_mpjpe_mm'] < min(start['pa_mpjpe_mm'], 0.75 * longer['mean_hand_pa_mpjpe_mm'])
