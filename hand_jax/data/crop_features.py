"""The landmark network's features of crops, which a prepared data set may hold.

Each example has several crops. Their changes are drawn only from a seed and the example's number.
Training can therefore compute the labels of just the crop whose features it reads.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.config import FEATURE_SIDE, AugmentationConfig
from hand_jax.data.augmentation import CropChange, sample_crop_change, upright_change
from hand_jax.examples import HandExample

VECTOR_SIZE = 1152
NUM_LANDMARKS = 21
LAST_MAP_SIDE, MIDDLE_MAP_SIDE = FEATURE_SIDE // 32, FEATURE_SIDE // 16
_PREFIX = 'feature_'
LANDMARK_ERRORS_FIELD = _PREFIX + 'landmark_errors'
"""This field of a record holds `CropFeatures.landmark_errors`."""


@dataclasses.dataclass(frozen=True)
class CropFeatureSettings:
  """Settings of the crops whose features a data set holds.

  Its manifest keeps them as `crop_features`. Each example has `crops` crops, each with its own
  change of rotation, scale, shift and colours, whose ranges mean the same as in
  `AugmentationConfig`. `maps` is the number of channels to which the stored feature maps were
  projected, and 0 means that no maps are stored. `projection_seed` seeds that projection.

  With `upright` a crop is first turned so that the middle finger's base lies straight above the
  wrist (`upright_change`), as the landmark network was trained. Manifests of older versions do not
  state it, and mean that crops lie as the photos do.
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
  upright: bool = True

  def as_manifest(self) -> dict[str, Any]:
    """Gives the settings as JSON keeps them."""
    return dataclasses.asdict(self)


class CropFeatures(NamedTuple):
  """The landmark network's output for the crops of an example, which all show a right hand.

  `landmarks` holds x and y in [-1, 1] over the crop, and depth relative to the wrist in the same
  unit. `world_points` is in metres. Its origin is near the hand's centre, and its axes are the
  camera axes turned with the crop. `presence` and `right` are the probabilities that there is a
  hand and that it is a right one. The maps come from the network's last and fifth stage and are
  projected. They are None in a data set without maps. `landmark_errors` is the distance of the
  landmarks' x and y from the labels, see `hand_jax/data/landmark_errors.py`. It is None in a data
  set that an older version prepared.
  """

  vectors: Float[np.ndarray, 'crops 1152']  # float16, as are the maps
  landmarks: Float[np.ndarray, 'crops 21 3']  # float32, as is the rest
  world_points: Float[np.ndarray, 'crops 21 3']
  presence: Float[np.ndarray, 'crops']
  right: Float[np.ndarray, 'crops']
  last_maps: Float[np.ndarray, 'crops 7 7 channels'] | None = None
  middle_maps: Float[np.ndarray, 'crops 14 14 channels'] | None = None
  landmark_errors: Float[np.ndarray, 'crops'] | None = None  # float32


def crop_change(
  settings: CropFeatureSettings, index: int, crop: int, example: HandExample
) -> CropChange:
  """Draws the change of one crop of an example, the same at each call.

  Args:
    settings: the ranges of the changes and their seed.
    index: the example's number in its split.
    crop: the crop's number in the example.
    example: the example, whose joints determine the turn of an upright crop.
  """
  ranges = AugmentationConfig(
    settings.rotation_degrees,
    settings.scale_fraction,
    settings.shift_fraction,
    settings.color_strength,
  )
  change = sample_crop_change(ranges, np.random.default_rng((settings.seed, index, crop)))
  return upright_change(example, change) if settings.upright else change


def stored_arrays(settings: CropFeatureSettings) -> dict[str, tuple[tuple[int, ...], type]]:
  """Returns the shape and type of each array in a record, by the names of `CropFeatures`."""
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
  """Computes how many bytes the features of one example take in a record."""
  arrays = stored_arrays(settings).values()
  return sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in arrays)


def record_features(settings: CropFeatureSettings) -> dict[str, Any]:
  """Returns the tfds features that a record has besides those of `example_features`.

  Each of them stores an array as raw bytes.
  """
  import tensorflow_datasets as tfds  # imported here, as in `example_features`

  return {
    _PREFIX + name: tfds.features.Tensor(shape=shape, dtype=kind, encoding='bytes')
    for name, (shape, kind) in stored_arrays(settings).items()
  }


def encode_crop_features(
  features: CropFeatures, settings: CropFeatureSettings
) -> dict[str, np.ndarray]:
  """Returns the fields of a record that `record_features` declares."""
  return {
    _PREFIX + name: np.asarray(getattr(features, name), kind)
    for name, (_, kind) in stored_arrays(settings).items()
  }


def decode_crop_features(record: dict[str, Any], settings: CropFeatureSettings) -> CropFeatures:
  """Decodes the features in a stored record, whose fields are bytes."""
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
  """Reads the settings in a data set's manifest, or returns None where it holds no features."""
  stated = manifest.get('settings', {}).get('crop_features')
  return stated_settings(stated) if stated else None


def stated_settings(stated: dict[str, Any]) -> CropFeatureSettings:
  """Reads settings as a manifest keeps them. Without `upright`, crops lie as the photos do."""
  return CropFeatureSettings(**{'upright': False, **stated})
