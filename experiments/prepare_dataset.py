"""Builds a prepared data set with tfds: python -m experiments.prepare_dataset --dataset=NAME ..."""

import contextlib
import fcntl
import importlib.metadata
import io
import json
import pathlib
import platform
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from absl import app, flags, logging

DATASETS_FOLDER = pathlib.Path(__file__).parent.parent / 'datasets'
MANIFEST = 'manifest.json'
PACKAGES = ('hand-jax', 'jax', 'numpy', 'opencv-python-headless', 'tensorflow-datasets')


class Progress:
  """One line on the terminal that says how far a split is and how long it will take."""

  def __init__(self, interval_s: float | None = None, clock: Callable[[], float] = time.monotonic):
    self._split, self._output, self._clock = '', sys.stdout, clock
    # A terminal's line is written over; a log file should stay short.
    self._interval_s = (1.0 if sys.stdout.isatty() else 20.0) if interval_s is None else interval_s
    self._started = self._shown = clock()

  def __call__(self, split: str, done: int, count: int) -> None:
    now = self._clock()
    if split != self._split and self._split:
      self._started = self._shown
    self._split = split
    if now - self._shown < self._interval_s and done < count:
      return
    self._shown = now
    rate = done / max(now - self._started, 1e-9)
    left = f', {(count - done) / rate:.0f} s left' if done < count else ''
    end = '\n' if done == count or not self._output.isatty() else '\r'
    line = f'{split}: {done} of {count} examples ({rate:.1f}/s{left})'.ljust(70)
    print(line, end=end, file=self._output, flush=True)


def _version(package: str) -> str:
  with contextlib.suppress(importlib.metadata.PackageNotFoundError):
    return importlib.metadata.version(package)
  return 'not installed'


@contextlib.contextmanager
def _only_one_build(path: pathlib.Path) -> Iterator[None]:
  """Holds a lock file; the system frees it when the process ends, however it ends."""
  with path.open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise RuntimeError(f'Another build is running in {path.parent}; wait for it.') from None
    try:
      yield
    finally:
      path.unlink(missing_ok=True)


class Prepared(NamedTuple):
  """A finished data set: its folder, its manifest, and whether it was built just now."""

  folder: pathlib.Path
  manifest: dict[str, Any]
  is_new: bool


