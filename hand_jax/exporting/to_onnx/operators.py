"""Writes the operations of a folded JAX program as ONNX operators."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hand_jax.exporting.to_onnx.graph import Graph, Operand, joined, onnx_type
from hand_jax.exporting.to_onnx.indexing import gather, reverse, scatter, static_slice

Writer = Callable[[Graph, Any, Sequence[Operand]], Operand]
"""Adds an equation's nodes to a graph and returns its result."""

# Elementwise operators of the same meaning. Most have the same name, with a capital.
_SAME = {
  name: name.capitalize()
  for name in [
    'abs',
    'add',
    'and',
    'cos',
    'div',
    'exp',
    'floor',
    'log',
    'max',
    'min',
    'mul',
    'neg',
    'not',
    'or',
    'sin',
    'sqrt',
    'sub',
    'tanh',
  ]
}
_SAME |= {'eq': 'Equal', 'lt': 'Less', 'gt': 'Greater', 'logistic': 'Sigmoid'}
_REDUCTIONS = {'reduce_sum': 'ReduceSum', 'reduce_max': 'ReduceMax', 'reduce_min': 'ReduceMin'}
_ONE = np.float32(1)


def write_equation(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[Operand]:
  """Adds an equation of a JAX program to a graph and returns its results.

  Args:
    graph: gets the nodes.
    equation: of the program.
    operands: what goes in.

  Raises:
    ValueError: ONNX has no operator for it, or none that is written here.
  """
  name = equation.primitive.name
  if name in _SAME:
    return [_elementwise(graph, _SAME[name], operands)]
  if name in _COMPOSED:
    return [_COMPOSED[name](graph, equation, operands)]
  shapes = [variable.aval.shape for variable in equation.invars]
  whole = [graph.whole(operand, shape) for operand, shape in zip(operands, shapes, strict=True)]
  if name == 'unstack':
    return _unstack(graph, equation, whole)
  writer = _reduce if name in _REDUCTIONS else _WHOLE.get(name)
  if writer is None or len(equation.outvars) != 1:
    raise ValueError(f'the operation {name!r} of JAX cannot be written to ONNX.')
  return [writer(graph, equation, whole)]


def _elementwise(graph: Graph, operator: str, operands: Sequence[Operand], **settings) -> Operand:
  return graph.add(operator, operands, joined([o.shape for o in operands]), **settings)


def _rsqrt(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  return _elementwise(graph, 'Reciprocal', [_elementwise(graph, 'Sqrt', operands)])


def _square(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  return _elementwise(graph, 'Mul', [operands[0], operands[0]])


def _log1p(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  return _elementwise(graph, 'Log', [_elementwise(graph, 'Add', [operands[0], np.array(_ONE)])])


def _integer_pow(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  (x,), power = operands, equation.params['y']
  found = x
  for _ in range(abs(power) - 1):
    found = _elementwise(graph, 'Mul', [found, x])
  return _elementwise(graph, 'Reciprocal', [found]) if power < 0 else found


def _select(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  chosen, *cases = operands
  if equation.invars[0].aval.dtype != np.bool_ or len(cases) != 2:
    raise ValueError('a choice among more than two cannot be written to ONNX.')
  return _elementwise(graph, 'Where', [chosen, *cases[::-1]])


def _convert(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  dtype = equation.params['new_dtype']
  if equation.invars[0].aval.dtype == dtype:
    return operands[0]
  return _elementwise(graph, 'Cast', operands, to=onnx_type(dtype))


def _broadcast(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  (operand,), found = operands, equation.params
  shape = [1] * len(found['shape'])
  for axis, length in zip(found['broadcast_dimensions'], operand.shape, strict=True):
    shape[axis] = length
  return graph.reshape(operand, tuple(shape))


def _transpose(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  return graph.transpose(operands[0], equation.params['permutation'])


def _reshape(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  return graph.reshape(operands[0], equation.outvars[0].aval.shape)


def _concatenate(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  shape, axis = equation.outvars[0].aval.shape, equation.params['dimension']
  return graph.add('Concat', operands, shape, axis=axis)


def _stack(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  shape, axis = equation.outvars[0].aval.shape, equation.params['axis']
  slices = (*shape[:axis], 1, *shape[axis + 1 :])
  parts = [graph.reshape(operand, slices) for operand in operands]
  return graph.add('Concat', parts, shape, axis=axis)


def _unstack(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[Operand]:
  """Writes what `jnp.unstack` is from JAX 0.12 on. Earlier ones slice."""
  axis, shape = int(equation.params['axis']), equation.outvars[0].aval.shape
  # ONNX drops the axis from which a single number takes a row.
  return [
    graph.add('Gather', [operands[0], np.array(row, np.int64)], shape, axis=axis)
    for row in range(len(equation.outvars))
  ]


def _reduce(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  operator, axes = _REDUCTIONS[equation.primitive.name], equation.params['axes']
  shape = equation.outvars[0].aval.shape
  return graph.add(operator, [operands[0], np.array(axes, np.int64)], shape, keepdims=0)


def _argmax(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  (axis,), shape = equation.params['axes'], equation.outvars[0].aval.shape
  found = graph.add('ArgMax', operands, shape, axis=int(axis), keepdims=0)
  return graph.add('Cast', [found], shape, to=onnx_type(equation.params['index_dtype']))


def _pad(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  low, high, inner = zip(*equation.params['padding_config'], strict=True)
  if any(inner):
    raise ValueError('padding between elements cannot be written to ONNX.')
  operand, value = operands
  pads = np.array([*low, *high], np.int64)
  return graph.add('Pad', [operand, pads, value], equation.outvars[0].aval.shape)


def _dot(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  """Writes `dot_general` as products of matrices (free x summed) and (summed x free)."""
  summed, batching = equation.params['dimension_numbers']
  matrices = []
  for side, operand in enumerate(operands):
    inner, outer = [int(axis) for axis in summed[side]], [int(axis) for axis in batching[side]]
    free = [axis for axis in range(len(operand.shape)) if axis not in (*inner, *outer)]
    groups = (free, inner) if side == 0 else (inner, free)
    lengths = [operand.shape[axis] for axis in outer]
    lengths += [math.prod([operand.shape[axis] for axis in group]) for group in groups]
    ordered = graph.transpose(operand, [*outer, *groups[0], *groups[1]])
    matrices.append(graph.reshape(ordered, tuple(lengths)))
  left, right = matrices
  found = graph.add('MatMul', matrices, (*left.shape[:-1], right.shape[-1]))
  return graph.reshape(found, equation.outvars[0].aval.shape)


def _convolve(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  found = equation.params
  numbers, kernel_shape = found['dimension_numbers'], operands[1].shape
  if found['batch_group_count'] != 1 or any(n != 1 for n in found['lhs_dilation']):
    raise ValueError('a transposed convolution cannot be written to ONNX.')
  images = graph.transpose(operands[0], numbers.lhs_spec)
  kernel = graph.transpose(operands[1], numbers.rhs_spec)
  shape = [equation.outvars[0].aval.shape[axis] for axis in numbers.out_spec]
  convolved = graph.add(
    'Conv',
    [images, kernel],
    shape,
    strides=list(found['window_strides']),
    dilations=list(found['rhs_dilation']),
    kernel_shape=[kernel_shape[axis] for axis in numbers.rhs_spec[2:]],
    pads=[pair[end] for end in (0, 1) for pair in found['padding']],
    group=found['feature_group_count'],
  )
  return graph.transpose(convolved, np.argsort(numbers.out_spec))


def _max_pool(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
  """Writes `reduce_window_max` over the two middle axes."""
  found, shape = equation.params, equation.outvars[0].aval.shape
  sizes = [found[name] for name in ('window_dimensions', 'window_strides', 'padding')]
  sizes += [found['base_dilation'], found['window_dilation']]
  window, strides, padding, *dilations = (tuple(values[1:3]) for values in sizes)
  if len(shape) != 4 or any(set(values) != {1} for values in dilations):
    raise ValueError('this kind of pooling cannot be written to ONNX.')
  pooled = graph.add(
    'MaxPool',
    [graph.transpose(operands[0], (0, 3, 1, 2))],
    [shape[axis] for axis in (0, 3, 1, 2)],
    kernel_shape=list(window),
    strides=list(strides),
    pads=[pair[end] for end in (0, 1) for pair in padding],
  )
  return graph.transpose(pooled, (0, 2, 3, 1))


# These take arrays whose axes of length 1 stand for longer ones, as elementwise operators do.
_COMPOSED: dict[str, Writer] = {
  'broadcast_in_dim': _broadcast,
  'convert_element_type': _convert,
  'integer_pow': _integer_pow,
  'log1p': _log1p,
  'rsqrt': _rsqrt,
  'select_n': _select,
  'square': _square,
  'transpose': _transpose,
}
# These take whole arrays.
_WHOLE: dict[str, Writer] = {
  'argmax': _argmax,
  'concatenate': _concatenate,
  'conv_general_dilated': _convolve,
  'dot_general': _dot,
  'expand_dims': _reshape,
  'gather': gather,
  'pad': _pad,
  'reduce_window_max': _max_pool,
  'reshape': _reshape,
  'rev': reverse,
  'scatter': scatter,
  'slice': static_slice,
  'squeeze': _reshape,
  'stack': _stack,
}
