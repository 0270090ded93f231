"""Heads on the landmark network: its pooled vector and its points -> 21 joints with an error scale.

Two experts of different kinds err differently: one is linear in the vector, the other a small
network on the points. Their mean is the estimate. A third head says how much larger than usual the
error of that mean is, from the same points and from how far their distances disagree.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.types import ArrayLike

NUM_INPUTS = 126
"""Numbers that `landmark_inputs` makes of a hand."""
# Outputs of the experts are of order one in this unit, and so are world points as inputs.
UNIT_M = 0.05
# An error scale stays within this factor of the usual one.
_MAX_LOG_SCALE = 1.5


class JointEstimate(NamedTuple):
  """What the heads say of right hands in upright crops.

  `joints`: metres, axes of the turned crop (x right, y down, z forward), their mean at the origin.
  `log_scale`: logarithm of their error's standard deviation over the usual one of each joint.
  """

  joints: Float[Array, 'batch 21 3']
  log_scale: Float[Array, 'batch']


def landmark_inputs(
  landmarks: Float[ArrayLike, 'batch 21 3'], world_landmarks: Float[ArrayLike, 'batch 21 3']
) -> Float[Array, 'batch 126']:
  """Describes the network's points without their place and size in the crop.

  Args:
    landmarks: x, y and relative depth in pixels of an upright crop of a right hand.
    world_landmarks: metres, in the axes of that crop.

  Returns:
    Landmarks about their mean in units of their spread, then world points about theirs.
  """
  landmarks, world_landmarks = jnp.asarray(landmarks), jnp.asarray(world_landmarks)
  centred = landmarks[..., :2] - landmarks[..., :2].mean(axis=1, keepdims=True)
  spread = jnp.sqrt(jnp.mean(jnp.sum(centred**2, axis=-1), axis=-1))[:, None, None]
  shape = jnp.concatenate([centred, landmarks[..., 2:]], axis=-1) / jnp.maximum(spread, 1e-3)
  world = (world_landmarks - world_landmarks.mean(axis=1, keepdims=True)) / UNIT_M
  return jnp.concatenate([shape, world], axis=1).reshape(len(landmarks), NUM_INPUTS)


class JointHeads(nn.Module):
  """Estimates the joints of hands from what the landmark network makes of their upright crops."""

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
    # The scale describes the experts' error: it must not change the experts.
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
  """For each joint, how far its distances to the others differ on average, whatever the turn."""

  def distances(joints: Array) -> Array:
    # The smallest square keeps the root's slope finite at a joint's distance to itself.
    offsets = joints[:, :, None] - joints[:, None]
    return jnp.sqrt(jnp.sum(offsets**2, axis=-1) + 1e-6)

  return jnp.mean(jnp.abs(distances(jnp.asarray(one)) - distances(jnp.asarray(other))), axis=-1)


def _joints(numbers: Float[Array, 'batch 63']) -> Float[Array, 'batch 21 3']:
  """Joints about their mean: where the hand is, is not the heads' affair."""
  joints = numbers.reshape(-1, 21, 3)
  return joints - joints.mean(axis=1, keepdims=True)
