"""What launches share: arguments that are refused, lines that are printed, mistakes in one line."""

import sys
from collections.abc import Callable, Iterable

from absl import app, logging


def start(argv: list[str]) -> None:
  """Refuses arguments that are no flags, and keeps libraries quiet."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected argument {argv[1]!r}: settings are given as --name=value.')
  # Orbax tells at length, and warns that a run is opened for reading only.
  logging.set_verbosity(logging.ERROR)


def print_lines(make_lines: Callable[[], Iterable[str]]) -> None:
  """Prints lines as they come. A mistake in what was asked for ends the launch with one line."""
  try:
    for line in make_lines():
      print(line, flush=True)
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
