"""Whole photos to meshes without a run: sides, boxes, several hands, and where the mesh lies."""

import copy
import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hand_jax.config import ExperimentConfig
from hand_jax.data.photos import demo_photo_boxes, read_photo
from hand_jax.detection.detect import detect_hands
from hand_jax.detection.regions import region_from_landmarks
from hand_jax.fitting import detected
from hand_jax.fitting.evidence import PointErrors
from hand_jax.fitting.heads_evidence import estimate_joints
from hand_jax.fitting.sigma_calibration import no_calibration
from hand_jax.mano.mano_files import write_converted_mano
from hand_jax.mano.model import extended_joint_regressor, mano_forward
from hand_jax.reconstruction import hand_reconstructor
from hand_jax.reconstruction.camera_placement import PhotoCamera
from hand_jax.reconstruction.hand_reconstructor import (
  HandReconstructor,
  PhotoRequest,
  read_request,
)
from hand_jax.reconstruction.numbers import json_content
from hand_jax.reconstruction.running import prepare_run
from hand_jax.reconstruction.tasks import PhotoOptions
from hand_jax.reconstruction.trained_network import TrainedNetwork
from hand_jax.reconstruction.views import display_crop, display_vertices, hands_image
from hand_jax.types import HandParameters
from tests.found_hands import found_hand

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('small_pictures')]

BUNDLED = sorted(demo_photo_boxes().items())


@pytest.fixture(scope='module')
def reconstructor():
  return HandReconstructor()


def changed(reconstructor: HandReconstructor, **attributes) -> HandReconstructor:
  """A copy with other attributes."""
  other = copy.copy(reconstructor)
  vars(other).update(attributes)
  return other


@pytest.fixture(scope='module', params=BUNDLED, ids=[path.stem for path, _ in BUNDLED])
def bundled(request, reconstructor):
  path, (box, _) = request.param
  image = read_photo(path)
  return image, box, reconstructor(image)


def test_bundled_photos_have_one_left_hand_whose_mesh_lies_on_the_landmarks(bundled):
  _, box, (hand,) = bundled
  assert hand.is_left and hand.branch == 'fit'
  landmarks = hand.detection.landmarks_image
  size = max(box[2:])
  errors = np.linalg.norm(hand.joints_image - landmarks, axis=1)
  assert errors.mean() < 0.06 * size
  assert errors[[8, 12, 16, 20]].max() < 0.13 * size  # the tips of the fingers


def test_bundled_hands_have_the_colours_of_skin(bundled):
  """Those of visible vertices are near the photo's, and none is the wall's grey."""
  image, _, (hand,) = bundled
  colors = hand.vertex_colors
  assert colors.shape == hand.vertices.shape and colors.min() >= 0 and colors.max() <= 1
  column, row = hand.vertices_image[hand.vertex_visible].astype(int).T
  seen = image[row, column] / 255
  assert np.abs(colors[hand.vertex_visible] - seen).mean() < 0.08
  # Skin is redder than it is blue, on the side that the photo does not show too.
  assert (colors[:, 0] - colors[:, 2]).mean() > 0.05


def test_joints_and_their_pixels_are_those_of_the_mesh(bundled, reconstructor):
  _, _, (hand,) = bundled
  regressor = np.asarray(extended_joint_regressor(reconstructor.model))
  np.testing.assert_allclose(regressor @ hand.vertices, hand.joints, atol=2e-6)
  np.testing.assert_allclose(hand.joints[0], 0, atol=1e-6)
  # A joint's pixel is the mean of its vertices' but for perspective inside a finger.
  pixels = regressor @ hand.vertices_image
  assert np.abs(pixels - hand.joints_image).max() < 2.5
  assert hand.vertex_visible.sum() > 200
  spread = np.sqrt((hand.joint_sigma_xyz_mm**2).mean(axis=1))
  np.testing.assert_allclose(spread, hand.joint_sigma_mm, rtol=1e-4)
  assert hand.joint_sigma_mm[0] < 0.01 < hand.joint_sigma_mm[8]  # relative to the wrist


