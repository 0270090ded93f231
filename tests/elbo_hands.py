"""Makes small hands for the tests of the weakly supervised objective, with chosen noise."""

from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from hand_jax import elbo, propagation
from hand_jax.geometry import cameras
from hand_jax.types import DiagonalGaussian, HandBatch, HandEstimate, HandParameters

VERTICES, JOINTS = 6, 4
FEW, MANY = 3, 3000  # sizes of a batch
UNIT = 0.01  # metres: LossConfig's default length unit
SCALE = 8.0  # crop units per metre
SAMPLED = ('joints_2d_nll', 'joints_2d_nll_prior')  # the terms that random numbers decide
CERTAIN = -60.0  # log-variance of a number that is practically known


class ElboInputs(NamedTuple):
  """The inputs of the terms for a batch, with vertices in metres and labels in crop units."""

  posterior: DiagonalGaussian  # (batch, V, 3)
  prior: DiagonalGaussian
  camera: DiagonalGaussian  # (batch, 10)
  camera_prior: jax.Array
  labels: jax.Array  # (batch, K, 2)
  confidence: jax.Array
  is_padding: jax.Array
  parameters: HandParameters | None = (
    None  # of the prior-net; costly to compile, no part of the bound
  )


def regressor(seed=0):
  """Draws rows that mix all vertices. The last row picks one vertex."""
  rows = np.random.default_rng(seed).dirichlet(np.ones(VERTICES), JOINTS)
  rows[-1] = np.eye(VERTICES)[2]
  return rows


def random_inputs(batch=1, seed=0, camera_log_variance=-4.0) -> ElboInputs:
  """Draws means centimetres apart, deviations near 1 cm, and labels near the projections."""
  generator = np.random.default_rng(seed)
  normal = generator.normal
  truth = normal(scale=0.05, size=(batch, VERTICES, 3))
  rotation = Rotation.random(batch, rng=generator).as_matrix()
  camera = np.concatenate(
    [
      cameras.rotation_to_stored(rotation),
      normal(scale=0.2, size=(batch, 3)),
      np.full((batch, 1), 0.1 * SCALE),
    ],
    axis=-1,
  )
  labels = SCALE * (regressor() @ truth @ rotation)[..., :2] + camera[:, None, 6:8]
  gaussian = lambda mean, log_variance: DiagonalGaussian(  # noqa: E731
    jnp.asarray(mean), jnp.asarray(log_variance + 0.5 * normal(size=mean.shape))
  )
  return ElboInputs(
    posterior=gaussian(truth + normal(scale=0.01, size=truth.shape), 2 * np.log(UNIT)),
    prior=gaussian(truth + normal(scale=0.02, size=truth.shape), 2 * np.log(UNIT)),
    camera=gaussian(camera + normal(scale=0.05, size=camera.shape), camera_log_variance),
    camera_prior=jnp.asarray(camera + normal(scale=0.3, size=camera.shape)),
    labels=jnp.asarray(labels + normal(scale=0.05, size=labels.shape)),
    confidence=jnp.asarray(generator.uniform(0.3, 1.0, size=(batch, JOINTS))),
    is_padding=jnp.zeros(batch, bool),
  )


def elbo_terms(keys, inputs: ElboInputs, config, matrix=None, hands_mean=None):
  """Computes the terms of a batch that has 2D joints alone. Every other label is NaN."""
  matrix = jnp.asarray(regressor() if matrix is None else matrix)
  size, vertices = inputs.posterior.mean.shape[:2]
  propagate = jax.vmap(
    lambda gaussian, camera: propagation.hand_gaussians(
      gaussian, camera, matrix, convention=config.convention, length_unit_m=config.length_unit_m
    )
  )
  estimate = HandEstimate(
    parameters=inputs.parameters,
    camera=inputs.camera,
    prior=propagate(inputs.prior, inputs.camera.mean),
    posterior=propagate(inputs.posterior, inputs.camera.mean),
  )
  labels = {
    'vertices_hand': jnp.full((size, vertices, 3), jnp.nan),
    'joints_hand': jnp.full((size, len(matrix), 3), jnp.nan),
    'has_3d': jnp.zeros(size, bool),
    'joints_normalized': inputs.labels,
    'joint_confidence': inputs.confidence,
    'camera': jnp.full((size, 10), jnp.nan),
    'camera_mask': jnp.zeros((size, 10), bool),
    'is_padding': inputs.is_padding,
  }
  batch = HandBatch(**{**dict.fromkeys(HandBatch._fields), **labels})
  return elbo.compute_elbo_terms(
    keys, estimate, batch, inputs.camera_prior, matrix, config, hands_mean
  )


# Compiling the random numbers well takes far longer than running these few.
compiled_terms = jax.jit(elbo_terms, static_argnames='config')


def terms_at_noise(inputs: ElboInputs, config, hand_noise, camera_noise, matrix=None):
  """Computes the code's own terms with given values in place of all standard normal draws.

  Call it under a trace (jit, vmap, grad) for one example. `hand_noise` has the shape (V, 3), or (K,
  3) where joints are drawn, and `camera_noise` has the shape (10,).
  """
  noise = {hand_noise.shape: hand_noise, camera_noise.shape: camera_noise}
  with mock.patch.object(jax.random, 'normal', lambda key, shape, dtype: noise[shape]):
    return elbo_terms(jax.random.split(jax.random.key(0), 1), inputs, config, matrix)


def cubature(size):
  """Returns nodes (2 size, size) whose mean integrates polynomials to degree 3 over normals."""
  return np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)])
