"""What the commands share: exit codes, and a parser that reports a mistake in one line."""

import argparse
import contextlib
import enum
import os
import select
import sys
from collections.abc import Iterator
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
  NO_READER = 141
  """Nobody reads the output any more, as after `| head -1`; shells use this number too."""


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


@contextlib.contextmanager
def ending_quietly() -> Iterator[None]:
  """Ends the process without a word once the reader of its output has gone (`ExitCode.NO_READER`).

  Other broken pipes, such as one to a process of ours that died, raise as they always do.
  """
  try:
    try:
      yield
    finally:
      sys.stdout.flush()
  except BrokenPipeError:
    if not reader_is_gone():
      raise
    # The interpreter flushes once more at its end, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(ExitCode.NO_READER)


def reader_is_gone() -> bool:
  """Whether whatever read the output of this process has ended."""
  try:
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in output.poll(0))
  except (AttributeError, OSError, ValueError):  # no poll on this system, or no file behind stdout
    return False
