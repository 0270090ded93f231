"""Prepared data sets: built without TensorFlow, whole or not at all, and read back exactly."""

import errno
import fcntl
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from hand_jax.data.prepared import PreparedSource
from hand_jax.examples import (
  HandExample,
  decode_example,
  encode_example,
  example_features,
)
from hand_jax.preparing import building as preparing
from hand_jax.preparing import data_sets, streamed_builder
from hand_jax.preparing.records import results_in_order, update_digest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'datasets'))

from synthetic_hands import synthetic_hands_dataset_builder as builder_module  # noqa: E402

SETTINGS = {'examples': {'train': 5, 'test': 2}, 'image_size': 64, 'seed': 3}
SPLIT_SEEDS = {'train': 0, 'validation': 1, 'test': 2}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('no_progress_bars')]


def fake_render(seed, split, indices, image_size, hands='classic'):
  """Smooth pictures and random labels, a function of what the real ones depend on."""
  examples = []
  for index in indices:
    rng = np.random.default_rng((seed, SPLIT_SEEDS[split], index, len(hands)))
    ramp = np.linspace(0, 200, image_size)[:, None, None] * rng.uniform(size=3)
    vertices = rng.normal(size=(778, 3)).astype(np.float32)
    examples.append(
      HandExample(
        example_id=f'{split}-{index}',
        image=np.broadcast_to(ramp, (image_size, image_size, 3)).astype(np.uint8),
        side='right' if index % 2 else 'left',
        box_xywh=rng.uniform(1, 30, size=4).astype(np.float32),
        joints_image=rng.uniform(size=(21, 2)).astype(np.float32),
        joint_confidence=np.ones(21, np.float32),
        intrinsics=np.eye(3, dtype=np.float32),
        vertices_camera=vertices,
        joints_camera=vertices[:21],
        global_orient=rng.normal(size=3).astype(np.float32),
        hand_mask=rng.uniform(size=(image_size, image_size)) > 0.5,
        vertex_visible=rng.uniform(size=778) > 0.5,
        vertex_colors=rng.uniform(size=(778, 3)).astype(np.float32),
      )
    )
  return examples


def broken_render(seed, split, indices, image_size, hands):
  if split == 'test':
    raise ValueError('the renderer broke')
  return fake_render(seed, split, indices, image_size, hands)


def prepare(data_dir, settings=SETTINGS, workers=1, render=fake_render, **build_settings):
  return preparing.prepare(
    builder_module.SyntheticHands,
    data_dir,
    settings,
    workers=workers,
    render=render,
    **build_settings,
  )


