"""Means of steps for the log, steps that were skipped, and both across a restart."""

import json

import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.training.parallel import replicate
from hand_jax.training.progress import Progress
from hand_jax.training.reports import RunLog, progress_line

CONFIG = apply_overrides(get_config('toy'), ['training.max_skipped_steps=3'])


def metrics_of(step: int, skipped: bool = False, **more):
  values = {'total': 0.1 * step, 'camera': 1.0, **more}
  values |= {'learning_rate': 1e-3 * step, 'skipped_steps': float(skipped)}
  return replicate({name: np.float32(value) for name, value in values.items()})


class Rows(RunLog):
  """Keeps rows in place of writing them."""

  def __init__(self):  # opens no file
    self.written = []

  def write(self, row):
    self.written.append({name: row[name] for name in row if 'second' not in name})


def rows_of(skipped=(), stop_after=None) -> list[dict]:
  """Two rows of three steps each, by way of JSON where the run is stopped between."""
  rows, progress = Rows(), Progress(CONFIG)
  for step in range(1, 7):
    progress.add(step, metrics_of(step, skipped=step in skipped), [f'photo-{step}'])
    if step % 3 == 0:
      progress.flush()
      progress.write_row(rows, step, {})
    if step == stop_after:
      progress.flush()
      progress = Progress(CONFIG, json.loads(json.dumps(progress.to_json())))
  return rows.written


def test_a_row_has_means_and_the_last_learning_rate():
  first, second = rows_of()
  assert first['step'] == 3 and first['skipped_steps'] == 0
  np.testing.assert_allclose(first['total'], 0.2, rtol=1e-6)
  np.testing.assert_allclose(second['total'], 0.5, rtol=1e-6)
  np.testing.assert_allclose(second['learning_rate'], 6e-3, rtol=1e-6)


@pytest.mark.parametrize('stop_after', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('skipped', [(), (2,), (4, 5)])
def test_a_stop_between_rows_changes_no_row(stop_after, skipped):
  assert rows_of(skipped, stop_after) == rows_of(skipped)


def test_skipped_steps_are_counted_and_not_averaged():
  first, second = rows_of(skipped=(2, 4, 5))
  assert (first['skipped_steps'], second['skipped_steps']) == (1, 2)
  np.testing.assert_allclose(first['total'], 0.2, rtol=1e-6)  # of 0.1 and 0.3
  np.testing.assert_allclose(second['total'], 0.6, rtol=1e-6)


def test_a_row_of_skipped_steps_alone_has_no_means(tmp_path, capsys):
  progress = Progress(CONFIG)
  for step in (1, 2):
    progress.add(step, metrics_of(step, skipped=True, total=np.nan), ['a'])
  progress.flush()
  with RunLog(str(tmp_path), 0, 10) as log:
    progress.write_row(log, 2, {})
  row = json.loads((tmp_path / 'metrics.jsonl').read_text())
  assert 'total' not in row and row['skipped_steps'] == 2
  assert 'step 2/10 | 2 step(s) skipped | ' in capsys.readouterr().out
  assert 'skipped' not in progress_line({**row, 'skipped_steps': 0}, 10)


@pytest.mark.parametrize('is_stopped', [False, True])
def test_as_many_skipped_steps_in_a_row_as_allowed_end_the_run_with_their_examples(is_stopped):
  progress = Progress(CONFIG)
  for step in (1, 2, 4, 5):  # the third was fine
    if step == 4:
      progress.add(3, metrics_of(3), ['photo-3'])
    progress.add(step, metrics_of(step, True, total=np.nan), [f'photo-{step}', 'photo-9'])
  progress.flush()
  if is_stopped:
    progress = Progress(CONFIG, json.loads(json.dumps(progress.to_json())))
  progress.add(6, metrics_of(6, True, total=np.nan, camera=np.inf), ['photo-6'])
  with pytest.raises(FloatingPointError) as caught:
    progress.flush()
  message = str(caught.value)
  assert 'at step 6: 3 step(s) in a row' in message and 'camera = inf, total = nan' in message
  assert 'Examples: photo-4, photo-9, photo-5, photo-6.' in message


def test_many_examples_are_cut():
  progress = Progress(apply_overrides(CONFIG, ['training.max_skipped_steps=1']))
  progress.add(1, metrics_of(1, True), [f'photo-{number}' for number in range(50)])
  with pytest.raises(FloatingPointError, match=r'photo-19 and 30 more\. A lower'):
    progress.flush()


def test_metrics_are_read_when_the_next_step_has_begun():
  progress = Progress(CONFIG)
  progress.add(1, metrics_of(1), [])
  assert not progress.has_row
  progress.add(2, jax.tree.map(np.asarray, {}), [])
  assert progress.has_row
