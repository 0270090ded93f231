"""Nothing of the user's is lost, and nothing is done twice: names, records, folders, patterns."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from hand_jax.reconstruction import hand_reconstructor, running
from hand_jax.reconstruction.files import output_suffixes
from hand_jax.reconstruction.output_names import hand_names, possible_names
from hand_jax.reconstruction.records import OutputRecord
from hand_jax.reconstruction.running import PhotoOutcome, prepare_run
from hand_jax.reconstruction.tasks import PhotoOptions, plan_tasks
from tests.found_hands import found_hand
from tests.toy_runs import fresh_state, save_toy_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('small_pictures')]


@pytest.fixture
def found(model, monkeypatch):
  """The sides of the hands that every photo shows; a test may change them."""
  sides = ['right']
  monkeypatch.setattr(
    hand_reconstructor,
    'detect_hands',
    lambda image, _: [found_hand(image, model, side) for side in sides],
  )
  return sides


@pytest.fixture
def folder(photo, tmp_path, monkeypatch, found):
  monkeypatch.chdir(tmp_path)
  Image.fromarray(photo).save('hand.jpg')
  return tmp_path


def reconstruct(*photos: str, output: str = 'out', **options) -> list[PhotoOutcome]:
  return list(prepare_run(PhotoOptions(photos, output, **options)).outcomes())


def contents(folder: str) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def everything(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
  return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_every_written_name_was_checked(folder, found):
  """The names that are written are among those that are checked beforehand."""
  for sides in (['right'], ['left', 'right']):
    found[:] = sides
    reconstruct('hand.jpg', overwrite=True)
    entry = json.loads(pathlib.Path('out/summary.json').read_text())[0]
    suffixes = tuple(name.removeprefix('hand') for name in contents('out') if '_1' not in name)
    assert set(entry['files']) <= set(possible_names('hand', suffixes, 10)) | {
      f'hand_{number}_{side}{suffix}'
      for number, side in enumerate(sides, 1)
      for suffix in output_suffixes(True, True)
    }
    # What an earlier run left of other hands is gone.
    assert set(contents('out')) == {*entry['files'], 'summary.json'}
  assert hand_names('a', ['left']) == ['a']
  assert hand_names('a', ['left', 'right']) == ['a_1_left', 'a_2_right']


def test_a_user_s_own_file_is_never_replaced_unasked(folder):
  """Results beside the photo, where a file of the user's has the name of one."""
  pathlib.Path('hand.json').write_text('mine')
  with pytest.raises(FileExistsError, match=r'^hand\.json is in the way .*--overwrite\.$'):
    reconstruct('hand.jpg', output='.')
  assert sorted(contents('.')) == ['hand.jpg', 'hand.json']
  assert pathlib.Path('hand.json').read_text() == 'mine'
  reconstruct('hand.jpg', output='.', overwrite=True)
  assert json.loads(pathlib.Path('hand.json').read_text())['hand'] == 'right'


def test_a_photo_is_not_replaced_even_when_asked(folder, photo):
  Image.fromarray(photo).save('hand_overlay.png')
  before = contents('.')
  for spelled in ('hand_overlay.png', './hand_overlay.png', str(folder / 'hand_overlay.png')):
    with pytest.raises(FileExistsError, match=r'would replace the photo'):
      reconstruct('hand.jpg', spelled, output='.', overwrite=True)
  assert contents('.') == before
  shutil.copy('hand.jpg', 'hand_1_left.jpg')
  with pytest.raises(ValueError, match=r'hand_1_left\.jpg would both be written as hand_1_left'):
    reconstruct('hand.jpg', 'hand_1_left.jpg')


