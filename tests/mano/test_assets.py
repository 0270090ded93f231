"""Hand models from files: the free hand, MANO's format, the left hand's fault, conversion."""

import pathlib
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.mano.assets import (
  load_hand_appearance,
  load_mano_model,
  resolve_mano_dir,
  with_fingertips,
)
from hand_jax.mano.joints import FINGERTIP_VERTICES
from hand_jax.mano.mano_files import write_converted_mano
from hand_jax.mano.model import mirror_mano_model
from hand_jax.types import ManoModel
from tests.official_mano import Ch, official_content, python2_dumps
from tests.toy_mano import make_toy_mano

TOY = make_toy_mano()._replace(
  fingertip_vertices=jnp.asarray(FINGERTIP_VERTICES['freihand'], jnp.int32)
)
LEFT = mirror_mano_model(TOY)
FAULTY_LEFT = LEFT._replace(shapedirs=LEFT.shapedirs * jnp.asarray([-1.0, 1, 1])[None, :, None])
ROOT = pathlib.Path(__file__).parents[2]


def write_official(path: pathlib.Path, model: ManoModel, **changes) -> pathlib.Path:
  content = {**official_content(model), **changes}
  path.write_bytes(python2_dumps({k: v for k, v in content.items() if v is not None}))
  return path


def assert_models_equal(actual: ManoModel, expected: ManoModel):
  for name, value in expected._asdict().items():
    array = getattr(actual, name)
    assert array.dtype == value.dtype, name
    np.testing.assert_array_equal(array, value, err_msg=name)


@pytest.mark.parametrize('side', ['right', 'left'])
def test_the_free_hand_has_manos_structure(side):
  model = load_mano_model(side=side)
  shapes = {name: value.shape for name, value in model._asdict().items()}
  assert shapes == {name: value.shape for name, value in TOY._asdict().items()}
  np.testing.assert_allclose(model.joint_regressor.sum(1), 1, atol=1e-5)
  np.testing.assert_allclose(model.lbs_weights.sum(1), 1, atol=1e-5)
  wrist, middle = (model.joint_regressor @ model.v_template)[jnp.asarray([0, 4])]
  assert (middle[0] < wrist[0]) == (side == 'right')


def test_the_appearance_fits_the_free_hand():
  model, appearance = load_mano_model(), load_hand_appearance()
  vertices = model.v_template.shape[0]
  assert appearance.uv.shape == (vertices, 2)
  for mask in (appearance.nail, appearance.palm):
    assert mask.shape == (vertices,)
    assert float(mask.min()) >= 0
    assert float(mask.max()) <= 1
  faces = np.asarray(appearance.forearm_faces)
  assert faces.max() < vertices + appearance.forearm_vertices.shape[0]


@pytest.mark.parametrize('form', ['file', 'folder', 'models subfolder'])
def test_an_official_right_hand_is_read(form, tmp_path):
  folder = tmp_path / 'models' if form == 'models subfolder' else tmp_path
  folder.mkdir(exist_ok=True)
  path = write_official(folder / 'MANO_RIGHT.pkl', TOY)
  assert_models_equal(load_mano_model(path if form == 'file' else tmp_path), TOY)


def test_the_left_hands_fault_is_mended(tmp_path):
  path = write_official(tmp_path / 'MANO_LEFT.pkl', FAULTY_LEFT)
  assert_models_equal(load_mano_model(path, 'left'), LEFT)
  # With the right hand beside it the fault is seen, and mended as well.
  write_official(tmp_path / 'MANO_RIGHT.pkl', TOY)
  assert_models_equal(load_mano_model(tmp_path, 'left'), LEFT)


def test_a_left_hand_without_the_fault_is_left_alone(tmp_path):
  write_official(tmp_path / 'MANO_RIGHT.pkl', TOY)
  write_official(tmp_path / 'MANO_LEFT.pkl', LEFT)
  assert_models_equal(load_mano_model(tmp_path, 'left'), LEFT)


