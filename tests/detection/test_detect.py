"""Hands of whole photos: drawn ones, the bundled photos, and pictures without any."""

import inspect

import cv2
import numpy as np
import pytest

from hand_jax.data.photos import demo_photo_boxes, read_photo
from hand_jax.detection import detect
from hand_jax.detection.detect import detect_hands
from hand_jax.detection.suppression import overlaps
from hand_jax.mano.assets import load_mano_model
from hand_jax.synthetic import compose, geometry
from hand_jax.synthetic.background import view_of_environment
from hand_jax.synthetic.hands import render_examples
from hand_jax.synthetic.light import load_environments
from hand_jax.synthetic.objects import random_rotation
from tools.drawn_hand import draw_hand, draw_test_picture

pytestmark = pytest.mark.slow

TIPS = [4, 8, 12, 16, 20]
BUNDLED = sorted(demo_photo_boxes().items())


def plain(height, width):
  picture = np.empty((height, width, 3), np.uint8)
  picture[:] = [70, 90, 110]
  return picture


def corners(box):
  return np.concatenate([box[:2], box[:2] + box[2:]])


# The drawn hand's tips are the ends of its sticks' axes; the network marks points near them. 0.05
# of the hand's length is below the distance of neighbouring tips (0.2) by far.
@pytest.mark.parametrize('degrees', [0, 90, 200])
def test_fingertips_of_a_drawn_hand(degrees):
  picture = plain(400, 360)
  cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  wrist = (180 - 70 * sine, 200 + 70 * cosine)
  tips = draw_hand(picture, wrist, 160, (cosine, sine))
  (hand,) = detect_hands(picture)
  assert np.linalg.norm(hand.landmarks_image[TIPS] - tips, axis=1).max() < 0.05 * 160
  # World points lie along the photo's axes, whatever the crop's turn was.
  along = hand.landmarks_world[12, :2] - hand.landmarks_world[0, :2]
  expected = tips[2] - wrist
  cosine = along @ expected / np.linalg.norm(along) / np.linalg.norm(expected)
  assert cosine > 0.98
  assert 0.1 < np.linalg.norm(along) < 0.25


@pytest.fixture(scope='module', params=BUNDLED, ids=[path.stem for path, _ in BUNDLED])
def bundled(request):
  path, (box, _) = request.param
  image = read_photo(path)
  return image, box, detect_hands(image, max_hands=1)


def test_bundled_photos_show_left_hands(bundled):
  _, box, (hand,) = bundled
  assert hand.side == 'left'
  assert 0.5 <= hand.side_score <= 1
  assert hand.presence > 0.95
  assert overlaps(corners(hand.box_xywh), corners(box)[None])[0] > 0.4
  low, high = hand.landmarks_image.min(0), hand.landmarks_image.max(0)
  np.testing.assert_allclose(hand.box_xywh, [*low, *(high - low)])


def test_a_mirrored_photo_shows_the_mirrored_hand(bundled):
  image, _, (hand,) = bundled
  (mirrored,) = detect_hands(np.ascontiguousarray(image[:, ::-1]), max_hands=1)
  assert mirrored.side == 'right'
  points = mirrored.landmarks_image * [-1, 1] + [image.shape[1], 0]
  # The palm detector is no mirror image of itself, so that the crops differ a little.
  size = hand.box_xywh[2:].max()
  assert np.linalg.norm(points - hand.landmarks_image, axis=1).mean() < 0.03 * size
  world = mirrored.landmarks_world * [-1, 1, 1]
  assert np.linalg.norm(world - hand.landmarks_world, axis=1).mean() < 0.01


def test_a_hand_that_fills_the_photo_is_found_with_a_border():
  picture = draw_test_picture(224)[38:170, 56:172]
  (hand,) = detect_hands(np.ascontiguousarray(picture))
  assert hand.box_xywh[3] > 0.6 * len(picture)


