"""The two hand networks with their bundled weights, as compiled functions on pictures."""

import functools
import importlib.resources
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, UInt8

from hand_jax.models import hand_landmark, palm_detection
from hand_jax.models.hand_landmark import HandLandmarkNetwork, normalize_crops
from hand_jax.models.palm_detection import PalmDetectionNetwork, PalmDetectionOutput

# Pictures go through the networks in batches of these sizes, so that only two programs are ever
# compiled. Larger batches are no faster on CPUs.
_PALM_BATCH, _LANDMARK_BATCH = 1, 2


class HandReadings(NamedTuple):
  """The landmark network's outputs without its features; see `HandLandmarkOutput`."""

  landmarks: Float[np.ndarray, 'crops 21 3']
  world_landmarks: Float[np.ndarray, 'crops 21 3']
  presence: Float[np.ndarray, 'crops']
  right: Float[np.ndarray, 'crops']


def load_bundled_parameters(name: str) -> dict[str, Any]:
  """Reads the weights that come with the package as a tree of float32 arrays.

  `name`: 'palm_detection' or 'hand_landmark'. The result is the network's `{'params': ...}`.

  Raises:
    ValueError: the name is another, or the bundled file does not hold exactly this network.
  """
  networks = {
    'palm_detection': (PalmDetectionNetwork(), palm_detection.INPUT_SIDE),
    'hand_landmark': (HandLandmarkNetwork(), hand_landmark.INPUT_SIDE),
  }
  if name not in networks:
    raise ValueError(f"no bundled network '{name}'; expected one of {', '.join(networks)}.")
  module, side = networks[name]
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  expected = flatten_dict(jax.eval_shape(module.init, jax.random.key(0), image)['params'], sep='/')
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


def detect_palms(images: UInt8[np.ndarray, 'images 192 192 3']) -> PalmDetectionOutput:
  """Runs the palm detector on RGB pictures; gives NumPy arrays."""
  return _run_in_batches(_palm_program(), images, _PALM_BATCH)


def read_landmarks(crops: UInt8[np.ndarray, 'crops 224 224 3']) -> HandReadings:
  """Runs the landmark network on RGB crops; gives NumPy arrays."""
  return _run_in_batches(_landmark_program(), crops, _LANDMARK_BATCH)


@functools.cache
def _palm_program() -> Callable[[np.ndarray], PalmDetectionOutput]:
  variables = load_bundled_parameters('palm_detection')
  apply = jax.jit(lambda variables, x: PalmDetectionNetwork().apply(variables, normalize_crops(x)))
  return functools.partial(apply, variables)


@functools.cache
def _landmark_program() -> Callable[[np.ndarray], HandReadings]:
  variables = load_bundled_parameters('hand_landmark')

  @jax.jit
  def apply(variables, x):
    output = HandLandmarkNetwork().apply(variables, normalize_crops(x))
    return HandReadings(*output[: len(HandReadings._fields)])

  return functools.partial(apply, variables)


def _run_in_batches(program, pictures, size):
  """Cuts the pictures into batches, the last one completed with black, and joins the results."""
  missing = -len(pictures) % size
  pictures = np.concatenate([pictures, np.zeros((missing, *pictures.shape[1:]), np.uint8)])
  starts = range(0, len(pictures), size)
  parts = [jax.device_get(program(pictures[start : start + size])) for start in starts]
  joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
  return jax.tree.map(lambda array: array[: len(pictures) - missing], joined)
