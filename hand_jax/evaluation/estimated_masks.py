"""Hand masks that are estimated from the crops of a split, in place of the true ones."""

import cv2
import numpy as np
from jaxtyping import Bool

from hand_jax.detection.masks import mask_in_crops
from hand_jax.models.hand_landmark import INPUT_SIDE
from hand_jax.types import HandBatch


def estimate_crop_masks(batch: HandBatch) -> Bool[np.ndarray, 'batch side side']:
  """Estimates the hand mask of each crop, which must show the hand with its fingers up.

  Crops of another side than the landmark network's are resized for it.
  """
  crops = np.asarray(batch.image)
  side = crops.shape[1]
  found = mask_in_crops(np.stack([_resized(crop, INPUT_SIDE) for crop in crops]))
  if side == INPUT_SIDE:
    return found
  return np.stack([_resized(255 * mask.astype(np.uint8), side) > 127 for mask in found])


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
  if len(picture) == side:
    return picture
  return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
