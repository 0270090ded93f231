"""What hand_evidence makes of points that are not finite."""

import numpy as np
import pytest

from hand_jax.fitting.evidence import PointErrors, hand_evidence

ERRORS = PointErrors(image=4.0, world=8.0, heads=6.0)
SIGMAS = {
  'points_image': 'image_sigma',
  'points_world': 'world_sigma',
  'points_heads': 'heads_sigma',
}


def points_of_two_hands():
  """Pixels at 2000 per metre, and both kinds of 3D points."""
  world = np.random.default_rng(0).normal(scale=0.03, size=(2, 21, 3)).astype(np.float32)
  return {
    'points_image': 2000 * world[..., :2] + 300,
    'points_world': world,
    'points_heads': world.copy(),
  }


def evidence_of(points):
  return hand_evidence(photo_size=(640, 480), errors=ERRORS, **points)


@pytest.mark.parametrize('kind', SIGMAS)
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_point_that_is_not_finite_is_unknown_and_no_other(kind, value):
  points = points_of_two_hands()
  points[kind][1, 8, 0] = value
  evidence = evidence_of(points)
  for name, sigma in SIGMAS.items():
    unknown = np.zeros((2, 21), bool)
    unknown[1, 8] = name == kind
    np.testing.assert_array_equal(np.isinf(getattr(evidence, sigma)), unknown, err_msg=name)
    assert not np.isnan(getattr(evidence, sigma)).any()


def test_the_hand_s_size_in_pixels_comes_from_the_points_that_both_know():
  """4 mm at 2000 pixels per metre are 8 pixels, whichever joints are missing."""
  points = points_of_two_hands()
  np.testing.assert_allclose(evidence_of(points).image_sigma, 8.0, rtol=1e-5)
  points['points_image'][0, :5] = np.nan
  points['points_world'][0, 9:12] = np.nan
  sigma = evidence_of(points).image_sigma
  np.testing.assert_allclose(sigma[np.isfinite(sigma)], 8.0, rtol=1e-5)


def test_points_of_which_none_is_known():
  points = points_of_two_hands()
  points['points_image'][0] = np.nan
  evidence = evidence_of(points)
  assert np.isinf(evidence.image_sigma[0]).all() and np.isfinite(evidence.image_sigma[1]).all()
  assert np.isfinite(evidence.world_sigma).all()
