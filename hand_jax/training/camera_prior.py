"""Loads the frozen camera model behind the elbo's mu_C, and copies it into the run.

It was trained beforehand, in a separate run.
"""

import zipfile
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils

from hand_jax.config import ExperimentConfig
from hand_jax.config_text import config_to_json
from hand_jax.files.buckets import AnyPath, open_path
from hand_jax.files.paths import is_address
from hand_jax.files.writing import unfinished_path, write_whole
from hand_jax.models.hand_network import CAMERA_MODULES
from hand_jax.runs.checkpoints import (
  CONFIG_NAME,
  load_network,
  read_config,
)
from hand_jax.runs.lineage import LINEAGE_NAME, Origin, read_lineage, read_origin, write_origin
from hand_jax.runs.packed_run import place_of_run
from hand_jax.runs.sources import latest_step
from hand_jax.training.objective import create_objective

CAMERA_PRIOR_NAME = 'camera_prior'
ORIGIN_NAME = 'origin.json'
VARIABLES_NAME = 'variables.npz'


class CameraPrior(NamedTuple):
  """A frozen camera model.

  `config` belongs to the run that trained it, and `origin` is its checkpoint in that run.
  `variables` holds only the parts of the network that estimate the camera (`params` and
  `batch_stats`, numpy).
  """

  config: ExperimentConfig
  variables: dict[str, Any]
  origin: Origin


def load_camera_prior(workdir: str, config: ExperimentConfig) -> CameraPrior | None:
  """Loads the camera prior of a run of the elbo, or returns None for other losses.

  The copy in the run's folder is read if there is one. Before that, the newest checkpoint of the
  run that `training.camera_prior` names is read. Nothing is written, see `claim_camera_prior`.

  Raises:
    ValueError: the setting is missing, or is given for another loss. Or the network has no such
      camera model, or was trained for other crops. Or a copy is damaged, is missing, or comes from
      another run.
    FileNotFoundError: the run that the setting names does not exist or has no checkpoint.
  """
  source = config.training.camera_prior
  objective = create_objective(config)
  if not objective.needs_camera_prior:
    if source:
      raise ValueError(
        f'training.camera_prior={source}: loss.kind={objective.kind!r} uses no camera prior. Leave '
        'it out.'
      )
    return None
  if not source:
    raise ValueError(
      f'loss.kind={objective.kind!r} needs a camera prior: a camera model trained beforehand '
      '(Algorithm 5), kept frozen. Train one with python -m experiments.train '
      '--config=synthetic_small_prior_weak --workdir=WORKDIR, then give --camera_prior=WORKDIR.'
    )
  folder = open_path(workdir) / CAMERA_PRIOR_NAME
  if _is_copied(folder):
    prior = _read_copy(folder)
    if not _is_own_copy(workdir, prior.origin, source):
      raise ValueError(
        f'{folder} was copied from {prior.origin.workdir}, not from {source}: choose another '
        '--workdir, or remove that folder.'
      )
  elif latest_step(workdir) is not None:
    raise ValueError(
      f'{folder} is missing, although the run has begun with it: put it back, or start a new run '
      'in another --workdir.'
    )
  else:
    prior = _take(source)
  if prior.config.model.image_size != config.model.image_size:
    raise ValueError(
      f'training.camera_prior: {source} was trained on crops of {prior.config.model.image_size} '
      f'px, this run uses {config.model.image_size}: train one with '
      f'model.image_size={config.model.image_size}, or set that of {source} here.'
    )
  if config.data.features == 'cached' and prior.config.data.features != 'cached':
    raise ValueError(
      f'training.camera_prior: {source} was trained on pictures, and a run with '
      "data.features='cached' has no pictures for it: train one with data.features=cached."
    )
  theirs, ours = prior.config.data.crop_factor, config.data.crop_factor
  if theirs != ours:
    raise ValueError(
      f'training.camera_prior: {source} was trained on crops of {theirs} times the box, this run '
      f'uses {ours}, where hands have another size in the crop: set data.crop_factor={theirs}.'
    )
  if prior.config.data.upright != config.data.upright:
    raise ValueError(
      f'training.camera_prior: {source} was trained with data.upright={prior.config.data.upright}, '
      f'this run has {config.data.upright}, where crops are turned differently: set '
      f'data.upright={prior.config.data.upright}.'
    )
  return prior


def _is_own_copy(workdir: str, origin: Origin, source: str) -> bool:
  """Returns whether a copy is the one that the run began with, wherever its source is now.

  `check_workdir` has to check that `source` is still that source.
  """
  if place_of_run(origin.workdir) == place_of_run(source):
    return True
  if not (open_path(workdir) / LINEAGE_NAME).exists():
    return False
  return read_lineage(workdir)['camera_prior'] == origin._asdict()


def claim_camera_prior(workdir: str, prior: CameraPrior | None) -> None:
  """Copies the prior into a new run's folder, unless it has a copy. All hosts call this.

  A continued run reads the copy, because the run that it came from may change or be removed.
  """
  if prior is None:
    return
  if jax.process_count() > 1:
    # All hosts must have chosen between the source and the copy before the copy appears.
    multihost_utils.sync_global_devices(CAMERA_PRIOR_NAME)
  folder = open_path(workdir) / CAMERA_PRIOR_NAME
  if _is_copied(folder) or jax.process_index() != 0:
    return
  with unfinished_path(folder) as unfinished:
    unfinished.mkdir()
    write_whole(unfinished / CONFIG_NAME, config_to_json(prior.config))
    write_origin(unfinished / ORIGIN_NAME, prior.origin)
    arrays: dict[str, Any] = traverse_util.flatten_dict(prior.variables, sep='/')
    np.savez(unfinished / VARIABLES_NAME, **arrays)


def _is_copied(folder: AnyPath) -> bool:
  # In a bucket the variables are written last.
  return (folder / VARIABLES_NAME).exists() if is_address(folder) else folder.is_dir()


def _take(workdir: str) -> CameraPrior:
  saved = load_network(workdir)
  if missing := [name for name in CAMERA_MODULES if name not in saved.variables['params']]:
    raise ValueError(f'training.camera_prior: {workdir} has no {", ".join(missing)}.')
  variables = {
    collection: {
      name: tree
      for name, tree in saved.variables.get(collection, {}).items()
      if name in CAMERA_MODULES
    }
    for collection in ('params', 'batch_stats')
  }
  origin = Origin(workdir, saved.step, read_lineage(workdir))
  return CameraPrior(saved.config, variables, origin)


def _read_copy(folder: AnyPath) -> CameraPrior:
  path = folder / VARIABLES_NAME
  try:
    with path.open('rb') as stream, np.load(stream) as file:
      arrays = dict(file)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(
      f'{path} cannot be read; it is damaged or incomplete ({reason}). Put back an intact copy, or '
      'start a new run in another --workdir.'
    ) from None
  variables = {'params': {}, 'batch_stats': {}} | traverse_util.unflatten_dict(arrays, sep='/')
  return CameraPrior(read_config(str(folder)), variables, read_origin(folder / ORIGIN_NAME))
