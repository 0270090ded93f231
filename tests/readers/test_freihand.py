"""FreiHAND's genuine format: every convention against independent conversions, all damage named."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest

from hand_jax.config import AugmentationConfig
from hand_jax.data.augmentation import make_row, sample_crop_change
from hand_jax.examples import Skip, decode_example
from hand_jax.files import json_lists
from hand_jax.mano.assets import with_fingertips
from hand_jax.mano.model import mano_forward
from hand_jax.readers.annotation_files import read_json_entries
from hand_jax.readers.freihand import (
  check_folder,
  freihand_parameters,
  image_ids,
  load_records,
  make_jobs,
  read_split,
  split_samples,
)
from tests.make_dummy_data import FREIHAND_K, paint_hand, project, write_freihand
from tests.toy_mano import make_toy_mano

SAMPLES = 3


@pytest.fixture(scope='module')
def hand_model():
  """Stands for MANO: pose blend shapes, a mean pose, FreiHAND's fingertip vertices."""
  return with_fingertips(make_toy_mano(), 'freihand')


@pytest.fixture(scope='module')
def genuine(hand_model, tmp_path_factory):
  folder = tmp_path_factory.mktemp('freihand')
  return folder, write_freihand(folder, hand_model, SAMPLES)


@pytest.fixture
def copy(genuine, tmp_path):
  return shutil.copytree(genuine[0], tmp_path / 'copy')


def decode(record):
  """A record as the prepared data set gives it back."""
  pictures = {}
  for name, mode in (('image', cv2.IMREAD_COLOR), ('hand_mask', cv2.IMREAD_GRAYSCALE)):
    picture = cv2.imdecode(np.frombuffer(record[name].getvalue(), np.uint8), mode)
    pictures[name] = picture[..., ::-1] if picture.ndim == 3 else picture[..., None]
  return decode_example(record | pictures)


def load(folder, half='training', ids=None):
  """All photos of a half: examples and skips."""
  split = read_split(folder, half)
  ids = image_ids(split, range(split.samples)) if ids is None else ids
  records = [record for job in make_jobs(split, ids) for record in load_records(job)]
  return [record if isinstance(record, Skip) else decode(record) for record in records]


@pytest.fixture(scope='module')
def examples(genuine):
  return load(genuine[0])


@pytest.mark.slow
def test_each_of_four_versions_has_its_samples_labels(genuine, examples):
  folder, hands = genuine
  assert len(examples) == 4 * SAMPLES
  for number, example in enumerate(examples):
    hand = hands['training'][number % SAMPLES]
    assert example.example_id == f'training/{number:08d}'
    assert example.side == 'right'
    np.testing.assert_allclose(example.vertices_camera, hand.vertices, atol=6e-6)
    np.testing.assert_allclose(example.joints_camera, hand.joints, atol=1e-6)
    np.testing.assert_allclose(example.global_orient, hand.parameters.global_orient, atol=1e-6)
    photo = cv2.imread(str(folder / 'training' / 'rgb' / f'{number:08d}.jpg'))
    np.testing.assert_array_equal(example.image, photo[..., ::-1])
    mask = np.zeros((224, 224), np.uint8)
    paint_hand(mask, hand, np.asarray(make_toy_mano().faces), FREIHAND_K)
    assert np.mean(example.hand_mask != (mask > 127)) < 0.01
  assert not np.array_equal(examples[0].image, examples[SAMPLES].image)


def test_the_photos_file_is_kept_byte_for_byte(genuine):
  split = read_split(genuine[0], 'training')
  (job,) = make_jobs(split, [4])
  (record,) = load_records(job)
  expected = (genuine[0] / 'training' / 'rgb' / '00000004.jpg').read_bytes()
  assert record['image'].getvalue() == expected


def test_pixels_are_shifted_by_half_once(genuine, examples):
  for number, example in enumerate(examples):
    hand = genuine[1]['training'][number % SAMPLES]
    expected = project(hand.joints, FREIHAND_K) + 0.5
    np.testing.assert_allclose(example.joints_image, expected, atol=2e-3)
    np.testing.assert_allclose(example.intrinsics[:2, 2], [112.5, 112.5])
    np.testing.assert_allclose(np.diag(example.intrinsics)[:2], np.diag(FREIHAND_K)[:2], rtol=1e-6)


def test_a_drawn_dot_lies_under_its_joint(genuine, copy):
  """OpenCV draws at pixel centres, as the data set's annotators did."""
  joint = project(genuine[1]['training'][0].joints, FREIHAND_K)[8]
  picture = np.zeros((224, 224, 3), np.uint8)
  cv2.circle(picture, np.round(joint * 16).astype(int).tolist(), 6 * 16, (255,) * 3, -1, 8, 4)
  path = copy / 'training' / 'rgb' / '00000000.jpg'
  cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 100])
  (example,) = load(copy, ids=[0])
  row = make_row(example, 0, 448, 2.0, 778)
  weights = row.image[..., 0].astype(float)
  rows, columns = np.mgrid[:448, :448] + 0.5
  centre = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()
  np.testing.assert_allclose((row.joints_normalized[8] + 1) * 224, centre, atol=0.15)


