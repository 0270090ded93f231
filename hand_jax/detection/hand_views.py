"""The view of a detected hand from which masks and colours come: a right hand, fingers up."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, UInt8

from hand_jax.detection.reading import DetectedHand
from hand_jax.detection.regions import crop_region, photo_to_crop, region_from_landmarks
from hand_jax.files.traced_programs import keep_traced
from hand_jax.geometry.cameras import mirror_affine
from hand_jax.models.applying import apply_network
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import (
  INPUT_SIDE,
  HandLandmarkNetwork,
  HandLandmarkOutput,
  normalize_crops,
)


class HandView(NamedTuple):
  """The square that the landmark network would read next. A left hand is mirrored in it."""

  crop: UInt8[np.ndarray, '224 224 3']
  """RGB."""
  photo_to_crop: Float[np.ndarray, '3 3']
  """Affine from pixels of the photo to pixels of the crop."""
  output: HandLandmarkOutput
  """What the landmark network says of the crop, with a batch axis of one."""


def view_hand(image: UInt8[np.ndarray, 'height width 3'], hand: DetectedHand) -> HandView:
  """Cuts out a detected hand and runs the landmark network on it.

  Args:
    image: RGB, upright.
    hand: the detected hand.
  """
  region = region_from_landmarks(np.asarray(hand.landmarks_image, np.float64))
  crop, to_crop = crop_region(image, region, INPUT_SIDE), photo_to_crop(region, INPUT_SIDE)
  if hand.side == 'left':
    crop = np.ascontiguousarray(crop[:, ::-1])
    to_crop = mirror_affine(INPUT_SIDE) @ to_crop
  return HandView(crop, to_crop, read_maps(crop[None]))


def read_maps(crops: UInt8[np.ndarray, 'crops 224 224 3']) -> HandLandmarkOutput:
  """Runs the landmark network on RGB crops, and returns all of its output with its maps."""
  return _program()(_variables(), crops)


@functools.cache
def _variables() -> dict[str, Any]:
  return load_bundled_parameters('hand_landmark')


@functools.cache
def _program() -> Callable[..., HandLandmarkOutput]:
  def apply(variables: Any, crops: Array) -> HandLandmarkOutput:
    return apply_network(HandLandmarkNetwork(), variables, normalize_crops(crops))

  return keep_traced('hand_maps', apply, (HandLandmarkOutput,))
