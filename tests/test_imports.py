"""Checks that rooms import only from their own or lower floors, and in no circle."""

import ast
import collections
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Lower floors first. A room may use the others of its own floor, as long as no circle arises.
FLOORS = [
  ('types', 'examples', 'config', 'setting_checks', 'config_text', 'version', 'files'),
  ('geometry', 'gaussian', 'low_rank', 'student_t'),
  ('mano', 'rendering', 'propagation'),
  ('elbo', 'losses', 'models', 'silhouette_loss', 'synthetic'),
  ('runs', 'data'),
  ('preparing', 'readers', 'detection', 'evaluation'),
  ('training', 'fitting', 'reconstruction'),
  ('release', 'report', 'exporting'),
  ('commands', '__init__', '__main__'),
]
# Reconstructing needs nothing of what trains.
APART = {
  ('fitting', 'training'),
  ('reconstruction', 'training'),
  ('training', 'fitting'),
  ('training', 'reconstruction'),
}
FORBIDDEN = ('tensorflow', 'torch', 'chumpy', 'pytorch3d', 'smplx')
# The package's names and the command line are not empty, and may use everything.
OPEN_INITS = ('hand_jax/__init__.py', 'hand_jax/commands/__init__.py')
MODULES = {
  str(path.relative_to(ROOT).with_suffix('')).replace('/', '.').removesuffix('.__init__'): path
  for folder in ('hand_jax', 'experiments')
  for path in sorted((ROOT / folder).rglob('*.py'))
}
LIBRARY = [name for name in MODULES if name.startswith('hand_jax.')]


def room_of(module: str) -> str:
  parts = module.split('.')
  return parts[1] if len(parts) > 1 else '__init__'


def floor_of(module: str) -> int:
  """The floor of `hand_jax.room.file`, or of `hand_jax.file`."""
  for number, rooms in enumerate(FLOORS):
    if room_of(module) in rooms:
      return number
  raise AssertionError(f'{module} stands on no floor: add its room to FLOORS')


@functools.cache
def imported_modules(path: pathlib.Path) -> tuple[str, ...]:
  """Full names of what a file imports, modules where names could be modules."""
  modules = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      modules += [name.name for name in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      full_names = [f'{node.module}.{name.name}' for name in node.names]
      modules += [name if name in MODULES else node.module for name in full_names]
  return tuple(dict.fromkeys(modules))


@pytest.mark.parametrize('module', LIBRARY)
def test_a_module_imports_no_higher_floor_and_nothing_forbidden(module):
  for other in imported_modules(MODULES[module]):
    package = other.split('.')[0]
    assert package not in FORBIDDEN, f'{module} imports {other}'
    assert package not in ('experiments', 'tools', 'tests'), f'{module} imports {other}'
    if package == 'hand_jax':
      assert floor_of(other) <= floor_of(module), f'{module} imports {other} from a higher floor'
      assert (room_of(module), room_of(other)) not in APART, f'{module} imports {other}'


def test_imports_make_no_circle():
  uses = {
    name: [other for other in imported_modules(path) if other in MODULES]
    for name, path in MODULES.items()
  }
  finished: set[str] = set()

  def visit(name: str, way: tuple[str, ...]) -> None:
    assert name not in way, f'import circle: {" -> ".join((*way[way.index(name) :], name))}'
    if name not in finished:
      for other in uses[name]:
        visit(other, (*way, name))
      finished.add(name)

  for name in MODULES:
    visit(name, ())


def test_rooms_of_one_floor_make_no_circle():
  """The same for rooms: two of them must not use one another."""
  uses = collections.defaultdict(set)
  for name in LIBRARY:
    uses[room_of(name)] |= {
      room_of(other) for other in imported_modules(MODULES[name]) if other.startswith('hand_jax.')
    }
  for room, others in uses.items():
    for other in others - {room}:
      assert room not in uses[other], f'{room} and {other} use one another'


def test_the_picture_in_the_architecture_page_shows_the_imports():
  """Every arrow drawn is an import, and every import is an arrow or follows from some."""
  text = (ROOT / 'docs' / 'architecture.md').read_text()
  picture = text.partition('## The rooms as a picture')[2].split('```')[1]
  drawn = collections.defaultdict(set)
  for room, others in re.findall(r'(\w+) -> (\w+(?:, \w+)*)', picture):
    drawn[room] |= set(others.split(', '))
  uses = collections.defaultdict(set)
  for name in LIBRARY:
    others = {room_of(o) for o in imported_modules(MODULES[name]) if o.startswith('hand_jax.')}
    uses[room_of(name)] |= others - {room_of(name)}

  def reached(room: str) -> set[str]:
    return drawn[room].union(*map(reached, sorted(drawn[room])))

  for room in {name for floor in FLOORS for name in floor} - {'__init__', '__main__'}:
    assert drawn[room] <= uses[room], f'{room} does not import {drawn[room] - uses[room]}'
    assert uses[room] <= reached(room), f'{room} also imports {uses[room] - reached(room)}'


@pytest.mark.parametrize(
  'path',
  sorted((ROOT / 'hand_jax').rglob('__init__.py')),
  ids=lambda path: str(path.relative_to(ROOT)),
)
def test_package_files_are_empty(path):
  if str(path.relative_to(ROOT)) not in OPEN_INITS:
    assert path.read_text().strip() == ''


def test_no_folder_holds_too_large_a_share():
  """A folder's own files, subfolders apart, are at most 15 % of the library's lines."""
  lines = collections.Counter()
  for path in (ROOT / 'hand_jax').rglob('*.py'):
    lines[str(path.parent.relative_to(ROOT))] += len(path.read_text().splitlines())
  folder, largest = lines.most_common(1)[0]
  assert largest <= 0.15 * lines.total(), f'{folder} has {largest} of {lines.total()} lines'


@pytest.mark.parametrize('path', sorted((ROOT / 'experiments').glob('*.py')), ids=lambda p: p.name)
def test_launches_are_short(path):
  assert len(path.read_text().splitlines()) <= 120
