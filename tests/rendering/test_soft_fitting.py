"""A displaced hand is found again from its silhouette alone, by gradient descent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hand_jax.geometry.rotations import axis_angle_to_matrix
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.model import mano_forward
from hand_jax.rendering.rasterize import rasterize
from hand_jax.rendering.soft import soft_silhouette
from hand_jax.types import HandParameters

_SIZE, _STEPS = 56, 60
_PIXELS_PER_METRE = 240.0  # the hand is 48 pixels long, a finger 4 wide
# Square pixels, from the first step to the last. A mesh's faces are less than a pixel wide here, so
# that a strong blur would make the hand fatter than the mask.
_SIGMAS = np.geomspace(0.3, 0.03, _STEPS)


@pytest.mark.slow
def test_pose_is_recovered_from_the_silhouette():
  """Shift, turn in the image and the spread of a finger start wrong; errors shrink sixfold.

  They start 1.5 pixels, 0.1 and 0.2 radians off. The target is the hard rasterizer's mask, which
  knows nothing of sigma.
  """
  model = load_mano_model()

  def pixels(unknowns):
    # Seen along MANO's y axis, fingers (-x) up.
    bend = jnp.zeros(45).at[1].set(unknowns['bend'])  # spread of the index finger, in the image
    zeros = jnp.zeros(3)
    mesh = mano_forward(model, HandParameters(zeros, bend, jnp.zeros(10), zeros))
    flat = (mesh.vertices - model.v_template.mean(axis=0, keepdims=True))[:, ::-2]
    turn = axis_angle_to_matrix(jnp.array([0, 0, 1.0]) * unknowns['turn'])[:2, :2]
    return flat @ turn.T * _PIXELS_PER_METRE + _SIZE / 2 + unknowns['shift'][None]

  truth = {'shift': jnp.array([1.2, -0.7]), 'turn': jnp.array(0.15), 'bend': jnp.array(-0.3)}
  start = {'shift': jnp.array([-0.3, 0.8]), 'turn': jnp.array(0.05), 'bend': jnp.array(-0.1)}
  depth = jnp.zeros((model.v_template.shape[0], 1))
  exact = jnp.concatenate([pixels(truth), depth], axis=1)[None]
  target = (rasterize(exact, model.faces, _SIZE, _SIZE).face_index >= 0).astype(jnp.float32)
  assert 0.1 < target.mean() < 0.6
  optimizer = optax.adam(optax.cosine_decay_schedule(0.12, _STEPS))

  def loss(unknowns, sigma):
    # Pixels for the shift, fifths of radians for the angles: steps of one size suit both.
    angles = {name: unknowns[name] / 5 for name in ('turn', 'bend')}
    image = soft_silhouette(pixels({**unknowns, **angles})[None], model.faces, _SIZE, _SIZE, sigma)
    return jnp.mean((image - target) ** 2)

  def step(state, sigma):
    unknowns, memory = state
    value, gradient = jax.value_and_grad(loss)(unknowns, sigma)
    update, memory = optimizer.update(gradient, memory)
    return (optax.apply_updates(unknowns, update), memory), value

  scaled = {name: value * (1 if name == 'shift' else 5) for name, value in start.items()}
  run = jax.jit(lambda state: jax.lax.scan(step, state, jnp.asarray(_SIGMAS)))
  (found, _), losses = run((scaled, optimizer.init(scaled)))
  assert losses[-1] < losses[0] / 5
  for name, value in truth.items():
    scale = 1 if name == 'shift' else 5
    before = np.abs(start[name] - value).max()
    after = np.abs(found[name] / scale - value).max()
    assert after < before / 6, name
