"""Files and folders that appear under their name when they are complete, or not at all."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def unfinished_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a name beside `path` to write to, which becomes `path` when the block ends without error.

  The block makes a file or a folder there. Where it fails, what it made is removed, and what stood
  under `path` before stays. The parent folder is made where it is missing.

  Raises:
    OSError: the block's or its own, as of a full disk; it names `path` where it named no file.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_name(f'{path.name}.unfinished')
  _remove(unfinished)  # left by a killed run
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
  """Writes a file that gets its name when it is complete. Its folder is made where missing."""
  with unfinished_path(path) as unfinished:
    unfinished.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes indented JSON as `write_whole` does.

  Raises:
    ValueError: a number is NaN or infinite, which JSON does not have.
  """
  write_whole(path, json.dumps(content, indent=2, allow_nan=False) + '\n')


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
