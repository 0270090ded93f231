"""Converts the hand networks inside MediaPipe's wheel to the `.npz` files of the package.

  pip download --no-deps mediapipe==0.10.21
  python -m tools.convert_hand_networks --wheel=mediapipe-0.10.21-*.whl --output=hand_jax/assets

The wheel is only read and never installed. The same wheel always gives the same bytes. With
`--fixture=tests/fixtures/hand_networks.npz` the tool writes what the original runtime computes for
the hand that the tests draw. That needs LiteRT (pip install ai-edge-litert).
"""

import io
import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict

from experiments.launching import launch, refuse_arguments
from hand_jax.files.writing import write_whole
from hand_jax.models.conv_bias import ChannelPRelu, ConvBias
from tools import tflite_file
from tools.drawn_hand import draw_test_picture
from tools.published_networks import NETWORKS, create_interpreter, read_network_file

_WHEEL = flags.DEFINE_string('wheel', None, 'The wheel of mediapipe 0.10.21.', required=True)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the weights and their notice.')
_FIXTURE = flags.DEFINE_string('fixture', None, "File for the original runtime's outputs.")

_NOTICE = """\
palm_detection.npz, hand_landmark.npz: weights of a palm detector and of a hand landmark network.

Source: {sources}
from the PyPI package mediapipe 0.10.21, https://github.com/google-ai-edge/mediapipe
Copyright The MediaPipe Authors.

Changes: only the constants were taken, in the half precision in which they are stored; kernels were
transposed to (height, width, inputs, outputs) and arrays named by their layer; biases of depthwise
convolutions that are all zero were left out. Made by tools/convert_hand_networks.py.

Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in
compliance with the License. You may obtain a copy of the License at

  http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is
distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or
implied. See the License for the specific language governing permissions and limitations under the
License.
"""


def layer_order(module: nn.Module, input_side: int) -> list[tuple[str, int]]:
  """Lists path and operator of every layer with weights, in the order in which they are applied."""
  operators = {ConvBias: tflite_file.CONV, ChannelPRelu: tflite_file.PRELU}
  operators[nn.Dense] = tflite_file.DENSE
  order = []

  def record(
    function: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
  ) -> object:
    layer = context.module
    if context.method_name == '__call__' and type(layer) in operators:
      depthwise = getattr(layer, 'depthwise', False)
      operator = tflite_file.DEPTHWISE if depthwise else operators[type(layer)]
      order.append(('/'.join(layer.path), operator))
    return function(*args, **kwargs)

  image = jnp.zeros((1, input_side, input_side, 3))
  with nn.intercept_methods(record):
    jax.eval_shape(module.init, jax.random.key(0), image)
  return order


def convert_network(data: bytes, module: nn.Module, input_side: int) -> dict[str, np.ndarray]:
  """Gives the arrays of a network file the names and layouts of the module's parameters.

  Args:
    data: the content of the TensorFlow Lite file.
    module: the network, which is called with one image of side `input_side`.
    input_side: pixels.

  Returns:
    Arrays in half precision by path, sorted by path.

  Raises:
    ValueError: the file and the module do not agree. The message names the layer.
  """
  image = jnp.zeros((1, input_side, input_side, 3))
  shapes = jax.eval_shape(module.init, jax.random.key(0), image)['params']
  expected = {path: leaf.shape for path, leaf in flatten_dict(shapes, sep='/').items()}
  order, layers = layer_order(module, input_side), tflite_file.read_layers(data)
  if len(order) != len(layers):
    raise ValueError(f'the file has {len(layers)} layers with weights, the module {len(order)}.')
  arrays = {}
  for (path, operator), layer in zip(order, layers, strict=True):
    if operator != layer.operator:
      raise ValueError(f"layer '{layer.name}' is of another kind than '{path}' of the module.")
    for name, array in _name_constants(layer):
      leaf = f'{path}/{name}'
      if leaf not in expected and name == 'bias' and not array.any():
        continue  # The bias of this depthwise convolution is zero, and the module has none.
      if expected.get(leaf) != array.shape:
        raise ValueError(
          f"'{leaf}' is {array.shape} in the file, {expected.get(leaf)} in the module."
        )
      arrays[leaf] = array
  return dict(sorted(arrays.items()))


def _name_constants(layer: tflite_file.Layer) -> list[tuple[str, np.ndarray]]:
  """Names the constants by their role, and gives them the layouts of Flax."""
  if layer.operator == tflite_file.PRELU:
    return [('slope', layer.constants[0].reshape(-1))]
  kernel, bias = layer.constants
  if layer.operator == tflite_file.DENSE:
    kernel = kernel.T
  elif layer.operator == tflite_file.DEPTHWISE:  # (1, height, width, channels)
    kernel = kernel.transpose(1, 2, 0, 3)
  else:  # (outputs, height, width, inputs)
    kernel = kernel.transpose(1, 2, 3, 0)
  return [('kernel', np.ascontiguousarray(kernel)), ('bias', bias)]


def write_weights(wheel: str, folder: pathlib.Path) -> None:
  """Writes the weights of both networks and their notice into `folder`."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, network in NETWORKS.items():
    data = read_network_file(wheel, network)
    arrays = convert_network(data, network.module, network.input_side)
    _save(folder / f'{name}.npz', arrays)
  sources = '\n  and '.join(
    f'{network.path}\n  (sha256 {network.sha256})' for network in NETWORKS.values()
  )
  (folder / 'hand_networks_NOTICE.txt').write_text(_NOTICE.format(sources=sources))


def write_fixture(wheel: str, path: pathlib.Path) -> None:
  """Writes the numbers that LiteRT computes for the test pictures.

  Raises:
    ImportError: LiteRT is not installed.
  """
  arrays = {}
  for name, network in NETWORKS.items():
    interpreter = create_interpreter(wheel, network)
    image = draw_test_picture(network.input_side)[None] / np.float32(255)
    interpreter.set_tensor(interpreter.get_input_details()[0]['index'], image)
    interpreter.invoke()
    for output in interpreter.get_output_details():
      arrays[f'{name}/{output["name"]}'] = interpreter.get_tensor(output['index'])
  _save(path, arrays)


def _save(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  content = io.BytesIO()
  np.savez_compressed(content, **arrays)
  write_whole(path, content.getvalue())
  print(f'{path}: {len(arrays)} arrays, {path.stat().st_size / 2**20:.2f} MiB')


def main(argv: list[str]) -> None:
  """Writes the weights, the fixture or both."""
  refuse_arguments(argv)
  if not (_OUTPUT.value or _FIXTURE.value):
    raise ValueError('name --output (a folder), --fixture (a file) or both.')
  if _OUTPUT.value:
    write_weights(_WHEEL.value, pathlib.Path(_OUTPUT.value))
  if _FIXTURE.value:
    write_fixture(_WHEEL.value, pathlib.Path(_FIXTURE.value))


if __name__ == '__main__':
  launch(main)
