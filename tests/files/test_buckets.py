"""Files in a bucket that has neither folders, appending nor renaming."""

import pytest
from absl import flags

from experiments import path_flags
from hand_jax.config import ExperimentConfig, flatten_config
from hand_jax.config_text import apply_overrides
from hand_jax.files.buckets import (
  absolute_path,
  list_tree,
  move_tree,
  open_path,
  place_of,
  remove_tree,
)
from hand_jax.files.json_files import read_json
from hand_jax.files.paths import RUN_SCHEMES, RemotePathError, expand_path, is_address
from hand_jax.files.writing import append_line, unfinished_path, write_json, write_whole
from tests.fake_bucket import register_fake_bucket


@pytest.fixture(autouse=True)
def objects(tmp_path, monkeypatch):
  """The folder of the bucket's objects; this process works elsewhere."""
  monkeypatch.chdir(tmp_path)
  yield register_fake_bucket(tmp_path / 'objects', monkeypatch)
  assert not (tmp_path / 'gs:').exists()


def test_addresses_stay_addresses():
  assert is_address('gs://b/a') and not is_address('gs:/b') and is_address(open_path('gs://b/a'))
  assert str(absolute_path('gs://b/a') / 'c') == 'gs://b/a/c'
  assert place_of('gs://b/a/') == place_of('gs://b/a') == 'gs://b/a'
  assert expand_path('gs://b/~', RUN_SCHEMES) == 'gs://b/~'
  with pytest.raises(RemotePathError, match=r'^s3://b is an address.*expected, or gs://'):
    expand_path('s3://b', RUN_SCHEMES)


def test_flags_and_settings_take_the_buckets_that_they_can_use():
  values = flags.FlagValues()
  path_flags.define_path('workdir', None, '', values=values, schemes=RUN_SCHEMES)
  path_flags.define_path('output', None, '', values=values)
  path_flags.define_paths('init_from', '', values=values, schemes=RUN_SCHEMES)
  values(['program', '--workdir=gs://b/run', '--init_from=gs://b/a', '--init_from=c'])
  assert values.workdir == 'gs://b/run' and values.init_from == ['gs://b/a', 'c']
  with pytest.raises(flags.IllegalFlagValueError, match='gs://b is an address'):
    values(['program', '--output=gs://b'])
  settings = ['data.data_dir=s3://b/data', 'training.init_from=gs://b/a,c']
  flat = flatten_config(apply_overrides(ExperimentConfig(), settings))
  assert flat['data.data_dir'] == 's3://b/data'
  assert flat['training.init_from'] == ('gs://b/a', 'c')
  for refused in ('model.backbone.weights=gs://b/w.npz', 'training.init_from=a,s3://b/run'):
    with pytest.raises(RemotePathError, match='is an address'):
      apply_overrides(ExperimentConfig(), [refused])


def test_whole_objects_are_written_and_lines_are_added(objects):
  write_json('gs://b/run/a.json', {'x': 1})
  assert read_json('gs://b/run/a.json') == {'x': 1}
  append_line('gs://b/log', 'one')
  append_line(open_path('gs://b/log'), 'two')
  assert (objects / 'b' / 'log').read_text() == 'one\ntwo\n'


def test_an_object_appears_only_when_its_block_ends_well(objects):
  write_whole('gs://b/a', 'before')
  with pytest.raises(ZeroDivisionError), unfinished_path('gs://b/a') as unfinished:
    unfinished.write_text('after')
    raise ZeroDivisionError
  assert (objects / 'b' / 'a').read_text() == 'before'
  with unfinished_path('gs://b/folder') as unfinished:
    (unfinished / 'inner').mkdir(parents=True)
    (unfinished / 'inner' / 'x').write_text('1')
    (unfinished / 'y').write_text('2')
  assert [str(path) for path in list_tree(open_path('gs://b/folder'))] == [
    'gs://b/folder/inner/x',
    'gs://b/folder/y',
  ]


def test_folders_are_moved_and_removed_object_by_object():
  for name in ('1/a', '1/deep/b', '10/c'):
    write_whole(f'gs://b/run/{name}', name)
  move_tree(open_path('gs://b/run/1'), open_path('gs://b/aside/1'))
  assert [str(path) for path in list_tree(open_path('gs://b'))] == [
    'gs://b/aside/1/a',
    'gs://b/aside/1/deep/b',
    'gs://b/run/10/c',
  ]
  remove_tree(open_path('gs://b/aside'))
  assert list_tree(open_path('gs://b/aside')) == []
  remove_tree(open_path('gs://b/never'))


def test_what_cannot_be_written_is_named(monkeypatch):
  def refuse(*_, **__):
    raise RuntimeError('403: no leave\nto write')

  monkeypatch.setattr('tests.fake_bucket.FakeBucket._open', refuse)
  with pytest.raises(OSError, match=r'^gs://b/a cannot be written: RuntimeError: 403: no leave to'):
    write_whole('gs://b/a', 'x')
