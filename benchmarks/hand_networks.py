"""Compares the hand networks with LiteRT.

  python -m benchmarks.hand_networks --wheel=mediapipe-0.10.21-*.whl

This needs LiteRT (pip install ai-edge-litert) and the wheel from which the weights come (pip
download --no-deps mediapipe==0.10.21), which is only read. Both sides run the same networks in
float32, in turn and in one process: one pass of the palm detector and two of the landmark network.
After that, this project reconstructs a whole photo, from pixels to the mesh and its sigma, and its
time is compared with that of LiteRT's three passes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.interleave import compare
from hand_jax.data.photos import DEMO_PHOTOS, read_photo
from hand_jax.detection.networks import load_bundled_parameters
from hand_jax.models.hand_landmark import HandLandmarkNetwork, normalize_crops
from hand_jax.models.palm_detection import PalmDetectionNetwork
from hand_jax.reconstruction.hand_reconstructor import HandReconstructor, PhotoRequest
from tools.drawn_hand import draw_test_picture
from tools.published_networks import NETWORKS, create_interpreter

_WHEEL = flags.DEFINE_string('wheel', None, 'The wheel of mediapipe 0.10.21.', required=True)
_REPEATS = flags.DEFINE_integer('repeats', 30, 'Timed calls of each competitor.')
_THREADS = flags.DEFINE_integer('threads', 2, 'Threads that LiteRT may use.')
_BAR, _PHOTO_BAR = 1.3, 5.0


def litert_call(name: str) -> Callable[[], object]:
  """Returns a function that runs one pass of LiteRT on the test picture."""
  network = NETWORKS[name]
  interpreter = create_interpreter(_WHEEL.value, network, _THREADS.value)
  picture = draw_test_picture(network.input_side)[None] / np.float32(255)
  source = interpreter.get_input_details()[0]['index']

  def call():
    interpreter.set_tensor(source, picture)
    interpreter.invoke()
    return [interpreter.get_tensor(o['index']) for o in interpreter.get_output_details()]

  return call


def jax_call(name: str) -> Callable[[], object]:
  """Returns a function that runs one pass of this project's network on the test picture."""
  module = {'palm_detection': PalmDetectionNetwork(), 'hand_landmark': HandLandmarkNetwork()}[name]
  variables = load_bundled_parameters(name)
  outputs = (
    2 if name == 'palm_detection' else 4
  )  # The features of the landmark network are left out.
  run = jax.jit(lambda variables, x: module.apply(variables, normalize_crops(x))[:outputs])
  picture = jnp.asarray(draw_test_picture(NETWORKS[name].input_side))[None]
  return lambda: jax.device_get(run(variables, picture))


def photo_call() -> Callable[[], object]:
  """Returns a function that runs the default program on a bundled photo."""
  reconstructor = HandReconstructor()
  request = PhotoRequest(read_photo(DEMO_PHOTOS / 'nocurl.jpg'))
  return lambda: reconstructor.reconstruct([request])


def main(argv: list[str]) -> None:
  """Measures networks and program, and prints the ratios."""
  del argv
  calls = {
    f'{side} {name}': create(name)
    for name in NETWORKS
    for side, create in (('litert', litert_call), ('hand_jax', jax_call))
  }
  for name in NETWORKS:
    print(f'{name}, one picture:')
    compare({key: call for key, call in calls.items() if name in key}, _REPEATS.value)

  def whole(side):
    palm, landmark = (calls[f'{side} {name}'] for name in NETWORKS)
    return lambda: (palm(), landmark(), landmark())

  print('one detection and two landmark passes:')
  medians = compare({side: whole(side) for side in ('litert', 'hand_jax')}, _REPEATS.value)
  ratio = medians['hand_jax'] / medians['litert']
  print(f'hand_jax / litert with {_THREADS.value} threads = {ratio:.2f} (bar {_BAR})')
  print('a whole photo by hand_jax, and those three passes of litert:')
  medians = compare({'litert': whole('litert'), 'hand_jax': photo_call()}, _REPEATS.value)
  ratio = medians['hand_jax'] / medians['litert']
  print(f'hand_jax / litert = {ratio:.2f} (bar {_PHOTO_BAR})')


if __name__ == '__main__':
  app.run(main)
