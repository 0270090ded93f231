"""Handles files and folders that may lie in a bucket, such as `gs://bucket/run`, by etils' epath.

A bucket keeps whole objects. It has no real folders, and it can neither append to an object nor
rename a folder. The functions here write whole objects instead.
"""

import functools
import os
import pathlib
import shutil

from etils import epath
from fsspec.config import conf

from hand_jax.files.paths import RemotePathError, is_address

AnyPath = pathlib.Path | epath.Path

_PACKAGES = {'gs': 'gcsfs', 's3': 's3fs', 'az': 'adlfs'}
_PROTOCOLS = {'gs': 'gcs'}


def open_path(path: str | os.PathLike) -> AnyPath:
  """Returns the path as an object, for this computer or for a bucket.

  Raises:
    RemotePathError: there is no package that reads such a bucket. The message names it.
  """
  text = os.fspath(path)
  if not is_address(text):
    return pathlib.Path(path)
  _prepare_scheme(text.partition('://')[0])
  return epath.Path(text)


def absolute_path(path: str | os.PathLike) -> AnyPath:
  """Makes a relative path absolute. Addresses are absolute already."""
  opened = open_path(path)
  return opened.resolve() if isinstance(opened, pathlib.Path) else opened


def place_of(path: str | os.PathLike) -> str:
  """Returns one absolute path for a place, whatever links or relative paths lead to it."""
  if is_address(path):
    return str(open_path(path)).rstrip('/')
  return os.path.realpath(path)


def list_tree(folder: AnyPath) -> list[AnyPath]:
  """Lists all files below a folder, sorted by their path. A folder that is missing has none."""
  if not folder.is_dir():
    return []
  files = []
  for path in folder.iterdir():
    files += list_tree(path) if path.is_dir() else [path]
  return sorted(files, key=str)


def remove_tree(folder: AnyPath) -> None:
  """Removes a folder with its content.

  Missing files and files that cannot be removed are skipped.
  """
  if isinstance(folder, pathlib.Path):
    shutil.rmtree(folder, ignore_errors=True)
    return
  for path in list_tree(folder):
    path.unlink(missing_ok=True)


def move_tree(folder: AnyPath, target: AnyPath) -> None:
  """Moves a folder. In a bucket each object is copied before any is removed."""
  if isinstance(folder, pathlib.Path):
    folder.rename(target)
    return
  for path in list_tree(folder):
    (target / str(path.relative_to(folder))).write_bytes(path.read_bytes())
  remove_tree(folder)


def upload(local: pathlib.Path, target: AnyPath) -> None:
  """Copies a file or a folder to a bucket. The objects appear one by one, sorted by their names.

  Raises:
    OSError: an object cannot be written. The message names it.
  """
  files = [local] if local.is_file() else [pathlib.Path(str(path)) for path in list_tree(local)]
  for file in files:
    place = target if file == local else target / file.relative_to(local).as_posix()
    try:
      with file.open('rb') as source, place.open('wb') as sink:
        shutil.copyfileobj(source, sink)
    except Exception as error:  # storage services raise errors of any type
      reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
      raise OSError(f'{place} cannot be written: {reason}') from error


@functools.cache
def _prepare_scheme(scheme: str) -> None:
  """Checks that a kind of bucket can be read, and disables the caching of its listings.

  Orbax writes without fsspec, so fsspec's cached listings would be out of date.
  """
  protocol = _PROTOCOLS.get(scheme, scheme)
  conf.setdefault(protocol, {}).setdefault('use_listings_cache', False)
  try:
    epath.Path(f'{scheme}://none').exists()
  except ImportError as error:
    advice = f'Install {_PACKAGES[scheme]}' if scheme in _PACKAGES else 'Mount the storage'
    raise RemotePathError(f'{scheme}:// cannot be read here ({error}). {advice}.') from None
  except Exception:  # No such bucket, or no permission. The first read of the bucket reports it.
    return
