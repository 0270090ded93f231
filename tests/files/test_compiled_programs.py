"""Compiled programs are kept where they should be, and a folder that cannot be is no error."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from hand_jax.files import compiled_programs

COMPILE = """
import sys
import jax
from hand_jax.files import compiled_programs
compiled_programs._MIN_COMPILE_S = 0.0
folder = compiled_programs.keep_compiled_programs(*sys.argv[1:])
print(jax.jit(lambda x: x * 2 + 1)(3.0))
print(folder)
"""


def compile_in(home, *arguments, code=COMPILE, **environment):
  """A process of its own: JAX chooses its cache once."""
  kept = {name: value for name, value in os.environ.items() if not name.startswith(('JAX', 'XDG'))}
  run = subprocess.run(
    [sys.executable, '-c', code, *arguments],
    env=kept | {'HOME': str(home), 'JAX_PLATFORMS': 'cpu'} | environment,
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0 and run.stderr == '', run.stderr
  result, folder = run.stdout.splitlines()
  assert result == '7.0'
  return folder


def kept_files(folder):
  return [path for path in folder.rglob('*') if path.is_file()]


@pytest.mark.slow
def test_programs_are_kept_in_the_user_s_cache(tmp_path):
  folder = compile_in(tmp_path)
  expected = tmp_path / '.cache' / 'hand-jax' / compiled_programs.processor_name()
  assert folder == str(expected) and kept_files(expected)


@pytest.mark.slow
def test_an_empty_name_keeps_nothing(tmp_path):
  assert compile_in(tmp_path, '') == 'None'
  assert not kept_files(tmp_path)


@pytest.mark.slow
def test_a_named_folder_goes_before_that_of_the_environment(tmp_path):
  own, jax_s = str(tmp_path / 'own'), str(tmp_path / 'jax')
  assert compile_in(tmp_path, JAX_COMPILATION_CACHE_DIR=jax_s) == jax_s
  named = compile_in(tmp_path, own, JAX_COMPILATION_CACHE_DIR=jax_s)
  assert pathlib.Path(named).parent == pathlib.Path(own) and kept_files(pathlib.Path(named))


@pytest.mark.slow
def test_an_empty_environment_variable_names_no_folder(tmp_path):
  usual = str(tmp_path / '.cache' / 'hand-jax' / compiled_programs.processor_name())
  assert compile_in(tmp_path, JAX_COMPILATION_CACHE_DIR='') == usual


def test_a_user_without_a_home_folder_keeps_nothing(monkeypatch):
  def no_home():
    raise RuntimeError('Could not determine home directory.')

  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr(pathlib.Path, 'home', no_home)
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', None)
  try:
    assert compiled_programs.keep_compiled_programs() is None
  finally:
    jax.config.update('jax_compilation_cache_dir', before)


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
  (tmp_path / 'taken').write_text('mine')
  assert compile_in(tmp_path, XDG_CACHE_HOME=str(tmp_path / 'taken')) == 'None'


IN_PYTHON = """
import sys
import hand_jax
assert 'jax' not in sys.modules
import jax
from hand_jax.files import compiled_programs
compiled_programs._MIN_COMPILE_S = 0.0
exec(sys.argv[1])
print(jax.jit(lambda x: x * 2 + 1)(3.0))  # a program of the user's own, before
hand_jax.HandReconstructor()
jax.jit(lambda x: x * 3 + 1)(3.0)
print(jax.config.jax_compilation_cache_dir if jax.config.jax_enable_compilation_cache else None)
"""


@pytest.mark.slow
def test_reconstructing_in_python_keeps_programs_unless_the_user_chose(tmp_path):
  """In the same folder as the command does; importing the package alone imports no JAX."""
  usual = str(tmp_path / '.cache' / 'hand-jax' / compiled_programs.processor_name())
  own = str(tmp_path / 'own')
  off = "jax.config.update('jax_enable_compilation_cache', False)"
  assert compile_in(tmp_path, off, code=IN_PYTHON) == 'None'
  chosen = f"jax.config.update('jax_compilation_cache_dir', {own!r})"
  assert compile_in(tmp_path, chosen, code=IN_PYTHON) == own
  assert not (tmp_path / '.cache').exists()
  assert compile_in(tmp_path, '', code=IN_PYTHON) == usual and kept_files(pathlib.Path(usual))


def test_the_folder_is_named_by_the_specification(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'other'))
  assert compiled_programs.default_cache_folder() == tmp_path / 'other' / 'hand-jax'
  for ignored in ('', 'relative/path'):
    monkeypatch.setenv('XDG_CACHE_HOME', ignored)
    assert compiled_programs.default_cache_folder() == tmp_path / '.cache' / 'hand-jax'


@pytest.mark.parametrize('start', ['flags\t\t: ', 'Features\t: '])
def test_processors_with_other_features_have_other_names(start, tmp_path):
  names = {}
  for features in ('avx2 fma', 'fma avx2', 'avx2 avx512f fma'):
    path = tmp_path / 'cpuinfo'
    path.write_text(f'processor\t: 0\n{start}{features}\n')
    names[features] = compiled_programs.processor_name(str(path))
  assert names['avx2 fma'] == names['fma avx2'] != names['avx2 avx512f fma']
  assert compiled_programs.processor_name(str(tmp_path / 'missing'))
