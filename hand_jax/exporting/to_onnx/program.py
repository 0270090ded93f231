"""Turns a function of JAX into an ONNX program with a symbolic batch."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core

from hand_jax.exporting.folding import trace_folded
from hand_jax.exporting.to_onnx.graph import Computed, Graph, Operand
from hand_jax.exporting.to_onnx.operators import write_equation

# No platform of JAX: `platform_dependent` then chooses its convolutions as they stand.
_PLATFORM = 'onnx'


def onnx_program(function: Callable, inputs: dict[str, jax.ShapeDtypeStruct]) -> bytes:
  """Makes the content of an ONNX file that computes a function.

  Args:
    function: takes arrays by position and returns a flat dictionary of arrays, whose names the
      program's outputs get.
    inputs: name, shape and type of each argument. The first axis of the first one is the batch.

  Raises:
    ValueError: the function has an operation that is not written to ONNX.
  """
  arguments = tuple(inputs.values())
  folded = trace_folded(function, arguments, _PLATFORM)
  graph = Graph(inputs, arguments[0].shape[0])
  values: dict[Any, Operand] = {
    variable: np.asarray(value)
    for variable, value in zip(folded.jaxpr.constvars, folded.consts, strict=True)
  }
  for variable, (name, of) in zip(folded.jaxpr.invars, inputs.items(), strict=True):
    values[variable] = Computed(name, of.shape)

  def read(atom: Any) -> Operand:
    if isinstance(atom, core.Literal):
      return np.asarray(atom.val, getattr(atom.aval, 'dtype'))  # noqa: B009 (no known attribute)
    return values[atom]

  for equation in folded.jaxpr.eqns:
    operands = [read(atom) for atom in equation.invars]
    written = write_equation(graph, equation, operands)
    values.update(zip(equation.outvars, written, strict=True))
  # A dictionary's leaves come in the order of its sorted names.
  names = sorted(jax.eval_shape(function, *arguments))
  outputs = zip(names, folded.jaxpr.outvars, strict=True)
  return graph.model({n: (read(atom), atom.aval) for n, atom in outputs}).SerializeToString()
