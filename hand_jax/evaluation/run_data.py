"""What a run is measured on: a data set's split, and the baseline of its training split."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

from hand_jax.config import DataConfig, ExperimentConfig
from hand_jax.data.manifests import data_digest
from hand_jax.data.pipeline import create_source
from hand_jax.data.prepared import RENDERED_DATASET, prepared_builder
from hand_jax.evaluation.mean_hand import (
  MeanHand,
  cached_mean_hand,
  prepared_root_vertices,
  rendered_root_vertices,
)

RENDERED_EXAMPLES = 500


def data_to_measure(config: ExperimentConfig, dataset: str, data_dir: str | None) -> DataConfig:
  """The run's data settings, pointed at `dataset`.

  Raises:
    ValueError: a data set that cannot be rendered, and no folder to read it from.
    FileNotFoundError: the data set that the run was trained on is not where it was then.
  """
  if data_dir is None:
    data_dir = config.data.data_dir if dataset == config.data.dataset else ''
    if data_dir:
      _check_still_there(dataset, data_dir)
  if not data_dir and dataset != RENDERED_DATASET:
    raise ValueError(
      f'--dataset={dataset} needs --data_dir, the folder it was prepared in; only '
      f'{RENDERED_DATASET} can be rendered on the fly.'
    )
  return dataclasses.replace(config.data, dataset=dataset, data_dir=data_dir)


def _check_still_there(dataset: str, data_dir: str) -> None:
  try:
    prepared_builder(dataset, data_dir)
  except FileNotFoundError:
    raise FileNotFoundError(
      f'{data_dir}, where the run was trained, holds no prepared {dataset} now. Name the folder '
      'that it has moved to by --data_dir.'
    ) from None


def has_meshes(data: DataConfig, count: int) -> bool:
  """Whether one of the first `count` training examples has the vertices a mean hand is made of.

  Data sets that hold nothing to train on, or 2D joints alone, have no such baseline.
  """
  if not data.data_dir:
    return True
  try:
    create_source(data, data.train_split, image_size=0)
  except ValueError:  # no such split
    return False
  meshes = prepared_root_vertices(data.dataset, data.data_dir, data.train_split, count)
  return any(True for _ in meshes)


def mean_hand_of(workdir: str, data: DataConfig, count: int) -> MeanHand | None:
  """The baseline of the training split: of its first `count` examples, kept in the workdir.

  None where they have no 3D labels.
  """
  if not has_meshes(data, count):
    return None
  split = data.train_split
  if data.data_dir:
    # The data themselves, wherever they lie and whatever lay there before.
    place = data_digest(data.dataset, data.data_dir) or str(pathlib.Path(data.data_dir).resolve())
  else:
    place = f'rendered with seed {data.seed}'
    # Files of runs that know classic hands alone stay valid.
    place += '' if data.hands == 'classic' else f', {data.hands} hands'
    count = min(count, data.train_examples) if data.train_examples else count

  def vertices() -> Iterable[Any]:
    if data.data_dir:
      return prepared_root_vertices(data.dataset, data.data_dir, split, count)
    return rendered_root_vertices(data.seed, split, count, data.hands)

  description = f'first {count} examples of {data.dataset}, split {split}, {place}'
  path = pathlib.Path(workdir) / 'evaluation' / f'{data.dataset}-mean_hand.npz'
  return cached_mean_hand(path, description, vertices)