def read_manifest(folder: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
  """The manifest of a finished data set, which must have been built with `settings`.

  Raises:
    ValueError: the folder was not finished by `prepare`, or its settings differ.
  """
  path = folder / MANIFEST
  if not path.exists():
    raise ValueError(
      f'{folder} has no {MANIFEST}, so something else made it; remove it or choose another '
      '--data_dir.'
    )
  manifest = json.loads(path.read_text())
  found = manifest['settings']
  differences = [
    f'{name} {found.get(name)} instead of {value}'
    for name, value in settings.items()
    if found.get(name) != value
  ]
  if differences:
    raise ValueError(
      f'{folder} was built with {", ".join(differences)}; remove it or choose another --data_dir.'
    )
  return manifest


def prepare(
  create_builder: Callable[..., Any],
  data_dir: pathlib.Path,
  settings: dict[str, Any],
  **build_settings: Any,
) -> Prepared:
  """Builds `data_dir/<name>/<version>`; one that is finished already is kept.

  `settings` decide the contents and `build_settings` only how they are made; both go to
  `create_builder`, a tfds builder class with a `sha256` per split. Everything is written beside
  the final folder, which appears at the end and whole: a run that was stopped leaves nothing in
  its place, and the next one starts afresh.

  Raises:
    ValueError: the folder exists with other settings. RuntimeError: another build is running.
  """
  target = data_dir / create_builder.name / str(create_builder.VERSION)
  if target.exists():
    return Prepared(target, read_manifest(target, settings), is_new=False)
  data_dir.mkdir(parents=True, exist_ok=True)
  unfinished = data_dir / f'.{create_builder.name}.unfinished'
  with _only_one_build(data_dir / f'.{create_builder.name}.lock'):
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
      builder = create_builder(
        data_dir=unfinished, file_format='array_record', **settings, **build_settings
      )
      # tfds would announce a download, and name the unfinished folder as the place to find it.
      with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
      manifest = {
        'dataset': builder.name,
        'version': str(builder.version),
        'examples': {name: split.num_examples for name, split in builder.info.splits.items()},
        'sha256': builder.sha256,
        'settings': settings,
        'versions': {
          'python': platform.python_version(),
          **{package: _version(package) for package in PACKAGES},
        },
      }
      built = pathlib.Path(builder.data_dir)
      (built / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
      target.parent.mkdir(parents=True, exist_ok=True)
      built.rename(target)
    finally:
      shutil.rmtree(unfinished, ignore_errors=True)
  return Prepared(target, manifest, is_new=True)


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

  from hand_jax.data.hand_photos import annotations_digest, read_annotations

  flag = flags.FLAGS
  if not flag.source:
    raise ValueError('--dataset=hand_photos needs --source=FOLDER, with annotations.json in it.')
  settings = {
    'validation_fraction': flag.validation_fraction,
    'annotations_sha256': annotations_digest(flag.source),
  }
  # Found here, mistakes cost no lock and no folder; the builder looks at the photos too.
  split_entries(read_annotations(flag.source), flag.validation_fraction)
  return prepare(HandPhotos, data_dir, settings, source=flag.source, report=Progress())


class Command(NamedTuple):
  """How a data set is prepared, and the flags that it alone has."""

  prepare: Callable[[pathlib.Path], Prepared]
  own_flags: tuple[str, ...]


COMMANDS = {
  'synthetic_hands': Command(
    _prepare_synthetic_hands,
    ('train_examples', 'validation_examples', 'test_examples', 'image_size', 'seed', 'workers'),
  ),
  'hand_photos': Command(_prepare_hand_photos, ('source', 'validation_fraction')),
}


def refuse_flags_of_others(dataset: str, given: Collection[str]) -> None:
  """Checks that the flags that were given can have an effect on `dataset`.

  Raises:
    ValueError: the first one that belongs to another data set.
  """
  for other, command in COMMANDS.items():
    for name in command.own_flags:
      if other != dataset and name in given:
        own = ', '.join(f'--{own}' for own in COMMANDS[dataset].own_flags)
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
  number('workers', 1, 'synthetic_hands: processes that render.', lower_bound=1)
  flags.DEFINE_string('source', None, 'hand_photos: folder with images/ and annotations.json.')
  flags.DEFINE_float(
    'validation_fraction',
    0.1,
    'hand_photos: the part of the annotated hands, from the end of the list, that is kept for '
    'validation (at least one); 0: no validation split.',
  )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    sys.exit(f'Unexpected argument: {argv[1]}. Settings are given as --name=value.')
  # The builders are not a package: their folder shares its name with a well-known one.
  sys.path.insert(0, str(DATASETS_FOLDER))
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  logging.set_verbosity(logging.ERROR)
  started = time.monotonic()
  dataset = flags.FLAGS.dataset
  try:
    refuse_flags_of_others(dataset, [name for name in flags.FLAGS if flags.FLAGS[name].present])
    prepared = COMMANDS[dataset].prepare(pathlib.Path(flags.FLAGS.data_dir))
  except (ValueError, RuntimeError, OSError) as error:
    sys.exit(f'Error: {error}')
  except KeyboardInterrupt:
    sys.exit('Stopped; nothing was left behind.')
  counts = ', '.join(f'{count} {split}' for split, count in prepared.manifest['examples'].items())
  took = f'; {time.monotonic() - started:.0f} s' if prepared.is_new else ''
  state = 'Complete' if prepared.is_new else 'Already complete, nothing to do'
  print(f'{state}: {prepared.folder} ({counts} examples{took}). Details in {MANIFEST}.')


if __name__ == '__main__':
  define_flags()
  app.run(main)