def test_twice_the_nominal_box_is_the_whole_photo(examples):
  row = make_row(examples[0], 0, 224, 2.0, 778)
  np.testing.assert_array_equal(row.image, examples[0].image)


@pytest.mark.slow
@pytest.mark.parametrize('number', range(SAMPLES))
def test_parameters_give_the_stored_mesh(genuine, hand_model, number):
  """To the rounding of the files: mean pose, translation rule and fingertips are right."""
  labels = read_split(genuine[0], 'training').labels
  mano, intrinsics = labels['mano'][number, 0], labels['K'][number]
  mesh = mano_forward(hand_model, freihand_parameters(mano, intrinsics, hand_model))
  np.testing.assert_allclose(mesh.vertices, labels['verts'][number], atol=2e-5)
  np.testing.assert_allclose(mesh.joints, labels['xyz'][number], atol=2e-5)
  # What the usual mistakes would give.
  flat = hand_model._replace(hands_mean=0 * hand_model.hands_mean)
  wrong = mano_forward(flat, freihand_parameters(mano, intrinsics, flat)).vertices
  assert np.abs(wrong - labels['verts'][number]).max() > 3e-3
  tips = with_fingertips(hand_model, 'ho3d')
  wrong = mano_forward(tips, freihand_parameters(mano, intrinsics, tips)).joints
  assert np.abs(wrong - labels['xyz'][number]).max() > 1e-3


