"""Measures how much renders look like photos to the landmark network, which has seen photos alone.

  python -m tools.measure_realism --hands=broad --examples=500

The network sees each rendered hand upright, in the square that its true joints give. The tool
prints how often the network detects a hand, and how far its points are from the true joints. The
distances are in pixels of its picture, and in millimetres after the best alignment of its world
points. On photos of people the network detects nearly every hand and errs less, so smaller errors
mean more realistic renders.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from absl import flags
from jaxtyping import Float

from experiments.launching import launch, print_lines, start
from hand_jax.detection.networks import HandReadings, read_landmarks
from hand_jax.detection.regions import crop_region, photo_to_crop, region_from_landmarks
from hand_jax.evaluation.metrics import MM_PER_M, procrustes_align
from hand_jax.examples import HandExample
from hand_jax.geometry.cameras import transform_points
from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.synthetic.hands import render_examples

FLAGS = flags.FLAGS
_SIDE = 224
_BLOCK = 32


def define_flags() -> None:
  """Defines the flags when the tool runs, so that tests can import several tools at once."""
  flags.DEFINE_string('split', 'validation', 'Split of the rendered hands.')
  flags.DEFINE_enum('hands', 'broad', ['classic', 'broad'], 'Sampler of their poses.')
  flags.DEFINE_integer('examples', 500, 'Number of hands.', 1)
  flags.DEFINE_integer('seed', 0, 'Seed of the rendered hands.', 0)


class Reading(NamedTuple):
  """The network's output for one hand, compared with the truth."""

  presence: float
  image_error_px: Float[np.ndarray, '21']
  world_error_mm: Float[np.ndarray, '21']


def read_examples(examples: list[HandExample]) -> list[Reading]:
  """Shows right hands with 3D joints to the network, and compares its points with them."""
  regions = [region_from_landmarks(np.asarray(e.joints_image, np.float64)) for e in examples]
  crops = [crop_region(e.image, r, _SIDE) for e, r in zip(examples, regions, strict=True)]
  readings: HandReadings = read_landmarks(np.stack(crops))
  result = []
  for k, (example, region) in enumerate(zip(examples, regions, strict=True)):
    true = transform_points(photo_to_crop(region, _SIDE), np.asarray(example.joints_image))
    world = np.asarray(readings.world_landmarks[k], np.float64)
    joints = np.asarray(example.joints_camera, np.float64)
    aligned = procrustes_align(world, joints)
    result.append(
      Reading(
        float(readings.presence[k]),
        np.linalg.norm(readings.landmarks[k, :, :2] - true, axis=1),
        MM_PER_M * np.linalg.norm(aligned - joints, axis=1),
      )
    )
  return result


def score_lines(readings: list[Reading]) -> Iterator[str]:
  """Yields lines with the overall figures and the median errors of each joint."""
  seen = np.mean([reading.presence > 0.5 for reading in readings])
  image = np.array([reading.image_error_px for reading in readings])
  world = np.array([reading.world_error_mm for reading in readings])
  yield f'{len(readings)} rendered hands. The network sees a hand in {seen:.1%}.'
  yield (
    f'Its points are {np.median(image.mean(axis=1)):.2f} px of {_SIDE} from the joints in the '
    f'median hand, {image.mean():.2f} px on average.'
  )
  yield (
    f'Its world points are {np.median(world.mean(axis=1)):.2f} mm from the joints in the median '
    f'hand, {world.mean():.2f} mm on average, after alignment.'
  )
  rows = zip(JOINT_NAMES, np.median(image, axis=0), np.median(world, axis=0), strict=True)
  yield from (f'  {name:11s} {px:5.2f} px {mm:6.2f} mm' for name, px, mm in rows)


def scored_lines() -> Iterator[str]:
  """Renders hands as the flags say, block by block, and yields the lines to print."""
  readings: list[Reading] = []
  for first in range(0, FLAGS.examples, _BLOCK):
    block = range(first, min(first + _BLOCK, FLAGS.examples))
    examples = render_examples(FLAGS.seed, FLAGS.split, block, _SIDE, hands=FLAGS.hands)
    readings += read_examples(examples)
  yield from score_lines(readings)


def main(argv: list[str]) -> None:
  """Measures the renders and prints the figures."""
  start(argv)
  print_lines(scored_lines())


if __name__ == '__main__':
  define_flags()
  launch(main)
