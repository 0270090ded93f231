"""The ablation command with faked runs: rows, resuming, refusals, surroundings."""

import json
import pathlib

import pytest

from experiments.ablations import grid as ablation_grid
from experiments.ablations import report as ablation_report
from experiments.ablations import running as ablations
from experiments.ablations.grid import RUNS, AblationRun, Entry, Job, plan_jobs
from experiments.ablations.report import format_markdown, load_rows
from hand_jax.evaluation.evaluate import METRIC_NAMES
from tests.fake_ablations import BASELINE, CONTRACT, Faked, config_of, make_row

SEEDS = [0, 1, 2]


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
  monkeypatch.setitem(RUNS, 'start', AblationRun('start', 'toy'))
  monkeypatch.setitem(RUNS, 'then', AblationRun('then', 'toy', init_from=('start',)))
  entry = Entry('3', 'Bayesian', 'weak', 'then')
  jobs = [Job(RUNS['then'], seed, (entry,)) for seed in SEEDS]
  faked = Faked()
  faked.run(jobs, settings)
  assert faked.trained == ['start-seed0', 'then-seed0', 'then-seed1', 'then-seed2']
  assert faked.measured == faked.trained[1:]
  assert {row['steps_before'] for row in load_rows(settings.output)} == {12}


def test_a_run_that_leaves_the_numbers_does_not_stop_the_others(settings, monkeypatch):
  monkeypatch.setitem(RUNS, 'start', AblationRun('start', 'toy'))
  monkeypatch.setitem(RUNS, 'then', AblationRun('then', 'toy', init_from=('start',)))
  monkeypatch.setitem(RUNS, 'alone', AblationRun('alone', 'toy'))
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
