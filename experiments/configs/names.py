"""The named experiments of `python -m experiments.train --config=NAME`."""

import difflib

from experiments.configs.benchmarks import BENCHMARKS
from experiments.configs.synthetic import SYNTHETIC
from hand_jax.config import ExperimentConfig
from hand_jax.setting_checks import validate_config

EXPERIMENTS = {**SYNTHETIC, **BENCHMARKS}


def get_config(name: str) -> ExperimentConfig:
  """Returns the config of the experiment of that name.

  Raises:
    ValueError: there is no such experiment. The message lists similar names.
  """
  if name not in EXPERIMENTS:
    near = difflib.get_close_matches(name, EXPERIMENTS)
    hint = f' Did you mean {" or ".join(near)}?' if near else ''
    raise ValueError(f'Unknown config {name!r}.{hint} `python -m experiments.configs` lists all.')
  return validate_config(EXPERIMENTS[name]())
