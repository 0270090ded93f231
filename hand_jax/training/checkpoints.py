"""A run's folder: its config, and Orbax checkpoints of its TrainState."""

import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from hand_jax.config import (
  ExperimentConfig,
  config_differences,
  config_from_json,
  config_to_json,
)
from hand_jax.training.state import TrainState, state_variables

CONFIG_NAME = 'config.json'
CHECKPOINTS_NAME = 'checkpoints'
# What inference needs, what training needs besides, and where the data stood.
_VARIABLES, _TRAINING, _DATA = 'variables', 'training', 'data'


class Restored(NamedTuple):
  """A state, as numpy arrays, and the number of batches it had consumed."""

  state: TrainState
  position: int


def claim_workdir(workdir: str, config: ExperimentConfig) -> None:
  """Writes the config into a new run's folder, or checks that the folder is of the same config.

  Raises:
    ValueError: the folder holds a run of another config; the message names what differs.
  """
  path = pathlib.Path(workdir) / CONFIG_NAME
  if path.exists():
    theirs = config_from_json(path.read_text(), str(path))
    if differences := config_differences(config, theirs):
      raise ValueError(
        f'{workdir} holds a run of another config; this one asks for {"; ".join(differences)}. '
        'Choose another --workdir, or the settings of that run.'
      )
    return
  if jax.process_index() == 0:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first: a killed run leaves no half-written config.
    partial = path.with_suffix('.json.partial')
    partial.write_text(config_to_json(config))
    partial.replace(path)


def read_config(workdir: str) -> ExperimentConfig:
  """The config of the run in a folder.

  Raises:
    FileNotFoundError: the folder holds no run. ValueError: its config cannot be read.
  """
  path = pathlib.Path(workdir) / CONFIG_NAME
  if not path.exists():
    raise FileNotFoundError(
      f'{path} does not exist: {workdir} holds no training run. '
      'Train one with python -m experiments.train or make demo.'
    )
  return config_from_json(path.read_text(), str(path))


class Checkpoints:
  """Saves and restores TrainStates (numpy, one copy, whatever the number of devices).

  Use it in a `with`: saving goes on in the background until the next save or the end.
  """

  def __init__(self, workdir: str, keep: int = 2):
    self._folder = pathlib.Path(workdir).resolve() / CHECKPOINTS_NAME
    self._manager = _open_manager(self._folder, keep)

  def latest_step(self) -> int | None:
    """The newest finished checkpoint's step, or None."""
    return self._manager.latest_step()

  def save(self, state: TrainState, position: int) -> None:
    """Saves the state (see `parallel.unreplicate`) under its step, with the data's position."""
    state = jax.tree.map(np.asarray, state)
    items = ocp.args.Composite(
      **{
        _VARIABLES: ocp.args.StandardSave(state_variables(state)),
        _TRAINING: ocp.args.StandardSave(_training_item(state)),
        _DATA: ocp.args.JsonSave({'position': position}),
      }
    )
    self._manager.save(int(state.step), args=items)

  def restore_latest(self, like: TrainState) -> Restored | None:
    """The newest checkpoint with the structure of `like`, or None when there is none.

    Raises:
      ValueError: the checkpoint cannot be read, naming it.
    """
    step = self.latest_step()
    if step is None:
      return None
    like = jax.tree.map(np.asarray, like)
    items = ocp.args.Composite(
      **{
        _VARIABLES: ocp.args.StandardRestore(state_variables(like)),
        _TRAINING: ocp.args.StandardRestore(_training_item(like)),
        _DATA: ocp.args.JsonRestore(),
      }
    )
    restored = _restore(self._manager, self._folder, step, items)
    state = TrainState(**restored[_VARIABLES], **restored[_TRAINING])
    return Restored(state, int(restored[_DATA]['position']))

  def close(self) -> None:
    """Waits for a save under way."""
    self._manager.wait_until_finished()
    self._manager.close()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_) -> None:
    self.close()


def load_for_inference(workdir: str) -> tuple[ExperimentConfig, dict[str, Any]]:
  """A run's config and its newest variables (`params`, `batch_stats`; numpy), for `network.apply`.

  Raises:
    FileNotFoundError: no run, or no checkpoint yet. ValueError: one that cannot be read, by name.
  """
  config = read_config(workdir)
  folder = pathlib.Path(workdir).resolve() / CHECKPOINTS_NAME
  if not folder.is_dir():
    raise FileNotFoundError(_no_checkpoint(workdir))
  manager = _open_manager(folder, keep=None)
  try:
    step = manager.latest_step()
    if step is None:
      raise FileNotFoundError(_no_checkpoint(workdir))
    items = ocp.args.Composite(**{_VARIABLES: ocp.args.StandardRestore()})
    variables = _restore(manager, folder, step, items)[_VARIABLES]
  finally:
    manager.close()
  return config, dict(variables)


def _no_checkpoint(workdir: str) -> str:
  return f'{workdir} has no checkpoint yet: let its training run longer.'


def _training_item(state: TrainState) -> dict[str, Any]:
  return {'step': state.step, 'opt_state': state.opt_state, 'key': state.key}


def _open_manager(folder: pathlib.Path, keep: int | None) -> ocp.CheckpointManager:
  """`keep` None: for reading only, so nothing is created or cleaned."""
  writing = keep is not None
  if writing and jax.process_index() == 0:
    # A killed save leaves its temporary folder behind; Orbax does not clean it.
    for leftover in folder.glob('*.orbax-checkpoint-tmp*'):
      shutil.rmtree(leftover, ignore_errors=True)
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep, create=writing, enable_async_checkpointing=writing, read_only=not writing
  )
  return ocp.CheckpointManager(folder, options=options, item_names=(_VARIABLES, _TRAINING, _DATA))


def _restore(
  manager: ocp.CheckpointManager, folder: pathlib.Path, step: int, items: ocp.args.Composite
) -> Any:
  try:
    return manager.restore(step, args=items)
  except Exception as error:  # tensorstore, JSON and file errors alike
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ''
    raise ValueError(
      f'Checkpoint {folder / str(step)} cannot be read; it is damaged or incomplete '
      f'({type(error).__name__}: {reason}). Remove that folder to go on from an earlier one.'
    ) from error
