"""A run in a bucket: trained, stopped, continued, repaired and measured, as one in a folder."""

import json
import pathlib
import shutil
import signal

import chex
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorboardX.proto.event_pb2 import Event

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.data.prepared import PreparedSource
from hand_jax.evaluation.evaluate_run import RunRequest, report_run
from hand_jax.files.buckets import list_tree, open_path
from hand_jax.runs.checkpoints import load_for_inference
from hand_jax.runs.lineage import read_lineage
from hand_jax.runs.sources import COMMIT_NAME, latest_step
from hand_jax.training import loop
from hand_jax.training.preemption import Preempted
from hand_jax.training.profiling import ProfiledSteps
from tests.fake_bucket import register_fake_bucket
from tests.prepared_features import prepare_featured
from tests.toy_runs import share_compiled_steps

pytestmark = pytest.mark.slow

SETTINGS = [
  *('training.num_steps=4', 'training.log_every=1', 'training.evaluate_every=2'),
  *('training.checkpoint_every=2', 'data.train_examples=4', 'training.validation_examples=2'),
]
CLOCK = ('examples_per_second', 'seconds_left')
RUN = 'gs://b/runs/toy'


def train(workdir, model, stop=None, profile=None):
  """Trains to the end, or until SIGTERM comes after a step."""
  config = apply_overrides(get_config('toy_prior_weak'), SETTINGS)
  with pytest.MonkeyPatch.context() as patch:
    add = loop.Progress.add

    def adding(progress, step, *arguments):
      add(progress, step, *arguments)
      if step == stop:
        signal.raise_signal(signal.SIGTERM)

    patch.setattr(loop.Progress, 'add', adding)
    return loop.train_and_evaluate(config, str(workdir), model, profile=profile)


def read_rows(folder: pathlib.Path) -> list[dict]:
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return [{name: row[name] for name in row if name not in CLOCK} for row in rows]


def board_steps(folder: pathlib.Path) -> list[int]:
  """The steps at which the learning rate is told, by TensorBoard's records of length, CRC, data."""
  steps = []
  for file in sorted(folder.iterdir()):
    data, place = file.read_bytes(), 0
    while place < len(data):
      length = int.from_bytes(data[place : place + 8], 'little')
      event = Event.FromString(data[place + 12 : place + 12 + length])
      steps += [event.step for value in event.summary.value if value.tag == 'learning_rate']
      place += length + 16
  return steps


@pytest.fixture(scope='module')
def runs(tmp_path_factory, model):
  """The folder of a run in the bucket that was stopped after step 3, and of one that was not."""
  folder = tmp_path_factory.mktemp('buckets')
  with pytest.MonkeyPatch.context() as patch:
    share_compiled_steps(patch)
    patch.chdir(folder)
    register_fake_bucket(folder / 'objects', patch)
    with pytest.raises(Preempted):
      train(RUN, model, stop=3, profile=ProfiledSteps(2, 2))
    assert latest_step(RUN) == 3
    train(RUN, model)
    train(folder / 'local', model)
    yield folder / 'objects' / 'b' / 'runs' / 'toy', folder / 'local'
    assert sorted(path.name for path in folder.iterdir()) == ['local', 'objects']


def test_it_logs_and_ends_as_a_run_in_a_folder(runs):
  ours, theirs = runs
  assert read_rows(ours) == read_rows(theirs) and len(read_rows(ours)) == 4
  (_, variables), (_, expected) = load_for_inference(RUN), load_for_inference(str(theirs))
  chex.assert_trees_all_equal(variables, expected)
  assert read_lineage(RUN) == read_lineage(str(theirs))
  pictures = [sorted(path.name for path in (run / 'overlays').iterdir()) for run in runs]
  assert pictures[0] == pictures[1] and len(pictures[0]) == 2
  for name in pictures[0]:
    assert (ours / 'overlays' / name).read_bytes() == (theirs / 'overlays' / name).read_bytes()
  assert set(board_steps(ours / 'tensorboard')) == {1, 2, 3, 4}
  assert list((ours / 'profile').rglob('*.xplane.pb'))


def test_unfinished_and_damaged_checkpoints_are_passed_over(runs, model, capsys):
  folder = runs[0] / 'checkpoints'
  rows = read_rows(runs[0])
  shutil.copytree(folder / '4', folder / '5')
  (folder / '5' / COMMIT_NAME).unlink()
  assert latest_step(RUN) == 4
  victim = max((folder / '4').rglob('*'), key=lambda path: path.is_file() and path.stat().st_size)
  victim.write_bytes(victim.read_bytes()[:-1])
  train(RUN, model)
  told = capsys.readouterr()
  assert 'damaged_checkpoints' in told.err and 'after step 3' in told.out
  assert latest_step(RUN) == 4 and not list_tree(open_path(f'{RUN}/checkpoints/5'))
  assert list((runs[0] / 'damaged_checkpoints' / '4').rglob('*.json'))
  assert read_rows(runs[0]) == rows


def test_it_is_evaluated_in_the_bucket(runs):
  lines = list(report_run(RunRequest(RUN, 'synthetic_hands', 'test', limit=2)))
  path = f'{RUN}/evaluation/synthetic_hands-test.json'
  assert f'Written to {path}.' in lines
  results = json.loads((runs[0] / 'evaluation' / 'synthetic_hands-test.json').read_text())
  assert results['examples'] == 2
  # The mean hand, if there is one, is found again.
  assert list(report_run(RunRequest(RUN, 'synthetic_hands', 'test', limit=2))) == lines


def test_prepared_data_are_copied_once_and_anew_when_they_change(
  toy_model, tmp_path, monkeypatch, capfd
):
  tfds.disable_progress_bar()
  prepared = prepare_featured(tmp_path / 'prepared', toy_model).data_dir
  objects = register_fake_bucket(tmp_path / 'objects', monkeypatch)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  shutil.copytree(prepared, objects / 'b' / 'prepared')
  place = 'gs://b/prepared'
  source = PreparedSource('synthetic_hands', place, 'train')
  expected = PreparedSource('synthetic_hands', prepared, 'train')
  for ours, theirs in zip(source.load([0, 2]), expected.load([0, 2]), strict=True):
    np.testing.assert_array_equal(ours.image, theirs.image)
  assert f'GB of {place} to {tmp_path / "cache"}' in capfd.readouterr().err
  PreparedSource('synthetic_hands', place, 'train')
  assert not capfd.readouterr().err
  (manifest,) = (objects / 'b').rglob('manifest.json')
  manifest.write_text(manifest.read_text() + '\n')
  PreparedSource('synthetic_hands', place, 'train')
  assert 'Copying' in capfd.readouterr().err
  with pytest.raises(FileNotFoundError, match="'ho3d_v2' in 'gs://b/prepared'"):
    PreparedSource('ho3d_v2', place, 'train')
