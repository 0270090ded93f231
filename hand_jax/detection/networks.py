"""Runs the two hand networks with their bundled weights, as compiled functions on pictures."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.files.traced_programs import keep_traced
from hand_jax.models.applying import apply_network
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import HandLandmarkNetwork, normalize_crops
from hand_jax.models.palm_detection import PalmDetectionNetwork, PalmDetectionOutput

# Pictures go through the networks in batches of these sizes, so that one program of each is
# compiled. Larger batches are no faster on CPUs.
_PALM_BATCH, _LANDMARK_BATCH = 1, 2


class HandReadings(NamedTuple):
  """The landmark network's outputs and pooled features, see `HandLandmarkOutput`."""

  landmarks: Float[np.ndarray, 'crops 21 3']
  world_landmarks: Float[np.ndarray, 'crops 21 3']
  presence: Float[np.ndarray, 'crops']
  right: Float[np.ndarray, 'crops']
  vectors: Float[np.ndarray, 'crops 1152']


def detect_palms(images: UInt8[np.ndarray, 'images 192 192 3']) -> PalmDetectionOutput:
  """Runs the palm detector on RGB pictures, and returns NumPy arrays."""
  return _run_in_batches(_palm_program(), images, _PALM_BATCH)


def read_landmarks(crops: UInt8[np.ndarray, 'crops 224 224 3']) -> HandReadings:
  """Runs the landmark network on RGB crops, and returns NumPy arrays."""
  return _run_in_batches(_landmark_program(), crops, _LANDMARK_BATCH)


@functools.cache
def _palm_program() -> Callable[[np.ndarray], PalmDetectionOutput]:
  variables = load_bundled_parameters('palm_detection')

  def apply(variables, x):
    return PalmDetectionNetwork().apply(variables, normalize_crops(x))

  return functools.partial(keep_traced('palm_detection', apply, (PalmDetectionOutput,)), variables)


@functools.cache
def _landmark_program() -> Callable[[np.ndarray], HandReadings]:
  variables = load_bundled_parameters('hand_landmark')

  def apply(variables, x):
    output = apply_network(HandLandmarkNetwork(), variables, normalize_crops(x))
    heads = output.landmarks, output.world_landmarks, output.presence, output.right
    return HandReadings(*heads, vectors=output.global_feature)

  return functools.partial(keep_traced('hand_landmark', apply, (HandReadings,)), variables)


def _run_in_batches(program, pictures, size):
  """Runs a program on batches, the last one padded with black pictures, and joins the results."""
  missing = -len(pictures) % size
  pictures = np.concatenate([pictures, np.zeros((missing, *pictures.shape[1:]), np.uint8)])
  starts = range(0, len(pictures), size)
  parts = [jax.device_get(program(pictures[start : start + size])) for start in starts]
  joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
  return jax.tree.map(lambda array: array[: len(pictures) - missing], joined)
