"""hand-jax help [NAME]: explains the command or one of its subcommands."""

from collections.abc import Sequence

from hand_jax.commands.arguments import ArgumentParser, ExitCode
from hand_jax.commands.reconstruct_photos import create_parser
from hand_jax.commands.subcommands import SUBCOMMANDS, run_subcommand


def run(arguments: Sequence[str]) -> int:
  """Prints the help of hand-jax, or of the subcommand that is named."""
  parser = ArgumentParser('hand-jax help', description='Explains hand-jax, or a subcommand.')
  parser.add_argument('name', nargs='?', metavar='NAME', help=', '.join(SUBCOMMANDS))
  name = parser.parse_args(arguments).name
  if name is not None and name not in SUBCOMMANDS:
    parser.error(f'{name!r} is no subcommand; there is {", ".join(SUBCOMMANDS)}')
  if name is not None:
    return run_subcommand(name, ['--help'])
  create_parser().print_help()
  return ExitCode.DONE
