"""Writes files and folders that appear under their name only when they are complete."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from hand_jax.files.paths import is_address


@contextlib.contextmanager
def unfinished_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a path beside `path`, which is renamed to `path` when the block ends without error.

  The block makes a file or a folder there. If the block fails, that file or folder is removed, and
  an earlier one under `path` stays. The parent folder is made where it is missing.

  A bucket cannot rename. There the block gets a local path, and its files are written to the bucket
  as whole objects when it ends.

  Raises:
    OSError: a file cannot be written, in the block or here, as when the disk is full. The error
      names `path` where it named no other file.
  """
  if is_address(path):
    with _uploaded_path(path) as unfinished:
      yield unfinished
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_name(f'{path.name}.unfinished')
  _remove(unfinished)  # A run that was killed may have left it.
  try:
    yield unfinished
    unfinished.replace(path)
  except OSError as error:
    if error.errno is None or error.filename not in (None, str(unfinished), unfinished):
      raise
    raise OSError(error.errno, error.strerror, str(path)) from None
  finally:
    _remove(unfinished)


def write_whole(path: str | os.PathLike, data: bytes | str) -> None:
  """Writes a file that gets its name when it is complete, and makes its folder where missing."""
  with unfinished_path(path) as unfinished:
    unfinished.write_bytes(data.encode() if isinstance(data, str) else data)


def append_line(path: str | os.PathLike, line: str) -> None:
  """Adds a line to the end of a text file. An object in a bucket is written anew with it."""
  if not is_address(path):
    with open(path, 'a') as file:
      file.write(f'{line}\n')
    return
  from hand_jax.files.buckets import open_path  # loads packages that other files do not need

  place = open_path(path)
  write_whole(path, (place.read_bytes() if place.exists() else b'') + f'{line}\n'.encode())


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes indented JSON as `write_whole` does.

  Raises:
    ValueError: a number is NaN or infinite, which JSON cannot hold.
  """
  write_whole(path, json.dumps(content, indent=2, allow_nan=False) + '\n')


@contextlib.contextmanager
def _uploaded_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  from hand_jax.files.buckets import open_path, upload

  place = open_path(path)
  with tempfile.TemporaryDirectory() as folder:
    unfinished = pathlib.Path(folder) / place.name
    yield unfinished
    upload(unfinished, place)


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
