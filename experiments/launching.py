"""Runs commands: reports mistakes in one line, sets exit codes and keeps libraries quiet."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import app, flags, logging

from hand_jax.commands.arguments import ExitCode, ending_quietly, print_error, reader_is_gone
from hand_jax.files.compiled_programs import keep_compiled_programs
from hand_jax.files.cpu_products import set_product_flag

# These errors mean that a path was named wrongly. Any other OSError, such as a full disk, is no
# wrong use.
_WRONG_PATHS = (
  FileNotFoundError,
  FileExistsError,
  NotADirectoryError,
  IsADirectoryError,
  PermissionError,
)


def launch(
  main: Callable[[list[str]], int | None], failures: Sequence[type[Exception]] = ()
) -> None:
  """Runs a command and ends the process with its exit code, see `ExitCode`.

  Wrong use is reported in one line on stderr, without a traceback. It comprises flags that cannot
  be read, and a ValueError or a wrong path that `main` raises. Any other OSError is a failure.
  Ctrl-C ends in one line too. Nothing is printed where the reader of the output has gone.

  Args:
    main: the command. It gets the program's name and the arguments that are no flags, and returns
      an exit code, or None for 0.
    failures: further errors that are reported in one line, as failures.
  """

  def call(argv: list[str]) -> int | None:
    try:
      return main(argv)
    except KeyboardInterrupt:
      return _tell('stopped. What is written is whole.', ExitCode.STOPPED)
    except (ValueError, *_WRONG_PATHS) as error:
      return _tell(error, ExitCode.WRONG_USE)
    except (OSError, *failures) as error:
      if isinstance(error, BrokenPipeError) and reader_is_gone():
        raise
      return _tell(error, ExitCode.SOME_FAILED)

  with ending_quietly():
    app.run(call, flags_parser=_parse_flags)


def read_flags(names: Iterable[str]) -> dict[str, Any]:
  """Returns the values of flags by name. absl knows their types only at run time."""
  return {name: flags.FLAGS[name].value for name in names}


_AS_FLAGS = 'settings are given as --name=value'


def start(argv: Sequence[str], expected: str = _AS_FLAGS) -> None:
  """Refuses arguments that are no flags, sets up libraries and keeps compiled programs.

  Raises:
    ValueError: an argument is no flag, see `refuse_arguments`.
  """
  refuse_arguments(argv, expected)
  if not flags.FLAGS['verbosity'].present:
    # Orbax would log dozens of lines, and would warn that a run is opened for reading only.
    logging.set_verbosity(logging.ERROR)
  set_product_flag()
  if 'compilation_cache_dir' in flags.FLAGS:
    keep_compiled_programs(flags.FLAGS.compilation_cache_dir)


def refuse_arguments(argv: Sequence[str], expected: str = _AS_FLAGS) -> None:
  """Checks that all arguments are flags.

  Args:
    argv: the program's name and the arguments that are no flags.
    expected: what the message says was expected instead.

  Raises:
    ValueError: an argument is no flag.
  """
  if len(argv) > 1:
    raise ValueError(f'Unexpected argument {argv[1]!r}: {expected}.')


def print_lines(lines: Iterable[str]) -> None:
  """Prints each line as soon as it comes."""
  for line in lines:
    print(line, flush=True)


def _parse_flags(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    sys.exit(_tell(_plain(str(error)), ExitCode.WRONG_USE))


def _plain(message: str) -> str:
  """Rewrites absl's message about a flag in this project's words."""
  missing = re.search(r'Flag (--\w+) must have a value other than None', message)
  message = f'{missing[1]} is missing' if missing else message.removeprefix('flag ')
  message = re.sub(r'Did you mean: (\w+) \?', r'Did you mean --\1?', message)
  stop = '' if message.endswith(('.', '?')) else '.'
  return f'{message}{stop} --help says what can be given.'


def _tell(error: Exception | str, code: ExitCode) -> ExitCode:
  print_error(re.sub(r'\s*\n\s*', ' ', str(error)))
  return code
