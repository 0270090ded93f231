"""Finds the classes that build the data sets, which are in `datasets`."""

import importlib
import pathlib
import sys

DATASETS_FOLDER = pathlib.Path(__file__).parent.parent / 'datasets'
BUILDERS = {
  'synthetic_hands': ('synthetic_hands', 'SyntheticHands'),
  'hand_photos': ('hand_photos', 'HandPhotos'),
  'freihand': ('freihand', 'Freihand'),
  'ho3d_v2': ('ho3d', 'Ho3d'),
  'ho3d_v3': ('ho3d', 'Ho3d'),
}
"""Gives each data set the folder under `datasets` and the class of its builder."""


def load_builder(dataset: str) -> type:
  """Imports the tfds builder class of a data set."""
  # The builders are no package, because their folder shares its name with a well-known one.
  sys.path.insert(0, str(DATASETS_FOLDER))
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  folder, name = BUILDERS[dataset]
  return getattr(importlib.import_module(f'{folder}.{folder}_dataset_builder'), name)
