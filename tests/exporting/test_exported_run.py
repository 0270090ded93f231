"""Exported programs: equal to the package's reconstruction, in a process without the package."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.exporting.crop_program import OUTPUTS
from hand_jax.exporting.exported_run import ExportedRun, exported_files, file_names, stablehlo
from hand_jax.mano.assets import load_mano_model
from hand_jax.models.hand_network import create_network
from hand_jax.reconstruction.trained_network import (
  HandPhoto,
  create_trained_network,
  reconstruct_in_box,
)
from tests.drawn_variables import drawn_network

pytestmark = pytest.mark.slow

SIDE, BATCH = 64, 3
IS_LEFT = np.array([False, True, True])
TOLERANCE = 1e-4
# Reads a program and calls it for several batches. It may not import the package.
READER = """
import sys
sys.modules['hand_jax'] = None
import numpy as np
from jax import export
program = export.deserialize(bytearray(open('program', 'rb').read()))
crops = np.load('crops.npz')
found = {}
for count in (1, 3):
  results = program.call(crops['crops'][:count], crops['is_left'][:count])
  found |= {f'{name}_{count}': np.asarray(value) for name, value in results.items()}
np.savez('found.npz', **found)
assert not any(name.startswith('hand_jax.') for name in sys.modules)
"""


@pytest.fixture(scope='module')
def run():
  """A network of coarse vertices with noisy weights, so that every hand is turned and bent."""
  config, model = get_config('toy'), load_mano_model()
  attention = dataclasses.replace(config.model.attention, coarse_vertices=30)
  settings = dataclasses.replace(config.model, attention=attention)
  config = dataclasses.replace(config, model=settings)
  variables = drawn_network(create_network(config), model)
  rng = np.random.default_rng(1)

  def noisy(leaf):
    return np.asarray(leaf) + 0.1 * rng.normal(size=leaf.shape).astype(np.float32)

  return ExportedRun(
    config, {**variables, 'params': jax.tree.map(noisy, variables['params'])}, model
  )


@pytest.fixture(scope='module')
def crops():
  return np.random.default_rng(2).integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope='module')
def expected(run, crops):
  """What the package makes of photos of which the network sees every pixel as it is."""
  network = create_trained_network(*run)
  hands = [
    reconstruct_in_box(network, HandPhoto(crop, None, 'left' if is_left else 'right'))
    for crop, is_left in zip(crops, IS_LEFT, strict=True)
  ]
  fields = {
    name: np.stack([getattr(hand, name) for hand in hands]) for name in OUTPUTS if name != 'camera'
  }
  scale = np.array([[hand.pixels_per_metre] for hand in hands])
  return {**fields, 'camera': np.concatenate([scale, fields['joints_image'][:, 0]], axis=1)}


def assert_equal(found, expected, count):
  assert set(found) == set(OUTPUTS)
  for name, value in expected.items():
    assert found[name].shape == value[:count].shape, name
    # Metres, millimetres and pixels: beside the numbers' own size for the last two.
    size = max(1.0, float(np.abs(value).max()))
    np.testing.assert_allclose(found[name], value[:count], atol=TOLERANCE * size, err_msg=name)


def test_stablehlo_is_equal_in_a_process_without_the_package(run, crops, expected, tmp_path):
  content = stablehlo(run, 'cpu')
  (tmp_path / 'program').write_bytes(content)
  np.savez(tmp_path / 'crops.npz', crops=crops, is_left=IS_LEFT)
  subprocess.run([sys.executable, '-c', READER], cwd=tmp_path, check=True)
  with np.load(tmp_path / 'found.npz') as arrays:
    for count in (1, 3):
      found = {name: arrays[f'{name}_{count}'] for name in OUTPUTS}
      assert_equal(found, expected, count)
  text = jax.export.deserialize(bytearray(content)).mlir_module()
  assert 'stablehlo.while' not in text and 'platform_index' not in text
  assert 'stablehlo.case' not in text


def test_left_hands_are_mirrored_right_ones(run, crops, expected):
  """The third hand is the mirror image of what the mirrored photo shows as a right hand."""
  network = create_trained_network(*run)
  right = reconstruct_in_box(network, HandPhoto(np.ascontiguousarray(crops[2, :, ::-1])))
  np.testing.assert_allclose(expected['vertices'][2], right.vertices * [-1, 1, 1], atol=1e-6)
  assert np.abs(expected['vertices'][2] - right.vertices).max() > 0.01


def test_onnx_runtime_is_equal(run, crops, expected, tmp_path):
  onnxruntime = pytest.importorskip('onnxruntime', reason='comes with the extra `onnx`')
  content = exported_files(run, 'onnx')['hand_network.onnx']
  session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
  names = [output.name for output in session.get_outputs()]
  for count in (1, 3):
    found = session.run(names, {'crops': crops[:count], 'is_left': IS_LEFT[:count]})
    assert_equal(dict(zip(names, found, strict=True)), expected, count)


def test_one_program_for_each_platform_and_what_the_description_says(run, expected):
  files = exported_files(run, 'stablehlo', ['cuda', 'tpu'])
  assert list(files) == file_names('stablehlo', ['cuda', 'tpu'])
  for platform in ('cuda', 'tpu'):
    name = f'hand_network_{platform}.stablehlo'
    program = jax.export.deserialize(bytearray(files[name]))
    assert program.platforms == (platform,)
    told = json.loads(files[f'{name}.json'])
    assert told['platform'] == platform and told['program'] == name
    assert told['inputs']['crops']['shape'] == ['batch', SIDE, SIDE, 3]
    for output, (of, value) in zip(sorted(told['outputs']), sorted(expected.items()), strict=True):
      assert output == of and told['outputs'][of]['shape'] == ['batch', *value.shape[1:]]
    assert told['hand_model']['licence'] == 'CC0-1.0' and len(told['faces']) == 1538
    assert pathlib.Path(told['program']).suffix == '.stablehlo'
