"""Builds a prepared data set with tfds: python -m experiments.prepare_dataset --dataset=NAME ..."""

import os
import signal
import sys
import time
from typing import Any

from absl import flags

from experiments.builders import load_builder
from experiments.launching import launch, print_lines, read_flags, start
from experiments.path_flags import define_path
from experiments.rendering_flags import define_rendering
from hand_jax.preparing.building import STOP_SIGNALS
from hand_jax.preparing.data_sets import (
  RECIPES,
  PrepareRequest,
  describe_prepared,
  prepare_data_set,
  refuse_flags_of_others,
  refuse_idle_feature_flags,
)

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  flags.DEFINE_enum('dataset', None, list(RECIPES), 'Data set to build.', required=True)
  define_path('data_dir', None, 'Folder that holds prepared data sets.', required=True)
  define_rendering()
  number = flags.DEFINE_integer
  number('workers', 1, 'Number of processes that render, or read and check.', lower_bound=1)
  number('limit', 0, 'freihand, ho3d: largest number of examples of a split. 0 takes all.', 0)
  define_path(
    'source',
    None,
    'hand_photos: folder with images/ and annotations.json. freihand, ho3d: the unpacked download.',
  )
  flags.DEFINE_float(
    'validation_fraction',
    None,
    'Share of the training data that is kept for validation, at least one of them. 0 keeps none, '
    'but training needs a validation split. hand_photos takes hands from the end of the list (0.1 '
    'by default), freihand samples from the end (0.01) and ho3d whole sequences (0.01).',
  )
  flags.DEFINE_boolean(
    'strict', False, 'freihand, ho3d: stops at an example that cannot be used, instead of going on.'
  )
  define_path(
    'mano_dir', None, 'ho3d: folder with MANO_RIGHT.pkl or .npz, for vertices. Default: $MANO_DIR.'
  )
  _define_feature_flags()


def _define_feature_flags() -> None:
  flags.DEFINE_boolean('with_features', False, 'Stores features of the landmark network as well.')
  number = flags.DEFINE_integer
  number('feature_crops', 4, 'Number of crops of each example with stored features.', lower_bound=1)
  number('feature_maps', 0, 'Channels of the stored feature maps. 0 stores no maps.', 0, 112)
  flags.DEFINE_float(
    'feature_crop_factor', 1.4, "Side of those crops, relative to the box's longer side.", 1
  )


def _stop(number: int, frame: Any) -> None:
  raise KeyboardInterrupt(number)


def main(argv: list[str]) -> None:
  """Reads the flags and prepares the data set."""
  start(argv)
  for number in STOP_SIGNALS:
    signal.signal(number, _stop)
  started = time.monotonic()
  if FLAGS.dataset.startswith(('freihand', 'ho3d')):
    # The work is little arithmetic in several processes, none of which should hold an accelerator.
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  try:
    given = [name for name in FLAGS if FLAGS[name].present]
    refuse_flags_of_others(FLAGS.dataset, given)
    refuse_idle_feature_flags(given, FLAGS.with_features)
    request = PrepareRequest(**read_flags(PrepareRequest._fields))
    prepared = prepare_data_set(FLAGS.dataset, load_builder(FLAGS.dataset), request)
  except KeyboardInterrupt as stop:
    print('Stopped; nothing was left behind.', file=sys.stderr)
    sys.exit(128 + (stop.args[0] if stop.args else signal.SIGINT))
  print_lines(describe_prepared(prepared, time.monotonic() - started))


if __name__ == '__main__':
  define_flags()
  launch(main, failures=[RuntimeError])
