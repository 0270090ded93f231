"""The names that a data pickle may use, and the arrays that they describe.

No function that a pickle names is ever called. The states of objects are read by their file
formats. NumPy's arrays keep (version, shape, dtype, Fortran order, bytes), and SciPy's sparse
matrices keep compressed columns or rows. A plain value of chumpy keeps `x`, and a selection from
another value keeps `a`, `idxs` and `preferred_shape`.
"""

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

MAX_DENSE_ENTRIES = 20_000_000
# This limits all arrays of a file together. Otherwise a small file could repeat the same large
# content many times and fill the memory.
MAX_ARRAY_BYTES = 512 * 1024 * 1024
_MAX_DEPTH = 100
_DTYPE = re.compile(r'[|<>=]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6})')
_UNSET = object()


class UnsafePickleError(ValueError):
  """The error for a file that is damaged, or that holds something other than plain data."""


@dataclasses.dataclass(frozen=True)
class Global:
  """An allowed name. `kind` is the same for all modules that a name has had over the years."""

  kind: str
  name: str


class Node:
  """The arguments and the state of an object whose class is allowed, before it is resolved."""

  def __init__(self, kind: str, arguments: tuple = ()):
    self.kind = kind
    self.arguments = arguments
    self.state: Any = _UNSET

  @classmethod
  def instance_of(cls, class_name: Global) -> 'Node':
    """Makes an object without state, or refuses a name that is no class of data."""
    if class_name.kind not in _CLASSES:
      raise UnsafePickleError(f'{class_name.name} is not a class of data')
    return cls(class_name.kind)

  def set_state(self, state: Any) -> None:
    """Keeps the object's state, which may be given only once and only to some classes."""
    if self.state is not _UNSET or self.kind not in _STATEFUL:
      raise UnsafePickleError(f'unexpected state for an object of kind {self.kind}')
    self.state = state


def _names(modules: str, **kinds: str) -> dict[tuple[str, str], str]:
  return {(module, name): kind for module in modules.split() for name, kind in kinds.items()}


_ALLOWED = {
  **_names('numpy', ndarray='ndarray', dtype='dtype'),
  **_names('numpy.core.multiarray numpy._core.multiarray', _reconstruct='array', scalar='scalar'),
  **_names('numpy.core.numeric numpy._core.numeric', _frombuffer='buffer'),
  **_names('_codecs', encode='encode'),
  **_names('copy_reg copyreg', _reconstructor='reconstructor', __newobj__='new_object'),
  **_names('__builtin__ builtins', object='object', set='set', bytes='bytes'),
  **_names('collections', OrderedDict='ordered_dict'),
  **_names('scipy.sparse.csc scipy.sparse._csc', csc_matrix='csc_matrix'),
  **_names('scipy.sparse.csr scipy.sparse._csr', csr_matrix='csr_matrix'),
  **_names('chumpy.ch', Ch='chumpy_value'),
  **_names('chumpy.reordering', Select='chumpy_select'),
}
_CLASSES = ('csc_matrix', 'csr_matrix', 'chumpy_value', 'chumpy_select')
_STATEFUL = (*_CLASSES, 'array', 'dtype')


def find_global(module: Any, name: Any) -> Global:
  """Looks up a name of a module among the allowed ones.

  Raises:
    UnsafePickleError: the name is not allowed.
  """
  if not isinstance(module, str) or not isinstance(name, str):
    raise UnsafePickleError('damaged pickle (a name that is not text)')
  full_name = f'{module}.{name}'[:80]
  kind = _ALLOWED.get((module, name))
  if kind is None:
    raise UnsafePickleError(
      f'refused: it names {full_name!r}, which is not plain data; nothing in it was run'
    )
  return Global(kind, full_name)


def call_global(function: Any, arguments: Any) -> Any:
  """Makes plain data or a `Node` in place of `function(*arguments)`, and calls nothing.

  Raises:
    UnsafePickleError: the function is not allowed, or not with these arguments.
  """
  if not isinstance(function, Global) or not isinstance(arguments, tuple):
    raise UnsafePickleError('refused: it calls something that is not a known name')
  kind = function.kind
  if kind == 'encode':
    return _encode(arguments)
  if kind in ('reconstructor', 'new_object'):
    if not arguments or not isinstance(arguments[0], Global):
      raise UnsafePickleError('an object is made from something that is not a known class')
    if kind == 'reconstructor' and not _is_plain_base(arguments):
      raise UnsafePickleError('an object is made with an unexpected base class')
    return Node.instance_of(arguments[0])
  if kind == 'bytes' and not arguments:
    return b''  # Python 3 writes an empty string of bytes like this for Python 2.
  if kind == 'ordered_dict':
    return ordered_dict(arguments)
  if kind == 'set':
    items = arguments[0] if arguments and isinstance(arguments[0], list) else []
    check_keys(items)
    return set(items)
  if kind in ('array', 'dtype', 'scalar', 'buffer'):
    return Node(kind, arguments)
  raise UnsafePickleError(f'refused: it calls {function.name}')


