"""A run that is stopped anywhere and continued logs and ends as the run that nothing stopped."""

import json
import pathlib
import signal

import chex
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.training import loop
from hand_jax.training.preemption import EXIT_CODE, Preempted, PreemptionWatch
from tests.drawn_hands import DrawnSource, Killed
from tests.toy_runs import share_compiled_steps

# Rows at steps 3, 4, 6 and 8, some of them between checkpoints; six examples in batches of four.
SETTINGS = [
  *('training.num_steps=8', 'training.log_every=3', 'training.evaluate_every=4'),
  *('training.checkpoint_every=4', 'data.train_examples=6'),
]
CLOCK = ('examples_per_second', 'seconds_left')


def read_rows(folder: pathlib.Path) -> list[dict]:
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return [{name: row[name] for name in row if name not in CLOCK} for row in rows]


class Terminating(DrawnSource):
  """Sends SIGTERM to this process when it is asked for examples."""

  def load(self, indices):
    signal.raise_signal(signal.SIGTERM)
    return super().load(indices)


class Stops:
  """Stops runs in a folder at named points."""

  def __init__(self, folder: pathlib.Path, model, monkeypatch):
    self.folder, self.model, self.monkeypatch = folder, model, monkeypatch
    self.config = apply_overrides(get_config('toy_prior_weak'), SETTINGS)  # compiles soon
    self.train = DrawnSource(model, 6)
    self.validation = DrawnSource(model, 3, seed=1)

  def run(self, validation=None):
    return loop.train_and_evaluate(
      self.config, str(self.folder), self.model, self.train, validation or self.validation
    )

  def after_step(self, step: int, action) -> None:
    """Lets an action follow a step, before anything about it is written."""
    add = loop.Progress.add

    def acting(progress, number, *arguments):
      add(progress, number, *arguments)
      if number == step:
        action()

    self.monkeypatch.setattr(loop.Progress, 'add', acting)

  def before_save(self, action) -> None:
    self.monkeypatch.setattr(loop.Checkpoints, 'save', lambda *_: action())


def kill():
  raise Killed


def terminate():
  signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def folders(tmp_path, toy_model, monkeypatch):
  share_compiled_steps(monkeypatch)
  straight = Stops(tmp_path / 'straight', toy_model, monkeypatch)
  return straight, Stops(tmp_path / 'stopped', toy_model, monkeypatch)


@pytest.mark.slow
def test_no_stop_changes_what_a_run_logs_and_ends_as(folders, monkeypatch, capsys):
  straight, stopped = folders
  expected = straight.run()
  former = signal.getsignal(signal.SIGTERM)

  def saved_after(stop, *arguments, validation=None) -> tuple[int, str]:
    with monkeypatch.context() as patch:
      stopped.monkeypatch = patch
      if stop:
        stop(*arguments)
      with pytest.raises((Preempted, Killed)) as caught:
        stopped.run(validation)
    assert signal.getsignal(signal.SIGTERM) == former
    return loop.latest_step(str(stopped.folder)), str(caught.value)

  # Before the first row: the sums of two steps are saved.
  step, message = saved_after(stopped.after_step, 2, terminate)
  assert step == 2 and message.startswith('Stopped by SIGTERM and saved')
  assert message in capsys.readouterr().err
  # Between a row and its checkpoint.
  assert saved_after(stopped.before_save, kill)[0] == 2
  assert [row['step'] for row in read_rows(stopped.folder)] == [3, 4]
  # While the validation is computed, which is then given up.
  step, _ = saved_after(None, validation=Terminating(stopped.model, 3, seed=1))
  assert step == 4 and [row['step'] for row in read_rows(stopped.folder)] == [3]
  # After a continued run wrote the row that its checkpoint lacks.
  assert saved_after(stopped.after_step, 5, kill)[0] == 4
  assert [row['step'] for row in read_rows(stopped.folder)] == [3, 4]
  # With the last step done and nothing of it written.
  assert saved_after(stopped.after_step, 8, terminate)[0] == 8
  chex.assert_trees_all_equal(stopped.run(), expected)
  assert read_rows(stopped.folder) == read_rows(straight.folder)


def test_preempted_ends_a_process_with_143():
  assert Preempted('runs/a', 7).code == EXIT_CODE == 143
  assert 'runs/a at step 7' in str(Preempted('runs/a', 7))


def test_a_watch_hears_sigterm_while_it_is_open():
  former = signal.getsignal(signal.SIGTERM)
  with PreemptionWatch() as watch:
    assert not watch.is_due()
    terminate()
    assert watch.is_due() and watch.is_due()
  assert signal.getsignal(signal.SIGTERM) == former
