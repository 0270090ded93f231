"""The program measured on annotated photos: whose hands are scored, and against what."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand_jax.evaluation.plotting import write_png
from hand_jax.evaluation.uncertainty_plots import draw_risk_coverage
from hand_jax.reconstruction import hand_reconstructor
from hand_jax.reconstruction.hand_reconstructor import HandReconstructor
from hand_jax.reconstruction.photo_measuring import (
  PhotoMeasuring,
  check_scores_path,
  measure_photos,
  scores_text,
  write_scores,
)
from tests.found_hands import found_hand

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hands(model, photo, monkeypatch):
  """What the program makes of the photo: one right hand in its middle."""
  monkeypatch.setattr(
    hand_reconstructor, 'detect_hands', lambda image, _: [found_hand(image, model)]
  )
  return HandReconstructor()(photo)


def write_folder(folder, photo, *entries):
  (folder / 'images').mkdir()
  Image.fromarray(photo).save(folder / 'images' / 'a.png')
  (folder / 'annotations.json').write_text(json.dumps([{'image': 'a.png', **e} for e in entries]))
  return folder


def truth_of(hand, **changes):
  """An entry that the hand fits without error; keypoints count from the first pixel's centre."""
  entry = {
    'keypoints': (hand.joints_image - 0.5).tolist(),
    'joints_camera': (hand.joints + [0, 0, 0.5]).tolist(),
    'side': 'right',
  }
  return entry | changes


@pytest.mark.slow
def test_a_hand_that_is_its_own_truth_has_no_error(hands, photo, tmp_path):
  folder = write_folder(tmp_path, photo, truth_of(hands[0]))
  scores = measure_photos(PhotoMeasuring(folder))
  assert (scores['photos'], scores['found'], scores['side_right']) == (1, 1, 1.0)
  assert scores['pa_mpjpe_mm'] < 0.01 and scores['mpjpe_mm'] < 0.01
  assert scores['error_2d_of_box'] < 1e-4 and scores['coverage_68'] == 1
  assert scores['spearman_photos'] is None
  assert scores['per_photo'][0]['sigma_mm'] > 1
  assert '1 of 1 annotated hands found.' in scores_text(scores)
  for figures in scores['uncertainty'].values():
    assert figures['photos'] == 1 and figures['coordinates'] == 60
    assert figures['coverage_68'] == 1 and figures['mean_squared_z'] < 1e-4
  assert 'coordinates inside 68 %' in scores_text(scores)
  (tmp_path / 'out').mkdir()
  names = ['s.json', 's_reliability.png', 's_risk_coverage.png']
  output = tmp_path / 'out' / 's.json'
  for _ in range(2):  # its own files are replaced
    check_scores_path(output)
    assert [path.name for path in write_scores(output, scores)] == names
  assert sorted(path.name for path in output.parent.iterdir()) == names
  assert json.loads(output.read_text()) == scores


def test_errors_are_those_put_in(hands, photo, tmp_path):
  """Half the size vanishes in alignment, and shows before; three pixels show in the picture."""
  hand = hands[0]
  wrong = truth_of(
    hand,
    side='left',
    joints_camera=(0.5 * hand.joints).tolist(),
    keypoints=(hand.joints_image - 0.5 + [3, 0]).tolist(),
  )
  scores = measure_photos(PhotoMeasuring(write_folder(tmp_path, photo, wrong)))
  assert scores['side_right'] == 0 and scores['pa_mpjpe_mm'] < 0.01
  expected = 500 * np.linalg.norm(hand.joints, axis=1).mean()
  assert scores['mpjpe_mm'] == pytest.approx(expected, rel=1e-3)
  size = np.ptp(hand.joints_image, axis=0).max()
  assert scores['error_2d_of_box'] == pytest.approx(3 / size, rel=1e-3)


def test_a_hand_elsewhere_is_not_found_and_counts_nowhere_else(hands, photo, tmp_path):
  far = {'bbox': [0, 0, 8, 8], 'joints_camera': truth_of(hands[0])['joints_camera']}
  scores = measure_photos(PhotoMeasuring(write_folder(tmp_path, photo, truth_of(hands[0]), far)))
  assert (scores['photos'], scores['found']) == (2, 1) and scores['pa_mpjpe_mm'] < 0.01
  assert scores['per_photo'][1] == {
    'image': 'a.png',
    'found': False,
    'side': None,
    'pa_mpjpe_mm': None,
    'sigma_mm': None,
  }


def test_labels_of_another_photo_are_named_before_any_search(photo, tmp_path, monkeypatch):
  monkeypatch.setattr(hand_reconstructor, 'detect_hands', lambda *_: pytest.fail('searched'))
  good = {'bbox': [0, 0, 50, 50]}
  folder = write_folder(tmp_path, photo, good, {'bbox': [0.3, 0.1, 0.5, 0.6]})
  with pytest.raises(ValueError, match=r'entry 2 of 2 \(a\.png\), bbox: .*shares of its sides'):
    measure_photos(PhotoMeasuring(folder))


