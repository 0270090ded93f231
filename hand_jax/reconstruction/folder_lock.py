"""Lets one command at a time write to a folder, and removes half-written files of killed ones."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import TextIO

from hand_jax.files.outputs import OutputFolderError

UNFINISHED_PREFIX = '.unfinished-'
_LOCK_NAME = '.hand_jax.lock'


@contextlib.contextmanager
def locked_folder(folder: str | os.PathLike) -> Iterator[None]:
  """Keeps other commands from writing to a folder. The folder is made if it is missing.

  Half-written files that a killed command left there are removed.

  Raises:
    BlockingIOError: another command is writing there.
    OutputFolderError: nothing can be written there. Folders that were made for it are gone then.
  """
  folder = pathlib.Path(folder)
  path = folder / _LOCK_NAME
  with _lock_file(path) as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise BlockingIOError(
        f'Another hand-jax is writing to {folder}: wait until it has ended, or name another '
        '--output.'
      ) from None
    except OSError as error:  # file systems without locks
      path.unlink(missing_ok=True)
      raise OutputFolderError.of(folder, error) from None
    try:
      for left in folder.glob(f'{UNFINISHED_PREFIX}*'):
        shutil.rmtree(left, ignore_errors=True)
      yield
    finally:
      path.unlink(missing_ok=True)


def _lock_file(path: pathlib.Path) -> TextIO:
  """Opens the lock's file, for which folders are made where they are missing."""
  folder = path.parent
  missing = [parent for parent in (folder, *folder.parents) if not os.path.lexists(parent)]
  try:
    folder.mkdir(parents=True, exist_ok=True)
    return open(path, 'w')
  except OSError as error:
    for made in missing:
      with contextlib.suppress(OSError):  # It was not made, or somebody else uses it already.
        made.rmdir()
    raise OutputFolderError.of(folder, error) from None
