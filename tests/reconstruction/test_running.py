"""Photos, masks and flags to files; one line for every mistake."""

import errno
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from hand_jax.data.photos import DEMO_PHOTOS, read_photo
from hand_jax.reconstruction import hand_reconstructor, running
from hand_jax.reconstruction.files import OUTPUT_SUFFIXES
from hand_jax.reconstruction.running import PhotoOutcome, prepare_run, read_task
from hand_jax.reconstruction.tasks import PhotoOptions, plan_tasks
from hand_jax.reconstruction.trained_network import reconstruct_in_box
from tests.found_hands import found_hand
from tests.toy_runs import fresh_state, save_toy_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('small_pictures')]


def estimated_mask(view, width, height):
  """All of the photo but its lower rows."""
  mask = np.ones((height, width), bool)
  mask[60:] = False
  return mask


@pytest.fixture(autouse=True)
def every_photo_shows_a_hand(model, monkeypatch):
  """In its middle; test_hand_reconstructor.py is about finding hands and their masks."""
  monkeypatch.setattr(hand_reconstructor, 'view_hand', lambda *_: None)
  monkeypatch.setattr(hand_reconstructor, 'estimate_hand_mask', estimated_mask)
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda *a: [found_hand(a[0], model)])


@pytest.fixture(scope='module')
def toy_state():
  return fresh_state('toy')


@pytest.fixture(scope='module')
def workdir(toy_state, tmp_path_factory):
  return save_toy_run(tmp_path_factory.mktemp('run'), 'toy', toy_state)


@pytest.fixture(scope='module')
def textured_workdir(tmp_path_factory):
  return save_toy_run(
    tmp_path_factory.mktemp('textured'), 'toy_texture', fresh_state('toy_texture')
  )


def reconstruct(images: list[str], **options) -> list[PhotoOutcome]:
  return list(prepare_run(PhotoOptions(images, **options)).outcomes())


def test_from_photos_to_files(workdir, model, tmp_path):
  """All three demo photos at once, each in the box round its landmarks, as large as the hand."""
  outcomes = reconstruct(
    [], output=str(tmp_path), workdir=workdir, demo_photos=True, hand=['right']
  )
  for outcome, name in zip(outcomes, ('nocurl', 'halfcurl', 'fullcurl'), strict=True):
    (line,) = outcome.lines
    assert line.startswith(f'{name}.jpg: right hand') and 'mm' in line
    assert not outcome.failed
    for suffix in OUTPUT_SUFFIXES:
      assert (tmp_path / f'{name}{suffix}').stat().st_size > 0
  data = json.loads((tmp_path / 'nocurl.json').read_text())
  box = found_hand(read_photo(DEMO_PHOTOS / 'nocurl.jpg'), model).box_xywh
  low, size = np.array(data['box_xywh'][:2]), np.array(data['box_xywh'][2:])
  np.testing.assert_allclose(low + size / 2, box[:2] + box[2:] / 2, atol=0.01)
  # Datasets give the box of the whole hand, which is 1.19 times that of its joints.
  assert size.max() == pytest.approx(1.19 * box[2:].max(), rel=0.01)


def test_photos_of_other_kinds_take_their_own_settings(tmp_path, photo):
  paths = [str(tmp_path / 'a.png'), str(tmp_path / 'b.png')]
  Image.fromarray(photo).save(paths[0])
  Image.fromarray(photo[..., 0]).save(paths[1])
  tasks = plan_tasks(PhotoOptions(paths, 'out', 'run', hand=['left']))
  assert [task.sides for task in tasks] == [('left',), ('left',)]
  assert all(task.boxes_xywh == () for task in tasks)
  assert all(read_task(task, None).image.shape == (90, 120, 3) for task in tasks)
  bundled = str(DEMO_PHOTOS / 'nocurl.jpg')
  demo = plan_tasks(PhotoOptions([bundled], 'out', 'run', bbox=['1,2,300,400']))[0]
  np.testing.assert_array_equal(demo.boxes_xywh, [[1, 2, 300, 400]])
  assert demo.sides == ()  # the detector tells
  np.testing.assert_array_equal(read_task(demo, None).image, read_photo(bundled))


