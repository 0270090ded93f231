"""tfds builder of HO3D v2 and v3 from genuine folders; layout and conversions in README.md."""

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from hand_jax.data.examples import example_features
from hand_jax.data.ho3d import Truth, load_records, make_jobs
from hand_jax.data.ho3d_folder import (
  PHOTO_SUFFIX,
  check_folder,
  read_evaluation_truths,
  read_frame_list,
  split_frames,
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


class Ho3d(StreamedBuilder):
  """Builds `train`, `validation` (both from train.txt) and `test` (evaluation.txt, in its order).

  The configs are `v2` and `v3`. `mano_dir` holds the MANO model that vertices are made with; None
  leaves them out. `limit` is the most examples of a split (0: all). Examples that cannot be used
  are left out and named in `skips`; `strict` makes the first one an error. `annotations_sha256` and
  `mano_sha256` are for the record of what was built. `report(split, done, count)` is called after
  every example; after building, `sha256` holds the hash of each split's contents.
  """

  name = 'ho3d'
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
    tfds.core.BuilderConfig(name=version, description=f'HO3D_{version}') for version in PHOTO_SUFFIX
  ]

  def __init__(
    self,
    *,
    source: str = '',
    mano_dir: str | None = None,
    validation_fraction: float = 0.01,
    limit: int = 0,
    annotations_sha256: str | None = None,
    mano_sha256: str | None = None,
    strict: bool = False,
    workers: int = 1,
    report: Report = no_report,
    **kwargs,
  ):
    del annotations_sha256, mano_sha256
    self._source, self._mano_dir = source, mano_dir
    self._validation_fraction, self._limit = validation_fraction, limit
    self._strict, self._workers, self._report = strict, workers, report
    self.sha256: dict[str, str] = {}
    self.skips: dict[str, list[Skip]] = {}
    super().__init__(**kwargs)

  def download_and_prepare(self, **kwargs) -> None:
    """Builds all splits, with one set of worker processes.

    Raises:
      FileNotFoundError, ValueError: see `check_folder`, `read_frame_list`, `numbered_records`.
    """
    with worker_processes(self._workers) as self._executor:
      super().download_and_prepare(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='HO3D (Hampali et al., CVPR 2020) in our conventions; see README.md.',
      homepage='https://github.com/shreyashampali/ho3d',
      features=example_features(),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Any]:
    del dl_manager  # nothing is downloaded
    generators = {}
    for half in check_folder(self._source, self.builder_config.name):
      frames = read_frame_list(self._source, half)
      if half == 'train':
        for name, part in split_frames(frames, self._validation_fraction).items():
          generators[name] = self._generate_examples(name, half, part)
      else:
        truths = read_evaluation_truths(self._source, len(frames))
        generators['test'] = self._generate_examples('test', half, frames, truths)
    return generators

  def _generate_examples(
    self, name: str, half: str, frames: Sequence[str], truths: Sequence[Truth] | None = None
  ):
    frames = frames[: self._limit] if self._limit else frames
    jobs = make_jobs(self._source, self.builder_config.name, half, frames, self._mano_dir, truths)
    records = results_in_order(load_records, jobs, self._executor, ahead=2 * self._workers)
    skips = None if self._strict else self.skips.setdefault(name, [])
    return numbered_records(name, records, len(frames), self.sha256, self._report, skips)
