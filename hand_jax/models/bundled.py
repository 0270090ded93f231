"""Loads the weights of the hand networks that come with the package."""

import functools
import hashlib
import importlib.resources
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from hand_jax.config import TextureConfig

BUNDLED_TEXTURE = TextureConfig(
  enabled=True,
  width=128,
  heads=4,
  self_layers=1,
  mlp_ratio=2,
  normals=True,
  hidden_fraction=0.7,
  photo_colors=True,
)
"""The settings of the texture branch in the package."""
_NETWORKS = ('palm_detection', 'hand_landmark', 'hand_mask', 'hand_texture')


def load_bundled_parameters(name: str) -> dict[str, Any]:
  """Reads weights that come with the package as a network's `{'params': ...}` in float32.

  Args:
    name: 'palm_detection', 'hand_landmark', 'hand_mask' or 'hand_texture'.

  Raises:
    ValueError: the package has no network of that name.
  """
  if name not in _NETWORKS:
    raise ValueError(f"no bundled network '{name}'; expected one of {', '.join(_NETWORKS)}.")
  asset = importlib.resources.files('hand_jax') / 'assets' / f'{name}.npz'
  with importlib.resources.as_file(asset) as path, np.load(path) as file:
    arrays = dict(file)
  # Cast on the host and move all arrays at once. One by one, a thousand small ones take a second.
  leaves = {leaf: array.astype(np.float32) for leaf, array in arrays.items()}
  return jax.device_put({'params': unflatten_dict(leaves, sep='/')})


@functools.cache
def bundled_digest(name: str) -> str:
  """Computes the SHA-256 digest of a network's file, which identifies its weights."""
  asset = importlib.resources.files('hand_jax') / 'assets' / f'{name}.npz'
  return hashlib.sha256(asset.read_bytes()).hexdigest()
