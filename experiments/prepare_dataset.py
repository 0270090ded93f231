"""Builds a prepared data set with tfds: python -m experiments.prepare_dataset --dataset=NAME ..."""

import functools
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from absl import app, flags, logging

from hand_jax.data.prepared import MANIFEST_NAME
from hand_jax.preparing.building import STOP_SIGNALS, Prepared, Progress, prepare, size_of_photos

DATASETS_FOLDER = pathlib.Path(__file__).parent.parent / 'datasets'


def _prepare_synthetic_hands(data_dir: pathlib.Path) -> Prepared:
  from synthetic_hands.synthetic_hands_dataset_builder import SyntheticHands

  flag = flags.FLAGS
  examples = {
    'train': flag.train_examples,
    'validation': flag.validation_examples,
    'test': flag.test_examples,
  }
  if not any(examples.values()):
    raise ValueError('Nothing to build: every split has 0 examples.')
  settings = {
    'examples': {split: count for split, count in examples.items() if count},
    'image_size': flag.image_size,
    'seed': flag.seed,
  }
  return prepare(SyntheticHands, data_dir, settings, workers=flag.workers, report=Progress())


def _prepare_hand_photos(data_dir: pathlib.Path) -> Prepared:
  from hand_photos.hand_photos_dataset_builder import HandPhotos, split_entries

  from hand_jax.readers.hand_photos import annotations_digest, read_annotations

  flag = flags.FLAGS
  source = _source_of('hand_photos', 'with annotations.json in it')
  fraction = 0.1 if flag.validation_fraction is None else flag.validation_fraction
  settings = {'validation_fraction': fraction, 'annotations_sha256': annotations_digest(source)}
  # Found here, mistakes cost no lock and no folder; the builder looks at the photos too.
  split_entries(read_annotations(source), fraction)
  return prepare(HandPhotos, data_dir, settings, source=source, report=Progress())


def _source_of(dataset: str, content: str) -> str:
  if not flags.FLAGS.source:
    raise ValueError(f'--dataset={dataset} needs --source=FOLDER, {content}.')
  return flags.FLAGS.source


def _announce(source: str, halves: Sequence[str]) -> None:
  """Says what was found, and why nothing will be seen for a while."""
  print(f'{source}: {" and ".join(halves)} found. Reading the annotations ...', flush=True)


def _real_data_settings(digest: str) -> dict[str, Any]:
  """What decides the contents of a published data set, prepared."""
  fraction = flags.FLAGS.validation_fraction
  return {
    'validation_fraction': 0.01 if fraction is None else fraction,
    'limit': flags.FLAGS.limit,
    'annotations_sha256': digest,
  }


def _refuse_skips(prepared: Prepared) -> Prepared:
  """With --strict, also a finished data set must be without skips; ValueError says so."""
  skipped = prepared.manifest.get('skipped')
  if flags.FLAGS.strict and skipped:
    counts = ', '.join(f'{part["count"]} of {split}' for split, part in skipped.items())
    raise ValueError(
      f'{prepared.folder} was built without --strict and left out {counts}; see its '
      f'{MANIFEST_NAME}, remove it or choose another --data_dir.'
    )
  return prepared


def _prepare_freihand(data_dir: pathlib.Path) -> Prepared:
  from freihand.freihand_dataset_builder import Freihand

  from hand_jax.readers.freihand import annotations_digest, check_folder

  flag = flags.FLAGS
  source = _source_of('freihand', 'the unpacked FreiHAND_pub_v2')
  halves = check_folder(source)
  _announce(source, halves)
  photos = [list(pathlib.Path(source, half, 'rgb').glob('*.jpg')) for half in halves]
  return _refuse_skips(
    prepare(
      Freihand,
      data_dir,
      _real_data_settings(annotations_digest(source)),
      needed_bytes=sum(size_of_photos(half, flag.limit) for half in photos),
      source=source,
      strict=flag.strict,
      workers=flag.workers,
      report=Progress(),
    )
  )


def _prepare_ho3d(version: str, data_dir: pathlib.Path) -> Prepared:
  from ho3d.ho3d_dataset_builder import Ho3d

  from hand_jax.mano.assets import load_mano_model, resolve_mano_dir
  from hand_jax.mano.mano_files import find_mano_file
  from hand_jax.readers.annotation_files import files_digest
  from hand_jax.readers.ho3d_folder import (
    PHOTO_SUFFIX,
    annotations_digest,
    check_folder,
    read_frame_list,
  )

  flag = flags.FLAGS
  source = _source_of(f'ho3d_{version}', f'the unpacked HO3D_{version}')
  halves = check_folder(source, version)
  mano_dir = resolve_mano_dir(flag.mano_dir)
  mano_sha256 = None
  if mano_dir is None:
    print(
      'No --mano_dir: the data set will have joints but no vertices, which HO3D gives as MANO '
      'parameters alone.',
      flush=True,
    )
  else:
    load_mano_model(mano_dir)  # Found here, a mistake costs no lock and no folder.
    file = find_mano_file(mano_dir, 'right') if os.path.isdir(mano_dir) else pathlib.Path(mano_dir)
    mano_sha256 = files_digest(file.parent, [file.name])
  _announce(source, halves)
  photos = []
  for half in halves:
    frames = (frame.split('/') for frame in read_frame_list(source, half))
    folder, suffix = pathlib.Path(source, half), PHOTO_SUFFIX[version]
    photos.append([folder / sequence / 'rgb' / (frame + suffix) for sequence, frame in frames])
  settings = _real_data_settings(annotations_digest(source)) | {'mano_sha256': mano_sha256}
  return _refuse_skips(
    prepare(
      Ho3d,
      data_dir,
      settings,
      config=version,
      needed_bytes=sum(size_of_photos(half, flag.limit) for half in photos),
      source=source,
      mano_dir=mano_dir,
      strict=flag.strict,
      workers=flag.workers,
      report=Progress(),
    )
  )