def test_other_inputs_are_not_replaced_even_when_asked(folder, mano_dir, monkeypatch):
  """Those of a run and of a hand model, by flag or environment, in any folder below theirs."""
  run = save_toy_run(folder / 'run', 'toy_texture', fresh_state('toy_texture'))
  shutil.copytree(mano_dir, 'mano/models')
  for name in ('config', 'MANO_RIGHT'):
    shutil.copy('hand.jpg', f'{name}.jpg')
  cases = [
    ('config.jpg', {'output': run, 'workdir': run}, '--workdir'),
    ('config.jpg', {'output': f'{run}/../run', 'workdir': './run'}, '--workdir'),
    ('MANO_RIGHT.jpg', {'output': 'mano/models', 'mano_dir': 'mano'}, '--mano_dir'),
    (
      'MANO_RIGHT.jpg',
      {'output': 'mano/models', 'mano_dir': 'mano/models/MANO_RIGHT.npz'},
      '--mano_dir',
    ),
    ('MANO_RIGHT.jpg', {'output': 'mano/models'}, r'\$MANO_DIR'),
  ]
  before = everything(folder)
  for photo, options, flag in cases:
    if 'workdir' not in options and 'mano_dir' not in options:
      monkeypatch.setenv('MANO_DIR', 'mano')
    with pytest.raises(FileExistsError, match=rf'{photo} would replace .*, which {flag} reads\. '):
      reconstruct(photo, **options, overwrite=True)
  monkeypatch.delenv('MANO_DIR')
  assert everything(folder) == before
  # Beside them there is room, again and again.
  for _ in range(2):
    reconstruct('hand.jpg', output='mano', mano_dir='mano', overwrite=True)
  assert pathlib.Path('mano/hand.json').is_file()


def test_a_mask_is_not_replaced_even_when_asked(folder, photo):
  """Not even where an earlier run wrote the file that is a mask now."""
  run = save_toy_run(folder / 'run', 'toy_texture', fresh_state('toy_texture'))
  mask = np.zeros(photo.shape[:2], np.uint8)
  mask[20:60, 20:80] = 255
  reconstruct('hand.jpg')
  Image.fromarray(mask).save('out/hand_overlay.png')
  before = contents('out')
  with pytest.raises(FileExistsError, match=r'hand_overlay\.png, which --hand_mask reads\. '):
    reconstruct('hand.jpg', workdir=run, hand_mask='out/hand_overlay.png', overwrite=True)
  assert contents('out') == before


def test_the_same_photo_and_settings_are_not_done_again(folder, monkeypatch):
  reconstruct('hand.jpg')
  before = contents('out')

  def refuse(*_):
    raise AssertionError('looked for hands again')

  with monkeypatch.context() as patch:
    patch.setattr(hand_reconstructor, 'detect_hands', refuse)
    for spelled in ('hand.jpg', str(folder / 'hand.jpg'), 'hand.jpg'):
      (outcome,) = reconstruct(spelled)
      assert outcome.lines == ('hand.jpg: done before with the same settings, 1 hand',)
      assert not outcome.is_written and not outcome.failed
  assert contents('out') == before
  pathlib.Path('out/hand.obj').unlink()
  (outcome,) = reconstruct('hand.jpg')
  assert outcome.is_written and pathlib.Path('out/hand.obj').exists()


CHANGES = {
  'other side': {'hand': ['left']},
  'box': {'bbox': ['20,20,70,60']},
  'focal length': {'focal': 300.0},
  'axes': {'axes': 'camera'},
}


EXPECTED = {
  'other side': '--hand was not given and is left',
  'box': '--bbox was not given and is 20,20,70,60',
  'focal length': '--focal was not given and is 300.0',
  'axes': '--axes was y_up and is camera',
}


@pytest.mark.parametrize('change', CHANGES)
def test_other_settings_are_refused_before_any_work(folder, change, monkeypatch):
  reconstruct('hand.jpg')
  before = contents('out')
  with pytest.raises(
    FileExistsError, match=EXPECTED[change] + r'.*They stay .*--output, .*--overwrite'
  ):
    reconstruct('hand.jpg', **CHANGES[change])
  assert contents('out') == before


def test_another_photo_of_the_same_name_is_refused(folder, photo):
  reconstruct('hand.jpg')
  Image.fromarray(photo[::-1]).save('hand.jpg')
  with pytest.raises(FileExistsError, match='they are of another photo of this name'):
    reconstruct('hand.jpg')
  (outcome,) = reconstruct('hand.jpg', overwrite=True)
  assert outcome.is_written


