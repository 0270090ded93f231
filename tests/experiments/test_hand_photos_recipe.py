"""docs/hand_photos.md from its first command to its last, as written there, on drawn photos."""

import json

import chex
import cv2
import numpy as np
import pytest

from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.release import packing
from hand_jax.runs.checkpoints import load_network
from tests.documents import document_commands, run_commands
from tests.drawn_hands import DrawnSource
from tests.packed_runs import STEP, drawn_variables, save_features_run

pytestmark = pytest.mark.slow

# Appended to the document's commands, whose network is the one of its true size.
EXTRA = {
  'prepare_dataset': ['--feature_crops=2'],
  # Otherwise a large network finds the mask, as in tests/reconstruction.
  'reconstruct': ['--hand_mask=mask.png'],
  'train': [
    '--set=training.num_steps=2',
    '--set=training.batch_size=2',
    '--set=training.log_every=1',
    '--set=training.evaluate_every=2',
    '--set=training.checkpoint_every=2',
  ],
}
PHOTOS = 3


def write_photos(folder, model):
  """Writes drawn hands as a person would annotate photos."""
  source = DrawnSource(model, PHOTOS, size=96)
  entries = []
  (folder / 'images').mkdir(parents=True)
  for number, example in enumerate(source.load(range(PHOTOS))):
    name = f'images/{number:04d}.jpg'
    cv2.imwrite(str(folder / name), example.image[..., ::-1])
    keypoints = (np.asarray(example.joints_image) - 0.5).round(2).tolist()
    entries.append({'image': name, 'keypoints': keypoints, 'side': example.side})
  (folder / 'annotations.json').write_text(json.dumps(entries))


@pytest.fixture(scope='module')
def folder(model, tmp_path_factory):
  """The folder in which the document's commands have run, after a packed run of drawn numbers."""
  folder = tmp_path_factory.mktemp('recipe')
  workdir = save_features_run(folder / 'made' / 'features', drawn_variables())
  with pytest.MonkeyPatch.context() as patch:
    # Measured in tests/release/test_packing.py. It draws hands and compiles the network.
    patch.setattr(packing, 'half_precision_change', lambda *_: {'mean_mm': 0.0})
    packing.pack_run(workdir, folder / 'made' / 'trained_run')
  write_photos(folder / 'my_photos', model)
  rng = np.random.default_rng(0)
  cv2.imwrite(str(folder / 'another.jpg'), rng.integers(0, 255, (480, 400, 3), np.uint8))
  mask = np.zeros((480, 400), np.uint8)
  mask[96:436, 120:380] = 255
  cv2.imwrite(str(folder / 'mask.png'), mask)
  commands = document_commands('hand_photos.md')
  output = run_commands(commands, folder, EXTRA, folder / 'made' / 'trained_run')
  (folder / 'output.txt').write_text(output)
  return folder


def test_photos_are_prepared_with_features_of_upright_crops(folder):
  path = folder / 'prepared_photos' / 'hand_photos' / '1.0.0' / 'manifest.json'
  manifest = json.loads(path.read_text())
  assert manifest['examples'] == {'train': PHOTOS - 1, 'validation': 1}
  features = manifest['settings']['crop_features']
  assert features['upright'] and features['maps'] == 16


def test_the_run_starts_from_the_network_in_the_package_alone(folder):
  run = folder / 'runs' / 'photos'
  start = json.loads((run / 'init_from.json').read_text())
  (source,) = start['sources']
  assert source['workdir'] == 'release' and source['step'] == STEP
  assert start['fresh'] == [] and source['not_taken_no_place'] == []
  assert source['other_meanings'] == [] and not source['other_hand_model']
  lineage = json.loads((run / 'lineage.json').read_text())
  assert lineage['supervision'] == 'weak' and lineage['config'] == 'hand_photos'
  (origin,) = lineage['init_from']
  assert origin == lineage['camera_prior'] and origin['workdir'] == 'release'
  sources = json.loads((run / 'sources.json').read_text())
  for setting in ('training.init_from', 'training.camera_prior'):
    assert sources[setting][0]['place'] == 'release' and len(sources[setting][0]['sha256']) == 64


def test_all_learns_but_the_landmark_network(folder):
  before = load_network(str(folder / 'made' / 'trained_run')).variables['params']
  saved = load_network(str(folder / 'runs' / 'photos'))
  assert saved.step == 2
  after = saved.variables['params']
  chex.assert_trees_all_equal(after['backbone'], load_bundled_parameters('hand_landmark')['params'])
  for part in ('feature_norm', 'prior_net', 'camera_model', 'vertex_regressor'):
    with pytest.raises(AssertionError):
      chex.assert_trees_all_equal(after[part], before[part])


def test_before_and_after_are_measured_on_the_same_photos(folder):
  errors = {}
  for workdir in ('runs/photos', 'release'):
    path = folder / workdir / 'evaluation' / 'hand_photos-validation.json'
    results = json.loads(path.read_text())
    assert results['joints_2d']['examples'] == 1 and results['joints_2d']['crop_size_px'] == 224
    errors[workdir] = results['joints_2d']['posterior_px']
  assert np.isfinite(list(errors.values())).all()
  assert errors['runs/photos'] != errors['release']


def test_the_last_command_writes_the_hand(folder):
  names = {path.name for path in (folder / 'out').iterdir()}
  assert {'another.npz', 'another.obj', 'summary.json', 'report.html'} <= names
  with np.load(folder / 'out' / 'another.npz') as file:
    assert str(file['side']) == 'left'
