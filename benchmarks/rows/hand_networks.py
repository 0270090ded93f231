"""Measures the palm detector, the landmark network and the whole program beside LiteRT.

LiteRT needs `pip install ai-edge-litert`. The published weights are read from the wheel of
mediapipe 0.10.21 (pip download --no-deps mediapipe==0.10.21), which is not installed. The
environment variable MEDIAPIPE_WHEEL names its file.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.contest import Contest, relative_difference
from hand_jax.data.photos import DEMO_PHOTOS, read_photo
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import HandLandmarkNetwork, normalize_crops
from hand_jax.models.palm_detection import PalmDetectionNetwork
from hand_jax.reconstruction.hand_reconstructor import HandReconstructor, PhotoRequest
from tools.drawn_hand import draw_test_picture
from tools.published_networks import NETWORKS, create_interpreter

_MODULES = {'palm_detection': PalmDetectionNetwork(), 'hand_landmark': HandLandmarkNetwork()}
# The features of the landmark network are left out, because LiteRT does not return them.
_OUTPUTS = {'palm_detection': 2, 'hand_landmark': 4}
# Passes of each network. The program reads the plain and the mirrored view of a hand in one batch,
# and does so twice: where the palm is, and where the first landmarks are.
_PASSES = {'palm_detection': 1, 'hand_landmark': 2}


def one_picture(name: str) -> Contest:
  """Compares one pass on a picture, including the copies from and to the computer's memory."""
  compiled, ours = _pass(name)
  peer = litert(name)
  return Contest(ours, {'LiteRT': peer}, _difference(ours(), peer()), compiled)


def palm_and_two_landmarks() -> Contest:
  """Compares one pass of the palm detector and then two of the landmark network.

  Ours makes the two in one batch, as the program does for the two views of a hand, and LiteRT one
  after the other. Pictures come from the computer's memory and results are brought back.
  """
  passes = {name: _pass(name, count) for name, count in _PASSES.items()}
  peers = {name: litert(name) for name in _PASSES}
  difference = float(np.max([_difference(passes[n][1](), peers[n]()) for n in _PASSES]))
  flops = {name: compiled.cost_analysis()['flops'] for name, (compiled, _) in passes.items()}
  return Contest(
    lambda: [call() for _, call in passes.values()],
    {'LiteRT': in_turn(peers)},
    difference,
    work=sum(flops.values()),
  )


def in_turn(calls: dict[str, Callable]) -> Callable[[], None]:
  """Returns a function that makes every network's passes, one after the other."""

  def call():
    for name, times in _PASSES.items():
      for _ in range(times):
        calls[name]()

  return call


def _pass(name: str, count: int = 1) -> tuple[Any, Callable[[], Any]]:
  """Compiles a network. Returns the program and a function that runs it on `count` pictures."""
  module, variables = _MODULES[name], load_bundled_parameters(name)
  picture = np.repeat(draw_test_picture(NETWORKS[name].input_side)[None], count, axis=0)
  run = jax.jit(lambda variables, x: module.apply(variables, normalize_crops(x))[: _OUTPUTS[name]])
  compiled = run.lower(variables, picture).compile()
  return compiled, lambda: jax.device_get(compiled(variables, picture))


def litert(name: str, threads: int = 2) -> Callable[[], list[np.ndarray]]:
  """Returns a function that runs one pass of LiteRT on the test picture.

  Raises:
    ValueError: the environment names no wheel, or a wheel that does not hold the network.
  """
  wheel = os.environ.get('MEDIAPIPE_WHEEL', '')
  if not wheel:
    raise ValueError('MEDIAPIPE_WHEEL should name the file of the wheel of mediapipe 0.10.21.')
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
  """Compares each of our outputs with the nearest of theirs, which have another order.

  All pictures of our batch are the one that theirs are of.
  """
  nearest = []
  for found in ours:
    flat = np.asarray(found).reshape(len(found), -1)
    same = [other.reshape(1, -1) for other in theirs if other.size == flat.shape[1]]
    nearest.append(
      min(relative_difference([flat], [np.repeat(other, len(flat), 0)]) for other in same)
    )
  return float(np.max(nearest))


def photo() -> Contest:
  """Compares a whole photo, from pixels to the mesh and its sigma, with three passes of LiteRT.

  Those passes of `palm_and_two_landmarks` are a part of this work, so no results are compared.
  """
  reconstructor, requests = HandReconstructor(), _requests(1)
  passes = in_turn({name: litert(name) for name in _PASSES})
  return Contest(lambda: reconstructor.reconstruct(requests), {'LiteRT, three passes': passes})


def folder(count: int) -> Contest:
  """Compares reconstructing photos together with reconstructing the same photos in turn."""
  reconstructor, requests = HandReconstructor(), _requests(count)
  one_by_one = lambda: [reconstructor.reconstruct([request]) for request in requests]  # noqa: E731
  return Contest(lambda: reconstructor.reconstruct(requests), {'ours, one by one': one_by_one})


def _requests(count: int) -> list[PhotoRequest]:
  paths = sorted(DEMO_PHOTOS.glob('*.jpg'))
  return [PhotoRequest(read_photo(paths[n % len(paths)])) for n in range(count)]