def test_a_photo_without_a_hand_is_remembered(folder, found):
  del found[:]
  assert reconstruct('hand.jpg')[0].lines == ('hand.jpg: no hand found',)
  assert reconstruct('hand.jpg')[0].lines == (
    'hand.jpg: done before with the same settings, no hands',
  )
  (entry,) = json.loads(pathlib.Path('out/summary.json').read_text())
  assert entry['hands'] == [] and 'error' not in entry


def test_a_failure_is_remembered_and_tried_again(folder, photo):
  pathlib.Path('bad.jpg').write_bytes(b'')
  assert reconstruct('bad.jpg', 'hand.jpg')[0].failed
  entries = json.loads(pathlib.Path('out/summary.json').read_text())
  assert [entry['photo'] for entry in entries] == ['bad.jpg', 'hand.jpg']
  assert 'bad.jpg' in entries[0]['error'] and 'error' not in entries[1]
  Image.fromarray(photo).save('bad.jpg')
  assert not reconstruct('bad.jpg')[0].failed


def test_a_foreign_summary_is_left_alone(folder):
  pathlib.Path('out').mkdir()
  for text in ('mine', '{}', '[1]', '[{"photo": "a.jpg"}]'):
    pathlib.Path('out/summary.json').write_text(text)
    with pytest.raises(ValueError, match=r'out/summary\.json is no summary of hand-jax'):
      reconstruct('hand.jpg')
    assert pathlib.Path('out/summary.json').read_text() == text
  assert reconstruct('hand.jpg', overwrite=True)[0].is_written


def test_the_summary_holds_what_is_promised(folder, found):
  found[:] = ['left', 'right']
  reconstruct('hand.jpg')
  (entry,) = json.loads(pathlib.Path('out/summary.json').read_text())
  assert entry['photo'] == 'hand.jpg'
  for number, (hand, side) in enumerate(zip(entry['hands'], found, strict=True), start=1):
    assert hand['side'] == side and hand['score'] == 0.99
    assert len(hand['box_xywh']) == 4 and hand['seconds'] > 0
    with np.load(f'out/hand_{number}_{side}.npz') as arrays:
      assert hand['sigma_mm_mean'] == pytest.approx(arrays['vertex_sigma_mm'].mean(), rel=1e-5)
    assert all(pathlib.Path('out', name).is_file() for name in hand['files'])
  numbers = json.loads(pathlib.Path('out/hand_1_left.json').read_text())
  assert numbers['photo_sha256'] == entry['sha256']
  assert numbers['settings'] == entry['settings'] and 'sha256' not in numbers


def test_folders_and_patterns_name_their_photos_in_order(folder, photo):
  pathlib.Path('many/deeper').mkdir(parents=True)
  for name in ('many/b.JPG', 'many/a.png', 'many/deeper/c.webp', 'many/.hidden.jpg'):
    Image.fromarray(photo).save(name)
  for suffix in ('avif', 'jfif'):  # by its suffix alone, whether it can be read or not
    shutil.copy('many/b.JPG', f'many/c.{suffix}')
  pathlib.Path('many/notes.txt').write_text('mine')
  listed = [str(task.path) for task in plan_tasks(PhotoOptions(['many'], 'out'))]
  assert listed == ['many/a.png', 'many/b.JPG', 'many/c.avif', 'many/c.jfif']
  listed = [str(task.path) for task in plan_tasks(PhotoOptions(['many/**/*.webp'], 'out'))]
  assert listed == ['many/deeper/c.webp']
  Image.fromarray(photo).save('a[1].jpg')  # a file with a pattern's characters is that file
  assert [str(task.path) for task in plan_tasks(PhotoOptions(['a[1].jpg'], 'out'))] == ['a[1].jpg']


def test_results_are_no_photos_of_their_folder(folder):
  """Output beside the photos: a second run finds the same photos."""
  for _ in range(2):
    outcomes = reconstruct('.', output='.')
    assert [outcome.lines[0].split(':')[0] for outcome in outcomes] == ['hand.jpg']
  with pytest.raises(ValueError, match=r'hand_overlay\.png is a result of this program'):
    reconstruct('hand_overlay.png', output='.')


