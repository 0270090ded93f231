"""The PyTorch file reader: real files, damaged ones, hostile ones, and the mapping of names.

`fixtures/torch_zip.pth` and `torch_legacy.pth` were written by torch 2.13.0 (`torch.save`, the
second with `_use_new_zipfile_serialization=False`) and hold the same state dict.
"""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from hand_jax.models.import_torch import (
  IGNORED_ENTRY,
  LEGACY_MAGIC,
  import_torch_weights,
  map_state_dict,
  read_torch_file,
  torch_names,
)
from tests.backbone_states import (
  FIXTURES,
  backbone_shapes,
  filled_state,
  state_shapes,
  write_safetensors,
)

EXPECTED = {
  'plain': np.arange(6, dtype=np.float32).reshape(2, 3) / 4,
  'transposed': np.arange(24, dtype=np.float32).reshape(4, 6).T,
  'part': np.arange(5, 11, dtype=np.float32).reshape(3, 2),  # of the same storage as transposed
  'half': np.array([0.5, -1.25], np.float16),
  'scalar': np.array(7, np.int64),
  'double': np.array([1e-300], np.float64),
  'parameter': np.array([3, 4], np.float32),
  'empty': np.zeros((0, 3), np.float32),
}
FILES = ['torch_zip.pth', 'torch_legacy.pth']


def assert_same_arrays(actual, expected):
  assert actual.keys() == expected.keys()
  for name, array in expected.items():
    assert actual[name].dtype == array.dtype
    np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.parametrize('name', FILES)
def test_reads_files_written_by_torch(name):
  assert_same_arrays(read_torch_file(FIXTURES / name), EXPECTED)


def test_reads_safetensors(tmp_path):
  write_safetensors(tmp_path / 'a.safetensors', EXPECTED)
  assert_same_arrays(read_torch_file(tmp_path / 'a.safetensors'), EXPECTED)


@pytest.mark.slow
@pytest.mark.parametrize('name', [*FILES, 'a.safetensors'])
def test_every_truncation_is_a_clear_error(name, tmp_path):
  if name in FILES:
    data = (FIXTURES / name).read_bytes()
  else:
    write_safetensors(tmp_path / name, EXPECTED)
    data = (tmp_path / name).read_bytes()
  short = tmp_path / f'short.{name.split(".")[-1]}'
  for size in range(0, len(data), 7):
    short.write_bytes(data[:size])
    with pytest.raises(ValueError, match=r'short.* is not a readable PyTorch state dict'):
      read_torch_file(short)


def write_archive(path, head, storages=()):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', head)
    for key, data in dict(storages).items():
      archive.writestr(f'archive/data/{key}', data)


def write_legacy(path, head):
  start = [LEGACY_MAGIC, 1001, {'little_endian': True}]
  path.write_bytes(b''.join(pickle.dumps(part, 2) for part in start) + head + pickle.dumps([], 2))


class _Attack:
  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize('write', [write_archive, write_legacy])
@pytest.mark.parametrize('function', [os.mkdir, eval, getattr, pickle.loads, io.open])
def test_nothing_in_a_pickle_runs(function, write, tmp_path):
  trace = tmp_path / 'trace'
  arguments = {
    os.mkdir: (str(trace),),
    eval: (f'__import__("os").mkdir({str(trace)!r})',),
    getattr: (os, 'mkdir'),
    pickle.loads: (pickle.dumps(_Attack(os.mkdir, str(trace))),),
    io.open: (str(trace), 'w'),
  }[function]
  if function is getattr:
    head = b'cbuiltins\ngetattr\n.'
  else:
    head = pickle.dumps({'weight': _Attack(function, *arguments)}, 2)
  write(tmp_path / 'hostile.pth', head)
  with pytest.raises(ValueError, match=r"hostile\.pth.* asks for '.*', which is not allowed"):
    read_torch_file(tmp_path / 'hostile.pth')
  assert not trace.exists()


def torch_pickle(shape, strides, offset=0, size=4, storage_type='FloatStorage'):
  """The opcodes of {'w': tensor} as torch writes them."""

  def numbers(values):
    return b'(' + b''.join(b'J' + struct.pack('<i', value) for value in values) + b't'

  storage = f'(Vstorage\nctorch\n{storage_type}\nV0\nVcpu\n'.encode() + b'J'
  storage += struct.pack('<i', size) + b'tQ'
  tensor = b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + b'J' + struct.pack('<i', offset)
  tensor += numbers(shape) + numbers(strides) + b'\x89}tR'
  return b'\x80\x02}Vw\n' + tensor + b's.'