def test_parameters_are_those_of_the_mirrored_right_hand(bundled, reconstructor):
  _, _, (hand,) = bundled
  parameters = HandParameters(*map(jnp.asarray, hand.parameters))
  mesh = mano_forward(reconstructor.model, parameters)
  vertices = np.asarray(mesh.vertices) * [-1, 1, 1]
  offset = vertices - hand.vertices
  np.testing.assert_allclose(offset, np.broadcast_to(offset[:1], offset.shape), atol=2e-5)
  faces = np.asarray(reconstructor.model.faces)
  np.testing.assert_array_equal(hand.faces, faces[:, ::-1])


def test_sigma_is_calibrated_by_part_and_hand(reconstructor, photo, monkeypatch):
  """Factors scale it, and weights follow what the heads say of the hand; the mesh is the same."""
  found = found_hand(photo, reconstructor.model)
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda image, _: [found])
  vertices = len(reconstructor.model.v_template)
  blank = no_calibration(vertices)

  def hand_by(calibration):
    release = reconstructor.release._replace(calibration=calibration)
    return changed(reconstructor, release=release)(photo)[0]

  raw = hand_by(blank)
  factors = np.linspace(1, 3, vertices, dtype=np.float32)
  scaled = hand_by(blank._replace(vertex_factor=factors, joint_factor=np.full(21, np.float32(2))))
  np.testing.assert_array_equal(scaled.vertices, raw.vertices)
  np.testing.assert_allclose(scaled.vertex_sigma_mm, factors * raw.vertex_sigma_mm, rtol=1e-4)
  np.testing.assert_allclose(scaled.joint_sigma_xyz_mm, 2 * raw.joint_sigma_xyz_mm, rtol=1e-4)
  log_scale = float(estimate_joints(reconstructor.release, [found]).log_scale[0])
  mean = raw.joint_sigma_mm.mean()
  weighted = hand_by(blank._replace(scale_weight=np.float32(3), fit_weight=np.float32(-0.5)))
  expected = np.exp(3 * log_scale) / np.sqrt(mean) * raw.vertex_sigma_mm
  assert abs(log_scale) > 0.01
  np.testing.assert_allclose(weighted.vertex_sigma_mm, expected, rtol=1e-3)
  deeper = hand_by(blank._replace(depth_factor=np.float32(3), degrees_of_freedom=np.float32(4)))
  by_axis = raw.joint_sigma_xyz_mm * np.array([1, 1, 3], np.float32)
  np.testing.assert_allclose(deeper.joint_sigma_xyz_mm, by_axis, rtol=1e-4)
  np.testing.assert_allclose(
    deeper.joint_sigma_mm, np.sqrt(np.mean(by_axis**2, axis=1)), rtol=1e-4, atol=1e-6
  )
  assert (raw.sigma_degrees_of_freedom, deeper.sigma_degrees_of_freedom) == (None, 4)
  assert deeper.interval_in_sigmas(0.95) > raw.interval_in_sigmas(0.95)


def test_what_is_hard_for_the_heads_is_less_sure(reconstructor, photo, monkeypatch):
  found = found_hand(photo, reconstructor.model)
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda image, _: [found])
  blank = reconstructor.release._replace(
    calibration=no_calibration(len(reconstructor.model.v_template))
  )
  sigma = []
  for bias in (-0.7, 0.7):
    heads = {**blank.heads, 'scale': {**blank.heads['scale'], 'bias': np.full(1, np.float32(bias))}}
    by_bias = changed(reconstructor, release=blank._replace(heads=heads))
    sigma.append(by_bias(photo)[0].vertex_sigma_mm.mean())
  assert sigma[1] > 1.1 * sigma[0]


