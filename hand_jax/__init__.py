"""One RGB photo in, a hand mesh of MANO's topology with a sigma for every vertex out.

    reconstructor = hand_jax.load_reconstructor('runs/small')
    hand = hand_jax.reconstruct_hand(reconstructor, hand_jax.read_photo('photo.jpg'))

The names of `__all__` are loaded when they are first used: `import hand_jax` alone imports no JAX.
Everything else is imported from its own module.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from hand_jax.data.photos import read_photo
  from hand_jax.gaussian import gaussian_kl, gaussian_nll
  from hand_jax.geometry.cameras import project_points
  from hand_jax.mano.assets import load_mano_model
  from hand_jax.mano.model import mano_forward
  from hand_jax.reconstruction.files import write_reconstruction
  from hand_jax.reconstruction.reconstruct import (
    Reconstruction,
    Reconstructor,
    load_reconstructor,
    reconstruct_hand,
  )
  from hand_jax.rendering.rasterize import rasterize
  from hand_jax.rendering.soft import soft_silhouette
  from hand_jax.types import DiagonalGaussian, HandCamera, HandMesh, HandParameters, ManoModel

__version__ = '0.1.0'

__all__ = [
  'DiagonalGaussian',
  'HandCamera',
  'HandMesh',
  'HandParameters',
  'ManoModel',
  'Reconstruction',
  'Reconstructor',
  'gaussian_kl',
  'gaussian_nll',
  'load_mano_model',
  'load_reconstructor',
  'mano_forward',
  'project_points',
  'rasterize',
  'read_photo',
  'reconstruct_hand',
  'soft_silhouette',
  'write_reconstruction',
]

# The module of each name, under `hand_jax`.
_HOMES = {
  'DiagonalGaussian': 'types',
  'HandCamera': 'types',
  'HandMesh': 'types',
  'HandParameters': 'types',
  'ManoModel': 'types',
  'Reconstruction': 'reconstruction.reconstruct',
  'Reconstructor': 'reconstruction.reconstruct',
  'gaussian_kl': 'gaussian',
  'gaussian_nll': 'gaussian',
  'load_mano_model': 'mano.assets',
  'load_reconstructor': 'reconstruction.reconstruct',
  'mano_forward': 'mano.model',
  'project_points': 'geometry.cameras',
  'rasterize': 'rendering.rasterize',
  'read_photo': 'data.photos',
  'reconstruct_hand': 'reconstruction.reconstruct',
  'soft_silhouette': 'rendering.soft',
  'write_reconstruction': 'reconstruction.files',
}


def __getattr__(name: str) -> Any:
  """Loads a public name on its first use (PEP 562)."""
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
