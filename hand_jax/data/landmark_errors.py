"""Measures how far the landmark network is from the labels, and selects examples by this error.

The error of a crop is the mean distance, over the known joints, between the network's x, y and the
label, as a share of half the larger side of the box around these joints. An example's error is the
mean over its crops. It is NaN where fewer than two joints are known.
"""

import math
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Int

from hand_jax.data.crop_features import LANDMARK_ERRORS_FIELD

# Most of the time goes into unpacking whole records, which threads can do side by side. A thread
# takes a block of this many records (about 3 MB) at a time.
_BLOCK, _THREADS = 64, 4


class Selection(NamedTuple):
  """The examples of a split whose landmark error is at most `most`.

  `numbers` are their numbers in the split, in ascending order. `total` counts the examples of the
  whole split.
  """

  numbers: Int[np.ndarray, 'kept']
  total: int
  most: float


def landmark_errors(
  landmarks: Float[np.ndarray, 'crops joints 2'],
  joints: Float[np.ndarray, 'crops joints 2'],
  confidence: Float[np.ndarray, 'crops joints'],
) -> Float[np.ndarray, 'crops']:
  """Computes the error of each crop, NaN where fewer than two joints are known.

  Args:
    landmarks: the network's x and y in [-1, 1] over the crop.
    joints: the labels in the same unit.
    confidence: 0 where a label is unknown. The label may then be anything.
  """
  return np.array(
    [
      _crop_error(found[known], expected[known])
      for found, expected, known in zip(landmarks, joints, confidence > 0, strict=True)
    ],
    np.float32,
  )


def _crop_error(landmarks: np.ndarray, joints: np.ndarray) -> float:
  if len(joints) < 2:
    return math.nan
  joints = joints.astype(np.float64)
  half = np.ptp(joints, axis=0).max() / 2
  # Joints that all lie in one place give no size to divide by.
  return float(np.linalg.norm(landmarks - joints, axis=1).mean() / half) if half else math.nan


def read_landmark_errors(records: Any, features: Any) -> Float[np.ndarray, 'examples'] | None:
  """Reads the error of every example of a split, or returns None where the records hold none.

  It decodes no photo and no other label.

  Args:
    records: the split as tfds' data source of raw bytes.
    features: the data set's FeaturesDict.
  """
  if LANDMARK_ERRORS_FIELD not in features:
    return None
  # Imported here: training on rendered examples needs no tfds.
  from tensorflow_datasets.proto import tf_example_pb2

  # protobuf makes this class at run time.
  example_type = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]

  def read_block(start: int) -> list[bytes]:
    block = records.__getitems__(list(range(start, min(start + _BLOCK, len(records)))))
    fields = (example_type.FromString(data).features.feature for data in block)
    return [field[LANDMARK_ERRORS_FIELD].bytes_list.value[0] for field in fields]

  with ThreadPoolExecutor(_THREADS) as executor:
    blocks = executor.map(read_block, range(0, len(records), _BLOCK))
    errors = [error for block in blocks for error in block]
  crops = np.frombuffer(b''.join(errors), np.float32).reshape(len(errors), -1)
  return crops.mean(axis=1, dtype=np.float64)


def read_errors_by_split(folder: pathlib.Path) -> dict[str, Float[np.ndarray, 'examples']]:
  """Reads the errors in each split of a prepared data set, without splits that hold none."""
  import tensorflow_datasets as tfds

  # tfds wraps its methods in a way that hides what they take.
  builder, found = cast(Any, tfds.builder_from_directory(folder)), {}
  for split in builder.info.splits:
    stored = tfds.decode.DeserializeMethod.RAW_BYTES
    records = builder.as_data_source(split, deserialize_method=stored)
    errors = read_landmark_errors(records, builder.info.features)
    if errors is not None:
      found[split] = errors
  return found


def select_examples(errors: Float[np.ndarray, 'examples'], most: float, place: str) -> Selection:
  """Selects the examples whose error is known and at most `most`.

  Args:
    errors: the error of each example of a split, NaN where it is unknown.
    most: the largest error that is kept.
    place: split and folder, for the error message.

  Raises:
    ValueError: no example is kept. The message tells the smallest error there is.
  """
  numbers = np.flatnonzero(errors <= most)
  if not len(numbers):
    known = errors[~np.isnan(errors)]
    reason = 'none of them has two known joints'
    if len(known):
      # The error is rounded up, so that the value in the message would keep an example.
      reason = f'the smallest error there is {math.ceil(1e4 * known.min()) / 1e4:g}'
    raise ValueError(
      f'data.max_landmark_error={most:g} keeps none of the {len(errors)} examples of {place}: '
      f'{reason}.'
    )
  return Selection(numbers, len(errors), most)


def describe_selection(selection: Selection, used: int) -> str:
  """Says how many examples are kept, and how many of these are used."""
  kept = len(selection.numbers)
  taken = 'these' if used == kept else f'the first {used:,} of these'
  return (
    f'{kept:,} of {selection.total:,} examples have a landmark error of at most '
    f'{selection.most:g}; training takes {taken}.'
  )
