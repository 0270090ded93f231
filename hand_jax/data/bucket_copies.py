"""Copies prepared data sets from buckets to this computer, where examples are read in any order."""

import hashlib
import pathlib
import shutil
import sys

from etils import epath

from hand_jax.data.manifests import MANIFEST_NAME, newest_version, tfds_name
from hand_jax.files.buckets import list_tree
from hand_jax.files.compiled_programs import default_cache_folder
from hand_jax.files.writing import unfinished_path


def copy_from_bucket(dataset: str, data_dir: str) -> str:
  """Copies the newest version of a prepared data set into the cache folder.

  Only missing files are copied. A file counts as present if it has the right size and the data set
  was not prepared again since.

  Returns:
    The folder of this computer to use as `data_dir`.

  Raises:
    FileNotFoundError: the bucket has no such data set.
    OSError: there is no room for it.
  """
  source = newest_version(dataset, data_dir)
  if source is None:
    raise FileNotFoundError(f'There is no prepared data set {dataset!r} in {data_dir}.')
  place = hashlib.sha256(data_dir.rstrip('/').encode()).hexdigest()[:16]
  folder = default_cache_folder() / 'data' / place
  target = folder / tfds_name(dataset) / source.name
  manifest = target / MANIFEST_NAME
  if manifest.exists() and manifest.read_bytes() != (source / MANIFEST_NAME).read_bytes():
    shutil.rmtree(target)
  missing = {}
  for path in list_tree(source):
    assert isinstance(path, epath.Path)
    local, size = target / str(path.relative_to(source)), path.stat().length
    if not local.exists() or local.stat().st_size != size:
      missing[local] = path, size
  _copy(missing, data_dir, folder)
  return str(folder)


def _copy(
  missing: dict[pathlib.Path, tuple[epath.Path, int]], data_dir: str, folder: pathlib.Path
) -> None:
  if not missing:
    return
  needed = sum(size for _, size in missing.values())
  folder.mkdir(parents=True, exist_ok=True)
  if (free := shutil.disk_usage(folder).free) < needed:
    raise OSError(
      f'Copying {data_dir} takes {needed / 1e9:,.1f} GB, but {free / 1e9:,.1f} GB are free in '
      f'{folder}: make room, or name another folder by $XDG_CACHE_HOME.'
    )
  print(f'Copying {needed / 1e9:,.2f} GB of {data_dir} to {folder}.', file=sys.stderr, flush=True)
  for local, (path, _) in missing.items():
    with (
      unfinished_path(local) as unfinished,
      path.open('rb') as source,
      unfinished.open('wb') as sink,
    ):
      shutil.copyfileobj(source, sink, 1 << 24)
