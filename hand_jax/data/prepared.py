"""Reads prepared data sets, their manifests and their examples in any order."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hand_jax.data.augmentation import CropChange
from hand_jax.data.bucket_copies import copy_from_bucket
from hand_jax.data.crop_features import (
  CropFeatures,
  CropFeatureSettings,
  crop_change,
  decode_crop_features,
  settings_of_manifest,
)
from hand_jax.data.decoding import decode_mask, decode_photo, photo_size, record_parser
from hand_jax.data.landmark_errors import Selection, read_landmark_errors, select_examples
from hand_jax.data.manifests import MANIFEST_NAME, tfds_name
from hand_jax.examples import HandExample, decode_example
from hand_jax.files.paths import is_address
from hand_jax.mano.assets import FREE_HAND_VERSION

RENDERED_DATASET = 'synthetic_hands'
_WITHOUT_VALIDATION = (
  ' Training needs one: remove the data set and prepare it again with --validation_fraction '
  '(synthetic_hands: --validation_examples) above 0.'
)


def prepared_builder(dataset: str, data_dir: str) -> Any:
  """Opens tfds' reader of a prepared data set, which needs neither TensorFlow nor builder code.

  A data set in a bucket is copied to this computer first.

  Raises:
    FileNotFoundError: the folder does not hold the data set.
  """
  # Imported here: training on rendered examples needs no tfds.
  import tensorflow_datasets as tfds

  try:
    folder = copy_from_bucket(dataset, data_dir) if is_address(data_dir) else data_dir
    builder = tfds.builder(tfds_name(dataset), data_dir=folder, try_gcs=False)
    splits = builder.info.splits
  except (tfds.core.DatasetNotFoundError, FileNotFoundError):
    splits = {}
  if not splits:
    raise FileNotFoundError(
      f'No prepared data set {dataset!r} in {data_dir!r}. Prepare it with '
      f'python -m experiments.prepare_dataset --dataset={dataset}.'
    )
  # The folder describes its own features. Builder code that happens to be imported may know others.
  return tfds.builder_from_directory(builder.data_dir)


def prepared_manifest(dataset: str, data_dir: str) -> tuple[pathlib.Path, dict[str, Any]]:
  """Reads the manifest that experiments.prepare_dataset wrote beside a data set.

  Returns:
    The manifest's path, and its content.

  Raises:
    FileNotFoundError: there is no such data set.
    ValueError: its manifest is missing or cannot be read.
  """
  path = pathlib.Path(prepared_builder(dataset, data_dir).data_dir) / MANIFEST_NAME
  try:
    manifest = json.loads(path.read_text())
    if isinstance(manifest['settings'], dict):
      return path, manifest
  except (OSError, ValueError, KeyError, TypeError):
    pass
  raise ValueError(
    f'{path} is missing or cannot be read as the manifest of a prepared data set: remove '
    f'{path.parent} and prepare {dataset} again.'
  )


class PreparedSource:
  """A split of a prepared tfds data set, read in any order without TensorFlow or builder code.

  Args:
    name: name of the data set, as in settings and commands.
    data_dir: the folder that holds it.
    split: name of the split.
    count: largest number of examples, of which the first are taken. 0 takes all.
    max_landmark_error: keeps only examples whose landmark error is known and at most this. Examples
      are numbered after this selection. 0 keeps all.

  Raises:
    FileNotFoundError: the folder does not hold the data set.
    ValueError: the data set has no such split or was rendered from another free hand than this
      version's. Or there is a limit and the data set has no landmark errors, or none that is small
      enough.
  """

  def __init__(
    self, name: str, data_dir: str, split: str, count: int = 0, max_landmark_error: float = 0.0
  ):
    # Imported here: training on rendered examples needs no tfds.
    import tensorflow_datasets as tfds

    builder = prepared_builder(name, data_dir)
    _check_rendered_hand(name, builder)
    splits = builder.info.splits
    if split not in splits:
      advice = _WITHOUT_VALIDATION if split == 'validation' else ''
      found = ', '.join(splits)
      raise ValueError(f'Data set {name!r} has no split {split!r}; it has {found}.{advice}')
    # tfds would decode with OpenCV, and it would also decode masks that nobody asked for.
    stored = tfds.decode.DeserializeMethod.RAW_BYTES
    self._records = builder.as_data_source(split, deserialize_method=stored)
    self._parse = record_parser(builder.info.features)
    self._folder = pathlib.Path(builder.data_dir)
    manifest = _manifest_if_ours(self._folder / MANIFEST_NAME)
    self._feature_settings = settings_of_manifest(manifest) if manifest else None
    self._hands = hands_of_manifest(manifest) if manifest and name == RENDERED_DATASET else None
    self._selection, available = None, len(self._records)
    if max_landmark_error:
      errors = read_landmark_errors(self._records, builder.info.features)
      self._selection = self._select(errors, max_landmark_error, split)
      available = len(self._selection.numbers)
    self._count = min(count, available) if count else available

  def __len__(self) -> int:
    return self._count

  def load(self, indices: Sequence[int]) -> list[HandExample]:
    """Reads the examples with these numbers, with photos and masks.

    Raises:
      ValueError: a photo or mask is damaged. The message names the example.
    """
    return [
      example._replace(image=pictures.photo(), hand_mask=pictures.hand_mask())
      for example, pictures in self.open(indices)
    ]

  def open(
    self, indices: Sequence[int], with_masks: bool = True
  ) -> list[tuple[HandExample, 'EncodedPictures']]:
    """Reads examples with blank photos of the right size and no masks, and what decodes both.

    Raises:
      ValueError: a photo's header is damaged. The message names the example.
    """
    return [_open_record(self._record(index), with_masks) for index in indices]

  @property
  def feature_settings(self) -> CropFeatureSettings | None:
    """Returns the settings of the crops whose features are stored, or None without features."""
    return self._feature_settings

  @property
  def selection(self) -> Selection | None:
    """Returns the examples that the limit on the landmark error keeps, or None without a limit."""
    return self._selection

  @property
  def hands(self) -> str | None:
    """Returns the sampler of poses of a rendered data set. None means photos, or unknown."""
    return self._hands

  def open_features(
    self, indices: Sequence[int], with_masks: bool = False
  ) -> list[tuple[HandExample, CropFeatures]]:
    """Reads examples with blank photos of the right size, and their crops' features.

    Masks are left out unless they are asked for.

    Raises:
      ValueError: the data set was prepared without features, or a photo's header or a mask is
        damaged.
    """
    settings, opened = self._stored_settings(), []
    for index in indices:
      record = self._record(index)
      features = decode_crop_features(record, settings)
      example, pictures = _open_record(record, with_masks)
      opened.append((example._replace(hand_mask=pictures.hand_mask()), features))
    return opened

  def stored_change(self, index: int, crop: int, example: HandExample) -> CropChange:
    """Returns the change of one crop whose features `open_features` gives.

    It was drawn from the example's number in the whole split, whichever examples are kept here.

    Args:
      index: the example's number in this source.
      crop: the crop's number in the example.
      example: what `open_features` gives with the features.
    """
    return crop_change(self._stored_settings(), self._number(index), crop, example)

  def _stored_settings(self) -> CropFeatureSettings:
    if self._feature_settings is None:
      raise ValueError(f'{self._folder} was prepared without features (--with_features).')
    return self._feature_settings

  def _number(self, index: int) -> int:
    return int(index if self._selection is None else self._selection.numbers[index])

  def _record(self, index: int) -> dict[str, Any]:
    return self._parse(self._records[self._number(index)])

  def _select(self, errors: np.ndarray | None, most: float, split: str) -> Selection:
    if errors is not None:
      return select_examples(errors, most, f'split {split!r} in {self._folder}')
    if self._feature_settings is None:
      found, advice = 'was prepared without features', 'prepare it in another folder with'
    else:
      found, advice = "is an older version's", 'remove it and prepare it again with'
    raise ValueError(
      f'data.max_landmark_error={most:g}: {self._folder} {found}, so that it holds no landmark '
      f'errors: {advice} --with_features.'
    )


def _check_rendered_hand(name: str, builder: Any) -> None:
  """Raises a ValueError when rendered hands are not this version's free hand.

  The first number of the data set's version is the version of the free hand.
  """
  version = builder.info.version
  if name == RENDERED_DATASET and version.major != FREE_HAND_VERSION:
    raise ValueError(
      f'{builder.data_dir} shows free hand {version.major}, but this version of hand_jax has free '
      f'hand {FREE_HAND_VERSION}: prepare synthetic_hands again.'
    )


def _manifest_if_ours(path: pathlib.Path) -> dict[str, Any] | None:
  """Reads a data set's manifest, which a data set of another program does not have."""
  return json.loads(path.read_text()) if path.exists() else None


