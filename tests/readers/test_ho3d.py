"""HO3D's genuine format: every convention against independent conversions, all damage named."""

import os
import pickle
import re
import shutil

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_jax.config import AugmentationConfig
from hand_jax.data.augmentation import make_row, sample_crop_change
from hand_jax.examples import Skip
from hand_jax.files.safe_pickle import load_pickle
from hand_jax.mano.assets import with_fingertips
from hand_jax.mano.mano_files import write_converted_mano
from hand_jax.mano.model import mano_forward
from hand_jax.readers import ho3d
from hand_jax.readers.ho3d import (
  load_records,
  make_jobs,
  parameters_to_opencv,
  points_to_ho3d,
  release_box,
)
from hand_jax.readers.ho3d_folder import (
  check_folder,
  read_evaluation_truths,
  read_frame_list,
  split_frames,
)
from hand_jax.types import HandParameters
from tests.make_dummy_data import HO3D_K, flip, ho3d_meta, project, write_ho3d
from tests.official_mano import python2_dumps
from tests.readers.test_freihand import decode, edit, stored_rotation, truncate
from tests.toy_mano import make_toy_mano

GOOD = ['DMA10/0000', 'DMB10/0002', 'DMB10/0000', 'DMC10/0007']  # not in alphabetical order
DAMAGED = 'DMB10/0002'


@pytest.fixture(scope='module')
def hand_model():
  """Stands for MANO: pose blend shapes, a mean pose, HO3D's fingertip vertices."""
  return with_fingertips(make_toy_mano(), 'ho3d')


@pytest.fixture(scope='module')
def mano_dir(hand_model, tmp_path_factory):
  folder = tmp_path_factory.mktemp('mano')
  arrays = {name: np.asarray(value) for name, value in hand_model._asdict().items()}
  write_converted_mano(folder / 'MANO_RIGHT.npz', arrays, 'right')
  return str(folder)


@pytest.fixture(scope='module')
def genuine(hand_model, tmp_path_factory):
  folder = tmp_path_factory.mktemp('ho3d_v3')
  return folder, write_ho3d(folder, 'v3', hand_model, with_truth=True)


@pytest.fixture
def copy(genuine, tmp_path):
  return shutil.copytree(genuine[0], tmp_path / 'copy')


def load(folder, mano_dir=None, half='train', version='v3', with_truth=False):
  """All frames of a half in the list's order: examples and skips."""
  frames = read_frame_list(folder, half)
  truths = read_evaluation_truths(folder, len(frames)) if with_truth else None
  jobs = make_jobs(folder, version, half, frames, mano_dir, truths)
  records = [record for job in jobs for record in load_records(job)]
  return [record if isinstance(record, Skip) else decode(record) for record in records]


def kept(results):
  return [result for result in results if not isinstance(result, Skip)]


@pytest.fixture(scope='module')
def loaded(genuine, mano_dir):
  results = load(genuine[0], mano_dir)
  assert len(kept(results)) == len(GOOD), results
  return results


@pytest.mark.slow
def test_frames_come_in_the_lists_order_and_skips_are_named(loaded):
  names = [result.example_id for result in loaded]
  assert names == [f'train/{frame}' for frame in (*GOOD[:2], 'DMB10/0009', *GOOD[2:], 'DMB10/0001')]
  assert [result for result in loaded if isinstance(result, Skip)] == [
    Skip('train/DMB10/0009', 'DMB10/meta/0009.pkl is missing'),
    Skip('train/DMB10/0001', 'not annotated (None)'),
  ]


def test_axes_joint_order_and_half_pixels(genuine, loaded):
  for example in kept(loaded):
    hand = genuine[1][example.example_id]
    np.testing.assert_allclose(example.joints_camera, hand.joints, atol=1e-6)
    assert (example.joints_camera[:, 2] > 0).all()
    expected = project(hand.joints, HO3D_K) + 0.5
    np.testing.assert_allclose(example.joints_image, expected, atol=1e-3)
    np.testing.assert_allclose(example.intrinsics[:2, 2], HO3D_K[:2, 2] + 0.5, rtol=1e-6)
    assert example.joint_confidence.all() and example.side == 'right'