@pytest.mark.parametrize('focal', [0.0, -3.0, np.nan])
def test_senseless_cameras_are_refused(reconstructor, photo, focal):
  with pytest.raises(ValueError, match=r'The camera of a is .*focal length above zero'):
    reconstructor.reconstruct([PhotoRequest(photo, 'a', camera=PhotoCamera(focal, (9, 9)))])
  with pytest.raises(ValueError, match=r'The focal length is .*, expected pixels'):
    reconstructor(photo, focal_length_px=focal)


def test_a_mirrored_hand_has_the_mirrored_mesh(reconstructor, photo, monkeypatch):
  hands = {}
  for side, image in (('right', photo), ('left', np.ascontiguousarray(photo[:, ::-1]))):
    monkeypatch.setattr(
      hand_reconstructor,
      'detect_hands',
      lambda image, _, side=side: [found_hand(image, reconstructor.model, side)],
    )
    (hands[side],) = reconstructor(image)
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


def test_landmarks_of_the_model_give_back_its_own_hand(reconstructor, photo, monkeypatch):
  """What found_hand shows is the flat hand itself, in weak perspective."""
  model = reconstructor.model
  monkeypatch.setattr(
    hand_reconstructor, 'detect_hands', lambda image, _: [found_hand(image, model)]
  )
  sure = reconstructor.release._replace(
    errors=PointErrors(0.3, 0.3, np.inf)
  )  # the heads are not asked
  (hand,) = changed(reconstructor, release=sure)(photo)
  template = np.asarray(extended_joint_regressor(model) @ model.v_template, np.float64)
  target = (template - template[:1])[:, [2, 0, 1]]
  scale = np.linalg.norm(target) / np.linalg.norm(hand.joints)
  assert np.linalg.norm(scale * hand.joints - target, axis=1).mean() < 0.0045


@pytest.mark.parametrize('side', ['right', 'left'])
def test_a_given_side_and_box_are_taken(side, reconstructor):
  path, (box, _) = BUNDLED[-1]
  (hand,) = reconstructor(path, boxes=[box], sides=side)
  assert hand.is_left == (side == 'left') and hand.detection.side_score == 1
  low, size = hand.box_xywh[:2], hand.box_xywh[2:]
  assert ((low > box[:2] - 40) & (low + size < box[:2] + box[2:] + 40)).all()


def test_a_box_beside_the_photo_is_refused(reconstructor, photo):
  with pytest.raises(ValueError, match=r'Box 500,0,10,10 .*lies outside the image of 120 x 90'):
    reconstructor(photo, boxes=[[500, 0, 10, 10]])


def test_a_box_without_a_hand_gives_none(reconstructor):
  """A corner of the wall, and an empty picture."""
  image = read_photo(BUNDLED[-1][0])
  assert reconstructor(image, boxes=[[1, 1, 40, 40]]) == []
  assert reconstructor(np.full_like(image, 90), boxes=[[50, 50, 300, 300]]) == []


def test_which_box_a_hand_is_of(reconstructor, tmp_path):
  """In Python by its number; the command names each box without a hand."""
  path, (box, _) = BUNDLED[-1]
  empty, other = [1, 1, 40, 40], [2, 3, 40.5, 40]
  (hand,) = reconstructor(path, boxes=[empty, box, other])
  assert hand.given_box == 1
  texts = [','.join(map(str, one)) for one in (empty, box, other)]
  (outcome,) = prepare_run(PhotoOptions([str(path)], str(tmp_path / 'a'), bbox=texts)).outcomes()
  assert outcome.lines[0].startswith(f'{path.name}: left hand') and not outcome.failed
  assert outcome.lines[1:] == (
    f'{path.name}: no hand found in --bbox=1,1,40,40',
    f'{path.name}: no hand found in --bbox=2,3,40.5,40',
  )
  (outcome,) = prepare_run(
    PhotoOptions([str(path)], str(tmp_path / 'b'), bbox=texts[:1])
  ).outcomes()
  assert outcome.lines == (f'{path.name}: no hand found in --bbox=1,1,40,40',)
  (entry,) = json.loads((tmp_path / 'b' / 'summary.json').read_text())
  assert entry['hands'] == [] and 'error' not in entry and not outcome.failed


