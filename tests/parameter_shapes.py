"""Makes Flax remember the shapes of initial parameters, which it otherwise traces at every use.

Flax compares each parameter's shape with what its initialiser would give, and traces the draw of
random numbers for that. This takes up to half of the time of tracing a network, and the tests trace
the same layers again and again.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.core.scope import Scope


def remember_parameter_shapes() -> None:
  """Keeps the check of every parameter in this process, but traces each initialiser once."""
  check_and_return = Scope.param

  def param(
    self: Scope,
    name: str,
    init_fn: Callable[..., Any],
    *sizes: Any,
    unbox: bool = True,
    **named: Any,
  ) -> Any:
    value = self.get_variable('params', name)
    if isinstance(value, jax.Array | np.ndarray) and not named:
      hashable = (tuple(size) if isinstance(size, list) else size for size in sizes)
      if value.shape == _initial_shape(init_fn, *hashable):
        self.reserve(name, 'params')
        return value
    return check_and_return(self, name, init_fn, *sizes, unbox=unbox, **named)

  Scope.param = param


@functools.lru_cache(maxsize=2000)
def _initial_shape(init_fn: Callable[..., Any], *sizes: Any) -> tuple[int, ...]:
  return jax.eval_shape(lambda: init_fn(jax.random.key(0), *sizes)).shape
