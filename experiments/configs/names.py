"""Named experiments: `python -m experiments.train --config=NAME`."""

import difflib

from experiments.configs.benchmarks import BENCHMARKS
from experiments.configs.synthetic import SYNTHETIC
from hand_jax.config import ExperimentConfig, validate_config

EXPERIMENTS = {**SYNTHETIC, **BENCHMARKS}


def get_config(name: str) -> ExperimentConfig:
  """The experiment of that name.

  Raises:
    ValueError: there is none; the message lists those there are.
  """
  if name not in EXPERIMENTS:
    near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
    hint = f' Did you mean {near[0]}?' if near else ''
    raise ValueError(f'Unknown config {name!r}.{hint} There are {", ".join(EXPERIMENTS)}.')
  return validate_config(EXPERIMENTS[name]())
