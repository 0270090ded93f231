"""Traces a function once, and computes everything that depends on no input ahead of time.

A trained network is a function of its input alone. Its parameters, the hand model and everything
computed from them are constants. `trace_folded` computes these constants while it traces, also
where loops make them, and chooses the code of one platform. The program then holds neither those
loops nor a choice of platform.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core

# Primitives that call a function, with the name of the parameter that holds its program.
_CALLS = {
  'jit': 'jaxpr',
  'pjit': 'jaxpr',
  'closed_call': 'call_jaxpr',
  'core_call': 'call_jaxpr',
  'remat': 'jaxpr',
  'checkpoint': 'jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
}
# These primitives only matter to derivatives or to the compiler.
_IDENTITIES = ('name', 'optimization_barrier', 'stop_gradient', 'copy', 'copy_p')


class _Equations(NamedTuple):
  """The parts of a program that `_inlined` reads."""

  constvars: Sequence
  invars: Sequence
  eqns: Sequence
  outvars: Sequence


def trace_folded(
  function: Callable, arguments: Sequence[jax.ShapeDtypeStruct], platform: str
) -> core.ClosedJaxpr:
  """Traces a function of arrays for one platform and computes its constant parts.

  Args:
    function: takes the arguments by position and returns a tree of arrays.
    arguments: shapes and types of the arguments. Shapes may be symbolic.
    platform: 'cpu', 'cuda' or 'tpu'. Any other name takes the default of `platform_dependent`.

  Returns:
    The program, without inner functions, and without equations that no result needs.
  """
  whole = jax.make_jaxpr(function)(*arguments)

  def flat(*inputs):
    return _inlined(whole.jaxpr, whole.consts, inputs, platform)

  return _folded(jax.make_jaxpr(flat)(*arguments))


def _inlined(program: Any, constants: Sequence, inputs: Sequence, platform: str) -> list:
  """Traces a program again, with the equations of inner functions in the place of their calls."""
  values = dict(zip(program.constvars, constants, strict=True))
  values.update(zip(program.invars, inputs, strict=True))

  def read(atom: Any) -> Any:
    return atom.val if isinstance(atom, core.Literal) else values[atom]

  for equation in program.eqns:
    found = _inline(equation, [read(atom) for atom in equation.invars], platform)
    values.update(zip(equation.outvars, found, strict=True))
  return [read(atom) for atom in program.outvars]


def _inline(equation: Any, inputs: list, platform: str) -> list:
  name, parameters = equation.primitive.name, equation.params
  if name in _IDENTITIES:
    return inputs
  if name in _CALLS:
    inner = parameters[_CALLS[name]]
    return _inlined(getattr(inner, 'jaxpr', inner), getattr(inner, 'consts', ()), inputs, platform)
  if name == 'platform_index':
    return [np.int32(_branch(parameters['platforms'], platform))]
  if name == 'cond' and not isinstance(inputs[0], Tracer):
    branch = parameters['branches'][int(inputs[0])]
    return _inlined(branch.jaxpr, branch.consts, inputs[1:], platform)
  found = equation.primitive.bind(*inputs, **parameters)
  return list(found) if equation.primitive.multiple_results else [found]


def _branch(platforms: Sequence[tuple[str, ...] | None], platform: str) -> int:
  """Chooses a branch of `platform_dependent`. None means all other platforms."""
  for number, names in enumerate(platforms):
    if names is None or platform in names:
      return number
  raise ValueError(f'The program has no code for the platform {platform!r}.')


def _folded(program: core.ClosedJaxpr) -> core.ClosedJaxpr:
  """Computes all equations that depend on no input at once, and keeps the others."""
  jaxpr = program.jaxpr
  known, early, late = set(jaxpr.constvars), [], []
  for equation in _used(jaxpr.eqns, jaxpr.outvars):
    is_known = _variables(equation.invars) <= known and _has_known_shape(equation)
    (early if is_known else late).append(equation)
    known.update(equation.outvars if is_known else ())
  needed = {v for equation in late for v in _variables(equation.invars)} | _variables(jaxpr.outvars)
  constants = [variable for variable in known if variable in needed]
  first = _Equations(jaxpr.constvars, (), early, constants)
  values = jax.jit(lambda: _inlined(first, program.consts, (), ''))()
  return core.ClosedJaxpr(jaxpr.replace(eqns=late, constvars=constants), values)


def _has_known_shape(equation: Any) -> bool:
  return all(isinstance(n, int) for out in equation.outvars for n in out.aval.shape)


def _variables(atoms: Sequence) -> set:
  return {atom for atom in atoms if isinstance(atom, core.Var)}


def _used(equations: Sequence, results: Sequence) -> list:
  """Leaves out the equations that no result needs."""
  needed, kept = _variables(results), []
  for equation in reversed(equations):
    if needed.intersection(equation.outvars):
      kept.append(equation)
      needed |= _variables(equation.invars)
  return kept[::-1]
