"""Overlap over union of drawn hands and their masks."""

import numpy as np
import pytest

from hand_jax.evaluation.hand_errors import silhouette_iou
from hand_jax.types import SILHOUETTE_FULL, SILHOUETTE_UNKNOWN


def test_the_overlap_is_a_loop_over_the_known_pixels():
  rng = np.random.default_rng(0)
  drawn = rng.uniform(size=(3, 7, 8)) < 0.6
  levels = rng.integers(0, SILHOUETTE_FULL + 1, (3, 7, 8)).astype(np.uint8)
  levels[rng.uniform(size=levels.shape) < 0.2] = SILHOUETTE_UNKNOWN
  found = silhouette_iou(drawn, levels)
  for hand in range(3):
    overlap = union = 0
    for pixel in np.ndindex(7, 8):
      level = int(levels[hand][pixel])
      if level == SILHOUETTE_UNKNOWN:
        continue
      is_hand = level >= SILHOUETTE_FULL / 2
      overlap += is_hand and drawn[hand][pixel]
      union += is_hand or drawn[hand][pixel]
    assert found[hand] == pytest.approx(overlap / union)
    assert 0.1 < found[hand] < 0.9


def test_hidden_pixels_cost_nothing_and_wrong_ones_do():
  levels = np.zeros((3, 4, 4), np.uint8)
  levels[:, :2] = SILHOUETTE_FULL
  levels[1, 1] = SILHOUETTE_UNKNOWN
  levels[2] = SILHOUETTE_UNKNOWN
  drawn = np.zeros((3, 4, 4), bool)
  drawn[:, :2] = True
  drawn[0, 2] = True
  np.testing.assert_allclose(silhouette_iou(drawn, levels), [8 / 12, 1, 0])
