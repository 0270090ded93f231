"""Chooses what computes matrix products on CPUs: XLA's own code instead of YNNPACK.

XLA gives products to YNNPACK by default. For products of the sizes in this package XLA's own code
is the faster one (docs/performance.md). Commands set a flag for their process. The programs that
find and fit hands are compiled with an option, wherever they run.
"""

import functools
import importlib.metadata
import importlib.util
import os
import re

_OPTION = 'xla_cpu_experimental_ynn_fusion_type'
# A process that gives XLA an unknown flag ends. These versions of jaxlib know it, up to but without
# the last one.
_KNOWN_FROM, _KNOWN_BELOW = (0, 10), (0, 13)


@functools.cache
def product_options() -> dict[str, str]:
  """Returns the compiler options of a program (`jax.jit(..., compiler_options=...)`).

  There are none on other devices, and none where the compiler does not know the option.
  """
  import jax

  options = {_OPTION: ''}
  if jax.default_backend() != 'cpu':
    return {}
  try:
    jax.jit(lambda: 0, compiler_options=options).lower().compile()
  except jax.errors.JaxRuntimeError:
    return {}
  return options


def set_product_flag() -> None:
  """Adds the flag to `XLA_FLAGS`, for all programs of this process and of those that it starts.

  XLA reads the flags when JAX computes for the first time. A flag that the user has set stays as it
  is. With a TPU's library nothing is set, because that reads the same flags by its own version.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  version = tuple(map(int, re.findall(r'\d+', importlib.metadata.version('jaxlib'))[:2]))
  if _OPTION in flags or not _KNOWN_FROM <= version < _KNOWN_BELOW:
    return
  if importlib.util.find_spec('libtpu') is None:
    os.environ['XLA_FLAGS'] = f'{flags} --{_OPTION}='.strip()
