"""Writes files in MANO's format (Python 2, chumpy, old SciPy) with made-up content."""

import contextlib
import io
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import scipy.sparse

from hand_jax.mano.joints import MANO_PARENTS
from hand_jax.types import ManoModel


def _stub_class(module: str, name: str) -> type:
  return type(name, (), {'__module__': module})


Ch = _stub_class('chumpy.ch', 'Ch')
Select = _stub_class('chumpy.reordering', 'Select')
OldCsc = _stub_class('scipy.sparse.csc', 'csc_matrix')
_STUBS = {'chumpy.ch': [Ch], 'chumpy.reordering': [Select], 'scipy.sparse.csc': [OldCsc]}


@contextlib.contextmanager
def _importable_stubs() -> Iterator[None]:
  """Lets the pickler find the stub classes under the names that real files use."""
  before = {name: sys.modules.get(name) for name in (*_STUBS, 'chumpy')}
  try:
    sys.modules['chumpy'] = types.ModuleType('chumpy')
    for name, classes in _STUBS.items():
      sys.modules[name] = types.ModuleType(name)
      for stub in classes:
        setattr(sys.modules[name], stub.__name__, stub)
    yield
  finally:
    for name, module in before.items():
      if module is None:
        del sys.modules[name]
      else:
        sys.modules[name] = module


class _Python2Pickler(pickle._Pickler):
  """Writes text and bytes as Python 2's `str`, the only kind of string it had for both."""

  dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

  def _save_string(self, value):
    data = value if isinstance(value, bytes) else value.encode('latin1')
    if not self.bin:
      quoted = repr(data)[1:].encode('ascii')
      self.write(b'S' + quoted + b'\n')
    elif len(data) < 256:
      self.write(b'U' + struct.pack('<B', len(data)) + data)
    else:
      self.write(b'T' + struct.pack('<i', len(data)) + data)
    self.memoize(value)

  dispatch[bytes] = _save_string
  dispatch[str] = _save_string


def python2_dumps(content: object, protocol: int = 2) -> bytes:
  """Makes the bytes that Python 2 with an old NumPy would have written (protocols 0 to 2)."""
  file = io.BytesIO()
  with _importable_stubs():
    _Python2Pickler(file, protocol, fix_imports=True).dump(content)
  return file.getvalue().replace(b'numpy._core', b'numpy.core')


def chumpy_value(values: np.ndarray) -> object:
  value = Ch()
  value.__dict__.update(x=values, _dirty_vars={'x'}, _itr=None, _status='new')
  return value


def chumpy_select(values: np.ndarray, extra: int = 7) -> object:
  """Makes a chumpy selection of `values` out of a larger shuffled array."""
  rng = np.random.default_rng(0)
  source = rng.normal(size=values.size + extra)
  indices = rng.permutation(source.size)[: values.size]
  source[indices] = np.asarray(values, np.float64).ravel()
  selection = Select()
  selection.__dict__.update(a=chumpy_value(source), idxs=indices, preferred_shape=values.shape)
  return selection


def old_csc(matrix: np.ndarray) -> object:
  sparse = scipy.sparse.csc_matrix(matrix)
  old = OldCsc()
  old.__dict__.update(
    _shape=sparse.shape,
    maxprint=50,
    data=sparse.data,
    indices=sparse.indices,
    indptr=sparse.indptr,
  )
  return old


def official_content(model: ManoModel) -> dict[str, object]:
  """Converts a model to the dictionary of an official file."""
  arrays = {name: np.asarray(value) for name, value in model._asdict().items()}
  parents = np.asarray([2**32 - 1, *MANO_PARENTS[1:]], np.uint32)
  return {
    'bs_style': 'lbs',
    'bs_type': 'lrotmin',
    'v_template': arrays['v_template'].astype(np.float64),
    'shapedirs': chumpy_select(arrays['shapedirs']),
    'posedirs': arrays['posedirs'].astype(np.float64),
    'J_regressor': old_csc(arrays['joint_regressor'].astype(np.float64)),
    'J': arrays['joint_regressor'].astype(np.float64) @ arrays['v_template'],
    'weights': arrays['lbs_weights'].astype(np.float64),
    'kintree_table': np.stack([parents, np.arange(16, dtype=np.uint32)]),
    'f': arrays['faces'].astype(np.uint32),
    'hands_components': arrays['hands_components'].astype(np.float64),
    'hands_mean': arrays['hands_mean'].astype(np.float64),
    'hands_coeffs': np.zeros((20, 45)),
  }
