"""The weights of the two hand networks that come with the package."""

import functools
import importlib.resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hand_jax.models import hand_landmark, palm_detection
from hand_jax.models.hand_landmark import HandLandmarkNetwork
from hand_jax.models.palm_detection import PalmDetectionNetwork

_NETWORKS = {
  'palm_detection': (PalmDetectionNetwork(), palm_detection.INPUT_SIDE),
  'hand_landmark': (HandLandmarkNetwork(), hand_landmark.INPUT_SIDE),
}


def load_bundled_parameters(name: str) -> dict[str, Any]:
  """Reads the weights that come with the package as a tree of float32 arrays.

  `name`: 'palm_detection' or 'hand_landmark'. The result is the network's `{'params': ...}`.

  Raises:
    ValueError: the name is another, or the bundled file does not hold exactly this network.
  """
  if name not in _NETWORKS:
    raise ValueError(f"no bundled network '{name}'; expected one of {', '.join(_NETWORKS)}.")
  expected = _expected_leaves(name)
  asset = importlib.resources.files('hand_jax') / 'assets' / f'{name}.npz'
  with importlib.resources.as_file(asset) as path, np.load(path) as file:
    arrays = dict(file)
  for leaf in sorted(expected.keys() | arrays.keys()):
    shapes = [getattr(tree.get(leaf), 'shape', None) for tree in (arrays, expected)]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f"'{leaf}' has shape {shapes[0]} in {name}.npz, expected {shapes[1]}; install again."
      )
  leaves = {leaf: jnp.asarray(array, jnp.float32) for leaf, array in arrays.items()}
  return {'params': unflatten_dict(leaves, sep='/')}


# Tracing a network of many layers takes a second, and several callers want the weights.
@functools.cache
def _expected_leaves(name: str) -> dict[str, jax.ShapeDtypeStruct]:
  """The arrays that the network has, by their path."""
  module, side = _NETWORKS[name]
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  return flatten_dict(jax.eval_shape(module.init, jax.random.key(0), image)['params'], sep='/')
