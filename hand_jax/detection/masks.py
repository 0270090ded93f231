"""Estimates which pixels of a photo show a hand, by the bundled networks."""

import functools
from typing import Any

import cv2
import numpy as np
from jaxtyping import Array, Bool, UInt8

from hand_jax.detection.hand_views import HandView, read_maps
from hand_jax.files.traced_programs import keep_traced
from hand_jax.models.applying import apply_network
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import INPUT_SIDE, HandLandmarkOutput
from hand_jax.models.mask_head import MaskHead, enlarged_mask, mask_maps


def estimate_hand_mask(view: HandView, width: int, height: int) -> Bool[np.ndarray, 'height width']:
  """Estimates which pixels of a photo show a detected hand.

  The forearm, objects in front of the hand and other hands do not count. No pixel counts outside
  the view.

  Args:
    view: the hand, see `view_hand`.
    width: the photo's width in pixels.
    height: its height in pixels.
  """
  (mask,) = np.asarray(_program()(_bundled_head(), view.output))
  return _in_photo(mask, view.photo_to_crop, width, height)


def _in_photo(mask: np.ndarray, to_crop: np.ndarray, width: int, height: int) -> np.ndarray:
  """Places a crop's mask in its photo. Only the part that the crop shows is computed."""
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
  crops: UInt8[np.ndarray, 'crops 224 224 3'], parameters: dict[str, Any] | None = None
) -> Bool[np.ndarray, 'crops 224 224']:
  """Estimates which pixels of crops show the right hand for which each crop was cut.

  Args:
    crops: RGB, of hands with their fingers up. Left hands are mirrored.
    parameters: the parameters of a `MaskHead`. With None the bundled ones are used.
  """
  head = _bundled_head() if parameters is None else parameters
  masks = [np.asarray(_program()(head, read_maps(crops[i : i + 1]))) for i in range(len(crops))]
  return np.concatenate([np.zeros((0, *crops.shape[1:3]), bool), *masks])


@functools.cache
def _bundled_head() -> dict[str, Any]:
  return load_bundled_parameters('hand_mask')['params']


@functools.cache
def _program() -> Any:
  def apply(head: Any, output: HandLandmarkOutput) -> Array:
    log_odds = apply_network(MaskHead(), {'params': head}, mask_maps(output))
    return enlarged_mask(log_odds, INPUT_SIDE)

  return keep_traced('hand_mask', apply, (HandLandmarkOutput,))
