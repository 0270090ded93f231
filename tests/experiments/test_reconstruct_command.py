"""The reconstruct command: photos, masks and flags to files; one line for every mistake."""

import json
import pathlib
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from experiments import reconstruct as command
from experiments.configs.names import get_config
from hand_jax.data.photos import DEMO_PHOTOS, read_photo
from hand_jax.mano.assets import load_mano_model
from hand_jax.models.hand_network import create_network
from hand_jax.reconstruction.files import OUTPUT_SUFFIXES
from hand_jax.reconstruction.reconstruct import reconstruct_hand
from hand_jax.runs.checkpoints import Checkpoints, claim_workdir
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.runs.train_state import TrainState
from hand_jax.training.state import create_optimizer, create_train_state

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def photo():
  smooth = np.random.default_rng(0).uniform(0, 255, (9, 12, 3)).astype(np.float32)
  return np.clip(cv2.resize(smooth, (120, 90), interpolation=cv2.INTER_CUBIC), 0, 255).astype(
    np.uint8
  )


def fresh_state(name: str) -> TrainState:
  """Of a named config, as before the first step."""
  config = get_config(name)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = create_train_state(config, create_network(config), optimizer, load_mano_model())
  return jax.tree.map(np.asarray, state)


def save_run(folder: pathlib.Path, name: str, state: TrainState) -> str:
  claim_workdir(str(folder), get_config(name))
  claim_hand_model(folder, load_mano_model())
  with Checkpoints(str(folder)) as checkpoints:
    checkpoints.save(state, 0)
  return str(folder)


@pytest.fixture(scope='module')
def toy_state():
  return fresh_state('toy')


@pytest.fixture(scope='module')
def workdir(toy_state, tmp_path_factory):
  return save_run(tmp_path_factory.mktemp('run'), 'toy', toy_state)


@pytest.fixture(scope='module')
def textured_workdir(tmp_path_factory):
  return save_run(tmp_path_factory.mktemp('textured'), 'toy_texture', fresh_state('toy_texture'))


def test_command_from_photos_to_files(workdir, tmp_path):
  """All three demo photos at once, with the boxes shipped beside them."""
  lines = list(command.reconstruct_photos([], str(tmp_path), workdir, demo_photos=True))
  boxes = json.loads((DEMO_PHOTOS / 'boxes.json').read_text())
  for line, (name, entry) in zip(lines, boxes.items(), strict=True):
    assert line.startswith(f'{name}: {entry["hand"]} hand') and 'mm' in line
  for name in ('nocurl', 'halfcurl', 'fullcurl'):
    for suffix in OUTPUT_SUFFIXES:
      assert (tmp_path / f'{name}{suffix}').stat().st_size > 0
  data = json.loads((tmp_path / 'nocurl.json').read_text())
  assert data['box_xywh'] == boxes['nocurl.jpg']['box_xywh']


def test_photos_of_other_kinds_take_their_own_settings(tmp_path, photo):
  Image.fromarray(photo).save(tmp_path / 'a.png')
  Image.fromarray(photo[..., 0]).save(tmp_path / 'b.png')
  tasks = command.plan([str(tmp_path / 'a.png'), str(tmp_path / 'b.png')], False, None, 'left')
  assert [task.side for task in tasks] == ['left', 'left']
  assert all(task.box_xywh is None and task.image.shape == (90, 120, 3) for task in tasks)
  demo = command.plan([str(DEMO_PHOTOS / 'nocurl.jpg')], False, '1,2,300,400', None)[0]
  np.testing.assert_array_equal(demo.box_xywh, [1, 2, 300, 400])
  np.testing.assert_array_equal(demo.image, read_photo(DEMO_PHOTOS / 'nocurl.jpg'))


HALF = np.zeros((90, 120), np.uint8)
HALF[:, :50] = 255
MASKS = {
  'm.png': HALF,
  'small.png': HALF[:9, 44:56],
  'black.png': 0 * HALF,
  'white.png': 0 * HALF + 255,
}

