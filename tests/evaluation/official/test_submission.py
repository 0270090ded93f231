"""Prediction files: what is written can be read back, and what is wrong with one is named."""

import json
import zipfile

import numpy as np
import pytest

from hand_jax.evaluation.official import submission
from hand_jax.evaluation.official.rules import BENCHMARKS
from hand_jax.files import json_lists as json_stream
from hand_jax.mano.joints import JOINT_NAMES

FREIHAND, HO3D = BENCHMARKS['freihand'], BENCHMARKS['ho3d_v2']
SAMPLES = 5


def make_points(seed, points, benchmark=FREIHAND, samples=SAMPLES):
  rng = np.random.default_rng(seed)
  depth = -0.6 if benchmark.is_opengl else 0.6
  return rng.normal(size=(samples, points, 3)) * 0.04 + [0.0, 0.0, depth]


def write_prediction(path, joints, vertices):
  """As the scripts' own template writes it."""
  path.write_text(json.dumps([np.asarray(joints).tolist(), np.asarray(vertices).tolist()]))
  return path


@pytest.fixture
def truth(tmp_path):
  """A small ground truth of meshes of 12 vertices: folder, joints, vertices."""
  folder = tmp_path / 'truth'
  folder.mkdir()
  joints, vertices = make_points(0, 21), make_points(1, 12)
  (folder / 'evaluation_xyz.json').write_text(json.dumps(joints.tolist()))
  (folder / 'evaluation_verts.json').write_text(json.dumps(vertices.tolist()))
  return folder, joints, vertices


