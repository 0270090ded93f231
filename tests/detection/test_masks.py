"""The mask of a hand in its photo: where the crop's mask lies, and that hands are found by it."""

import cv2
import numpy as np
import pytest

from hand_jax.data.photos import demo_photo_boxes, read_photo
from hand_jax.detection import hand_views, masks
from hand_jax.detection.detect import detect_hands
from hand_jax.detection.hand_views import view_hand
from hand_jax.detection.masks import estimate_hand_mask
from hand_jax.detection.regions import photo_to_crop, region_from_landmarks
from hand_jax.geometry.cameras import transform_points
from hand_jax.mano.assets import load_mano_model
from tests.found_hands import found_hand

BUNDLED = sorted(demo_photo_boxes().items())


@pytest.fixture
def bright(monkeypatch):
  """Takes the bright pixels of a crop for the hand, in place of the networks. Returns the crops."""
  seen = []

  def read_maps(crops):
    seen.extend(crops)
    return crops

  monkeypatch.setattr(hand_views, 'read_maps', read_maps)
  monkeypatch.setattr(masks, '_program', lambda: lambda head, crops: crops.mean(axis=-1) > 127)
  return seen


def estimated_mask(photo, hand):
  return estimate_hand_mask(view_hand(photo, hand), *photo.shape[1::-1])


@pytest.mark.parametrize('side', ['right', 'left'])
def test_a_mask_lies_where_the_crop_shows_it(bright, photo, side):
  """Bright discs of the photo come back at their places, inside the square and nowhere else."""
  picture = np.zeros_like(photo)
  height, width = picture.shape[:2]
  hand = found_hand(photo, load_mano_model())._replace(side=side)
  for x, y in hand.landmarks_image.astype(int)[::4]:
    cv2.circle(picture, (int(x), int(y)), max(3, width // 40), (255, 255, 255), -1)
  found = estimated_mask(picture, hand)
  assert found.shape == (height, width) and found.dtype == bool
  region = region_from_landmarks(np.asarray(hand.landmarks_image, np.float64))
  column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
  pixels = np.stack([column.ravel(), row.ravel()], 1)
  inside = transform_points(photo_to_crop(region, 1), pixels)
  inside = ((inside > 0) & (inside < 1)).all(1).reshape(height, width)
  expected = (picture[..., 0] > 127) & inside
  either = (found | expected).sum()
  assert either > 0 and (found & expected).sum() > 0.9 * either
  assert len(bright) == 1 and bright[0].shape == (224, 224, 3)


def test_a_left_hand_is_shown_mirrored(bright, photo):
  hand = found_hand(photo, load_mano_model())
  estimated_mask(photo, hand._replace(side='right'))
  estimated_mask(photo, hand._replace(side='left'))
  right, left = bright
  np.testing.assert_array_equal(left, right[:, ::-1])
  assert not np.array_equal(left, right)


def test_a_square_outside_the_photo_shows_nothing(bright, photo):
  hand = found_hand(photo, load_mano_model())
  moved = hand.landmarks_image + np.array([10 * photo.shape[1], 0.0])
  assert not estimated_mask(photo, hand._replace(landmarks_image=moved)).any()


@pytest.mark.slow
@pytest.mark.parametrize('path', [path for path, _ in BUNDLED], ids=lambda path: path.stem)
def test_the_mask_of_a_bundled_photo_holds_the_joints(path):
  photo = read_photo(path)
  hand = detect_hands(photo)[0]
  mask = estimated_mask(photo, hand)
  column, row = np.clip(hand.landmarks_image.astype(int), 0, np.array(mask.shape[::-1]) - 1).T
  # The wrist lies on the mask's edge.
  assert mask[row, column][1:].mean() >= 0.9
  assert 0.2 < mask.sum() / hand.box_xywh[2:].prod() < 1.2


@pytest.mark.slow
def test_a_mirrored_photo_has_the_mirrored_mask():
  photo = read_photo(BUNDLED[0][0])
  hand = detect_hands(photo)[0]
  mirrored = np.ascontiguousarray(photo[:, ::-1])
  landmarks = hand.landmarks_image * [-1, 1] + [photo.shape[1], 0]
  side = 'left' if hand.side == 'right' else 'right'
  other = hand._replace(landmarks_image=landmarks, side=side)
  first, second = estimated_mask(photo, hand), estimated_mask(mirrored, other)
  both, either = (first & second[:, ::-1]).sum(), (first | second[:, ::-1]).sum()
  assert both > 0.99 * either