def test_only_listed_files_belong_to_the_record(folder):
  reconstruct('hand.jpg')
  record = OutputRecord('out')
  assert 'hand.glb' in record.files() and 'summary.json' not in record.files()
  pathlib.Path('out/summary.json').unlink()
  with pytest.raises(FileExistsError, match=r'no summary\.json lists it'):
    reconstruct('hand.jpg')


def test_results_are_no_photos_for_another_output_either(folder):
  reconstruct('.', output='.')
  for photos in ('.', '*.*'):
    listed = [str(task.path) for task in plan_tasks(PhotoOptions([photos], 'elsewhere'))]
    assert listed == ['hand.jpg']


def test_a_command_killed_while_it_writes_leaves_nothing_unclaimed(folder, monkeypatch):
  """Its files are listed before the first has its name; the next run goes on and clears up."""

  def die_after_the_first(output, contents):
    assert {'hand.obj', 'hand_overlay.png'} <= OutputRecord(output).files()
    (output / '.unfinished-abc').mkdir()
    name, content = next(iter(contents.items()))
    (output / name).write_bytes(content)
    raise SystemExit  # nothing handles it

  with monkeypatch.context() as patch:
    patch.setattr(running, 'write_together', die_after_the_first)
    with pytest.raises(SystemExit):
      reconstruct('hand.jpg')
  (entry,) = json.loads(pathlib.Path('out/summary.json').read_text())
  assert entry['hands'] == [] and 'was stopped' in entry['error']
  (outcome,) = reconstruct('hand.jpg')
  assert outcome.is_written and not list(pathlib.Path('out').glob('.unfinished*'))
  (entry,) = json.loads(pathlib.Path('out/summary.json').read_text())
  assert set(contents('out')) == {*entry['files'], 'summary.json'} and 'error' not in entry


def test_two_commands_do_not_write_to_one_folder_at_once(folder):
  first = prepare_run(PhotoOptions(['hand.jpg'], 'out')).outcomes()
  next(first)
  with pytest.raises(BlockingIOError, match='Another hand-jax is writing to out'):
    next(prepare_run(PhotoOptions(['hand.jpg'], 'out')).outcomes())
  with pytest.raises(StopIteration):
    next(first)
  (again,) = reconstruct('hand.jpg')
  assert 'done before' in again.lines[0]
  assert not pathlib.Path('out/.hand_jax.lock').exists()


def test_a_photo_called_summary_fails_alone(folder):
  shutil.copy('hand.jpg', 'summary.jpg')
  outcomes = reconstruct('hand.jpg', 'summary.jpg')
  assert [outcome.failed for outcome in outcomes] == [False, True]
  assert 'would be written as summary.json' in outcomes[1].lines[0]
  assert not pathlib.Path('out/summary.obj').exists()


def test_names_that_are_too_long_are_told_for_their_photo_alone(folder):
  """Of a photo that is not there, and of one whose results would have them."""
  long = f'{"b" * 250}.jpg'
  shutil.copy('hand.jpg', long)
  gone, done, failed = reconstruct(f'{"a" * 300}.jpg', 'hand.jpg', long)
  assert gone.failed and gone.lines[0].endswith('aaa.jpg does not exist.') and not done.failed
  assert failed.failed and failed.lines[0].endswith('. Rename the photo.')


def test_a_box_is_named_once(folder):
  with pytest.raises(ValueError, match='--bbox is given twice with the same box'):
    plan_tasks(PhotoOptions(['hand.jpg'], 'out', bbox=['1,2,30,40', '1,2,30,40.0']))


def test_a_folder_in_the_way_is_told_before_any_photo(folder):
  pathlib.Path('out/hand.json').mkdir(parents=True)
  with pytest.raises(IsADirectoryError, match=r'hand\.json is a folder'):
    prepare_run(PhotoOptions(['hand.jpg'], 'out', overwrite=True))
