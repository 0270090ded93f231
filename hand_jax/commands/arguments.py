"""What the commands share: exit codes, and a parser that reports a mistake in one line."""

import argparse
import enum
import sys
from typing import NoReturn


class ExitCode(enum.IntEnum):
  """Says how a command ended."""

  DONE = 0
  SOME_FAILED = 1
  """The rest is done, such as the other photos; each failure took one line on stderr."""
  WRONG_USE = 2
  """Nothing was done."""
  STOPPED = 130
  """Ctrl-C ended the command; shells use this number too."""


class ArgumentParser(argparse.ArgumentParser):
  """Takes flags by their whole names only; a mistake ends the command with one line on stderr."""

  def __init__(self, prog: str, **settings):
    super().__init__(
      prog=prog,
      allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      **settings,
    )

  def error(self, message: str) -> NoReturn:
    if message.endswith('expected one argument'):
      message += '. A value that begins with - is written after =, as in --bbox=-5,0,80,90'
    print_error(f'{message}. {self.prog} --help says what can be given.')
    sys.exit(ExitCode.WRONG_USE)


def print_error(message: object) -> None:
  """Prints one line about a mistake to the error stream."""
  print(f'Error: {message}', file=sys.stderr, flush=True)
