"""Programs that are traced once for each version of the package, and read back afterwards.

JAX keeps compiled programs, but to find one it must trace the function first, which takes longer
than all else for large networks. Here the traced program (StableHLO) is kept beside them.
"""

import contextlib
import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import export

from hand_jax.files.writing import write_whole

_PACKAGE = pathlib.Path(__file__).parents[1]
# Settings of JAX that change what is traced.
_SETTINGS = ('jax_default_matmul_precision', 'jax_enable_x64', 'jax_default_prng_impl')


def keep_traced(
  name: str,
  function: Callable,
  types: Sequence[type],
  compiler_options: dict[str, Any] | None = None,
) -> Callable:
  """Compiles a function as `jax.jit` does, for one shape of its arguments, on one device.

  What it is traced to is kept in JAX's cache folder for compiled programs, where there is one (see
  `keep_compiled_programs`), and read back by later processes that run the same version.

  Args:
    name: what the kept file is called; another for each function.
    function: takes and returns trees of arrays, and is pure.
    types: the named tuples among its arguments and results.
    compiler_options: of `jax.jit`.

  Returns:
    The compiled function. It is traced anew where nothing is kept or what is kept is damaged.
  """
  for kind in types:
    _register(kind)
  compiled: dict[str, Callable] = {}

  @functools.wraps(function)
  def call(*arguments):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    key = f'{jax.tree.structure(shapes)} {jax.tree.leaves(shapes)}'
    if key not in compiled:
      traced = _read_or_trace(name, function, shapes, key)
      compiled[key] = jax.jit(traced, compiler_options=compiler_options)
    return compiled[key](*arguments)

  return call


@functools.cache
def _register(kind: type) -> None:
  """Lets programs with a named tuple among their arguments or results be written."""
  name = f'{kind.__module__}.{kind.__qualname__}'
  export.register_namedtuple_serialization(kind, serialized_name=name)


def _read_or_trace(name: str, function: Callable, shapes: tuple, key: str) -> Callable:
  folder = jax.config.jax_compilation_cache_dir
  if folder is None or not jax.config.jax_enable_compilation_cache:
    return function
  path = pathlib.Path(folder) / f'{name}-{_digest(key)}.stablehlo'
  try:
    return _named(name, export.deserialize(bytearray(path.read_bytes())).call)
  # A damaged file, or one of another JAX under the same version: the function itself is at hand.
  except Exception:
    exported = export.export(jax.jit(function))(*shapes)
  with contextlib.suppress(OSError):  # it is kept for speed alone
    write_whole(path, bytes(exported.serialize()))
  return _named(name, exported.call)


def _named(name: str, call: Callable) -> Callable:
  """The function under the name that the compiled program gets: it must be the same every time."""

  def program(*arguments):
    return call(*arguments)

  program.__name__ = program.__qualname__ = name
  return program


def _digest(key: str) -> str:
  digest = hashlib.sha256(f'{key} {jax.__version__} {jax.default_backend()}'.encode())
  for setting in _SETTINGS:
    digest.update(f'{setting} {getattr(jax.config, setting)}'.encode())
  digest.update(_sources_digest())
  return digest.hexdigest()[:24]


@functools.cache
def _sources_digest() -> bytes:
  """Of all the package's code: another version, or a changed file, traces anew."""
  digest = hashlib.sha256()
  for path in sorted(_PACKAGE.rglob('*.py')):
    digest.update(str(path.relative_to(_PACKAGE)).encode() + path.read_bytes())
  return digest.digest()
