"""Fills state dicts by a rule, so that only outputs of the reference programs are stored.

`fixtures/resnet50.npz` and `fixtures/efficientnet_b0.npz` hold features which torchvision 0.29.1
computed from exactly these weights, `fixtures/efficientnet_lite0.npz` those of the package
efficientnet-lite-pytorch 0.1.0 with ImageNet weights (`global_feature_half`: with its kernels
rounded to half precision). `keys` lists the entries of each state dict with their shapes.
"""

import ast
import functools
import json
import pathlib
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from hand_jax.config import BackboneConfig
from hand_jax.models.backbone import create_backbone

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'
GAINS = {'resnet50': 1.0, 'efficientnet_b0': 2.3}  # keep the signal alive to the last layer


def reference_image():
  """Makes the input of all references: two images, channels last."""
  image = np.random.default_rng(0).standard_normal((2, 3, 224, 224))
  return image.astype(np.float32).transpose(0, 2, 3, 1)


def load_fixture(name):
  with np.load(FIXTURES / f'{name}.npz') as arrays:
    return dict(arrays)


def state_shapes(name):
  """Returns the entry names of the published state dict and their shapes."""
  pairs = (str(key).split(':') for key in load_fixture(name)['keys'])
  return {entry: ast.literal_eval(shape) for entry, shape in pairs}


@functools.cache
def backbone_shapes(name):
  """Returns a tree to load into. Real variables of a large network would only take time."""
  module = create_backbone(BackboneConfig(name))
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  return jax.eval_shape(lambda key, of: module.init(key, of, False), jax.random.key(0), images)


def fill(entry, shape, gain):
  """Draws the values of one entry by numpy's generator, seeded by the CRC-32 of its name."""
  rng = np.random.default_rng(zlib.crc32(entry.encode()))
  if entry.endswith('num_batches_tracked'):
    return np.zeros(shape, np.int64)
  if entry.endswith('running_var'):
    values = rng.uniform(0.5, 1.5, shape)
  elif entry.endswith('running_mean'):
    values = 0.1 * rng.standard_normal(shape)
  elif len(shape) == 1:
    values = 0.1 * rng.standard_normal(shape) + (1.0 if entry.endswith('weight') else 0.0)
  else:
    values = rng.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:]))
  return values.astype(np.float32)


def filled_state(name):
  return {
    entry: fill(entry, shape, GAINS.get(name, 1.0)) for entry, shape in state_shapes(name).items()
  }


def write_safetensors(path, arrays):
  """Writes the format: header length, JSON header, then the arrays one after another."""
  types = {'float32': 'F32', 'float16': 'F16', 'float64': 'F64', 'int64': 'I64'}
  header, chunks, offset = {'__metadata__': {'format': 'pt'}}, [], 0
  for name, array in arrays.items():
    chunks.append(array.tobytes())
    header[name] = {
      'dtype': types[array.dtype.name],
      'shape': list(array.shape),
      'data_offsets': [offset, offset + len(chunks[-1])],
    }
    offset += len(chunks[-1])
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + b''.join(chunks))
