"""Decodes the palm detector's outputs, which are relative to anchors on two grids, into palms."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.models.palm_detection import BOX_VALUES, INPUT_SIDE, NUM_POINTS

# The cells along a side of each grid, and the anchors in each cell. The finest grid comes first.
_GRIDS = ((24, 2), (12, 6))
# The indices of two of a palm's seven points, which together give the palm's direction.
WRIST, MIDDLE_BASE = 0, 2


class Palms(NamedTuple):
  """Palms in pixels of a picture, with probability, box and seven points.

  The points are the wrist, the bases of index, middle, ring and little finger, and two points of
  the thumb. A palm's box is square and upright, however the hand is turned.
  """

  score: Float[np.ndarray, 'palms']
  centre: Float[np.ndarray, 'palms 2']
  size: Float[np.ndarray, 'palms 2']
  points: Float[np.ndarray, 'palms 7 2']

  def select(self, which: np.ndarray) -> 'Palms':
    """Keeps the palms at the given indices in that order, or those where a mask is True."""
    return Palms(*(field[which] for field in self))

  def corners(self) -> Float[np.ndarray, 'palms 4']:
    """Computes left, top, right and bottom of each box."""
    return np.concatenate([self.centre - self.size / 2, self.centre + self.size / 2], 1)


def join_palms(parts: list[Palms]) -> Palms:
  """Concatenates palms that are given in pixels of the same picture."""
  return Palms(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def anchor_centres() -> Float[np.ndarray, 'anchors 2']:
  """Computes the anchors' centres in pixels of the detector's input, in the order of its outputs.

  They are the centres of the grids' cells.
  """
  centres = []
  for cells, anchors in _GRIDS:
    along = (np.arange(cells) + 0.5) * (INPUT_SIDE / cells)
    columns, rows = np.meshgrid(along, along)
    grid = np.stack([columns.ravel(), rows.ravel()], 1)
    centres.append(np.repeat(grid, anchors, axis=0))
  return np.concatenate(centres)


def decode_palms(
  boxes: Float[np.ndarray, 'anchors 18'],
  logits: Float[np.ndarray, 'anchors'],
  min_score: float,
) -> Palms:
  """Turns the outputs for one picture into palms.

  Args:
    boxes: the centre, size and points of each palm. Centre and points are relative to the anchor.
    logits: the logits of the probability of a palm.
    min_score: palms of lower probability are left out.

  Returns:
    The palms in pixels of the detector's input (192 x 192), in the order of the anchors.
  """
  assert boxes.shape[1] == BOX_VALUES
  score = 1 / (1 + np.exp(-logits.astype(np.float64)))
  keep = np.flatnonzero(score >= min_score)
  anchors = anchor_centres()[keep]
  values = boxes[keep].astype(np.float64)
  points = values[:, 4:].reshape(-1, NUM_POINTS, 2) + anchors[:, None]
  return Palms(score[keep], values[:, :2] + anchors, values[:, 2:4], points)
