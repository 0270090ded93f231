"""Compiled programs, kept in the user's cache folder so that later calls start sooner."""

import hashlib
import os
import pathlib
import platform

# Programs that compile faster than this are not worth a file.
_MIN_COMPILE_S = 0.2


def keep_compiled_programs(folder: str | None = None) -> pathlib.Path | None:
  """Makes JAX keep what it compiles, and take what it kept before.

  A folder that the user chose for JAX already, by `JAX_COMPILATION_CACHE_DIR` say, stays.

  Args:
    folder: where to keep them. None means `hand-jax` in `$XDG_CACHE_HOME` or `~/.cache`. An empty
      text keeps nothing.

  Returns:
    The folder in use for this kind of processor; None where nothing is kept, because that was asked
    for or because no file can be written there.
  """
  import jax

  if folder == '':
    jax.config.update('jax_enable_compilation_cache', False)
    return None
  if jax.config.jax_compilation_cache_dir is not None:
    return pathlib.Path(jax.config.jax_compilation_cache_dir)
  base = default_cache_folder() if folder is None else pathlib.Path(folder)
  path = base / processor_name()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError:
    return None
  if not os.access(path, os.W_OK | os.X_OK):
    return None
  jax.config.update('jax_compilation_cache_dir', str(path))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', _MIN_COMPILE_S)
  return path


def default_cache_folder() -> pathlib.Path:
  """Names the folder of this program in the user's cache (XDG Base Directory Specification)."""
  # The specification wants relative paths ignored.
  given = os.environ.get('XDG_CACHE_HOME', '')
  base = pathlib.Path(given) if os.path.isabs(given) else pathlib.Path.home() / '.cache'
  return base / 'hand-jax'


def processor_name(cpuinfo: str = '/proc/cpuinfo') -> str:
  """Names the processor's kind and features: programs for one may not run on another.

  A home folder may be shared by machines whose processors differ.
  """
  try:
    with open(cpuinfo) as file:
      features = next((line for line in file if line.startswith(('flags', 'Features'))), '')
  except OSError:
    features = ''
  names = sorted(features.partition(':')[2].split())
  digest = hashlib.sha256(' '.join(names).encode()).hexdigest()[:12]
  return f'{platform.machine()}-{digest}'
