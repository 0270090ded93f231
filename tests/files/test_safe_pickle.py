"""The pickle reader: honest files of every kind read, hostile and damaged ones refused unrun."""

import builtins
import collections
import functools
import operator
import os
import pickle
import struct

import numpy as np
import pytest
import scipy.sparse

from hand_jax.files.safe_pickle import UnsafePickleError, load_pickle, loads
from tests.official_mano import chumpy_select, chumpy_value, old_csc, python2_dumps

pytestmark = pytest.mark.slow

ARRAYS = {
  'float64': np.random.default_rng(0).normal(size=(3, 4)),
  'float32 Fortran': np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
  'big-endian': np.arange(4, dtype='>i4'),
  'uint32': np.asarray([[2**32 - 1, 0]], np.uint32),
  'bool': np.asarray([True, False]),
  'empty': np.zeros((0, 3)),
  'zero-dimensional': np.asarray(3.5),
  'complex': np.asarray([1 + 2j]),
}
PLAIN = {
  'numbers': [0, -1, 255, 256, 70000, -(2**31), 2**40, -(2**70), 1.5, -0.0, float('inf')],
  'constants': (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
  'text': ['', 'a' * 300, 'bs_style', "it's \\ 'quoted' \n"],
  'nested': {'a': {'b': [{'c': ()}]}, 3: []},
}


def assert_same(actual, expected):
  if isinstance(expected, dict):
    assert list(actual) == list(expected)
    for key, value in expected.items():
      assert_same(actual[key], value)
  elif isinstance(expected, np.ndarray):
    assert actual.dtype == expected.dtype.newbyteorder('=')
    np.testing.assert_array_equal(actual, expected)
  else:
    assert actual == expected
    assert type(actual) is type(expected)


@pytest.mark.parametrize('protocol', range(6))
def test_reads_what_python_3_writes(protocol):
  content = {**ARRAYS, **PLAIN, 'bytes': b'\x00\xff', 'unicode': 'µ€'}
  assert_same(loads(pickle.dumps(content, protocol=protocol)), content)


@pytest.mark.parametrize('protocol', range(3))
def test_reads_what_python_2_wrote(protocol):
  content = {**ARRAYS, **PLAIN, 'latin': 'm\xfcller'}
  assert_same(loads(python2_dumps(content, protocol)), content)


@pytest.mark.parametrize('protocol', range(6))
def test_reads_numpy_scalars_and_collections(protocol):
  content = [
    np.float64(2.5),
    np.int32(-3),
    collections.OrderedDict([('a', 1)]),
    {'x', 'y'},
  ]
  assert loads(pickle.dumps(content, protocol=protocol)) == content


@pytest.mark.parametrize('protocol', range(3))
def test_reads_chumpy_and_old_scipy_as_dense_arrays(protocol):
  values = np.random.default_rng(1).normal(size=(5, 3, 2))
  matrix = np.where(np.eye(4, 7) > 0, 0.5, 0.0)
  matrix[2, 6] = -1.0
  content = {'ch': chumpy_value(values), 'select': chumpy_select(values), 'sparse': old_csc(matrix)}
  result = loads(python2_dumps(content, protocol))
  for name, expected in {'ch': values, 'select': values, 'sparse': matrix}.items():
    np.testing.assert_array_equal(result[name], expected)


@pytest.mark.parametrize('kind', [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix])
def test_reads_todays_scipy_matrices(kind):
  matrix = np.asarray([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
  np.testing.assert_array_equal(loads(pickle.dumps(kind(matrix), protocol=2)), matrix)


@pytest.mark.parametrize('protocol', range(3))
@pytest.mark.parametrize('annotated', [True, False])
def test_reads_annotations_like_ho3ds(tmp_path, protocol, annotated):
  """All keys of its training and evaluation files, as Python 2 wrote them; `None` where a frame was
  not annotated.
  """
  rng = np.random.default_rng(0)
  shapes = {
    'handJoints3D': (21, 3),
    'handPose': (48,),
    'handTrans': (3,),
    'handBeta': (10,),
    'objRot': (3, 1),
    'objTrans': (3,),
    'objCorners3D': (8, 3),
  }
  meta = {key: rng.normal(size=shape) if annotated else None for key, shape in shapes.items()}
  meta |= {
    'camMat': np.diag([614.0, 614.0, 1.0]),
    'objCorners3DRest': rng.normal(size=(8, 3)),
    'handVertContact': rng.uniform(size=778) > 0.5,
    'handBoundingBox': [251, 107, 389, 280],
    'objName': '010_potted_meat_can',
    'objLabel': 9,
    'camIDList': ['0', '1'],
  }
  path = tmp_path / '0000.pkl'
  path.write_bytes(python2_dumps(meta, protocol))
  assert_same(load_pickle(path), meta)


class Call:
  """Pickles as a call of `function`."""

  def __init__(self, function, *arguments):
    self.reduced = (function, arguments)

  def __reduce__(self):
    return self.reduced


class Build(Call):
  """Pickles as a call followed by a state."""

  def __init__(self, function, arguments, state):
    self.reduced = (function, arguments, state)


def short(text: str) -> bytes:
  return b'\x8c' + bytes([len(text)]) + text.encode()


def stack_global(module: str, name: str) -> bytes:
  return short(module) + short(name) + b'\x93'


_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_F8 = np.dtype('f8')
_ARRAY = (np.ndarray, (0,), b'b')
_ENCODE = b'c_codecs\nencode\n'

HOSTILE_CALLS = {
  'os.system': lambda run: Call(os.system, run),
  'eval': lambda run: Call(eval, f'__import__("os").system({run!r})'),
  'exec': lambda run: Call(exec, f'__import__("os").system({run!r})'),
  'getattr chain': lambda run: Call(getattr, Call(__import__, 'os'), 'system'),
  'nested': lambda run: {'v_template': [np.zeros(3), ({'x': Call(os.system, run)},)]},
  'in a chumpy state': lambda run: chumpy_value(Call(os.system, run)),
  'in array state': lambda run: Build(_RECONSTRUCT, _ARRAY, (1, (1,), Call(eval, '1'), False, b'')),
  'partial': lambda run: Call(functools.partial, os.system, run),
  'attrgetter': lambda run: Call(operator.attrgetter, 'system'),
  'open': lambda run: Call(builtins.open, run.split()[-1], 'w'),
  'numpy load': lambda run: Call(np.load, run),
  'numpy memmap': lambda run: Call(np.memmap, run.split()[-1], 'u1', 'w+'),
  'numpy frombuffer': lambda run: Call(np.fromfile, run),
  'type as array class': lambda run: Call(_RECONSTRUCT, Call(os.system, run), (0,), b'b'),
  'object dtype': lambda run: np.asarray([{}, None], object),
  'structured dtype': lambda run: np.zeros(2, [('a', 'f4')]),
  'shape without bytes': lambda run: Build(
    _RECONSTRUCT, _ARRAY, (1, (10**12,), _F8, False, b'\0' * 8)
  ),
  'negative shape': lambda run: Build(_RECONSTRUCT, _ARRAY, (1, (-1, -1), _F8, False, b'\0' * 8)),
  'endless shape': lambda run: Build(_RECONSTRUCT, _ARRAY, (1, (2**62, 2**62, 0), _F8, False, b'')),
  'strange dtype': lambda run: Build(np.dtype, ('f8', False, True), (3, 'evil', None)),
  'a class alone': lambda run: [np.ndarray],
  'a function alone': lambda run: {'v_template': _RECONSTRUCT},
}
# Nested by two at every level: short to write, long to write out or to hash.
_TUPLES = b')' + b'2\x86' * 20
_LISTS = b'K\x01' + b'q\x000](h\x00h\x00e' * 10


def _wrapped_sparse() -> object:
  """Column pointers that fall, while their differences (of unsigned bytes) are all positive."""
  matrix = old_csc(np.eye(2))
  matrix.__dict__.update(
    data=np.ones(400),
    indices=np.zeros(400, np.int32),
    indptr=np.asarray([0, 200, 144], np.uint8),
  )
  return matrix


HOSTILE_STREAMS = {
  'tuples as a key': b'\x80\x02}' + _TUPLES + b'Ns.',
  'tuples in a set': b'\x80\x04\x8f(' + _TUPLES + b'\x90.',
  'tuples in a called set': b'\x80\x02c__builtin__\nset\n](' + _TUPLES + b'e\x85R.',
  'tuples as an ordered key': (
    b'\x80\x02ccollections\nOrderedDict\n](' + _TUPLES + b'N\x86e\x85R.'
  ),
  'not pairs': b'\x80\x02ccollections\nOrderedDict\n](K\x01e\x85R.',
  'lists as a chumpy value': b'\x80\x02cchumpy.ch\nCh\n)\x81}U\x01x' + _LISTS + b'sb.',
  'lists as an array type': b'\x80\x02cnumpy\ndtype\n' + _LISTS + b'\x85R.',
  'text as a chumpy value': b'\x80\x02cchumpy.ch\nCh\n)\x81}U\x01xU\x01asb.',
  'sparse pointers that fall': python2_dumps(_wrapped_sparse()),
  'two strings for one': b"S'a' 'b'\n.",
  'a reference outside': b'\x80\x02K\x01Q.',
  'old instance': b'(ios\nsystem\n.',
  'old object': b'(cos\nsystem\no.',
  'persistent id': b'Pos.system\n.',
  'extension': b'\x82\x01.',
  'dotted name': b'\x80\x04' + stack_global('numpy', 'ndarray.__class__') + b'.',
  'name from data': b'\x80\x04' + short('os') + b'N\x93.',
  'call of data': b'\x80\x02}(K\x01tR.',
  'call of a class': b'\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.',
  'call with a name as arguments': b'\x80\x02c_codecs\nencode\ncnumpy\nndarray\nR.',
  'build on a list': b'\x80\x02]}b.',
  'build on a name': b'\x80\x02cnumpy\nndarray\n}b.',
  'second state': b'\x80\x02cchumpy.ch\nCh\n)\x81}U\x01xK\x01sb}U\x01xK\x02sb.',
  'class from data': b'\x80\x02}N\x86cchumpy.ch\nCh\nK\x05\x81.',
  'reconstructor of a function': b'ccopy_reg\n_reconstructor\n(cos\nsystem\ncos\nsystem\nNtR.',
  'reconstructor with a base': (
    b'ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\ncchumpy.ch\nCh\nNtR}b.'
  ),
  'other codec': b'\x80\x02' + _ENCODE + short('x') + short('rot13') + b'\x86R.',
  'huge memo index': b'\x80\x02Nr\xff\xff\xff\xff0j\xfe\xff\xff\xff.',
  'huge length': b'\x80\x04\x8e' + struct.pack('<Q', 2**62) + b'abc.',
  'negative length': b'\x80\x02T\xff\xff\xff\xffabc.',
  'huge integer text': b'I' + b'9' * 10000 + b'\n.',
  'deep nesting': b'(' * 20_000 + b'l' * 20_000 + b'.',
  'contains itself': b'\x80\x02]q\x00h\x00a.',
  'array in itself': b'\x80\x02cchumpy.ch\nCh\n)\x81q\x00}U\x01xh\x00sb.',
  'mark as a value': b'(\x94.',
  'unhashable key': b'\x80\x02}]K\x01s.',
  'values left over': b'K\x01K\x02.',
  'nothing on the stack': b'.',
  'append to nothing': b'K\x01a.',
  'future protocol': b'\x80\x09N.',
  'sparse giant': python2_dumps(old_csc(np.eye(2))).replace(
    b'K\x02K\x02\x86', b'J' + struct.pack('<i', 30_000_000) + b'K\x02\x86'
  ),
}


def refused(data: bytes) -> str:
  with pytest.raises(UnsafePickleError) as caught:
    loads(data, 'evil.pkl')
  message = str(caught.value)
  assert message.startswith('evil.pkl: ')
  assert '\n' not in message
  return message


@pytest.mark.parametrize('name', HOSTILE_CALLS)
@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_hostile_calls_are_refused_and_not_run(name, protocol, tmp_path):
  marker = tmp_path / 'marker'
  content = HOSTILE_CALLS[name](f'touch {marker}')
  if name == 'in a chumpy state':
    data = python2_dumps(content, min(protocol, 2))
  else:
    data = pickle.dumps(content, protocol=protocol)
  refused(data)
  assert not marker.exists()


def test_a_refusal_names_what_it_found():
  assert "'posix.system'" in refused(pickle.dumps(Call(os.system, 'true')))


@pytest.mark.parametrize('name', HOSTILE_STREAMS)
def test_hostile_streams_are_refused(name):
  refused(HOSTILE_STREAMS[name])


def test_repeated_conversion_of_one_large_part_is_refused():
  """A small file may not fill memory by encoding or copying one string again and again."""
  text = b'\x80\x02X' + struct.pack('<I', 1000) + b'a' * 1000 + b'q\x000U\x06latin1q\x010'
  call = _ENCODE + b'h\x00h\x01\x86R0'
  refused(text + call * 500 + b'N.')


def test_repeated_arrays_over_one_buffer_are_refused(monkeypatch):
  monkeypatch.setattr('hand_jax.files.pickled_objects.MAX_ARRAY_BYTES', 1000)
  data = np.zeros(50)
  loads(pickle.dumps([data, data, data], protocol=2))  # one array, named three times
  refused(pickle.dumps([data.copy() for _ in range(3)], protocol=2))


@pytest.mark.parametrize('data', [b'', b'hello world', b'\x89PNG\r\n', b'PK\x03\x04', b'{"a": 1}'])
def test_files_of_other_kinds_are_refused(data):
  refused(data)


SMALL = {'a': chumpy_select(np.arange(3.0), 1), 'b': [1, 'text'], 'c': old_csc(np.eye(2))}


def test_every_truncation_is_refused():
  data = python2_dumps(SMALL)
  for length in range(len(data)):
    refused(data[:length])


def test_random_damage_never_escapes_as_another_error():
  rng = np.random.default_rng(0)
  refusals = 0
  for protocol in range(3):
    data = python2_dumps(SMALL, protocol)
    for _ in range(200):
      damaged = bytearray(data)
      for position in rng.integers(0, len(data), rng.integers(1, 4)):
        damaged[position] = rng.integers(0, 256)
      try:
        loads(bytes(damaged))
      except UnsafePickleError:
        refusals += 1
  assert refusals > 150


def test_a_missing_or_giant_file_is_named(tmp_path, monkeypatch):
  with pytest.raises(FileNotFoundError, match=r'nowhere\.pkl: no such file'):
    load_pickle(tmp_path / 'nowhere.pkl')
  (tmp_path / 'a.pkl').write_bytes(pickle.dumps([1, 2, 3]))
  monkeypatch.setattr('hand_jax.files.safe_pickle.MAX_BYTES', 5)
  with pytest.raises(UnsafePickleError, match=r'a\.pkl: larger than 5 bytes'):
    load_pickle(tmp_path / 'a.pkl')