def test_the_pose_turns_with_the_axes_and_gives_the_mesh(genuine, loaded, hand_model):
  for example in kept(loaded):
    hand = genuine[1][example.example_id]
    np.testing.assert_allclose(example.vertices_camera, hand.vertices, atol=2e-6)
    found = Rotation.from_rotvec(example.global_orient)
    truth = Rotation.from_rotvec(hand.parameters.global_orient)
    assert (found.inv() * truth).magnitude() < 1e-5
  # The parameters as a whole, and what they would give as they stand in the file.
  meta = ho3d_meta(hand, hand_model)
  stored = HandParameters(
    *(jnp.float32(part) for part in (meta['handPose'][:3], meta['handPose'][3:])),
    *(jnp.float32(meta[key]) for key in ('handBeta', 'handTrans')),
  )
  converted = parameters_to_opencv(hand_model, stored)
  for name, value in hand.parameters._asdict().items():
    if name != 'global_orient':
      np.testing.assert_allclose(getattr(converted, name), value, atol=1e-6, err_msg=name)
  np.testing.assert_allclose(
    mano_forward(hand_model, stored).vertices, flip(hand.vertices), atol=2e-6
  )


def test_without_a_model_there_are_no_vertices(genuine, loaded):
  for example, other in zip(kept(loaded), kept(load(genuine[0])), strict=True):
    assert other.vertices_camera is None
    np.testing.assert_array_equal(other.joints_camera, example.joints_camera)
    np.testing.assert_array_equal(other.global_orient, example.global_orient)


def test_another_hand_model_is_noticed(genuine, tmp_path):
  other = make_toy_mano()._replace(v_template=1.2 * make_toy_mano().v_template)
  arrays = {name: np.asarray(value) for name, value in other._asdict().items()}
  write_converted_mano(tmp_path / 'MANO_RIGHT.npz', arrays, 'right')
  results = load(genuine[0], str(tmp_path))
  assert not kept(results)
  assert re.search(r'the mesh of its parameters is \d+ mm from its joints', results[0].reason)


def test_the_mask_is_the_hand_without_what_covers_it(genuine, loaded):
  for example in kept(loaded):
    path = genuine[0] / example.example_id.replace('/0', '/seg/0')
    segmentation = cv2.imread(f'{path}.png')
    np.testing.assert_array_equal(example.hand_mask, segmentation[..., 0] > 127)
    assert 500 < example.hand_mask.sum() < 50_000


def test_evaluation_frames_have_the_wrist_alone(genuine):
  results = load(genuine[0], half='evaluation')
  assert [result.example_id for result in results] == [
    'evaluation/DME1/0004',
    'evaluation/DME1/0001',
  ]
  for example in results:
    hand = genuine[1][example.example_id]
    assert example.joint_confidence.tolist() == [1] + [0] * 20
    np.testing.assert_allclose(example.joints_camera[0], hand.joints[0], atol=1e-6)
    assert example.vertices_camera is None and example.global_orient is None
    row = make_row(example, 0, 64, 2.0, 778)
    assert row.has_root and not row.has_3d
    np.testing.assert_allclose(row.root_camera, hand.joints[0], atol=1e-6)
    assert row.camera_mask.tolist() == [False] * 8 + [True, False]
    # The box of the file holds the hand, its crop twice of it.
    x, y, width, height = example.box_xywh
    pixels = project(hand.vertices, HO3D_K) + 0.5
    assert (pixels >= [x, y]).all() and (pixels <= [x + width, y + height]).all()
    extent = np.ptp(pixels, axis=0).max()
    assert extent + 18 < width < extent + 26


