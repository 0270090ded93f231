"""What a function computes where matrix products round their factors to bfloat16, as on a TPU.

CPUs compute them in float32 whatever is asked for, so a test there cannot see a lost precision.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

HIGHEST = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
# Primitives that only wrap another computation, and the parameter that holds it.
_CALLS = {'jit': 'jaxpr', 'pjit': 'jaxpr', 'custom_jvp_call': 'call_jaxpr'}


def run_as_on_tpu(function: Callable, *args: Any) -> Any:
  """The function's result where products of the default precision take rounded factors."""
  with jax.default_matmul_precision('bfloat16'):
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
  leaves = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
  return jax.tree.unflatten(jax.tree.structure(shape), leaves)


def product_precisions(function: Callable, *args: Any) -> list[Any]:
  """The precision of every matrix product that a function traces, where the default is bfloat16."""
  with jax.default_matmul_precision('bfloat16'):
    closed = jax.make_jaxpr(function)(*args)
  return [equation.params['precision'] for equation in _products(closed.jaxpr)]


def _products(jaxpr: Any) -> Iterator[Any]:
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else (value,):
        if hasattr(inner, 'eqns') or hasattr(inner, 'jaxpr'):
          yield from _products(getattr(inner, 'jaxpr', inner))


def _evaluate(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
  known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
  read = lambda variable: variable.val if hasattr(variable, 'val') else known[variable]  # noqa: E731
  for equation in jaxpr.eqns:
    inputs = [read(variable) for variable in equation.invars]
    if (name := equation.primitive.name) in _CALLS:
      inner = equation.params[_CALLS[name]]
      outputs = _evaluate(inner.jaxpr, inner.consts, inputs)
    else:
      if name == 'dot_general' and equation.params['precision'] != HIGHEST:
        inputs = [jnp.asarray(value, jnp.bfloat16).astype(value.dtype) for value in inputs]
      outputs = equation.primitive.bind(*inputs, **equation.params)
      outputs = outputs if equation.primitive.multiple_results else [outputs]
    known |= dict(zip(equation.outvars, outputs, strict=True))
  return [read(variable) for variable in jaxpr.outvars]
