"""Keeps a run's folder: its config, and Orbax checkpoints of its TrainState."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from hand_jax.config import ExperimentConfig, flatten_config
from hand_jax.config_text import (
  PATH_SETTINGS,
  config_differences,
  config_from_json,
  config_to_json,
)
from hand_jax.files.buckets import AnyPath, absolute_path, open_path, remove_tree
from hand_jax.files.json_files import read_json_text
from hand_jax.files.paths import is_address
from hand_jax.files.writing import write_whole
from hand_jax.runs.damage import find_damage, unreadable
from hand_jax.runs.packed_run import RELEASE, packed_step, read_packed_variables, run_folder
from hand_jax.runs.sources import (
  CHECKPOINTS_NAME,
  FILES_NAME,
  find_sources,
  list_files,
  moved_sources,
  read_sources,
  saved_steps,
  write_sources,
)
from hand_jax.runs.train_state import TrainState, state_variables

CONFIG_NAME = 'config.json'
# A checkpoint has these items: what inference needs, what training also needs, and how many batches
# were consumed.
_VARIABLES, _TRAINING, _DATA = 'variables', 'training', 'data'
_METADATA = '_CHECKPOINT_METADATA'
_UNFINISHED = '.orbax-checkpoint-tmp'
# A run writes these at the top of its folder, beside its config.
_RUN_FILES = ('checkpoints', 'metrics.jsonl', 'lineage.json', 'hand_model.json', 'init_from.json')


class SavedNetwork(NamedTuple):
  """A run's config, the step of its newest checkpoint, and the variables in it (numpy)."""

  config: ExperimentConfig
  step: int
  variables: dict[str, Any]


class Restored(NamedTuple):
  """A state as numpy arrays, the number of batches that it had consumed, and its progress."""

  state: TrainState
  position: int
  progress: dict[str, Any]


def check_workdir(workdir: str, config: ExperimentConfig, extend: bool = False) -> bool:
  """Checks whether a new or a continued run may use a folder.

  A run in the folder must have the same config. Its paths may be written differently and their
  content may have moved, see `hand_jax/runs/sources.py`.

  Args:
    workdir: the run's folder, which need not exist.
    config: the config that is asked for.
    extend: whether the config may have more steps than the run in the folder.

  Returns:
    True if the folder holds a run already.

  Raises:
    ValueError: the folder holds a run of another config (the message names the differences) or a
      packed run, or `extend` is given and the folder holds no run with fewer steps.
    FileExistsError: the folder holds no run, but files that a run would replace.
  """
  if workdir == RELEASE:
    raise ValueError(
      f'{RELEASE} is the trained run in the package, which cannot be changed: name another '
      f'--workdir, or ./{RELEASE} for a folder of that name.'
    )
  if packed_step(workdir) is not None:
    raise ValueError(
      f'{workdir} holds a packed run, which cannot be continued: start from it by '
      f'--init_from={workdir} in another --workdir.'
    )
  path = open_path(workdir) / CONFIG_NAME
  if not path.exists():
    if extend:
      raise ValueError(f'--extend trains a run for more steps, and {workdir} holds none.')
    _check_no_other_files(workdir)
    return False
  theirs = config_from_json(read_json_text(path), str(path))
  steps, former = config.training.num_steps, theirs.training.num_steps
  if extend and steps < former:
    raise ValueError(
      f'--extend: training.num_steps={steps} is less than the {former} steps of {workdir}.'
    )
  if extend:
    theirs = _with_steps(theirs, steps)
  differences = _differences(workdir, config, theirs)
  if not differences:
    return True
  advice = 'Choose another --workdir, or the settings of that run.'
  if steps > former and not extend:
    advice += ' --extend trains it for more steps.'
  if any(_setting_of(text) in PATH_SETTINGS for text in differences):
    advice += ' A path counts as equal if it leads to the content that the run began with.'
  raise ValueError(
    f'{workdir} holds a run of another config; this one asks for {"; ".join(differences)}. {advice}'
  )


def claim_workdir(workdir: str, config: ExperimentConfig, extend: bool = False) -> None:
  """Writes the config and its sources into a run's folder, new or not.

  For a continued run, the files get the new paths and, with `extend`, the new number of steps.

  Args:
    workdir: the run's folder, which need not exist.
    config: the config that is asked for.
    extend: whether the config may have more steps than the run in the folder.

  Raises:
    OSError: the folder holds files of something else, or cannot be written to.
    ValueError: see `check_workdir`.
  """
  if jax.process_index() != 0:
    return  # the first host writes, perhaps at this moment
  is_old = check_workdir(workdir, config, extend)
  path = open_path(workdir) / CONFIG_NAME
  if is_old:
    theirs = read_config(workdir)
    if config == theirs:
      return
    sources = moved_sources(read_sources(workdir, theirs), config)
  else:
    path.parent.mkdir(parents=True, exist_ok=True)
    sources = find_sources(config)
  # The record is written first. If the process is killed before it writes the config, the next run
  # still finds its sources by the record.
  if sources:
    write_sources(workdir, sources)
  write_whole(path, config_to_json(config))


