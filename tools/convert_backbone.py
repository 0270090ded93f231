r"""Converts a PyTorch state dict of a backbone to the `.npz` that ships with the package.

A call looks like this:

  python -m tools.convert_backbone --weights=efficientnet-lite0-57934424.pth \
    --backbone=efficientnet_lite0 --output=hand_jax/assets/efficientnet_lite0.npz
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict

from experiments.launching import launch, refuse_arguments
from experiments.path_flags import define_path
from hand_jax.config import BackboneConfig
from hand_jax.files.writing import unfinished_path
from hand_jax.models.backbone import create_backbone
from hand_jax.models.import_torch import import_torch_weights

_WEIGHTS = define_path('weights', None, 'A .pth or .safetensors file.', required=True)
_BACKBONE = flags.DEFINE_enum(
  'backbone',
  'efficientnet_lite0',
  ['resnet50', 'efficientnet_b0', 'efficientnet_lite0'],
  'The architecture of the file.',
)
_OUTPUT = define_path('output', None, 'The .npz file to write.', required=True)


def convert_weights(weights: str, backbone: str) -> dict[str, np.ndarray]:
  """Reads the weights as arrays by path, kernels in half precision and all else in single.

  Arrays with one axis stay in single precision because they hold variances, whose range exceeds
  that of half precision. They take little space.
  """
  module = create_backbone(BackboneConfig(backbone))
  image = jnp.zeros((1, 32, 32, 3))
  variables = jax.jit(module.init, static_argnums=2)(jax.random.key(0), image, False)
  leaves = flatten_dict(import_torch_weights(weights, backbone, variables), sep='/')
  return {
    name: np.asarray(leaf, np.float16 if leaf.ndim > 1 else np.float32)
    for name, leaf in sorted(leaves.items())
  }


def main(argv: list[str]) -> None:
  """Converts the weights and writes the file."""
  refuse_arguments(argv)
  arrays = convert_weights(_WEIGHTS.value, _BACKBONE.value)
  output = pathlib.Path(_OUTPUT.value)
  output.parent.mkdir(parents=True, exist_ok=True)
  with unfinished_path(output) as unfinished, unfinished.open('wb') as file:
    np.savez_compressed(file, **arrays)
  print(f'{output}: {len(arrays)} arrays, {output.stat().st_size / 2**20:.1f} MiB')


if __name__ == '__main__':
  launch(main)
