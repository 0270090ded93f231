"""The ablation command with faked runs: rows, resuming, refusals, surroundings."""

import json
import pathlib

import numpy as np
import pytest

from experiments.ablations import grid as ablation_grid
from experiments.ablations import report as ablation_report
from experiments.ablations import running as ablations
from experiments.ablations.comparing import add_intervals, errors_path
from experiments.ablations.grid import (
  ENTRIES,
  RUNS,
  AblationRun,
  Entry,
  Job,
  plan_jobs,
  with_photos,
)
from experiments.ablations.measuring import parse_photos
from experiments.ablations.prepared import prepare_missing, prepare_request
from experiments.ablations.report import format_markdown, load_rows
from hand_jax.evaluation.evaluate import METRIC_NAMES
from hand_jax.evaluation.hand_errors import JOINTS_2D, read_hand_errors, write_hand_errors
from tests.fake_ablations import (
  BASELINE,
  CONTRACT,
  HANDS,
  PRIOR_ABOVE,
  Faked,
  config_of,
  make_row,
  table_cells,
)

SEEDS = [0, 1, 2]


def by_key(rows):
  return {ablation_report.row_key(row): row for row in rows}


def test_rows_hold_the_contract_and_what_was_measured(settings):
  jobs = plan_jobs(['4', '5', 'branches'], [0])
  faked = Faked()
  assert faked.run(jobs, settings) == {}
  rows = json.loads(settings.output.read_text())
  assert len(rows) == 15 and all(set(row) >= CONTRACT for row in rows)
  found = by_key(rows)
  for branch, above in (('posterior', 0), ('prior', PRIOR_ABOVE)):
    row = found['5', 'Bayesian', 'full', 0, branch, 'test']
    mean = above + np.mean(np.arange(HANDS) / 8) + len('bayesian-seed0')
    for number, name in enumerate((*METRIC_NAMES, JOINTS_2D)):
      assert row[name] == mean + number
  mismatch = found['branches', 'posterior_sampled', 'full', 0, 'posterior', 'mismatch']
  assert (mismatch['hands'], mismatch['train_examples']) == ('displaced', 7000)
  assert mismatch['f_score_5mm'] is None and mismatch['pa_mpvpe_mm'] > 0
  posterior = found['5', 'Bayesian', 'full', 0, 'posterior', 'test']
  assert posterior['mean_hand_pa_mpjpe_mm'] == BASELINE
  config = config_of('bayesian', settings)
  assert posterior['steps'] == config.training.num_steps
  assert posterior['batch_size'] == config.training.batch_size
  assert (posterior['train_examples'], posterior['test_examples']) == (8000, HANDS)
  assert (posterior['commit'], posterior['steps_before']) == ('abc1234', 0)
  assert posterior['command'] == ablations.reproduce(Job(RUNS['bayesian'], 0, ()), 'test', settings)
  # One training and one evaluation for all rows of the supervised Bayesian run.
  assert faked.measured == faked.trained == [job.name for job in jobs]
  assert faked.splits['bayesian-seed0'] == ('test',)
  assert faked.splits['bayesian-displaced-seed0'] == ('mismatch',)
  assert settings.output.with_suffix('.md').read_text() == format_markdown(rows)


OF_TABLE_3 = ('L2', 'Bayesian', 'Bayesian, kl 1', 'Bayesian, by precision')


def test_rows_stand_in_the_grids_order_whatever_was_measured_first(settings):
  jobs = plan_jobs(['3', 'branches'], [1, 0], supervision='full')
  Faked().run(jobs[::-1], settings)
  rows = load_rows(settings.output)
  names = [(row['table'], row['split'], row['setting'], row['seed']) for row in rows]
  assert names[:8] == [('3', 'test', s, seed) for s in OF_TABLE_3 for seed in (0, 1)]
  settings_of_branches = ('prior_alone', 'prior', 'posterior_global', 'posterior_sampled')
  assert names[8:] == [
    ('branches', split, setting, seed)
    for split in ('test', 'mismatch')
    for setting in settings_of_branches
    for seed in (0, 1)
  ]


