"""What a prepared data set may hold of the landmark network: its features for some stated crops.

Each example has several crops. Their changes are drawn from a seed and the example's number alone,
so that training can make the labels of just the crop whose features it reads.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.config import FEATURE_SIDE, AugmentationConfig
from hand_jax.data.augmentation import CropChange, sample_crop_change

VECTOR_SIZE = 1152
NUM_LANDMARKS = 21
LAST_MAP_SIDE, MIDDLE_MAP_SIDE = FEATURE_SIDE // 32, FEATURE_SIDE // 16
MIDDLE_MAP_CHANNELS = 112
_PREFIX = 'feature_'
LANDMARK_ERRORS_FIELD = _PREFIX + 'landmark_errors'
"""The field of a record that holds `CropFeatures.landmark_errors`."""


@dataclasses.dataclass(frozen=True)
class CropFeatureSettings:
  """Which crops' features a data set holds; its manifest keeps them as `crop_features`.

  `crops` are there of each example, each with its own change of turn, scale, shift and colours
  (ranges as in `AugmentationConfig`). `maps` is the number of channels that the stored maps were
  projected to; 0: there are no maps. `projection_seed` is that of the projection.
  """

  crops: int = 4
  maps: int = 0
  crop_factor: float = 1.4
  seed: int = 0
  projection_seed: int = 0
  rotation_degrees: float = 30.0
  scale_fraction: float = 0.15
  shift_fraction: float = 0.08
  color_strength: float = 0.2

  def as_manifest(self) -> dict[str, Any]:
    """Gives the settings as JSON keeps them."""
    return dataclasses.asdict(self)


class CropFeatures(NamedTuple):
  """What the landmark network makes of an example's crops, in which every hand is a right hand.

  `landmarks`: x and y in [-1, 1] over the crop, and depth relative to the wrist in the same unit.
  `world_points`: metres, origin near the hand's centre, camera axes turned with the crop.
  `presence`, `right`: probabilities that there is a hand and that it is a right one. The maps are
  those of the network's last and fifth stage, projected; None in a data set without them.
  `landmark_errors`: how far the landmarks' x and y are from the labels, see
  `hand_jax/data/landmark_errors.py`; None in a data set that an older version prepared.
  """

  vectors: Float[np.ndarray, 'crops 1152']  # float16, as are the maps
  landmarks: Float[np.ndarray, 'crops 21 3']  # float32, as is the rest
  world_points: Float[np.ndarray, 'crops 21 3']
  presence: Float[np.ndarray, 'crops']
  right: Float[np.ndarray, 'crops']
  last_maps: Float[np.ndarray, 'crops 7 7 channels'] | None = None
  middle_maps: Float[np.ndarray, 'crops 14 14 channels'] | None = None
  landmark_errors: Float[np.ndarray, 'crops'] | None = None  # float32


def crop_change(settings: CropFeatureSettings, index: int, crop: int) -> CropChange:
  """Draws the change of crop number `crop` of example number `index` of a split."""
  ranges = AugmentationConfig(
    settings.rotation_degrees,
    settings.scale_fraction,
    settings.shift_fraction,
    settings.color_strength,
  )
  return sample_crop_change(ranges, np.random.default_rng((settings.seed, index, crop)))


def stored_arrays(settings: CropFeatureSettings) -> dict[str, tuple[tuple[int, ...], type]]:
  """Shape and type of each array that a record holds, by the names of `CropFeatures`."""
  crops, points = settings.crops, (settings.crops, NUM_LANDMARKS, 3)
  arrays = {
    'vectors': ((crops, VECTOR_SIZE), np.float16),
    'landmarks': (points, np.float32),
    'world_points': (points, np.float32),
    'presence': ((crops,), np.float32),
    'right': ((crops,), np.float32),
    'landmark_errors': ((crops,), np.float32),
  }
  if settings.maps:
    for name, side in (('last_maps', LAST_MAP_SIDE), ('middle_maps', MIDDLE_MAP_SIDE)):
      arrays[name] = ((crops, side, side, settings.maps), np.float16)
  return arrays


def bytes_per_example(settings: CropFeatureSettings) -> int:
  """What the features of one example take in a record."""
  arrays = stored_arrays(settings).values()
  return sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in arrays)


def record_features(settings: CropFeatureSettings) -> dict[str, Any]:
  """The tfds features that a data set has beside those of `example_features`: raw bytes each."""
  import tensorflow_datasets as tfds  # imported here, as in `example_features`

  return {
    _PREFIX + name: tfds.features.Tensor(shape=shape, dtype=kind, encoding='bytes')
    for name, (shape, kind) in stored_arrays(settings).items()
  }


def encode_crop_features(
  features: CropFeatures, settings: CropFeatureSettings
) -> dict[str, np.ndarray]:
  """The fields of a record that `record_features` announces."""
  return {
    _PREFIX + name: np.asarray(getattr(features, name), kind)
    for name, (_, kind) in stored_arrays(settings).items()
  }


def decode_crop_features(record: dict[str, Any], settings: CropFeatureSettings) -> CropFeatures:
  """Back from a stored record, whose fields are bytes."""
  arrays = stored_arrays(settings)
  if LANDMARK_ERRORS_FIELD not in record:
    del arrays['landmark_errors']
  return CropFeatures(
    **{
      name: np.frombuffer(record[_PREFIX + name], kind).reshape(shape)
      for name, (shape, kind) in arrays.items()
    }
  )


def settings_of_manifest(manifest: dict[str, Any]) -> CropFeatureSettings | None:
  """The settings that a data set's manifest states; None where it holds no features."""
  stated = manifest.get('settings', {}).get('crop_features')
  return CropFeatureSettings(**stated) if stated else None
