"""pyproject.toml and requirements.txt: what the wheel needs is what reconstructing imports."""

import ast
import pathlib
import re
import sys
import tomllib

import hand_jax

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
BASE = PROJECT['project']['dependencies']
EXTRAS = PROJECT['project']['optional-dependencies']
# Distributions whose modules have other names.
DISTRIBUTIONS = {
  'absl': 'absl-py',
  'cv2': 'opencv-python-headless',
  'orbax': 'orbax-checkpoint',
  'PIL': 'pillow',
}

# What JAX imports when it writes exported programs, and does not require itself.
BY_JAX = {'flatbuffers'}


def name_of(requirement: str) -> str:
  return re.match(r'[\w.-]+', requirement).group().lower().replace('_', '-')


def imported_names(path: pathlib.Path) -> set[str]:
  """Full names of all that a file imports, wherever in it."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {node.module, *(f'{node.module}.{name.name}' for name in node.names)}
  return names


def path_of(module: str) -> pathlib.Path | None:
  """The file of one of our modules, or None for any other name."""
  path = ROOT / module.replace('.', '/')
  for candidate in (path.with_suffix('.py'), path / '__init__.py'):
    if module.split('.')[0] == 'hand_jax' and candidate.exists():
      return candidate
  return None


def packages_behind(paths: list[pathlib.Path]) -> set[str]:
  """Packages of others that these files of ours import, or the files that they import."""
  seen, packages = set(), set()
  while paths:
    path = paths.pop()
    if path in seen:
      continue
    seen.add(path)
    for name in imported_names(path):
      if name.split('.')[0] != 'hand_jax':
        packages.add(name.split('.')[0])
      elif (file := path_of(name)) is not None:
        paths.append(file)
  return packages - set(sys.stdlib_module_names)


def test_the_wheel_needs_what_the_command_and_the_public_names_import():
  commands = sorted((ROOT / 'hand_jax' / 'commands').glob('*.py'))
  package = ROOT / 'hand_jax'
  found = packages_behind([*commands, package / '__init__.py', package / '__main__.py'])
  needed = {DISTRIBUTIONS.get(name, name) for name in found} | BY_JAX
  assert needed == {name_of(text) for text in BASE}


def test_requirements_are_those_of_the_wheel_and_of_training():
  lines = (ROOT / 'requirements.txt').read_text().split()
  assert sorted(lines) == sorted([*BASE, *EXTRAS['train']])
  assert len({name_of(line) for line in lines}) == len(lines)
  assert {'jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'tensorflow-datasets'} <= {
    name_of(line) for line in lines
  }


def test_the_test_tools_come_with_what_training_needs():
  assert 'hand-jax[train]' in EXTRAS['dev']


def test_the_version_is_written_once():
  assert 'version' in PROJECT['project']['dynamic'] and 'version' not in PROJECT['project']
  assert PROJECT['tool']['setuptools']['dynamic']['version'] == {'attr': 'hand_jax.version.VERSION'}
  assert re.fullmatch(r'\d+\.\d+\.\d+', hand_jax.__version__)
