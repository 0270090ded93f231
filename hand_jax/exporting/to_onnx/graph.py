"""Collects the nodes and constants of an ONNX graph.

Constants are NumPy arrays until a node needs them, so that they are reshaped and transposed here
instead of in the exported program. A broadcast only inserts axes of length 1, because ONNX
broadcasts the inputs of its elementwise operators. `Graph.whole` repeats along them where an
operator needs the whole array.
"""

import importlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

# It comes with the extra `onnx`, and nothing else needs it.
onnx = importlib.import_module('onnx')
# The newest operators that these nodes need came with ONNX 1.13. Older readers refuse newer files.
OPSET = 18
IR_VERSION = 8

Shape = Sequence[Any]
"""Lengths of axes. That of a batch is an expression of JAX instead of a number."""


class Computed(NamedTuple):
  """An array that the exported program computes. An axis of length 1 may stand for a longer one."""

  name: str
  shape: tuple[Any, ...]


Operand = Computed | np.ndarray


class Graph:
  """An ONNX graph in the making."""

  def __init__(self, inputs: dict[str, Any], batch: Any):
    """Begins a graph.

    Args:
      inputs: shape and type of each input, by name. The first has the batch as its first axis.
      batch: the symbolic length of the batch.
    """
    self._batch = batch
    self._nodes: list[Any] = []
    self._constants: dict[int, tuple[str, np.ndarray]] = {}
    self._inputs = [
      onnx.helper.make_tensor_value_info(name, onnx_type(of.dtype), _names(of.shape))
      for name, of in inputs.items()
    ]
    self._batch_size: Computed | None = None

  def add(self, operator: str, operands: Sequence[Operand], shape: Shape, **settings) -> Computed:
    """Adds a node with one result.

    Args:
      operator: of ONNX.
      operands: its inputs.
      shape: of its result.
      **settings: its attributes.
    """
    name = f'{operator.lower()}_{len(self._nodes)}'
    names = [self._name(operand) for operand in operands]
    self._nodes.append(onnx.helper.make_node(operator, names, [name], **settings))
    return Computed(name, tuple(shape))

  def transpose(self, operand: Operand, order: Iterable[Any]) -> Operand:
    """Reorders axes."""
    order = [int(axis) for axis in order]
    if order == list(range(len(operand.shape))):
      return operand
    if isinstance(operand, np.ndarray):
      return operand.transpose(order)
    return self.add('Transpose', [operand], [operand.shape[axis] for axis in order], perm=order)

  def reshape(self, operand: Operand, shape: Shape) -> Operand:
    """Changes the shape, where at most one length is symbolic."""
    if tuple(operand.shape) == tuple(shape):
      return operand
    if isinstance(operand, np.ndarray):
      return operand.reshape(shape)
    return self.add('Reshape', [operand, _lengths(shape)], shape)

  def whole(self, operand: Operand, shape: Shape) -> Operand:
    """Repeats along axes of length 1 that stand for longer ones."""
    if tuple(operand.shape) == tuple(shape):
      return operand
    pairs = list(zip(operand.shape, shape, strict=True))
    lengths = [1 if have == length else length for have, length in pairs]
    if all(isinstance(length, int) for length in lengths):
      if isinstance(operand, np.ndarray):
        return np.broadcast_to(operand, shape)
      return self.add('Expand', [operand, np.array(lengths, np.int64)], shape)
    if any(length != self._batch for length in lengths if not isinstance(length, int)):
      raise ValueError(f'arrays of shape {shape} cannot be repeated in ONNX.')
    parts = [np.array([n], np.int64) if isinstance(n, int) else self._size() for n in lengths]
    target = self.add('Concat', parts, (len(parts),), axis=0)
    return self.add('Expand', [operand, target], shape)

  def model(self, results: dict[str, tuple[Operand, Any]]) -> Any:
    """Makes the file's content.

    Args:
      results: for each name the array, and its shape and type.
    """
    outputs = []
    for name, (operand, of) in results.items():
      whole = self._name(self.whole(operand, of.shape))
      self._nodes.append(onnx.helper.make_node('Identity', [whole], [name]))
      outputs.append(
        onnx.helper.make_tensor_value_info(name, onnx_type(of.dtype), _names(of.shape))
      )
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in self._stored()]
    graph = onnx.helper.make_graph(self._nodes, 'hand_jax', self._inputs, outputs, constants)
    opset = onnx.helper.make_opsetid('', OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model

  def _size(self) -> Computed:
    """Gives the length of the batch as an array of one number."""
    if self._batch_size is None:
      first = Computed(self._inputs[0].name, ())
      self._batch_size = self.add('Shape', [first], (1,), start=0, end=1)
    return self._batch_size

  def _name(self, operand: Operand) -> str:
    if isinstance(operand, Computed):
      return operand.name
    # The array is kept, or another one could get its id.
    name = f'constant_{len(self._constants)}'
    return self._constants.setdefault(id(operand), (name, operand))[0]

  def _stored(self) -> list[tuple[str, np.ndarray]]:
    # `ascontiguousarray` gives a single number an axis.
    return [
      (name, np.ascontiguousarray(value).reshape(value.shape))
      for name, value in self._constants.values()
    ]


def onnx_type(dtype: Any) -> int:
  """Returns ONNX's number of a type."""
  return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def joined(shapes: Sequence[Shape]) -> Shape:
  """Returns the shape to which elementwise operators broadcast their inputs."""
  rank = max(len(shape) for shape in shapes)
  aligned = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
  return tuple(
    next((n for n in lengths if not isinstance(n, int) or n != 1), 1)
    for lengths in zip(*aligned, strict=True)
  )


def _lengths(shape: Shape) -> np.ndarray:
  """Writes a shape for Reshape, which computes one length itself."""
  return np.array([n if isinstance(n, int) else -1 for n in shape], np.int64)


def _names(shape: Shape) -> list[int | str]:
  return [n if isinstance(n, int) else str(n) for n in shape]
