"""The weights in the box, and what the heads say of hands in photos."""

import importlib.resources
import json

import jax
import numpy as np
import pytest

from hand_jax.detection.regions import HandRegion
from hand_jax.fitting.heads_evidence import crop_reading, estimate_joints
from hand_jax.fitting.released_weights import load_release, read_release, write_release
from hand_jax.mano.assets import hand_model_name, load_mano_model
from tests.found_hands import found_hand


@pytest.fixture(scope='module')
def release():
  return load_release()


@pytest.fixture(scope='module')
def hand(photo, model):
  rng = np.random.default_rng(0)
  return found_hand(photo, model)._replace(
    vector=np.abs(rng.normal(size=1152)).astype(np.float32) * 0.3,
    roi=HandRegion((60.0, 45.0), 120.0, 0.3),
  )


def mirrored(hand, width):
  """The same hand in the mirrored photo."""
  return hand._replace(
    side='left',
    landmarks_image=hand.landmarks_image * [-1, 1] + [width, 0],
    landmarks_world=hand.landmarks_world * [-1, 1, 1],
    roi=HandRegion(
      (width - hand.roi.centre[0], hand.roi.centre[1]), hand.roi.side, -hand.roi.angle
    ),
  )


def test_the_bundled_weights_are_whole_and_of_this_hand(release):
  assert release.card['hand_model'] == hand_model_name(load_mano_model())
  leaves = jax.tree.leaves((release.heads, *release.errors, *release.prior, *release.calibration))
  assert all(np.isfinite(leaf).all() for leaf in leaves)
  assert all(np.shape(error) == (21,) for error in release.errors)
  covariance = release.prior.pose_factor @ release.prior.pose_factor.T
  assert np.linalg.eigvalsh(covariance).min() > 0
  assert release.calibration.vertex_factor.shape == (778,)
  assert release.card['renders']['test']['pa_mpjpe_mm'] < 9.5


def test_the_card_beside_the_weights_is_theirs(release):
  beside = importlib.resources.files('hand_jax') / 'assets' / 'release_card.json'
  assert json.loads(beside.read_text()) == release.card
  assert 'dark skin' in ' '.join(release.card['limits'])


def test_weights_survive_their_file(release, tmp_path):
  write_release(tmp_path / 'a.npz', release)
  again = read_release(tmp_path / 'a.npz')
  assert again.card == release.card
  for one, other in zip(jax.tree.leaves(release[:-1]), jax.tree.leaves(again[:-1]), strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_reading_of_the_mirrored_photo_is_the_same_reading(hand):
  for one, other in zip(crop_reading(hand), crop_reading(mirrored(hand, 120)), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_the_heads_see_a_left_hand_as_the_mirrored_right_one(release, hand):
  right, left = estimate_joints(release, [hand, mirrored(hand, 120)])[0]
  np.testing.assert_allclose(left, right * [-1, 1, 1], atol=1e-6)


def test_in_a_turned_photo_the_heads_joints_are_turned(release, hand):
  """Clockwise by 90 degrees: x right, y down becomes x down, y left."""
  quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
  turned = hand._replace(
    landmarks_image=hand.landmarks_image @ quarter[:2, :2].T + [90, 0],
    landmarks_world=hand.landmarks_world @ quarter.T,
    roi=HandRegion((90 - hand.roi.centre[1], hand.roi.centre[0]), 120.0, 0.3 + np.pi / 2),
  )
  upright, after = estimate_joints(release, [hand, turned])[0]
  np.testing.assert_allclose(after, upright @ quarter.T, atol=1e-6)
  np.testing.assert_allclose(upright.mean(axis=0), 0, atol=1e-6)


def test_many_hands_are_what_single_hands_are(release, hand):
  hands = [hand._replace(vector=hand.vector * k) for k in range(10)]
  together = estimate_joints(release, hands)
  assert together.joints.shape == (10, 21, 3) and together.log_scale.shape == (10,)
  (alone,) = estimate_joints(release, hands[9:]).joints
  np.testing.assert_allclose(together.joints[9], alone, atol=1e-6)
