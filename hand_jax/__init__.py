"""Reconstructs hands from one RGB photo: meshes of MANO's structure, with a sigma per vertex.

    hands = hand_jax.HandReconstructor()('photo.jpg')
    hands[0].vertices, hands[0].vertex_sigma_mm

The names of `__all__` are loaded when they are first used, so `import hand_jax` alone imports no
JAX. Everything else is imported from its own module.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hand_jax.version import VERSION

if TYPE_CHECKING:
  from hand_jax.data.photos import read_photo
  from hand_jax.detection.detect import detect_hands
  from hand_jax.detection.reading import DetectedHand
  from hand_jax.mano.assets import load_mano_model
  from hand_jax.mano.model import mano_forward
  from hand_jax.reconstruction.hand_reconstructor import HandReconstructor
  from hand_jax.reconstruction.reconstruction import Reconstruction
  from hand_jax.rendering.rasterize import rasterize
  from hand_jax.rendering.soft import soft_silhouette
  from hand_jax.types import DiagonalGaussian

__version__ = VERSION

__all__ = [
  'DetectedHand',
  'DiagonalGaussian',
  'HandReconstructor',
  'Reconstruction',
  '__version__',
  'detect_hands',
  'load_mano_model',
  'mano_forward',
  'rasterize',
  'read_photo',
  'soft_silhouette',
]

# Maps each public name to its module under `hand_jax`.
_HOMES = {
  'DetectedHand': 'detection.reading',
  'DiagonalGaussian': 'types',
  'HandReconstructor': 'reconstruction.hand_reconstructor',
  'Reconstruction': 'reconstruction.reconstruction',
  'detect_hands': 'detection.detect',
  'load_mano_model': 'mano.assets',
  'mano_forward': 'mano.model',
  'rasterize': 'rendering.rasterize',
  'read_photo': 'data.photos',
  'soft_silhouette': 'rendering.soft',
}


def __getattr__(name: str) -> Any:
  """Loads a public name on its first use (PEP 562)."""
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*__all__, *(name for name in globals() if name.startswith('__'))})
