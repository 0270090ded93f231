"""The subcommands of `hand-jax`: a new one is a module here with a `run`, and a row of a table."""

import importlib
from collections.abc import Sequence
from typing import NamedTuple


class Subcommand(NamedTuple):
  """A module of this folder whose `run(arguments)` returns an exit code, and what it does."""

  module: str
  summary: str


SUBCOMMANDS = {
  'help': Subcommand('help', 'explains hand-jax, or a subcommand: hand-jax help NAME'),
}


def run_subcommand(name: str, arguments: Sequence[str]) -> int:
  """Imports the subcommand and runs it; the others are not imported."""
  module = importlib.import_module(f'hand_jax.commands.{SUBCOMMANDS[name].module}')
  return module.run(arguments)
