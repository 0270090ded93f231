"""A run's folder: saving, continuing bit for bit, and what is refused."""

import dataclasses
import json
import pathlib
import shutil
import types

import chex
import cv2
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides, config_to_json
from hand_jax.runs.checkpoints import (
  Checkpoints,
  claim_workdir,
  load_for_inference,
  read_config,
)
from hand_jax.runs.damage import find_damage, set_damaged_aside
from hand_jax.runs.sources import latest_step, saved_steps
from hand_jax.runs.train_state import TrainState
from hand_jax.training.loop import train_and_evaluate
from hand_jax.training.reports import (
  RunLog,
  Stopwatch,
  format_duration,
  overlay_sheet,
  progress_line,
)
from hand_jax.training.state import learning_rate_schedule
from tests.drawn_hands import DrawnSource, Killed, KilledSource

# Six examples in batches of four: the run is in the middle of an epoch when it is interrupted.
SETTINGS = [
  'training.num_steps=4',
  'training.checkpoint_every=2',
  'training.evaluate_every=4',
  'training.log_every=1',
  'data.train_examples=6',
  # Both branches, as small as they can be: most of the time goes into compiling the steps.
  'model.image_size=32',
  'model.attention.self_layers=0',
]


@pytest.fixture(scope='module')
def config():
  return apply_overrides(get_config('toy'), SETTINGS)


@pytest.fixture(scope='module')
def runs(config, toy_model, tmp_path_factory):
  """Folders and last states: an uninterrupted run, and one killed after step 3 and continued."""
  folder = tmp_path_factory.mktemp('runs')
  source, validation = DrawnSource(toy_model, 6), DrawnSource(toy_model, 3, seed=1)
  straight = train_and_evaluate(config, str(folder / 'straight'), toy_model, source, validation)
  with pytest.raises(Killed):
    killed = KilledSource(toy_model, 6)
    train_and_evaluate(config, str(folder / 'resumed'), toy_model, killed, validation)
  # What a process killed in the middle of a save and of a log line leaves.
  leftover = folder / 'resumed/checkpoints/3.orbax-checkpoint-tmp'
  leftover.mkdir()
  (leftover / 'data').write_text('half')
  with (folder / 'resumed/metrics.jsonl').open('a') as file:
    file.write('{"step": 3, "total": 1.0}\n{"step": 4, "to')
  resumed = train_and_evaluate(config, str(folder / 'resumed'), toy_model, source, validation)
  return folder, straight, resumed


@pytest.mark.slow
def test_a_continued_run_ends_bit_equal(runs):
  _, straight, resumed = runs
  assert int(straight.step) == int(resumed.step) == 4
  chex.assert_trees_all_equal(resumed, straight)


