"""Runs of the toy configs on disk, as before the first step; the terms that a step reports."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config import ExperimentConfig
from hand_jax.config_text import apply_overrides
from hand_jax.mano.assets import load_mano_model
from hand_jax.models.hand_network import create_network
from hand_jax.runs.checkpoints import Checkpoints, claim_workdir
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.runs.train_state import TrainState
from hand_jax.training import parallel
from hand_jax.training.objective import term_weights
from hand_jax.training.state import create_optimizer
from tests.drawn_variables import drawn_first_state


# Tests share it, since each would trace the network anew.
@functools.cache
def fresh_state(name: str, *settings: str) -> TrainState:
  """A state of a named config before the first step, drawn by NumPy."""
  config = apply_overrides(get_config(name), settings)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = drawn_first_state(config, create_network(config), optimizer, load_mano_model())
  return jax.tree.map(np.asarray, state)


def save_toy_run(folder: pathlib.Path, name: str, state: TrainState, *settings: str) -> str:
  """Writes a run of a named config on the free hand and returns its folder."""
  claim_workdir(str(folder), apply_overrides(get_config(name), settings))
  claim_hand_model(folder, load_mano_model())
  with Checkpoints(str(folder)) as checkpoints:
    checkpoints.save(state, 0)
  return str(folder)


def share_compiled_steps(monkeypatch: pytest.MonkeyPatch) -> None:
  """Lets runs of one config share their compiled steps, which saves most of their time."""
  for name in ('map_train_step', 'map_eval_step'):
    monkeypatch.setattr(parallel, name, _sharing(getattr(parallel, name)))


def _sharing(make):
  """Makes a step once, and gives it to all who ask."""
  made = []

  def share(step):
    made.append(made[0] if made else make(step))
    return made[0]

  return share


def expected_terms(config: ExperimentConfig) -> set[str]:
  """The terms of a config's loss, as far as its network has the branches for them."""
  absent = {'prior': 'posterior', 'posterior': 'prior'}.get(config.model.branches, 'none')
  expected = {name for name in term_weights(config.loss) if not name.endswith(absent)}
  if absent == 'prior':
    expected -= {'joint_limits', 'shape_prior', 'pose_prior'}
  return expected