def test_the_users_mano_is_fitted_to_the_same_evidence_and_named(
  reconstructor, photo, tmp_path, monkeypatch
):
  """Here it is a larger free hand with its vertices in another order."""
  free = reconstructor.model
  order = np.random.default_rng(0).permutation(len(free.v_template))
  place = np.argsort(order)
  rows = ('v_template', 'shapedirs', 'posedirs', 'lbs_weights')
  arrays = {name: np.asarray(value) for name, value in free._asdict().items()}
  arrays |= {name: arrays[name][order] for name in rows}
  arrays['v_template'] = np.float32(1.1) * arrays['v_template']
  arrays['joint_regressor'] = arrays['joint_regressor'][:, order]
  arrays['faces'] = place[arrays['faces']].astype(np.int32)
  arrays['fingertip_vertices'] = place[arrays['fingertip_vertices']].astype(np.int32)
  write_converted_mano(tmp_path / 'MANO_RIGHT.npz', arrays, 'right')
  found = found_hand(photo, free)
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda image, _: [found])
  (own,), (hand,) = reconstructor(photo), HandReconstructor(mano_dir=str(tmp_path))(photo)
  assert (own.hand_model, hand.hand_model) == ('free hand 3', 'MANO')
  content = json_content(hand, {})
  assert content['hand_model'] == content['mano']['hand_model'] == 'MANO'
  # The evidence is the same, and only its place in the photo is known: the hand is larger.
  size = np.linalg.norm(hand.joints[9]) / np.linalg.norm(own.joints[9])
  assert 1.05 < size < 1.15
  np.testing.assert_allclose(hand.joints_image, own.joints_image, atol=1.0)
  # A vertex has the sigma of its part, wherever the file lists it.
  sigma = hand.vertex_sigma_mm[place] / own.vertex_sigma_mm
  assert sigma.std() / sigma.mean() < 0.02


def test_the_home_folder_is_expanded_in_python_too(bundled, mano_dir, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(pathlib.Path(mano_dir).parent))
  in_home = f'~/{pathlib.Path(mano_dir).name}'
  assert HandReconstructor(mano_dir=in_home).model.v_template.shape == (778, 3)
  for workdir in ('~/no_run', pathlib.Path('~/no_run')):
    with pytest.raises(FileNotFoundError, match=rf'{pathlib.Path(mano_dir).parent}/no_run'):
      HandReconstructor(workdir)
  with pytest.raises(FileNotFoundError, match=rf'{pathlib.Path(mano_dir).parent}/no\.jpg'):
    read_request('~/no.jpg')
  monkeypatch.setenv('HOME', str(tmp_path))
  bundled[2][0].save('~/out', 'a')
  assert (tmp_path / 'out' / 'a.npz').is_file()


