"""Full precision for matrix products in which a millimetre counts."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

_Arguments = ParamSpec('_Arguments')
_Result = TypeVar('_Result')


def full_precision(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
  """Computes every matrix product of a function in full float32, whatever the default is.

  Accelerators round the factors of a product to bfloat16 or TF32 unless told otherwise. Networks
  can stand that. Geometry cannot: joints would be off by up to 0.9 mm on a TPU. The precision is
  decided where a product is traced, and its derivatives keep it.
  """

  @functools.wraps(function)
  def at_full_precision(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
    # A context of its own for each call, because threads may trace at the same time.
    with jax.default_matmul_precision('highest'):
      return function(*args, **kwargs)

  return at_full_precision
