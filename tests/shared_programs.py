"""Compiled programs that pytest's processes share, by folders of JAX's compilation cache."""

import contextlib
import os
import pathlib
import time

# Programs of code that has changed since are never asked for again.
KEPT_DAYS = 14


class SharedPrograms:
  """A process' own folder of programs, which gives to a shared one and takes from it.

  JAX writes an entry in place, so another process might read half of it. Therefore each process
  writes into its own folder, and links its new entries into the shared one when none is being
  written. What it found in its own folder it keeps for itself: an earlier process may have been
  killed while it wrote.
  """

  def __init__(self, base: pathlib.Path, process: str):
    self.folder, self._shared = base / process, base / 'shared'
    for folder in (self.folder, self._shared):
      folder.mkdir(parents=True, exist_ok=True)
      _drop_old(folder)
    self._found = set(os.listdir(self.folder))
    self.exchange()

  def exchange(self) -> None:
    """Gives new entries to all, and takes those of the others. None may be being written."""
    own, shared = set(os.listdir(self.folder)), set(os.listdir(self._shared))
    _link(own - shared - self._found, self.folder, self._shared)
    _link(shared - own, self._shared, self.folder)


def _link(names: set[str], source: pathlib.Path, target: pathlib.Path) -> None:
  for name in names:
    # Another process gave the same entry just now, or dropped it.
    with contextlib.suppress(FileExistsError, FileNotFoundError):
      os.link(source / name, target / name)


def _drop_old(folder: pathlib.Path) -> None:
  oldest = time.time() - KEPT_DAYS * 24 * 3600
  for entry in folder.iterdir():
    with contextlib.suppress(FileNotFoundError):
      if entry.stat().st_mtime < oldest:
        entry.unlink()