def test_a_hand_of_forty_pixels_in_twelve_megapixels():
  photo, box = read_photo(BUNDLED[1][0]), BUNDLED[1][1][0]
  scale = 40 / box[2:].max()
  small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
  picture = np.empty((3000, 4000, 3), np.uint8)
  picture[:] = photo.reshape(-1, 3).mean(0).astype(np.uint8)
  picture[1700 : 1700 + len(small), 2500 : 2500 + small.shape[1]] = small
  (hand,) = detect_hands(picture)
  expected = box * scale + [2500, 1700, 0, 0]
  assert overlaps(corners(hand.box_xywh), corners(expected)[None])[0] > 0.3
  assert hand.side == 'left'


def test_ten_hands_in_one_photo():
  picture, wrists = plain(800, 2000), []
  for i in range(10):
    wrists.append((200 + 390 * (i % 5), 320 + 400 * (i // 5)))
    draw_hand(picture, wrists[-1], 250, mirrored=i % 2 == 1)
  hands = detect_hands(picture)
  assert len(hands) == 10
  found = np.array([hand.landmarks_image[0] for hand in hands])
  distances = np.linalg.norm(found[:, None] - np.array(wrists)[None], axis=-1)
  assert (distances.min(0) < 30).all()
  presence = [hand.presence for hand in hands]
  assert presence == sorted(presence, reverse=True)
  assert len(detect_hands(picture, max_hands=3)) == 3


def test_no_hand_is_a_result():
  noise = np.random.default_rng(0).integers(0, 255, (20, 15, 3), dtype=np.uint8)
  assert detect_hands(plain(300, 500)) == []
  assert detect_hands(cv2.resize(noise, (240, 320), interpolation=cv2.INTER_CUBIC)) == []
  assert detect_hands(plain(1, 1)) == []


def test_no_hand_in_views_of_the_bundled_environments():
  for environment in range(len(load_environments().views)):
    rotation = random_rotation(np.random.default_rng(environment))
    view = view_of_environment(environment, rotation, np.tan(np.radians(30)), 256)
    assert view.std() > 5
    assert detect_hands(view) == []


def test_no_hand_in_renders_of_forearms_and_objects(monkeypatch):
  """Renders of hands, with the hand itself left out."""
  seen_faces, hand_faces = geometry.seen_faces, load_mano_model().faces.shape[0]

  def without_hand(*arguments):
    seen = np.asarray(seen_faces(*arguments))
    return np.where(seen < hand_faces, -1, seen)

  monkeypatch.setattr(geometry, 'seen_faces', without_hand)
  monkeypatch.setattr(compose, 'MINIMUM_VISIBLE', 0.0)  # else objects would be left out
  for example in render_examples(7, 'test', range(24), 160):
    assert not example.hand_mask.any()
    assert detect_hands(example.image) == []


def test_one_hand_is_reported_once():
  picture = draw_test_picture(300)
  (hand,) = detect_hands(picture)
  moved = hand._replace(box_xywh=hand.box_xywh + np.array([3.0, 0, 0, 0]), presence=0.9)
  inside = hand._replace(box_xywh=hand.box_xywh * [1, 1, 0.4, 0.4])
  away = hand._replace(box_xywh=hand.box_xywh + np.array([500.0, 0, 0, 0]))
  assert detect._without_duplicates([hand, moved, inside, away]) == [hand, away]


def test_wrong_requests_are_named():
  with pytest.raises(ValueError, match='uint8'):
    detect.check_image(np.zeros((4, 4, 3), np.float32))
  with pytest.raises(ValueError, match=r'\(4, 4\)'):
    detect.check_image(np.zeros((4, 4), np.uint8))
  with pytest.raises(ValueError, match='max_hands is 0'):
    detect_hands(plain(4, 4), 0)
  for wrong in (1.5, '3', None):
    with pytest.raises(ValueError, match=f'max_hands is {wrong!r}, expected an integer'):
      inspect.unwrap(detect_hands)(plain(4, 4), wrong)  # without jaxtyping's checks