def read_metrics(folder: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


@pytest.mark.slow
def test_a_continued_run_logs_each_step_once_and_the_same(runs):
  folder, _, _ = runs
  straight, resumed = (read_metrics(folder / name) for name in ('straight', 'resumed'))
  assert [line['step'] for line in straight] == [line['step'] for line in resumed] == [1, 2, 3, 4]
  clock = ('examples_per_second', 'seconds_left')
  for ours, theirs in zip(resumed, straight, strict=True):
    assert set(ours) == set(theirs)
    for name in set(ours) - set(clock):
      assert ours[name] == theirs[name], name


@pytest.mark.slow
def test_logged_lines_hold_every_term_and_the_last_one_validation(runs):
  folder, _, _ = runs
  lines = read_metrics(folder / 'straight')
  for line in lines:
    assert {'total', 'vertices_nll', 'joints_2d_kl', 'camera', 'learning_rate'} <= set(line)
    assert all(np.isfinite(value) for value in line.values())
  assert 'validation_pa_mpjpe_mm' not in lines[0]
  assert 1 < lines[-1]['validation_pa_mpjpe_mm'] < 100
  assert {'validation_total', 'validation_prior_pa_mpjpe_mm'} <= set(lines[-1])


@pytest.mark.slow
def test_a_run_writes_overlays_and_tensorboard(runs):
  folder, _, _ = runs
  picture = cv2.imread(str(folder / 'straight/overlays/validation_0000004.png'))
  assert picture.shape == (256, 4 * 256, 3) and picture.std() > 5
  assert list((folder / 'straight/tensorboard').glob('events*'))


@pytest.mark.slow
def test_leftovers_of_a_killed_save_are_removed(runs):
  folder, _, _ = runs
  assert sorted(path.name for path in (folder / 'resumed/checkpoints').iterdir()) == ['2', '4']


@pytest.mark.slow
def test_a_finished_run_is_left_alone(runs, config, toy_model, capsys):
  folder, straight, _ = runs
  before = (folder / 'straight/metrics.jsonl').read_text()
  unused = DrawnSource(toy_model, 6)
  state = train_and_evaluate(config, str(folder / 'straight'), toy_model, unused, unused)
  chex.assert_trees_all_equal(state, straight)
  assert not unused.loaded
  assert 'has finished its 4 steps already' in capsys.readouterr().out
  assert (folder / 'straight/metrics.jsonl').read_text() == before


@pytest.mark.slow
def test_inference_gets_the_last_variables_and_the_config(runs, config):
  folder, straight, _ = runs
  loaded, variables = load_for_inference(str(folder / 'straight'))
  assert loaded == config
  chex.assert_trees_all_equal(variables['params'], straight.params)
  chex.assert_trees_all_equal(variables['batch_stats'], straight.batch_stats)
  assert set(variables) == {'params', 'batch_stats'}


@pytest.fixture
def copied(runs, tmp_path) -> pathlib.Path:
  shutil.copytree(runs[0] / 'straight', tmp_path / 'run')
  return tmp_path / 'run'


@pytest.mark.slow
def test_another_config_is_refused_with_what_differs(copied, config, toy_model):
  other = apply_overrides(config, ['training.seed=5', 'loss.kl=0.5'])
  with pytest.raises(ValueError, match=r'another config.*loss.kl: 0.5, not 1.0; training.seed: 5'):
    train_and_evaluate(other, str(copied), toy_model)


@pytest.mark.slow
def test_a_workdir_whose_config_is_cut_is_refused(copied, config):
  (copied / 'config.json').write_text(config_to_json(config)[:100])
  with pytest.raises(ValueError, match=r'run/config.json is not valid JSON'):
    claim_workdir(str(copied), config)


@pytest.mark.slow
@pytest.mark.parametrize('damage', ['cut', 'removed', 'changed'])
@pytest.mark.parametrize('part', ['variables', 'training', 'data', 'files.json'])
def test_a_damaged_checkpoint_is_named(copied, runs, part, damage):
  _, straight, _ = runs
  checkpoint = copied / 'checkpoints/4'
  files = [path for path in (checkpoint / part).rglob('*') if path.is_file()]
  path = max(files or [checkpoint / part], key=lambda path: path.stat().st_size)
  data = path.read_bytes()
  if damage == 'cut':
    path.write_bytes(data[: len(data) // 2])
  elif damage == 'changed':
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
  else:
    path.unlink()
  with Checkpoints(str(copied)) as checkpoints:
    if (part, damage) == ('files.json', 'removed'):  # not known to be damaged, and is not
      chex.assert_trees_all_equal(checkpoints.restore_latest(straight).state, straight)
      return
    with pytest.raises(ValueError, match=r'checkpoints/4 cannot be read; it is damaged') as caught:
      checkpoints.restore_latest(straight)
  assert '\n' not in str(caught.value)
  with pytest.raises(ValueError, match=r'checkpoints/4 cannot be read'):
    load_for_inference(str(copied))


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
  copied, runs, config, toy_model, capsys
):
  files = [path for path in (copied / 'checkpoints/4/variables').rglob('*') if path.is_file()]
  damaged = max(files, key=lambda path: path.stat().st_size)
  damaged.write_bytes(damaged.read_bytes()[:-1])
  source, validation = DrawnSource(toy_model, 6), DrawnSource(toy_model, 3, seed=1)
  state = train_and_evaluate(config, str(copied), toy_model, source, validation)
  chex.assert_trees_all_equal(state, runs[1])
  told = capsys.readouterr()
  assert 'checkpoints/4 is damaged' in told.err and 'bytes, not' in told.err
  assert 'after step 2' in told.out
  assert (copied / 'damaged_checkpoints/4').is_dir()
  assert latest_step(str(copied)) == 4 and not find_damage(copied / 'checkpoints/4')
  assert [line['step'] for line in read_metrics(copied)] == [1, 2, 3, 4]


def test_damaged_checkpoints_stay_where_none_is_whole(tmp_path):
  with Checkpoints(str(tmp_path)) as checkpoints:
    for step in (1, 2):
      checkpoints.save(tiny_state(step), 0)
  assert not set_damaged_aside(str(tmp_path))
  for step in (1, 2):
    (tmp_path / f'checkpoints/{step}/files.json').write_text('{')
  with pytest.raises(
    ValueError, match=r'All checkpoints in .* the newest, 2, because files.json is cut short'
  ):
    set_damaged_aside(str(tmp_path))
  assert saved_steps(tmp_path / 'checkpoints') and not (tmp_path / 'damaged_checkpoints').exists()


def test_a_whole_checkpoint_of_other_parts_is_not_called_damaged(tmp_path):
  """As that of a version whose optimizer kept something of frozen parameters."""
  with Checkpoints(str(tmp_path)) as checkpoints:
    checkpoints.save(tiny_state(1), 0)
  more = {'moments': np.zeros(3, np.float32)}
  with (
    Checkpoints(str(tmp_path)) as checkpoints,
    pytest.raises(ValueError, match=r'checkpoints/1 is whole.*--init_from=\S+') as caught,
  ):
    checkpoints.restore_latest(tiny_state(1).replace(opt_state=more))
  assert 'damaged' not in str(caught.value) and 'emove' not in str(caught.value)


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path):
  figures = {2: 5.0, 4: 3.0, 6: 4.0, 7: None, 8: 9.0}
  for steps in ((2, 4, 6), (7, 8)):  # opened twice: the figures are on disk
    with Checkpoints(str(tmp_path), keep=1, best_metric='validation_total') as checkpoints:
      for step in steps:
        found = figures[step] and {'validation_total': figures[step], 'validation_other': -step}
        checkpoints.save(tiny_state(step), 0, figures=found)
  assert sorted(saved_steps(tmp_path / 'checkpoints')) == [4, 8]
  with Checkpoints(str(tmp_path)) as checkpoints:
    assert int(checkpoints.restore_latest(tiny_state(0)).state.step) == 8


@pytest.mark.parametrize('name', ['validation', 'total', 'loss', 'validation_totl'])
def test_a_best_metric_that_no_validation_gives_is_refused(config, name):
  with pytest.raises(ValueError, match=r'training.best_metric should be a validation figure'):
    apply_overrides(config, [f'training.best_metric={name}'])


def test_a_checkpoint_comes_with_the_list_of_its_files(tmp_path):
  with Checkpoints(str(tmp_path)) as checkpoints:
    checkpoints.save(tiny_state(3), 5, {'steps': 2})
    checkpoints.wait()
    restored = checkpoints.restore_latest(tiny_state(0))
  assert restored.position == 5 and restored.progress == {'steps': 2}
  listed = json.loads((tmp_path / 'checkpoints/3/files.json').read_text())
  assert len(listed) > 5 and not find_damage(tmp_path / 'checkpoints/3')
  for name in listed:
    shutil.copytree(tmp_path / 'checkpoints/3', tmp_path / 'copy', dirs_exist_ok=True)
    (tmp_path / 'copy' / name).write_bytes(b'')
    assert find_damage(tmp_path / 'copy') == f'{name} has 0 bytes, not {listed[name][0]}'


def test_what_holds_no_run_is_named(tmp_path, config):
  with pytest.raises(FileNotFoundError, match=r'config.json does not exist.*without a run'):
    load_for_inference(str(tmp_path / 'nowhere'))
  claim_workdir(str(tmp_path / 'new'), config)
  assert read_config(str(tmp_path / 'new')) == config
  claim_workdir(str(tmp_path / 'new'), config)  # the same config may claim it again
  with pytest.raises(FileNotFoundError, match='has no checkpoint yet'):
    load_for_inference(str(tmp_path / 'new'))


def tiny_state(step: int) -> TrainState:
  rng = np.random.default_rng(step)
  return TrainState(
    step=np.array(step, np.int32),
    params={'layer': {'kernel': rng.normal(size=(3, 4)).astype(np.float32)}},
    batch_stats={},
    opt_state=({'count': np.array(step, np.int32)}, ()),
    key=np.array([7, step], np.uint32),
  )


def test_the_newest_checkpoints_are_kept_and_the_position_with_them(tmp_path):
  with Checkpoints(str(tmp_path), keep=2) as checkpoints:
    assert checkpoints.restore_latest(like=tiny_state(0)) is None
    for step in (3, 6, 9):
      checkpoints.save(tiny_state(step), position=2 * step)
  with Checkpoints(str(tmp_path), keep=2) as checkpoints:
    state, position, _ = checkpoints.restore_latest(like=tiny_state(0))
  chex.assert_trees_all_equal(state, tiny_state(9))
  assert position == 18
  steps = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
  assert '9' in steps and '3' not in steps


def test_a_full_disk_costs_no_checkpoint(tmp_path, monkeypatch):
  with Checkpoints(str(tmp_path)) as checkpoints:
    checkpoints.save(tiny_state(1), 10)
    usage = types.SimpleNamespace(free=3)
    monkeypatch.setattr('hand_jax.runs.checkpoints.shutil.disk_usage', lambda _: usage)
    with pytest.raises(OSError, match=r'step 2 cannot be written into .* 0\.0 MB are free\.'):
      checkpoints.save(tiny_state(2), 20)
    usage.free = 10**12

    def fail(*args, **kwargs):
      raise ValueError('RESOURCE_EXHAUSTED: Error\nNo space left')

    # Where the room that there was is gone meanwhile.
    monkeypatch.setattr(checkpoints._manager, 'save', fail)
    with pytest.raises(OSError, match=r'step 2 cannot .* RESOURCE_EXHAUSTED: Error No space'):
      checkpoints.save(tiny_state(2), 20)
    restored = checkpoints.restore_latest(tiny_state(0))
  assert restored.position == 10 and int(restored.state.step) == 1


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path, config, toy_model):
  class Poisoned(DrawnSource):
    """Joints so far away that their squares overflow float32."""

    def load(self, indices):
      return [
        example._replace(joints_image=example.joints_image * 1e25)
        for example in super().load(indices)
      ]

  source = Poisoned(toy_model, 6)
  config = apply_overrides(config, ['training.max_skipped_steps=1'])
  with pytest.raises(FloatingPointError, match=r'at step 1: .*joints_2d_nll = (inf|nan)') as caught:
    train_and_evaluate(config, str(tmp_path), toy_model, source, source)
  assert '\n' not in str(caught.value)
  assert not list((tmp_path / 'checkpoints').iterdir())


