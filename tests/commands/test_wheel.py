"""The wheel alone, in a fresh environment and an empty folder: the command works."""

import email
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hand_jax
from hand_jax.data.photos import demo_photo_boxes
from hand_jax.reconstruction.files import OUTPUT_SUFFIXES, PHOTO_SUFFIXES
from tests.toy_runs import fresh_state, save_toy_run

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
# What training needs and reconstructing does without.
ABSENT = ('tensorflow_datasets', 'array_record', 'tensorboardX', 'skimage', 'simplejpeg')
# Of this process' environment, what would lead the other Python to these sources or to a MANO.
LEFT_OUT = ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV', 'MANO_DIR')


def call(arguments: Sequence[str | os.PathLike], folder: pathlib.Path) -> str:
  """Runs a program in a folder and returns what it printed; it must end well."""
  environment = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
  result = subprocess.run(
    arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, f'{arguments}\n{result.stdout}\n{result.stderr}'
  return result.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> pathlib.Path:
  """Built from a copy, so that nothing built before gets in and nothing is left in the sources."""
  sources, folder = tmp_path_factory.mktemp('sources'), tmp_path_factory.mktemp('wheel')
  for name in ('pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, sources)
  ignored = shutil.ignore_patterns('__pycache__')
  shutil.copytree(ROOT / 'hand_jax', sources / 'hand_jax', ignore=ignored)
  call([sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--wheel-dir', folder, sources], folder)
  (path,) = folder.glob('hand_jax-*.whl')
  return path


def needed_distributions(wheel: pathlib.Path) -> list[Distribution]:
  """What the wheel asks for, and what that asks for in turn, as this Python has it installed."""
  with zipfile.ZipFile(wheel) as file:
    (name,) = (name for name in file.namelist() if name.endswith('.dist-info/METADATA'))
    asked = email.message_from_bytes(file.read(name)).get_all('Requires-Dist', [])
  found, seen, waiting = {}, set(), [(text, '') for text in asked]
  while waiting:
    text, extra = waiting.pop()
    requirement = Requirement(text)
    if requirement.marker and not requirement.marker.evaluate({'extra': extra}):
      continue
    name, installed = canonicalize_name(requirement.name), distribution(requirement.name)
    assert requirement.specifier.contains(installed.version, prereleases=True), text
    found[name] = installed
    for extra in {'', *requirement.extras} - {extra for other, extra in seen if other == name}:
      seen.add((name, extra))
      waiting += [(text, extra) for text in installed.requires or []]
  return list(found.values())


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory) -> pathlib.Path:
  """The Python of a fresh environment with the wheel and its base dependencies.

  These are links to the ones of this Python, compiled already: pip would take a minute longer.
  """
  folder = tmp_path_factory.mktemp('fresh')
  call([sys.executable, '-m', 'venv', '--without-pip', folder / 'venv'], folder)
  path = folder / 'venv' / 'bin' / 'python'
  pip = [sys.executable, '-m', 'pip', '--python', path]
  call([*pip, 'install', '--quiet', '--no-deps', wheel], folder)
  (packages,) = (folder / 'venv' / 'lib').glob('python*/site-packages')
  for installed in needed_distributions(wheel):
    for name in {file.parts[0] for file in installed.files or []} - {'..', '__pycache__'}:
      if not (packages / name).exists():  # several distributions may share a folder
        (packages / name).symlink_to(installed.locate_file(name))
  return path


def test_the_wheel_holds_the_package_and_no_tests(wheel):
  with zipfile.ZipFile(wheel) as file:
    names = set(file.namelist())
  packages = {name.split('/')[0] for name in names}
  assert packages == {'hand_jax', f'hand_jax-{hand_jax.__version__}.dist-info'}
  for path in (ROOT / 'hand_jax').rglob('*'):
    if path.is_file() and '__pycache__' not in path.parts:
      assert path.relative_to(ROOT).as_posix() in names


def test_photos_are_reconstructed_without_what_trains(python, tmp_path):
  find = 'import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])'
  assert call([python, '-c', find, *ABSENT], tmp_path) == '[]\n'
  workdir = save_toy_run(tmp_path / 'run', 'toy', fresh_state('toy'))
  (tmp_path / 'empty').mkdir()
  command = python.with_name('hand-jax')
  printed = call([command, '--demo_photos', f'--workdir={workdir}'], tmp_path / 'empty')
  photos = [path.stem for path in demo_photo_boxes()]
  assert [line.split('.jpg: ')[0] for line in printed.splitlines()[:3]] == photos
  output = tmp_path / 'empty' / 'hand_jax_output'
  suffixes = (*OUTPUT_SUFFIXES, *PHOTO_SUFFIXES)
  expected = {f'{photo}{suffix}' for photo in photos for suffix in suffixes}
  expected |= {'summary.json', 'report.html'}
  assert {path.name for path in output.iterdir()} == expected
  assert all(path.stat().st_size > 0 for path in output.iterdir())


def test_the_package_runs_as_the_command(python, tmp_path):
  """And what it offers is the wheel's, not these sources'."""
  version = call([python, '-m', 'hand_jax', '--version'], tmp_path)
  assert version == f'hand-jax {hand_jax.__version__}\n'
  where = 'import hand_jax; from hand_jax import rasterize, read_photo; print(hand_jax.__file__)'
  assert call([python, '-c', where], tmp_path).startswith(str(python.parents[1]))
