"""Builds HO3D v2 and v3 with tfds from the original folders. README.md has the conversions."""

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from hand_jax.preparing.streamed_builder import PublishedBuilder
from hand_jax.readers.ho3d import Truth, load_records, make_jobs
from hand_jax.readers.ho3d_folder import (
  PHOTO_SUFFIX,
  check_folder,
  read_evaluation_truths,
  read_frame_list,
  split_frames,
)


class Ho3d(PublishedBuilder):
  """Builds `train`, `validation` (both from train.txt) and `test` (evaluation.txt, in its order).

  The configs are `v2` and `v3`. `mano_dir` holds the MANO model that gives the vertices. None
  leaves them out. `mano_sha256` is only stored in the manifest.
  """

  name = 'ho3d'
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
    tfds.core.BuilderConfig(name=version, description=f'HO3D_{version}') for version in PHOTO_SUFFIX
  ]
  DESCRIPTION = 'HO3D (Hampali et al., CVPR 2020) in our conventions; see README.md.'
  HOMEPAGE = 'https://github.com/shreyashampali/ho3d'

  def __init__(self, *, mano_dir: str | None = None, mano_sha256: str | None = None, **kwargs):
    del mano_sha256
    self._mano_dir = mano_dir
    super().__init__(**kwargs)

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
    frames = self._limited(list(frames))
    jobs = make_jobs(self._source, self.builder_config.name, half, frames, self._mano_dir, truths)
    return self._records(name, load_records, jobs, len(frames))