@pytest.mark.parametrize('refine', [True, False])
def test_an_object_hides_vertices_by_the_given_mask_or_the_estimated_one(
  refine, photo, reconstructor, monkeypatch
):
  """Half of the photo at a time. The given mask wins. Its outline moves no mesh in this test."""
  monkeypatch.setattr(detected, '_OUTLINE_ROUNDS', 0)
  monkeypatch.setattr(
    hand_reconstructor, 'detect_hands', lambda image, _: [found_hand(image, reconstructor.model)]
  )
  upper = np.zeros(photo.shape[:2], bool)
  upper[: photo.shape[0] // 2] = True
  monkeypatch.setattr(hand_reconstructor, 'estimate_hand_mask', lambda *_: upper)
  program = reconstructor if refine else HandReconstructor(refine=False)
  (by_estimate,) = program(photo)
  (by_lower,) = program(photo, hand_mask=~upper)
  (by_whole,) = program(photo, hand_mask=np.ones_like(upper))
  hands = by_estimate, by_lower, by_whole
  assert [hand.mask_source for hand in hands] == ['estimated', 'given', 'given']
  for hand in hands[:2]:
    np.testing.assert_array_equal(hand.vertices, by_whole.vertices)
  seen = [hand.vertex_visible for hand in hands]
  assert seen[0].any() and seen[1].any()
  # The two halves are the whole, and only a strip along the middle is in both.
  np.testing.assert_array_equal(seen[0] | seen[1], seen[2])
  middle = photo.shape[0] / 2
  both = by_whole.vertices_image[seen[0] & seen[1], 1]
  extent = np.ptp(by_whole.vertices_image)
  assert (np.abs(both - middle) < 0.05 * extent).all()
  assert (by_whole.vertices_image[seen[0] & ~seen[1], 1] < middle).all()
  meaning = [json_content(hand, {})['units']['visible_vertices'] for hand in hands]
  assert 'by the estimated mask' in meaning[0] and 'by the given mask' in meaning[1]


def test_what_is_no_request_is_told(reconstructor, photo, monkeypatch):
  with pytest.raises(
    ValueError, match="side is 'up', expected 'right' or 'left'\\. Leave sides out"
  ):
    reconstructor(photo, sides='up')
  with pytest.raises(ValueError, match=r'expected \(height, width, 3\) and uint8'):
    reconstructor(photo[..., :2])
  with pytest.raises(TypeError):
    reconstructor(7)
  with pytest.raises(ValueError, match='2 sides for 1 boxes of the image'):
    reconstructor(photo, boxes=[[1, 1, 40, 40]], sides=['left', 'right'])
  for boxes in ([100, 100, 300, 500], [[1, 2, 3]], ['a'], [[1, 2, 3, 'b']]):
    with pytest.raises(ValueError, match='expected a list of boxes, each of four numbers'):
      reconstructor(photo, boxes=boxes)
  with pytest.raises(ValueError, match='hand_mask has 4 x 5 pixels'):
    reconstructor(photo, hand_mask=np.ones((5, 4), bool))
  hand = found_hand(photo, reconstructor.model)
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda image, _: [hand])
  column, row = np.floor(hand.landmarks_image[9]).astype(int)
  mask = np.zeros(photo.shape[:2], bool)
  mask[row, column] = True  # one landmark alone
  with pytest.raises(ValueError, match='hand mask of the image shows none of the hand there'):
    reconstructor(photo, hand_mask=mask)
  with pytest.raises(ValueError, match='belong to one photo'):
    reconstructor([photo, photo], boxes=[[1, 1, 40, 40]])


def test_paths_arrays_pillow_images_and_lists_give_the_same_hands(reconstructor):
  """A list is fitted together, in other batches than one photo: the numbers differ in rounding.

  The fit to the outline makes more of rounding, because it moves the outline to other vertices.
  """
  paths = [path for path, _ in BUNDLED[:2]]
  by_path = [reconstructor(path) for path in paths]
  with Image.open(paths[0]) as image:
    by_pillow = reconstructor(image)
  together = reconstructor([paths[0], read_photo(paths[1])])
  np.testing.assert_array_equal(by_pillow[0].vertices, by_path[0][0].vertices)
  assert [len(hands) for hands in together] == [1, 1]
  for alone, joined in zip(by_path, together, strict=True):
    np.testing.assert_allclose(joined[0].vertices, alone[0].vertices, atol=2.5e-3)
    np.testing.assert_allclose(joined[0].joints_image, alone[0].joints_image, atol=4)
  assert together[0][0].photo_name == str(paths[0]) and together[1][0].photo_name == 'the image'
  assert reconstructor([]) == []


@pytest.mark.parametrize('side', ['right', 'left'])
def test_a_given_side_is_certain_whether_or_not_the_detector_agrees(side, monkeypatch):
  image = read_photo(BUNDLED[-1][0])
  found = detect_hands(image)
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda *_: found)
  (hand,) = hand_reconstructor.find_hands(PhotoRequest(image, sides=(side,)))
  assert hand.side == side and hand.side_score == 1 and found[0].side_score < 1


