"""Lets one command at a time write to a folder, and removes half-written files of killed ones."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator

UNFINISHED_PREFIX = '.unfinished-'
_LOCK_NAME = '.hand_jax.lock'


@contextlib.contextmanager
def locked_folder(folder: str | os.PathLike) -> Iterator[None]:
  """Keeps other commands from writing to a folder. The folder is made if it is missing.

  Half-written files that a killed command left there are removed.

  Raises:
    BlockingIOError: another command is writing there.
    OSError: nothing can be written there.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / _LOCK_NAME
  with open(path, 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise BlockingIOError(
        f'Another hand-jax is writing to {folder}: wait until it has ended, or name another '
        '--output.'
      ) from None
    try:
      for left in folder.glob(f'{UNFINISHED_PREFIX}*'):
        shutil.rmtree(left, ignore_errors=True)
      yield
    finally:
      path.unlink(missing_ok=True)