def test_projecting_3d_joints_gives_the_2d_joints_after_every_augmentation(examples):
  rng = np.random.default_rng(0)
  changes = [None] + [sample_crop_change(AugmentationConfig(), rng) for _ in range(6)]
  for change in changes:
    row = make_row(examples[1], 1, 112, 2.0, 778, change)
    rotation = stored_rotation(row.camera)
    points = row.joints_hand @ rotation + row.root_camera
    pixels = points @ row.intrinsics.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    np.testing.assert_allclose(2 * pixels / 112 - 1, row.joints_normalized, atol=2e-4)
    assert row.has_3d and row.has_root and row.has_mask and row.camera_mask.all()
    # The weak camera, fitted again by a general solver: s x + T over both coordinates.
    root = (points - row.root_camera)[:, :2]
    system = np.zeros((42, 3))
    system[:, 0] = root.ravel()
    system[::2, 1] = system[1::2, 2] = 1
    fit = np.linalg.lstsq(system, row.joints_normalized.ravel(), rcond=None)[0]
    np.testing.assert_allclose([row.camera[9] * 10, *row.camera[6:8]], fit, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(row.camera[8], row.root_camera[2])


def stored_rotation(camera):
  first, second = camera[:3], camera[3:6]
  return np.stack([first, second, np.cross(first, second)], axis=1)


def test_the_evaluation_half_needs_k_alone(genuine, copy):
  full = load(copy, 'evaluation')
  np.testing.assert_allclose(
    full[1].vertices_camera, genuine[1]['evaluation'][1].vertices, atol=6e-6
  )
  assert full[0].hand_mask is None
  for label in ('xyz', 'verts', 'mano', 'scale'):
    (copy / f'evaluation_{label}.json').unlink()
  bare = load(copy, 'evaluation')
  assert [example.example_id for example in bare] == ['evaluation/00000000', 'evaluation/00000001']
  np.testing.assert_array_equal(bare[1].image, full[1].image)
  assert not bare[1].joint_confidence.any()
  assert bare[1].joints_camera is None and bare[1].vertices_camera is None
  row = make_row(bare[1], 1, 64, 2.0, 778)
  assert not row.has_3d and not row.has_root and not row.camera_mask.any()


def edit(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def set_entry(number, value):
  return lambda content: content.__setitem__(number, value)


def damage_json(label, change):
  return lambda folder: edit(folder / f'training_{label}.json', change)


def damage_photo(change, name='rgb/00000004.jpg'):
  def damage(folder):
    path = folder / 'training' / name
    path.write_bytes(change(path.read_bytes()))

  return damage


def write_small(folder):
  cv2.imwrite(str(folder / 'training' / 'rgb' / '00000004.jpg'), np.zeros((100, 224, 3), np.uint8))


def put_folder(folder):
  path = folder / 'training' / 'rgb' / '00000004.jpg'
  path.unlink()
  path.mkdir()


def behind(content):
  content[1] = (-np.array(content[1])).tolist()


def scaled(factor):
  return lambda content: content.__setitem__(1, (factor * np.array(content[1])).tolist())


def in_millimetres(label):
  """The whole file, but for K, of which only focal lengths and principal points are lengths."""

  def change(content):
    for number, entry in enumerate(content):
      if label == 'mano':
        entry[0][60] /= 1000
      elif label == 'K':
        entry = (np.array(entry) / [[200], [200], [1]]).tolist()
      else:
        entry = (1000 * np.array(entry)).tolist()
      content[number] = entry

  return change


SAMPLE_1 = {1, 1 + SAMPLES, 1 + 2 * SAMPLES, 1 + 3 * SAMPLES}
DAMAGE = {
  'NaN': (damage_json('xyz', lambda c: c[1][3].__setitem__(0, float('nan'))), 'not finite'),
  'infinity': (damage_json('verts', lambda c: c[1][3].__setitem__(0, float('inf'))), 'not finite'),
  'wrong shape': (damage_json('verts', lambda c: c[1].pop()), r'shape \(777, 3\)'),
  'uneven': (damage_json('mano', lambda c: c[1].append([1])), 'not a regular list'),
  'null': (damage_json('mano', set_entry(1, None)), 'training_mano.json: holds nothing'),
  'text': (damage_json('K', set_entry(1, 'abc')), 'holds values'),
  'skew': (damage_json('K', lambda c: c[1][0].__setitem__(1, 5.0)), 'intrinsics'),
  'behind': (damage_json('xyz', behind), 'behind the camera'),
  'millimetres': (damage_json('xyz', scaled(1000)), 'xyz: the points extend over .* millimetres'),
  'a mesh in centimetres': (damage_json('verts', scaled(100)), 'verts: .* look like centimetres'),
  'a far hand': (
    damage_json('mano', lambda c: c[1][0].__setitem__(60, 0.5)),
    r'mano: the hand is .* m from the camera, expected 0\.02 to 20 m',
  ),
  'a camera in millimetres': (
    damage_json('K', lambda c: c.__setitem__(1, [[4.8, 0, 1.1], [0, 4.8, 1.1], [0, 0, 1]])),
    r'K: a focal length of 4\.8 for a photo of 224 x 224 pixels, expected pixels, 44\.8 to',
  ),
}
PHOTO_DAMAGE = {
  'truncated': (damage_photo(lambda data: data[: len(data) // 2]), 'cannot be read'),
  'empty': (damage_photo(lambda data: b''), 'not a JPEG or PNG'),
  'not an image': (damage_photo(lambda data: b'hello' * 99), 'not a JPEG or PNG'),
  'wrong size': (write_small, '224 x 100 pixels, expected 224 x 224'),
  'missing': (
    lambda folder: (folder / 'training' / 'rgb' / '00000004.jpg').unlink(),
    'rgb/00000004.jpg is missing',
  ),
  'a folder': (put_folder, 'rgb/00000004.jpg is a folder, not a file'),
}


def assert_others_are_unchanged(examples, loaded, skipped, reason):
  """Same order, same content, and a named skip in the place of each damaged photo."""
  assert len(loaded) == len(examples)
  for number, (example, other) in enumerate(zip(examples, loaded, strict=True)):
    if number in skipped:
      assert isinstance(other, Skip)
      assert other.example_id == example.example_id
      assert re.search(reason, other.reason), other.reason
      continue
    for field, value in example._asdict().items():
      np.testing.assert_array_equal(getattr(other, field), value, err_msg=field)


@pytest.mark.parametrize('name', DAMAGE)
def test_a_damaged_annotation_costs_its_own_photos_alone(examples, copy, name):
  damage, reason = DAMAGE[name]
  damage(copy)
  assert_others_are_unchanged(examples, load(copy), SAMPLE_1, reason)


@pytest.mark.parametrize('name', PHOTO_DAMAGE)
def test_a_damaged_photo_costs_itself_alone(examples, copy, name):
  damage, reason = PHOTO_DAMAGE[name]
  damage(copy)
  assert_others_are_unchanged(examples, load(copy), {4}, reason)


def test_a_missing_mask_is_named(examples, copy):
  (copy / 'training' / 'mask' / '00000001.jpg').unlink()
  assert_others_are_unchanged(examples, load(copy), SAMPLE_1, 'mask/00000001.jpg is missing')


def truncate(path):
  text = path.read_text()
  path.write_text(text[: len(text) * 2 // 3])


@pytest.mark.parametrize(
  'change, error, message',
  [
    (
      lambda folder: truncate(folder / 'training_verts.json'),
      ValueError,
      r'training_verts\.json: the file ends inside sample \d',
    ),
    (
      lambda folder: (folder / 'training_K.json').write_text('{"a": 1}'),
      ValueError,
      r'training_K\.json: expected a list of samples',
    ),
    (
      lambda folder: edit(folder / 'training_xyz.json', lambda content: content.pop()),
      ValueError,
      r'do not belong together: training_K\.json has 3, training_xyz\.json has 2',
    ),
    (
      lambda folder: [
        edit(folder / f'training_{label}.json', lambda content: content.pop())
        for label in ('K', 'xyz', 'verts', 'mano')
      ],
      ValueError,
      r'no annotation belongs to: 00000008\.jpg, 00000009\.jpg, .*last is 00000007\.jpg',
    ),
    (
      lambda folder: [
        (folder / 'training' / 'rgb' / f'{number:08d}.jpg').unlink() for number in (3, 4, 5)
      ],
      FileNotFoundError,
      r'lacks 3 of 12 photos: 00000003\.jpg, 00000004\.jpg, 00000005\.jpg',
    ),
  ],
)
def test_annotations_that_cannot_be_trusted_are_refused(copy, change, error, message):
  change(copy)
  with pytest.raises(error, match=message):
    read_split(copy, 'training')


@pytest.mark.parametrize('label', ['xyz', 'verts', 'mano', 'K'])
@pytest.mark.parametrize('half', ['training', 'evaluation'])
def test_a_file_in_millimetres_is_refused_at_once(copy, label, half):
  path = copy / f'{half}_{label}.json'
  edit(path, in_millimetres(label))
  with pytest.raises(ValueError, match=rf'{half}_{label}\.json.*(metres|expected pixels)') as error:
    read_split(copy, half)
  assert '\n' not in str(error.value)


def test_the_folder_is_checked_by_name(copy, tmp_path):
  assert check_folder(copy) == ['training', 'evaluation']
  shutil.rmtree(copy / 'evaluation')
  (copy / 'evaluation_K.json').unlink()
  assert check_folder(copy) == ['training']
  (copy / 'training_mano.json').unlink()
  shutil.rmtree(copy / 'training')
  with pytest.raises(FileNotFoundError, match=r'lacks training/rgb/, training_mano\.json\.$'):
    check_folder(copy)
  with pytest.raises(FileNotFoundError, match='does not exist; expected the unpacked'):
    check_folder(tmp_path / 'nowhere')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(FileNotFoundError, match='holds neither training/rgb/'):
    check_folder(tmp_path / 'empty')


CONTENTS = {
  'scalars': ([0.125, 2, -3e-05, 41], ()),
  'arrays': ([[[1.5, 2], [3, 4]], [[5, 6], [7, 8.25]]], (2, 2)),
  'empty': ([], (3,)),
}


@pytest.mark.parametrize('block', [1, 2, 7, 1000])
@pytest.mark.parametrize('name', CONTENTS)
@pytest.mark.parametrize('indent', [None, 1])
def test_long_lists_are_read_in_blocks(tmp_path, monkeypatch, block, name, indent):
  content, shape = CONTENTS[name]
  monkeypatch.setattr(json_lists, 'CHUNK', block)
  text = json.dumps(content, indent=indent) + '\n'
  (tmp_path / 'a.json').write_text(text)
  entries = read_json_entries(tmp_path / 'a.json', shape)
  np.testing.assert_array_equal(entries.values, np.float32(content).reshape(-1, *shape))
  assert not entries.problems
  for length in range(len(text.rstrip())):
    (tmp_path / 'a.json').write_text(text[:length])
    with pytest.raises(ValueError, match=r'a\.json: .*; at character \d'):
      read_json_entries(tmp_path / 'a.json', shape)


def test_damage_between_entries_is_found(tmp_path):
  (tmp_path / 'a.json').write_text('[1 2]')
  with pytest.raises(ValueError, match=r'expected a comma and then the next sample, found .2'):
    read_json_entries(tmp_path / 'a.json', ())
  (tmp_path / 'a.json').write_bytes(b'[[1, 2], \xff\xfe]')
  with pytest.raises(ValueError, match='expected JSON text in UTF-8'):
    read_json_entries(tmp_path / 'a.json', (2,))


@pytest.mark.parametrize(
  'samples, fraction, held', [(100, 0.01, 1), (32560, 0.01, 326), (2, 0.01, 1), (5, 0, 0)]
)
def test_whole_samples_are_held_out(samples, fraction, held):
  parts = split_samples(samples, fraction)
  assert parts['train'] == range(samples - held)
  assert list(parts.get('validation', [])) == list(range(samples - held, samples))


@pytest.mark.parametrize('samples, fraction', [(1, 0.01), (5, 1.0), (5, -0.1)])
def test_fractions_that_leave_nothing_are_refused(samples, fraction):
  with pytest.raises(ValueError, match='validation_fraction'):
    split_samples(samples, fraction)
