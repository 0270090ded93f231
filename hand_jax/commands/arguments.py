"""What the commands share: exit codes, and arguments whose mistakes take one line."""

import argparse
import enum
import sys
from typing import NoReturn


class ExitCode(enum.IntEnum):
  """How a command ends."""

  DONE = 0
  SOME_FAILED = 1
  """What could be done is done; the rest was told line by line."""
  WRONG_USE = 2
  """Nothing was done."""
  STOPPED = 130
  """By Ctrl-C, as shells count it."""


class ArgumentParser(argparse.ArgumentParser):
  """Takes flags by their whole names; a mistake is told in one line and ends the command."""

  def __init__(self, prog: str, **settings):
    super().__init__(
      prog=prog,
      allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      **settings,
    )

  def error(self, message: str) -> NoReturn:
    print_error(f'{message}. {self.prog} --help says what can be given.')
    sys.exit(ExitCode.WRONG_USE)


def print_error(message: object) -> None:
  """Prints one line about a mistake to the error stream."""
  print(f'Error: {message}', file=sys.stderr, flush=True)
