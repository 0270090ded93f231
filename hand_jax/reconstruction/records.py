"""Keeps summary.json: the result of each photo, the settings, and the files of the photo.

A photo that the file lists with the same content and settings is not processed again, and only
files that it lists are ever replaced.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from hand_jax.files.writing import write_json

SUMMARY_NAME = 'summary.json'

Entry = dict[str, Any]
"""The keys are `photo`, `hands`, `files`, `sha256`, `settings`, and `error` if there was one."""
# What messages call the settings: by the flag that decides one, or by what a digest is of.
_FLAGS = {
  'version': 'the version of hand-jax',
  'hand_model': 'the hand model',
  'boxes_xywh': '--bbox',
  'sides': '--hand',
  'focal_length_px': '--focal',
  'axes': '--axes',
}
_DIGESTS = {
  'weights': 'the weights (of the package, of --workdir or for --refine)',
  'mask_weights': 'the weights for masks',
  'texture_weights': 'the weights for colours',
  'hand_mask_sha256': 'the pixels of --hand_mask',
}


class OutputRecord:
  """Holds the entries of an output folder by the stem of their photo."""

  def __init__(self, folder: str | os.PathLike, overwrite: bool = False):
    """Reads the folder's summary, where there is one.

    Args:
      folder: the output folder.
      overwrite: whether to ignore a summary that cannot be read.

    Raises:
      ValueError: a summary.json is there that this program did not write.
    """
    self.folder = pathlib.Path(folder)
    self.entries: dict[str, Entry] = {}
    self._overwrite = overwrite
    self.reload()

  def reload(self) -> None:
    """Reads the summary again, because another command may have changed it.

    Raises:
      ValueError: a summary.json is there that this program did not write.
    """
    self.entries = {}
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
      self.entries = {}
      if not self._overwrite:
        raise ValueError(
          f'{path} is no summary of hand-jax, or a damaged one: it stays as it is. Name another '
          '--output, or replace it by --overwrite.'
        ) from None

  def files(self, stem: str | None = None) -> set[str]:
    """Returns the names of the files that were written for a photo, or for all."""
    entries = self.entries.values() if stem is None else [self.entries.get(stem, {'files': []})]
    return {name for entry in entries for name in entry['files']}

  def is_done(self, stem: str, sha256: str, settings: dict[str, Any]) -> bool:
    """Returns whether the photo was done with the same settings and all its files still exist.

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

  def begin(self, entry: Entry) -> None:
    """Writes down which files a photo is about to get, so that a killed command leaves none lost.

    Args:
      entry: of the photo, as `put` takes it, with the files that are about to be written.
    """
    stem = pathlib.PurePath(entry['photo']).stem
    files = sorted({*entry['files'], *self.files(stem)})
    reason = 'The command that wrote this photo was stopped. Run it again.'
    self.entries[stem] = {**entry, 'hands': [], 'files': files, 'error': reason}
    write_json(self.folder / SUMMARY_NAME, list(self.entries.values()))

  def differences(self, stem: str, sha256: str, settings: dict[str, Any]) -> list[str]:
    """Lists in words how a photo's earlier results were made otherwise.

    Args:
      stem: the photo's name without its suffix.
      sha256: of the photo's file.
      settings: everything else that decides about the results.

    Returns:
      An empty list where there are no earlier results, or such of the same photo and settings.
    """
    entry = self.entries.get(stem)
    if entry is None or not entry['files'] or 'error' in entry:
      return []
    if entry.get('sha256') != sha256:
      return ['they are of another photo of this name']
    before = entry.get('settings') or {}
    names = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
    return [_difference(name, before.get(name), settings.get(name)) for name in names]

  def put(self, entry: Entry) -> None:
    """Writes what became of a photo, and removes files it had before and has no more."""
    stem = pathlib.PurePath(entry['photo']).stem
    stale = self.files(stem) - set(entry['files'])
    self.entries[stem] = entry
    write_json(self.folder / SUMMARY_NAME, list(self.entries.values()))
    for name in stale:
      if os.path.lexists(self.folder / name):  # False for a name that is too long
        (self.folder / name).unlink(missing_ok=True)


def _difference(name: str, before: Any, now: Any) -> str:
  """Tells how a setting of `records` has changed, by the flag that the user gives."""
  if name in _DIGESTS:
    return f'{_DIGESTS[name]} are other ones'
  return f'{_FLAGS.get(name, name)} was {_short(before)} and is {_short(now)}'


def _short(value: Any) -> str:
  """Writes a setting as the user gives it."""
  if isinstance(value, dict):
    value = value.get('name')
  if isinstance(value, list):
    parts = (','.join(f'{x:g}' for x in part) if isinstance(part, list) else part for part in value)
    value = ' and '.join(map(str, parts))
  return 'not given' if value in (None, '') else str(value)


def file_sha256(path: str | os.PathLike) -> str:
  """Computes the SHA-256 digest of a file's content."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
