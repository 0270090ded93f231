"""Records the paths of a run's data, weights and other runs, and digests of their content.

A run is continued with the same sources. They are compared by content and not by path, so data that
moved are the same data. `sources.json` in the run's folder holds, for each setting, the absolute
path of each source and the SHA-256 of its content, or null where that is unknown. For another run
it also holds the step of its checkpoint. The run in the package has the path `release`, wherever
the package lies.
"""

import hashlib
import json
import zlib
from typing import Any, NamedTuple

from hand_jax.config import ExperimentConfig, flatten_config
from hand_jax.config_text import PATH_SETTINGS
from hand_jax.data.manifests import data_digest
from hand_jax.files.buckets import AnyPath, absolute_path, list_tree, open_path, place_of
from hand_jax.files.paths import is_address
from hand_jax.files.writing import write_json
from hand_jax.runs.packed_run import NETWORK_NAME, packed_step, place_of_run, run_folder

SOURCES_NAME = 'sources.json'
CHECKPOINTS_NAME = 'checkpoints'
FILES_NAME = 'files.json'
"""In a checkpoint, this file lists the size and CRC-32 of each other file."""
COMMIT_NAME = 'commit_success.txt'
"""In a bucket, where nothing is renamed, Orbax writes this into a checkpoint that is complete."""
_OTHER_RUNS = ('training.init_from', 'training.camera_prior')


class Source(NamedTuple):
  """A file or folder that a run reads data, weights or parameters from."""

  place: str
  sha256: str | None
  step: int | None = None


def find_sources(config: ExperimentConfig) -> dict[str, list[Source]]:
  """Finds the sources that a config's settings name, as they are now, by setting."""
  sources = {}
  for setting, paths in _named_paths(config).items():
    steps = [latest_step(path) if setting in _OTHER_RUNS else None for path in paths]
    sources[setting] = [
      Source(_place(setting, path), _digest(setting, path, config.data.dataset, step), step)
      for path, step in zip(paths, steps, strict=True)
    ]
  return sources


def write_sources(workdir: str, sources: dict[str, list[Source]]) -> None:
  """Writes `sources.json` into a run's folder."""
  record = {name: [source._asdict() for source in found] for name, found in sources.items()}
  write_json(open_path(workdir) / SOURCES_NAME, record)


def read_sources(workdir: str, config: ExperimentConfig) -> dict[str, list[Source]]:
  """Reads the sources of the run in a folder, which has this config.

  For a run of an early version, which has no record, it takes the present content of the paths in
  the config.

  Raises:
    ValueError: the record cannot be read.
  """
  path = open_path(workdir) / SOURCES_NAME
  if not path.exists():
    return find_sources(config)
  try:
    record = json.loads(path.read_text())
    return {name: [Source(**source) for source in found] for name, found in record.items()}
  except (ValueError, TypeError, AttributeError):
    raise ValueError(
      f"{path} cannot be read as the record of a run's sources. Remove it to continue the run "
      'with the paths that its config.json names.'
    ) from None


def moved_sources(
  recorded: dict[str, list[Source]], config: ExperimentConfig
) -> dict[str, list[Source]]:
  """Returns the recorded sources at the places that `config` names for them.

  It leaves out settings whose paths lead elsewhere, unless what was recorded lies there now.
  """
  found = {}
  for setting, paths in _named_paths(config).items():
    known = recorded.get(setting, [])
    if len(known) == len(paths) and all(
      _is_at(setting, source, path, config.data.dataset)
      for source, path in zip(known, paths, strict=True)
    ):
      found[setting] = [
        source._replace(place=_place(setting, path))
        for source, path in zip(known, paths, strict=True)
      ]
  return found


def latest_step(workdir: str) -> int | None:
  """Returns the step of the newest finished checkpoint in a run's folder, or None."""
  if (packed := packed_step(workdir)) is not None:
    return packed
  return max(saved_steps(absolute_path(workdir) / CHECKPOINTS_NAME), default=None)


def saved_steps(folder: AnyPath) -> list[int]:
  """Returns the steps of the finished checkpoints in the folder that holds them."""
  # Do not ask Orbax, because its managers wait for each other across hosts, and one may be ahead.
  steps = [path for path in folder.glob('*') if path.name.isdigit()]
  if is_address(folder):
    steps = [path for path in steps if (path / COMMIT_NAME).exists()]
  return [int(path.name) for path in steps]


def list_files(checkpoint: AnyPath) -> dict[str, list[int]]:
  """Lists size and CRC-32 of every file of a finished checkpoint, by its path inside."""
  files = {}
  for path in list_tree(checkpoint):
    if path.name != FILES_NAME:
      data = path.read_bytes()
      files[path.relative_to(checkpoint).as_posix()] = [len(data), zlib.crc32(data)]
  return files


def _named_paths(config: ExperimentConfig) -> dict[str, tuple[str, ...]]:
  """Returns the paths of each setting that names any."""
  settings = flatten_config(config)
  values = {name: settings[name] for name in PATH_SETTINGS if settings[name]}
  return {name: value if isinstance(value, tuple) else (value,) for name, value in values.items()}


def _place(setting: str, path: str) -> str:
  return place_of_run(path) if setting in _OTHER_RUNS else place_of(path)


def _is_at(setting: str, source: Source, path: str, dataset: str) -> bool:
  if _place(setting, path) == source.place:
    # Its content may change, because the run has already copied what it needs, or only names its
    # data.
    return True
  return source.sha256 is not None and source.sha256 == _digest(setting, path, dataset, source.step)


def _digest(setting: str, path: str, dataset: str, step: int | None) -> str | None:
  """Computes a SHA-256 of a source's content, or returns None where that is gone or unknown."""
  try:
    if setting in _OTHER_RUNS and packed_step(path) is not None:
      path = str(run_folder(path) / NETWORK_NAME)
    elif setting in _OTHER_RUNS:
      checkpoint = open_path(path) / CHECKPOINTS_NAME / str(step)
      files = list_files(checkpoint) if step is not None else {}
      return _of(files) if files else None
    if setting == 'data.data_dir':
      return data_digest(dataset, path)
    with open(path, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except (OSError, ValueError):
    return None


def _of(tree: Any) -> str:
  return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
