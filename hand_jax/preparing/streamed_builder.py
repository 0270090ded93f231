"""Builds tfds data sets whose records are written as they come, however many there are."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow_datasets as tfds

from hand_jax.data.crop_features import record_features, stated_settings
from hand_jax.examples import Skip, example_features
from hand_jax.preparing.feature_extraction import with_crop_features
from hand_jax.preparing.records import (
  Report,
  no_report,
  numbered_records,
  results_in_order,
  worker_processes,
)

# With this many of the largest records (photos of 640 x 480 as PNG) a file has about 2 GB.
EXAMPLES_PER_FILE = 4096
# This many records are written at a time. tfds rewrites its description of the data set each time.
_BLOCK = 64


class StreamedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A builder of splits `{name: iterator of (number, record)}` in the order of their numbers.

  tfds itself sorts each split first, in memory and from 1 GB on with TensorFlow. After building,
  `sha256` holds the hash of each split's contents.

  Args:
    crop_features: settings of the crops, as `CropFeatureSettings.as_manifest` gives them. Every
      record then also holds the landmark network's features of its crops. None leaves them out.
    report: called with (split, done, count) after every example.
  """

  def __init__(
    self,
    *,
    crop_features: dict[str, Any] | None = None,
    report: Report = no_report,
    **kwargs,
  ):
    self._crop_features = stated_settings(crop_features) if crop_features else None
    self._report = report
    self.sha256: dict[str, str] = {}
    super().__init__(**kwargs)

  def _record_features(self) -> tfds.features.FeaturesDict:
    """Returns the features of a record, for `_info`."""
    features = example_features()
    if self._crop_features is None:
      return features
    return tfds.features.FeaturesDict({**features, **record_features(self._crop_features)})

  def _numbered(
    self,
    split: str,
    records: Iterable[dict[str, Any] | Skip],
    count: int,
    skips: list[Skip] | None = None,
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """Completes and numbers the encoded records of a split, see `numbered_records`."""
    if self._crop_features is not None:
      records = with_crop_features(records, self._crop_features)
    return numbered_records(split, records, count, self.sha256, self._report, skips)

  def download_and_prepare(self, **kwargs) -> None:
    """Writes all splits into the builder's folder, which is a data set only when this is done."""
    del kwargs  # nothing is downloaded
    if self.data_path.exists():
      return
    self.data_path.mkdir(parents=True)
    writer = tfds.core.SequentialWriter(self.info, EXAMPLES_PER_FILE, file_format='array_record')
    splits = self._split_generators(None)
    writer.initialize_splits(list(splits))
    for split, records in splits.items():
      while block := [record for _, record in itertools.islice(records, _BLOCK)]:
        writer.add_examples({split: block})
      writer.close_splits([split])


class PublishedBuilder(StreamedBuilder, skip_registration=True):
  """A builder of a published data set, which several processes read from its unpacked folder.

  Examples that cannot be used are left out and named in `skips`.

  Args:
    source: the unpacked folder.
    validation_fraction: this share of what there is to train on is held out.
    limit: largest number of examples of a split. 0 takes all.
    annotations_sha256: only stored in the manifest with the other settings.
    strict: makes the first example that cannot be used an error.
    workers: number of processes. It changes nothing in the result.
  """

  DESCRIPTION: str
  HOMEPAGE: str

  def __init__(
    self,
    *,
    source: str = '',
    validation_fraction: float = 0.01,
    limit: int = 0,
    annotations_sha256: str | None = None,
    strict: bool = False,
    workers: int = 1,
    **kwargs,
  ):
    del annotations_sha256
    self._source, self._validation_fraction, self._limit = source, validation_fraction, limit
    self._strict, self._workers = strict, workers
    self.skips: dict[str, list[Skip]] = {}
    super().__init__(**kwargs)

  def download_and_prepare(self, **kwargs) -> None:
    """Builds all splits with one set of worker processes.

    Raises:
      FileNotFoundError: the source lacks files.
      ValueError: the source cannot be used, see `numbered_records`.
    """
    with worker_processes(self._workers) as self._executor:
      super().download_and_prepare(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.DESCRIPTION,
      homepage=self.HOMEPAGE,
      features=self._record_features(),
      disable_shuffling=True,
    )

  def _limited(self, examples: list) -> list:
    return examples[: self._limit] if self._limit else examples

  def _records(
    self, split: str, load: Callable[[Any], list[Any]], jobs: Iterable[Any], count: int
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers the `count` examples that `load` makes of the jobs of a split."""
    records = results_in_order(load, jobs, self._executor, ahead=2 * self._workers)
    skips = None if self._strict else self.skips.setdefault(split, [])
    return self._numbered(split, records, count, skips)
