"""What a prepared data set is called, where it lies, and its manifest, without any reader of it."""

import hashlib
import json
import os
import pathlib
from typing import Any

MANIFEST_NAME = 'manifest.json'
# Names in settings and commands -> tfds' own, where they differ: a builder with configs.
_TFDS_NAMES = {'ho3d_v2': 'ho3d/v2', 'ho3d_v3': 'ho3d/v3'}
# What decides the examples; settings and the versions of packages do not.
_CONTENTS = ('dataset', 'version', 'examples', 'sha256')


def tfds_name(dataset: str) -> str:
  """What tfds calls a prepared data set (`ho3d_v2`: `ho3d/v2`); most have one name."""
  return _TFDS_NAMES.get(dataset, dataset)


def data_digest(dataset: str, data_dir: str | os.PathLike) -> str | None:
  """SHA-256 of a prepared data set's examples, as its manifest has them, wherever it lies.

  None where there is no such data set, or none with a manifest of this program.
  """
  manifests = pathlib.Path(data_dir, tfds_name(dataset)).glob(f'*/{MANIFEST_NAME}')
  newest = max(manifests, key=_version, default=None)
  try:
    manifest = json.loads(newest.read_text()) if newest else {}
    contents: dict[str, Any] = {name: manifest[name] for name in _CONTENTS}
  except (OSError, ValueError, LookupError, TypeError):
    return None
  return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _version(manifest: pathlib.Path) -> tuple[int, ...]:
  """The version of a manifest's folder, to compare; below all others where it is none."""
  parts = manifest.parent.name.split('.')
  return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
