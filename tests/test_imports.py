"""Imports point one way: a layer uses those before it, never those after."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Lower layers first (see the layout in the documentation). A module may import from its own layer.
LAYERS = [
  ('types', 'config'),
  ('geometry', 'gaussian', 'mano', 'rendering', 'propagation'),
  ('models', 'losses'),
  ('data', 'training', 'evaluation'),
  ('reconstruct', 'export', 'report', 'detection'),
]
FORBIDDEN = ('tensorflow', 'torch', 'chumpy', 'pytorch3d', 'smplx')
FILES = sorted(path for path in (ROOT / 'hand_jax').rglob('*.py') if path.name != '__init__.py')


def layer_of(parts: tuple[str, ...]) -> int:
  """The layer of `hand_jax.a.b`, given as ('a', 'b'); files like export_glb count as export."""
  for number, names in enumerate(LAYERS):
    if parts[0] in names or parts[0].split('_')[0] in names:
      return number
  raise AssertionError(f'hand_jax.{".".join(parts)} belongs to no layer: add it to LAYERS')


def imported_modules(path: pathlib.Path) -> list[str]:
  modules = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      modules += [name.name for name in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      modules += [node.module, *(f'{node.module}.{name.name}' for name in node.names)]
  return modules


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_no_later_layer_and_nothing_forbidden(path):
  parts = path.relative_to(ROOT / 'hand_jax').with_suffix('').parts
  own = layer_of(parts)
  for module in imported_modules(path):
    package, *rest = module.split('.')
    assert package not in FORBIDDEN, f'{path} imports {module}'
    assert package not in ('experiments', 'tests'), f'{path} imports {module}'
    if package == 'hand_jax' and rest and rest[0] != 'assets':
      assert layer_of(tuple(rest)) <= own, f'{path} imports {module} from a later layer'


@pytest.mark.parametrize(
  'path',
  sorted((ROOT / 'hand_jax').rglob('__init__.py')),
  ids=lambda path: str(path.relative_to(ROOT)),
)
def test_package_files_are_empty(path):
  assert path.read_text().strip() == ''