def files_under(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  return prepare(tmp_path_factory.mktemp('prepared'))


def test_examples_come_back_in_order_and_exactly(prepared):
  builder = tfds.builder('synthetic_hands', data_dir=prepared.folder.parent.parent, try_gcs=False)
  for split, count in SETTINGS['examples'].items():
    records = builder.as_data_source(split)
    assert len(records) == count
    for index, expected in enumerate(fake_render(3, split, range(count), 64)):
      example = decode_example(records[index])
      for field, value in expected._asdict().items():
        if field != 'image':
          np.testing.assert_array_equal(getattr(example, field), value, err_msg=field)
      # JPEG keeps a smooth picture to a few grey levels.
      assert np.abs(example.image.astype(int) - expected.image).max() <= 6


def test_rendered_records_hold_every_label():
  (example,) = builder_module.render_hands(0, 'test', range(3, 4), 48, 'broad')
  assert example.example_id == 'synthetic-broad-0-test-3'
  assert all(value is not None for value in example)
  record = encode_example(example)
  np.testing.assert_array_equal(record['vertex_colors'], example.vertex_colors)
  np.testing.assert_array_equal(record['vertex_visible'], example.vertex_visible)


def test_the_manifest_says_what_was_built(prepared):
  manifest = json.loads((prepared.folder / 'manifest.json').read_text())
  assert manifest == prepared.manifest
  assert prepared.is_new
  assert manifest['examples'] == SETTINGS['examples']
  assert manifest['settings'] == SETTINGS
  assert manifest['version'] == '3.0.0'
  assert set(manifest['sha256']) == {'train', 'test'}
  assert {'python', 'numpy', 'jax', 'tensorflow-datasets'} <= set(manifest['versions'])
  assert prepared.folder.parts[-2:] == ('synthetic_hands', '3.0.0')


def test_nothing_but_the_data_set_is_left(prepared):
  root = prepared.folder.parent.parent
  assert [path.name for path in root.iterdir()] == ['synthetic_hands']
  assert not [name for name in files_under(root) if 'incomplete' in name or 'unfinished' in name]


def test_several_workers_build_the_same(prepared, tmp_path, monkeypatch):
  monkeypatch.setattr(builder_module, 'CHUNK', 2)
  again = prepare(tmp_path, workers=2)
  assert again.manifest['sha256'] == prepared.manifest['sha256']
  assert again.manifest['examples'] == prepared.manifest['examples']


@pytest.mark.parametrize('count', [1, 2, 3, 7, 8])
def test_records_come_in_order_whatever_the_chunks(count, monkeypatch):
  monkeypatch.setattr(builder_module, 'CHUNK', 3)
  asked = []

  def make(indices):
    asked.append(len(indices))
    return list(indices)

  records = results_in_order(make, builder_module.chunks_of(count))
  assert list(records) == list(range(count))
  assert max(asked) <= 3


@pytest.mark.parametrize(
  'change',
  [{'seed': 4}, {'image_size': 48}, {'examples': {'test': 2, 'train': 6}}, {'hands': 'broad'}],
)
def test_the_hash_follows_the_contents(prepared, tmp_path, change):
  other = prepare(tmp_path, SETTINGS | change)
  assert other.manifest['sha256']['train'] != prepared.manifest['sha256']['train']
  if 'examples' in change:
    assert other.manifest['sha256']['test'] == prepared.manifest['sha256']['test']


def digest(record):
  sha256 = hashlib.sha256()
  update_digest(sha256, record)
  return sha256.hexdigest()


@pytest.mark.parametrize('field', example_features())
def test_every_field_enters_the_hash(field):
  record, same = (encode_example(fake_render(3, 'train', [0], 64)[0]) for _ in range(2))
  assert digest(record) == digest(same)
  value = record[field]
  if isinstance(value, io.BytesIO):
    data = bytearray(value.getvalue())
    data[-1] ^= 1
    record[field] = io.BytesIO(bytes(data))
  elif isinstance(value, np.ndarray):
    record[field] = np.where(np.arange(value.size).reshape(value.shape) == 2, value + 1, value)
  else:
    record[field] = not value if isinstance(value, bool) else value + 'x'
  assert digest(record) != digest(same)


def test_splits_of_no_examples_are_left_out(tmp_path):
  made = prepare(tmp_path, SETTINGS | {'examples': {'train': 1, 'validation': 0}})
  assert made.manifest['examples'] == {'train': 1}


def test_a_finished_data_set_is_kept(prepared):
  root = prepared.folder.parent.parent
  before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}

  def never(*_):
    raise AssertionError('rendered again')

  again = prepare(root, render=never)
  assert not again.is_new
  assert again.manifest == prepared.manifest
  assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before
  with pytest.raises(ValueError, match='was built with seed 3 instead of 9; remove it or choose'):
    prepare(root, SETTINGS | {'seed': 9})


def test_the_manifest_names_the_hands_and_older_ones_mean_classic(prepared, tmp_path):
  root = prepared.folder.parent.parent
  source = PreparedSource('synthetic_hands', str(root), 'train')
  assert 'hands' not in prepared.manifest['settings'] and source.hands == 'classic'
  assert prepare(root, SETTINGS | {'hands': 'classic'}).manifest == prepared.manifest
  with pytest.raises(ValueError, match='was built with hands classic instead of broad; remove it'):
    prepare(root, SETTINGS | {'hands': 'broad'})
  broad = prepare(tmp_path, SETTINGS | {'hands': 'broad'})
  assert broad.manifest['settings']['hands'] == 'broad'
  assert PreparedSource('synthetic_hands', str(tmp_path), 'train').hands == 'broad'


