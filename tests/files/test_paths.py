"""`~` in flags, settings and $MANO_DIR."""

import dataclasses
import typing

import pytest
from absl import flags

from experiments import path_flags
from hand_jax.commands.arguments import ArgumentParser
from hand_jax.config import ExperimentConfig, flatten_config
from hand_jax.config_text import PATH_SETTINGS, apply_overrides
from hand_jax.files.paths import RemotePathError, expand_path
from hand_jax.mano.assets import resolve_mano_dir


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  return str(tmp_path)


def test_only_a_leading_tilde_is_the_home_folder(home):
  assert expand_path('~') == home
  assert expand_path('~/a b') == f'{home}/a b'
  for other in ('', 'a/~', './~', '/~', 'a~', '~nobody-has-this-name/x'):
    assert expand_path(other) == other


def test_path_flags_expand_each_value(home):
  values = flags.FlagValues()
  for define, arguments in (
    (path_flags.define_path, ('out', '~/default', 'A folder.')),
    (path_flags.define_path, ('unset', None, 'A folder.')),
    (path_flags.define_paths, ('runs', 'Folders.')),
  ):
    define(*arguments, values=values)
  values(['command', '--runs=~/a', '--runs=b/~'])
  assert values.out == f'{home}/default' and values.unset is None
  assert values.runs == [f'{home}/a', 'b/~']


def test_path_settings_expand_where_they_are_given(home):
  config = apply_overrides(
    ExperimentConfig(),
    [
      'data.data_dir=~/data',
      'model.backbone.weights=~/weights.npz',
      'training.init_from=~/a,b,~/c',
      'training.camera_prior=~/prior',
      'name=~',
    ],
  )
  flat = flatten_config(config)
  assert flat['data.data_dir'] == f'{home}/data'
  assert flat['model.backbone.weights'] == f'{home}/weights.npz'
  assert flat['training.init_from'] == (f'{home}/a', 'b', f'{home}/c')
  assert flat['training.camera_prior'] == f'{home}/prior'
  assert config.name == '~'


def test_path_settings_are_settings_of_text():
  """A renamed one would be left out silently."""
  for path in PATH_SETTINGS:
    node, (*groups, last) = ExperimentConfig, path.split('.')
    for group in groups:
      node = typing.get_type_hints(node)[group]
    assert dataclasses.is_dataclass(node)
    assert typing.get_type_hints(node)[last] in (str, tuple[str, ...])


def test_mano_dir_of_the_environment_expands(home, tmp_path, monkeypatch):
  (tmp_path / 'mano').mkdir()
  monkeypatch.setenv('MANO_DIR', '~/mano')
  assert resolve_mano_dir(None) == f'{home}/mano'
  monkeypatch.setenv('MANO_DIR', '')
  assert resolve_mano_dir(None) is None


@pytest.mark.parametrize('path', ['gs://bucket/run', 's3://a', 'https://example.org/a.jpg'])
def test_an_address_is_no_folder_of_this_computer(path):
  with pytest.raises(RemotePathError, match=f'^{path} is an address'):
    expand_path(path)
  # Windows, and colons in names.
  for local in ('C:/photos', 'a:b', './gs:/x', 'a b://c'):
    assert expand_path(local) == local


def test_parsers_print_its_words(capsys):
  with pytest.raises(flags.IllegalFlagValueError, match='--workdir=gs://b: gs://b is an address'):
    values = flags.FlagValues()
    path_flags.define_path('workdir', None, '', values=values)
    values(['program', '--workdir=gs://b'])
  parser = ArgumentParser('program')
  parser.add_argument('--output', type=expand_path)
  with pytest.raises(SystemExit):
    parser.parse_args(['--output=gs://b'])
  assert 'argument --output: gs://b is an address' in capsys.readouterr().err
