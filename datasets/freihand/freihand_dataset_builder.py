"""Builds FreiHAND with tfds from its original folder. README.md has the layout and conversions."""

from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from hand_jax.preparing.streamed_builder import PublishedBuilder
from hand_jax.readers.freihand import (
  FreihandSplit,
  check_folder,
  image_ids,
  load_records,
  make_jobs,
  read_split,
  split_samples,
)


class Freihand(PublishedBuilder):
  """Builds `train`, `validation` (both from the training half) and `test` (the evaluation half)."""

  name = 'freihand'
  VERSION = tfds.core.Version('1.0.0')
  DESCRIPTION = 'FreiHAND (Zimmermann et al., ICCV 2019) in our conventions; see README.md.'
  HOMEPAGE = 'https://lmb.informatik.uni-freiburg.de/projects/freihand/'

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
    ids = self._limited(image_ids(split, part))
    return self._records(name, load_records, make_jobs(split, ids), len(ids))
