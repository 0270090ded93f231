"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the project."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
BLOCK = re.compile(r'^ *```diff\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
COPIED = ('datasets', 'docs', 'experiments', 'hand_jax', 'tests', 'pyproject.toml')
RECIPES = ('backbone', 'loss term', 'data set')


def read_recipe(name: str) -> list[str]:
  """Returns the blocks of changes below the heading `Add a NAME`."""
  text = (ROOT / 'CONTRIBUTING.md').read_text()
  section = text.split(f'### Add a {name}\n')[1].split('\n### ')[0].split('\n## ')[0]
  return [textwrap.dedent(block) for block in BLOCK.findall(section)]


def apply_block(block: str, folder: pathlib.Path) -> pathlib.Path:
  """Makes one block's change to a file of the folder, and returns the file."""
  header, *lines = block.splitlines()
  path = folder / header[4:]
  lines = [line or ' ' for line in lines]
  before = ''.join(line[1:] + '\n' for line in lines if line[0] in ' -')
  after = ''.join(line[1:] + '\n' for line in lines if line[0] in ' +')
  if header.startswith('+++ '):
    assert not path.exists() and not before, f'{header}: the file is new'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(after)
  else:
    text = path.read_text()
    assert text.count(before) == 1, f'{header}: expected these lines once:\n{before}'
    path.write_text(text.replace(before, after))
  return path


def run_python(*arguments: str, folder: pathlib.Path) -> str:
  process = subprocess.run(
    [sys.executable, *arguments],
    cwd=folder,
    env=os.environ | {'PYTHONPATH': str(folder)},
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stdout + process.stderr
  return process.stdout + process.stderr


@pytest.fixture(scope='module')
def project(tmp_path_factory):
  """A copy of the project with every recipe applied."""
  folder = tmp_path_factory.mktemp('project')
  skip = shutil.ignore_patterns('__pycache__', 'assets')
  for name in COPIED:
    copy = shutil.copy if (ROOT / name).is_file() else shutil.copytree
    copy(ROOT / name, folder / name, **({} if copy is shutil.copy else {'ignore': skip}))
  (folder / 'hand_jax' / 'assets').symlink_to(ROOT / 'hand_jax' / 'assets')
  for recipe in RECIPES:
    for block in read_recipe(recipe):
      apply_block(block, folder)
  return folder


def new_files(recipe: str) -> list[str]:
  headers = [block.splitlines()[0] for block in read_recipe(recipe)]
  return [header[4:] for header in headers if header.startswith('+++ ')]


@pytest.mark.slow
def test_the_recipes_keep_the_style(project):
  changed = {block.splitlines()[0][4:] for recipe in RECIPES for block in read_recipe(recipe)}
  for command in (['check'], ['format', '--check']):
    run_python('-m', 'ruff', *command, *sorted(changed), folder=project)


@pytest.mark.slow
def test_the_tests_of_the_recipes_pass(project):
  tests = [file for recipe in RECIPES for file in new_files(recipe) if file.startswith('tests/')]
  assert len(tests) == len(RECIPES)
  printed = run_python('-m', 'pytest', *tests, 'tests/test_imports.py', folder=project)
  assert 'passed' in printed and 'skipped' not in printed


@pytest.mark.slow
def test_what_the_recipes_add_trains(project):
  settings = ['model.backbone.name=two_convs', 'loss.pose_size=0.01', 'training.num_steps=2']
  settings += ['training.log_every=1', 'training.batch_size=2', 'data.train_examples=4']
  settings += ['training.validation_examples=2']
  arguments = [argument for setting in settings for argument in ('--set', setting)]
  command = ('-m', 'experiments.train', '--config=toy_prior_weak', '--workdir=run', *arguments)
  run_python(*command, folder=project)
  metrics = (project / 'run' / 'metrics.jsonl').read_text()
  assert 'pose_size' in metrics


def test_a_change_whose_place_is_gone_is_told(tmp_path):
  (tmp_path / 'file.py').write_text('one = 1\n')
  with pytest.raises(AssertionError, match='expected these lines once'):
    apply_block('--- file.py\n two = 2\n+three = 3\n', tmp_path)
