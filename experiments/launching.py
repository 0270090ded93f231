"""What launches share: arguments that are refused, lines that are printed, mistakes in one line."""

import sys
from collections.abc import Callable, Iterable

from absl import app, flags, logging

from hand_jax.files.compiled_programs import keep_compiled_programs


def start(argv: list[str]) -> None:
  """Refuses arguments that are no flags, keeps libraries quiet and keeps compiled programs."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected argument {argv[1]!r}: settings are given as --name=value.')
  # Orbax tells at length, and warns that a run is opened for reading only.
  logging.set_verbosity(logging.ERROR)
  keep_compiled_programs(flags.FLAGS.compilation_cache_dir)


def print_lines(make_lines: Callable[[], Iterable[str]]) -> None:
  """Prints lines as they come. A mistake in what was asked for ends the launch with one line."""
  try:
    for line in make_lines():
      print(line, flush=True)
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
