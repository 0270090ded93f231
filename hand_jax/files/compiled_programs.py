"""Keeps compiled programs in the user's cache folder, so that later calls start sooner."""

import hashlib
import os
import pathlib
import platform
from typing import Any

# Programs that compile faster than this are not worth a file.
_MIN_COMPILE_S = 0.2


def jax_setting(name: str) -> Any:
  """Reads a setting of JAX, which makes its settings at run time, so that no type knows them."""
  import jax

  return getattr(jax.config, name)


def keep_compiled_programs(folder: str | None = None) -> pathlib.Path | None:
  """Makes JAX keep the programs that it compiles, and load those that it kept before.

  Where the user has turned JAX's cache off, it stays off.

  Args:
    folder: where to keep programs. None means the folder that the user has already chosen for JAX,
      for example by `JAX_COMPILATION_CACHE_DIR`, or else `hand-jax` in `$XDG_CACHE_HOME` or
      `~/.cache`. An empty text keeps nothing.

  Returns:
    The folder in use. It is None where nothing is kept, because the caller or the user
    asked for that or because no file can be written there.
  """
  import jax

  if folder == '':
    jax.config.update('jax_enable_compilation_cache', False)
  if not jax_setting('jax_enable_compilation_cache'):
    return None
  # An empty name is no choice. It is what an empty environment variable gives.
  if folder is None and (in_use := jax_setting('jax_compilation_cache_dir')):
    return pathlib.Path(in_use)
  try:
    base = default_cache_folder() if folder is None else pathlib.Path(folder)
    path = base / processor_name()
    path.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # RuntimeError: the user has no home folder.
    return None
  if not os.access(path, os.W_OK | os.X_OK):
    return None
  jax.config.update('jax_compilation_cache_dir', str(path))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', _MIN_COMPILE_S)
  return path


def default_cache_folder() -> pathlib.Path:
  """Names the folder of this program in the user's cache (XDG Base Directory Specification)."""
  # The specification says that relative paths are ignored.
  given = os.environ.get('XDG_CACHE_HOME', '')
  base = pathlib.Path(given) if os.path.isabs(given) else pathlib.Path.home() / '.cache'
  return base / 'hand-jax'


def processor_name(cpuinfo: str = '/proc/cpuinfo') -> str:
  """Makes a name from the processor's kind and features.

  Programs compiled for one processor may fail on another, and machines with different processors
  may share a home folder.
  """
  try:
    with open(cpuinfo) as file:
      features = next((line for line in file if line.startswith(('flags', 'Features'))), '')
  except OSError:
    features = ''
  names = sorted(features.partition(':')[2].split())
  digest = hashlib.sha256(' '.join(names).encode()).hexdigest()[:12]
  return f'{platform.machine()}-{digest}'
