"""Runs the landmark network on crops of photos, and adds its features to a data set's records."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from hand_jax.config import FEATURE_SIDE
from hand_jax.data.augmentation import make_row
from hand_jax.data.crop_features import (
  CropFeatures,
  CropFeatureSettings,
  crop_change,
  encode_crop_features,
)
from hand_jax.data.decoding import decode_photo
from hand_jax.data.landmark_errors import landmark_errors
from hand_jax.examples import HandExample, Skip, decode_example, without_3d
from hand_jax.models.applying import apply_network
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import (
  HandLandmarkNetwork,
  normalize_crops,
  normalize_landmarks,
)
from hand_jax.models.map_sampling import reduce_maps
from hand_jax.types import HandBatch

# All crops go through the network in batches of this size, so that one compiled program is enough.
_BATCH = 16


def with_crop_features(
  records: Iterable[dict[str, Any] | Skip], settings: CropFeatureSettings
) -> Iterator[dict[str, Any] | Skip]:
  """Adds crop features to the encoded records of a split, in order, and passes skips on.

  A record's crops are drawn from its number, which counts the records before it but not the skips.
  It is the record's place in the finished split. To fill a batch, some records are taken ahead.
  """
  records, number = iter(records), 0
  while block := list(itertools.islice(records, max(1, _BATCH // settings.crops))):
    kept = [record for record in block if not isinstance(record, Skip)]
    rows = [row for i, record in enumerate(kept) for row in _rows(record, number + i, settings)]
    number += len(kept)
    features = iter(_split(_features_of(rows, settings), settings) if rows else ())
    for record in block:
      if isinstance(record, Skip):
        yield record
      else:
        yield record | encode_crop_features(next(features), settings)


def _rows(record: dict[str, Any], number: int, settings: CropFeatureSettings) -> list[HandBatch]:
  """Crops a record as training will, from the photo as it will be stored."""
  return rows_of_example(_example_of(record), number, settings)


def _features_of(rows: Sequence[HandBatch], settings: CropFeatureSettings) -> CropFeatures:
  """Computes the network's features of the rows' pictures, and their distance from the labels."""
  features = landmark_features(np.stack([row.image for row in rows]), settings)
  errors = landmark_errors(
    features.landmarks[..., :2],
    np.stack([row.joints_normalized for row in rows]),
    np.stack([row.joint_confidence for row in rows]),
  )
  return features._replace(landmark_errors=errors)


def _example_of(record: dict[str, Any]) -> HandExample:
  photo = decode_photo(record['image'].getvalue(), record['example_id'])
  return without_3d(decode_example(record | {'image': photo, 'has_hand_mask': False}))


def rows_of_example(
  example: HandExample, number: int, settings: CropFeatureSettings
) -> list[HandBatch]:
  """Makes the crops of an example that the settings state, with their 2D joints.

  Args:
    example: a photo with its labels.
    number: the example's number in its split, which seeds the crops.
    settings: settings of the crops.
  """
  changes = [crop_change(settings, number, crop, example) for crop in range(settings.crops)]
  # The crop depends on box and side alone, so no vertices are needed.
  return [
    make_row(without_3d(example), number, FEATURE_SIDE, settings.crop_factor, 0, change)
    for change in changes
  ]


def landmark_features(
  crops: UInt8[np.ndarray, 'crops 224 224 3'], settings: CropFeatureSettings
) -> CropFeatures:
  """Runs the landmark network on crops of right hands.

  Vectors and maps are rounded to half precision. Of `settings` only those of the maps matter.
  `landmark_errors` is None, since crops alone have no labels.
  """
  missing = -len(crops) % _BATCH
  padded = np.concatenate([crops, np.zeros((missing, *crops.shape[1:]), np.uint8)])
  program = _program(settings.maps, settings.projection_seed)
  parts = [
    jax.device_get(program(padded[start : start + _BATCH]))
    for start in range(0, len(padded), _BATCH)
  ]
  return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(crops)], *parts)


@functools.lru_cache(maxsize=2)
def _program(maps: int, projection_seed: int) -> Callable[[np.ndarray], CropFeatures]:
  variables = load_bundled_parameters('hand_landmark')

  @jax.jit
  def apply(variables, crops):
    output = apply_network(HandLandmarkNetwork(), variables, normalize_crops(crops))
    # Under the trace the fields are JAX's arrays.
    features = CropFeatures(
      vectors=output.global_feature.astype(jnp.float16),
      landmarks=cast(np.ndarray, normalize_landmarks(output.landmarks)),
      world_points=output.world_landmarks,
      presence=output.presence,
      right=output.right,
    )
    if maps:
      last, middle = reduce_maps(output.last_map, output.middle_map, maps, projection_seed)
      features = features._replace(
        last_maps=last.astype(jnp.float16), middle_maps=middle.astype(jnp.float16)
      )
    return features

  return lambda crops: apply(variables, crops)


def _split(features: CropFeatures, settings: CropFeatureSettings) -> Sequence[CropFeatures]:
  """Splits the features of many crops into those of each example."""
  starts = range(0, len(features.vectors), settings.crops)
  return [
    jax.tree.map(lambda array, start=start: array[start : start + settings.crops], features)
    for start in starts
  ]
