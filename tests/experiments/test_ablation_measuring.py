"""A real run of the ablations on drawn hands: trained, measured hand by hand, written, repeated."""

import functools
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments.ablations import running as ablations
from experiments.ablations.grid import RUNS, Entry, Job
from experiments.ablations.measuring import SplitMeasurer, photo_example
from experiments.ablations.report import load_rows
from hand_jax.data.crop_features import CropFeatureSettings
from hand_jax.evaluation.evaluate import METRIC_NAMES
from hand_jax.evaluation.evaluate_run import RunRequest, evaluate_run
from hand_jax.evaluation.hand_errors import JOINTS_2D
from hand_jax.preparing.building import prepare
from hand_jax.readers.hand_photos import read_annotations
from tests.drawn_hands import DrawnSource
from tests.prepared_features import render_drawn

sys.path.insert(0, str(Path(__file__).parents[2] / 'datasets'))

from synthetic_hands.synthetic_hands_dataset_builder import SyntheticHands

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('no_progress_bars')]

COUNTS = {'train': 4, 'validation': 2, 'test': 5, 'test_mismatch': 3}
SMALL = (
  *('training.num_steps=1', 'training.batch_size=4', 'training.validation_examples=2'),
  *('model.attention.width=8', 'model.attention.heads=2', 'model.attention.map_channels=3'),
  *('model.prior_hidden=16', 'model.camera_hidden=16'),
)
PHOTOS = 3
ENTRIES = (
  Entry('5', 'Bayesian', 'full', 'bayesian', 'prior'),
  Entry('5', 'Bayesian', 'full', 'bayesian', against='Bayesian', against_branch='prior'),
  Entry('branches', 'posterior_sampled', 'full', 'bayesian', split='mismatch'),
  Entry('weak_start', 'algorithm_2', 'full', 'bayesian', split='mine'),
)


@pytest.fixture(scope='module')
def data_dir(model, tmp_path_factory):
  folder = tmp_path_factory.mktemp('prepared')
  sources = {split: DrawnSource(model, count, seed=count) for split, count in COUNTS.items()}
  features = CropFeatureSettings(crops=1, maps=3).as_manifest()
  settings = {'examples': COUNTS, 'hands': 'broad', 'crop_features': features}
  render = functools.partial(render_drawn, sources)
  prepare(SyntheticHands, folder / 'broad', settings, render=render)
  return str(folder)


@pytest.fixture(scope='module')
def photos(model, tmp_path_factory):
  """A folder of annotated photos, the second of a left hand."""
  folder, entries = tmp_path_factory.mktemp('photos'), []
  for number, example in enumerate(DrawnSource(model, PHOTOS, seed=9).load(range(PHOTOS))):
    cv2.imwrite(str(folder / f'{number}.png'), example.image[..., ::-1])
    entries.append(
      {
        'image': f'{number}.png',
        'keypoints': (np.asarray(example.joints_image, float) - 0.5).tolist(),
        'side': 'left' if number == 1 else 'right',
        'bbox': np.asarray(example.box_xywh, float).tolist(),
        'joints_camera': np.asarray(example.joints_camera, float).tolist(),
      }
    )
  (folder / 'annotations.json').write_text(json.dumps(entries))
  return str(folder)


def test_a_run_is_trained_measured_and_found_again(tmp_path, data_dir, photos):
  output = tmp_path / 'ablations.json'
  settings = ablations.Settings(
    tmp_path / 'runs', data_dir, output, SMALL, 'abc1234', (('broad', COUNTS['train']),)
  )
  measurer = SplitMeasurer(settings.workdir, data_dir, {'mine': photos})
  job = Job(RUNS['bayesian'], 0, ENTRIES)
  assert ablations.run_jobs([job], settings, ablations.train_run, measurer.measure) == {}
  rows = {(row['branch'], row['split']): row for row in load_rows(output)}
  assert len(rows) == len(ENTRIES)
  workdir, folder = settings.folder(job), f'{data_dir}/broad'
  for split, name in (('test', 'test'), ('mismatch', 'test_mismatch')):
    expected, _ = evaluate_run(RunRequest(workdir, 'synthetic_hands', name, folder, limit=500))
    row = rows['posterior', split]
    assert row['test_examples'] == expected['examples'] == COUNTS[name]
    for metric in METRIC_NAMES if split == 'test' else ('mpjpe_mm', 'pa_mpvpe_mm'):
      np.testing.assert_allclose(row[metric], expected['posterior'][metric], rtol=1e-3)
    np.testing.assert_allclose(row[JOINTS_2D], expected['joints_2d']['posterior_px'], rtol=1e-3)
    baseline = expected['mean_hand']['pa_mpjpe_mm']
    np.testing.assert_allclose(row['mean_hand_pa_mpjpe_mm'], baseline, rtol=1e-5)
  compared = rows['posterior', 'test']
  difference = compared['pa_mpvpe_mm'] - rows['prior', 'test']['pa_mpvpe_mm']
  np.testing.assert_allclose(compared['difference'], difference, atol=1e-9)
  low, high = compared['interval']
  assert low <= difference <= high
  assert rows['posterior', 'mine']['test_examples'] == PHOTOS
  assert rows['posterior', 'mine']['pa_mpvpe_mm'] is None
  # Another measurer reads the kept features, and finds the same.
  again = SplitMeasurer(settings.workdir, data_dir, {'mine': photos})
  again._examples = None  # would be called if a file were not taken
  for split, found in again.measure(workdir, ['test', 'mine'], []).items():
    mean = found.errors.mean('posterior', 'pa_mpjpe_mm')
    np.testing.assert_allclose(mean, rows['posterior', split]['pa_mpjpe_mm'], rtol=1e-9)


def test_a_photo_without_all_joints_in_space_is_refused(photos, tmp_path):
  entries = json.loads(Path(photos, 'annotations.json').read_text())
  entries[2]['joints_camera'][5] = None
  (tmp_path / 'annotations.json').write_text(json.dumps(entries))
  for number in range(PHOTOS):
    (tmp_path / f'{number}.png').write_bytes(Path(photos, f'{number}.png').read_bytes())
  first, _, third = read_annotations(tmp_path)
  assert photo_example(first).joints_camera is not None
  with pytest.raises(ValueError, match=r'entry 3 of 3.*joints_camera: expected all 21'):
    photo_example(third)