def test_several_boxes_take_their_own_sides(reconstructor):
  left = read_photo(BUNDLED[-1][0])
  both = np.concatenate([left, left[:, ::-1]], axis=1)
  box = np.asarray(BUNDLED[-1][1][0])
  mirrored = np.array([both.shape[1] - box[0] - box[2], *box[1:]])
  hands = reconstructor(both, boxes=[mirrored, box], sides=['right', 'left'])
  assert [hand.side for hand in hands] == ['right', 'left']
  centres = [hand.box_xywh[0] + hand.box_xywh[2] / 2 for hand in hands]
  assert centres[0] > left.shape[1] > centres[1]
  np.testing.assert_allclose(hands[0].joints * [-1, 1, 1], hands[1].joints, atol=2e-3)


def test_a_known_focal_length_reaches_the_fit_and_the_place(reconstructor, tmp_path):
  """Twice the focal length puts the hand about twice as far, seen at the same pixels."""
  path = BUNDLED[-1][0]
  (near,), (far,) = (reconstructor(path, focal_length_px=focal) for focal in (600, 1200))
  assert far.wrist_camera[2] / near.wrist_camera[2] == pytest.approx(2, rel=0.1)
  for hand in (near, far):
    points = hand.joints_camera
    pixels = hand.camera.focal_length_px * points[:, :2] / points[:, 2:] + [240, 320]
    assert np.abs(pixels - hand.joints_image).max() < 0.01 * max(hand.box_xywh[2:])
    assert hand.depth_sigma_m == pytest.approx(0.1 * hand.wrist_camera[2])
  exif = Image.Exif()
  exif.get_ifd(0x8769)[0xA405] = 26
  with Image.open(path) as image:
    image.save(tmp_path / 'a.jpg', exif=exif, quality=95)
  (hand,) = reconstructor(tmp_path / 'a.jpg')
  assert hand.camera.source == 'exif'
  assert hand.camera.focal_length_px == pytest.approx(26 * 800 / 43.27)


def test_a_hand_is_saved_and_shown(bundled, tmp_path):
  _, _, (hand,) = bundled
  paths = hand.save(tmp_path / 'new', 'mine')
  suffixes = {'.png', '.obj', '.mtl', '.ply', '.glb', '.npz', '.json'}
  assert {path.suffix for path in paths} == suffixes
  with pytest.raises(FileExistsError, match=r'mine_overlay\.png exists: it stays as it is'):
    hand.save(tmp_path / 'new', 'mine')
  assert hand.save(tmp_path / 'new', 'mine', overwrite=True) == paths
  for name in ('../out', '', 'a/b'):
    with pytest.raises(ValueError, match='expected the beginning of a file name'):
      hand.save(tmp_path, name)
  assert hand == hand and hand != dataclasses.replace(hand)
  page = hand._repr_html_()
  assert 'data:image/png;base64,' in page and 'left (free hand' in page and 'alt="The left' in page


def test_saving_never_replaces_the_photo(bundled, tmp_path):
  _, _, (hand,) = bundled
  photo = tmp_path / 'a_overlay.png'
  Image.fromarray(hand.photo).save(photo)
  before = photo.read_bytes()
  hand = dataclasses.replace(hand, photo_name=str(photo))
  with pytest.raises(FileExistsError, match='is the photo itself'):
    hand.save(tmp_path, 'a', overwrite=True)
  assert photo.read_bytes() == before


def test_several_hands_save_themselves_under_their_own_names(reconstructor, tmp_path):
  left = read_photo(BUNDLED[-1][0])
  Image.fromarray(np.concatenate([left, left[:, ::-1]], axis=1)).save(tmp_path / 'two.png')
  hands = reconstructor(tmp_path / 'two.png')
  for hand in hands:
    hand.save(tmp_path / 'out')
  names = {path.name for path in (tmp_path / 'out').glob('*t.glb')}
  assert names == {f'two_{number}_{hand.side}.glb' for number, hand in enumerate(hands, start=1)}
  (alone,) = reconstructor(left)
  assert alone.file_stem == 'hand'


