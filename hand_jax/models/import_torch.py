"""Reads PyTorch weight files without PyTorch, and puts them into our backbones.

There are three formats: `.safetensors`, `.pth` as a zip archive (PyTorch 1.6 and newer), and `.pth`
in the older form, which has several pickles followed by the raw storages. The interpreter of
`hand_jax.files.safe_pickle` reads the pickles with a short list of names. Nothing in a file can
run, and a small file cannot expand to more data than it holds.
"""

import enum
import json
import math
import pathlib
import re
import zipfile
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hand_jax.files.pickled_objects import UnsafePickleError, ordered_dict
from hand_jax.files.safe_pickle import PickleInterpreter

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
# Tensors may share storages. Together they may have this many times the entries of their storages.
MAX_VIEWS = 4
MAX_HEADER_BYTES = 64 * 2**20  # The pickle or JSON header of a real file has some 100 kB.

STORAGE_TYPES = {
  'DoubleStorage': np.dtype('<f8'),
  'FloatStorage': np.dtype('<f4'),
  'HalfStorage': np.dtype('<f2'),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
}
SAFETENSORS_TYPES = {
  'F64': np.dtype('<f8'),
  'F32': np.dtype('<f4'),
  'F16': np.dtype('<f2'),
  'I64': np.dtype('<i8'),
  'I32': np.dtype('<i4'),
}
# These entries of a state dict have no counterpart in our backbones.
IGNORED_ENTRY = re.compile(r'(.*\.num_batches_tracked|(fc|_fc|classifier\.\d+)\.(weight|bias))')


class _Storage(NamedTuple):
  """The description of a flat array in a file, which is not read yet."""

  dtype: np.dtype
  key: str
  size: int


