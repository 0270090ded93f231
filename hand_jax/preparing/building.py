"""Builds a prepared data set whole or not at all, with progress and a manifest."""

import contextlib
import fcntl
import importlib.metadata
import io
import json
import pathlib
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from hand_jax.data.manifests import MANIFEST_NAME

# The manifest counts all skipped examples of a split, and names at most this many of them.
NAMED_SKIPS = 1000
PACKAGES = ('hand-jax', 'jax', 'numpy', 'opencv-python-headless', 'tensorflow-datasets')
# Older manifests lack settings that did not exist yet. They mean these values.
_MEANT_BEFORE = {'hands': 'classic'}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C sends the first, and a system sends the second to end a process."""
# The size of many photos is estimated from about this many of them.
_SIZED_PHOTOS = 500


class Progress:
  """A line on the terminal with the progress of a split and the time that is left."""

  def __init__(self, interval_s: float | None = None, clock: Callable[[], float] = time.monotonic):
    self._split, self._output, self._clock = '', sys.stdout, clock
    # On a terminal each line overwrites the one before, but a log file should stay short.
    self._interval_s = (1.0 if sys.stdout.isatty() else 20.0) if interval_s is None else interval_s
    self._started = self._shown = clock()

  def __call__(self, split: str, done: int, count: int) -> None:
    """Prints the line, unless the last one is too recent.

    Args:
      split: name of the split.
      done: number of finished examples.
      count: number of all examples.
    """
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


class Prepared(NamedTuple):
  """A finished data set: its folder, its manifest, and whether it was built just now."""

  folder: pathlib.Path
  manifest: dict[str, Any]
  is_new: bool


def read_manifest(folder: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
  """Reads the manifest of a finished data set, which must have been built with `settings`.

  Raises:
    ValueError: `prepare` did not finish the folder, or its settings differ.
  """
  path = folder / MANIFEST_NAME
  if not path.exists():
    raise ValueError(
      f'{folder} has no {MANIFEST_NAME}, so something else made it; remove it or choose another '
      '--data_dir.'
    )
  manifest = json.loads(path.read_text())
  found = _MEANT_BEFORE | manifest['settings']
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


def skips_by_reason(skips: dict[str, list[Any]]) -> dict[str, Any]:
  """Returns the manifest's entry about skipped examples: how many in each split, which and why."""
  return {
    split: {
      'count': len(skipped),
      'examples': {skip.example_id: skip.reason for skip in skipped[:NAMED_SKIPS]},
    }
    for split, skipped in skips.items()
    if skipped
  }


def size_of_photos(photos: Sequence[pathlib.Path], most: int = 0) -> int:
  """Estimates the bytes of the first `most` photos (0: all) from the sizes of a few of them.

  A missing photo counts as empty.
  """
  count = min(most, len(photos)) if most else len(photos)
  few = photos[:count][:: max(1, count // _SIZED_PHOTOS)]
  total = sum(photo.stat().st_size for photo in few if photo.is_file())
  return total * count // max(1, len(few))


def _check_room(folder: pathlib.Path, needed_bytes: int) -> None:
  free = shutil.disk_usage(folder).free
  if free < needed_bytes:
    needed, free = (f'{size / 1e6:,.0f} MB' for size in (needed_bytes, free))
    raise OSError(
      f'{folder} has {free} free, but the photos alone will take {needed}: free some room or '
      'choose another --data_dir.'
    )


@contextlib.contextmanager
def _only_one_build(path: pathlib.Path) -> Iterator[None]:
  """Holds a lock file, which the system frees when the process ends, however it ends."""
  folder = path.parent
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = path.open('w')
  except OSError as error:
    reason = 'it is a file' if isinstance(error, FileExistsError) else error.strerror
    raise OSError(
      f'Nothing can be written into {folder} ({reason}): --data_dir should name a folder, which '
      'need not exist yet, where this user may write.'
    ) from None
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise RuntimeError(f'Another build is running in {folder}; wait for it.') from None
    try:
      yield
    finally:
      path.unlink(missing_ok=True)


def _remove_undisturbed(folder: pathlib.Path) -> None:
  """Removes a folder if it is there, and ignores signals that would stop it halfway."""
  handlers = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
  try:
    shutil.rmtree(folder, ignore_errors=True)
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


def prepare(
  create_builder: Callable[..., Any],
  data_dir: pathlib.Path,
  settings: dict[str, Any],
  config: str | None = None,
  needed_bytes: int = 0,
  **build_settings: Any,
) -> Prepared:
  """Builds `data_dir/<name>[/<config>]/<version>`, or keeps it where it is finished already.

  Everything is written beside the final folder, which appears whole at the end. A build that was
  stopped leaves nothing there, and the next one starts from the beginning. Call this in the main
  thread.

  Args:
    create_builder: a tfds builder class. Its builders have a `sha256` for each split, and `skips`
      for each split where examples may be unusable.
    data_dir: the folder of all prepared data sets.
    settings: settings of the builder that determine the contents. They go into the manifest.
    config: name of the builder's config, where it has any.
    needed_bytes: the smallest number of bytes that the result will take on disk.
    **build_settings: settings of the builder that do not affect the contents.

  Returns:
    The finished data set.

  Raises:
    ValueError: the folder exists with other settings.
    RuntimeError: another build is running.
    OSError: `data_dir` cannot be written to, or has no room for `needed_bytes`.
  """
  name = f'{create_builder.name}/{config}' if config else create_builder.name
  target = data_dir / name / str(create_builder.VERSION)
  if target.exists():
    return Prepared(target, read_manifest(target, settings), is_new=False)
  hidden = name.replace('/', '_')
  unfinished = data_dir / f'.{hidden}.unfinished'
  with _only_one_build(data_dir / f'.{hidden}.lock'):
    shutil.rmtree(unfinished, ignore_errors=True)
    _check_room(data_dir, needed_bytes)
    try:
      chosen = {'config': config} if config else {}
      builder = create_builder(
        data_dir=unfinished, file_format='array_record', **chosen, **settings, **build_settings
      )
      # tfds would announce a download, and name the unfinished folder as the place to find it.
      with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
      manifest = {
        'dataset': name,
        'version': str(builder.version),
        'examples': {name: split.num_examples for name, split in builder.info.splits.items()},
        'sha256': builder.sha256,
        'settings': settings,
        'versions': {
          'python': platform.python_version(),
          **{package: _version(package) for package in PACKAGES},
        },
      }
      if hasattr(builder, 'skips'):
        manifest['skipped'] = skips_by_reason(builder.skips)
      built = pathlib.Path(builder.data_dir)
      (built / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + '\n')
      target.parent.mkdir(parents=True, exist_ok=True)
      built.rename(target)
    finally:
      _remove_undisturbed(unfinished)
  return Prepared(target, manifest, is_new=True)