def test_labels_published_for_the_evaluation_are_used(genuine):
  for example in load(genuine[0], half='evaluation', with_truth=True):
    hand = genuine[1][example.example_id]
    np.testing.assert_allclose(example.joints_camera, hand.joints, atol=1e-6)
    np.testing.assert_allclose(example.vertices_camera, hand.vertices, atol=6e-6)
    assert example.joint_confidence.all()


def test_points_go_back_to_the_files_order_and_axes(genuine, hand_model):
  hand = genuine[1]['train/DMA10/0000']
  stored = load_pickle(genuine[0] / 'train' / 'DMA10' / 'meta' / '0000.pkl')
  np.testing.assert_allclose(points_to_ho3d(hand.joints), stored['handJoints3D'], atol=1e-7)


def test_projecting_3d_joints_gives_the_2d_joints_after_every_augmentation(loaded):
  rng = np.random.default_rng(0)
  for change in [None] + [sample_crop_change(AugmentationConfig(), rng) for _ in range(6)]:
    for number, example in enumerate(kept(loaded)[:2]):
      row = make_row(example, number, 112, 2.0, 778, change)
      points = row.joints_hand @ stored_rotation(row.camera) + row.root_camera
      pixels = points @ row.intrinsics.T
      pixels = pixels[:, :2] / pixels[:, 2:]
      np.testing.assert_allclose(2 * pixels / 112 - 1, row.joints_normalized, atol=5e-4)
      assert row.has_3d and row.has_mask and row.camera_mask.all()
      assert np.abs(row.joints_normalized).max() < 1


@pytest.mark.parametrize(
  'points, expected',
  [
    # Middle (150, 200); 50 + 10 pixels reach left and right.
    ([[100, 150], [200, 250]], [90, 140, 120, 120]),
    # Beyond the left border only 20 of 80 pixels count there, and 10 more; 50 + 10 to the right.
    ([[-80, 200], [20, 240]], [-90, 160, 120, 120]),
    # The lower border cuts 60 of 120 pixels; upwards 60 + 10 remain.
    ([[300, 420], [310, 540]], [235, 410, 140, 140]),
    ([[0, 0], [640, 480]], [160, 80, 320, 320]),  # crop of 640
    ([[300, 200], [302, 202]], [288.5, 188.5, 25, 25]),  # crop of 50
  ],
)
def test_the_box_of_the_papers_release(points, expected):
  np.testing.assert_allclose(release_box(np.array(points, float), (640, 480)), expected)


def test_v2_has_png_photos(hand_model, tmp_path):
  hands = write_ho3d(tmp_path, 'v2', hand_model, with_faults=False)
  results = load(tmp_path, version='v2')
  assert [result.example_id.split('/', 1)[1] for result in results] == GOOD
  for example in results:
    np.testing.assert_allclose(example.joints_camera, hands[example.example_id].joints, atol=1e-6)
    assert example.hand_mask is None
    path = tmp_path / example.example_id.replace('/0', '/rgb/0')
    np.testing.assert_array_equal(example.image, cv2.imread(f'{path}.png')[..., ::-1])
  assert check_folder(tmp_path, 'v2') == ['train', 'evaluation']
  with pytest.raises(ValueError, match=r'\.png photos, which is HO3D v2; HO3D v3 has \.jpg ones'):
    check_folder(tmp_path, 'v3')


def rewrite(change):
  """Edits the annotation of the frame that is to be damaged."""

  def damage(folder):
    path = folder / 'train' / DAMAGED.replace('/', '/meta/')
    path = path.with_name(path.name + '.pkl')
    meta = load_pickle(path)
    meta = change(meta) or meta
    path.write_bytes(python2_dumps(meta))

  return damage


def put(key, value):
  return rewrite(lambda meta: meta.__setitem__(key, value))


def replace_file(kind, suffix, change):
  def damage(folder):
    path = folder / 'train' / DAMAGED.replace('/', f'/{kind}/')
    path = path.with_name(path.name + suffix)
    data = change(path.read_bytes())
    path.write_bytes(data) if data is not None else path.unlink()

  return damage