def test_photos_that_fail_leave_the_others_to_be_done(workdir, photo, tmp_path, monkeypatch):
  """Each in its place; among them one for whose files the disk has no room."""
  paths = [str(tmp_path / f'{name}.png') for name in ('gone', 'a', 'broken', 'b', 'c')]
  for path in paths[1:]:
    Image.fromarray(photo).save(path)
  whole = (tmp_path / 'broken.png').read_bytes()
  (tmp_path / 'broken.png').write_bytes(whole[: len(whole) // 2])
  output = tmp_path / 'out'
  write = running.write_together

  def fail_for_b(folder, contents):
    if 'b.json' in contents:
      raise OSError(errno.ENOSPC, 'No space left on device')
    return write(folder, contents)

  monkeypatch.setattr(running, 'write_together', fail_for_b)
  outcomes = reconstruct(paths, output=str(output), workdir=workdir)
  assert [outcome.failed for outcome in outcomes] == [True, False, True, True, False]
  for outcome, name in zip(outcomes, ('gone', 'a', 'broken', 'b', 'c'), strict=True):
    assert name in outcome.lines[0] and '\n' not in outcome.lines[0]
  assert 'does not exist' in outcomes[0].lines[0] and 'damaged' in outcomes[2].lines[0]
  assert 'No space left on device' in outcomes[3].lines[0]
  written = {path.name for path in output.iterdir() if path.suffix == '.npz'}
  assert written == {'a.npz', 'c.npz'} and not list(output.glob('.unfinished*'))
  entries = {entry['photo']: entry for entry in json.loads((output / 'summary.json').read_text())}
  assert [('error' in entries[path], len(entries[path]['hands'])) for path in paths] == [
    (outcome.failed, int(not outcome.failed)) for outcome in outcomes
  ]


def test_a_focal_length_that_fits_some_photos(workdir, photo, tmp_path):
  """The others are told in their turn, by the flag's name."""
  paths = [str(tmp_path / name) for name in ('large.png', 'small.png')]
  Image.fromarray(np.repeat(np.repeat(photo, 2, axis=0), 2, axis=1)).save(paths[0])
  Image.fromarray(photo).save(paths[1])
  large, small = reconstruct(paths, output=str(tmp_path / 'out'), workdir=workdir, focal=35.0)
  assert large.failed and 'write --focal=243.' in large.lines[0] and not small.failed


def test_a_photo_is_done_when_it_is_asked_for(workdir, photo, tmp_path):
  paths = [str(tmp_path / name) for name in ('a.png', 'b.png')]
  for path in paths:
    Image.fromarray(photo).save(path)
  outcomes = prepare_run(PhotoOptions(paths, str(tmp_path / 'out'), workdir)).outcomes()
  assert not (tmp_path / 'out').exists()
  next(outcomes)
  assert (tmp_path / 'out' / 'a.npz').exists() and not (tmp_path / 'out' / 'b.npz').exists()


HALF = np.zeros((90, 120), np.uint8)
HALF[:, :50] = 255
MASKS = {
  'm.png': HALF,
  'small.png': HALF[:9, 44:56],
  'black.png': 0 * HALF,
  'white.png': 0 * HALF + 255,
  'ones.png': HALF // 255,
}

BAD_OPTIONS = {
  'no image': ([], {}, 'No photo is named'),
  'box outside': (
    ['a.png'],
    {'bbox': ['900,900,10,10']},
    r'--bbox: Box 900,900,10,10 .*outside.*a\.png of 120 x',
  ),
  'three numbers': (['a.png'], {'bbox': ['1,2,3']}, '--bbox=1,2,3: expected four numbers'),
  'words': (['a.png'], {'bbox': ['a,b,c,d']}, '--bbox=a,b,c,d: expected four numbers'),
  'box for two': (['a.png', 'b.png'], {'bbox': ['1,2,30,40']}, '--bbox cannot serve 2 photos'),
  'same name': (['a.png', 'sub/a.png'], {}, r'sub.a\.png would both be written as a_overlay'),
  'empty name': ([''], {}, 'A photo has an empty name'),
  'same photo': (['a.png', 'a.png'], {}, r'a\.png is named twice'),
  'no run': (['a.png'], {'workdir': 'nowhere'}, 'nowhere.*no training run'),
  'no output': (['a.png'], {'output': None}, '--output=DIR'),
  'output is a file': (['a.png'], {'output': 'b.png'}, 'cannot go to b.png: b.png is a file'),
  'output in a file': (['a.png'], {'output': 'b.png/out'}, 'b.png/out: b.png is a file'),
  'mask for two': (['a.png', 'b.png'], {'hand_mask': 'm.png'}, '--hand_mask cannot serve 2'),
  'no mask': (['a.png'], {'hand_mask': 'no.png'}, r'--hand_mask=no\.png: .*no\.png does not exist'),
  'unnamed mask': (['a.png'], {'hand_mask': ''}, '--hand_mask= names no image'),
  'mask of another size': (
    ['a.png'],
    {'hand_mask': 'small.png'},
    r'--hand_mask=small\.png has 12 x 9 pixels, a\.png 120 x 90',
  ),
  'black mask': (['a.png'], {'hand_mask': 'black.png'}, r'black\.png marks no pixel'),
  'mask of ones': (
    ['a.png'],
    {'hand_mask': 'ones.png'},
    r'ones\.png marks no pixel.* Its highest value is 1; white is 255\.$',
  ),
  'white mask': (['a.png'], {'hand_mask': 'white.png'}, r'white\.png marks every pixel'),
  'two sides for one box': (
    ['a.png'],
    {'hand': ['left', 'right'], 'bbox': ['1,2,30,40']},
    '--hand is given 2 times and --bbox 1 times',
  ),
  'no focal length': (['a.png'], {'focal': 0.0}, 'focal length is 0, expected pixels'),
  'a focal length in mm': (
    ['gone.png', 'a.png', 'b.png'],
    {'focal': 25.0},
    r'^a\.png: .* photo of 120 x 90: expected 30 to 3000\. If 25 is .* write --focal=87\.$',
  ),
  'empty folder': (['empty'], {}, r'The folder empty holds no photo: expected files .*\.jpg'),
  'empty pattern': (['z*.png'], {}, r'The pattern z\*\.png holds no photo'),
  'output over a photo': (
    ['a.png', 'a_overlay.png'],
    {'output': '.'},
    r'A result of a\.png would replace the photo a_overlay\.png',
  ),
  'no mano': (['a.png'], {'mano_dir': 'no_mano'}, 'no_mano: no such folder'),
}


@pytest.mark.parametrize('case', BAD_OPTIONS)
def test_bad_options_are_told_before_any_photo(case, workdir, photo, tmp_path, monkeypatch):
  images, changes, message = BAD_OPTIONS[case]
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'sub').mkdir()
  (tmp_path / 'empty').mkdir()
  for name in ('a.png', 'b.png', 'sub/a.png', 'a_overlay.png'):
    Image.fromarray(photo).save(tmp_path / name)
  for name, mask in MASKS.items():
    Image.fromarray(mask).save(tmp_path / name)
  arguments = {'output': str(tmp_path / 'out'), 'workdir': workdir} | changes
  with pytest.raises((ValueError, OSError), match=message) as error:
    reconstruct(images, **arguments)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_a_mask_reaches_the_network_and_is_upright(textured_workdir, photo, tmp_path, monkeypatch):
  """An image of any kind, white where the hand shows; turned by its own EXIF orientation."""
  Image.fromarray(photo).save(tmp_path / 'a.png')
  exif = Image.Exif()
  exif[0x0112] = 3  # stored upside down
  grey = np.where(HALF[::-1, ::-1] > 0, 200, 90).astype(np.uint8)
  Image.fromarray(grey).save(tmp_path / 'm.jpg', exif=exif, quality=95)
  seen = []

  def watched(network, photo):
    seen.append(photo.hand_mask)
    return reconstruct_in_box(network, photo)

  monkeypatch.setattr(hand_reconstructor, 'reconstruct_in_box', watched)
  image, output = str(tmp_path / 'a.png'), tmp_path / 'out'
  mask = str(tmp_path / 'm.jpg')
  reconstruct([image], output=str(output), workdir=textured_workdir, hand_mask=mask)
  np.testing.assert_array_equal(seen[0], HALF > 0)
  reconstruct([image], output=str(tmp_path / 'plain'), workdir=textured_workdir)
  np.testing.assert_array_equal(seen[1], estimated_mask(None, *photo.shape[1::-1]))
  colors = []
  for folder in ('out', 'plain'):
    with np.load(tmp_path / folder / 'a.npz') as arrays:
      colors.append(arrays['vertex_colors'])
  assert np.abs(colors[0] - colors[1]).max() > 0


def test_names_collide_only_where_the_files_are_written(workdir, textured_workdir, photo, tmp_path):
  images = [str(tmp_path / name) for name in ('a.png', 'a_textured.png')]
  for image in images:
    Image.fromarray(photo).save(image)
  outcomes = reconstruct(images, output=str(tmp_path / 'out'), workdir=workdir)
  assert len(outcomes) == 2 and (tmp_path / 'out' / 'a_textured.obj').exists()
  with pytest.raises(ValueError, match=r'both be written as a_textured\.obj'):
    reconstruct(images, output=str(tmp_path / 'new'), workdir=textured_workdir)
  assert not (tmp_path / 'new').exists()


def test_a_run_with_nan_in_a_kernel_is_refused_and_nothing_is_written(toy_state, photo, tmp_path):
  """By its folder and the photo, in one line."""
  params = jax.tree.map(np.array, toy_state.params)
  params['camera_model']['mean']['output']['kernel'][0, 0] = np.nan
  broken = save_toy_run(tmp_path / 'broken', 'toy', toy_state.replace(params=params))
  Image.fromarray(photo).save(tmp_path / 'a.png')
  image, output = str(tmp_path / 'a.png'), tmp_path / 'out'
  (outcome,) = reconstruct([image], output=str(output), workdir=broken)
  (line,) = outcome.lines
  assert outcome.failed and '\n' not in line
  assert [path.name for path in output.iterdir()] == ['summary.json']
  assert re.search(r'broken for .*a\.png is not finite', line)