BAD_INPUT = {
  'missing image': (['no.jpg'], {}, r'no\.jpg does not exist'),
  'no image': ([], {}, '--image=FILE'),
  'box outside': (
    ['a.png'],
    {'bbox': '900,900,10,10'},
    r'900,900,10,10 .*outside.*a\.png of 120 x',
  ),
  'three numbers': (['a.png'], {'bbox': '1,2,3'}, '--bbox=1,2,3: expected four numbers'),
  'words': (['a.png'], {'bbox': 'a,b,c,d'}, '--bbox=a,b,c,d: expected four numbers'),
  'box for two': (['a.png', 'b.png'], {'bbox': '1,2,30,40'}, 'One --bbox cannot serve 2 photos'),
  'same name': (['a.png', 'sub/a.png'], {}, r'sub.a\.png would both be written as a_overlay'),
  'no workdir': (['a.png'], {'workdir': None}, 'make demo'),
  'no run': (['a.png'], {'workdir': 'nowhere'}, 'nowhere.*no training run'),
  'no output': (['a.png'], {'output': None}, '--output=DIR'),
  'output is a file': (['a.png'], {'output': 'b.png'}, 'cannot go to b.png: b.png is a file'),
  'output in a file': (['a.png'], {'output': 'b.png/out'}, 'b.png/out: b.png is a file'),
  'mask for two': (['a.png', 'b.png'], {'hand_mask': 'm.png'}, 'One --hand_mask cannot serve 2'),
  'no mask': (['a.png'], {'hand_mask': 'no.png'}, r'no\.png does not exist'),
  'mask of another size': (
    ['a.png'],
    {'hand_mask': 'small.png'},
    r'--hand_mask=small\.png has 12 x 9 pixels, a\.png 120 x 90',
  ),
  'black mask': (['a.png'], {'hand_mask': 'black.png'}, r'black\.png is nowhere white'),
  'white mask': (['a.png'], {'hand_mask': 'white.png'}, r'white\.png is all white'),
  'mask of no use': (['a.png'], {'hand_mask': 'm.png'}, '--hand_mask: .* has no texture branch'),
  'no mano': (['a.png'], {'mano_dir': 'no_mano'}, 'no_mano: no such folder'),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_named_in_one_line(case, workdir, photo, tmp_path, monkeypatch):
  images, changes, message = BAD_INPUT[case]
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'sub').mkdir()
  for name in ('a.png', 'b.png', 'sub/a.png'):
    Image.fromarray(photo).save(tmp_path / name)
  for name, mask in MASKS.items():
    Image.fromarray(mask).save(tmp_path / name)
  arguments = {'output': str(tmp_path / 'out'), 'workdir': workdir} | changes
  with pytest.raises((ValueError, OSError), match=message) as error:
    list(command.reconstruct_photos(images, **arguments))
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

  def watched(*arguments):
    seen.append(arguments[-1])
    return reconstruct_hand(*arguments)

  monkeypatch.setattr(command, 'reconstruct_hand', watched)
  image, output = str(tmp_path / 'a.png'), tmp_path / 'out'
  masked = {'hand_mask': str(tmp_path / 'm.jpg')}
  list(command.reconstruct_photos([image], str(output), textured_workdir, **masked))
  np.testing.assert_array_equal(seen[0], HALF > 0)
  list(command.reconstruct_photos([image], str(tmp_path / 'plain'), textured_workdir))
  assert seen[1] is None
  colors = []
  for folder in ('out', 'plain'):
    with np.load(tmp_path / folder / 'a.npz') as arrays:
      colors.append(arrays['vertex_colors'])
  assert np.abs(colors[0] - colors[1]).max() > 0


def test_names_collide_only_where_the_files_are_written(workdir, textured_workdir, photo, tmp_path):
  images = [str(tmp_path / name) for name in ('a.png', 'a_textured.png')]
  for image in images:
    Image.fromarray(photo).save(image)
  lines = list(command.reconstruct_photos(images, str(tmp_path / 'out'), workdir))
  assert len(lines) == 2 and (tmp_path / 'out' / 'a_textured.obj').exists()
  with pytest.raises(ValueError, match=r'both be written as a_textured\.obj'):
    list(command.reconstruct_photos(images, str(tmp_path / 'new'), textured_workdir))
  assert not (tmp_path / 'new').exists()


def test_a_run_with_nan_in_a_kernel_is_refused_and_nothing_is_written(toy_state, photo, tmp_path):
  """By its folder and the photo, in one line."""
  params = jax.tree.map(np.array, toy_state.params)
  params['camera_model']['mean']['output']['kernel'][0, 0] = np.nan
  broken = save_run(tmp_path / 'broken', 'toy', toy_state.replace(params=params))
  Image.fromarray(photo).save(tmp_path / 'a.png')
  with pytest.raises(ValueError, match=r'broken estimates of .*a\.png is not finite') as error:
    list(command.reconstruct_photos([str(tmp_path / 'a.png')], str(tmp_path / 'out'), broken))
  assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()


def test_the_command_line_prints_one_line_and_fails():
  image = str(DEMO_PHOTOS / 'nocurl.jpg')
  run = subprocess.run(
    [sys.executable, '-m', 'experiments.reconstruct', f'--image={image}', '--output=out'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 1 and run.stdout == ''
  lines = [line for line in run.stderr.splitlines() if 'xla' not in line.lower()]
  assert len(lines) == 1 and lines[0].startswith('Error: --workdir') and 'make demo' in lines[0]
