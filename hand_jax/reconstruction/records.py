"""summary.json: what became of each photo, by which settings, and which files belong to it.

The file is the output folder's memory. A photo that is there with the same content and settings is
not done again, and only files that it lists are ever replaced.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from hand_jax.files.writing import write_json

SUMMARY_NAME = 'summary.json'

Entry = dict[str, Any]
"""`photo`, `hands`, `files`, `sha256`, `settings`, and `error` where there was one."""


class OutputRecord:
  """Holds the entries of an output folder by the stem of their photo."""

  def __init__(self, folder: str | os.PathLike):
    """Reads the folder's summary, where there is one.

    Raises:
      ValueError: a summary.json is there that this program did not write.
    """
    self.folder = pathlib.Path(folder)
    self.entries: dict[str, Entry] = {}
    path = self.folder / SUMMARY_NAME
    if not os.path.lexists(path):
      return
    try:
      entries = json.loads(path.read_text(encoding='utf-8-sig'))
      if not isinstance(entries, list):
        raise TypeError(type(entries))
      self.entries = {pathlib.PurePath(entry['photo']).stem: entry for entry in entries}
      for entry in self.entries.values():
        _ = entry['hands'], entry['files']
    except (OSError, ValueError, TypeError, KeyError):
      raise ValueError(
        f'{path} is no summary of hand-jax: it stays as it is. Name another --output.'
      ) from None

  def files(self, stem: str | None = None) -> set[str]:
    """Lists the names of the files that were written for a photo, or for all."""
    entries = self.entries.values() if stem is None else [self.entries.get(stem, {'files': []})]
    return {name for entry in entries for name in entry['files']}

  def is_done(self, stem: str, sha256: str, settings: dict[str, Any]) -> bool:
    """Tells whether the same photo was done by the same settings and all its files are there.

    Args:
      stem: the photo's name without its suffix.
      sha256: of the photo's file.
      settings: everything else that decides about the results.
    """
    entry = self.entries.get(stem)
    return (
      entry is not None
      and 'error' not in entry
      and (entry.get('sha256'), entry.get('settings')) == (sha256, settings)
      and all((self.folder / name).is_file() for name in entry['files'])
    )

  def has_other_results(self, stem: str, sha256: str, settings: dict[str, Any]) -> bool:
    """Tells whether files of this name come from another photo or other settings.

    Args:
      stem: the photo's name without its suffix.
      sha256: of the photo's file.
      settings: everything else that decides about the results.
    """
    entry = self.entries.get(stem)
    if entry is None or not entry['files']:
      return False
    return (entry.get('sha256'), entry.get('settings')) != (sha256, settings)

  def put(self, entry: Entry) -> None:
    """Writes what became of a photo, and removes files it had before and has no more."""
    stem = pathlib.PurePath(entry['photo']).stem
    stale = self.files(stem) - set(entry['files'])
    self.entries[stem] = entry
    write_json(self.folder / SUMMARY_NAME, list(self.entries.values()))
    for name in stale:
      (self.folder / name).unlink(missing_ok=True)


def file_sha256(path: str | os.PathLike) -> str:
  """Computes the SHA-256 digest of a file's content."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
