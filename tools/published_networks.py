"""Reads the published hand networks from the wheel of mediapipe 0.10.21, which is not installed."""

import hashlib
import importlib
import zipfile
from typing import Any, NamedTuple

import flax.linen as nn

from hand_jax.models import hand_landmark, palm_detection


class PublishedNetwork(NamedTuple):
  """One file of the wheel, with the module to which its weights belong."""

  path: str
  sha256: str
  module: nn.Module
  input_side: int


NETWORKS = {
  'palm_detection': PublishedNetwork(
    'mediapipe/modules/palm_detection/palm_detection_full.tflite',
    '1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54',
    palm_detection.PalmDetectionNetwork(),
    palm_detection.INPUT_SIDE,
  ),
  'hand_landmark': PublishedNetwork(
    'mediapipe/modules/hand_landmark/hand_landmark_full.tflite',
    '11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3',
    hand_landmark.HandLandmarkNetwork(),
    hand_landmark.INPUT_SIDE,
  ),
}


def read_network_file(wheel: str, network: PublishedNetwork) -> bytes:
  """Reads the file of a network from the wheel.

  Raises:
    ValueError: the wheel has no such file, or the file has another hash than the known one.
  """
  with zipfile.ZipFile(wheel) as archive:
    if network.path not in archive.namelist():
      raise ValueError(f'{wheel} holds no {network.path}; expected the wheel of mediapipe 0.10.21.')
    data = archive.read(network.path)
  digest = hashlib.sha256(data).hexdigest()
  if digest != network.sha256:
    raise ValueError(f'{network.path} of {wheel} has sha256 {digest}, expected {network.sha256}.')
  return data


def create_interpreter(wheel: str, network: PublishedNetwork, threads: int = 1) -> Any:
  """Loads a network into LiteRT, the runtime for which it was published.

  Args:
    wheel: the path of the wheel.
    network: the network to load.
    threads: how many threads LiteRT may use.

  Raises:
    ImportError: LiteRT is not installed.
    ValueError: see `read_network_file`.
  """
  try:
    runtime = importlib.import_module('ai_edge_litert.interpreter')
  except ImportError:
    raise ImportError('LiteRT is missing; install it with: pip install ai-edge-litert') from None
  data = read_network_file(wheel, network)
  interpreter = runtime.Interpreter(model_content=data, num_threads=threads)
  interpreter.allocate_tensors()
  return interpreter
