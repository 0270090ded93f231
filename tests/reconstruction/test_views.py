"""Labels of hands in the picture of a whole photo."""

import numpy as np
import pytest

from hand_jax.reconstruction.views import _draw_label, label_place

SIZE, PICTURE, GAP = (40, 12), (200, 150), 5


def hand(left: int, top: int, right: int, bottom: int) -> np.ndarray:
  """Joints all over a box."""
  x, y = np.linspace(left, right, 5).astype(int), np.linspace(top, bottom, 5).astype(int)
  return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def overlaps(place: tuple[int, int], joints: np.ndarray) -> bool:
  low, high = joints.min(axis=0), joints.max(axis=0)
  return bool(((place < high) & (np.array(place) + SIZE > low)).all())


@pytest.mark.parametrize(
  ('joints', 'expected'),
  [
    (hand(50, 40, 90, 100), (50, 40 - 5 - 12)),  # above
    (hand(50, 3, 90, 100), (50, 105)),  # at the upper border: below
    (hand(100, 3, 150, 148), (100 - 5 - 40, (3 + 148 - 12) // 2)),  # as high as the photo: left
    (hand(20, 3, 90, 148), (95, (3 + 148 - 12) // 2)),  # at the left border too: right
    (hand(190, 40, 230, 100), (160, 23)),  # cut by the right border: moved into the picture
    (hand(5, 3, 190, 148), (5, 0)),  # no room at all
  ],
)
def test_a_label_is_outside_the_hand_and_inside_the_picture(joints, expected):
  place = label_place([joints], 0, SIZE, PICTURE, GAP)
  assert place == expected
  assert overlaps(place, joints) == (expected == (5, 0))
  assert min(place) >= 0 and place[0] + 40 <= 200 and place[1] + 12 <= 150


def test_a_label_keeps_off_other_hands():
  first, above_it = hand(50, 60, 90, 100), hand(40, 10, 95, 50)
  place = label_place([above_it, first], 1, SIZE, PICTURE, GAP)
  assert place == (50, 105) and not overlaps(place, above_it)
  # Where all places are taken, the first that is outside its own hand.
  crowd = [hand(*corner) for corner in ((40, 10, 95, 50), (50, 106, 95, 140))]
  crowd += [hand(5, 60, 40, 100), hand(96, 70, 140, 90)]
  place = label_place([*crowd, first], 4, SIZE, PICTURE, GAP)
  assert not overlaps(place, first)


def test_a_label_is_wide_enough_and_keeps_off_earlier_labels():
  picture = np.zeros((600, 900, 3), np.uint8)
  upper, lower = hand(300, 3, 400, 250), hand(300, 330, 400, 590)
  first = _draw_label(picture, '10 right', [upper, lower], 0, (255, 0, 0), 2.0)
  # With a white label on a white picture only the text is dark.
  white = np.full_like(picture, 255)
  _draw_label(white, '10 right', [upper, lower], 0, (255, 255, 255), 2.0)
  rows, columns = np.nonzero((white < 255).any(axis=2))
  (left, top), (right, bottom) = first.min(axis=0), first.max(axis=0)
  assert left <= columns.min() and columns.max() <= right
  assert top <= rows.min() and rows.max() <= bottom
  second = _draw_label(picture, '9 right', [upper, lower, first], 1, (255, 0, 0), 2.0)
  assert not ((second.min(0) < first.max(0)) & (second.max(0) > first.min(0))).all()
