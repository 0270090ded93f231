"""Trains the heads on readings of rendered hands, one in closed form and the others by steps."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from hand_jax.evaluation.metrics import procrustes_align
from hand_jax.models.applying import apply_network
from hand_jax.models.joint_heads import (
  UNIT_M,
  JointEstimate,
  JointHeads,
  PointExpert,
  landmark_inputs,
)
from hand_jax.release.readings import ReadHands, batches

_ESTIMATE_BATCH = 512
# Inputs are divided by at least this share of the median deviation. Inputs that never move, which
# are half of the vector, do not count for the median.
_SMALLEST_DEVIATION = 0.05


class HeadSettings(NamedTuple):
  """The settings of the heads' training."""

  decay: float = 0.05
  """Ridge penalty of the linear head for each crop, where inputs are standardised."""
  epochs: int = 30
  """The number of passes over the crops for the nonlinear head."""
  scale_epochs: int = 60
  """The number of passes for the head of the error scale."""
  batch_size: int = 256
  learning_rate: float = 1e-3
  weight_decay: float = 1e-2
  max_landmark_error: float = 0.2
  """Crops with a larger landmark error (`landmark_error_share`) are left out of the training."""
  seed: int = 0


def targets(read: ReadHands) -> Float[np.ndarray, 'crops 63']:
  """Centres the true joints on their mean, in the unit of the experts."""
  joints = read.joints_camera - read.joints_camera.mean(axis=1, keepdims=True)
  return joints.reshape(len(joints), 63) / np.float32(UNIT_M)


def fit_linear(
  inputs: Float[np.ndarray, 'crops inputs'],
  outputs: Float[np.ndarray, 'crops outputs'],
  decay: float,
) -> dict[str, np.ndarray]:
  """Fits a dense layer by ridge regression on standardised inputs (Hoerl and Kennard 1970).

  Args:
    inputs: inputs of the layer.
    outputs: its targets.
    decay: the penalty, which is multiplied by the number of rows.

  Returns:
    The layer's kernel and bias, which take inputs that are not standardised.
  """
  inputs, outputs = np.asarray(inputs, np.float64), np.asarray(outputs, np.float64)
  mean, deviation = inputs.mean(0), _deviations(inputs)
  scaled = (inputs - mean) / deviation
  centre = outputs.mean(0)
  gram = scaled.T @ scaled + decay * len(scaled) * np.eye(scaled.shape[1])
  kernel = np.linalg.solve(gram, scaled.T @ (outputs - centre)) / deviation[:, None]
  return {'kernel': kernel.astype(np.float32), 'bias': (centre - mean @ kernel).astype(np.float32)}


def _deviations(inputs: np.ndarray) -> np.ndarray:
  """Computes standard deviations and keeps them from being tiny.

  An input that hardly varies on renders must not become huge if it varies on a photo.
  """
  deviation = inputs.std(axis=0)
  return np.maximum(deviation, _SMALLEST_DEVIATION * np.median(deviation[deviation > 0]))


def train_heads(learned: ReadHands, held_out: ReadHands, settings: HeadSettings) -> dict[str, Any]:
  """Trains both experts, then the error scale on hands that the experts have not seen.

  Args:
    learned: the crops that the experts are trained on.
    held_out: the crops that the error scale is trained on.
    settings: the settings of the training.

  Returns:
    The parameters of `JointHeads`.
  """
  inputs = _inputs(learned)
  parameters = {
    'of_vector': fit_linear(learned.vectors, targets(learned), settings.decay),
    'of_points': _train_points(learned, inputs, settings),
  }
  blank = JointHeads().init(
    jax.random.key(settings.seed), np.zeros((1, learned.vectors.shape[1])), inputs[:1]
  )['params']
  return _train_scale({**blank, **parameters}, held_out, settings)