def hands_of_manifest(manifest: dict[str, Any]) -> str:
  """Returns the name of the sampler that posed the hands of a rendered data set.

  The manifests of the first data sets do not name it. They are 'classic'.
  """
  return manifest['settings'].get('hands', 'classic')


class EncodedPictures(NamedTuple):
  """A record's photo and mask as files. Decoding raises ValueError where one is damaged."""

  example_id: str
  photo_file: bytes
  mask_file: bytes | None

  def photo(self) -> np.ndarray:
    """Decodes the photo to (height, width, 3) uint8 RGB."""
    return decode_photo(self.photo_file, self.example_id)

  def hand_mask(self) -> np.ndarray | None:
    """Decodes the mask to (height, width) bool, or returns None where there is none."""
    return None if self.mask_file is None else decode_mask(self.mask_file, self.example_id) > 127


def _open_record(record: dict[str, Any], with_mask: bool) -> tuple[HandExample, EncodedPictures]:
  has_mask = with_mask and record['has_hand_mask']
  example_id = record['example_id'].decode()
  pictures = EncodedPictures(example_id, record['image'], record['hand_mask'] if has_mask else None)
  # One pixel stands for all, so that the blank photo takes no memory.
  blank = np.broadcast_to(np.uint8(0), (*photo_size(pictures.photo_file, example_id), 3))
  return decode_example(record | {'image': blank, 'has_hand_mask': False}), pictures