def read_all(path, folder, benchmark=FREIHAND, **settings):
  batches = list(submission.read_pairs(path, folder, benchmark, **settings))
  return submission.Samples(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def test_predictions_are_read_beside_their_truth(truth, tmp_path, monkeypatch):
  folder, true_joints, true_vertices = truth
  joints, vertices = make_points(2, 21), make_points(3, 12)
  path = write_prediction(tmp_path / 'pred.json', joints, vertices)
  for batch, chunk in ((64, 1 << 20), (2, 50), (5, 7)):
    monkeypatch.setattr(submission, 'BATCH', batch)
    monkeypatch.setattr(json_stream, 'CHUNK', chunk)
    found = read_all(path, folder)
    np.testing.assert_array_equal(found.joints, joints)
    np.testing.assert_array_equal(found.vertices, vertices)
    np.testing.assert_array_equal(found.true_joints, true_joints)
    np.testing.assert_array_equal(found.true_vertices, true_vertices)


def test_a_byte_order_mark_does_not_matter(truth, tmp_path):
  """Editors of some systems put one before the text."""
  path = write_prediction(tmp_path / 'pred.json', make_points(2, 21), make_points(3, 12))
  expected = read_all(path, truth[0])
  path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
  np.testing.assert_array_equal(read_all(path, truth[0]).joints, expected.joints)


def test_white_space_does_not_matter(truth, tmp_path, monkeypatch):
  folder, true_joints, true_vertices = truth
  path = tmp_path / 'pred.json'
  text = json.dumps([true_joints.tolist(), true_vertices.tolist()], indent=2)
  path.write_text(f'\n {text} \n\n')
  monkeypatch.setattr(json_stream, 'CHUNK', 33)
  np.testing.assert_array_equal(read_all(path, folder).vertices, true_vertices)


@pytest.mark.parametrize('name', ['pred.zip', 'pred.json'])
@pytest.mark.parametrize('benchmark', [FREIHAND, HO3D], ids=['freihand', 'ho3d'])
def test_a_submission_holds_what_was_given(name, benchmark, tmp_path):
  joints, vertices = (make_points(4, points, benchmark, 2) for points in (21, 778))
  path = tmp_path / name
  joints, vertices = joints.astype(np.float32), vertices.astype(np.float32)
  submission.write_submission(path, joints, vertices, benchmark, samples=2)
  if name == 'pred.zip':
    with zipfile.ZipFile(path) as archive:
      assert archive.namelist() == ['pred.json']
      stored = json.loads(archive.read('pred.json'))
  else:
    stored = json.loads(path.read_text())
  assert len(stored) == 2
  np.testing.assert_allclose(stored[0], joints, atol=1e-8)
  np.testing.assert_allclose(stored[1], vertices, atol=1e-8)
  assert [item.name for item in tmp_path.iterdir()] == [name]
  submission.check_submission(path, benchmark, 2)


def change(points, index, value):
  points = points.copy()
  points[index] = value
  return points


GOOD = make_points(5, 21, samples=2), make_points(6, 778, samples=2)
GOOD_HO3D = make_points(5, 21, HO3D, 2), make_points(6, 778, HO3D, 2)


@pytest.mark.parametrize(
  'joints, vertices, samples, benchmark, message',
  [
    (*GOOD, 3, FREIHAND, r'pred\.zip: expected 3 samples, found 2'),
    (GOOD[0][:, :20], GOOD[1], 2, FREIHAND, r'joints of sample 0 \(from 0\): expected 21 x 3'),
    (GOOD[0], GOOD[1][:, :700], 2, FREIHAND, "meshes of 778 vertices, MANO's, found 700"),
    (
      *(change(GOOD[0], (1, 4, 2), np.nan), GOOD[1], 2, FREIHAND),
      r'pred\.zip: joints of sample 1 \(from 0\): expected finite numbers, .*nan\] at point 4',
    ),
    (
      *(GOOD[0], change(GOOD[1], (0, 9), np.inf), 2, FREIHAND),
      r'vertices of sample 0 \(from 0\): expected finite numbers, .*inf\] at point 9',
    ),
    (GOOD[0], GOOD[1][:1], 2, FREIHAND, 'vertices of 2 samples, .* joints of, found 1'),
    (1000 * GOOD[0], 1000 * GOOD[1], 2, FREIHAND, r'joints: expected metres; .* millimetres'),
    (GOOD[0], 100 * GOOD[1], 2, FREIHAND, r'vertices .* expected metres; .* centimetres'),
    (*GOOD, 2, HO3D, r'expected OpenGL axes, in which hands lie at z < 0; 2 of 2 samples'),
    (*GOOD_HO3D, 2, FREIHAND, r'expected OpenCV axes, in which hands lie at z > 0'),
    (
      *(change(GOOD_HO3D[0], (1, slice(None), 2), 0.5), GOOD_HO3D[1], 2, HO3D),
      r'OpenGL axes.* 1 of 2 samples lie behind the camera, first sample 1 \(from 0\)',
    ),
  ],
)
def test_what_no_server_would_take_is_not_written(
  joints, vertices, samples, benchmark, message, tmp_path
):
  path = tmp_path / 'pred.zip'
  path.write_text('an older one')
  with pytest.raises(ValueError, match=message) as error:
    submission.write_submission(path, joints, vertices, benchmark, samples)
  assert 'unfinished' not in str(error.value)
  assert path.read_text() == 'an older one'
  assert [item.name for item in tmp_path.iterdir()] == ['pred.zip']


def test_where_a_submission_can_be_written(tmp_path):
  with pytest.raises(ValueError, match=r'ends in \.json or \.zip'):
    submission.check_submission_path(tmp_path / 'pred.txt')
  with pytest.raises(FileNotFoundError, match='there is no folder'):
    submission.check_submission_path(tmp_path / 'nowhere' / 'pred.zip')


def good_text():
  return json.dumps([make_points(2, 21).tolist(), make_points(3, 12).tolist()])


def edited(edit):
  """The text of a good file of which `edit` changed the lists."""
  lists = json.loads(good_text())
  edit(lists)
  return json.dumps(lists)


def set_value(place, value):
  def edit(lists):
    kind, sample, *rest = place
    if not rest:
      lists[kind][sample] = value
    else:
      lists[kind][sample][rest[0]] = value

  return edit


BAD_FILES = {
  'empty': (lambda: '', r'expected a list of two lists.* found the end of the file'),
  'cut in the joints': (lambda: good_text()[:1500], r'ends inside joints of sample 1 \(truncated'),
  'cut after a sample': (
    lambda: good_text()[: good_text().index(']], [[') + 2],
    r'the file ends after joints of sample 0.*truncated',
  ),
  'cut in the vertices': (lambda: good_text()[:-100], r'ends inside vertices of sample 4'),
  'cut at the last bracket': (lambda: good_text()[:-1], r"expected '\]', the end of the list"),
  'more behind': (lambda: good_text() + '[]', r"expected the end of the file, found '\[\]'"),
  'a dictionary': (lambda: '{"xyz": []}', r"of two lists \(joints and vertices\), found '\{"),
  'no vertices but something else': (
    lambda: good_text()[: good_text().index(']]], [[[') + 3] + '}',
    'expected a comma and then the list of vertices',
  ),
  'not JSON': (lambda: good_text().replace('0.0', 'zero', 1), 'is not valid JSON'),
  'a third list': (lambda: good_text()[:-1] + ', []]', r"expected '\]', the end of the list"),
  '20 joints': (
    lambda: edited(lambda lists: lists[0][3].pop()),
    r'pred\.json: joints of sample 3 \(from 0\): expected 21 x 3 numbers, found 20 x 3',
  ),
  'two coordinates': (
    lambda: edited(set_value((0, 2, 5), [1.0, 2.0])),
    r'joints of sample 2 \(from 0\): expected 21 x 3 numbers, found lists of unequal length',
  ),
  'a text': (lambda: edited(set_value((0, 2), 'none')), r'joints of sample 2 .* text'),
  'null': (
    lambda: edited(set_value((1, 2, 5), [0, 0, None])),
    r'vertices of sample 2 \(from 0\): expected 12 x 3 numbers, found .*null',
  ),
  'a number as text': (lambda: edited(set_value((0, 2, 5), ['0', '1', '2'])), 'found text'),
  'truth values': (lambda: edited(set_value((0, 2), [[True] * 3] * 21)), 'found .* true'),
  'beyond any float': (
    lambda: edited(set_value((0, 2, 5), [0, 0, 10**400])),
    r'joints of sample 2 \(from 0\): .* too large',
  ),
  'NaN': (lambda: edited(set_value((0, 4, 20), [0, 0, float('nan')])), r'sample 4 .* at point 20'),
  'fewer samples': (
    lambda: edited(lambda lists: [points.pop() for points in lists]),
    r'pred\.json: expected 5 samples, .* \(the genuine FreiHAND has 3960\), found 4',
  ),
  'fewer meshes': (
    lambda: edited(lambda lists: lists[1].pop()),
    r'expected vertices of 5 samples, as many as there are joints of, found 4',
  ),
  'more meshes': (
    lambda: edited(lambda lists: lists[1].append(lists[1][0])),
    r'expected vertices of 5 samples, as many as there are joints of, found 6',
  ),
  'a mesh of its own': (
    lambda: edited(lambda lists: lists[1][3].pop()),
    r'vertices of sample 3 \(from 0\): expected 12 x 3 numbers, found 11 x 3',
  ),
  'a mesh of nothing': (
    lambda: edited(set_value((1, 0), [])),
    r'vertices of sample 0 \(from 0\): expected N x 3 numbers, found 0',
  ),
  'millimetres': (
    lambda: edited(lambda lists: lists.__setitem__(0, (1000 * make_points(2, 21)).tolist())),
    r'pred\.json: joints: expected metres; half the hands are wider than \d+ m.* millimetres',
  ),
  'mesh in millimetres': (
    lambda: edited(lambda lists: lists.__setitem__(1, (1000 * make_points(3, 12)).tolist())),
    r'pred\.json: vertices: expected metres',
  ),
  'kilometres': (
    lambda: edited(lambda lists: lists.__setitem__(0, (make_points(2, 21) / 1000).tolist())),
    r'pred\.json: joints: expected metres; half the hands are narrower than 0\.\d+ mm',
  ),
  'deep': (lambda: '[[' + '[' * 200000, 'joints of sample 0 is nested too deeply'),
}


# Read in small pieces, the deep file would be read in full again and again.
@pytest.mark.parametrize(
  'case, chunk',
  [(case, 1 << 22) for case in BAD_FILES] + [(case, 101) for case in BAD_FILES if case != 'deep'],
)
def test_a_bad_file_is_named_with_its_sample_and_the_expectation(
  case, chunk, truth, tmp_path, monkeypatch
):
  monkeypatch.setattr(json_stream, 'CHUNK', chunk)
  text, message = BAD_FILES[case]
  path = tmp_path / 'pred.json'
  path.write_text(text())
  with pytest.raises(ValueError, match=message) as error:
    read_all(path, truth[0])
  assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('ending', [']', ', []]', ' , [ ] ]\n'])
def test_joints_alone_are_read_without_meshes(truth, tmp_path, ending, monkeypatch):
  folder, joints, vertices = truth
  (tmp_path / 'pred.json').write_text('[' + json.dumps(joints.tolist()) + ending)
  monkeypatch.setattr(submission, 'BATCH', 2)
  found = read_all(tmp_path / 'pred.json', folder)
  np.testing.assert_array_equal(found.joints, joints)
  assert found.vertices.shape == (len(joints), 0, 3)
  np.testing.assert_array_equal(found.true_vertices, vertices)
  with pytest.raises(ValueError, match='expected joints and vertices, found joints alone'):
    submission.check_submission(tmp_path / 'pred.json', FREIHAND, len(joints))


def test_other_axes_and_units_are_measured_when_asked_for(truth, tmp_path):
  folder, joints, vertices = truth
  path = write_prediction(tmp_path / 'pred.json', joints * [1, -1, -1], vertices)
  with pytest.raises(ValueError, match='OpenCV axes'):
    read_all(path, folder)
  found = read_all(path, folder, allow_implausible=True)
  np.testing.assert_array_equal(found.joints, joints * [1, -1, -1])


@pytest.mark.parametrize('name', ['xyz', 'verts'])
def test_a_ground_truth_in_millimetres_is_refused(truth, tmp_path, name):
  folder, joints, vertices = truth
  path = write_prediction(tmp_path / 'pred.json', joints, vertices)
  points = 1000 * {'xyz': joints, 'verts': vertices}[name]
  (folder / f'evaluation_{name}.json').write_text(json.dumps(points.tolist()))
  with pytest.raises(ValueError, match=rf'truth: evaluation_{name}\.json: .* like millimetres'):
    read_all(path, folder)


def test_a_few_wild_samples_and_zeros_are_measured(truth, tmp_path):
  """The scripts measure anything; only files that are wrong as a whole are held back."""
  folder, joints, vertices = truth
  joints = joints.copy()
  joints[3] *= -900
  for predicted in (joints, 0 * joints):
    path = write_prediction(tmp_path / 'pred.json', predicted, 0 * vertices)
    np.testing.assert_array_equal(read_all(path, folder).joints, predicted)


def test_zip_files(truth, tmp_path):
  folder, joints, vertices = truth
  text = json.dumps([joints.tolist(), vertices.tolist()])
  path = tmp_path / 'submission'  # its name tells nothing
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('pred.json', text)
  np.testing.assert_array_equal(read_all(path, folder).joints, joints)
  whole = path.read_bytes()

  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('results/pred.json', text)
  with pytest.raises(ValueError, match=r'pred\.json at the top .*found results/pred\.json.*zip -j'):
    read_all(path, folder)

  path.write_bytes(whole[:-500])
  with pytest.raises(ValueError, match='zip file is damaged'):
    read_all(path, folder)

  path.write_bytes(whole[:2000] + bytes(100) + whole[2100:])
  with pytest.raises(
    ValueError, match=r'submission: the zip file is damaged|not valid JSON|finite'
  ):
    read_all(path, folder)

  path.write_bytes(b'[[\xff\xfe')
  with pytest.raises(ValueError, match='JSON text in UTF-8'):
    read_all(path, folder)


def test_files_that_are_not_there(truth, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'nothing\.json: no such file; expected predictions'):
    read_all(tmp_path / 'nothing.json', truth[0])
  path = write_prediction(tmp_path / 'pred.json', truth[1], truth[2])
  (truth[0] / 'evaluation_verts.json').unlink()
  with pytest.raises(FileNotFoundError, match=r'evaluation_verts\.json: no such file; --ground_tr'):
    read_all(path, truth[0])


@pytest.mark.parametrize('samples', [SAMPLES - 1, SAMPLES + 1])
def test_a_ground_truth_of_two_lengths_is_named(samples, truth, tmp_path):
  folder, joints, vertices = truth
  path = write_prediction(tmp_path / 'pred.json', joints, vertices)
  rows = [*vertices.tolist(), vertices[0].tolist()][:samples]
  (folder / 'evaluation_verts.json').write_text(json.dumps(rows))
  with pytest.raises(ValueError, match=rf'truth: expected vertices of 5 .*found {samples}'):
    read_all(path, folder)


def test_files_are_read_in_pieces(truth, tmp_path, monkeypatch):
  """However long the file, only a piece of it is held."""
  folder, joints, vertices = truth
  path = write_prediction(tmp_path / 'pred.json', joints, vertices)
  monkeypatch.setattr(json_stream, 'CHUNK', 256)
  held = []
  read_more = json_stream.JsonListReader._read_more

  def watched(self):
    result = read_more(self)
    held.append(len(self._buffer))
    return result

  monkeypatch.setattr(json_stream.JsonListReader, '_read_more', watched)
  read_all(path, folder)
  longest = max(len(json.dumps(sample.tolist())) for sample in joints)
  assert len(held) > 20 and max(held) <= longest + 2 * 256


def test_the_order_of_ho3d_by_names():
  """MANO's joints, then the tips from thumb to little finger, as HO3D's own picture shows them."""
  names = [JOINT_NAMES[index] for index in HO3D.joint_order]
  assert names[:4] == ['wrist', 'index_mcp', 'index_pip', 'index_dip']
  assert names[4:7] == ['middle_mcp', 'middle_pip', 'middle_dip']
  assert names[7] == 'pinky_mcp' and names[10] == 'ring_mcp' and names[13] == 'thumb_cmc'
  assert names[16:] == ['thumb_tip', 'index_tip', 'middle_tip', 'ring_tip', 'pinky_tip']
