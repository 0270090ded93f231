"""Whole photos to meshes without a run: sides, boxes, several hands, and where the mesh lies."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hand_jax.reconstruction.photo_hands import (
  HandProgram,
  PhotoRequest,
  load_program,
  reconstruct_hands,
)
from hand_jax.reconstruction.reconstruct import Reconstructor
from PIL import Image

from hand_jax.config import ExperimentConfig
from hand_jax.data.photos import demo_photo_boxes, read_photo
from hand_jax.detection.regions import region_from_landmarks
from hand_jax.fitting.evidence import PointErrors
from hand_jax.fitting.heads_evidence import estimate_joints
from hand_jax.fitting.sigma_calibration import no_calibration
from hand_jax.mano.model import extended_joint_regressor, mano_forward
from hand_jax.reconstruction import photo_hands
from hand_jax.reconstruction.running import reconstruct_photos
from hand_jax.reconstruction.tasks import PhotoOptions
from hand_jax.types import HandParameters
from tests.found_hands import found_hand

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('small_pictures')]

BUNDLED = sorted(demo_photo_boxes().items())


@pytest.fixture(scope='module')
def program():
  return load_program()


@pytest.fixture(scope='module', params=BUNDLED, ids=[path.stem for path, _ in BUNDLED])
def bundled(request, program):
  path, (box, _) = request.param
  image = read_photo(path)
  return image, box, reconstruct_hands(program, PhotoRequest(image))


def test_bundled_photos_have_one_left_hand_whose_mesh_lies_on_the_landmarks(bundled):
  _, box, (hand,) = bundled
  assert hand.is_left and hand.branch == 'fit' and hand.vertex_colors is None
  landmarks = hand.detection.landmarks_image
  size = max(box[2:])
  errors = np.linalg.norm(hand.joints_image - landmarks, axis=1)
  assert errors.mean() < 0.06 * size
  assert errors[[8, 12, 16, 20]].max() < 0.1 * size  # the tips of the fingers


def test_joints_and_their_pixels_are_those_of_the_mesh(bundled, program):
  _, _, (hand,) = bundled
  regressor = np.asarray(extended_joint_regressor(program.model))
  np.testing.assert_allclose(regressor @ hand.vertices, hand.joints, atol=2e-6)
  np.testing.assert_allclose(hand.joints[0], 0, atol=1e-6)
  # A joint's pixel is the mean of its vertices' but for perspective inside a finger.
  pixels = regressor @ hand.vertices_image
  assert np.abs(pixels - hand.joints_image).max() < 1.5
  assert hand.vertex_visible.sum() > 200
  spread = np.sqrt((hand.joint_sigma_xyz_mm**2).mean(axis=1))
  np.testing.assert_allclose(spread, hand.joint_sigma_mm, rtol=1e-4)
  assert hand.joint_sigma_mm[0] < 0.01 < hand.joint_sigma_mm[8]  # relative to the wrist


def test_parameters_are_those_of_the_mirrored_right_hand(bundled, program):
  _, _, (hand,) = bundled
  parameters = HandParameters(*map(jnp.asarray, hand.parameters))
  mesh = mano_forward(program.model, parameters)
  vertices = np.asarray(mesh.vertices) * [-1, 1, 1]
  offset = vertices - hand.vertices
  np.testing.assert_allclose(offset, np.broadcast_to(offset[:1], offset.shape), atol=2e-5)
  faces = np.asarray(program.model.faces)
  np.testing.assert_array_equal(hand.faces, faces[:, ::-1])


def test_sigma_is_calibrated_by_part_and_hand(program, photo, monkeypatch):
  """Factors scale it, and weights follow what the heads say of the hand; the mesh is the same."""
  found = found_hand(photo, program.model)
  monkeypatch.setattr(photo_hands, 'detect_hands', lambda image, _: [found])
  vertices = len(program.model.v_template)
  blank = no_calibration(vertices)

  def hand_by(calibration):
    release = program.release._replace(calibration=calibration)
    return reconstruct_hands(program._replace(release=release), PhotoRequest(photo))[0]

  raw = hand_by(blank)
  factors = np.linspace(1, 3, vertices, dtype=np.float32)
  scaled = hand_by(blank._replace(vertex_factor=factors, joint_factor=np.full(21, np.float32(2))))
  np.testing.assert_array_equal(scaled.vertices, raw.vertices)
  np.testing.assert_allclose(scaled.vertex_sigma_mm, factors * raw.vertex_sigma_mm, rtol=1e-4)
  np.testing.assert_allclose(scaled.joint_sigma_xyz_mm, 2 * raw.joint_sigma_xyz_mm, rtol=1e-4)
  log_scale = float(estimate_joints(program.release, [found]).log_scale[0])
  mean = raw.joint_sigma_mm.mean()
  weighted = hand_by(blank._replace(scale_weight=np.float32(3), fit_weight=np.float32(-0.5)))
  expected = np.exp(3 * log_scale) / np.sqrt(mean) * raw.vertex_sigma_mm
  assert abs(log_scale) > 0.01
  np.testing.assert_allclose(weighted.vertex_sigma_mm, expected, rtol=1e-3)


def test_what_is_hard_for_the_heads_is_less_sure(program, photo, monkeypatch):
  found = found_hand(photo, program.model)
  monkeypatch.setattr(photo_hands, 'detect_hands', lambda image, _: [found])
  blank = program.release._replace(calibration=no_calibration(len(program.model.v_template)))
  sigma = []
  for bias in (-0.7, 0.7):
    heads = {**blank.heads, 'scale': {**blank.heads['scale'], 'bias': np.full(1, np.float32(bias))}}
    changed = program._replace(release=blank._replace(heads=heads))
    sigma.append(reconstruct_hands(changed, PhotoRequest(photo))[0].vertex_sigma_mm.mean())
  assert sigma[1] > 1.1 * sigma[0]


@pytest.mark.parametrize('matrix', [np.zeros((3, 3)), np.full((3, 3), np.nan)])
def test_senseless_intrinsics_are_refused(program, photo, matrix):
  with pytest.raises(ValueError, match=r'intrinsics of a are .*focal lengths above zero'):
    reconstruct_hands(program, PhotoRequest(photo, 'a', intrinsics=matrix))


def test_a_mirrored_hand_has_the_mirrored_mesh(program, photo, monkeypatch):
  hands = {}
  for side, image in (('right', photo), ('left', np.ascontiguousarray(photo[:, ::-1]))):
    monkeypatch.setattr(
      photo_hands,
      'detect_hands',
      lambda image, _, side=side: [found_hand(image, program.model, side)],
    )
    (hands[side],) = reconstruct_hands(program, PhotoRequest(image))
  right, left = hands['right'], hands['left']
  assert left.is_left and not right.is_left
  np.testing.assert_allclose(left.vertices * [-1, 1, 1], right.vertices, atol=1e-5)
  width = photo.shape[1]
  np.testing.assert_allclose(
    left.vertices_image * [-1, 1] + [width, 0], right.vertices_image, atol=0.01
  )
  np.testing.assert_allclose(left.joint_sigma_xyz_mm, right.joint_sigma_xyz_mm, rtol=1e-3)
  for name, value in right.parameters._asdict().items():
    np.testing.assert_allclose(getattr(left.parameters, name), value, atol=1e-4, err_msg=name)


def test_landmarks_of_the_model_give_back_its_own_hand(program, photo, monkeypatch):
  """What found_hand shows is the flat hand itself, in weak perspective."""
  model = program.model
  monkeypatch.setattr(photo_hands, 'detect_hands', lambda image, _: [found_hand(image, model)])
  sure = program.release._replace(errors=PointErrors(0.3, 0.3, np.inf))  # the heads are not asked
  (hand,) = reconstruct_hands(program._replace(release=sure), PhotoRequest(photo))
  template = np.asarray(extended_joint_regressor(model) @ model.v_template, np.float64)
  target = (template - template[:1])[:, [2, 0, 1]]
  scale = np.linalg.norm(target) / np.linalg.norm(hand.joints)
  assert np.linalg.norm(scale * hand.joints - target, axis=1).mean() < 0.0045


@pytest.mark.parametrize('side', ['right', 'left'])
def test_a_given_side_and_box_are_taken(side, program):
  path, (box, _) = BUNDLED[-1]
  request = PhotoRequest(read_photo(path), box_xywh=box, side=side)
  (hand,) = reconstruct_hands(program, request)
  assert hand.is_left == (side == 'left') and hand.detection.side_score == 1
  low, size = hand.box_xywh[:2], hand.box_xywh[2:]
  assert ((low > box[:2] - 40) & (low + size < box[:2] + box[2:] + 40)).all()


def test_a_box_beside_the_photo_is_refused(program, photo):
  with pytest.raises(ValueError, match=r'my photo.*'):
    reconstruct_hands(program, PhotoRequest(photo, 'my photo', np.array([500.0, 0, 10, 10])))


def test_a_box_without_a_hand_gives_none(program):
  """A corner of the wall, and an empty picture."""
  image = read_photo(BUNDLED[-1][0])
  assert (
    reconstruct_hands(program, PhotoRequest(image, box_xywh=np.array([1.0, 1.0, 40.0, 40.0]))) == []
  )
  plain = np.full_like(image, 90)
  assert (
    reconstruct_hands(program, PhotoRequest(plain, box_xywh=np.array([50.0, 50, 300, 300]))) == []
  )


def test_what_is_no_request_is_told(program, photo):
  with pytest.raises(ValueError, match="side is 'up', expected 'right', 'left' or None"):
    reconstruct_hands(program, PhotoRequest(photo, side='up'))
  with pytest.raises(ValueError, match=r'expected \(height, width, 3\) and uint8'):
    reconstruct_hands(program, PhotoRequest(photo.astype(np.int32).astype(np.uint8)[..., :2]))


def test_numbered_names_that_another_photo_has_are_not_written_again(tmp_path):
  left = read_photo(BUNDLED[-1][0])
  Image.fromarray(np.concatenate([left, left[:, ::-1]], axis=1)).save(tmp_path / 'a.png')
  photos = [str(tmp_path / 'a.png')]
  for side in ('left', 'right'):
    Image.fromarray(left).save(tmp_path / f'a_1_{side}.png')
    photos.append(str(tmp_path / f'a_1_{side}.png'))
  outcomes = list(reconstruct_photos(PhotoOptions(photos, str(tmp_path / 'out'))))
  assert [outcome.failed for outcome in outcomes].count(True) == 1
  (refused,) = [outcome.line for outcome in outcomes if outcome.failed]
  assert 'a.png has a hand that was written as a_1_' in refused


def test_several_hands_are_numbered_and_tell_their_side(tmp_path):
  left = read_photo(BUNDLED[-1][0])
  both = np.concatenate([left, left[:, ::-1]], axis=1)
  Image.fromarray(both).save(tmp_path / 'both.png')
  options = PhotoOptions([str(tmp_path / 'both.png')], str(tmp_path / 'out'))
  outcomes = list(reconstruct_photos(options))
  assert len(outcomes) == 2 and all(outcome.is_written for outcome in outcomes)
  names = sorted(path.name for path in (tmp_path / 'out').glob('*.json'))
  sides = [name.removesuffix('.json').rpartition('_')[2] for name in names]
  assert sorted(sides) == ['left', 'right'] and names[0].startswith('both_1_')
  for name, side in zip(names, sides, strict=True):
    numbers = json.loads((tmp_path / 'out' / name).read_text())
    assert numbers['hand'] == side and numbers['branch'] == 'fit'
    assert (
      'errors on rendered hands' in numbers['units']['sigma']
      and 'estimate' not in numbers['camera']
    )
    assert 0.5 <= numbers['detection']['side_score'] <= 1
    x, _, width, _ = numbers['box_xywh']
    assert (x + width / 2 < left.shape[1]) == (side == 'left')


def test_a_run_sees_the_box_of_the_whole_hand(program, photo, monkeypatch):
  """Enlarged from the landmarks' box as data sets have it, with the side that was found."""
  found = found_hand(photo, program.model, 'left')
  monkeypatch.setattr(photo_hands, 'detect_hands', lambda image, _: [found])
  (fitted,) = reconstruct_hands(program, PhotoRequest(photo))
  seen = []

  def watched(*arguments):
    seen.append(arguments)
    return fitted

  monkeypatch.setattr(photo_hands, 'reconstruct_hand', watched)
  run = Reconstructor(ExperimentConfig(), program.model, watched, 'runs/a')
  (hand,) = reconstruct_hands(HandProgram(program.model, run), PhotoRequest(photo, 'a'))
  assert hand.vertices is fitted.vertices and hand.detection is found
  _, _, box, side, name, mask = seen[0]
  assert (side, name, mask) == ('left', 'a', None)
  assert max(box[2:]) == pytest.approx(1.19 * max(found.box_xywh[2:]), rel=0.01)


def test_the_square_of_found_hands_is_about_them(program, photo):
  """The helper's own landmarks make sense to the detector's geometry."""
  region = region_from_landmarks(found_hand(photo, program.model).landmarks_image)
  assert abs(region.angle) < 0.3
