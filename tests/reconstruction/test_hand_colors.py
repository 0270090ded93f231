"""Colours of a fitted hand: the photo's where it shows a vertex, whatever the side and the turn."""

import numpy as np
import pytest

from hand_jax.detection.hand_views import view_hand
from hand_jax.geometry.cameras import transform_points
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.model import regress_joints
from hand_jax.reconstruction.hand_colors import color_hand
from tests.found_hands import found_hand

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def scene(photo):
  """A flat hand in the middle of a red photo whose border is blue, and its mesh in the photo."""
  model = load_mano_model()
  hand = found_hand(photo, model)
  joints = np.asarray(regress_joints(model, model.v_template), np.float64)
  world = (np.asarray(model.v_template, np.float64) - joints.mean(0))[:, [2, 0, 1]]
  scale = np.ptp(hand.landmarks_image, axis=0).max() / np.ptp(joints[:, [2, 0]], axis=0).max()
  height, width = photo.shape[:2]
  points = np.concatenate(
    [scale * world[:, :2] + [width / 2, height / 2], scale * world[:, 2:]], axis=1
  )
  picture = np.zeros_like(photo)
  picture[...] = (40, 60, 200)
  picture[5:-5, 15:-15] = (200, 120, 100)
  return model, hand, points, picture


def test_what_the_photo_shows_has_its_colour(scene):
  model, hand, points, picture = scene
  colors = np.asarray(
    color_hand(view_hand(picture, hand), points, model, np.ones(picture.shape[:2], bool))
  )
  assert colors.shape == (778, 3) and colors.min() >= 0 and colors.max() <= 1
  palm = points[:, 2] < np.quantile(points[:, 2], 0.3)  # nearest to the camera
  assert np.abs(np.median(colors[palm], axis=0) - np.array([200, 120, 100]) / 255).max() < 0.1


def test_the_models_origin_changes_no_colour(scene):
  """The texture branch knows vertices by their place about the wrist."""
  model, hand, points, picture = scene
  mask = np.ones(picture.shape[:2], bool)
  moved = model._replace(v_template=model.v_template + np.float32(0.1))
  colors, others = (
    np.asarray(color_hand(view_hand(picture, hand), points, each, mask)) for each in (model, moved)
  )
  np.testing.assert_allclose(others, colors, atol=1e-4)


def test_a_mirrored_photo_gives_the_left_hand_the_same_colours(scene):
  model, hand, points, picture = scene
  rng = np.random.default_rng(0)
  noisy = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
  mask = np.ones(picture.shape[:2], bool)
  width = picture.shape[1]
  left = hand._replace(side='left', landmarks_image=hand.landmarks_image * [-1, 1] + [width, 0])
  right_colors = np.asarray(color_hand(view_hand(noisy, hand), points, model, mask))
  mirrored = points * [-1, 1, 1] + [width, 0, 0]
  flipped = np.ascontiguousarray(noisy[:, ::-1])
  left_colors = np.asarray(color_hand(view_hand(flipped, left), mirrored, model, mask))
  assert np.abs(left_colors - right_colors).mean() < 0.01


def test_a_turned_photo_gives_the_same_colours(scene):
  model, hand, points, picture = scene
  turned = np.ascontiguousarray(np.rot90(picture))  # u, v -> v, width - u
  turn = np.array([[0.0, 1, 0], [-1, 0, picture.shape[1]], [0, 0, 1]])
  landmarks = transform_points(turn, hand.landmarks_image)
  moved = np.concatenate([transform_points(turn, points[:, :2]), points[:, 2:]], axis=1)
  mask = np.ones(picture.shape[:2], bool)
  moved_hand = hand._replace(landmarks_image=landmarks)
  upright = np.asarray(color_hand(view_hand(picture, hand), points, model, mask))
  other = np.asarray(color_hand(view_hand(turned, moved_hand), moved, model, mask.T))
  assert np.abs(other - upright).mean() < 0.03


def test_pixels_outside_the_mask_colour_nothing(scene):
  """Half of the hand is behind something green, and no vertex is."""
  model, hand, points, picture = scene
  covered = picture.copy()
  lower = picture.shape[0] // 2
  covered[lower:] = (20, 220, 30)
  mask = np.ones(picture.shape[:2], bool)
  mask[lower:] = False
  colors = np.asarray(color_hand(view_hand(covered, hand), points, model, mask))
  below = points[:, 1] > lower + 3
  assert below.sum() > 100
  greener = colors[below, 1] - colors[below, 0]
  assert np.quantile(greener, 0.95) < 0.1
  unmasked = np.asarray(color_hand(view_hand(covered, hand), points, model, np.ones_like(mask)))
  assert np.median((unmasked[:, 1] - unmasked[:, 0])[below & (points[:, 2] < 0)]) > 0.2


def test_the_rim_of_the_mask_colours_nothing(scene):
  """Masks are a pixel or two of the crop too large, and what lies there is not the hand's."""
  model, hand, points, picture = scene
  # A pixel of the crop is larger than one of the photo then.
  hand, points = hand._replace(landmarks_image=8 * hand.landmarks_image), 8 * points
  picture = picture.repeat(8, axis=0).repeat(8, axis=1)
  rim = int(1.2 / abs(np.linalg.det(view_hand(picture, hand).photo_to_crop)) ** 0.5)
  assert rim > 1

  def at_rim(end):
    return (end - rim < points[:, 1]) & (points[:, 1] < end)

  end = max(range(len(picture)), key=lambda row: np.count_nonzero(at_rim(row)))
  covered = picture.copy()
  covered[end - rim :] = (20, 220, 30)
  mask = np.zeros(picture.shape[:2], bool)
  mask[:end] = True
  colors = np.asarray(color_hand(view_hand(covered, hand), points, model, mask))
  assert np.count_nonzero(at_rim(end)) > 5
  # A vertex just inside is mixed with the next pixel a little. Without a rim the largest is 0.79.
  assert (colors[:, 1] - colors[:, 0]).max() < 0.3