def test_flags_say_which_splits_and_hands_are_built(tmp_path, monkeypatch):
  """From the request to the renderer, whose splits of their own are asked for by count."""
  asked = set()

  class Builder(builder_module.SyntheticHands, skip_registration=True):
    def __init__(self, **settings):
      super().__init__(render=render, **settings)

  def render(seed, split, indices, image_size, hands):
    asked.add((seed, split, tuple(indices), image_size, hands))
    return fake_render(seed, 'test', indices, image_size, hands)

  request = data_sets.PrepareRequest(
    str(tmp_path),
    train_examples=2,
    validation_examples=0,
    test_examples=0,
    test_broad_examples=1,
    test_mismatch_examples=3,
    hands='broad',
    image_size=64,
    seed=5,
  )
  made = data_sets.prepare_data_set('synthetic_hands', Builder, request)
  assert made.manifest['examples'] == {'train': 2, 'test_broad': 1, 'test_mismatch': 3}
  assert made.manifest['settings']['hands'] == 'broad'
  counts = {'train': 2, 'test_broad': 1, 'test_mismatch': 3}
  assert asked == {(5, s, tuple(range(n)), 64, 'broad') for s, n in counts.items()}


def test_a_folder_made_by_something_else_is_refused(tmp_path):
  (tmp_path / 'synthetic_hands' / '3.0.0').mkdir(parents=True)
  with pytest.raises(ValueError, match=r'has no manifest\.json'):
    prepare(tmp_path)


def test_a_build_that_fails_leaves_nothing(tmp_path):
  with pytest.raises(ValueError, match='the renderer broke'):
    prepare(tmp_path, render=broken_render)
  assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_replaced(tmp_path):
  left = tmp_path / '.synthetic_hands.unfinished' / 'synthetic_hands' / 'incomplete.X_3.0.0'
  left.mkdir(parents=True)
  (left / 'half').write_text('written')
  prepare(tmp_path, SETTINGS | {'examples': {'test': 1}})
  assert [path.name for path in tmp_path.iterdir()] == ['synthetic_hands']


def test_two_builds_at_once_are_refused(tmp_path):
  with (tmp_path / '.synthetic_hands.lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(RuntimeError, match='Another build is running'):
      prepare(tmp_path)
  assert prepare(tmp_path, SETTINGS | {'examples': {'test': 1}}).is_new


def test_records_are_written_as_they_come(tmp_path, monkeypatch, prepared):
  """Into several files, and whatever their size: tfds would keep a split, beyond 1 GB in vain."""
  from tensorflow_datasets.core import shuffle

  monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 1)
  monkeypatch.setattr(streamed_builder, 'EXAMPLES_PER_FILE', 2)
  monkeypatch.setattr(streamed_builder, '_BLOCK', 1)
  files = []

  def report(split, done, count):
    files.append(len([name for name in files_under(tmp_path) if 'array_record' in name]))

  made = prepare(tmp_path, report=report)
  # Five of train, two of test.
  assert files == [1, 1, 2, 2, 3, 4, 4]
  assert made.manifest['examples'] == SETTINGS['examples']
  assert made.manifest['sha256'] == prepared.manifest['sha256']
  builder = tfds.builder('synthetic_hands', data_dir=tmp_path, try_gcs=False)
  names = [decode_example(record).example_id for record in builder.as_data_source('train')]
  assert names == [f'train-{index}' for index in range(5)]


def test_too_little_room_is_told_before_anything_is_built(tmp_path, prepared):
  with pytest.raises(OSError, match=r'data has [\d,]+ MB free, .* take 1,000,000,000,000 MB: free'):
    prepare(tmp_path / 'data', needed_bytes=10**18, render=broken_render)
  assert list((tmp_path / 'data').iterdir()) == []
  root = prepared.folder.parent.parent
  assert not prepare(root, needed_bytes=10**18).is_new