def without(meta, key):
  return {name: value for name, value in meta.items() if name != key}


class Hostile:
  def __reduce__(self):
    return os.system, ('touch was_run',)


def cut(data):
  return data[: len(data) // 2]


def move_aside(meta):
  aside = np.array([5.0, 0, 0])
  moved = {'handJoints3D': meta['handJoints3D'] + aside[None]}
  return meta | moved | {'handTrans': meta['handTrans'] + aside}


DAMAGE = {
  'NaN': (put('handJoints3D', np.full((21, 3), np.nan)), 'handJoints3D holds .* not finite'),
  'wrong shape': (put('handPose', np.zeros(45)), r'handPose has shape \(45,\), expected \(48,\)'),
  'text': (put('handBeta', 'ten'), 'handBeta holds values of type'),
  'None': (put('handTrans', None), r'not annotated \(None\)'),
  'no object': (put('objRot', None), r'not annotated \(None\)'),
  'lacks a key': (rewrite(lambda meta: without(meta, 'camMat')), 'lacks camMat'),
  'not a dictionary': (rewrite(lambda meta: [1, 2]), 'is a list, expected a dictionary'),
  'behind': (put('handJoints3D', np.full((21, 3), 0.5)), 'behind the camera'),
  'outside': (
    rewrite(move_aside),
    'no joint lies',
  ),
  'millimetres': (
    rewrite(lambda meta: meta | {'handJoints3D': 1000 * meta['handJoints3D']}),
    'handJoints3D: the points extend over .* expected metres, these look like millimetres',
  ),
  'a root in millimetres': (
    rewrite(lambda meta: meta | {'handTrans': 1000 * meta['handTrans']}),
    'handTrans is .* m from the wrist of handJoints3D: are both in metres',
  ),
  'a camera in millimetres': (
    put('camMat', np.array([[4.1, 0, 2.2], [0, 4.1, 1.6], [0, 0, 1]])),
    r'camMat: a focal length of 4\.1 for a photo of 640 x 480 pixels, expected pixels',
  ),
  'intrinsics': (put('camMat', np.eye(3) * 600), 'its intrinsics .* are not'),
  'cut pickle': (replace_file('meta', '.pkl', cut), r'DMB10/meta/0002\.pkl: cut short'),
  'hostile pickle': (
    replace_file('meta', '.pkl', lambda data: pickle.dumps({'camMat': Hostile()})),
    r"meta/0002\.pkl: refused: it names 'posix\.system'",
  ),
  'no annotation': (replace_file('meta', '.pkl', lambda data: None), 'meta/0002.pkl is missing'),
  'no photo': (replace_file('rgb', '.jpg', lambda data: None), 'rgb/0002.jpg is missing'),
  'cut photo': (replace_file('rgb', '.jpg', cut), 'rgb/0002.jpg cannot be read'),
  'cut mask': (replace_file('seg', '.png', cut), 'seg/0002.png cannot be read'),
}


@pytest.mark.parametrize('name', DAMAGE)
def test_damage_costs_its_own_frame_alone(loaded, mano_dir, copy, name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # where a hostile file would leave its mark
  damage, reason = DAMAGE[name]
  damage(copy)
  results = load(copy, mano_dir)
  assert len(results) == len(loaded)
  for expected, result in zip(loaded, results, strict=True):
    assert result.example_id == expected.example_id
    if result.example_id == f'train/{DAMAGED}':
      assert isinstance(result, Skip)
      assert re.search(reason, result.reason), result.reason
      continue
    for field, value in expected._asdict().items():
      # A mesh is computed in another batch: equal to rounding.
      if field == 'vertices_camera':
        np.testing.assert_allclose(getattr(result, field), value, atol=1e-6)
      else:
        np.testing.assert_array_equal(getattr(result, field), value, err_msg=field)
  assert not (tmp_path / 'was_run').exists()


def test_evaluation_labels_that_do_not_belong_are_refused(copy):
  edit(copy / 'evaluation_xyz.json', lambda content: content.reverse())
  results = load(copy, half='evaluation', with_truth=True)
  assert all(re.search(r'the wrist in .* is \d+ mm from', result.reason) for result in results)
  edit(copy / 'evaluation_xyz.json', lambda content: content.pop())
  with pytest.raises(ValueError, match=r'xyz\.json has 1 entries, but evaluation\.txt names 2'):
    read_evaluation_truths(copy, 2)
  truncate(copy / 'evaluation_verts.json')
  with pytest.raises(ValueError, match=r'verts\.json: the file ends inside sample'):
    read_evaluation_truths(copy, 2)
  (copy / 'evaluation_xyz.json').unlink()
  with pytest.raises(FileNotFoundError, match=r'lacks evaluation_xyz\.json'):
    read_evaluation_truths(copy, 2)


def test_a_damaged_evaluation_label_costs_its_own_frame(copy):
  edit(copy / 'evaluation_verts.json', lambda content: content.__setitem__(1, [1, 2]))
  first, second = load(copy, half='evaluation', with_truth=True)
  assert first.vertices_camera is not None
  assert second.reason == 'evaluation_verts.json: has shape (2,), expected (778, 3)'


def test_the_folder_is_checked_by_name(copy, tmp_path):
  assert check_folder(copy, 'v3') == ['train', 'evaluation']
  shutil.rmtree(copy / 'train' / 'DMA10')
  shutil.rmtree(copy / 'train' / 'DMC10' / 'meta')
  (copy / 'evaluation.txt').unlink()
  with pytest.raises(FileNotFoundError) as caught:
    check_folder(copy, 'v3')
  missing = 'train/DMA10/rgb/, train/DMA10/meta/, train/DMC10/meta/, evaluation.txt.'
  assert str(caught.value).endswith(f'lacks {missing}')
  with pytest.raises(FileNotFoundError, match='does not exist; expected the unpacked HO3D_v2'):
    check_folder(tmp_path / 'nowhere', 'v2')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(FileNotFoundError, match='holds neither train/'):
    check_folder(tmp_path / 'empty', 'v3')


@pytest.mark.parametrize(
  'text, message',
  [
    ('A1/0000\n../../etc/passwd\n', r"train\.txt, line 2: expected SEQUENCE/FRAME, got '\.\./"),
    ('A1/0000\nA1\n', 'line 2'),
    ('A1/0000\nA1/0000\n', 'names a frame twice'),
    ('\n', 'names no frame'),
  ],
)
def test_lists_of_frames_are_checked(tmp_path, text, message):
  (tmp_path / 'train.txt').write_text(text)
  with pytest.raises(ValueError, match=message):
    read_frame_list(tmp_path, 'train')


def test_whole_sequences_are_held_out():
  frames = ['B/0', 'A/1', 'C/0', 'B/1', 'A/0', 'D/0']
  assert split_frames(frames, 0.01) == {
    'train': ['B/0', 'A/1', 'C/0', 'B/1', 'A/0'],
    'validation': ['D/0'],
  }
  assert split_frames(frames, 0.3)['validation'] == ['C/0', 'D/0']
  assert split_frames(frames, 0) == {'train': frames}
  for fraction, one in ((0.5, ['A/0', 'A/1']), (1.0, frames), (-0.1, frames)):
    with pytest.raises(ValueError, match='validation_fraction'):
      split_frames(one, fraction)


@pytest.mark.slow
def test_frames_are_read_in_chunks(genuine, loaded, mano_dir, monkeypatch):
  monkeypatch.setattr(ho3d, 'CHUNK', 4)
  for expected, result in zip(loaded, load(genuine[0], mano_dir), strict=True):
    assert result.example_id == expected.example_id
    if not isinstance(expected, Skip):
      np.testing.assert_allclose(result.vertices_camera, expected.vertices_camera, atol=1e-6)
