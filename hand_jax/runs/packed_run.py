"""Finds the folder of a run, and reads and writes packed runs, one of which is in the package.

A packed run is small enough to share. In place of Orbax's folder, `network.npz` holds the step and
the parameters of one checkpoint, without the landmark network, which comes with the package.
`config.json`, `hand_model.json` and `lineage.json` are those of any run.
"""

import importlib.resources
import io
import os
import pathlib
import zipfile
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hand_jax.files.buckets import AnyPath, open_path, place_of
from hand_jax.files.writing import write_whole
from hand_jax.models.bundled import load_bundled_parameters

RELEASE = 'release'
"""In place of a run's folder, this text means the trained run in the package. To name a folder
`release`, write `./release`."""
PACKAGED_RUN = pathlib.Path(str(importlib.resources.files('hand_jax'))) / 'assets' / 'trained_run'
NETWORK_NAME = 'network.npz'
_STEP = 'step'
_BACKBONE = 'params/backbone/'


def run_folder(workdir: str | os.PathLike) -> AnyPath:
  """Returns the folder of a run to read from, which for `RELEASE` is that in the package."""
  return PACKAGED_RUN if workdir == RELEASE else open_path(workdir)


def place_of_run(workdir: str) -> str:
  """Returns the real path of a run's folder, which may be gone, or `RELEASE` itself."""
  return RELEASE if workdir == RELEASE else place_of(workdir)


def packed_step(workdir: str | os.PathLike) -> int | None:
  """Returns the step of a packed run, or None where the folder holds none."""
  path = run_folder(workdir) / NETWORK_NAME
  return int(_read(path, [_STEP])[_STEP]) if path.exists() else None


def read_packed_variables(workdir: str | os.PathLike) -> dict[str, Any]:
  """Reads the variables of a packed run in single precision, the landmark network's included.

  Raises:
    ValueError: the file is damaged. The message names it.
  """
  arrays = _read(run_folder(workdir) / NETWORK_NAME)
  leaves = {name: array.astype(np.float32) for name, array in arrays.items() if name != _STEP}
  leaves |= _bundled_backbone()
  return {'params': {}, 'batch_stats': {}} | unflatten_dict(leaves, sep='/')


def write_packed_variables(
  folder: str | os.PathLike, step: int, variables: dict[str, Any], dtype: type
) -> None:
  """Writes `network.npz`, always with the same bytes for the same numbers.

  Args:
    folder: the folder of the packed run.
    step: the step of the checkpoint.
    variables: the network's parameters and statistics.
    dtype: the precision to keep the numbers in.

  Raises:
    ValueError: the backbone is not the unchanged landmark network of the package.
  """
  leaves: dict[str, Any] = flatten_dict(variables, sep='/')
  bundled = _bundled_backbone()
  backbone = {name: leaf for name, leaf in leaves.items() if '/backbone/' in name}
  if set(backbone) != set(bundled) or not all(
    np.array_equal(backbone[name], array) for name, array in bundled.items()
  ):
    raise ValueError(
      'The backbone of the run is not the unchanged landmark network of the package, so the run is '
      'too large to be packed. Train one with optimizer.backbone_learning_rate_scale=0 and '
      'model.backbone.name=hand_landmark.'
    )
  arrays: dict[str, Any] = {
    name: np.asarray(leaf, dtype) for name, leaf in leaves.items() if name not in backbone
  }
  arrays[_STEP] = np.asarray(step)
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  write_whole(pathlib.Path(folder) / NETWORK_NAME, buffer.getvalue())


def _bundled_backbone() -> dict[str, np.ndarray]:
  leaves: dict[str, Any] = flatten_dict(load_bundled_parameters('hand_landmark')['params'], sep='/')
  return {_BACKBONE + name: np.asarray(array) for name, array in leaves.items()}


def _read(path: AnyPath, names: list[str] | None = None) -> dict[str, np.ndarray]:
  """Reads the named arrays, or all, or raises a ValueError that names a damaged file."""
  try:
    with path.open('rb') as stream, np.load(stream) as file:
      return {name: file[name] for name in names or file.files}
  except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(f'{path} cannot be read; it is damaged or incomplete ({reason}).') from None
