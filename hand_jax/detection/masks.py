"""Tells which pixels of a photo show a hand, by the bundled networks."""

import functools
from typing import Any

import cv2
import numpy as np
from jaxtyping import Array, Bool, UInt8

from hand_jax.detection.networks import compile_well
from hand_jax.detection.reading import DetectedHand
from hand_jax.detection.regions import crop_region, photo_to_crop, region_from_landmarks
from hand_jax.models.applying import apply_network
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import INPUT_SIDE, HandLandmarkNetwork, normalize_crops
from hand_jax.models.mask_head import MaskHead, enlarged_mask, mask_maps


def estimate_hand_mask(
  image: UInt8[np.ndarray, 'height width 3'], hand: DetectedHand
) -> Bool[np.ndarray, 'height width']:
  """Tells which pixels of a photo show a hand that was found in it.

  The forearm, objects before the hand and other hands are none of it. Nothing counts outside the
  square that the landmark network would read next.

  Args:
    image: RGB, upright.
    hand: the hand.
  """
  region = region_from_landmarks(np.asarray(hand.landmarks_image, np.float64))
  crop = crop_region(image, region, INPUT_SIDE)
  is_left = hand.side == 'left'
  # The networks know right hands.
  (mask,) = mask_in_crops(np.ascontiguousarray(crop[:, ::-1] if is_left else crop)[None])
  return _in_photo(mask[:, ::-1] if is_left else mask, photo_to_crop(region, INPUT_SIDE), image)


def _in_photo(mask: np.ndarray, to_crop: np.ndarray, image: np.ndarray) -> np.ndarray:
  """Places a crop's mask in its photo. Only the part that the crop shows is computed."""
  height, width = image.shape[:2]
  side = len(mask)
  corners = np.array([[0, 0, 1], [side, 0, 1], [0, side, 1], [side, side, 1]])
  places = corners @ np.linalg.inv(to_crop).T[:, :2]
  left, top = np.clip(np.floor(places.min(0)).astype(int), 0, (width, height))
  right, bottom = np.clip(np.ceil(places.max(0)).astype(int), 0, (width, height))
  found = np.zeros((height, width), bool)
  if left >= right or top >= bottom:
    return found
  matrix = to_crop[:2].copy()
  # OpenCV counts from pixel centres, in the photo as in the crop.
  matrix[:, 2] = to_crop[:2] @ (left + 0.5, top + 0.5, 1.0) - 0.5
  part = cv2.warpAffine(
    255 * mask.astype(np.uint8),
    matrix,
    (int(right - left), int(bottom - top)),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    borderValue=0,
  )
  found[top:bottom, left:right] = part > 127
  return found


def mask_in_crops(
  crops: UInt8[np.ndarray, 'crops side side 3'], parameters: dict[str, Any] | None = None
) -> Bool[np.ndarray, 'crops side side']:
  """Tells which pixels of crops show the right hand for which each was cut.

  Args:
    crops: RGB, of hands with their fingers up. Left hands are mirrored.
    parameters: those of another `MaskHead` than the bundled one.
  """
  head = load_bundled_parameters('hand_mask')['params'] if parameters is None else parameters
  variables = _landmark_variables()
  masks = [np.asarray(_program()(variables, head, crops[i : i + 1])) for i in range(len(crops))]
  return np.concatenate([np.zeros((0, *crops.shape[1:3]), bool), *masks])


@functools.cache
def _landmark_variables() -> dict[str, Any]:
  return load_bundled_parameters('hand_landmark')


@functools.cache
def _program() -> Any:
  def apply(variables: Any, head: Any, crops: Array) -> Array:
    output = apply_network(HandLandmarkNetwork(), variables, normalize_crops(crops))
    log_odds = apply_network(MaskHead(), {'params': head}, mask_maps(output))
    return enlarged_mask(log_odds, crops.shape[1])

  return compile_well('hand_mask', apply)
