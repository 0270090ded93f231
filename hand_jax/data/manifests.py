"""Finds prepared data sets by name and computes digests of their manifests.

It imports no reader of data sets, so that it is cheap to use.
"""

import hashlib
import json
import os
from typing import Any

from hand_jax.files.buckets import AnyPath, open_path

MANIFEST_NAME = 'manifest.json'
# tfds has another name than our settings and commands where a builder has configs.
_TFDS_NAMES = {'ho3d_v2': 'ho3d/v2', 'ho3d_v3': 'ho3d/v3'}
# These entries identify the examples. Settings and the versions of packages do not.
_CONTENTS = ('dataset', 'version', 'examples', 'sha256')


def tfds_name(dataset: str) -> str:
  """Returns the name that tfds gives to a prepared data set, such as `ho3d/v2` for `ho3d_v2`.

  Most data sets have only one name.
  """
  return _TFDS_NAMES.get(dataset, dataset)


def data_digest(dataset: str, data_dir: str | os.PathLike) -> str | None:
  """Computes a SHA-256 that identifies the examples of a prepared data set, wherever it lies.

  It uses the manifest of the newest version. The result is None where there is no such data set, or
  none with a manifest of this program.
  """
  folder = newest_version(dataset, data_dir, MANIFEST_NAME)
  try:
    manifest = json.loads((folder / MANIFEST_NAME).read_text()) if folder else {}
    contents: dict[str, Any] = {name: manifest[name] for name in _CONTENTS}
  except (OSError, ValueError, LookupError, TypeError):
    return None
  return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def newest_version(
  dataset: str, data_dir: str | os.PathLike, having: str = 'dataset_info.json'
) -> AnyPath | None:
  """Finds the folder of the newest version of a prepared data set, or returns None without one.

  Args:
    dataset: name of the data set.
    data_dir: the folder that holds it, which may lie in a bucket.
    having: the file by which a version's folder is known.
  """
  found = (open_path(data_dir) / tfds_name(dataset)).glob(f'*/{having}')
  return max((path.parent for path in found), key=_version, default=None)


def _version(folder: AnyPath) -> tuple[int, ...]:
  """Returns the version that a folder is named by as numbers to compare.

  A folder that is not named by a version gives an empty tuple, which sorts below all others.
  """
  parts = folder.name.split('.')
  return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