def test_differences_have_intervals_over_the_seeds_of_both(settings):
  """The faked errors of two branches differ by a constant, and those of runs by their names."""
  Faked().run(plan_jobs(['branches'], [0, 2]), settings)
  found = by_key(load_rows(settings.output))
  for split, suffix in (('test', ''), ('mismatch', '-displaced')):
    for seed in (0, 2):
      sampled = found['branches', 'posterior_sampled', 'full', seed, 'posterior', split]
      assert (sampled['against'], sampled['interval_metric']) == ('prior', 'pa_mpvpe_mm')
      assert sampled['difference'] == -PRIOR_ABOVE
      assert sampled['interval'] == [-PRIOR_ABOVE] * 2
      assert sampled['interval_seeds'] == [0, 2]
      assert sampled['differences'][JOINTS_2D] == [-PRIOR_ABOVE] * 3
      alone = found['branches', 'prior_alone', 'full', seed, 'prior', split]
      longer = len(f'prior-alone{suffix}') - len(f'bayesian{suffix}')
      assert alone['against'] == 'posterior_sampled'
      assert alone['interval'] == [PRIOR_ABOVE + longer] * 2
  Faked().run(plan_jobs(['5'], [0, 2]), settings)
  found = by_key(load_rows(settings.output))
  posterior = found['5', 'Bayesian', 'full', 0, 'posterior', 'test']
  assert posterior['against'] == 'Bayesian, prior'
  assert 'interval' not in found['5', 'Bayesian', 'full', 0, 'prior', 'test']


def test_intervals_know_only_the_errors_behind_their_rows(settings):
  Faked().run(plan_jobs(['branches'], [0]), settings)
  rows = [
    {name: value for name, value in row.items() if name not in ('interval', 'against')}
    for row in load_rows(settings.output)
  ]
  for row in rows:
    if row['setting'] == 'posterior_sampled':
      row['pa_mpjpe_mm'] += 0.5  # another run's row
  renewed = by_key(add_intervals(rows, settings.workdir))
  for (_, setting, *_), row in renewed.items():
    compares = setting in ('prior', 'posterior_global')
    assert ('interval' in row) == compares, setting
  path = errors_path(settings.workdir, 'prior-alone-seed0', 'test')
  errors = read_hand_errors(path)
  write_hand_errors(path, errors._replace(example_id=errors.example_id[::-1]))
  with pytest.raises(ValueError, match='different hands of split test'):
    add_intervals(rows, settings.workdir)


def test_photos_are_measured_beside_the_splits(settings):
  entries = with_photos(ENTRIES, ['mine'])
  faked = Faked()
  faked.run(plan_jobs(['weak_start'], [0], entries), settings)
  assert faked.splits == {
    'start-seed0': ('test', 'mine'),
    'weak-bayesian-seed0': ('test', 'mine'),
  }
  found = by_key(load_rows(settings.output))
  row = found['weak_start', 'algorithm_2', 'weak', 0, 'posterior', 'mine']
  assert row['pa_mpvpe_mm'] is row['mean_hand_pa_mpjpe_mm'] is None
  assert row['pa_mpjpe_mm'] > 0 and row[JOINTS_2D] > 0
  assert row['against'] == 'start' and row['interval_metric'] == 'pa_mpjpe_mm'
  header, *lines = table_cells(format_markdown(list(found.values())), 'Algorithm 2')
  cells = [dict(zip(header, line, strict=True)) for line in lines]
  assert [cell['split'] for cell in cells] == ['test', 'test', 'mine', 'mine']
  # Without the photos their rows stay, and nothing is left to do.
  faked = Faked()
  faked.run(plan_jobs(['weak_start'], [0]), settings)
  assert faked.measured == [] and by_key(load_rows(settings.output)) == found


def test_no_run_begins_when_the_time_is_up(settings, capsys):
  jobs = plan_jobs(['4'], [0])
  left = iter([True, True, False])
  faked = Faked()
  assert faked.run(jobs, settings, has_time=lambda: next(left)) == {}
  assert faked.measured == [job.name for job in jobs[:2]]
  assert f'{len(jobs) - 2} runs are left' in capsys.readouterr().out
  rest = Faked()
  rest.run(jobs, settings)
  assert rest.measured == [job.name for job in jobs[2:]]


def test_two_calls_share_the_runs(settings):
  jobs = plan_jobs(['convention'], [0]) + plan_jobs(['weak_start'], [0])
  assert len(jobs) == 4
  other = Faked()

  class First(Faked):
    def train(self, config, workdir):
      if not self.trained:
        # While this run trains, another call takes all runs but this one.
        other.run(jobs, settings)
      super().train(config, workdir)

  first = First()
  first.run(jobs, settings)
  assert first.trained == first.measured == [jobs[0].name]
  assert other.measured == [job.name for job in jobs[1:]]
  assert len(load_rows(settings.output)) == 4


def test_a_run_whose_start_another_call_trains_is_left_to_it(settings):
  jobs = plan_jobs(['weak_start'], [0])
  other = Faked()

  class First(Faked):
    def train(self, config, workdir):
      if not self.trained:
        other.run(jobs, settings)
      super().train(config, workdir)

  first = First()
  first.run(jobs, settings)
  assert other.trained == [] and first.measured == [job.name for job in jobs]