def test_several_hands_are_numbered_and_tell_their_side(tmp_path):
  left = read_photo(BUNDLED[-1][0])
  both = np.concatenate([left, left[:, ::-1]], axis=1)
  Image.fromarray(both).save(tmp_path / 'both.png')
  options = PhotoOptions([str(tmp_path / 'both.png')], str(tmp_path / 'out'))
  (outcome,) = prepare_run(options).outcomes()
  assert len(outcome.lines) == 2 and outcome.is_written
  names = sorted(path.name for path in (tmp_path / 'out').glob('both*.json'))
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


def test_a_run_sees_the_box_of_the_whole_hand(reconstructor, photo, monkeypatch):
  """Enlarged from the landmarks' box as data sets have it, with the side that was found."""
  found = found_hand(photo, reconstructor.model, 'left')
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda image, _: [found])
  (fitted,) = reconstructor(photo)
  seen = []

  def watched(*arguments):
    seen.append(arguments)
    return fitted

  monkeypatch.setattr(hand_reconstructor, 'reconstruct_in_box', watched)
  network = TrainedNetwork(ExperimentConfig(), reconstructor.model, watched, 'runs/a')
  by_run = changed(reconstructor, network=network, release=None)
  ((hand,),) = by_run.reconstruct([PhotoRequest(photo, 'a')])
  assert hand.vertices is fitted.vertices and hand.detection is found
  assert hand.given_box is None
  _, (_, box, side, name, mask, _, landmarks, source) = seen[0]
  assert (side, name, source) == ('left', 'a', 'estimated')
  assert mask.shape == photo.shape[:2]
  np.testing.assert_array_equal(landmarks, np.asarray(found.landmarks_image, np.float64))
  assert max(box[2:]) == pytest.approx(1.19 * max(found.box_xywh[2:]), rel=0.01)
  assert by_run(photo, boxes=[[10, 20, 60, 50]])[0].given_box == 0
  np.testing.assert_array_equal(seen[1][1].box_xywh, [10, 20, 60, 50])


def test_the_square_of_found_hands_is_about_them(reconstructor, photo):
  """The helper's own landmarks make sense to the detector's geometry."""
  region = region_from_landmarks(found_hand(photo, reconstructor.model).landmarks_image)
  assert abs(region.angle) < 0.3


def test_a_photo_of_reduced_size_gives_pixels_of_the_whole_one(reconstructor, tmp_path):
  """As if the photo had been read whole, but for what the smaller picture loses."""
  path, (box, _) = BUNDLED[-1]
  (plain,) = reconstructor(path, boxes=[box], focal_length_px=900.0)
  camera = PhotoCamera(3600.0, (960.0, 1280.0))
  request = PhotoRequest(
    read_photo(path),
    'large',
    boxes_xywh=[4 * np.asarray(box)],
    camera=camera,
    scale=0.25,
    whole_size=(1920, 2560),
  )
  ((hand,),) = reconstructor.reconstruct([request])
  np.testing.assert_array_equal(hand.vertices, plain.vertices)
  np.testing.assert_allclose(hand.wrist_camera, plain.wrist_camera, rtol=1e-5)
  for name in ('joints_image', 'vertices_image', 'box_xywh', 'pixels_per_metre'):
    np.testing.assert_allclose(getattr(hand, name), 4 * getattr(plain, name), rtol=1e-6)
  np.testing.assert_allclose(hand.detection.landmarks_image, 4 * plain.detection.landmarks_image)
  assert hand.camera == camera and hand.photo_size == (1920, 2560)
  # Pictures of both are the same.
  np.testing.assert_allclose(display_crop(hand, 60), display_crop(plain, 60), atol=0.02)
  np.testing.assert_allclose(display_vertices(hand, 60), display_vertices(plain, 60), atol=1e-2)
  assert hands_image([hand]) == hands_image([plain])
  with pytest.raises(ValueError, match='of 1920 x 2560 pixels'):
    reconstructor.reconstruct([request._replace(boxes_xywh=[np.array([1900.0, 0, 200, 200])])])