def test_a_mistake_leaves_no_folder_behind(tmp_path, config, toy_model):
  data = dataclasses.replace(config.data, data_dir=str(tmp_path / 'empty'))
  with pytest.raises(FileNotFoundError, match='No prepared data set'):
    train_and_evaluate(dataclasses.replace(config, data=data), str(tmp_path / 'run'), toy_model)
  assert not list(tmp_path.iterdir())


def test_a_batch_size_no_device_count_divides_is_refused_first(tmp_path, config, toy_model):
  training = dataclasses.replace(config.training, batch_size=3)
  with pytest.raises(ValueError, match=r'number of devices \(2\), got 3'):
    train_and_evaluate(dataclasses.replace(config, training=training), str(tmp_path), toy_model)
  assert not list(tmp_path.iterdir())


def test_the_log_drops_what_came_after_the_checkpoint(tmp_path):
  lines = [json.dumps({'step': step}) for step in (1, 2, 3)]
  broken = ['{"st', '{"total": 1.0}', '[1]', '{"step": "1"}', '']
  (tmp_path / 'metrics.jsonl').write_text('\n'.join([lines[0], *broken, *lines[1:], '{"st']))
  metrics = {
    'step': 3,
    'total': 2.0,
    'camera': 1.5,
    'examples_per_second': 9.0,
    'seconds_left': 62.0,
  }
  with RunLog(str(tmp_path), start_step=2, num_steps=10) as log:
    log.write(metrics)
  assert read_metrics(tmp_path) == [{'step': 1}, {'step': 2}, metrics]


