"""Makes rows to train on from stored features of crops, in place of pictures."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hand_jax.config import ExperimentConfig
from hand_jax.data.augmentation import add_features, make_labels
from hand_jax.data.crop_features import CropFeatures, CropFeatureSettings
from hand_jax.data.example_sources import CACHE_BYTES, ExampleSource
from hand_jax.data.prepared import PreparedSource
from hand_jax.data.silhouettes import SilhouetteMaker
from hand_jax.examples import HandExample, check_example, without_3d
from hand_jax.types import HandBatch, ImageFeatures


class CachedRows:
  """Makes rows of stored crops, and keeps them for later epochs where all of them fit in memory.

  A row depends only on its example and crop. The epoch and the example's number decide the crop.
  Rows are kept because making one takes longer than a training step of a small head. Several
  threads may ask for rows at once. At worst, two of them make the same row.

  Args:
    source: the examples, which were prepared with features.
    config: the run's config.
    num_vertices: number of vertices of the hand model.
    silhouettes: makes the rows' silhouettes, or None to leave them out.

  Raises:
    ValueError: the source holds no features.
  """

  def __init__(
    self,
    source: ExampleSource,
    config: ExperimentConfig,
    num_vertices: int,
    silhouettes: SilhouetteMaker | None = None,
  ):
    self._silhouettes = silhouettes
    self._source, self._settings = _featured(source, config)
    self._config, self._num_vertices = config, num_vertices
    self._kept: dict[tuple[int, int], HandBatch] = {}
    self._keeps: bool | None = None  # Unknown before the first row, whose size all rows have.

  def rows(self, places: Sequence[tuple[int, int]]) -> list[HandBatch]:
    """Returns the rows of some examples in some epochs.

    Args:
      places: for each row the number of its example, and the epoch in which it is shown.
    """
    wanted = [(index, self._drawn_crop(index, epoch)) for index, epoch in places]
    found = {key: self._kept[key] for key in wanted if key in self._kept}
    missing = [key for key in dict.fromkeys(wanted) if key not in found]
    with_masks = self._silhouettes is not None
    opened = self._source.open_features([index for index, _ in missing], with_masks)
    for key, (example, stored) in zip(missing, opened, strict=True):
      found[key] = self._row(*key, example, stored)
      self._keep(key, found[key])
    return [found[key] for key in wanted]

  def _drawn_crop(self, index: int, epoch: int) -> int:
    seed = self._config.training.seed
    return int(np.random.default_rng((seed, epoch, index)).integers(self._settings.crops))

  def _keep(self, key: tuple[int, int], row: HandBatch) -> None:
    if self._keeps is None:
      total = held_bytes(row) * len(self._source) * self._settings.crops
      self._keeps = total <= CACHE_BYTES
    if self._keeps:
      self._kept[key] = row

  def _row(self, index: int, crop: int, example: HandExample, stored: CropFeatures) -> HandBatch:
    config, whole = self._config, example
    if config.data.labels == '2d':
      example = without_3d(example)
    change = self._source.stored_change(index, crop, example)
    size, factor = config.model.image_size, config.data.crop_factor
    labels = make_labels(check_example(example), index, size, factor, self._num_vertices, change)
    features = ImageFeatures(
      stored.vectors[crop].astype(np.float32),
      None,
      stored.landmarks[crop],
      world_landmarks=stored.world_points[crop],
      reduced_maps=_reduced_maps(stored, crop) if config.model.attention.map_channels else None,
    )
    row, placement = labels
    row = add_features(row, placement, features)
    if self._silhouettes is not None:
      row = row._replace(silhouette=self._silhouettes(whole, whole.hand_mask, placement))
    return row


def held_bytes(row: HandBatch) -> int:
  """Counts the bytes of a row. Its picture and mask repeat one value and take no memory."""
  return sum(
    np.asarray(leaf).nbytes for leaf in jax.tree.leaves(row._replace(image=None, hand_mask=None))
  )


def _reduced_maps(stored: CropFeatures, crop: int) -> tuple[Any, Any]:
  assert stored.last_maps is not None and stored.middle_maps is not None, 'checked before training'
  return stored.last_maps[crop].astype(np.float32), stored.middle_maps[crop].astype(np.float32)


def check_cached_features(source: ExampleSource, config: ExperimentConfig) -> None:
  """Checks that the source holds the features that the config asks for.

  It does nothing unless `data.features` is 'cached'.

  Raises:
    ValueError: the source holds no features, or those of other crops.
  """
  if config.data.features != 'cached':
    return
  _, settings = _featured(source, config)
  if settings.crop_factor != config.data.crop_factor:
    raise ValueError(
      f"data.features='cached': {config.data.dataset} holds features of crops of "
      f'{settings.crop_factor} times the box, this run asks for {config.data.crop_factor}: set '
      f'data.crop_factor={settings.crop_factor}, or prepare it with '
      f'--feature_crop_factor={config.data.crop_factor}.'
    )
  if settings.upright != config.data.upright:
    kinds = {True: 'upright hands', False: 'hands as they lie in the photo'}
    raise ValueError(
      f"data.features='cached': {config.data.dataset} holds features of crops of "
      f'{kinds[settings.upright]}, this run (data.upright={config.data.upright}) asks for '
      f'{kinds[config.data.upright]}: set data.upright={settings.upright}'
      + (', or prepare it again in another folder.' if config.data.upright else '.')
    )
  channels = config.model.attention.map_channels
  if channels and (settings.maps, settings.projection_seed) != (channels, 0):
    raise ValueError(
      f"data.features='cached': {config.data.dataset} holds maps of {settings.maps} channels, this "
      f'run samples {channels}: set model.attention.map_channels={settings.maps}, or prepare it '
      f'with --feature_maps={channels}.'
    )


def _featured(
  source: ExampleSource, config: ExperimentConfig
) -> tuple[PreparedSource, CropFeatureSettings]:
  """Returns the source as one that holds features, and the settings of these features."""
  if isinstance(source, PreparedSource) and source.feature_settings is not None:
    return source, source.feature_settings
  raise ValueError(
    f"data.features='cached': {config.data.dataset} in {config.data.data_dir!r} holds no "
    'features. Prepare it in another folder with --with_features.'
  )