def test_handmade_pickle_is_what_torch_writes(tmp_path):
  write_archive(tmp_path / 'a.pth', torch_pickle((2, 2), (1, 2)), {'0': np.float32([1, 2, 3, 4])})
  np.testing.assert_array_equal(read_torch_file(tmp_path / 'a.pth')['w'], [[1, 3], [2, 4]])


@pytest.mark.parametrize(
  'head, message',
  [
    (torch_pickle((2, 3), (3, 1)), "'w' reaches beyond its storage"),
    (torch_pickle((2, 2), (2, 1), offset=1), "'w' reaches beyond its storage"),
    (torch_pickle((1 << 20, 1 << 20), (0, 0)), "'w' reaches beyond its storage"),
    (torch_pickle((2, 2), (2, -1)), 'no proper storage, offset, shape and strides'),
    (torch_pickle((2,), (2, 1)), 'no proper storage, offset, shape and strides'),
    (torch_pickle((2, 2), (2, 1), size=5), "storage '0' is missing or not as long"),
    (torch_pickle((2, 2), (2, 1), storage_type='BFloat16Storage'), 'torch.BFloat16Storage'),
    (pickle.dumps([1, 2], 2), 'no dictionary of tensors'),
    (pickle.dumps({'epoch': 3}, 2), "entry 'epoch' is not a named tensor"),
  ],
)
def test_inconsistent_tensors_are_refused(head, message, tmp_path):
  write_archive(tmp_path / 'a.pth', head, {'0': np.float32([1, 2, 3, 4])})
  with pytest.raises(ValueError, match=message):
    read_torch_file(tmp_path / 'a.pth')


def test_a_small_file_cannot_stand_for_much(tmp_path):
  """Nested tuples as a key, views without number of one storage, a compressed archive."""
  path = tmp_path / 'a.pth'
  data = np.zeros(1000, np.float32)
  write_archive(path, b'\x80\x02})' + b'2\x86' * 20 + b'Ns.')
  with pytest.raises(ValueError, match='a tuple stands where a plain key was expected'):
    read_torch_file(path)
  write_archive(path, b'\x80\x02Nr\xff\xff\xff\x7f.')  # a giant place in the memo
  with pytest.raises(ValueError, match='no dictionary of tensors'):
    read_torch_file(path)
  one = torch_pickle((10, 100), (1, 10), size=1000)[3:-2]
  views = b''.join(one.replace(b'Vw', b'V%d' % i, 1) + b's' for i in range(5))
  write_archive(path, b'\x80\x02}' + views + b'.', {'0': data})
  with pytest.raises(ValueError, match='more than 4 times as long as its storages'):
    read_torch_file(path)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', torch_pickle((1000,), (1,), size=1000))
    archive.writestr('archive/data/0', data)
  with pytest.raises(ValueError, match='holds more than its own size'):
    read_torch_file(path)


def test_attributes_of_a_state_dict_are_left_aside(tmp_path):
  """PyTorch gives a module's state dict `_metadata`, written as the state of an OrderedDict."""
  tensor = torch_pickle((2, 2), (2, 1))[3:-1]
  head = b'\x80\x02ccollections\nOrderedDict\n)R' + tensor
  head += b'}V_metadata\nccollections\nOrderedDict\n)Rsb.'
  write_archive(tmp_path / 'a.pth', head, {'0': np.float32([1, 2, 3, 4])})
  np.testing.assert_array_equal(read_torch_file(tmp_path / 'a.pth')['w'], [[1, 2], [3, 4]])