def test_a_photo_is_searched_once_for_all_its_entries(hands, photo, model, tmp_path, monkeypatch):
  calls = []

  def search(image, _):
    calls.append(image.shape)
    return [found_hand(image, model)]

  monkeypatch.setattr(hand_reconstructor, 'detect_hands', search)
  folder = write_folder(tmp_path, photo, truth_of(hands[0]), truth_of(hands[0]))
  done = []
  measure_photos(PhotoMeasuring(folder), lambda *progress: done.append(progress))
  assert len(calls) == 1 and done == [(1, 1)]


def test_given_boxes_are_looked_at_alone(hands, photo, model, tmp_path, monkeypatch):
  boxes = []

  def read(image, box, side):
    boxes.append(box.tolist())
    return found_hand(image, model)

  monkeypatch.setattr(hand_reconstructor, 'hand_in_box', read)
  entries = [truth_of(hands[0], bbox=[20, 10, 80, 70]), truth_of(hands[0], bbox=[15, 10, 80, 70])]
  scores = measure_photos(PhotoMeasuring(write_folder(tmp_path, photo, *entries), use_boxes=True))
  assert boxes == [[20, 10, 80, 70], [15, 10, 80, 70]] and scores['found'] == 2


def test_intrinsics_are_used_when_asked_for(hands, photo, tmp_path, monkeypatch):
  matrix = [[130.0, 0, 60], [0, 130, 45], [0, 0, 1]]
  folder = write_folder(tmp_path, photo, truth_of(hands[0], intrinsics=matrix))
  seen = []
  fit = hand_reconstructor.fit_detected_hands

  def watched(model, hands, release, masks_fn):
    seen.extend(hand.intrinsics for hand in hands)
    return fit(model, hands, release, masks_fn)

  monkeypatch.setattr(hand_reconstructor, 'fit_detected_hands', watched)
  measure_photos(PhotoMeasuring(folder))
  measure_photos(PhotoMeasuring(folder, use_intrinsics=True))
  assert seen[0] is None
  np.testing.assert_allclose(seen[1][:2, 2], [60.5, 45.5])


@pytest.mark.parametrize(
  'name, content', [('annotations.json', '[]'), ('a.png', 'pixels'), ('mine.json', '{"a": 1}')]
)
def test_a_file_that_holds_no_scores_is_never_replaced(name, content, tmp_path):
  (tmp_path / name).write_text(content)
  with pytest.raises(FileExistsError, match=rf'{name} exists and is no result of this command'):
    check_scores_path(tmp_path / name)


def test_no_plot_goes_where_another_file_is(tmp_path):
  output = tmp_path / 's.json'
  output.touch()  # an empty one, as mktemp makes it
  curve = {'shares': [1.0], 'error_mm': [2.0], 'oracle_mm': [2.0]}
  own = draw_risk_coverage({'aligned': {'risk_coverage': curve}}, 'photos')
  write_png(tmp_path / 's_risk_coverage.png', own)
  check_scores_path(output)
  Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / 's_reliability.png')
  with pytest.raises(FileExistsError, match=r's_reliability\.png exists and is no result'):
    check_scores_path(output)
  with pytest.raises(NotADirectoryError):
    check_scores_path(output / 'deeper.json')


@pytest.mark.slow
def test_the_command_writes_json_without_nan(photo, tmp_path):
  """On a photo without a hand, from the folder to the file."""
  write_folder(tmp_path, photo, {'bbox': [10, 10, 50, 50]})
  command = [sys.executable, '-m', 'experiments.evaluate_photos', f'--source={tmp_path}']
  output = tmp_path / 'scores.json'
  run = subprocess.run(
    [*command, f'--output={output}'], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert run.returncode == 0, run.stderr
  assert '0 of 1 annotated hands found.' in run.stdout
  scores = json.loads(output.read_text(), parse_constant=pytest.fail)
  assert scores['found'] == 0 and scores['pa_mpjpe_mm'] is None
  assert scores['uncertainty']['aligned']['nll'] is None
  assert not list(tmp_path.glob('*.png'))  # there is nothing to draw
  missing = subprocess.run(
    [*command, '--source=nowhere', f'--output={output}'],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert missing.returncode == 2 and 'nowhere does not exist' in missing.stderr


def test_scores_never_replace_a_measured_photo(hands, photo, tmp_path):
  """Also where replacing is asked for."""
  folder = write_folder(tmp_path, photo, truth_of(hands[0]))
  (measured,) = [path for path in tmp_path.rglob('*') if path.suffix in ('.png', '.jpg')]
  before = measured.read_bytes()
  with pytest.raises(ValueError, match='it is a photo that is measured'):
    check_scores_path(measured, folder, overwrite=True)
  assert measured.read_bytes() == before