def _differences(workdir: str, config: ExperimentConfig, theirs: ExperimentConfig) -> list[str]:
  """Lists the settings that differ from a run's config. Paths are compared by their content."""
  recorded = read_sources(workdir, theirs)
  same = moved_sources(recorded, config)
  texts = [text for text in config_differences(config, theirs) if _setting_of(text) not in same]
  told = [_setting_of(text) for text in texts]
  settings = flatten_config(config)
  # From another working folder a relative path leads elsewhere.
  elsewhere = [name for name in recorded if name not in same and name not in told]
  for name in elsewhere:
    places = ', '.join(source.place for source in recorded[name])
    texts.append(f'{name}: {settings[name]!r} from here, not {places}')
  return texts


def _setting_of(difference: str) -> str:
  """Returns the setting that a text of `config_differences` is about."""
  return difference.partition(':')[0]


def _with_steps(config: ExperimentConfig, steps: int) -> ExperimentConfig:
  return dataclasses.replace(config, training=dataclasses.replace(config.training, num_steps=steps))


def _check_no_other_files(workdir: str) -> None:
  taken = [name for name in _RUN_FILES if _is_taken(open_path(workdir) / name)]
  if taken:
    raise FileExistsError(
      f'{workdir} holds {", ".join(taken)}, but no {CONFIG_NAME} of a run. They are not replaced. '
      'Name another --workdir.'
    )


def _is_taken(path: AnyPath) -> bool:
  return path.exists() or (isinstance(path, pathlib.Path) and path.is_symlink())


def read_config(workdir: str) -> ExperimentConfig:
  """Reads the config of the run in a folder.

  Raises:
    FileNotFoundError: the folder holds no run.
    ValueError: its config cannot be read.
  """
  path = run_folder(workdir) / CONFIG_NAME
  if not path.exists():
    raise FileNotFoundError(
      f'{path} does not exist: {workdir} holds no training run. '
      'Train one with python -m experiments.train in a checkout of hand_jax; photos are '
      'reconstructed without a run too.'
    )
  return config_from_json(read_json_text(path), str(path))


