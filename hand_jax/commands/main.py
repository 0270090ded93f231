"""Runs the command `hand-jax`, which reconstructs photos or runs a subcommand."""

import sys
from collections.abc import Sequence

from hand_jax.commands import reconstruct_photos
from hand_jax.commands.arguments import ExitCode, discard_output, ending_quietly, print_error
from hand_jax.commands.subcommands import SUBCOMMANDS, run_subcommand
from hand_jax.files.cpu_products import set_product_flag


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit code.

  Args:
    arguments: what follows the command's name. None takes the arguments of the process.

  Raises:
    SystemExit: after --help or --version, and with code 2 after arguments that cannot be read.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  set_product_flag()
  try:
    with ending_quietly():
      if arguments and arguments[0] in SUBCOMMANDS:
        return run_subcommand(arguments[0], arguments[1:])
      return reconstruct_photos.run(arguments)
  except KeyboardInterrupt:
    print_error('stopped. What is written is whole, and the same command goes on from there.')
    return ExitCode.STOPPED
  except OSError as error:
    if error.filename is not None:  # Streams have no name: it is about a file.
      print_error(error)
      return ExitCode.SOME_FAILED
    # What concerns photos and folders is told elsewhere.
    print_error(f'What was done cannot be printed: {error}.')
    discard_output()
    return ExitCode.SOME_FAILED
