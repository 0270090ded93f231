"""Builds a user's photos with 2D joints with tfds. README.md has the format of the folder."""

from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from hand_jax.examples import encode_example
from hand_jax.preparing.streamed_builder import StreamedBuilder
from hand_jax.readers.hand_photos import (
  PhotoEntry,
  annotations_digest,
  annotations_path,
  load_example,
  read_annotations,
  split_entries,
)


class HandPhotos(StreamedBuilder):
  """Builds `train` and `validation` from the folder `source`, in the order of its annotations.

  Every entry and photo is checked before anything is built. If `annotations_sha256` is given, the
  annotations must still have this digest. The first step that `report` gets is `check`.
  """

  name = 'hand_photos'
  VERSION = tfds.core.Version('1.0.0')

  def __init__(
    self,
    *,
    source: str = '',
    validation_fraction: float = 0.1,
    annotations_sha256: str | None = None,
    **kwargs,
  ):
    self._source, self._validation_fraction = source, validation_fraction
    self._annotations_sha256 = annotations_sha256
    self._splits: dict[str, Sequence[PhotoEntry]] = {}
    super().__init__(**kwargs)

  def download_and_prepare(self, **kwargs) -> None:
    """Checks everything, then builds.

    Raises:
      FileNotFoundError, ValueError: see `read_annotations`, `load_example`, `split_entries`.
    """
    if self._annotations_sha256 not in (None, annotations_digest(self._source)):
      raise ValueError(f'{annotations_path(self._source)} was changed meanwhile: start again.')
    entries = read_annotations(self._source)
    self._splits = split_entries(entries, self._validation_fraction)
    for done, entry in enumerate(entries, start=1):
      load_example(entry)
      self._report('check', done, len(entries))
    super().download_and_prepare(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Photos of hands with 2D joints; see README.md.',
      features=self._record_features(),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Any]:
    del dl_manager  # nothing is downloaded
    return {name: self._generate_examples(name, part) for name, part in self._splits.items()}

  def _generate_examples(self, split: str, entries: Sequence[PhotoEntry]):
    records = (encode_example(load_example(entry)) for entry in entries)
    return self._numbered(split, records, len(entries))
