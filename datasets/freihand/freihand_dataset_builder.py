"""tfds builder of FreiHAND from its genuine folder; layout and conversions in README.md."""

from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from hand_jax.data.examples import example_features
from hand_jax.data.freihand import (
  FreihandSplit,
  check_folder,
  image_ids,
  load_records,
  make_jobs,
  read_split,
  split_samples,
)
from hand_jax.data.records import (
  Report,
  Skip,
  no_report,
  numbered_records,
  results_in_order,
  worker_processes,
)
from hand_jax.data.streamed_builder import StreamedBuilder


class Freihand(StreamedBuilder):
  """Builds `train`, `validation` (both from the training half) and `test` (the evaluation half).

  `limit` is the most examples of a split (0: all). Examples that cannot be used are left out and
  named in `skips`; `strict` makes the first one an error. `annotations_sha256` is for the record of
  what was built. `report(split, done, count)` is called after every example; after building,
  `sha256` holds the hash of each split's contents, whatever the number of workers.
  """

  name = 'freihand'
  VERSION = tfds.core.Version('1.0.0')

  def __init__(
    self,
    *,
    source: str = '',
    validation_fraction: float = 0.01,
    limit: int = 0,
    annotations_sha256: str | None = None,
    strict: bool = False,
    workers: int = 1,
    report: Report = no_report,
    **kwargs,
  ):
    del annotations_sha256
    self._source, self._validation_fraction, self._limit = source, validation_fraction, limit
    self._strict, self._workers, self._report = strict, workers, report
    self.sha256: dict[str, str] = {}
    self.skips: dict[str, list[Skip]] = {}
    super().__init__(**kwargs)

  def download_and_prepare(self, **kwargs) -> None:
    """Builds all splits, with one set of worker processes.

    Raises:
      FileNotFoundError, ValueError: see `check_folder`, `read_split`, `numbered_records`.
    """
    with worker_processes(self._workers) as self._executor:
      super().download_and_prepare(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='FreiHAND (Zimmermann et al., ICCV 2019) in our conventions; see README.md.',
      homepage='https://lmb.informatik.uni-freiburg.de/projects/freihand/',
      features=example_features(),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Any]:
    del dl_manager  # nothing is downloaded
    generators = {}
    for half in check_folder(self._source):
      split = read_split(self._source, half)
      parts: dict[str, Sequence[int]] = {'test': range(split.samples)}
      if half == 'training':
        parts = split_samples(split.samples, self._validation_fraction)
      for name, part in parts.items():
        generators[name] = self._generate_examples(name, split, part)
    return generators

  def _generate_examples(self, name: str, split: FreihandSplit, part: Sequence[int]):
    ids = image_ids(split, part)
    ids = ids[: self._limit] if self._limit else ids
    records = results_in_order(
      load_records, make_jobs(split, ids), self._executor, ahead=2 * self._workers
    )
    skips = None if self._strict else self.skips.setdefault(name, [])
    return numbered_records(name, records, len(ids), self.sha256, self._report, skips)