@pytest.mark.parametrize(
  'entry, message',
  [
    ({'dtype': 'BF16', 'shape': [2], 'data_offsets': [0, 4]}, 'type BF16'),
    ({'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 12]}, 'does not lie inside'),
    ({'dtype': 'F32', 'shape': [2], 'data_offsets': [4, 12]}, 'does not lie inside'),
    ({'dtype': 'F32', 'shape': [-2], 'data_offsets': [8, 0]}, 'does not lie inside'),
  ],
)
def test_inconsistent_safetensors_are_refused(entry, message, tmp_path):
  header = json.dumps({'w': entry}).encode()
  path = tmp_path / 'a.safetensors'
  path.write_bytes(struct.pack('<Q', len(header)) + header + bytes(8))
  with pytest.raises(ValueError, match=message):
    read_torch_file(path)


def test_other_files_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no weights at .*none\.pth'):
    read_torch_file(tmp_path / 'none.pth')
  (tmp_path / 'photo.pth').write_bytes(b'\xff\xd8\xff\xe0 a photo')
  with pytest.raises(ValueError, match=r'photo\.pth is not a readable PyTorch state dict'):
    read_torch_file(tmp_path / 'photo.pth')
  with zipfile.ZipFile(tmp_path / 'zip.pth', 'w') as archive:
    archive.writestr('readme.txt', 'hello')
  with pytest.raises(ValueError, match=r'does not hold one data\.pkl'):
    read_torch_file(tmp_path / 'zip.pth')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet50', 'efficientnet_b0', 'efficientnet_lite0'])
def test_every_published_entry_lands_in_its_own_place(name):
  """Fill each entry with its own number and look for all of them; shapes are checked on the way."""
  shapes = {key: s for key, s in state_shapes(name).items() if not IGNORED_ENTRY.fullmatch(key)}
  state = {key: np.full(shape, i, np.float32) for i, (key, shape) in enumerate(shapes.items())}
  mapped = map_state_dict(state, name, backbone_shapes(name), 'test')
  found = sorted(float(np.asarray(leaf).flat[0]) for leaf in flatten_dict(mapped).values())
  assert found == list(range(len(shapes)))


@pytest.mark.slow
def test_kernels_are_transposed():
  state = filled_state('efficientnet_b0')
  params = map_state_dict(state, 'efficientnet_b0', backbone_shapes('efficientnet_b0'), 'x')[
    'params'
  ]
  stem = np.asarray(params['stem']['kernel'])
  assert stem[2, 0, 1, 5] == state['features.0.0.weight'][5, 1, 2, 0]
  depthwise = np.asarray(params['stage1_block0']['depthwise']['kernel'])
  assert depthwise[2, 0, 0, 5] == state['features.1.0.block.0.0.weight'][5, 0, 2, 0]
  gate = np.asarray(params['stage1_block0']['squeeze_excite']['reduce']['kernel'])
  assert gate[3, 5] == state['features.1.0.block.1.fc1.weight'][5, 3, 0, 0]


def spoil(state, change):
  name = 'features.2.0.block.0.0.weight'
  if change == 'missing':
    del state[name]
  elif change == 'unexpected':
    state['features.9.weight'] = np.zeros(3, np.float32)
  elif change == 'shape':
    state[name] = state[name][:-1]
  else:
    state[name].flat[0] = np.nan


@pytest.mark.slow
@pytest.mark.parametrize(
  'change, message',
  [
    ('missing', r'lacks 1 entries: features\.2\.0\.block\.0\.0\.weight'),
    ('unexpected', r'unexpected 1 entries: features\.9\.weight'),
    ('shape', r"stage2_block0/expand/kernel' has shape \(1, 1, 16, 95\), expected"),
    ('nan', r"stage2_block0/expand/kernel' has values that are not finite"),
  ],
)
def test_state_dicts_that_do_not_fit_are_refused(change, message, tmp_path):
  state = filled_state('efficientnet_b0')
  spoil(state, change)
  path = tmp_path / 'weights.safetensors'
  write_safetensors(path, state)
  with pytest.raises(ValueError, match=f'weights.safetensors.*{message}'):
    import_torch_weights(path, 'efficientnet_b0', backbone_shapes('efficientnet_b0'))


@pytest.mark.slow
def test_another_networks_file_is_refused():
  state = filled_state('resnet50')
  with pytest.raises(ValueError, match='read as efficientnet_b0: the file lacks'):
    map_state_dict(state, 'efficientnet_b0', backbone_shapes('efficientnet_b0'), 'resnet.pth')


def test_tiny_has_no_torch_counterpart():
  with pytest.raises(ValueError, match="no torch counterpart of the backbone 'tiny'"):
    torch_names('tiny', [('stem',)])