def test_a_stopped_call_goes_on_where_it_stopped(settings):
  jobs = plan_jobs(['4'], [0])
  names = [job.name for job in jobs]
  first = Faked({names[2]: KeyboardInterrupt()})
  with pytest.raises(KeyboardInterrupt):
    first.run(jobs, settings)
  rows = load_rows(settings.output)
  assert first.trained == names[:3]
  assert first.measured == names[:2] and len(rows) == 2
  assert settings.output.with_suffix('.md').read_text() == format_markdown(rows)
  second = Faked()
  second.run(jobs, settings)
  assert second.trained == second.measured == names[2:]
  kept = by_key(load_rows(settings.output))
  assert len(kept) == 4 and all(
    kept[key]['command'] == row['command'] for key, row in by_key(rows).items()
  )
  third = Faked()
  third.run(jobs, settings)
  assert third.trained == third.measured == []


def test_a_trained_run_is_only_measured_for_another_table(settings):
  Faked().run(plan_jobs(['convention'], [0]), settings)
  faked = Faked()
  faked.run(plan_jobs(['unit'], [0]), settings)
  assert faked.trained == ['unit-1mm-seed0']
  assert sorted(faked.measured) == ['by-precision-seed0', 'unit-1mm-seed0']
  keys = [ablation_report.row_key(row) for row in load_rows(settings.output)]
  assert len(keys) == len(set(keys)) == 4


def test_a_job_adds_only_the_rows_that_are_missing(settings):
  Faked().run(plan_jobs(['convention'], [0]), settings)
  first = load_rows(settings.output)
  faked = Faked()
  faked.run(plan_jobs(['unit', 'convention'], [0]), settings)
  assert sorted(faked.trained) == ['unit-1mm-seed0']
  assert 'by-precision-seed0' in faked.measured and 'exact-seed0' not in faked.measured
  rows = load_rows(settings.output)
  assert rows[:2] == first and [row['table'] for row in rows[2:]] == ['unit'] * 2


def test_rows_that_others_wrote_meanwhile_are_kept(settings):
  jobs = plan_jobs(['convention'], [0])
  other = Faked()

  class Slow(Faked):
    def measure(self, workdir, splits, full):
      if not self.measured:
        elsewhere = settings._replace(workdir=settings.workdir / 'elsewhere')
        other.run(plan_jobs(['unit'], [0])[:1], elsewhere)
      return super().measure(workdir, splits, full)

  Slow().run(jobs, settings)
  assert {row['table'] for row in load_rows(settings.output)} == {'convention', 'unit'}


def test_starts_are_trained_once_and_before(settings, monkeypatch):
  monkeypatch.setitem(RUNS, 'start', AblationRun('start'))
  monkeypatch.setitem(RUNS, 'then', AblationRun('then', init_from=('start',)))
  monkeypatch.setitem(RUNS, 'also', AblationRun('also', init_from=('start',)))
  entry = Entry('3', 'Bayesian', 'weak', 'then')
  jobs = [Job(RUNS['then'], seed, (entry,)) for seed in SEEDS]
  jobs.append(Job(RUNS['also'], 1, (entry._replace(setting='L2', run='also'),)))
  faked = Faked()
  faked.run(jobs, settings)
  pairs = [(f'start-seed{seed}', f'then-seed{seed}') for seed in SEEDS]
  assert faked.trained == [*(name for pair in pairs for name in pair), 'also-seed1']
  assert faked.measured == [*(then for _, then in pairs), 'also-seed1']
  steps = config_of('start', settings).training.num_steps
  assert {row['steps_before'] for row in load_rows(settings.output)} == {steps}