@pytest.mark.parametrize('form', ['MANO_RIGHT.npz', 'mano_right.npz', 'mano_right.pkl'])
def test_the_right_hand_in_any_form_tells_that_a_left_one_is_mended(form, tmp_path):
  arrays = {name: np.asarray(value) for name, value in TOY._asdict().items()}
  if form.endswith('npz'):
    write_converted_mano(tmp_path / form, arrays, 'right')
  else:
    write_official(tmp_path / form, TOY)
  path = write_official(tmp_path / 'MANO_LEFT.pkl', LEFT)
  assert_models_equal(load_mano_model(path, 'left'), LEFT)


def test_without_the_right_hand_a_warning_says_what_was_assumed(tmp_path, caplog):
  path = write_official(tmp_path / 'MANO_LEFT.pkl', FAULTY_LEFT)
  with caplog.at_level('WARNING', logger='absl'):  # commands keep it quiet
    load_mano_model(path, 'left')
  (warning,) = [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']
  assert str(path) in warning and 'put MANO_RIGHT beside it' in warning


def test_a_file_in_lower_case_is_found(tmp_path):
  write_official(tmp_path / 'mano_right.pkl', TOY)
  assert_models_equal(load_mano_model(tmp_path), TOY)


@pytest.mark.parametrize('factor', [1000.0, 100.0, 0.1])
def test_a_hand_that_is_not_in_metres_is_refused(factor, tmp_path):
  path = write_official(
    tmp_path / 'MANO_RIGHT.pkl', TOY, v_template=factor * np.asarray(TOY.v_template)
  )
  with pytest.raises(ValueError, match=r'm long, expected metres .*are its lengths in mm or cm'):
    load_mano_model(path)


@pytest.mark.parametrize(
  ('data', 'what'),
  [
    (b'<!DOCTYPE html><html><body>Sign in</body></html>', 'a web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n', 'Git LFS pointer'),
    (b'PK\x03\x04' + bytes(60), 'a zip archive'),
    (b'PK\x03\x04' + bytes(26) + b'v_template.npy', r'has to end in \.npz'),
    (b'', 'the file is empty'),
    (b'\xef\xbb\xbf {"v_template": [1]}', 'it holds JSON'),
    (b'[1, 2]', 'it holds JSON'),
    (b'\x89PNG\r\n\x1a\n' + bytes(60), r'a picture \(PNG\)'),
    (b'\xff\xd8\xff\xe0' + bytes(60), r'a picture \(JPEG\)'),
  ],
)
def test_what_was_downloaded_instead_of_the_model_is_named(data, what, tmp_path):
  (tmp_path / 'MANO_RIGHT.pkl').write_bytes(data)
  with pytest.raises(ValueError, match=rf'MANO_RIGHT\.pkl: .*{what}.*, not a pickle$'):
    load_mano_model(tmp_path)


@pytest.mark.parametrize('side', ['right', 'left'])
def test_conversion_keeps_the_model_and_mends_once(side, tmp_path, run_command):
  source = write_official(
    tmp_path / f'MANO_{side.upper()}.pkl', TOY if side == 'right' else FAULTY_LEFT
  )
  target = tmp_path / 'converted' / f'mano_{side}.npz'
  target.parent.mkdir()
  flags = [f'--input={source}', f'--output={target}']
  result = run_command('experiments.convert_mano', *flags)
  assert result.returncode == 0, result.stderr
  expected = TOY if side == 'right' else LEFT
  assert_models_equal(load_mano_model(target, side), expected)
  assert_models_equal(load_mano_model(target.parent.parent, side), expected)
  np.load(target, allow_pickle=False).close()
  assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_conversion_of_a_bad_file_says_so_in_one_line_and_writes_nothing(tmp_path, run_command):
  source, target = tmp_path / 'MANO_RIGHT.pkl', tmp_path / 'out.npz'
  source.write_bytes(b'garbage')
  result = run_command('experiments.convert_mano', f'--input={source}', f'--output={target}')
  assert result.returncode != 0
  assert result.stderr.strip().count('\n') == 0
  assert 'MANO_RIGHT.pkl' in result.stderr
  assert not target.exists()


BAD_FILES = {
  'a missing key': ({'posedirs': None}, "lacks 'posedirs'"),
  'other shapes': (
    {'v_template': np.zeros((6890, 3))},
    r'v_template has shape \(6890, 3\), expected \(778, 3\)',
  ),
  'not an array': ({'weights': 'none'}, 'weights is not an array of numbers'),
  'NaN': ({'hands_mean': np.full(45, np.nan)}, 'hands_mean holds a value that is not finite'),
  'another skeleton': (
    {'kintree_table': np.zeros((2, 16), np.uint32)},
    'not connected as MANO',
  ),
  'faces outside': ({'f': np.full((1538, 3), 778, np.uint32)}, 'names a vertex outside 0..777'),
  'weights that do not sum': ({'weights': np.ones((778, 16))}, 'rows of lbs_weights do not sum'),
  'an unknown chumpy value': ({'shapedirs': Ch()}, 'no content'),
}


@pytest.mark.parametrize('name', BAD_FILES)
def test_bad_files_are_named_with_what_is_wrong(name, tmp_path):
  changes, message = BAD_FILES[name]
  path = write_official(tmp_path / 'MANO_RIGHT.pkl', TOY, **changes)
  with pytest.raises(ValueError, match=message) as caught:
    load_mano_model(path)
  assert str(caught.value).startswith(str(path))
  assert '\n' not in str(caught.value)


def test_the_wrong_side_is_refused(tmp_path):
  path = write_official(tmp_path / 'MANO_LEFT.pkl', TOY)
  with pytest.raises(ValueError, match='a right hand, expected a left one'):
    load_mano_model(tmp_path, 'left')
  with pytest.raises(ValueError, match="side is 'both', expected 'right' or 'left'"):
    load_mano_model(path, 'both')


def test_a_file_that_is_not_a_model_is_refused(tmp_path):
  for name, data in {
    'list.pkl': pickle.dumps([1, 2]),
    'cut.pkl': python2_dumps(official_content(TOY))[:100_000],
    'text.npz': b'not a zip file',
  }.items():
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=name.replace('.', r'\.')):
      load_mano_model(tmp_path / name)
  np.savez(tmp_path / 'other.npz', a=np.zeros(3))
  with pytest.raises(ValueError, match='not a converted MANO model'):
    load_mano_model(tmp_path / 'other.npz')


