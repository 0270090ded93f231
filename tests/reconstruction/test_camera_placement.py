"""Focal lengths from what a photo tells, and the hand's place in camera space."""

import numpy as np
import pytest
from PIL import Image

from hand_jax.data.exif import read_focal_35mm
from hand_jax.reconstruction.camera_placement import (
  PhotoCamera,
  camera_from_intrinsics,
  photo_camera,
  place_in_camera,
)


def test_a_given_focal_length_goes_before_exif_and_exif_before_the_assumption():
  size = (4000, 3000)  # a diagonal of 5000 pixels
  assert photo_camera(size, 1234.0, 26.0).focal_length_px == 1234
  assert photo_camera(size, None, 43.27).focal_length_px == pytest.approx(5000)
  assumed = photo_camera(size)
  assert np.degrees(2 * np.arctan(2500 / assumed.focal_length_px)) == pytest.approx(70)
  assert [
    photo_camera(size, *known).source for known in ((2000.0, 26.0), (None, 26.0), (None, None))
  ] == [
    'given',
    'exif',
    'assumed',
  ]
  assert assumed.principal_point == (2000, 1500)
  assert assumed.intrinsics is None
  np.testing.assert_array_equal(
    photo_camera(size, 2900.0).intrinsics, [[2900, 0, 2000], [0, 2900, 1500], [0, 0, 1]]
  )
  assert '70 degrees' in assumed.source_text


@pytest.mark.parametrize('impossible', [0.0, 1.0, 65535.0, -5.0])
def test_exif_that_no_lens_has_is_passed_over(impossible):
  assert photo_camera((400, 300), None, impossible).source == 'assumed'


def test_depth_is_as_uncertain_as_the_hand_s_size_and_an_assumed_focal_length():
  assert photo_camera((400, 300), 500.0).relative_depth_sigma == pytest.approx(0.10)
  assert photo_camera((400, 300), None, 30.0).relative_depth_sigma == pytest.approx(0.10)
  expected = (0.10**2 + 0.25**2) ** 0.5
  assert photo_camera((400, 300)).relative_depth_sigma == pytest.approx(expected)


def test_intrinsics_give_the_geometric_mean():
  camera = camera_from_intrinsics(np.array([[400.0, 0, 7], [0, 900, 8], [0, 0, 1]]))
  assert camera == PhotoCamera(600.0, (7.0, 8.0), 'given')


def test_a_hand_is_placed_where_it_was_seen(rng_joints):
  """Joints projected by a pinhole, which is written out here, are put back exactly."""
  camera, place = PhotoCamera(700.0, (310.0, 250.0)), np.array([0.05, -0.08, 0.45])
  points = rng_joints + place
  pixels = np.stack(
    [310 + 700 * points[:, 0] / points[:, 2], 250 + 700 * points[:, 1] / points[:, 2]], axis=1
  )
  np.testing.assert_allclose(place_in_camera(rng_joints, pixels, camera, 1.0), place, atol=1e-9)
  longer = camera._replace(focal_length_px=1400.0)
  assert place_in_camera(rng_joints, pixels, longer, 1.0)[2] == pytest.approx(0.9, rel=0.1)


def test_what_no_pinhole_explains_is_placed_by_its_scale(rng_joints):
  """Mirrored pixels would put the hand behind the camera."""
  camera = PhotoCamera(700.0, (310.0, 250.0))
  pixels = 300 - 1500 * rng_joints[:, :2]
  place = place_in_camera(rng_joints, pixels, camera, 1500.0)
  assert place[2] == pytest.approx(700 / 1500)
  np.testing.assert_allclose(place[:2] * 1500, pixels[0] - [310, 250])


@pytest.fixture
def rng_joints():
  joints = 0.05 * np.random.default_rng(0).normal(size=(21, 3))
  return joints - joints[:1]


def save_with_focal(path, value):
  exif = Image.Exif()
  if value is not None:
    exif.get_ifd(0x8769)[0xA405] = value
  Image.new('RGB', (40, 30)).save(path, exif=exif.tobytes())
  return path


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp'])
def test_exif_is_read_from_files_and_images(tmp_path, name):
  path = save_with_focal(tmp_path / name, 26)
  assert read_focal_35mm(path) == 26
  with Image.open(path) as image:
    assert read_focal_35mm(image) == 26


def test_missing_unknown_and_damaged_exif_are_none(tmp_path):
  assert read_focal_35mm(save_with_focal(tmp_path / 'a.jpg', None)) is None
  assert read_focal_35mm(save_with_focal(tmp_path / 'b.jpg', 0)) is None
  (tmp_path / 'c.jpg').write_bytes(b'no picture')
  assert read_focal_35mm(tmp_path / 'c.jpg') is None
  whole = bytearray((tmp_path / 'b.jpg').read_bytes())
  start = whole.index(b'Exif') + 8
  whole[start : start + 12] = b'\xff' * 12
  (tmp_path / 'd.jpg').write_bytes(whole)
  assert read_focal_35mm(tmp_path / 'd.jpg') is None


@pytest.mark.parametrize('focal', [35.0, 999.0, 1e6])
def test_a_focal_length_that_no_lens_has_is_refused(focal):
  """Above all one in millimetres, of which the message says how many pixels it is."""
  with pytest.raises(ValueError, match=r'4000 x 3000: expected 1000 to 100000\.') as error:
    photo_camera((4000, 3000), focal)
  hint = 'If 35 is a 35 mm equivalent in mm, write focal_length_px=4044.'
  assert str(error.value).endswith(hint) == (focal == 35)  # 999 mm is 115,000 pixels
