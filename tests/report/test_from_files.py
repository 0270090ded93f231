"""The report of an output folder: read back from its files, whatever became of them."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from hand_jax.reconstruction import hand_reconstructor
from hand_jax.reconstruction.records import OutputRecord
from hand_jax.reconstruction.running import prepare_run
from hand_jax.reconstruction.tasks import PhotoOptions
from hand_jax.report.from_files import check_report_name, report_photos, write_folder_report
from tests.found_hands import found_hand

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('small_pictures')]


@pytest.fixture(scope='module')
def made(model, photo, tmp_path_factory):
  """A folder with a photo of two hands, one without any, one that is no photo, and the results."""
  folder = tmp_path_factory.mktemp('made')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    reconstruct_photos(model, photo, patch)
  return folder


def reconstruct_photos(model, photo, monkeypatch):
  sides = {'two.png': ['left', 'right'], 'none.png': []}
  for name in sides:
    Image.fromarray(photo).save(name)
  pathlib.Path('bad.png').write_text('no photo')
  shown = iter(sides.values())
  monkeypatch.setattr(
    hand_reconstructor,
    'detect_hands',
    lambda image, _: [found_hand(image, model, side) for side in next(shown)],
  )
  run = prepare_run(PhotoOptions([*sides, 'bad.png'], 'out'))
  assert len(list(run.outcomes())) == 3


@pytest.fixture
def record(made, tmp_path, monkeypatch):
  """The record of a copy, which a test may damage."""
  shutil.copytree(made, tmp_path, dirs_exist_ok=True)
  monkeypatch.chdir(tmp_path)
  return OutputRecord('out')


def test_photos_are_read_back_from_their_files(record):
  two, none, bad = report_photos(record)
  assert [photo.photo for photo in (two, none, bad)] == ['two.png', 'none.png', 'bad.png']
  assert [hand.side for hand in two.hands] == ['left', 'right']
  assert none.hands == () and none.error is None
  assert none.picture.shape == (90, 120, 3)  # the photo itself
  assert bad.hands == () and 'bad.png' in bad.error
  assert two.picture.shape == (90, 120, 3) and two.files == ('two_hands.jpg', 'two_scene.glb')
  left = two.hands[0]
  with np.load('out/two_1_left.npz') as arrays:
    np.testing.assert_array_equal(left.vertices, arrays['vertices'])
    np.testing.assert_array_equal(left.joint_sigma_mm, arrays['joint_sigma_mm'])
  assert left.name == 'two_1_left' and left.score == 0.99 and left.side_score == 0.9
  assert 'assumed' in left.focal_source and left.depth_sigma_m > 0
  assert len(left.pictures) == 6  # three of them with the photo's colours
  # Squares, each another one.
  shapes = {picture.image.shape for picture in left.pictures}
  assert len(shapes) == 1 and len(set(next(iter(shapes))[:2])) == 1
  assert all((pathlib.Path('out') / name).is_file() for name in left.files)


def test_the_report_names_all_photos_and_is_made_again(record):
  page = write_folder_report(record)
  assert page == pathlib.Path('out/report.html')
  text = page.read_text()
  for name in ('two.png', 'none.png', 'bad.png', 'two_1_left.glb', 'two_scene.glb'):
    assert name in text
  pathlib.Path('out/report_2.html').write_text(text)  # of a longer report before
  pathlib.Path('out/report_mine.html').write_text('mine')
  check_report_name('out', overwrite=False)
  assert write_folder_report(record) == page
  assert not pathlib.Path('out/report_2.html').exists()
  assert pathlib.Path('out/report_mine.html').read_text() == 'mine'


def test_a_page_of_the_user_s_is_not_replaced_unasked(tmp_path):
  (tmp_path / 'report.html').write_text('<p>mine</p>')
  with pytest.raises(FileExistsError, match=r'report\.html is in the way of the report'):
    check_report_name(tmp_path, overwrite=False)
  check_report_name(tmp_path, overwrite=True)


@pytest.mark.parametrize('damage', ['gone', 'cut', 'no picture', 'record'])
def test_damaged_files_are_told_in_their_place(record, damage):
  if damage == 'gone':
    pathlib.Path('out/two_1_left.npz').unlink()
  elif damage == 'cut':
    whole = pathlib.Path('out/two_1_left.npz').read_bytes()
    pathlib.Path('out/two_1_left.npz').write_bytes(whole[: len(whole) // 2])
  elif damage == 'no picture':
    pathlib.Path('out/two_2_right_overlay.png').write_text('mine')
  else:
    entries = json.loads(pathlib.Path('out/summary.json').read_text())
    del entries[0]['hands'][0]['side']
    pathlib.Path('out/summary.json').write_text(json.dumps(entries))
    record = OutputRecord('out')
  two, none, _ = report_photos(record)
  assert two.hands == () and 'are gone or damaged' in two.error and '--overwrite' in two.error
  assert none.error is None
  assert 'gone or damaged' in write_folder_report(record).read_text()
