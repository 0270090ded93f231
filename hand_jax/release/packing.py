"""Packs a trained run into the small folder that the package ships (`hand_jax/runs/packed_run.py`).

Parameters are kept in half precision if that hardly changes the network's estimates.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hand_jax.config import ExperimentConfig, flatten_config
from hand_jax.config_text import PATH_SETTINGS, config_to_json
from hand_jax.data.example_sources import create_source
from hand_jax.data.pipeline import evaluation_batches
from hand_jax.data.prepared import RENDERED_DATASET, prepared_manifest
from hand_jax.evaluation.evaluate import make_estimate_fn
from hand_jax.evaluation.metrics import MM_PER_M
from hand_jax.files.json_files import read_json
from hand_jax.files.writing import unfinished_path, write_json, write_whole
from hand_jax.models.branches import branches_of
from hand_jax.runs.checkpoints import CONFIG_NAME, SavedNetwork, load_network
from hand_jax.runs.hand_models import HAND_MODEL_NAME, load_run_model
from hand_jax.runs.lineage import LINEAGE_NAME, read_lineage
from hand_jax.runs.packed_run import NETWORK_NAME, run_folder, write_packed_variables
from hand_jax.runs.sources import read_sources
from hand_jax.types import HandBatch, ManoModel

CARD_NAME = 'card.json'
_FILES = (NETWORK_NAME, CONFIG_NAME, LINEAGE_NAME, HAND_MODEL_NAME, CARD_NAME)
# Half precision is used if vertices move by less than this many mm on average over this many hands.
_MAX_CHANGE_MM, _COMPARED_HANDS = 0.05, 64
_BRANCHES = ('posterior', 'prior')
_FIGURES = ('pa_mpjpe_mm', 'pa_mpvpe_mm', 'mpjpe_mm', 'mpvpe_mm')


def pack_run(
  workdir: str | os.PathLike,
  folder: str | os.PathLike,
  commit: str = '',
  compared_hands: int = _COMPARED_HANDS,
) -> dict[str, Any]:
  """Writes the newest checkpoint of a run as a packed run with a card, and returns the card.

  Args:
    workdir: folder of the trained run, whose backbone is the bundled landmark network.
    folder: the packed run's folder. An existing one is replaced as a whole.
    commit: commit of the code, for the card.
    compared_hands: the number of rendered hands on which both precisions are compared.

  Raises:
    FileNotFoundError, ValueError: the run cannot be read or packed.
    FileExistsError: the folder holds something else than a packed run.
  """
  folder, saved = pathlib.Path(folder), load_network(str(workdir))
  if folder.exists() and {path.name for path in folder.iterdir()} != set(_FILES):
    raise FileExistsError(
      f'{folder} holds other files than those of a packed run, so it is not replaced. Move it away '
      'first.'
    )
  model = load_run_model(workdir)
  change = half_precision_change(saved, model, compared_hands)
  dtype = np.float16 if change['mean_mm'] < _MAX_CHANGE_MM else np.float32
  with unfinished_path(folder) as unfinished:
    unfinished.mkdir()
    write_packed_variables(unfinished, saved.step, saved.variables, dtype)
    write_whole(unfinished / CONFIG_NAME, config_to_json(_without_places(saved.config)))
    write_json(unfinished / LINEAGE_NAME, _short_names(read_lineage(str(workdir))))
    record = (run_folder(workdir) / HAND_MODEL_NAME).read_text()
    write_whole(unfinished / HAND_MODEL_NAME, record)
    card = {
      'commit': commit,
      'config': saved.config.name,
      'hand_model': read_json(unfinished / HAND_MODEL_NAME)['name'],
      'step': saved.step,
      'batch_size': saved.config.training.batch_size,
      'hours': _hours(pathlib.Path(workdir), saved.config.training.batch_size),
      'trained_on': _trained_on(str(workdir), saved.config),
      'precision': np.dtype(dtype).name,
      'half_precision_change': change,
      'network_bytes': (unfinished / NETWORK_NAME).stat().st_size,
      'evaluations': _evaluations(pathlib.Path(workdir)),
    }
    write_json(unfinished / CARD_NAME, card)
    if folder.exists():
      shutil.rmtree(folder)
  return card


def half_precision_change(saved: SavedNetwork, model: ManoModel, hands: int) -> dict[str, float]:
  """Measures how far vertices of all branches move when parameters are in half precision.

  Args:
    saved: the run's config and variables.
    model: the hand model that it was trained with.
    hands: the number of rendered hands to compare on.

  Returns:
    `mean_mm` and `largest_mm` over the vertices of all hands, rounded, and the number of `hands`.
  """
  data = dataclasses.replace(saved.config.data, dataset=RENDERED_DATASET, data_dir='')
  config = dataclasses.replace(saved.config, data=data)
  source = create_source(data, 'validation', config.model.image_size, hands)
  # The backbone is not packed and stays as it is.
  params = {
    name: tree if name == 'backbone' else jax.tree.map(_in_half_precision, tree)
    for name, tree in saved.variables['params'].items()
  }
  whole = make_estimate_fn(config, saved.variables, model)
  half = make_estimate_fn(config, {**saved.variables, 'params': params}, model)
  moved = []
  with evaluation_batches(source, config, len(model.v_template)) as batches:
    for batch in batches:
      found = np.linalg.norm(_vertices(half(batch)) - _vertices(whole(batch)), axis=-1)
      moved.append(MM_PER_M * found[:, ~_padding(batch)])
  distances = np.concatenate(moved, axis=1)
  return {
    'mean_mm': round(float(distances.mean()), 5),
    'largest_mm': round(float(distances.max()), 5),
    'hands': hands,
  }


def _in_half_precision(leaf: Any) -> np.ndarray:
  return np.asarray(leaf, np.float16).astype(np.float32)


def _vertices(estimate: Any) -> np.ndarray:
  """Stacks the mean vertices of all branches, in metres."""
  return np.stack([np.asarray(found.vertices.mean) for found in branches_of(estimate).values()])


def _padding(batch: HandBatch) -> np.ndarray:
  return np.asarray(batch.is_padding)


def _without_places(config: ExperimentConfig) -> ExperimentConfig:
  """Shortens all paths to their last part, because the rest is meaningless on another computer."""
  values = flatten_config(config)
  for path in PATH_SETTINGS:
    value = values[path]
    short = tuple(map(_last_part, value)) if isinstance(value, tuple) else _last_part(value)
    config = _replaced(config, path.split('.'), short)
  return config


def _replaced(node: Any, keys: Sequence[str], value: Any) -> Any:
  key, *rest = keys
  value = _replaced(getattr(node, key), rest, value) if rest else value
  return dataclasses.replace(node, **{key: value})


def _last_part(path: str) -> str:
  return os.path.basename(os.path.normpath(path)) if path else path


def _short_names(lineage: dict[str, Any]) -> dict[str, Any]:
  """Shortens the folders in a lineage in the same way."""

  def shorten(origin: dict[str, Any]) -> dict[str, Any]:
    workdir, inner = _last_part(origin['workdir']), _short_names(origin['lineage'])
    return {**origin, 'workdir': workdir, 'lineage': inner}

  prior = lineage['camera_prior']
  return {
    **lineage,
    'init_from': [shorten(origin) for origin in lineage['init_from']],
    'camera_prior': None if prior is None else shorten(prior),
  }


def _trained_on(workdir: str, config: ExperimentConfig) -> dict[str, Any]:
  """Names the data of a run, with the digest that identifies prepared data.

  The number of examples is None where prepared data are no longer where the run read them.
  """
  data = config.data
  (source,) = read_sources(workdir, config).get('data.data_dir', (None,))
  examples: int | None = data.train_examples or None
  if data.data_dir:
    with contextlib.suppress(FileNotFoundError):
      _, manifest = prepared_manifest(data.dataset, data.data_dir)
      examples = manifest['examples'][data.train_split]
  return {
    'dataset': data.dataset,
    'examples': examples,
    'hands': data.hands,
    'labels': data.labels,
    'features': data.features,
    'upright': data.upright,
    'sha256': None if source is None else source.sha256,
  }


def _hours(workdir: pathlib.Path, batch_size: int) -> float:
  """Adds up the time of a run's steps from its log, without validation and compilation."""
  seconds, before = 0.0, 0
  for line in (workdir / 'metrics.jsonl').read_text().splitlines():
    row = json.loads(line)
    if 'examples_per_second' in row:
      seconds += (row['step'] - before) * batch_size / row['examples_per_second']
      before = row['step']
  return round(seconds / 3600, 3)


def _evaluations(workdir: pathlib.Path) -> dict[str, Any]:
  """Collects the main figures that `experiments.evaluate` wrote into a run's folder."""
  evaluations = {}
  for path in sorted((workdir / 'evaluation').glob('*.json')):
    results = read_json(path)
    figures = {
      branch: {name: round(results[branch][name], 3) for name in _FIGURES}
      for branch in _BRANCHES
      if branch in results
    }
    evaluations[path.stem] = {'examples': results['examples'], **figures}
  return evaluations
