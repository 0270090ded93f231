"""Overlaps of boxes and weighted non-maximum suppression."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from hand_jax.detection.anchors import Palms
from hand_jax.detection.suppression import overlaps, suppress_palms

whole = st.integers(0, 12)
boxes = st.tuples(whole, whole, whole, whole)


def make_palms(scores, centres, side=10.0):
  centres = np.asarray(centres, np.float64)
  points = np.repeat(centres[:, None], 7, 1) + np.arange(7)[None, :, None]
  return Palms(np.asarray(scores), centres, np.full_like(centres, side), points)


def covered(box):
  """The unit cells of a box with whole corners."""
  cells = np.zeros((12, 12), bool)
  cells[box[1] : box[3], box[0] : box[2]] = True
  return cells


@hypothesis.given(boxes, boxes)
def test_overlaps_count_shared_cells(first, second):
  a, b = covered(first), covered(second)
  union, smaller = overlaps(np.array(first, float), np.array([second], float))
  if a.any() and b.any():
    np.testing.assert_allclose(union, [(a & b).sum() / (a | b).sum()])
    np.testing.assert_allclose(smaller, [(a & b).sum() / min(a.sum(), b.sum())])
  else:
    assert union == smaller == 0


def test_palms_of_one_hand_become_their_weighted_mean():
  joined = suppress_palms(make_palms([0.3, 0.9, 0.6], [[10, 10], [12, 10], [60, 60]]))
  np.testing.assert_allclose(joined.score, [0.9, 0.6])
  np.testing.assert_allclose(joined.centre, [[(0.3 * 10 + 0.9 * 12) / 1.2, 10], [60, 60]])
  np.testing.assert_allclose(joined.points[0, 3], joined.centre[0] + 3)
  np.testing.assert_allclose(joined.size, 10)


def test_order_of_palms_does_not_matter():
  rng = np.random.default_rng(0)
  palms = make_palms(rng.uniform(size=30), rng.uniform(0, 60, (30, 2)))
  expected = suppress_palms(palms)
  assert 1 < len(expected.score) < 30
  shuffled = suppress_palms(palms.select(rng.permutation(30)))
  for one, other in zip(expected, shuffled, strict=True):
    np.testing.assert_allclose(one, other)


def test_empty_boxes_and_no_palms():
  assert len(suppress_palms(make_palms([0.5, 0.4], [[1, 1], [5, 5]], side=0.0)).score) == 2
  assert len(suppress_palms(make_palms([], np.zeros((0, 2)))).score) == 0
