"""Writes JAX's slices, gathers and scatters as ONNX operators."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hand_jax.exporting.to_onnx.graph import Graph, Operand, Shape

# ONNX's word for "to the end", which a symbolic length needs.
_END = np.iinfo(np.int64).max


def slice_axes(
  graph: Graph,
  operand: Operand,
  ranges: Mapping[int, tuple[int, Any, int]],
  shape: Shape,
) -> Operand:
  """Takes start, stop and step along some axes.

  Args:
    graph: gets the node.
    operand: the whole array.
    ranges: start, stop and step by axis. A symbolic stop is the end.
    shape: of the result.
  """
  columns = [
    (start, stop if isinstance(stop, int) else _END, step, axis)
    for axis, (start, stop, step) in ranges.items()
  ]
  starts, stops, steps, axes = (np.array(column, np.int64) for column in zip(*columns, strict=True))
  return graph.add('Slice', [operand, starts, stops, axes, steps], shape)


def static_slice(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  """Writes `slice`, whose bounds are known."""
  (operand,), found = operands, equation.params
  steps = found['strides'] or (1,) * len(operand.shape)
  bounds = zip(found['start_indices'], found['limit_indices'], steps, operand.shape, strict=True)
  ranges = {
    axis: (start, stop, step)
    for axis, (start, stop, step, length) in enumerate(bounds)
    if (start, step) != (0, 1) or stop != length
  }
  if not ranges:
    return operand
  return slice_axes(graph, operand, ranges, equation.outvars[0].aval.shape)


def reverse(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  """Writes `rev`, which reverses axes."""
  ranges = dict.fromkeys(equation.params['dimensions'], (-1, -_END, -1))
  return slice_axes(graph, operands[0], ranges, equation.outvars[0].aval.shape)


def gather(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  """Writes `gather`: one slice at a known place, or elements along some axes."""
  operand, indices = operands
  numbers, sizes = equation.params['dimension_numbers'], equation.params['slice_sizes']
  shape = equation.outvars[0].aval.shape
  axes = [int(axis) for axis in numbers.start_index_map]
  if isinstance(indices, np.ndarray) and indices.ndim == 1:
    ranges = {
      axis: (int(start), int(start) + sizes[axis], 1)
      for axis, start in zip(axes, indices, strict=True)
    }
    return graph.reshape(slice_axes(graph, operand, ranges, sizes), shape)
  batching = [int(axis) for axis in numbers.operand_batching_dims]
  leading = tuple(numbers.start_indices_batching_dims) == tuple(range(len(batching)))
  single = all(sizes[axis] == 1 for axis in axes)
  if not leading or not single or sorted(numbers.collapsed_slice_dims) != sorted(axes):
    raise ValueError('this kind of gather cannot be written to ONNX.')
  rest = [axis for axis in range(len(operand.shape)) if axis not in (*axes, *batching)]
  places = [axis for axis in range(len(shape)) if axis not in numbers.offset_dims]
  if len(axes) == 1 and not batching and isinstance(indices, np.ndarray):
    # Gather puts the indices' axes in the place of the axis that they count along.
    before = sum(axis < axes[0] for axis in rest)
    offsets = [int(axis) for axis in numbers.offset_dims]
    order = [*offsets[:before], *places, *offsets[before:]]
    found = graph.add(
      'Gather', [operand, indices[..., 0]], [shape[axis] for axis in order], axis=axes[0]
    )
    return graph.transpose(found, np.argsort(order))
  order = [*places, *(int(axis) for axis in numbers.offset_dims)]
  operand = graph.transpose(operand, [*batching, *axes, *rest])
  if isinstance(indices, np.ndarray):
    indices = indices.astype(np.int64)
  else:
    indices = graph.add('Cast', [indices], indices.shape, to=7)  # int64, as GatherND demands
  found = graph.add(
    'GatherND', [operand, indices], [shape[axis] for axis in order], batch_dims=len(batching)
  )
  return graph.transpose(found, np.argsort(order))


def scatter(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  """Writes `scatter` that replaces known rows along one axis, by choosing from both arrays."""
  operand, indices, updates = operands
  numbers = equation.params['dimension_numbers']
  axes = [int(axis) for axis in numbers.scatter_dims_to_operand_dims]
  if (
    not isinstance(indices, np.ndarray)
    or indices.ndim != 2
    or len(axes) != 1
    or tuple(numbers.inserted_window_dims) != tuple(axes)
  ):
    raise ValueError('this kind of scatter cannot be written to ONNX.')
  axis = axes[0]
  windows = [int(dim) for dim in numbers.update_window_dims]
  rows = next(dim for dim in range(len(updates.shape)) if dim not in windows)
  updates = graph.transpose(updates, [*windows[:axis], rows, *windows[axis:]])
  length = operand.shape[axis]
  chosen = np.arange(length)
  chosen[indices[:, 0]] = length + np.arange(len(indices))
  both = [*operand.shape[:axis], length + len(indices), *operand.shape[axis + 1 :]]
  joined = graph.add('Concat', [operand, updates], both, axis=axis)
  return graph.add('Gather', [joined, chosen], operand.shape, axis=axis)