class Checkpoints:
  """The checkpoints of a run, which save and restore TrainStates.

  A checkpoint holds one copy of the state in numpy, whatever the number of devices. It is written
  while the run goes on, and gets its name when it is complete with the list of its files. So a kill
  at any time leaves the checkpoint before intact. All hosts make the same calls. Use this in a
  `with` block.

  Args:
    workdir: the run's folder.
    keep: the number of newest checkpoints to keep.
    best_metric: name of a figure given to `save`. The checkpoint with its lowest value is kept too.
  """

  def __init__(self, workdir: str, keep: int = 2, best_metric: str = ''):
    self._folder = absolute_path(workdir) / CHECKPOINTS_NAME
    self._best_metric = best_metric
    self._saving: int | None = None
    self._manager = _open_manager(self._folder, keep, best_metric, self._list_files)

  def latest_step(self) -> int | None:
    """Returns the step of the newest finished checkpoint, or None."""
    return self._manager.latest_step()

  def save(
    self,
    state: TrainState,
    position: int,
    progress: dict[str, Any] | None = None,
    figures: dict[str, float] | None = None,
  ) -> None:
    """Begins to save the state under its step, after the save before is finished.

    Args:
      state: the state, see `parallel.unreplicate`. Its arrays must not change afterwards.
      position: the number of batches that it has consumed.
      progress: further values that a continued run needs, as JSON.
      figures: validation figures of the state, one of which may be the best metric.

    Raises:
      OSError: there is no room for it, or this or the last save cannot be written. Earlier
        checkpoints stay whole.
    """
    state = jax.tree.map(np.asarray, state)
    self.wait()
    self._check_room(state)
    items = ocp.args.Composite(
      **{
        _VARIABLES: ocp.args.StandardSave(state_variables(state)),
        _TRAINING: ocp.args.StandardSave(_training_item(state)),
        _DATA: ocp.args.JsonSave({'position': position, 'progress': progress or {}}),
      }
    )
    best = {name: value for name, value in (figures or {}).items() if name == self._best_metric}
    self._saving = int(state.step)
    with self._reporting_failure():
      self._manager.save(self._saving, args=items, metrics=best or None)

  def wait(self) -> None:
    """Waits until the last save is finished.

    Raises:
      OSError: it cannot be written.
    """
    with self._reporting_failure():
      self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _reporting_failure(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # tensorstore and file errors alike
      reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
      raise self._not_written(self._saving, reason) from error

  def _list_files(self) -> None:
    """Lists a checkpoint's files in its folder, just before Orbax gives the folder its name."""
    if jax.process_index() != 0:
      return
    # In a bucket a checkpoint has its name from the start.
    ending = '' if is_address(self._folder) else f'{_UNFINISHED}*'
    for folder in self._folder.glob(f'{self._saving}{ending}'):
      files = list_files(folder)
      files.pop(_METADATA, None)  # Orbax writes the time of the renaming into it.
      write_whole(folder / FILES_NAME, json.dumps(files))

  def _check_room(self, state: TrainState) -> None:
    """Checks for room first, because Orbax prints pages when a disk is full."""
    if not isinstance(self._folder, pathlib.Path):
      return
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    free = shutil.disk_usage(self._folder).free
    if free < needed:
      room = f'it takes about {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free'
      raise self._not_written(int(state.step), room)

  def _not_written(self, step: int | None, reason: str) -> OSError:
    return OSError(
      f'The checkpoint of step {step} cannot be written into {self._folder}: {reason}. '
      'Earlier ones are whole: free some room, and run the same command again to continue.'
    )

  def restore_latest(self, like: TrainState) -> Restored | None:
    """Restores the newest checkpoint with the structure of `like`, or returns None without one.

    Raises:
      ValueError: the checkpoint cannot be read. The message names it.
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
    data = restored[_DATA]
    return Restored(state, int(data['position']), data.get('progress', {}))

  def close(self) -> None:
    """Waits for the last save and ends Orbax's threads.

    Raises:
      OSError: the last save cannot be written.
    """
    with self._reporting_failure():
      self._manager.close()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_) -> None:
    self.close()


def load_network(workdir: str) -> SavedNetwork:
  """Loads a run's config and the variables and step of its newest checkpoint.

  The run may be a packed one, such as `release`, which is in the package.

  Raises:
    FileNotFoundError: there is no run, or no checkpoint yet.
    ValueError: one of them cannot be read. The message names it.
  """
  config = read_config(workdir)
  if (packed := packed_step(workdir)) is not None:
    return SavedNetwork(config, packed, read_packed_variables(workdir))
  folder = absolute_path(workdir) / CHECKPOINTS_NAME
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
  """Loads a run's config, and its newest variables (numpy) for `network.apply`.

  The variables are `params` and `batch_stats`.

  Raises:
    FileNotFoundError: there is no run, or no checkpoint yet.
    ValueError: one of them cannot be read. The message names it.
  """
  saved = load_network(workdir)
  return saved.config, saved.variables


def _no_checkpoint(workdir: str) -> str:
  return f'{workdir} has no checkpoint yet: let its training run longer.'


def _training_item(state: TrainState) -> dict[str, Any]:
  return {'step': state.step, 'opt_state': state.opt_state, 'key': state.key}


def _open_manager(
  folder: AnyPath,
  keep: int | None,
  best_metric: str = '',
  finishing: Callable[[], None] | None = None,
) -> ocp.CheckpointManager:
  """Opens the checkpoints.

  Args:
    folder: the folder of checkpoints.
    keep: the number of newest checkpoints to keep. None only reads, and creates or cleans nothing.
    best_metric: the figure whose lowest value also keeps a checkpoint, or an empty text.
    finishing: called when a checkpoint is complete except for its name.
  """
  policies: list[checkpoint_managers.PreservationPolicy] = [checkpoint_managers.LatestN(keep)]

  def goodness(figures: Any) -> float:
    return -float(figures[best_metric])

  if best_metric:
    policies.append(
      checkpoint_managers.BestN(get_metric_fn=goodness, n=1, keep_checkpoints_without_metrics=False)
    )
  if keep is None:
    options = ocp.CheckpointManagerOptions(
      create=False, enable_async_checkpointing=False, read_only=True
    )
  else:
    if jax.process_index() == 0:
      # An interrupted save leaves files that Orbax does not remove.
      for leftover in unfinished_saves(folder):
        remove_tree(leftover)
    options = ocp.CheckpointManagerOptions(
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
      best_fn=goodness if best_metric else None,
      async_options=ocp.AsyncOptions(post_finalization_callback=finishing),
    )
  return ocp.CheckpointManager(folder, options=options, item_names=(_VARIABLES, _TRAINING, _DATA))


def unfinished_saves(folder: AnyPath) -> list[AnyPath]:
  """Finds the files that interrupted saves left in the folder of checkpoints."""
  if not is_address(folder):
    return list(folder.glob(f'*{_UNFINISHED}*'))
  finished = saved_steps(folder)
  return [
    path for path in folder.glob('*') if path.name.isdigit() and int(path.name) not in finished
  ]


def _restore(
  manager: ocp.CheckpointManager, folder: AnyPath, step: int, items: ocp.args.Composite
) -> Any:
  checkpoint = folder / str(step)
  if damage := find_damage(checkpoint):
    raise unreadable(checkpoint, damage)
  try:
    return manager.restore(step, args=items)
  except Exception as error:  # tensorstore, JSON and file errors alike
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    if (checkpoint / FILES_NAME).exists():
      # All files are unchanged, so do not advise to remove them.
      raise ValueError(
        f'Checkpoint {checkpoint} is whole, and cannot be read: it holds other parts than this '
        f'version keeps of such a run ({reason}). Start from it in another --workdir by '
        f'--init_from={folder.parent}, or continue it with the version that began it.'
      ) from error
    raise unreadable(checkpoint, reason) from error
