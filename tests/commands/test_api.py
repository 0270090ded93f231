"""`import hand_jax`: public names, loaded when they are used; the version; the wheel's contents."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import hand_jax

ROOT = pathlib.Path(__file__).parents[2]
PROMISED = {
  '__version__',
  'DetectedHand',
  'DiagonalGaussian',
  'HandReconstructor',
  'Reconstruction',
  'detect_hands',
  'load_mano_model',
  'mano_forward',
  'rasterize',
  'read_photo',
  'soft_silhouette',
}
MOST_NAMES = 14


def names_for_type_checkers() -> dict[str, str]:
  """What `if TYPE_CHECKING:` of the package imports: name to module."""
  tree = ast.parse(pathlib.Path(hand_jax.__file__).read_text())
  blocks = [
    node
    for node in tree.body
    if isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING'
  ]
  return {
    name.name: statement.module
    for block in blocks
    for statement in block.body
    for name in statement.names
  }


@pytest.mark.slow
def test_importing_and_asking_for_help_load_no_jax():
  """Nor NumPy: each would take a good part of a second. The first name that is used does."""
  code = """
import sys
import hand_jax
from hand_jax.commands.main import main
assert 'read_photo' in dir(hand_jax) and hand_jax.__version__
assert main(['help']) == 0
assert not {'jax', 'jaxlib', 'numpy', 'flax', 'absl'} & set(sys.modules)
hand_jax.DiagonalGaussian
assert 'jax' in sys.modules and 'orbax' not in sys.modules
"""
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize('name', hand_jax._HOMES)
def test_a_name_is_that_of_its_module(name):
  """And type checkers, which do not run the package, are told the same module."""
  module = names_for_type_checkers()[name]
  assert getattr(hand_jax, name) is getattr(importlib.import_module(module), name)
  assert name in vars(hand_jax)  # found at once from now on


def test_the_lists_of_names_agree():
  loaded = set(hand_jax.__all__) - {'__version__'}
  assert set(names_for_type_checkers()) == loaded == set(hand_jax._HOMES)
  assert PROMISED <= set(hand_jax.__all__) <= set(dir(hand_jax))


def test_the_names_are_few():
  assert len(hand_jax.__all__) <= MOST_NAMES


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="'hand_jax' has no attribute 'feet'"):
    hand_jax.feet  # noqa: B018
  assert not hasattr(hand_jax, '_missing')


def test_names_come_with_a_star():
  names = {}
  exec('from hand_jax import *', names)
  assert names['read_photo'] is hand_jax.read_photo and set(hand_jax.__all__) <= set(names)


def test_a_detected_hand_unpacks_in_the_promised_order():
  promised = ['box_xywh', 'side', 'side_score', 'presence', 'landmarks_image', 'landmarks_world']
  assert list(hand_jax.DetectedHand._fields[:7]) == [*promised, 'roi']