def estimate(parameters: dict[str, Any], read: ReadHands) -> JointEstimate:
  """Applies the heads to every crop."""
  inputs = _inputs(read)
  parts = [
    jax.device_get(
      _apply(parameters, read.vectors[start : start + _ESTIMATE_BATCH].astype(np.float32), rows)
    )
    for start in range(0, len(inputs), _ESTIMATE_BATCH)
    for rows in [inputs[start : start + _ESTIMATE_BATCH]]
  ]
  return JointEstimate(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@jax.jit
def _apply(parameters, vectors, inputs) -> JointEstimate:
  return apply_network(JointHeads(), {'params': parameters}, vectors, inputs)


def aligned_errors(
  points: Float[np.ndarray, 'hands 21 3'], joints: Float[np.ndarray, 'hands 21 3']
) -> Float[np.ndarray, 'hands 21 3']:
  """Computes errors in metres after the best rotation, shift and scale of the points."""
  return (
    np.asarray(procrustes_align(np.asarray(points, np.float64), np.asarray(joints, np.float64)))
    - joints
  )


def _inputs(read: ReadHands) -> np.ndarray:
  return np.asarray(_landmark_inputs(read.landmarks, read.world))


_landmark_inputs = jax.jit(landmark_inputs)


def _train_points(read: ReadHands, inputs: np.ndarray, settings: HeadSettings) -> dict[str, Any]:
  """Trains the nonlinear expert by the mean absolute error.

  It learns on standardised inputs. Its first layer then takes over their scale and shift.
  """
  mean, deviation = inputs.mean(0), _deviations(inputs)
  scaled, wanted = (inputs - mean) / deviation, targets(read)
  expert = PointExpert()

  def loss(parameters: Any, x: Array, y: Array) -> Array:
    points = apply_network(expert, {'params': parameters}, x)
    return jnp.mean(jnp.abs(points.reshape(y.shape) - y))

  parameters = expert.init(jax.random.key(settings.seed), scaled[:1])['params']
  parameters = _descend(loss, parameters, read, (scaled, wanted), settings, settings.epochs)
  first = jax.tree.map(np.asarray, parameters['Dense_0'])
  kernel = first['kernel'] / deviation[:, None]
  return {**parameters, 'Dense_0': {'kernel': kernel, 'bias': first['bias'] - mean @ kernel}}


def _train_scale(
  parameters: dict[str, Any], read: ReadHands, settings: HeadSettings
) -> dict[str, Any]:
  """Trains the error scale by the likelihood of errors whose deviation is `usual` times the scale.

  Errors are those after alignment.
  """
  errors = aligned_errors(np.asarray(estimate(parameters, read).joints), read.joints_camera)
  squared = np.sum(errors**2, axis=-1)
  usual = squared.mean(axis=0) / 3
  # This is the squared error in units of the joint's usual variance, averaged over joints and axes.
  excess = (squared / (3 * usual)).mean(axis=1)
  learned = ('scale_hidden', 'scale')

  def loss(scale: Any, vectors: Array, inputs: Array, excess: Array) -> Array:
    heads = {'params': {**parameters, **scale}}
    log_scale = apply_network(JointHeads(), heads, vectors, inputs).log_scale
    return jnp.mean(log_scale + excess * jnp.exp(-2 * log_scale) / 2)

  scale = _descend(
    loss,
    {name: parameters[name] for name in learned},
    read,
    (read.vectors.astype(np.float32), _inputs(read), excess.astype(np.float32)),
    settings,
    settings.scale_epochs,
  )
  return jax.tree.map(np.asarray, {**parameters, **scale})


def _descend(
  loss: Any,
  parameters: Any,
  read: ReadHands,
  arrays: tuple[np.ndarray, ...],
  settings: HeadSettings,
  epochs: int,
) -> Any:
  """Minimises the loss by AdamW with a cosine schedule, over batches in random order."""
  steps = epochs * (len(read.vectors) // settings.batch_size)
  schedule = optax.cosine_decay_schedule(settings.learning_rate, max(steps, 1))
  optimizer = optax.adamw(schedule, weight_decay=settings.weight_decay)
  state = optimizer.init(parameters)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(parameters: Any, state: Any, *batch: Array) -> tuple[Any, Any]:
    gradients = jax.grad(loss)(parameters, *batch)
    updates, state = optimizer.update(gradients, state, parameters)
    return optax.apply_updates(parameters, updates), state

  # The step takes over the memory of its arguments, so it gets copies.
  parameters = jax.tree.map(jnp.array, parameters)
  rng = np.random.default_rng(settings.seed)
  for _ in range(epochs):
    for rows in batches(read, settings.batch_size, rng):
      parameters, state = step(parameters, state, *(array[rows] for array in arrays))
  return jax.tree.map(np.asarray, parameters)
