"""Chooses the data to measure a run on: a split, and the baseline of the training split."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from hand_jax.config import DataConfig, ExperimentConfig
from hand_jax.data.example_sources import create_source
from hand_jax.data.manifests import data_digest
from hand_jax.data.prepared import RENDERED_DATASET, prepared_builder
from hand_jax.evaluation.mean_hand import (
  MeanHand,
  cached_mean_hand,
  prepared_root_vertices,
  rendered_root_vertices,
)
from hand_jax.files.buckets import open_path, place_of

RENDERED_EXAMPLES = 500


def data_to_measure(config: ExperimentConfig, dataset: str, data_dir: str | None) -> DataConfig:
  """Points the run's data settings at the data set to measure on.

  Args:
    config: the run's configuration.
    dataset: name of the data set.
    data_dir: folder of prepared data sets, empty for hands that are rendered on the fly. With None
      it is the folder that the run was trained from, if that was on this data set, else empty.

  Raises:
    ValueError: the data set cannot be rendered, and there is no folder to read it from.
    FileNotFoundError: the data set that the run was trained on is no longer where it was.
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
  """Returns whether one of the first `count` training examples has a mesh to make a mean hand of.

  Data sets that have no training split, or only 2D joints, have no such baseline.
  """
  if not data.data_dir:
    return True
  try:
    create_source(data, data.train_split, image_size=0)
  except ValueError:  # the data set has no such split
    return False
  meshes = prepared_root_vertices(data.dataset, data.data_dir, data.train_split, count)
  return any(True for _ in meshes)


def mean_hand_of(workdir: str, data: DataConfig, count: int) -> MeanHand | None:
  """Reads or computes the baseline of the training split, and keeps it in the run's folder.

  Args:
    workdir: folder of the run.
    data: the data set that is measured on.
    count: how many training examples to take, from the first.

  Returns:
    The mean hand, or None where these examples have no 3D labels.
  """
  if not has_meshes(data, count):
    return None
  split = data.train_split
  if data.data_dir:
    # The digest identifies the data by content, wherever they lie and whatever lay there before.
    place = data_digest(data.dataset, data.data_dir) or place_of(data.data_dir)
  else:
    place = f'rendered with seed {data.seed}'
    # Older files do not name the hands, which were classic. They stay valid.
    place += '' if data.hands == 'classic' else f', {data.hands} hands'
    count = min(count, data.train_examples) if data.train_examples else count

  def vertices() -> Iterable[Any]:
    if data.data_dir:
      return prepared_root_vertices(data.dataset, data.data_dir, split, count)
    return rendered_root_vertices(data.seed, split, count, data.hands)

  description = f'first {count} examples of {data.dataset}, split {split}, {place}'
  path = open_path(workdir) / 'evaluation' / f'{data.dataset}-mean_hand.npz'
  return cached_mean_hand(path, description, vertices)