def test_the_progress_line_tells_step_terms_speed_and_time():
  line = progress_line(
    {
      'step': 20,
      'total': 3.25,
      'camera': 0.5,
      'vertices_nll': 12.0,
      'learning_rate': 1e-3,
      'gradient_norm': 4.0,
      'validation_pa_mpjpe_mm': 21.5,
      'examples_per_second': 33.33,
      'seconds_left': 3725.0,
    },
    100,
  )
  assert line == (
    'step 20/100 | total 3.25 | camera 0.5, vertices_nll 12 | '
    'validation pa mpjpe mm 21.5 | 33.3 examples/s | 1:02:05 left'
  )
  assert format_duration(59.6) == '1:00'


def test_the_stopwatch_leaves_out_the_first_step_and_pauses(monkeypatch):
  now = [0.0]
  monkeypatch.setattr('time.monotonic', lambda: now[0])
  watch = Stopwatch(batch_size=8, num_steps=10)
  for seconds in (100.0, 2.0, 2.0):  # the first step compiles
    now[0] += seconds
    watch.step()
  assert watch.read(step=3) == {'examples_per_second': 4.0, 'seconds_left': 14.0}
  now[0] += 50.0  # validation
  watch.restart()
  now[0] += 4.0
  watch.step()
  assert watch.read(step=4) == {'examples_per_second': 2.0, 'seconds_left': 24.0}


