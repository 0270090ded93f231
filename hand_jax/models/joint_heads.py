"""Heads on the landmark network, which estimate 21 joints and the scale of their error.

Two experts estimate the joints. One is linear in the landmark network's pooled vector, and the
other is a small network on its points. As the two are of different kinds, their errors differ, and
the estimate is their mean. A third head estimates the ratio of that mean's error to the usual
error. Its inputs are the same points, and the differences between the experts' joint distances.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.types import ArrayLike

NUM_INPUTS = 126
"""The number of values that `landmark_inputs` returns for a hand."""
# In this unit the outputs of the experts are of order one, and so are their world points.
UNIT_M = 0.05
# The logarithm of an error scale stays within this distance of 0, the usual scale.
_MAX_LOG_SCALE = 1.5


class JointEstimate(NamedTuple):
  """The heads' output for right hands in upright crops."""

  joints: Float[ArrayLike, 'batch 21 3']
  """Metres, in the axes of the turned crop (x right, y down, z forward). Their mean is 0."""
  log_scale: Float[ArrayLike, 'batch']
  """Logarithm of the ratio of the error's standard deviation to each joint's usual one."""


def landmark_inputs(
  landmarks: Float[ArrayLike, 'batch 21 3'], world_landmarks: Float[ArrayLike, 'batch 21 3']
) -> Float[Array, 'batch 126']:
  """Describes the landmark network's points without their place and size in the crop.

  Args:
    landmarks: x, y and relative depth in pixels of an upright crop of a right hand.
    world_landmarks: metres, in the axes of that crop.

  Returns:
    The landmarks relative to their mean, in units of their spread, followed by the world points
    relative to theirs, in units of `UNIT_M`.
  """
  landmarks, world_landmarks = jnp.asarray(landmarks), jnp.asarray(world_landmarks)
  centred = landmarks[..., :2] - landmarks[..., :2].mean(axis=1, keepdims=True)
  spread = jnp.sqrt(jnp.mean(jnp.sum(centred**2, axis=-1), axis=-1))[:, None, None]
  shape = jnp.concatenate([centred, landmarks[..., 2:]], axis=-1) / jnp.maximum(spread, 1e-3)
  world = (world_landmarks - world_landmarks.mean(axis=1, keepdims=True)) / UNIT_M
  return jnp.concatenate([shape, world], axis=1).reshape(len(landmarks), NUM_INPUTS)


class JointHeads(nn.Module):
  """Estimates the joints of hands from the landmark network's output for their upright crops.

  The inputs are the pooled vectors, and the numbers of `landmark_inputs`.
  """

  hidden: tuple[int, ...] = (384, 384)
  scale_hidden: int = 32

  @nn.compact
  def __call__(
    self, vectors: Float[ArrayLike, 'batch 1152'], inputs: Float[ArrayLike, 'batch 126']
  ) -> JointEstimate:
    linear = _joints(nn.Dense(63, name='of_vector')(vectors))
    joints = (linear + PointExpert(self.hidden, name='of_points')(inputs)) / 2
    world = inputs[:, NUM_INPUTS // 2 :].reshape(-1, 21, 3)
    seen = jnp.concatenate(
      [inputs, disagreement(joints, linear), disagreement(joints, world)], axis=1
    )
    # The scale only describes the experts' error. Its gradient must not change the experts.
    hidden = nn.gelu(nn.Dense(self.scale_hidden, name='scale_hidden')(jax.lax.stop_gradient(seen)))
    scale = nn.Dense(1, name='scale', kernel_init=nn.initializers.zeros)(hidden)[:, 0]
    return JointEstimate(UNIT_M * joints, _MAX_LOG_SCALE * jnp.tanh(scale / _MAX_LOG_SCALE))


class PointExpert(nn.Module):
  """A small network from the points to the joints, in `UNIT_M`."""

  hidden: tuple[int, ...] = (384, 384)

  @nn.compact
  def __call__(self, inputs: Float[ArrayLike, 'batch 126']) -> Float[Array, 'batch 21 3']:
    x = jnp.asarray(inputs)
    for width in self.hidden:
      x = nn.gelu(nn.Dense(width)(x))
    return _joints(nn.Dense(63)(x))


def disagreement(
  one: Float[ArrayLike, 'batch 21 3'], other: Float[ArrayLike, 'batch 21 3']
) -> Float[Array, 'batch 21']:
  """Compares two estimates of joints by the distances between joints, which no rotation changes.

  Returns:
    For each joint, the mean absolute difference of its distances to all joints.
  """

  def distances(joints: Array) -> Array:
    # The small constant keeps the root's derivative finite at a joint's distance to itself.
    offsets = joints[:, :, None] - joints[:, None]
    return jnp.sqrt(jnp.sum(offsets**2, axis=-1) + 1e-6)

  return jnp.mean(jnp.abs(distances(jnp.asarray(one)) - distances(jnp.asarray(other))), axis=-1)


def _joints(numbers: Float[Array, 'batch 63']) -> Float[Array, 'batch 21 3']:
  """Moves the joints' mean to the origin, because the heads do not estimate the hand's place."""
  joints = numbers.reshape(-1, 21, 3)
  return joints - joints.mean(axis=1, keepdims=True)