class Command(NamedTuple):
  """How a data set is prepared, and the flags that it alone has."""

  prepare: Callable[[pathlib.Path], Prepared]
  own_flags: tuple[str, ...]


_REAL_DATA_FLAGS = ('source', 'validation_fraction', 'limit', 'strict', 'workers')
COMMANDS = {
  'synthetic_hands': Command(
    _prepare_synthetic_hands,
    ('train_examples', 'validation_examples', 'test_examples', 'image_size', 'seed', 'workers'),
  ),
  'hand_photos': Command(_prepare_hand_photos, ('source', 'validation_fraction')),
  'freihand': Command(_prepare_freihand, _REAL_DATA_FLAGS),
  **{
    f'ho3d_{version}': Command(
      functools.partial(_prepare_ho3d, version), (*_REAL_DATA_FLAGS, 'mano_dir')
    )
    for version in ('v2', 'v3')
  },
}


def refuse_flags_of_others(dataset: str, given: Collection[str]) -> None:
  """Checks that the flags that were given can have an effect on `dataset`.

  Raises:
    ValueError: the first one that belongs to another data set.
  """
  own_flags = COMMANDS[dataset].own_flags
  for other, command in COMMANDS.items():
    for name in command.own_flags:
      if name not in own_flags and name in given:
        own = ', '.join(f'--{own}' for own in own_flags)
        raise ValueError(f'--{name} belongs to --dataset={other}; --dataset={dataset} takes {own}.')


def define_flags() -> None:
  """The command's flags; only when run, so that tests may import several commands at once."""
  flags.DEFINE_enum('dataset', None, list(COMMANDS), 'Data set to build.', required=True)
  flags.DEFINE_string('data_dir', None, 'Folder that holds prepared data sets.', required=True)
  number = flags.DEFINE_integer
  number('train_examples', 10000, 'synthetic_hands: examples to train on.', lower_bound=0)
  number('validation_examples', 500, 'synthetic_hands: examples to watch.', lower_bound=0)
  number('test_examples', 1000, 'synthetic_hands: examples to test on.', lower_bound=0)
  number('image_size', 224, 'synthetic_hands: side of a rendered photo, pixels.', lower_bound=32)
  number('seed', 0, 'synthetic_hands: seed of the rendered examples.', lower_bound=0)
  number('workers', 1, 'Processes that render, or read and check.', lower_bound=1)
  number('limit', 0, 'freihand, ho3d: at most so many examples of each split; 0: all.', 0)
  flags.DEFINE_string(
    'source',
    None,
    'hand_photos: folder with images/ and annotations.json. freihand, ho3d: the unpacked download.',
  )
  flags.DEFINE_float(
    'validation_fraction',
    None,
    'The part of what there is to train on that is kept for validation, at least one (0: none, '
    'but training needs it). hand_photos: hands from the end of the list, 0.1 by default; '
    'freihand: samples from the end, 0.01; ho3d: whole sequences, 0.01.',
  )
  flags.DEFINE_boolean(
    'strict', False, 'freihand, ho3d: an example that cannot be used is an error, not left out.'
  )
  flags.DEFINE_string(
    'mano_dir', None, 'ho3d: folder with MANO_RIGHT.pkl or .npz, for vertices; default: $MANO_DIR.'
  )


def _stop(number: int, frame: Any) -> None:
  raise KeyboardInterrupt(number)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    sys.exit(f'Unexpected argument: {argv[1]}. Settings are given as --name=value.')
  for number in STOP_SIGNALS:
    signal.signal(number, _stop)
  # The builders are not a package: their folder shares its name with a well-known one.
  sys.path.insert(0, str(DATASETS_FOLDER))
  logging.set_verbosity(logging.ERROR)
  started = time.monotonic()
  dataset = flags.FLAGS.dataset
  if dataset.startswith(('freihand', 'ho3d')):
    # Little arithmetic, in several processes: none of them should take hold of an accelerator.
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  try:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    refuse_flags_of_others(dataset, [name for name in flags.FLAGS if flags.FLAGS[name].present])
    prepared = COMMANDS[dataset].prepare(pathlib.Path(flags.FLAGS.data_dir))
  except (ValueError, RuntimeError, OSError) as error:
    sys.exit(f'Error: {error}')
  except KeyboardInterrupt as stop:
    print('Stopped; nothing was left behind.', file=sys.stderr)
    sys.exit(128 + (stop.args[0] if stop.args else signal.SIGINT))
  counts = ', '.join(f'{count} {split}' for split, count in prepared.manifest['examples'].items())
  took = f'; {time.monotonic() - started:.0f} s' if prepared.is_new else ''
  state = 'Complete' if prepared.is_new else 'Already complete, nothing to do'
  print(f'{state}: {prepared.folder} ({counts} examples{took}). Details in {MANIFEST_NAME}.')
  for split, skipped in prepared.manifest.get('skipped', {}).items():
    example, reason = next(iter(skipped['examples'].items()))
    print(f'{split}: {skipped["count"]} left out; the first, {example}: {reason}.')


if __name__ == '__main__':
  define_flags()
  app.run(main)