class _Tensor(NamedTuple):
  """A strided view of a storage."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class _TorchPickle(PickleInterpreter):
  """Accepts the names that a state dict needs, and refuses all others. It calls none of them."""

  def find_global(self, module, name):
    if (module, name) in _CALLED_NAMES:
      return _CALLED_NAMES[module, name]
    if module == 'torch' and name in STORAGE_TYPES:
      return STORAGE_TYPES[name]
    full_name = f'{module}.{name}'[:80]
    raise UnsafePickleError(f'it asks for {full_name!r}, which is not allowed')

  def call_global(self, function, arguments):
    if not isinstance(function, _Called) or not isinstance(arguments, tuple):
      raise UnsafePickleError('it calls something that is not a known name')
    if function is _Called.ORDERED_DICT:
      return ordered_dict(arguments)
    if function is _Called.PARAMETER and arguments:
      return arguments[0]
    return _describe_tensor(*arguments)

  def set_state(self, value, state):
    # Ignore attributes of a state dict, such as the versions of its modules.
    if not isinstance(value, dict):
      raise UnsafePickleError(f'a state is given to a {type(value).__name__}')

  def load_persistent(self, reference):
    kind, dtype, key, _, size, *view = reference
    plain = isinstance(dtype, np.dtype) and type(key) is str and type(size) is int
    if kind != 'storage' or not plain or size < 0 or any(view):
      raise UnsafePickleError('a storage is not described by a type, a key and a size')
    return _Storage(dtype, key, size)


class _Called(enum.Enum):
  """The names that a file may call."""

  ORDERED_DICT = enum.auto()
  TENSOR = enum.auto()
  PARAMETER = enum.auto()


_CALLED_NAMES = {
  ('collections', 'OrderedDict'): _Called.ORDERED_DICT,
  ('torch._utils', '_rebuild_tensor_v2'): _Called.TENSOR,
  ('torch._utils', '_rebuild_parameter'): _Called.PARAMETER,
}


def _describe_tensor(storage, offset, shape, strides, *_) -> _Tensor:
  tuples = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
  plain = tuples and all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
  if not isinstance(storage, _Storage) or not plain:
    raise UnsafePickleError('a tensor has no proper storage, offset, shape and strides')
  return _Tensor(storage, offset, shape, strides)


def read_torch_file(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the state dict of a `.pth` (either form) or `.safetensors` file as arrays by name.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file has none of these formats, is truncated, or holds anything but plain
      tensors.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'no weights at {path}; give a .pth or .safetensors file.')
  try:
    with path.open('rb') as file:
      if path.suffix == '.safetensors':
        return _read_safetensors(file, path.stat().st_size)
      is_zip = file.read(4) == b'PK\x03\x04'
      file.seek(0)
      if is_zip:
        return _read_zip(file, path.stat().st_size)
      return _read_legacy(file.read())
  # A damaged pickle can raise nearly any exception.
  except Exception as error:
    raise ValueError(f'{path} is not a readable PyTorch state dict: {error}') from error


def _read_zip(file: BinaryIO, file_size: int) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(file) as archive:
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    heads = [name for name in sizes if name.endswith('/data.pkl') and name.count('/') == 1]
    if len(heads) != 1 or sizes[heads[0]] > MAX_HEADER_BYTES:
      raise ValueError('the archive does not hold one data.pkl of a sensible size')
    folder = heads[0].removesuffix('data.pkl')
    if sizes.get(f'{folder}byteorder', 0) == 3:  # The file then says 'big', not 'little'.
      raise ValueError('it was written on a big-endian machine')
    # PyTorch does not compress. With this check nothing that is read can be larger than the file.
    if sum(sizes.values()) > file_size:
      raise ValueError('the archive holds more than its own size')
    state = _TorchPickle(archive.read(heads[0])).run()

    def read_storage(storage):
      name = f'{folder}data/{storage.key}'
      if sizes.get(name) != storage.size * storage.dtype.itemsize:
        raise ValueError(f"storage '{storage.key}' is missing or not as long as its tensors say")
      return np.frombuffer(archive.read(name), storage.dtype)

    storages = {storage.key: read_storage(storage) for storage in _storages_of(state)}
  return _materialize(state, storages)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
  position = 0

  def load() -> Any:
    nonlocal position
    pickled = _TorchPickle(data, position)
    content = pickled.run()
    position = pickled.reader.position
    return content

  if load() != LEGACY_MAGIC or load() != LEGACY_PROTOCOL:
    raise ValueError('neither a zip archive nor the older form (magic number, protocol 1001)')
  if load().get('little_endian') is not True:
    raise ValueError('it was written on a big-endian machine')
  state = load()
  described = {storage.key: storage for storage in _storages_of(state)}
  storages = {}
  for key in load():
    storage = described[key]
    size = int.from_bytes(data[position : position + 8], 'little')
    position += 8
    if size != storage.size or size * storage.dtype.itemsize > len(data) - position:
      raise ValueError(f"storage '{key}' is cut short or not as long as its tensors say")
    end = position + size * storage.dtype.itemsize
    storages[key] = np.frombuffer(memoryview(data)[position:end], storage.dtype)
    position = end
  return _materialize(state, storages)


def _storages_of(state: Any) -> list[_Storage]:
  if not isinstance(state, dict) or not state:
    raise ValueError('it holds no dictionary of tensors')
  for name, value in state.items():
    if not isinstance(name, str) or not isinstance(value, _Tensor):
      raise ValueError(f'entry {name!r} is not a named tensor; expected a flat state dict')
  return list({tensor.storage for tensor in state.values()})


def _materialize(state: dict[str, _Tensor], storages: dict[str, np.ndarray]) -> dict:
  arrays = {}
  # Views may share a storage, but copies of them may not fill the memory.
  entries_left = MAX_VIEWS * sum(storage.size for storage in storages.values())
  for name, (storage, offset, shape, strides) in state.items():
    flat = storages[storage.key]
    count = math.prod(shape)
    reach = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1
    if count > flat.size or (count > 0 and reach > flat.size):
      raise ValueError(f"tensor '{name}' reaches beyond its storage")
    entries_left -= count
    if entries_left < 0:
      raise ValueError(f'its tensors are more than {MAX_VIEWS} times as long as its storages')
    byte_strides = [step * flat.itemsize for step in strides]
    view = np.lib.stride_tricks.as_strided(flat[offset:], shape, byte_strides)
    arrays[name] = np.ascontiguousarray(view).reshape(shape)
  return arrays


def _read_safetensors(file: BinaryIO, file_size: int) -> dict[str, np.ndarray]:
  header_size = int.from_bytes(file.read(8), 'little')
  if header_size > min(MAX_HEADER_BYTES, file_size - 8):
    raise ValueError('the header is longer than the file')
  header = json.loads(file.read(header_size))
  data = memoryview(file.read())  # Slices of a memoryview are no copies.
  arrays = {}
  for name, entry in header.items():
    if name == '__metadata__':
      continue
    dtype = SAFETENSORS_TYPES.get(entry['dtype'])
    if dtype is None:
      raise ValueError(f"tensor '{name}' has type {entry['dtype']}, which is not supported")
    begin, end = entry['data_offsets']
    count = math.prod(entry['shape'])
    if not 0 <= begin <= end <= len(data) or end - begin != count * dtype.itemsize:
      raise ValueError(f"tensor '{name}' does not lie inside the file with its shape")
    arrays[name] = np.frombuffer(data[begin:end], dtype).reshape(entry['shape'])
  return arrays


def torch_names(backbone: str, layers: list[tuple[str, ...]]) -> dict[tuple[str, ...], list[str]]:
  """Maps the path of each of our layers to the torch names of its convolution and normalisation.

  A layer without normalisation has one name. resnet50 and efficientnet_b0 follow torchvision, and
  efficientnet_lite0 follows the PyPI package efficientnet-lite-pytorch.

  Raises:
    ValueError: the backbone has no published weights.
  """
  if backbone == 'resnet50':
    return {layer: _resnet_names(layer) for layer in layers}
  if backbone == 'efficientnet_b0':
    return {layer: _efficientnet_names(layer, layers) for layer in layers}
  if backbone == 'efficientnet_lite0':
    blocks = sorted({layer[0] for layer in layers if len(layer) == 2})
    return {layer: _lite_names(layer, blocks) for layer in layers}
  raise ValueError(f"there is no torch counterpart of the backbone '{backbone}'.")


def _stage_and_block(name: str) -> tuple[int, int]:
  stage, block = re.findall(r'\d+', name)
  return int(stage), int(block)


def _resnet_names(layer):
  if layer == ('stem',):
    return ['conv1', 'bn1']
  stage, block = _stage_and_block(layer[0])
  prefix = f'layer{stage}.{block}'
  if layer[1] == 'shortcut':
    return [f'{prefix}.downsample.0', f'{prefix}.downsample.1']
  number = ['reduce', 'middle', 'expand'].index(layer[1]) + 1
  return [f'{prefix}.conv{number}', f'{prefix}.bn{number}']


def _efficientnet_names(layer, layers):
  if len(layer) == 1:
    prefix = {'stem': 'features.0', 'head': 'features.8'}[layer[0]]
    return [f'{prefix}.0', f'{prefix}.1']
  stage, block = _stage_and_block(layer[0])
  parts = ['expand', 'depthwise', 'squeeze_excite', 'project']
  if (layer[0], 'expand') not in layers:
    parts.remove('expand')
  prefix = f'features.{stage}.{block}.block.{parts.index(layer[1])}'
  if layer[1] == 'squeeze_excite':
    return [f'{prefix}.fc{["reduce", "expand"].index(layer[2]) + 1}']
  return [f'{prefix}.0', f'{prefix}.1']


def _lite_names(layer, blocks):
  if len(layer) == 1:
    return {'stem': ['_conv_stem', '_bn0'], 'head': ['_conv_head', '_bn1']}[layer[0]]
  prefix = f'_blocks.{blocks.index(layer[0])}'
  norm = ['expand', 'depthwise', 'project'].index(layer[1])
  return [f'{prefix}._{layer[1]}_conv', f'{prefix}._bn{norm}']


NORM_ENTRIES = {'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}


def map_state_dict(
  state: dict[str, np.ndarray], backbone: str, variables: dict[str, Any], source: str
) -> dict[str, Any]:
  """Replaces a backbone's variables by the values of a torch state dict, in float32.

  Classifiers and `num_batches_tracked` are ignored. Everything else must match.

  Args:
    state: arrays by torch's names.
    backbone: the name of the backbone.
    variables: the backbone's initialised variables.
    source: the name of the weights in errors.

  Raises:
    ValueError: an entry is missing, unexpected, not finite or of another shape.
  """
  paths = list(flatten_dict(variables))
  names = torch_names(backbone, list(dict.fromkeys(path[1:-1] for path in paths)))
  entries = {}
  for path in paths:
    convolution, *norm = names[path[1:-1]]
    if path[-1] == 'kernel':
      entries[path] = f'{convolution}.weight'
    else:
      entries[path] = f'{[convolution, *norm][-1]}.{NORM_ENTRIES[path[-1]]}'
  state = {name: value for name, value in state.items() if not IGNORED_ENTRY.fullmatch(name)}
  _require_same_names(set(entries.values()), set(state), f'{source}, read as {backbone}')
  arrays = {'/'.join(path): _our_layout(path, state[name]) for path, name in entries.items()}
  return replace_leaves(variables, arrays, source)


def _our_layout(path, value):
  """Turns kernels from (outputs, inputs, height, width) to (height, width, inputs, outputs)."""
  if path[-1] != 'kernel' or value.ndim != 4:
    return value
  kernel = value.transpose(2, 3, 1, 0)
  return kernel[0, 0] if 'squeeze_excite' in path else kernel


def replace_leaves(
  variables: dict[str, Any], arrays: dict[str, np.ndarray], source: str
) -> dict[str, Any]:
  """Replaces every leaf of a tree of variables by an array in float32.

  Args:
    variables: the tree.
    arrays: the values by the path of their leaf, joined with '/'.
    source: the name of the arrays in errors.

  Raises:
    ValueError: names or shapes differ, or a value is not finite.
  """
  leaves: dict[str, Any] = flatten_dict(variables, sep='/')
  _require_same_names(set(leaves), set(arrays), source)
  for name, leaf in leaves.items():
    if leaf.shape != arrays[name].shape:
      raise ValueError(
        f"{source}: '{name}' has shape {arrays[name].shape}, expected {leaf.shape}; "
        'the file belongs to another architecture.'
      )
    if not np.isfinite(arrays[name]).all():
      raise ValueError(f"{source}: '{name}' has values that are not finite.")
  new = {name: jnp.asarray(arrays[name], jnp.float32) for name in leaves}
  return unflatten_dict(new, sep='/')


def _require_same_names(expected: set[str], found: set[str], source: str) -> None:
  for word, names in (('lacks', expected - found), ('has unexpected', found - expected)):
    if names:
      shown = ', '.join(sorted(names)[:3]) + (', ...' if len(names) > 3 else '')
      raise ValueError(f'{source}: the file {word} {len(names)} entries: {shown}.')


def import_torch_weights(
  path: str | pathlib.Path, backbone: str, variables: dict[str, Any]
) -> dict[str, Any]:
  """Replaces a backbone's variables by the values of a `.pth` or `.safetensors` file.

  Args:
    path: the file.
    backbone: the name of the backbone.
    variables: the backbone's initialised variables.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file cannot be read, or holds another network.
  """
  return map_state_dict(read_torch_file(path), backbone, variables, str(path))