def test_a_run_that_leaves_the_numbers_does_not_stop_the_others(settings, monkeypatch):
  monkeypatch.setitem(RUNS, 'start', AblationRun('start'))
  monkeypatch.setitem(RUNS, 'then', AblationRun('then', init_from=('start',)))
  monkeypatch.setitem(RUNS, 'also', AblationRun('also', init_from=('start',)))
  monkeypatch.setitem(RUNS, 'alone', AblationRun('alone'))
  entry = Entry('3', 'Bayesian', 'weak', 'then')
  jobs = [Job(RUNS[name], 0, (entry._replace(run=name),)) for name in ('then', 'also')]
  jobs.append(Job(RUNS['alone'], 0, (entry._replace(supervision='full'),)))
  faked = Faked({'start-seed0': FloatingPointError('total = nan')})
  failures = faked.run(jobs, settings)
  assert failures == {
    'start-seed0': 'total = nan',
    'then-seed0': 'it starts from start-seed0',
    'also-seed0': 'it starts from start-seed0',
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
    def measure(self, workdir, splits, full):
      measured = super().measure(workdir, splits, full)
      for found in measured.values():
        found.errors.values['posterior']['mpjpe_mm'][0] = float('nan')
      return measured

  with pytest.raises(ValueError, match='finite'):
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


# Flags and surroundings.


def test_tables_and_seeds_are_checked():
  assert ablations.parse_tables('all') == ablation_grid.TABLES
  assert ablations.parse_tables('3,unit') == ('3', 'unit')
  with pytest.raises(
    ValueError, match=r"Unknown table '2'.*3, 4, 5, branches, weak_start, convention, unit, s"
  ):
    ablations.parse_tables('3,2')
  assert ablations.parse_seeds(['2', '0', '2']) == [2, 0]
  for wrong in (['1', 'x'], ['-1'], ['1.5'], []):
    with pytest.raises(ValueError, match='--seeds'):
      ablations.parse_seeds(wrong)


def test_photos_are_named_folders():
  assert parse_photos(['mine=some/where', 'b=/c=d']) == {'mine': 'some/where', 'b': '/c=d'}
  for wrong in ('mine', 'mine=', '=folder', 'my hands=folder'):
    with pytest.raises(ValueError, match='NAME=FOLDER'):
      parse_photos([wrong])
  for repeated in (['a=b', 'a=c'], ['test=b']):
    with pytest.raises(ValueError, match='another split'):
      parse_photos(repeated)


def test_what_is_missing_is_prepared_and_nothing_else(tmp_path, monkeypatch):
  made = []
  prepare_missing(str(tmp_path), ['displaced'], made.append)
  assert made == [prepare_request(str(tmp_path), hands) for hands in ('broad', 'displaced')]
  broad, displaced = made
  assert (broad.hands, displaced.hands) == ('broad', 'displaced')
  assert broad.data_dir == str(tmp_path / 'broad') and broad.with_features
  assert broad.test_examples == broad.test_mismatch_examples == 500
  # Hands to measure on are drawn apart, once.
  assert displaced.test_examples == displaced.test_mismatch_examples == 0
  assert broad.seed == displaced.seed and broad.train_examples == displaced.train_examples

  def manifest(hands, **more):
    examples = {'train': 9, 'validation': 2, 'test': 3, 'test_mismatch': 3}
    prepared_settings = {'hands': hands, 'crop_features': {'crops': 2, 'upright': True}}
    return None, {'examples': examples, 'settings': prepared_settings} | more

  found = {'broad': manifest('broad')}
  monkeypatch.setattr(
    'experiments.ablations.prepared.prepared_manifest',
    lambda name, folder: found[pathlib.Path(folder).name],
  )
  made.clear()
  prepare_missing(str(tmp_path), [], made.append)
  assert made == []
  for wrong in (
    manifest('classic'),
    manifest('broad', examples={'train': 9, 'validation': 2, 'test': 3}),
    manifest('broad', settings={'hands': 'broad'}),
  ):
    found['broad'] = wrong
    with pytest.raises(ValueError, match='should hold broad hands with features'):
      prepare_missing(str(tmp_path), [], made.append)


def test_rows_of_other_settings_are_replaced_only_when_asked_and_measured(settings):
  old = [make_row('3', setting, seed=seed) for setting in ('Bayesian', 'L2') for seed in (0, 9)]
  kept = make_row('weak', 'prior-net alone', 'weak', branch='prior')
  ablation_report.publish(settings.output, [*old, kept])
  jobs = plan_jobs(['3'], [0, 1], supervision='full')
  with pytest.raises(ValueError, match=r"'3', '\w+', 'full', 0.*--replace"):
    Faked().run(jobs, settings)
  replacing = settings._replace(replace=True)
  with pytest.raises(KeyboardInterrupt):
    Faked({jobs[1].name: KeyboardInterrupt()}).run(jobs, replacing)
  # Old rows stay until their own setting is measured, then go at every seed.
  names = [(row['setting'], row['seed']) for row in load_rows(settings.output)]
  assert names == [('L2', 0), ('Bayesian', 0), ('Bayesian', 9), ('prior-net alone', 0)]
  Faked().run(jobs, replacing)
  rows = load_rows(settings.output)
  assert [(row['setting'], row['seed']) for row in rows] == [
    *((setting, seed) for setting in OF_TABLE_3 for seed in (0, 1)),
    ('prior-net alone', 0),
  ]
  assert rows[-1] == kept
  again = Faked()
  again.run(jobs, replacing)
  assert again.measured == []
