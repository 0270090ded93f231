"""Conversion of the published hand networks: names, layouts, and errors that say what is wrong."""

import struct
import zipfile

import flax.linen as nn
import numpy as np
import pytest

from hand_jax.models.conv_bias import ChannelPRelu, ConvBias
from tools import tflite_file
from tools.convert_hand_networks import convert_network, layer_order
from tools.published_networks import NETWORKS, read_network_file
from tools.tflite_file import CONV, DENSE, DEPTHWISE, PRELU, Layer


class SmallNetwork(nn.Module):
  """One layer of every kind."""

  @nn.compact
  def __call__(self, x):
    x = ConvBias(4, 3, name='stem')(x)
    x = ChannelPRelu(name='prelu')(x)
    x = ConvBias(4, 5, depthwise=True, use_bias=False, name='filter')(x)
    return nn.Dense(2, name='scores')(x.mean((1, 2)))


def small_layers():
  """Its constants as a file would hold them: outputs before rows, columns and inputs."""
  rng = np.random.default_rng(0)
  shapes = [
    (CONV, [(4, 3, 3, 3), (4,)]),
    (PRELU, [(1, 1, 4)]),
    (DEPTHWISE, [(1, 5, 5, 4), (4,)]),
    (DENSE, [(2, 4), (2,)]),
  ]
  layers = [
    Layer(kind, [rng.normal(size=shape).astype(np.float16) for shape in of_kind], f'layer{i}')
    for i, (kind, of_kind) in enumerate(shapes)
  ]
  layers[2].constants[1][:] = 0
  return layers


@pytest.fixture
def convert(monkeypatch):
  def run(layers):
    monkeypatch.setattr(tflite_file, 'read_layers', lambda data: layers)
    return convert_network(b'', SmallNetwork(), 8)

  return run


def test_layers_are_listed_as_they_run():
  expected = [('stem', CONV), ('prelu', PRELU), ('filter', DEPTHWISE), ('scores', DENSE)]
  assert layer_order(SmallNetwork(), 8) == expected


def test_constants_get_the_modules_names_and_layouts(convert):
  layers = small_layers()
  arrays = convert(layers)
  names = ['filter/kernel', 'prelu/slope', 'scores/bias', 'scores/kernel']
  assert list(arrays) == names + ['stem/bias', 'stem/kernel']
  assert all(array.dtype == np.float16 for array in arrays.values())
  assert arrays['stem/kernel'][2, 1, 0, 3] == layers[0].constants[0][3, 2, 1, 0]
  assert arrays['filter/kernel'][4, 1, 0, 2] == layers[2].constants[0][0, 4, 1, 2]
  assert arrays['scores/kernel'][3, 1] == layers[3].constants[0][1, 3]
  np.testing.assert_array_equal(arrays['prelu/slope'], layers[1].constants[0][0, 0])


def test_a_layer_of_another_kind_is_named(convert):
  layers = small_layers()
  layers[2] = layers[2]._replace(operator=CONV)
  with pytest.raises(ValueError, match="'layer2' is of another kind than 'filter'"):
    convert(layers)


def test_a_bias_that_would_be_lost_is_named(convert):
  layers = small_layers()
  layers[2].constants[1][1] = 0.5
  with pytest.raises(ValueError, match="'filter/bias'"):
    convert(layers)


def test_another_shape_or_count_is_named(convert):
  layers = small_layers()
  layers[3] = layers[3]._replace(constants=[np.zeros((3, 4), np.float16), layers[3].constants[1]])
  with pytest.raises(ValueError, match=r"'scores/kernel' is \(4, 3\) in the file, \(4, 2\)"):
    convert(layers)
  with pytest.raises(ValueError, match='3 layers with weights, the module 4'):
    convert(layers[:3])


def test_other_wheels_are_refused(tmp_path):
  network = NETWORKS['palm_detection']
  wheel = tmp_path / 'other.whl'
  with zipfile.ZipFile(wheel, 'w') as archive:
    archive.writestr('mediapipe/__init__.py', '')
  with pytest.raises(ValueError, match=r'other\.whl holds no mediapipe/modules/palm_detection'):
    read_network_file(str(wheel), network)
  with zipfile.ZipFile(wheel, 'w') as archive:
    archive.writestr(network.path, 'something else')
  with pytest.raises(ValueError, match=f'expected {network.sha256}'):
    read_network_file(str(wheel), network)


def test_other_files_are_refused():
  with pytest.raises(ValueError, match='no TensorFlow Lite file'):
    tflite_file.read_layers(struct.pack('<I', 8) + b'ABCD' + bytes(20))
