"""Makes a hand as the detector would find it, for tests that are not about detection."""

import numpy as np

from hand_jax.detection.reading import DetectedHand
from hand_jax.detection.regions import HandRegion

# The hand fills this part of the photo, in the middle.
SHARE = 0.6


def found_hand(image: np.ndarray, model, side: str = 'right') -> DetectedHand:
  """Makes a flat hand in the middle of a photo, with landmarks without error."""
  from hand_jax.mano.model import regress_joints

  joints = np.asarray(regress_joints(model, model.v_template), np.float64)
  joints -= joints.mean(axis=0)
  # MANO's flat hand points along -x, its palm faces -y: fingers up, palm to the camera.
  world = np.stack([joints[:, 2], joints[:, 0], joints[:, 1]], axis=1)
  if side == 'left':
    world[:, 0] *= -1
  height, width = image.shape[:2]
  scale = SHARE * min(height, width) / np.ptp(world[:, :2], axis=0).max()
  points = scale * world[:, :2] + [width / 2, height / 2]
  low, high = points.min(axis=0), points.max(axis=0)
  return DetectedHand(
    box_xywh=np.concatenate([low, high - low]),
    side=side,
    side_score=0.9,
    presence=0.99,
    landmarks_image=points,
    landmarks_world=world,
    roi=HandRegion((width / 2, height / 2), float(2 * (high - low).max()), 0.0),
    landmarks_depth=scale * (world[:, 2] - world[0, 2]),
    vector=np.zeros(1152, np.float32),
  )
