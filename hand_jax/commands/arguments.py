"""Exit codes and a parser of arguments, which the commands share."""

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
  """Some of the work failed, such as a photo, and the rest is done. Each failure took one line on
  stderr.
  """
  WRONG_USE = 2
  """Nothing was done."""
  STOPPED = 130
  """Ctrl-C ended the command. Shells use this number too."""
  NO_READER = 141
  """Nobody reads the output any more, as after `| head -1`. Shells use this number too."""


class ArgumentParser(argparse.ArgumentParser):
  """Takes flags by their whole names only, and reports a mistake in one line on stderr."""

  def __init__(self, prog: str, **settings):
    super().__init__(
      prog=prog,
      allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      **settings,
    )

  def error(self, message: str) -> NoReturn:
    """Reports a mistake in one line on stderr and ends the process with `ExitCode.WRONG_USE`."""
    if message.endswith('expected one argument'):
      message += '. A value that begins with - is written after =, as in --bbox=-5,0,80,90'
    if message.startswith('unrecognized arguments'):
      message += '. A photo whose name begins with - is written after --, or as ./-NAME'
    print_error(f'{message.rstrip(".")}. {self.prog} --help says what can be given.')
    sys.exit(ExitCode.WRONG_USE)


def print_error(message: object) -> None:
  """Prints one line about a mistake to the error stream."""
  print(f'Error: {message}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def ending_quietly() -> Iterator[None]:
  """Ends the process without a message when the reader of its output has gone.

  The exit code is then `ExitCode.NO_READER`. Other broken pipes raise as usual, such as a pipe to a
  worker process that died.
  """
  try:
    try:
      yield
    finally:
      if sys.stdout is not None:  # None where the caller closed it
        sys.stdout.flush()
  except BrokenPipeError:
    if not reader_is_gone():
      raise
    discard_output()
    sys.exit(ExitCode.NO_READER)


def discard_output() -> None:
  """Sends what is left of the output nowhere.

  The interpreter flushes stdout once more at its end, and would complain about a closed pipe or a
  full disk.
  """
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def reader_is_gone() -> bool:
  """Returns whether the program that read the output of this process has ended."""
  try:
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in output.poll(0))
  except (AttributeError, OSError, ValueError):  # The system has no poll, or stdout is no file.
    return False
