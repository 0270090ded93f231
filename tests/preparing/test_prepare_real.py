"""Preparing FreiHAND and HO3D from the dummy folders: whole or not at all, every fault named."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hand_jax.data.augmentation import make_row
from hand_jax.data.prepared import PreparedSource
from hand_jax.examples import Skip
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.mano_files import write_converted_mano
from hand_jax.preparing import building as preparing
from hand_jax.preparing.records import numbered_records
from hand_jax.readers import freihand, ho3d_folder
from tests.make_dummy_data import write_freihand, write_ho3d
from tests.readers.test_freihand import damage_photo

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'datasets'))

from freihand.freihand_dataset_builder import Freihand  # noqa: E402
from ho3d.ho3d_dataset_builder import Ho3d  # noqa: E402

FREIHAND = ROOT / 'datasets' / 'freihand' / 'dummy_data'
HO3D = ROOT / 'datasets' / 'ho3d' / 'dummy_data'


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('no_progress_bars')]


def prepare_freihand(data_dir, source=FREIHAND, limit=0, **build_settings):
  settings = {
    'validation_fraction': 0.01,
    'limit': limit,
    'annotations_sha256': freihand.annotations_digest(source),
  }
  return preparing.prepare(Freihand, data_dir, settings, source=str(source), **build_settings)


def prepare_ho3d(data_dir, version, mano_dir, limit=0, **build_settings):
  source = HO3D / version
  settings = {
    'validation_fraction': 0.01,
    'limit': limit,
    'annotations_sha256': ho3d_folder.annotations_digest(source),
  }
  return preparing.prepare(
    Ho3d,
    data_dir,
    settings,
    config=version,
    source=str(source),
    mano_dir=mano_dir,
    **build_settings,
  )


def read(data_dir, dataset, split):
  source = PreparedSource(dataset, str(data_dir), split)
  return source.load(range(len(source)))


def test_freihand_is_prepared_and_read_back(tmp_path):
  prepared = prepare_freihand(tmp_path)
  assert prepared.folder == tmp_path / 'freihand' / '1.0.0'
  assert prepared.manifest['examples'] == {'train': 4, 'validation': 4, 'test': 2}
  assert set(prepared.manifest['sha256']) == {'train', 'validation', 'test'}
  assert prepared.manifest['skipped'] == {}
  names = [example.example_id for example in read(tmp_path, 'freihand', 'train')]
  assert names == [f'training/{number:08d}' for number in (0, 2, 4, 6)]
  for split in ('validation', 'test'):
    for number, example in enumerate(read(tmp_path, 'freihand', split)):
      row = make_row(example, number, 64, 2.0, 778)
      assert row.has_3d and row.has_mask == (split == 'validation')
      assert np.abs(row.joints_normalized).max() < 1
      assert example.image.shape == (224, 224, 3)
  again = prepare_freihand(tmp_path)
  assert not again.is_new and again.manifest == prepared.manifest
  with pytest.raises(ValueError, match='was built with limit 0 instead of 1'):
    prepare_freihand(tmp_path, limit=1)


@pytest.mark.parametrize('version', ['v2', 'v3'])
def test_ho3d_is_prepared_and_read_back(tmp_path, version, mano_dir):
  prepared = prepare_ho3d(tmp_path, version, mano_dir)
  assert prepared.folder == tmp_path / 'ho3d' / version / '1.0.0'
  assert prepared.manifest['dataset'] == f'ho3d/{version}'
  assert prepared.manifest['examples'] == {'train': 3, 'validation': 1, 'test': 2}
  assert prepared.manifest['skipped'] == {
    'train': {
      'count': 2,
      'examples': {
        'train/DMB10/0009': 'DMB10/meta/0009.pkl is missing',
        'train/DMB10/0001': 'not annotated (None)',
      },
    }
  }
  train = read(tmp_path, f'ho3d_{version}', 'train')
  names = [f'train/{frame}' for frame in ('DMA10/0000', 'DMB10/0002', 'DMB10/0000')]
  assert [example.example_id for example in train] == names
  for number, example in enumerate(train):
    row = make_row(example, number, 64, 2.0, 778)
    assert row.has_3d and row.has_mask == (version == 'v3')
    assert example.image.shape == (480, 640, 3)
  for example in read(tmp_path, f'ho3d_{version}', 'test'):
    row = make_row(example, 0, 64, 2.0, 778)
    assert row.has_root and not row.has_3d
    # Labels of the evaluation lie beside v3 alone.
    assert example.joint_confidence.sum() == (21 if version == 'v3' else 1)


def test_one_config_does_not_hide_the_other(tmp_path, mano_dir):
  for version in ('v3', 'v2'):
    assert prepare_ho3d(tmp_path, version, mano_dir, limit=1).is_new
  assert sorted(path.name for path in (tmp_path / 'ho3d').iterdir()) == ['v2', 'v3']
  assert [path.name for path in tmp_path.iterdir()] == ['ho3d']


def test_several_workers_build_the_same(tmp_path, monkeypatch):
  monkeypatch.setattr(freihand, 'CHUNK', 3)
  one = prepare_freihand(tmp_path / 'one')
  two = prepare_freihand(tmp_path / 'two', workers=2)
  assert two.manifest['sha256'] == one.manifest['sha256']


def test_a_limit_takes_the_first_of_each_split(tmp_path):
  prepared = prepare_freihand(tmp_path, limit=3)
  assert prepared.manifest['examples'] == {'train': 3, 'validation': 3, 'test': 2}
  names = [example.example_id for example in read(tmp_path, 'freihand', 'train')]
  assert names == [f'training/{number:08d}' for number in (0, 2, 4)]


@pytest.fixture
def damaged(tmp_path):
  """A folder with one photo cut short."""
  source = shutil.copytree(FREIHAND, tmp_path / 'source')
  damage_photo(lambda data: data[:500])(source)
  return source


def test_a_skip_changes_nothing_else(damaged, tmp_path):
  prepare_freihand(tmp_path / 'whole')
  prepared = prepare_freihand(tmp_path / 'damaged', damaged)
  skipped = prepared.manifest['skipped']
  assert list(skipped) == ['train'] and skipped['train']['count'] == 1
  (reason,) = skipped['train']['examples'].values()
  assert reason.startswith('training/rgb/00000004.jpg cannot be read')
  assert prepared.manifest['examples'] == {'train': 3, 'validation': 4, 'test': 2}
  whole = read(tmp_path / 'whole', 'freihand', 'train')
  others = read(tmp_path / 'damaged', 'freihand', 'train')
  for expected, example in zip([whole[0], whole[1], whole[3]], others, strict=True):
    for field, value in expected._asdict().items():
      np.testing.assert_array_equal(getattr(example, field), value, err_msg=field)


def test_strict_makes_a_skip_an_error_that_leaves_nothing(damaged, tmp_path, mano_dir):
  with pytest.raises(ValueError, match=r'training/00000004: .*cannot be read'):
    prepare_freihand(tmp_path / 'data', damaged, strict=True)
  with pytest.raises(ValueError, match=r'train/DMB10/0009: DMB10/meta/0009\.pkl is missing'):
    prepare_ho3d(tmp_path / 'data', 'v2', mano_dir, strict=True)
  assert list((tmp_path / 'data').iterdir()) == []


def test_nothing_but_skips_is_an_error(tmp_path):
  arrays = {name: np.asarray(value) for name, value in load_mano_model()._asdict().items()}
  arrays['v_template'] = arrays['v_template'] * 1.3
  write_converted_mano(tmp_path / 'MANO_RIGHT.npz', arrays, 'right')
  with pytest.raises(ValueError, match=r"None of the 5 examples of split 'train'.*mm from its"):
    prepare_ho3d(tmp_path / 'data', 'v3', str(tmp_path))
  assert list((tmp_path / 'data').iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
  from tensorflow_datasets.core import sequential_writer

  written = []

  def add_example(self, serialized):
    written.append(serialized)
    if len(written) == 6:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return original(self, serialized)

  original = sequential_writer.Shard.add_example
  monkeypatch.setattr(sequential_writer.Shard, 'add_example', add_example)
  with pytest.raises(OSError, match='No space left on device'):
    prepare_freihand(tmp_path)
  assert list(tmp_path.iterdir()) == []
  monkeypatch.undo()
  assert prepare_freihand(tmp_path).is_new


def test_the_command_needs_no_tensorflow_and_says_what_it_left_out(tmp_path, run_command):
  decoy = tmp_path / 'path' / 'tensorflow'
  decoy.mkdir(parents=True)
  (decoy / '__init__.py').write_text("raise AssertionError('TensorFlow was imported')")
  arguments = ['--dataset=ho3d_v2', f'--source={HO3D / "v2"}', f'--data_dir={tmp_path / "data"}']
  result = subprocess.run(
    [sys.executable, '-m', 'experiments.prepare_dataset', *arguments],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(decoy.parent)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert 'v2: train and evaluation found.' in result.stdout, result.stderr
  assert result.stdout.count('No --mano_dir: the data set will have joints but no vert') == 1
  assert '(3 train, 1 validation, 2 test examples' in result.stdout
  assert 'train: 2 left out; the first, train/DMB10/0009: DMB10/meta/0009.pkl is' in result.stdout
  folder = tmp_path / 'data' / 'ho3d' / 'v2' / '1.0.0'
  settings = json.loads((folder / 'manifest.json').read_text())['settings']
  assert settings['mano_sha256'] is None and settings['validation_fraction'] == 0.01
  result = run_command('experiments.prepare_dataset', *arguments, '--strict')
  assert 'was built without --strict and left out 2 of train' in result.stderr


ON_A_FULL_DISK = """
import shutil
from absl import app
from experiments import prepare_dataset
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(1000, 1000, 0)
prepare_dataset.define_flags()
app.run(prepare_dataset.main)
"""


@pytest.mark.parametrize('dataset, source', [('freihand', FREIHAND), ('ho3d_v2', HO3D / 'v2')])
def test_the_command_knows_what_the_photos_take(dataset, source, tmp_path):
  result = subprocess.run(
    [sys.executable, '-c', ON_A_FULL_DISK]
    + [f'--dataset={dataset}', f'--source={source}', f'--data_dir={tmp_path / "data"}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert f'Error: {tmp_path / "data"} has 0 MB free, but the photos alone' in result.stderr
  assert 'found. Reading the annotations ...' in result.stdout
  assert list((tmp_path / 'data').iterdir()) == []


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--dataset=freihand'], 'Error: --dataset=freihand needs --source=FOLDER, the unpacked'),
    (['--dataset=freihand', '--source=/nowhere'], 'Error: Folder /nowhere does not exist; expec'),
    (['--dataset=freihand', f'--source={HO3D}'], 'holds neither training/rgb/'),
    (
      ['--dataset=ho3d_v3', f'--source={HO3D / "v3"}', '--mano_dir=/nowhere'],
      'Error: /nowhere: no such folder (from --mano_dir)',
    ),
    (
      ['--dataset=freihand', f'--source={FREIHAND}', '--mano_dir=/nowhere'],
      'Error: --mano_dir belongs to --dataset=ho3d_v2; --dataset=freihand takes --source,',
    ),
  ],
)
def test_the_command_names_mistakes(arguments, message, tmp_path, run_command):
  data_dir = f'--data_dir={tmp_path / "data"}'
  result = run_command('experiments.prepare_dataset', *arguments, data_dir)
  assert result.returncode != 0
  assert message in result.stderr
  assert 'Traceback' not in result.stderr
  assert not (tmp_path / 'data').exists()


def test_the_dummy_data_is_what_the_script_makes(tmp_path):
  """And small, and nothing else is in it."""
  model = load_mano_model()
  write_freihand(tmp_path / 'freihand', model, samples=2)
  write_ho3d(tmp_path / 'v2', 'v2', model)
  write_ho3d(tmp_path / 'v3', 'v3', model, with_truth=True)
  size = 0
  for made, kept in (('freihand', FREIHAND), ('v2', HO3D / 'v2'), ('v3', HO3D / 'v3')):
    files = [path.relative_to(kept) for path in kept.rglob('*') if path.is_file()]
    fresh = [path.relative_to(tmp_path / made) for path in (tmp_path / made).rglob('*.*')]
    assert sorted(files) == sorted(fresh)
    size += sum((kept / name).stat().st_size for name in files)
    for name in files:
      if name.suffix == '.json':
        contents = [json.loads((folder / name).read_text()) for folder in (kept, tmp_path / made)]
        np.testing.assert_allclose(*contents, atol=2e-5)
  assert size < 300_000


def test_skips_take_no_number_and_do_not_enter_the_hash():
  records = [{'a': np.zeros(2)}, Skip('x', 'broken'), {'a': np.ones(2)}, Skip('y', 'gone')]
  digests, skips, reports = {}, [], []
  numbered = list(
    numbered_records('train', records, 4, digests, lambda *r: reports.append(r), skips)
  )
  assert [number for number, _ in numbered] == [0, 1]
  assert [record for _, record in numbered] == [records[0], records[2]]
  assert skips == [records[1], records[3]]
  assert reports == [('train', done, 4) for done in (1, 2, 3, 4)]
  others = {}
  list(numbered_records('train', [records[0], records[2]], 2, others))
  assert digests == others
