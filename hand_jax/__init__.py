"""One RGB photo in, a hand mesh of MANO's topology with a sigma for every vertex out.

    photo = hand_jax.PhotoRequest(hand_jax.read_photo('photo.jpg'))
    hands = hand_jax.reconstruct_hands(hand_jax.load_program(), photo)

The names of `__all__` are loaded when they are first used: `import hand_jax` alone imports no JAX.
Everything else is imported from its own module.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from hand_jax.data.photos import read_photo
  from hand_jax.detection.detect import detect_hands
  from hand_jax.detection.reading import DetectedHand
  from hand_jax.mano.assets import load_mano_model
  from hand_jax.mano.model import mano_forward
  from hand_jax.reconstruction.photo_hands import PhotoRequest, load_program, reconstruct_hands
  from hand_jax.reconstruction.reconstruct import load_reconstructor, reconstruct_hand
  from hand_jax.rendering.rasterize import rasterize
  from hand_jax.rendering.soft import soft_silhouette
  from hand_jax.types import DiagonalGaussian

__version__ = '0.1.0'

__all__ = [
  'DetectedHand',
  'DiagonalGaussian',
  'PhotoRequest',
  '__version__',
  'detect_hands',
  'load_mano_model',
  'load_program',
  'load_reconstructor',
  'mano_forward',
  'rasterize',
  'read_photo',
  'reconstruct_hand',
  'reconstruct_hands',
  'soft_silhouette',
]

# The module of each name, under `hand_jax`.
_HOMES = {
  'DetectedHand': 'detection.reading',
  'DiagonalGaussian': 'types',
  'PhotoRequest': 'reconstruction.photo_hands',
  'detect_hands': 'detection.detect',
  'load_mano_model': 'mano.assets',
  'load_program': 'reconstruction.photo_hands',
  'load_reconstructor': 'reconstruction.reconstruct',
  'mano_forward': 'mano.model',
  'rasterize': 'rendering.rasterize',
  'read_photo': 'data.photos',
  'reconstruct_hand': 'reconstruction.reconstruct',
  'reconstruct_hands': 'reconstruction.photo_hands',
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
