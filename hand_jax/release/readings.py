"""Runs the landmark network on rendered hands, and keeps its outputs together with the truth.

Readings are kept in files of some hundred hands, and each file is written as a whole. A pass that
was stopped therefore continues after its last file.
"""

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from hand_jax.detection.networks import read_landmarks
from hand_jax.detection.regions import (
  HandRegion,
  crop_region,
  photo_to_crop,
  region_from_landmarks,
  turn_with_region,
)
from hand_jax.examples import HandExample
from hand_jax.geometry.cameras import transform_points
from hand_jax.models.hand_landmark import INPUT_SIDE
from hand_jax.release.parts import joined, load_arrays, made_in_parts
from hand_jax.synthetic.hands import render_examples

SHARD_SIZE = 512
# Squares differ from those of the true joints by these deviations, as in the detector's second
# reading. They belong to the logarithm of the side, to the shift as a share of the side, and to the
# turn in radians.
_LOG_SIDE_SIGMA, _SHIFT_SIGMA, _TURN_SIGMA = 0.08, 0.035, np.radians(6.0)
# This many hands are rendered before their crops go through the network.
_BLOCK = 32


class ReadHands(NamedTuple):
  """The network's outputs on crops of rendered right hands, and the truth in the crop's frame."""

  vectors: Float[np.ndarray, 'crops 1152']
  """The network's pooled vector."""
  landmarks: Float[np.ndarray, 'crops 21 3']
  """Landmarks in pixels of the upright crop, with a relative depth."""
  world: Float[np.ndarray, 'crops 21 3']
  """The network's 3D points, metres."""
  joints_crop: Float[np.ndarray, 'crops 21 2']
  """The true joints in pixels of the upright crop."""
  joints_camera: Float[np.ndarray, 'crops 21 3']
  """The true joints in camera axes that are turned with the crop, metres."""
  example: Int[np.ndarray, 'crops']
  """The number of the example in its split."""


class ReadingPlan(NamedTuple):
  """The rendered hands to read.

  They are the first `count` hands of a seed and split, and each is read in `crops` crops.
  """

  hands: str
  split: str
  seed: int
  count: int
  crops: int
  image_size: int = 256

  @property
  def name(self) -> str:
    """Names the plan, and the folder that keeps its readings."""
    return f'{self.hands}_{self.split}_{self.seed}_{self.image_size}px_{self.crops}crops'


def read_rendered(plan: ReadingPlan, indices: Iterable[int]) -> ReadHands:
  """Renders hands and runs the network on jittered upright crops of them.

  Args:
    plan: the sampler, split, seed and picture size, and the number of crops of each hand.
    indices: numbers of the examples.
  """
  parts, indices = [], list(indices)
  for start in range(0, len(indices), _BLOCK):
    block = indices[start : start + _BLOCK]
    examples = render_examples(plan.seed, plan.split, block, plan.image_size, hands=plan.hands)
    pairs = [
      (index, example, region)
      for index, example in zip(block, examples, strict=True)
      for region in jittered_regions(example, plan, index)
    ]
    parts.append(_read_crops(pairs))
  return ReadHands(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def jittered_regions(example: HandExample, plan: ReadingPlan, index: int) -> list[HandRegion]:
  """Places the squares in which an example is read.

  The same plan and number always give the same squares.

  Args:
    example: the rendered hand.
    plan: the seed, and the number of squares to place.
    index: the example's number.
  """
  rng = np.random.default_rng([plan.seed, index])
  region = region_from_landmarks(np.asarray(example.joints_image, np.float64))
  regions = []
  for _ in range(plan.crops):
    shift = _SHIFT_SIGMA * region.side * rng.normal(size=2)
    regions.append(
      HandRegion(
        (region.centre[0] + float(shift[0]), region.centre[1] + float(shift[1])),
        region.side * float(np.exp(_LOG_SIDE_SIGMA * rng.normal())),
        region.angle + float(_TURN_SIGMA * rng.normal()),
      )
    )
  return regions


def _read_crops(pairs: list[tuple[int, HandExample, HandRegion]]) -> ReadHands:
  crops = [crop_region(example.image, region, INPUT_SIDE) for _, example, region in pairs]
  readings = read_landmarks(np.stack(crops))
  pixels, joints = [], []
  for _, example, region in pairs:
    upright = HandRegion(region.centre, region.side, -region.angle)
    pixels.append(transform_points(photo_to_crop(region, INPUT_SIDE), example.joints_image))
    joints.append(turn_with_region(np.asarray(example.joints_camera), upright))
  return ReadHands(
    vectors=readings.vectors.astype(np.float16),
    landmarks=readings.landmarks.astype(np.float32),
    world=readings.world_landmarks.astype(np.float32),
    joints_crop=np.stack(pixels).astype(np.float32),
    joints_camera=np.stack(joints).astype(np.float32),
    example=np.array([index for index, *_ in pairs], np.int32),
  )


def read_plan(
  plan: ReadingPlan,
  folder: str | os.PathLike,
  report: Callable[[int, int], None] = lambda done, count: None,
) -> ReadHands:
  """Reads the hands of a plan. Existing files are used as they are.

  Args:
    plan: the hands to read.
    folder: folder that keeps the readings, in a subfolder of the plan's name.
    report: called with the number of finished hands and the number of all hands.
  """
  paths = made_in_parts(
    lambda indices: read_rendered(plan, indices),
    pathlib.Path(folder) / plan.name,
    plan.count,
    SHARD_SIZE,
    report,
  )
  return joined(load_arrays(path, ReadHands) for path in paths)


def select(read: ReadHands, rows: np.ndarray) -> ReadHands:
  """Selects the readings of some rows, given by number or as a mask."""
  return ReadHands(*(array[rows] for array in read))


def batches(read: ReadHands, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
  """Draws the row numbers of one epoch's batches in random order.

  Rows that do not fill a last batch are left out.

  Args:
    read: the readings.
    size: rows per batch.
    rng: draws the order.

  Yields:
    The row numbers of each batch.
  """
  order = rng.permutation(len(read.vectors))
  yield from order[: len(order) // size * size].reshape(-1, size)


def landmark_error_share(read: ReadHands) -> Float[np.ndarray, 'crops']:
  """Computes the network's mean 2D error as a share of half the true joints' box.

  The size of the box is its larger side.
  """
  errors = np.linalg.norm(read.landmarks[..., :2] - read.joints_crop, axis=-1).mean(axis=1)
  return errors / (np.ptp(read.joints_crop, axis=1).max(axis=1) / 2)
