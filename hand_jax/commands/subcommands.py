"""The subcommands of `hand-jax`.

To add one, write a module with a function `run` in this folder, and add its row to `SUBCOMMANDS`.
"""

import importlib
from collections.abc import Sequence
from typing import NamedTuple


class Subcommand(NamedTuple):
  """Names and describes a module of this folder, whose `run(arguments)` returns an exit code."""

  module: str
  summary: str


SUBCOMMANDS = {
  'export': Subcommand('export', 'writes a trained network as a StableHLO or ONNX program'),
  'help': Subcommand('help', 'explains hand-jax, or a subcommand: hand-jax help NAME'),
}


def run_subcommand(name: str, arguments: Sequence[str]) -> int:
  """Imports one subcommand, runs it and returns its exit code."""
  module = importlib.import_module(f'hand_jax.commands.{SUBCOMMANDS[name].module}')
  return module.run(arguments)
