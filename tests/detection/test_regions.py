"""Regions of interest: where they lie, what they show, and the way back into the photo."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hand_jax.detection.regions import (
  HandRegion,
  crop_region,
  photo_to_crop,
  points_in_photo,
  region_from_landmarks,
  region_from_palm,
  turn_with_region,
)

REGIONS = [
  HandRegion((150.0, 120.0), 160.0, 0.0),
  HandRegion((150.0, 120.0), 200.0, 0.7),
  HandRegion((140.0, 130.0), 700.0, -2.5),
]
angles = st.floats(-3.1, 3.1)


def naive_turn(points, angle):
  """Turns x right, y down clockwise as seen, by complex numbers."""
  z = (points[:, 0] + 1j * points[:, 1]) * np.exp(1j * angle)
  return np.stack([z.real, z.imag], 1)


def open_hand():
  """Wrist at the origin, fingers up (y down), middle finger straight up."""
  points = [[0, 0], [30, -15], [50, -35], [65, -55], [75, -70]]
  for base in (20, 0, -18, -34):
    points += [[base, -80], [base, -110], [base, -130], [base, -150]]
  return np.array(points, np.float64)


@pytest.mark.parametrize('region', REGIONS)
def test_a_dot_stays_under_its_joint(region):
  joint = np.array([170.5, 100.5])
  image = np.zeros((240, 300, 3), np.uint8)
  rows, columns = np.mgrid[:240, :300] + 0.5
  dot = np.exp(-((columns - joint[0]) ** 2 + (rows - joint[1]) ** 2) / (2 * 6.0**2))
  image[:] = np.round(255 * dot)[..., None]
  crop = crop_region(image, region, 224)[..., 0].astype(float)
  rows, columns = np.mgrid[:224, :224] + 0.5
  centroid = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
  back = points_in_photo(centroid[None], region, 224)[0]
  np.testing.assert_allclose(back, joint, atol=0.15)


@pytest.mark.parametrize('region', REGIONS)
def test_crop_and_photo_are_inverse(region):
  points = np.random.default_rng(0).uniform(0, 224, (9, 2))
  photo = points_in_photo(points, region, 224)
  affine = photo_to_crop(region, 224)
  np.testing.assert_allclose(photo @ affine[:2, :2].T + affine[:2, 2], points, atol=1e-9)
  np.testing.assert_allclose(
    points_in_photo(np.array([[112.0, 112.0]]), region, 224), [region.centre]
  )


def test_the_crop_shows_the_hand_fingers_up():
  hand = naive_turn(open_hand(), 1.2) + [400, 300]
  region = region_from_landmarks(hand)
  affine = photo_to_crop(region, 224)
  crop = hand @ affine[:2, :2].T + affine[:2, 2]
  middle = crop[9] - crop[0]
  assert middle[1] < 0 and abs(middle[0]) < 0.1 * abs(middle[1])
  assert (crop > 0).all() and (crop < 224).all()


@hypothesis.given(angles)
def test_regions_turn_with_the_hand(angle):
  upright, turned = (region_from_landmarks(naive_turn(open_hand(), a)) for a in (0.0, angle))
  assert turned.side == pytest.approx(upright.side)
  difference = turned.angle - upright.angle - angle
  assert abs((difference + np.pi) % (2 * np.pi) - np.pi) < 1e-9
  expected = naive_turn(np.array([upright.centre]), angle)[0]
  np.testing.assert_allclose(turned.centre, expected, atol=1e-9)


def test_a_palms_region_reaches_over_the_fingers():
  points = np.zeros((7, 2))
  points[0], points[2] = [100, 120], [100, 60]  # Wrist below the base of the middle finger.
  region = region_from_palm(np.array([100.0, 90.0]), np.array([60.0, 60.0]), points)
  assert region.angle == 0
  assert region.side == pytest.approx(2.6 * 60)
  np.testing.assert_allclose(region.centre, [100, 90 - 0.5 * 60])


@hypothesis.given(angles)
def test_world_points_turn_with_their_region(angle):
  points = np.random.default_rng(1).normal(size=(21, 3))
  turned = turn_with_region(points, HandRegion((0.0, 0.0), 1.0, angle))
  np.testing.assert_allclose(turned[:, :2], naive_turn(points[:, :2], angle), atol=1e-12)
  np.testing.assert_array_equal(turned[:, 2], points[:, 2])
