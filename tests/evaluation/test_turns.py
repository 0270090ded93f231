"""Test-time augmentation on networks whose answer to a turned crop is known."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_jax.evaluation import turns
from hand_jax.evaluation.evaluate import camera_rotations
from hand_jax.types import DiagonalGaussian, HandBatch, HandEstimate, HandGaussians

SIDE = 64
# Three bright spots well inside the crop, pixels from its middle: where turned, so is the crop.
SPOTS = np.array([[12.0, -5.0], [-9.0, -14.0], [3.0, 17.0]])
VARIANCE = 0.04


def batch_of(image):
  """As much of a HandBatch as a network looks at."""
  return HandBatch(**dict.fromkeys(HandBatch._fields) | {'image': image[None]})


def spots_image():
  image = np.zeros((SIDE, SIDE, 3), np.uint8)
  for channel, (x, y) in enumerate(SPOTS + SIDE / 2):
    columns, rows = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    image[..., channel] = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2.5**2))
  return image


def spot_places(image):
  """The spots' centres of mass in crop coordinates: image moments, one colour channel each."""
  places = []
  for channel in range(3):
    moments = cv2.moments(image[..., channel].astype(np.float32))
    places.append([moments['m10'] / moments['m00'] + 0.5, moments['m01'] / moments['m00'] + 0.5])
  return 2 * np.array(places) / SIDE - 1


def gaussian(mean, variance=VARIANCE):
  mean = np.asarray(mean, np.float32)
  return DiagonalGaussian(mean, np.full(mean.shape, np.log(variance), np.float32))


def make_estimate(joints_2d, rotation, place, vertices, branches=('prior', 'posterior')):
  """One hand's estimate; `rotation` is R of `points_root = points_hand @ R`."""
  camera = np.concatenate([rotation[:, 0], rotation[:, 1], place, [0.6, 1.2]])[None]
  hand = HandGaussians(
    gaussian(vertices[None]), gaussian(vertices[None, :4]), gaussian(joints_2d[None])
  )
  found = {name: hand if name in branches else None for name in ('prior', 'posterior')}
  return HandEstimate(parameters='unused', camera=gaussian(camera), **found)


ROTATION = Rotation.from_euler('xyz', [0.4, -0.7, 1.1]).as_matrix()
VERTICES = np.random.default_rng(3).normal(size=(9, 3)) * 0.05
PLACE = np.array([0.3, -0.2])


def perfect_network(batch):
  """Sees the turn of the crop and follows it in every output that depends on it."""
  (image,) = batch.image
  places = spot_places(image)
  first, second = spot_places(spots_image())[0], places[0]
  angle = np.arctan2(second[1], second[0]) - np.arctan2(first[1], first[0])
  about_view = Rotation.from_euler('z', angle).as_matrix()  # of column vectors, x towards y
  return make_estimate(places, ROTATION @ about_view.T, about_view[:2, :2] @ PLACE, VERTICES)


def test_a_network_that_follows_every_turn_is_not_changed():
  batch = batch_of(spots_image())
  plain, averaged = perfect_network(batch), turns.averaged_over_turns(perfect_network, 5)(batch)
  assert averaged.parameters is None
  for name in ('prior', 'posterior'):
    # Without what goes beyond diagonal Gaussians, which this network has not.
    branches = (getattr(estimate, name)[:3] for estimate in (plain, averaged))
    for expected, found in zip(*branches, strict=True):
      np.testing.assert_allclose(found.mean, expected.mean, atol=2e-3)
      # Equal variances along both axes stay what they are, however turned.
      np.testing.assert_allclose(np.exp(found.log_variance), VARIANCE, rtol=1e-3)
  np.testing.assert_allclose(averaged.camera.mean, plain.camera.mean, atol=5e-3)
  np.testing.assert_allclose(camera_rotations(averaged.camera.mean), ROTATION[None], atol=5e-3)


def test_a_network_that_sees_nothing_is_averaged_as_by_hand():
  """Always the same answer: turned back by each angle, its joints spread along an arc."""
  joints_2d, count = np.array([[0.5, 0.0], [0.1, -0.4]]), 4

  def blind_network(batch):
    return make_estimate(joints_2d, ROTATION, PLACE, VERTICES, branches=('posterior',))

  averaged = turns.averaged_over_turns(blind_network, count)(batch_of(spots_image()))
  assert averaged.prior is None
  widest = np.deg2rad(turns.WIDEST_TURN_DEGREES)
  angles = [-widest, -widest / 3, widest / 3, widest]
  # Turning back is by the opposite angle, so the mean lies on the way to the middle.
  turned_back = []
  for angle in angles:
    cosine, sine = np.cos(-angle), np.sin(-angle)
    turned_back.append([[x * cosine - y * sine, x * sine + y * cosine] for x, y in joints_2d])
  found = averaged.posterior.joints_normalized
  np.testing.assert_allclose(found.mean[0], np.mean(turned_back, axis=0), atol=1e-6)
  expected = VARIANCE + np.var(turned_back, axis=0)
  np.testing.assert_allclose(np.exp(found.log_variance[0]), expected, rtol=1e-5)
  # The hand in its own frame is not turned at all.
  np.testing.assert_allclose(averaged.posterior.vertices.mean[0], VERTICES, atol=1e-7)
  np.testing.assert_allclose(np.exp(averaged.posterior.vertices.log_variance), VARIANCE, rtol=1e-5)
  # Symmetric count about the viewing axis leave the orientation where it was.
  np.testing.assert_allclose(camera_rotations(averaged.camera.mean), ROTATION[None], atol=1e-6)


def test_unequal_variances_turn_with_their_axes():
  """A quarter turn would exchange them; a turn by a mixes them by cos^2 and sin^2 of it."""

  def network(batch):
    estimate = make_estimate(SPOTS / 40, ROTATION, PLACE, VERTICES)
    unequal = np.log(np.broadcast_to([0.01, 0.09], (1, 3, 2))).astype(np.float32)
    joints = estimate.posterior.joints_normalized._replace(log_variance=unequal)
    joints = joints._replace(mean=np.zeros((1, 3, 2), np.float32))
    return estimate._replace(posterior=estimate.posterior._replace(joints_normalized=joints))

  averaged = turns.averaged_over_turns(network, 2)(batch_of(spots_image()))
  share = np.cos(np.deg2rad(turns.WIDEST_TURN_DEGREES)) ** 2
  expected = [share * 0.01 + (1 - share) * 0.09, share * 0.09 + (1 - share) * 0.01]
  found = np.exp(averaged.posterior.joints_normalized.log_variance)
  np.testing.assert_allclose(found, np.broadcast_to(expected, (1, 3, 2)), rtol=1e-5)


def test_one_turn_is_the_estimate_itself():
  assert turns.averaged_over_turns(perfect_network, 1) is perfect_network
  assert turns.augmentation_name(1) == 'none'
  assert turns.augmentation_name(5) == 'mean over 5 turns of the crop within 20 degrees'
  with pytest.raises(ValueError, match=r'turns should be 1 .* or more, got 0'):
    turns.averaged_over_turns(perfect_network, 0)
