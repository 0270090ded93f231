"""Measures how much boxes overlap, and joins palms that overlap into one."""

import numpy as np
from jaxtyping import Float

from hand_jax.detection.anchors import Palms

# Palms that overlap more than this (intersection over union) count as the same palm.
_SAME_PALM = 0.3


def overlaps(
  corners: Float[np.ndarray, '4'], others: Float[np.ndarray, 'boxes 4']
) -> tuple[Float[np.ndarray, 'boxes'], Float[np.ndarray, 'boxes']]:
  """Computes how much a box overlaps with others. Boxes are left, top, right and bottom.

  Returns:
    Intersection over union, and intersection over the smaller box's area. Both are 0 for empty
    boxes.
  """
  low, high = np.maximum(corners[:2], others[:, :2]), np.minimum(corners[2:], others[:, 2:])
  shared = np.maximum(high - low, 0.0).prod(-1)
  area = np.maximum(corners[2:] - corners[:2], 0.0).prod()
  areas = np.maximum(others[:, 2:] - others[:, :2], 0.0).prod(-1)
  tiny = np.finfo(np.float64).tiny
  return (
    shared / np.maximum(area + areas - shared, tiny),
    shared / np.maximum(np.minimum(area, areas), tiny),
  )


def suppress_palms(palms: Palms) -> Palms:
  """Joins palms that overlap, by weighted non-maximum suppression.

  The most probable palm that is in no group yet starts a group, and takes every free palm that
  overlaps it. A group becomes the mean of its palms, weighted by their scores, with the score of
  the most probable one. Groups are ordered by that score.
  """
  corners = palms.corners()
  free = np.ones(len(palms.score), bool)
  joined = []
  for best in np.argsort(-palms.score, kind='stable'):
    if not free[best]:
      continue
    group = free & (overlaps(corners[best], corners)[0] > _SAME_PALM)
    group[best] = True  # An empty box does not overlap itself.
    free &= ~group
    weights = palms.score[group] / palms.score[group].sum()
    means = [np.tensordot(weights, field[group], 1) for field in palms[1:]]
    joined.append(Palms(palms.score[best], *means))
  if not joined:
    return palms
  return Palms(*(np.stack(fields) for fields in zip(*joined, strict=True)))
