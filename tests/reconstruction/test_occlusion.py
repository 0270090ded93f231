"""Which vertices an object hides, by a mask of the hand."""

import numpy as np

from hand_jax.geometry.cameras import crop_affine
from hand_jax.reconstruction.occlusion import near_hand_mask

BOX = np.array([100.0, 50.0, 200.0, 200.0])


def test_vertices_count_in_the_mask_and_a_little_beside_it():
  mask = np.zeros((300, 400), bool)
  mask[60:240, 110:200] = True
  affine = crop_affine(BOX, 224, 1.25)
  points = np.array([[150.0, 150], [201.0, 150], [203.0, 150], [207.0, 150], [250.0, 150]])
  seen = near_hand_mask(mask, affine, 224, points)
  # Four pixels of the crop are 4.5 of the photo.
  np.testing.assert_array_equal(seen, [True, True, True, False, False])


def test_without_a_mask_all_count():
  points = np.array([[150.0, 150], [-5.0, 10]])
  assert near_hand_mask(None, crop_affine(BOX, 224, 1.25), 224, points).all()


def test_what_lies_outside_the_crop_is_not_seen():
  mask = np.ones((300, 400), bool)
  points = np.array([[150.0, 150], [399.0, 150]])
  seen = near_hand_mask(mask, crop_affine(BOX, 224, 1.25), 224, points)
  np.testing.assert_array_equal(seen, [True, False])


def test_a_mirrored_crop_has_the_same_vertices():
  rng = np.random.default_rng(0)
  mask = rng.uniform(size=(10, 14)).repeat(30, 0).repeat(30, 1)[:300, :400] < 0.4
  affine, mirror = crop_affine(BOX, 224, 1.25), np.diag([-1.0, 1.0, 1.0])
  mirror[0, 2] = 224
  points = rng.uniform([100, 50], [300, 250], (200, 2))
  seen = near_hand_mask(mask, affine, 224, points)
  mirrored = near_hand_mask(mask, mirror @ affine, 224, points)
  assert 20 < seen.sum() < 180 and (seen == mirrored).mean() > 0.98
