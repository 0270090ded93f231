"""A run is continued with its sources wherever they lie now, and with no others."""

import json
import pathlib
import shutil

import jax
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.runs.checkpoints import Checkpoints, check_workdir, claim_workdir, read_config
from tests.toy_runs import fresh_state, save_toy_run


def config_with(*settings):
  return apply_overrides(get_config('toy'), settings)


def write_data(folder, version='3.0.0', digest='abc', **more):
  """What tells one prepared data set from another."""
  path = folder / 'synthetic_hands' / version
  path.mkdir(parents=True)
  manifest = {'dataset': 'synthetic_hands', 'version': version, 'settings': {'seed': 1}}
  manifest |= {'examples': {'train': 9}, 'sha256': {'train': digest}, **more}
  (path / 'manifest.json').write_text(json.dumps(manifest))
  return folder


def save_other_run(folder):
  """A run like another one, but for its numbers."""
  state = fresh_state('toy')
  state = state.replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params))
  return save_toy_run(folder, 'toy', state)


@pytest.fixture
def places(tmp_path, monkeypatch):
  """A folder to start from, with data, a file of weights and a run in it."""
  (tmp_path / 'home').mkdir()
  monkeypatch.chdir(tmp_path / 'home')
  write_data(pathlib.Path('data'))
  pathlib.Path('weights.pth').write_bytes(b'numbers')
  save_toy_run(pathlib.Path('A'), 'toy', fresh_state('toy'))
  return tmp_path


# How each source is named at first, and where it is.
NAMED = {
  'data.data_dir': 'data',
  'model.backbone.weights': 'weights.pth',
  'training.init_from': 'A',
  'training.camera_prior': 'A',
}


@pytest.mark.parametrize('setting', NAMED)
def test_a_path_may_be_spelled_otherwise(places, setting, monkeypatch):
  name = NAMED[setting]
  claim_workdir('run', config_with(f'{setting}=./{name}'))
  spellings = [name, str(places / 'home' / name), f'../home/{name}']
  spellings += [] if name.endswith('.pth') else [f'{name}/', f'./{name}//']
  for spelling in spellings:
    assert check_workdir('run', config_with(f'{setting}={spelling}')), spelling
  (places / 'other').mkdir()
  monkeypatch.chdir(places / 'other')
  assert check_workdir('../home/run', config_with(f'{setting}=../home/{name}'))
  # The same words, from another folder, are another place.
  for words in (name, f'./{name}'):
    with pytest.raises(ValueError, match=f'this one asks for {setting}: .*{name}.*path counts as'):
      check_workdir('../home/run', config_with(f'{setting}={words}'))


@pytest.mark.parametrize('setting', NAMED)
def test_what_moved_is_known_by_what_it_is(places, setting):
  name, moved = NAMED[setting], str(places / 'moved')
  first, second = config_with(f'{setting}={name}'), config_with(f'{setting}={moved}')
  claim_workdir('run', first)
  with pytest.raises(
    ValueError, match=f'{setting}: .*moved.*leads to the content that the run began with'
  ):
    check_workdir('run', second)
  shutil.move(name, moved)
  assert check_workdir('run', first)  # gone, but asked for by its old name
  claim_workdir('run', second)
  # From now on that is its place: what reads the config finds it.
  assert read_config('run') == second
  (record,) = json.loads(pathlib.Path('run/sources.json').read_text())[setting]
  assert record['place'] == moved
  assert check_workdir('run', second)


@pytest.mark.parametrize('setting', NAMED)
def test_something_else_in_another_place_is_refused(places, setting):
  claim_workdir('run', config_with(f'{setting}={NAMED[setting]}'))
  if setting == 'data.data_dir':
    write_data(places / 'other', digest='xyz')
  elif setting == 'model.backbone.weights':
    (places / 'other').write_bytes(b'other numbers')
  else:
    save_other_run(places / 'other')
  with pytest.raises(ValueError, match=f'this one asks for {setting}: '):
    check_workdir('run', config_with(f'{setting}={places / "other"}'))