def test_a_converted_file_that_unfolds_without_end_is_refused(tmp_path):
  np.savez_compressed(tmp_path / 'bomb.npz', v_template=np.zeros(10_000_000))
  with pytest.raises(ValueError, match=r'bomb\.npz: not a readable \.npz file \(it unfolds to'):
    load_mano_model(tmp_path / 'bomb.npz')


def test_whole_numbers_become_floats_but_not_the_other_way_round(tmp_path):
  path = write_official(tmp_path / 'MANO_RIGHT.pkl', TOY, hands_mean=np.zeros(45, np.int64))
  assert load_mano_model(path).hands_mean.dtype == jnp.float32
  write_official(path, TOY, f=np.asarray(TOY.faces, np.float64))
  with pytest.raises(ValueError, match='faces holds float64 numbers, expected whole ones'):
    load_mano_model(path)


def test_missing_files_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no MANO_RIGHT\.pkl or MANO_RIGHT\.npz in it'):
    load_mano_model(tmp_path)
  for name in ('MANO_RIGHT.pkl', 'mano.npz'):
    with pytest.raises(FileNotFoundError, match=name):
      load_mano_model(tmp_path / name)


def test_mano_dir_comes_from_the_flag_then_the_environment(tmp_path, monkeypatch):
  monkeypatch.delenv('MANO_DIR', raising=False)
  assert resolve_mano_dir(None) is None
  assert resolve_mano_dir('') is None
  monkeypatch.setenv('MANO_DIR', str(tmp_path))
  assert resolve_mano_dir(None) == str(tmp_path)
  with pytest.raises(FileNotFoundError, match=r'nowhere: no such folder \(from --mano_dir\)'):
    resolve_mano_dir('nowhere')
  monkeypatch.setenv('MANO_DIR', 'gone')
  with pytest.raises(FileNotFoundError, match=r'gone: no such folder \(from \$MANO_DIR\)'):
    resolve_mano_dir(None)


def test_fingertips_are_chosen_by_data_set():
  assert with_fingertips(TOY, 'ho3d').fingertip_vertices.tolist() == [744, 333, 444, 555, 672]
  with pytest.raises(ValueError, match="fingertips 'coco' are not known"):
    with_fingertips(TOY, 'coco')
