"""Reads the constants of a TensorFlow Lite file, by just enough of the FlatBuffers format.

The numbers of fields are those of TensorFlow's schema (`tensorflow/lite/schema/schema.fbs`).
"""

import struct
from typing import NamedTuple

import numpy as np

# `BuiltinOperator` of the schema has these codes.
CONV, DEPTHWISE, DEQUANTIZE, DENSE, PRELU = 3, 4, 6, 9, 54
_FLOAT16 = 1  # code of `TensorType`


class Layer(NamedTuple):
  """One operator with weights: its code, its constants in the file's layout, its output's name."""

  operator: int
  constants: list[np.ndarray]
  name: str


class _Table:
  """Reads a FlatBuffers table, whose fields are named by their numbers in the schema."""

  def __init__(self, data: bytes, position: int):
    self._data, self._position = data, position
    self._fields = position - struct.unpack_from('<i', data, position)[0]
    self._fields_end = self._fields + struct.unpack_from('<H', data, self._fields)[0]

  def number(self, field: int, code: str) -> int:
    position = self._find(field)
    return 0 if position is None else struct.unpack_from(f'<{code}', self._data, position)[0]

  def array(self, field: int, dtype: str) -> np.ndarray:
    """Returns a vector of numbers, which is empty where the field is missing."""
    start, length = self._vector(field)
    return np.frombuffer(self._data, dtype, length, start)

  def tables(self, field: int) -> list['_Table']:
    start, length = self._vector(field)
    return [_Table(self._data, _follow(self._data, start + 4 * i)) for i in range(length)]

  def text(self, field: int) -> str:
    return self.array(field, 'u1').tobytes().decode()

  def _find(self, field):
    slot = self._fields + 4 + 2 * field
    if slot >= self._fields_end:
      return None
    offset = struct.unpack_from('<H', self._data, slot)[0]
    return self._position + offset if offset else None

  def _vector(self, field):
    position = self._find(field)
    if position is None:
      return 0, 0
    start = _follow(self._data, position)
    return start + 4, struct.unpack_from('<I', self._data, start)[0]


def _follow(data: bytes, position: int) -> int:
  return position + struct.unpack_from('<I', data, position)[0]


def read_layers(data: bytes) -> list[Layer]:
  """Lists the operators that have half-precision weights, in the order in which they run.

  Raises:
    ValueError: the data is no TensorFlow Lite file, or a weight has another precision.
  """
  if data[4:8] != b'TFL3':
    raise ValueError("the data is no TensorFlow Lite file: bytes 4 to 8 are not 'TFL3'.")
  model = _Table(data, _follow(data, 0))
  operators = [max(code.number(0, 'b'), code.number(3, 'i')) for code in model.tables(1)]
  (graph,) = model.tables(2)
  tensors, buffers = graph.tables(0), model.tables(4)
  weights: dict[int, np.ndarray] = {}
  layers = []
  for operation in graph.tables(3):
    operator = operators[operation.number(0, 'I')]
    inputs, (output, *_) = operation.array(1, '<i4'), operation.array(2, '<i4')
    if operator == DEQUANTIZE:
      # The file converts its half-precision constants to floats before the layers that use them.
      weights[int(output)] = _read_half(tensors[inputs[0]], buffers)
    elif operator in (CONV, DEPTHWISE, DENSE, PRELU):
      constants = [weights[int(tensor)] for tensor in inputs[1:]]
      layers.append(Layer(operator, constants, tensors[output].text(3)))
  return layers


def _read_half(tensor: _Table, buffers: list[_Table]) -> np.ndarray:
  if tensor.number(1, 'b') != _FLOAT16:
    raise ValueError(f"constant '{tensor.text(3)}' is not of half precision.")
  data = buffers[tensor.number(2, 'I')].array(0, 'u1')
  return data.view('<f2').reshape(tensor.array(0, '<i4'))
