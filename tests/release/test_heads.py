"""Training of the heads: against references, and on problems whose answer is known."""

import numpy as np
import pytest

from hand_jax.release import heads as training
from hand_jax.release.readings import ReadHands


def made_up(count, seed, noise=0.0):
  """Crops whose joints are a linear function of the vector and equal to the world points."""
  rng = np.random.default_rng(seed)
  vectors = rng.normal(size=(count, 1152)).astype(np.float32)
  vectors[:, 600:] = 0  # many numbers of the vector never move
  mixing = np.random.default_rng(99).normal(size=(1152, 63)) * 0.002
  joints = (vectors @ mixing).reshape(count, 21, 3)
  joints -= joints.mean(axis=1, keepdims=True)
  # Every second hand is hard to read.
  spread = noise * np.where(np.arange(count) % 2, 4.0, 1.0)[:, None, None]
  world = joints + spread * rng.normal(size=joints.shape)
  landmarks = np.concatenate([2000 * world[..., :2] + 112, 2000 * world[..., 2:]], axis=-1)
  fields = vectors, landmarks, world, 2000 * joints[..., :2] + 112, joints
  return ReadHands(*(np.float32(field) for field in fields), np.arange(count, dtype=np.int32))


def test_ridge_is_least_squares_with_the_penalty_as_further_rows():
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(50, 6)) * [1, 2, 3, 0.5, 1, 1] + 4
  outputs = rng.normal(size=(50, 2))
  layer = training.fit_linear(inputs, outputs, 0.3)
  scaled = (inputs - inputs.mean(0)) / inputs.std(0)
  rows = np.vstack([scaled, np.sqrt(0.3 * 50) * np.eye(6)])
  wanted = np.vstack([outputs - outputs.mean(0), np.zeros((6, 2))])
  kernel = np.linalg.lstsq(rows, wanted, rcond=None)[0]
  expected = scaled @ kernel + outputs.mean(0)
  np.testing.assert_allclose(inputs @ layer['kernel'] + layer['bias'], expected, atol=1e-5)


def test_numbers_that_never_move_get_no_weight():
  rng = np.random.default_rng(0)
  inputs = np.hstack([rng.normal(size=(40, 3)), np.full((40, 2), 7.0)])
  layer = training.fit_linear(inputs, rng.normal(size=(40, 2)), 0.1)
  np.testing.assert_allclose(layer['kernel'][3:], 0, atol=1e-9)
  assert np.isfinite(layer['bias']).all()


@pytest.mark.slow
def test_heads_learn_what_can_be_learned_and_how_sure_they_are():
  learned, held_out = made_up(1024, 1, noise=0.01), made_up(512, 2, noise=0.01)
  settings = training.HeadSettings(decay=1e-3, epochs=12, scale_epochs=60, batch_size=64)
  parameters = training.train_heads(learned, held_out, settings)
  fresh = made_up(256, 3, noise=0.01)
  estimate = training.estimate(parameters, fresh)
  errors = np.linalg.norm(training.aligned_errors(estimate.joints, fresh.joints_camera), axis=-1)
  constant = fresh.joints_camera - learned.joints_camera.mean(0, keepdims=True)
  assert errors.mean() < 0.5 * np.linalg.norm(constant, axis=-1).mean()
  hard = np.arange(256) % 2 == 1
  assert errors[hard].mean() > 1.2 * errors[~hard].mean()
  assert estimate.log_scale[hard].mean() > estimate.log_scale[~hard].mean() + 0.1


def test_standardised_inputs_are_folded_into_the_weights():
  """The expert reads raw inputs and gives what it would have given for standardised ones."""
  read = made_up(64, 4)
  settings = training.HeadSettings(epochs=0)
  inputs = training._inputs(read)
  parameters = training._train_points(read, inputs, settings)
  scaled = (inputs - inputs.mean(0)) / training._deviations(inputs)
  raw = training.PointExpert().apply({'params': parameters}, inputs)
  first = parameters['Dense_0']
  deviation = training._deviations(inputs)
  unfolded = {
    **parameters,
    'Dense_0': {
      'kernel': first['kernel'] * deviation[:, None],
      'bias': first['bias'] + inputs.mean(0) @ first['kernel'],
    },
  }
  expected = training.PointExpert().apply({'params': unfolded}, scaled)
  np.testing.assert_allclose(raw, expected, atol=1e-4)
