"""Runs the heads on the hands that were found in a photo."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.detection.reading import DetectedHand
from hand_jax.detection.regions import HandRegion, photo_to_crop, turn_with_region
from hand_jax.fitting.released_weights import Release
from hand_jax.geometry.cameras import transform_points
from hand_jax.models.applying import apply_network
from hand_jax.models.hand_landmark import INPUT_SIDE
from hand_jax.models.joint_heads import JointEstimate, JointHeads, landmark_inputs

_MIRROR = np.array([-1.0, 1.0, 1.0])
# Several hands go through the compiled heads in groups of this size.
_CHUNK = 8


def estimate_joints(release: Release, hands: Sequence[DetectedHand]) -> JointEstimate:
  """Estimates the joints of hands and the scale of their errors by the heads.

  Args:
    release: the weights of the heads.
    hands: one or more hands that `detect_hands` found in an upright photo.

  Returns:
    NumPy arrays of the joints in metres in the photo's axes, and the logarithm of their error
    scale. The joints of a left hand are not mirrored.
  """
  landmarks, world, vectors = (
    np.stack(arrays).astype(np.float32)
    for arrays in zip(*(crop_reading(hand) for hand in hands), strict=True)
  )
  count = len(hands)
  chunk = 1 if count == 1 else _CHUNK
  program = _program()
  parts = []
  for first in range(0, count, chunk):
    rows = np.minimum(np.arange(first, first + chunk), count - 1)
    parts.append(program(release.heads, landmarks[rows], world[rows], vectors[rows]))
  estimate = jax.tree.map(lambda *fields: np.concatenate(fields)[:count], *parts)
  joints = [
    turn_with_region(joints * (_MIRROR if hand.side == 'left' else 1.0), hand.roi)
    for joints, hand in zip(estimate.joints.astype(np.float64), hands, strict=True)
  ]
  return JointEstimate(np.stack(joints), estimate.log_scale)


def crop_reading(
  hand: DetectedHand,
) -> tuple[Float[np.ndarray, '21 3'], Float[np.ndarray, '21 3'], Float[np.ndarray, '1152']]:
  """Converts a reading back to the upright crop, in which a left hand is mirrored to a right one.

  Returns:
    The landmarks in pixels of the crop, the world points in metres in its axes, and the landmark
    network's pooled vector.
  """
  pixels = transform_points(photo_to_crop(hand.roi, INPUT_SIDE), hand.landmarks_image)
  depth = hand.landmarks_depth * (INPUT_SIDE / hand.roi.side)
  back = HandRegion(hand.roi.centre, hand.roi.side, -hand.roi.angle)
  world = turn_with_region(hand.landmarks_world, back)
  if hand.side == 'left':
    pixels = np.stack([INPUT_SIDE - pixels[:, 0], pixels[:, 1]], axis=1)
    world = world * _MIRROR
  return np.concatenate([pixels, depth[:, None]], axis=1), world, hand.vector


@functools.cache
def _program() -> Callable[..., JointEstimate]:
  @jax.jit
  def apply(
    heads: dict,
    landmarks: Float[Array, 'hands 21 3'],
    world: Float[Array, 'hands 21 3'],
    vectors: Float[Array, 'hands 1152'],
  ) -> JointEstimate:
    inputs = landmark_inputs(landmarks, world)
    return apply_network(JointHeads(), {'params': heads}, jnp.asarray(vectors), inputs)

  return apply
