"""Reads regions of a photo with the landmark network, for the points and the side of each hand.

The network reads every region twice, as it is and mirrored. Its probability of a right hand is
unreliable for a single picture, but the difference between the two views is reliable. The view that
looks more like a right hand counts as one. Landmarks come from that view, in which the network's
errors are also smaller.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.detection.networks import HandReadings, read_landmarks
from hand_jax.detection.regions import (
  HandRegion,
  crop_region,
  points_in_photo,
  turn_with_region,
)
from hand_jax.models.hand_landmark import INPUT_SIDE


class DetectedHand(NamedTuple):
  """One hand of a photo. Pixels are the upright photo's. The first one's centre is (0.5, 0.5)."""

  box_xywh: Float[np.ndarray, '4']
  """The smallest box around the landmarks: left, top, width and height in pixels."""
  side: Literal['left', 'right']
  side_score: float
  """Probability that `side` is correct, in [0.5, 1]."""
  presence: float
  """Probability that there is a hand."""
  landmarks_image: Float[np.ndarray, '21 2']
  """Pixels of the photo."""
  landmarks_world: Float[np.ndarray, '21 3']
  """Metres, in the axes of the photo: x right, y down, z away from the camera. The origin is near
  the middle of the hand. A left hand's points are not mirrored."""
  roi: HandRegion
  """The turned square that was read."""
  landmarks_depth: Float[np.ndarray, '21']
  """Orthographic depth beyond the wrist, in pixels of the photo."""
  vector: Float[np.ndarray, '1152']
  """The network's pooled features of the view in which this is a right hand."""


def read_regions(
  image: UInt8[np.ndarray, 'height width 3'],
  regions: list[HandRegion],
  side: str | None = None,
) -> list[DetectedHand]:
  """Reads each region as one hand. The `presence` of a region without a hand is low.

  Args:
    image: RGB, upright.
    regions: squares of the photo, see `hand_jax.detection.regions`.
    side: 'left' or 'right' where it is known. Its score is then 1.
  """
  if not regions:
    return []
  crops = np.stack([crop_region(image, region, INPUT_SIDE) for region in regions])
  views = np.stack([crops, crops[:, :, ::-1]], 1).reshape(-1, *crops.shape[1:])
  readings = read_landmarks(views)
  return [
    _choose_view(HandReadings(*(field[2 * i : 2 * i + 2] for field in readings)), region, side)
    for i, region in enumerate(regions)
  ]


def _choose_view(views: HandReadings, region: HandRegion, side: str | None) -> DetectedHand:
  """Makes the hand of a region from its two views, plain and mirrored."""
  right = np.clip(views.right.astype(np.float64), 1e-7, 1 - 1e-7)
  plain, mirrored = np.log(right / (1 - right))
  evidence = (plain - mirrored) / 2  # This is the mean of both views' log-odds of a right hand.
  score = float(1 / (1 + np.exp(-abs(evidence))))
  view = int(evidence < 0)
  if side is not None:
    score, view = 1.0, int(side == 'left')
  landmarks = views.landmarks[view].astype(np.float64)
  world = views.world_landmarks[view].astype(np.float64)
  if view == 1:
    landmarks[:, 0] = INPUT_SIDE - landmarks[:, 0]
    world[:, 0] *= -1
  points = points_in_photo(landmarks[:, :2], region, INPUT_SIDE)
  low, high = points.min(0), points.max(0)
  return DetectedHand(
    box_xywh=np.concatenate([low, high - low]),
    side='left' if view == 1 else 'right',
    side_score=score,
    presence=float(views.presence.mean()),
    landmarks_image=points,
    landmarks_world=turn_with_region(world, region),
    roi=region,
    landmarks_depth=landmarks[:, 2] * (region.side / INPUT_SIDE),
    vector=views.vectors[view],
  )