def test_overlays_draw_truth_in_green_and_estimate_in_red():
  images = np.zeros((3, 32, 32, 3), np.uint8)
  truth = np.zeros((3, 21, 2))
  truth[:, :, 0] = np.linspace(-0.8, 0.8, 21)[None]
  estimate = truth + np.array([0.0, 0.5])
  sheet = overlay_sheet(images, estimate, truth, columns=2)
  assert sheet.shape == (512, 512, 3)
  red, green = sheet[..., 0] > 150, sheet[..., 1] > 150
  rows = {
    name: np.flatnonzero(mask[:256, :256].any(1)) for name, mask in (('red', red), ('green', green))
  }
  # y = 0 is the crop's middle, 128; y = 0.5 is 192 (continuous pixels).
  assert set(rows['green']) <= {126, 127, 128, 129} and len(rows['green'])
  assert set(rows['red']) <= {190, 191, 192, 193} and len(rows['red'])
  assert not sheet[256:, 256:].any()


@pytest.mark.slow
def test_a_finished_run_goes_on_to_more_steps(copied, runs, config, toy_model, capsys):
  """With the learning rate that a schedule of six steps has from the fifth on."""
  longer = apply_overrides(config, ['training.num_steps=6'])
  source, validation = DrawnSource(toy_model, 6), DrawnSource(toy_model, 3, seed=1)
  with pytest.raises(ValueError, match=r'num_steps: 6, not 4\. .*--extend trains it for more'):
    train_and_evaluate(longer, str(copied), toy_model, source, validation)
  state = train_and_evaluate(longer, str(copied), toy_model, source, validation, extend=True)
  assert int(state.step) == 6 and read_config(str(copied)) == longer
  lines = read_metrics(copied)
  assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6]
  assert lines[:4] == read_metrics(runs[0] / 'straight')
  rates = [line['learning_rate'] for line in lines]
  schedule = learning_rate_schedule(longer.optimizer, 6)
  np.testing.assert_allclose(rates[4:], [float(schedule(4)), float(schedule(5))], rtol=1e-6)
  told = capsys.readouterr().out
  before = float(learning_rate_schedule(config.optimizer, 4)(4))
  assert 'Extended from 4 to 6 steps' in told
  assert f'at step 4 it goes from {before:.3g} to {float(schedule(4)):.3g}, and reaches' in told
  # The same command again finds it finished.
  train_and_evaluate(longer, str(copied), toy_model, source, validation, extend=True)
  assert 'has finished its 6 steps already' in capsys.readouterr().out