def ordered_dict(arguments: tuple) -> dict[Any, Any]:
  """Makes the dict in place of `OrderedDict(*arguments)`, empty or from a list of pairs.

  Raises:
    UnsafePickleError: the arguments are something else, or a key is not plain.
  """
  pairs = arguments[0] if arguments else []
  if not isinstance(pairs, list) or not all(
    isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
  ):
    raise UnsafePickleError('an ordered dictionary is not made from pairs')
  check_keys([key for key, _ in pairs])
  return dict(pairs)


def check_keys(keys: Iterable[Any]) -> None:
  """Refuses keys and set members other than text, numbers, None and values not resolved yet.

  Python hashes the whole content of a tuple each time that it is used as a key. A few bytes of
  nested tuples could therefore take for ever or overflow the stack.

  Raises:
    UnsafePickleError: a key is something else, such as a tuple.
  """
  for key in keys:
    if not (key is None or isinstance(key, str | bytes | int | float | Node)):
      raise UnsafePickleError(f'a {type(key).__name__} stands where a plain key was expected')


def _is_plain_base(arguments: tuple) -> bool:
  base = arguments[1] if len(arguments) == 3 else None
  return isinstance(base, Global) and base.kind == 'object' and arguments[2] is None


def _encode(arguments: tuple) -> bytes:
  if (
    len(arguments) != 2
    or not isinstance(arguments[0], str)
    or arguments[1] not in ('latin1', 'latin-1')
  ):
    raise UnsafePickleError('bytes are not written as Latin-1 text')
  return arguments[0].encode('latin1')


def resolve(value: Any) -> Any:
  """Replaces every `Node` in plain data by its array. Parts that are shared stay shared.

  Raises:
    UnsafePickleError: an array is damaged or too large, or the data contains itself.
  """
  return _Resolver().resolve(value, 0)