def test_the_size_of_many_photos_is_that_of_a_few(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  photos = [tmp_path / f'{number:04d}.jpg' for number in range(400)]
  for photo in photos[:-1]:
    photo.write_bytes(b' ' * int(rng.integers(50, 150)))
  true = [photo.stat().st_size for photo in photos[:-1]]
  assert preparing.size_of_photos(photos) == sum(true)  # the last one is missing
  assert preparing.size_of_photos(photos, 7) == sum(true[:7])
  assert preparing.size_of_photos([]) == 0
  # Of 100 between 50 and 150 the mean strays by 3.
  monkeypatch.setattr(preparing, '_SIZED_PHOTOS', 100)
  assert preparing.size_of_photos(photos) == pytest.approx(sum(true), rel=0.1)
  assert preparing.size_of_photos(photos) != sum(true)


@pytest.mark.parametrize(
  'place, reason', [('file', 'it is a file'), ('file/in_it', 'Not a directory')]
)
def test_a_file_in_the_place_of_the_folder_is_named(tmp_path, place, reason):
  (tmp_path / 'file').write_text('precious')
  with pytest.raises(OSError, match=rf'into {tmp_path / place} \({reason}\): --data_dir should'):
    prepare(tmp_path / place)
  assert files_under(tmp_path) == ['file']


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
  def refuse(path, *_):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

  monkeypatch.setattr(pathlib.Path, 'open', refuse)
  with pytest.raises(OSError, match=rf'into {tmp_path} \(Read-only file system\): --data_dir'):
    prepare(tmp_path)


def test_progress_counts_every_example(tmp_path):
  reports = []
  prepare(tmp_path, report=lambda *report: reports.append(report))
  assert reports == [('train', i, 5) for i in range(1, 6)] + [('test', i, 2) for i in (1, 2)]


def test_the_progress_line(capsys):
  now = [100.0]
  progress = preparing.Progress(interval_s=1.5, clock=lambda: now[0])
  for split, count in (('train', 4), ('test', 2)):
    for done in range(1, count + 1):
      now[0] += 1.0
      progress(split, done, count)
  lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
  # Every 1.5 s at most, and at the end; the time before a split's first example counts.
  assert lines == [
    'train: 2 of 4 examples (1.0/s, 2 s left)',
    'train: 4 of 4 examples (1.0/s)',
    'test: 2 of 2 examples (1.0/s)',
  ]


WITHOUT_TENSORFLOW = """
import pathlib, sys
from tests.preparing import test_prepare_dataset as tests
folder = pathlib.Path(sys.argv[1])
tests.prepare(folder)
builder = tests.tfds.builder('synthetic_hands', data_dir=folder, try_gcs=False)
print(tests.decode_example(builder.as_data_source('train')[4]).example_id)
print(sorted({'tensorflow', 'torch'} & set(sys.modules)))
"""


def test_tensorflow_is_never_imported(tmp_path):
  """Not even where it is installed: the TensorFlow on the path here cannot be imported."""
  decoy = tmp_path / 'path' / 'tensorflow'
  decoy.mkdir(parents=True)
  (decoy / '__init__.py').write_text("raise AssertionError('TensorFlow was imported')")
  command = [sys.executable, '-c', WITHOUT_TENSORFLOW, str(tmp_path / 'data')]
  environment = os.environ | {'PYTHONPATH': str(decoy.parent)}
  result = subprocess.run(
    command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
  )
  assert result.stdout.split() == ['train-4', '[]'], result.stderr


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--dataset=frei', '--data_dir=x'], 'synthetic_hands'),
    (['--dataset=synthetic_hands'], 'data_dir'),
    (['--dataset=synthetic_hands', '--data_dir=x', '--image_size=3'], 'image_size'),
    (
      ['--dataset=synthetic_hands', '--data_dir=x', '--validation_fraction=0.1'],
      'Error: --validation_fraction belongs to --dataset=hand_photos; --dataset=synthetic_hands '
      'takes --train_examples, --validation_examples',
    ),
    (['--dataset=synthetic_hands', '--data_dir=x', 'extra'], "Unexpected argument 'extra'"),
    (
      [
        *('--dataset=synthetic_hands', '--data_dir=x', '--train_examples=0'),
        *('--validation_examples=0', '--test_examples=0'),
      ],
      'Error: Nothing to build',
    ),
  ],
)
def test_bad_settings_are_named(arguments, message, run_command):
  result = run_command('experiments.prepare_dataset', *arguments)
  assert result.returncode != 0
  assert message in result.stderr
  assert 'Traceback' not in result.stderr
