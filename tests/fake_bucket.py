"""Simulates a bucket for tests, under gs:// of fsspec, that can neither append nor rename.

Its objects lie in a local folder, where TensorStore writes arrays without its driver for gs://. The
bucket has no folders of its own. Making one does nothing, and one exists as long as it has an
object.
"""

import io
import pathlib

import fsspec
import pytest
from orbax.checkpoint._src.path import gcs_utils


class _Upload(io.BytesIO):
  """An object that appears when it is complete."""

  def __init__(self, place: pathlib.Path):
    super().__init__()
    self._place = place

  def close(self) -> None:
    if not self.closed:
      self._place.parent.mkdir(parents=True, exist_ok=True)
      self._place.write_bytes(self.getvalue())
    super().close()


class FakeBucket(fsspec.AbstractFileSystem):
  """Objects in `root`, one folder for each bucket."""

  protocol = ('gcs', 'gs')
  cachable = False
  root = pathlib.Path('/nowhere')

  def _place(self, path: str) -> pathlib.Path:
    return self.root / self._strip_protocol(path)

  def info(self, path, **_):
    place = self._place(path)
    entry = {'name': self._strip_protocol(path), 'size': 0, 'type': 'directory'}
    if place.is_file():
      return {**entry, 'size': place.stat().st_size, 'type': 'file'}
    if any(below.is_file() for below in place.rglob('*')):
      return entry
    raise FileNotFoundError(path)

  def ls(self, path, detail=True, **_):
    entry = self.info(path)
    entries = [entry]
    if entry['type'] == 'directory':
      paths = [f'{entry["name"]}/{place.name}' for place in self._place(path).iterdir()]
      entries = [self.info(below) for below in sorted(paths) if self.exists(below)]
    return entries if detail else [each['name'] for each in entries]

  def _open(self, path, mode='rb', **_):
    if mode == 'rb':
      return self._place(path).open('rb')
    if mode == 'wb':
      return _Upload(self._place(path))
    raise NotImplementedError(f'{path}: mode {mode}')

  def mkdir(self, path, create_parents=True, **_):
    pass

  def makedirs(self, path, exist_ok=False):
    pass

  def rmdir(self, path):
    pass

  def rm_file(self, path):
    if not self._place(path).is_dir():
      self._place(path).unlink()

  def cp_file(self, path1, path2, **_):
    raise NotImplementedError('copy')

  def mv(self, path1, path2, **_):
    raise NotImplementedError('rename')

  rename = move = mv


def register_fake_bucket(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
  """Lets gs://NAME/... lead to root/NAME/... and returns `root`."""
  fsspec.register_implementation('gcs', FakeBucket, clobber=True)
  monkeypatch.setattr(FakeBucket, 'root', root)

  def local_store(path: str) -> dict[str, str]:
    return {'driver': 'file', 'path': f'{root / path.removeprefix("gs://")}/'}

  monkeypatch.setattr(gcs_utils, 'get_kvstore_for_gcs', local_store)
  # It asks Google.
  monkeypatch.setattr(gcs_utils, 'is_hierarchical_namespace_enabled', lambda path: False)
  return root