class _Resolver:
  def __init__(self):
    # Maps the identity of each source to (source, result), so that a repeated part is resolved
    # once. The entry is None while its part is being resolved. Sources are kept so that no other
    # object gets the same id.
    self.done: dict[int, tuple[Any, Any] | None] = {}
    self.array_bytes = 0

  def resolve(self, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
      return value
    if depth > _MAX_DEPTH:
      raise UnsafePickleError(f'nested more than {_MAX_DEPTH} deep')
    if id(value) in self.done:
      known = self.done[id(value)]
      if known is None:
        raise UnsafePickleError('it contains itself')
      return known[1]
    self.done[id(value)] = None
    result = self._convert(value, depth + 1)
    self.done[id(value)] = (value, result)
    return result

  def _convert(self, value: Any, depth: int) -> Any:
    if isinstance(value, Node):
      result = self._convert_node(value, depth)
      self.array_bytes += getattr(result, 'nbytes', 0)
      if self.array_bytes > MAX_ARRAY_BYTES:
        raise UnsafePickleError(f'its arrays take more than {MAX_ARRAY_BYTES} bytes')
      return result
    if isinstance(value, dict):
      return {self.resolve(k, depth): self.resolve(v, depth) for k, v in value.items()}
    if isinstance(value, list | set | tuple):
      return type(value)(self.resolve(item, depth) for item in value)
    name = value.name if isinstance(value, Global) else type(value).__name__
    raise UnsafePickleError(f'{name} stands where data was expected')

  def _convert_node(self, node: Node, depth: int) -> Any:
    if node.kind == 'dtype':
      return _dtype(node)
    if node.kind == 'buffer':
      data, dtype, shape, order = self._parts(node.arguments, 4, depth)
      return _array_from_bytes(data, dtype, shape, order == 'F')
    if node.kind == 'scalar':
      dtype, data = self._parts(node.arguments, 2, depth)
      return _array_from_bytes(data, dtype, (), False)[()]
    if node.state is _UNSET:
      raise UnsafePickleError(f'an object of kind {node.kind} has no content')
    if node.kind == 'array':
      _, shape, dtype, fortran, data = self._parts(node.state, 5, depth)
      return _array_from_bytes(data, dtype, shape, bool(fortran))
    if not isinstance(node.state, dict):
      raise UnsafePickleError(f'an object of kind {node.kind} has an unknown state')
    if node.kind == 'chumpy_value':
      (values,) = self._arrays(node, ('x',), depth)
      return values
    if node.kind == 'chumpy_select':
      return self._select(node, depth)
    return self._sparse(node, depth)

  def _parts(self, values: Any, count: int, depth: int) -> list[Any]:
    if not isinstance(values, tuple) or len(values) != count:
      raise UnsafePickleError(f'an array is described by something other than {count} values')
    return [self.resolve(value, depth) for value in values]

  def _fields(self, node: Node, names: tuple[str, ...], depth: int) -> list[Any]:
    missing = [name for name in names if name not in node.state]
    if missing:
      raise UnsafePickleError(f'an object of kind {node.kind} lacks {missing[0]!r}')
    return [self.resolve(node.state[name], depth) for name in names]

  def _arrays(self, node: Node, names: tuple[str, ...], depth: int) -> list[np.ndarray]:
    """Reads fields that must be numbers or arrays of numbers.

    Nested lists are refused, because NumPy would copy a shared list for every mention.
    """
    values = [np.asarray(v) for v in self._fields(node, names, depth) if _is_numeric(v)]
    if len(values) != len(names):
      raise UnsafePickleError(f'an object of kind {node.kind} holds something other than numbers')
    return values

  def _select(self, node: Node, depth: int) -> np.ndarray:
    source, indices = self._arrays(node, ('a', 'idxs'), depth)
    if indices.size * source.itemsize > MAX_ARRAY_BYTES:
      raise UnsafePickleError(f'a selection takes more than {MAX_ARRAY_BYTES} bytes')
    selected = source.ravel()[indices]
    if node.state.get('preferred_shape') is None:
      return selected
    (shape,) = self._fields(node, ('preferred_shape',), depth)
    return selected.reshape(tuple(int(size) for size in np.ravel(shape)))

  def _sparse(self, node: Node, depth: int) -> np.ndarray:
    """Expands a compressed sparse matrix to a dense array."""
    shape_name = '_shape' if '_shape' in node.state else 'shape'
    data, indices, pointers = self._arrays(node, ('data', 'indices', 'indptr'), depth)
    (shape,) = self._fields(node, (shape_name,), depth)
    rows, columns = (int(size) for size in shape)
    if min(rows, columns) < 0 or rows * columns > MAX_DENSE_ENTRIES:
      raise UnsafePickleError(f'a sparse matrix of {rows} x {columns} entries is too large')
    by_column = node.kind == 'csc_matrix'
    outer, inner = (columns, rows) if by_column else (rows, columns)
    # Compare the pointers themselves: their differences may overflow and look harmless.
    rising = pointers.shape == (outer + 1,) and np.all(pointers[1:] >= pointers[:-1])
    if not rising or pointers[0] != 0 or pointers[-1] != indices.size:
      raise UnsafePickleError('a sparse matrix with inconsistent index arrays')
    dense = np.zeros((outer, inner), data.dtype)
    np.add.at(dense, (np.repeat(np.arange(outer), np.diff(pointers)), indices), data)
    return dense.T if by_column else dense


def _is_numeric(value: Any) -> bool:
  if isinstance(value, np.ndarray):
    return value.dtype.kind in 'biufc'
  return isinstance(value, int | float | complex | np.number | np.bool_)


def _dtype(node: Node) -> np.dtype:
  """Makes a NumPy type of fixed size. Its byte order may come later, in the state."""
  code = node.arguments[0] if node.arguments else None
  if not isinstance(code, str) or not _DTYPE.fullmatch(code):
    shown = repr(code[:20]) if isinstance(code, str) else type(code).__name__
    raise UnsafePickleError(f'arrays of type {shown} are not plain numbers')
  order = node.state[1] if isinstance(node.state, tuple) and len(node.state) > 1 else '|'
  if order not in ('<', '>', '=', '|'):
    raise UnsafePickleError('an array type with an unknown byte order')
  return np.dtype(code) if order in '|=' else np.dtype(code).newbyteorder(order)


def _array_from_bytes(data: Any, dtype: Any, shape: Any, fortran: bool) -> np.ndarray:
  """Makes an array from the bytes in the file, whose number must match the shape.

  A large shape without its bytes therefore allocates no memory.
  """
  if isinstance(data, str):
    data = data.encode('latin1')
  if not isinstance(data, bytes) or not isinstance(dtype, np.dtype):
    raise UnsafePickleError('an array without its bytes or its type')
  shape = (shape,) if isinstance(shape, int) else shape
  if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
    raise UnsafePickleError('an array whose shape is not a tuple of sizes')
  if math.prod(shape) * dtype.itemsize != len(data):
    raise UnsafePickleError(f'an array of shape {shape} does not fit its {len(data)} bytes')
  array = np.frombuffer(data, dtype).reshape(shape, order='F' if fortran else 'C')
  return array.astype(dtype.newbyteorder('='))  # This copy is writable and in native byte order.
