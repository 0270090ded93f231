"""The palm detector and the landmark network beside LiteRT, and photos by the whole program.

LiteRT needs `pip install ai-edge-litert`, and the weights in their published form need the wheel
of mediapipe 0.10.21 (pip download --no-deps mediapipe==0.10.21), which is only read. The
environment variable MEDIAPIPE_WHEEL names its file.
"""

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contest import Contest, relative_difference
from hand_jax.data.photos import DEMO_PHOTOS, read_photo
from hand_jax.detection.networks import load_bundled_parameters
from hand_jax.models.hand_landmark import HandLandmarkNetwork, normalize_crops
from hand_jax.models.palm_detection import PalmDetectionNetwork
from hand_jax.reconstruction.hand_reconstructor import HandReconstructor, PhotoRequest
from tools.drawn_hand import draw_test_picture
from tools.published_networks import NETWORKS, create_interpreter

_MODULES = {'palm_detection': PalmDetectionNetwork(), 'hand_landmark': HandLandmarkNetwork()}
# The features of the landmark network are left out, since LiteRT does not give them.
_OUTPUTS = {'palm_detection': 2, 'hand_landmark': 4}


def one_picture(name: str) -> Contest:
  """Compares one pass on a picture in the computer's memory, results included."""
  module, variables = _MODULES[name], load_bundled_parameters(name)
  picture = jnp.asarray(draw_test_picture(NETWORKS[name].input_side))[None]
  run = jax.jit(lambda variables, x: module.apply(variables, normalize_crops(x))[: _OUTPUTS[name]])
  compiled = run.lower(variables, picture).compile()
  ours = lambda: jax.device_get(compiled(variables, picture))  # noqa: E731
  peer = litert(name)
  return Contest(ours, {'LiteRT': peer}, _difference(ours(), peer()), compiled)


def litert(name: str, threads: int = 2) -> Callable[[], list[np.ndarray]]:
  """Returns a function that runs one pass of LiteRT on the test picture.

  Raises:
    ValueError: the environment names no wheel, or one that does not hold the network.
  """
  wheel = os.environ.get('MEDIAPIPE_WHEEL', '')
  if not wheel:
    raise ValueError('MEDIAPIPE_WHEEL should name the wheel of mediapipe 0.10.21.')
  network = NETWORKS[name]
  interpreter = create_interpreter(wheel, network, threads)
  picture = draw_test_picture(network.input_side)[None] / np.float32(255)
  source = interpreter.get_input_details()[0]['index']

  def call():
    interpreter.set_tensor(source, picture)
    interpreter.invoke()
    return [interpreter.get_tensor(out['index']) for out in interpreter.get_output_details()]

  return call


def _difference(ours, theirs) -> float:
  """Compares each of our outputs with the nearest of theirs, whose order is another."""
  nearest = []
  for found in ours:
    flat = np.asarray(found).reshape(-1)
    same = [other.reshape(-1) for other in theirs if other.size == flat.size]
    nearest.append(min(relative_difference([flat], [other]) for other in same))
  return max(nearest)


def photo() -> Contest:
  """Measures a whole photo with one hand, from pixels to the mesh and its sigma."""
  reconstructor, requests = HandReconstructor(), _requests(1)
  return Contest(lambda: reconstructor.reconstruct(requests), {})


def folder(count: int) -> Contest:
  """Compares photos that are reconstructed together with the same ones in turn."""
  reconstructor, requests = HandReconstructor(), _requests(count)
  one_by_one = lambda: [reconstructor.reconstruct([request]) for request in requests]  # noqa: E731
  return Contest(lambda: reconstructor.reconstruct(requests), {'ours, one by one': one_by_one})


def _requests(count: int) -> list[PhotoRequest]:
  paths = sorted(DEMO_PHOTOS.glob('*.jpg'))
  return [PhotoRequest(read_photo(paths[n % len(paths)])) for n in range(count)]
