"""A run's folder: its config, and Orbax checkpoints of its TrainState."""

import contextlib
import json
import pathlib
import shutil
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from hand_jax.config import ExperimentConfig
from hand_jax.config_text import config_differences, config_from_json, config_to_json
from hand_jax.files.json_files import read_json_text
from hand_jax.files.writing import write_whole
from hand_jax.runs.train_state import TrainState, state_variables

CONFIG_NAME = 'config.json'
CHECKPOINTS_NAME = 'checkpoints'
# What inference needs, what training needs besides, and where the data stood.
_VARIABLES, _TRAINING, _DATA = 'variables', 'training', 'data'
_FILES = 'files.json'


class SavedNetwork(NamedTuple):
  """A run's config, the step of its newest checkpoint, and the variables in it (numpy)."""

  config: ExperimentConfig
  step: int
  variables: dict[str, Any]


class Restored(NamedTuple):
  """A state, as numpy arrays, and the number of batches it had consumed."""

  state: TrainState
  position: int


def check_workdir(workdir: str, config: ExperimentConfig) -> bool:
  """Whether the folder holds a run already, which must then be of the same config.

  Raises:
    ValueError: the folder holds a run of another config; the message names what differs.
  """
  path = pathlib.Path(workdir) / CONFIG_NAME
  if not path.exists():
    return False
  theirs = config_from_json(read_json_text(path), str(path))
  if differences := config_differences(config, theirs):
    raise ValueError(
      f'{workdir} holds a run of another config; this one asks for {"; ".join(differences)}. '
      'Choose another --workdir, or the settings of that run.'
    )
  return True


def claim_workdir(workdir: str, config: ExperimentConfig) -> None:
  """Writes the config into a new run's folder, or checks that the folder is of the same config.

  Raises:
    ValueError: see `check_workdir`.
  """
  if check_workdir(workdir, config) or jax.process_index() != 0:
    return
  path = pathlib.Path(workdir) / CONFIG_NAME
  path.parent.mkdir(parents=True, exist_ok=True)
  write_whole(path, config_to_json(config))


def read_config(workdir: str) -> ExperimentConfig:
  """The config of the run in a folder.

  Raises:
    FileNotFoundError: the folder holds no run. ValueError: its config cannot be read.
  """
  path = pathlib.Path(workdir) / CONFIG_NAME
  if not path.exists():
    raise FileNotFoundError(
      f'{path} does not exist: {workdir} holds no training run. '
      'Train one with python -m experiments.train in a checkout of hand_jax; photos are '
      'reconstructed without a run too.'
    )
  return config_from_json(read_json_text(path), str(path))


class Checkpoints:
  """Saves and restores TrainStates (numpy, one copy, whatever the number of devices).

  A kill at any time leaves the checkpoint before intact. Use it in a `with`.
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
    step = int(state.step)
    self._manager.save(step, args=items)
    self._manager.wait_until_finished()
    if jax.process_index() == 0:
      checkpoint = self._folder / str(step)
      (checkpoint / _FILES).write_text(json.dumps(_list_files(checkpoint)))

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
    """Ends Orbax's threads."""
    self._manager.close()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_) -> None:
    self.close()


def latest_step(workdir: str) -> int | None:
  """The step of the newest finished checkpoint in a run's folder, or None."""
  # Not by Orbax, whose managers wait for each other across hosts: one of them may be ahead.
  folder = pathlib.Path(workdir).resolve() / CHECKPOINTS_NAME
  steps = [int(path.name) for path in folder.glob('*') if path.name.isdigit()]
  return max(steps, default=None)


def load_network(workdir: str) -> SavedNetwork:
  """A run's config and the variables of its newest checkpoint, with that one's step.

  Raises:
    FileNotFoundError: no run, or no checkpoint yet. ValueError: one that cannot be read, by name.
  """
  config = read_config(workdir)
  folder = pathlib.Path(workdir).resolve() / CHECKPOINTS_NAME
  if not folder.is_dir():
    raise FileNotFoundError(_no_checkpoint(workdir))
  with contextlib.closing(_open_manager(folder, keep=None)) as manager:
    step = manager.latest_step()
    if step is None:
      raise FileNotFoundError(_no_checkpoint(workdir))
    items = ocp.args.Composite(**{_VARIABLES: ocp.args.StandardRestore()})
    variables = _restore(manager, folder, step, items)[_VARIABLES]
  return SavedNetwork(config, step, dict(variables))


def load_for_inference(workdir: str) -> tuple[ExperimentConfig, dict[str, Any]]:
  """A run's config and its newest variables (`params`, `batch_stats`; numpy), for `network.apply`.

  Raises:
    FileNotFoundError: no run, or no checkpoint yet. ValueError: one that cannot be read, by name.
  """
  saved = load_network(workdir)
  return saved.config, saved.variables


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
    max_to_keep=keep, create=writing, enable_async_checkpointing=False, read_only=not writing
  )
  return ocp.CheckpointManager(folder, options=options, item_names=(_VARIABLES, _TRAINING, _DATA))


def _restore(
  manager: ocp.CheckpointManager, folder: pathlib.Path, step: int, items: ocp.args.Composite
) -> Any:
  checkpoint = folder / str(step)
  if damage := _find_damage(checkpoint):
    raise _unreadable(checkpoint, damage)
  try:
    return manager.restore(step, args=items)
  except Exception as error:  # tensorstore, JSON and file errors alike
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    raise _unreadable(checkpoint, reason) from error


def _unreadable(checkpoint: pathlib.Path, reason: str) -> ValueError:
  return ValueError(
    f'Checkpoint {checkpoint} cannot be read; it is damaged or incomplete ({reason}). '
    'Remove that folder to go on from an earlier one.'
  )


def _list_files(checkpoint: pathlib.Path) -> dict[str, list[int]]:
  """Size and CRC-32 of every file of a finished checkpoint, by its path inside."""
  files = {}
  for path in sorted(checkpoint.rglob('*')):
    if path.is_file() and path.name != _FILES:
      data = path.read_bytes()
      files[path.relative_to(checkpoint).as_posix()] = [len(data), zlib.crc32(data)]
  return files


def _find_damage(checkpoint: pathlib.Path) -> str:
  """What is wrong with a checkpoint's files, or nothing. One without a list (its run was killed
  before writing that) is left to Orbax, which finds damage too but prints pages about it."""
  listed = checkpoint / _FILES
  if not listed.exists():
    return ''
  try:
    expected = json.loads(listed.read_text())
  except json.JSONDecodeError:
    return f'{_FILES} is cut short'
  found = _list_files(checkpoint)
  for name, (size, checksum) in expected.items():
    if name not in found:
      return f'{name} is missing'
    if found[name][0] != size:
      return f'{name} has {found[name][0]} bytes, not {size}'
    if found[name][1] != checksum:
      return f'{name} has other content than was saved'
  return ''