def test_data_that_were_prepared_again_are_the_same(places):
  """Settings and versions may be told otherwise; the examples' hash is the same."""
  claim_workdir('run', config_with('data.data_dir=data'))
  write_data(places / 'again', settings={}, versions={'jax': '9'})
  assert check_workdir('run', config_with(f'data.data_dir={places / "again"}'))
  write_data(places / 'newer')
  write_data(places / 'newer', version='10.0.0')  # which would be read
  with pytest.raises(ValueError, match=r'data\.data_dir'):
    check_workdir('run', config_with(f'data.data_dir={places / "newer"}'))


def test_a_start_that_was_trained_on_is_known_while_it_has_that_checkpoint(places):
  claim_workdir('run', config_with('training.init_from=A'))
  shutil.copytree('A', places / 'copy')
  with Checkpoints(str(places / 'copy')) as checkpoints:
    checkpoints.save(fresh_state('toy').replace(step=7), 0)
  again = config_with(f'training.init_from={places / "copy"}')
  assert check_workdir('run', again)
  shutil.rmtree(places / 'copy' / 'checkpoints' / '0')
  with pytest.raises(ValueError, match=r'training\.init_from'):
    check_workdir('run', again)


def test_several_starts_keep_their_order(places):
  save_other_run(pathlib.Path('B'))
  claim_workdir('run', config_with('training.init_from=A,B'))
  assert check_workdir('run', config_with('training.init_from=./A,B/'))
  for other in ('B,A', 'A', 'A,B,A'):
    with pytest.raises(ValueError, match=r'training\.init_from'):
      check_workdir('run', config_with(f'training.init_from={other}'))


def test_a_run_from_before_there_were_records(places):
  """What its config names is looked at where it lies."""
  claim_workdir('run', config_with('data.data_dir=data'))
  pathlib.Path('run/sources.json').unlink()
  shutil.copytree('data', places / 'copy')
  assert check_workdir('run', config_with('data.data_dir=./data/'))
  assert check_workdir('run', config_with(f'data.data_dir={places / "copy"}'))
  shutil.rmtree('data')
  with pytest.raises(ValueError, match=r'data\.data_dir'):
    check_workdir('run', config_with(f'data.data_dir={places / "copy"}'))


def test_a_damaged_record_is_named(places):
  claim_workdir('run', config_with('data.data_dir=data'))
  for text in ('{', '[]', '{"data.data_dir": [{"where": 1}]}'):
    pathlib.Path('run/sources.json').write_text(text)
    with pytest.raises(ValueError, match=r'run/sources\.json cannot be read'):
      check_workdir('run', config_with('data.data_dir=./data'))


def test_a_run_without_sources_has_no_record(tmp_path):
  claim_workdir(str(tmp_path / 'run'), config_with())
  assert [path.name for path in (tmp_path / 'run').iterdir()] == ['config.json']


def test_more_steps_need_the_flag(tmp_path):
  workdir = str(tmp_path / 'run')
  with pytest.raises(ValueError, match=r'--extend trains a run for more steps, and .* none'):
    check_workdir(workdir, config_with(), extend=True)
  claim_workdir(workdir, config_with('training.num_steps=20'))
  longer = config_with('training.num_steps=30')
  with pytest.raises(ValueError, match=r'num_steps: 30, not 20\. .*--extend trains it for more'):
    check_workdir(workdir, longer)
  with pytest.raises(ValueError, match=r'num_steps=10 is less than the 20 steps'):
    check_workdir(workdir, config_with('training.num_steps=10'), extend=True)
  with pytest.raises(ValueError, match=r'asks for loss\.kl: 0\.5, not 1\.0\.'):
    check_workdir(workdir, config_with('training.num_steps=30', 'loss.kl=0.5'), extend=True)
  for _ in range(2):  # the same command goes on where it was stopped
    claim_workdir(workdir, longer, extend=True)
    assert read_config(workdir) == longer
  assert check_workdir(workdir, longer)


def test_a_folder_with_files_of_others_is_no_place_for_a_run(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('mine')
  with pytest.raises(FileExistsError, match=r'holds metrics\.jsonl, but no config\.json of a run'):
    claim_workdir(str(tmp_path), config_with())
  assert [path.name for path in tmp_path.iterdir()] == ['metrics.jsonl']
