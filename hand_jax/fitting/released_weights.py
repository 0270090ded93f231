"""The weights that come with the package: the heads, the errors of points, prior and calibration.

`experiments.train_release` makes them. They belong to one version of the free hand, whose joints
the heads learned to estimate. The fit may still use another hand model.
"""

import functools
import hashlib
import importlib.resources
import io
import json
import os
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hand_jax.files.writing import write_whole
from hand_jax.fitting.evidence import PointErrors
from hand_jax.fitting.hand_unknowns import HandPrior
from hand_jax.fitting.sigma_calibration import SigmaCalibration, calibration_for
from hand_jax.mano.assets import load_mano_model
from hand_jax.types import ManoModel

ASSET = 'release.npz'
_GROUPS = ('errors', 'prior', 'calibration')


class Release(NamedTuple):
  """The weights of the default program, with the prior over hands and the program's own errors."""

  heads: dict[str, Any]
  """Parameters of `JointHeads`."""
  errors: PointErrors
  """Errors of each joint in mm."""
  prior: HandPrior
  calibration: SigmaCalibration
  card: dict[str, Any]
  """The origin of the weights, see docs/release.md."""


@functools.cache
def load_release() -> Release:
  """Reads the weights that come with the package."""
  asset = importlib.resources.files('hand_jax') / 'assets' / ASSET
  with importlib.resources.as_file(asset) as path:
    return read_release(path)


def release_for(model: ManoModel) -> Release:
  """Returns the weights in the package for fitting a right hand's model, such as the user's MANO.

  The calibration was measured with the free hand. Each part of another hand takes the factor that
  the same part of the free hand has.
  """
  release = load_release()
  calibration = calibration_for(model, release.calibration, load_mano_model())
  return release._replace(calibration=calibration)


@functools.cache
def release_digest() -> str:
  """Computes the SHA-256 digest of the file of weights that comes with the package."""
  asset = importlib.resources.files('hand_jax') / 'assets' / ASSET
  return hashlib.sha256(asset.read_bytes()).hexdigest()


def read_release(path: str | os.PathLike) -> Release:
  """Reads weights that `write_release` wrote.

  Raises:
    ValueError: the file does not hold all of them.
  """
  with np.load(path) as file:
    arrays = {name: file[name] for name in file.files}
  try:
    heads = {
      name.removeprefix('heads/'): array.astype(np.float32)
      for name, array in arrays.items()
      if name.startswith('heads/')
    }
    return Release(
      heads=unflatten_dict(heads, sep='/'),
      errors=_group(PointErrors, 'errors', arrays),
      prior=_group(HandPrior, 'prior', arrays),
      calibration=_group(SigmaCalibration, 'calibration', arrays),
      card=json.loads(str(arrays['card'])),
    )
  except KeyError as error:
    raise ValueError(f'{path} holds no {error}: it is no file of released weights.') from None


def write_release(path: str | os.PathLike, release: Release) -> None:
  """Writes weights as one file. It holds the heads in half precision, which is precise enough."""
  arrays: dict[str, Any] = {
    f'heads/{name}': np.asarray(array, np.float16)
    for name, array in flatten_dict(release.heads, sep='/').items()
  }
  for name in _GROUPS:
    group = getattr(release, name)
    for field, value in zip(group._fields, group, strict=True):
      arrays[f'{name}/{field}'] = np.asarray(value, np.float32)
  arrays['card'] = np.asarray(json.dumps(release.card, indent=1, allow_nan=False))
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  write_whole(path, buffer.getvalue())


def _group(kind: type, name: str, arrays: dict[str, np.ndarray]) -> Any:
  return kind(**{field: arrays[f'{name}/{field}'] for field in kind._fields})
