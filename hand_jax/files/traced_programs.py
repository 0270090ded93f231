"""Programs that are traced once for each version of the package, and then read from a file.

JAX can keep compiled programs, but it must trace a function before it finds its program. For large
networks tracing takes longer than everything else. This module therefore keeps the traced programs
(StableHLO) in the same folder.
"""

import contextlib
import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import export

from hand_jax.files.compiled_programs import jax_setting
from hand_jax.files.cpu_products import product_options
from hand_jax.files.writing import write_whole

_PACKAGE = pathlib.Path(__file__).parents[1]
# These settings of JAX change the traced program.
_SETTINGS = ('jax_default_matmul_precision', 'jax_enable_x64', 'jax_default_prng_impl')


def keep_traced(name: str, function: Callable, types: Sequence[type]) -> Callable:
  """Compiles a function as `jax.jit` does, on one device and for each shape of its arguments.

  Where JAX has a cache folder for compiled programs (see `keep_compiled_programs`), the traced
  program is kept there, and later processes of the same version read it.

  Args:
    name: the name of the kept files. Each function needs its own.
    function: a pure function that takes and returns trees of arrays.
    types: the named tuples among its arguments and results.

  Returns:
    The compiled function. It traces `function` where no program is kept or the kept one is damaged.
  """
  for kind in types:
    _register(kind)
  compiled: dict[Any, Callable] = {}

  @functools.wraps(function)
  def call(*arguments):
    leaves, structure = jax.tree.flatten(arguments)
    key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    if key not in compiled:
      program = _read_or_trace(name, function, arguments)
      compiled[key] = jax.jit(program, compiler_options=product_options())
    return compiled[key](*arguments)

  return call


@functools.cache
def _register(kind: type) -> None:
  """Allows named tuples of this type among the arguments and results of programs in files."""
  name = f'{kind.__module__}.{kind.__qualname__}'
  export.register_namedtuple_serialization(kind, serialized_name=name)


def _read_or_trace(name: str, function: Callable, arguments: tuple) -> Callable:
  folder = jax_setting('jax_compilation_cache_dir')
  if not folder or not jax_setting('jax_enable_compilation_cache'):
    return function
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
  key = f'{jax.tree.structure(shapes)} {jax.tree.leaves(shapes)}'
  path = pathlib.Path(folder) / f'{name}-{_digest(key)}.stablehlo'
  try:
    return _named(name, export.deserialize(bytearray(path.read_bytes())).call)
  # The file may be damaged, or written by a different JAX of the same version. Trace the function
  # again, whatever the error.
  except Exception:
    exported = export.export(jax.jit(function))(*shapes)
  with contextlib.suppress(OSError):  # Without the file the next process is only slower.
    write_whole(path, bytes(exported.serialize()))
  return _named(name, exported.call)


def _named(name: str, call: Callable) -> Callable:
  """Renames a function. JAX finds a compiled program again only under the same name."""

  def program(*arguments):
    return call(*arguments)

  program.__name__ = program.__qualname__ = name
  return program


def _digest(key: str) -> str:
  digest = hashlib.sha256(f'{key} {jax.__version__} {jax.default_backend()}'.encode())
  for setting in _SETTINGS:
    digest.update(f'{setting} {jax_setting(setting)}'.encode())
  digest.update(_sources_digest())
  return digest.hexdigest()[:24]


@functools.cache
def _sources_digest() -> bytes:
  """Digests all the package's code, so that another version or a changed file is traced again."""
  digest = hashlib.sha256()
  for path in sorted(_PACKAGE.rglob('*.py')):
    digest.update(str(path.relative_to(_PACKAGE)).encode() + path.read_bytes())
  return digest.digest()
