"""Anchors and the palms decoded from the detector's outputs."""

import numpy as np

from hand_jax.detection.anchors import Palms, anchor_centres, decode_palms, join_palms


def naive_anchors():
  """Cell by cell, as the single-shot detector's paper describes its default boxes."""
  centres = []
  for cells, count in ((24, 2), (12, 6)):
    for row in range(cells):
      for column in range(cells):
        for _ in range(count):
          centres.append(((column + 0.5) * 192 / cells, (row + 0.5) * 192 / cells))
  return np.array(centres)


def test_anchors_lie_in_the_middle_of_their_cells():
  np.testing.assert_allclose(anchor_centres(), naive_anchors())


def test_a_palm_is_decoded_relative_to_its_anchor():
  boxes, logits = np.zeros((2016, 18), np.float32), np.full(2016, -9.0, np.float32)
  index = 2 * (24 * 3 + 5) + 1  # The second anchor of row 3, column 5 of the fine grid.
  logits[index] = np.log(3.0)
  boxes[index] = [1, 2, 30, 40, *np.arange(14)]
  palms = decode_palms(boxes, logits, 0.5)
  np.testing.assert_allclose(palms.score, [0.75], rtol=1e-6)
  anchor = np.array([5.5 * 8, 3.5 * 8])
  np.testing.assert_allclose(palms.centre, [anchor + [1, 2]])
  np.testing.assert_allclose(palms.size, [[30, 40]])
  np.testing.assert_allclose(palms.points[0], anchor + np.arange(14).reshape(7, 2))


def test_only_palms_above_the_score_are_kept():
  logits = np.full(2016, -2.0, np.float32)
  logits[[3, 2000]] = 1.0
  assert len(decode_palms(np.zeros((2016, 18), np.float32), logits, 0.5).score) == 2
  assert len(decode_palms(np.zeros((2016, 18), np.float32), logits, 0.05).score) == 2016


def test_joined_palms_keep_their_order():
  one = Palms(np.array([0.5]), np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 7, 2)))
  two = Palms(np.array([0.9]), *(2 * field for field in one[1:]))
  joined = join_palms([one, two])
  np.testing.assert_array_equal(joined.score, [0.5, 0.9])
  np.testing.assert_array_equal(joined.select(np.array([1])).centre, [[2, 2]])
  np.testing.assert_array_equal(two.corners(), [[1, 1, 3, 3]])
