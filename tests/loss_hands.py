"""Draws estimates and labels for the tests of the losses, and computes their terms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from hand_jax import losses, propagation
from hand_jax.config import LossConfig
from hand_jax.geometry import cameras
from hand_jax.types import DiagonalGaussian, HandBatch, HandEstimate, HandParameters

BATCH, VERTICES, JOINTS = 3, 10, 5
UNIT = 0.01
CONVENTIONS = ['paper', 'exact']
GAUSSIAN_TERMS = {
  f'{name}_{part}' for name in ('vertices', 'joints', 'joints_2d') for part in ('nll', 'kl')
}
L2_TERMS = {
  f'{name}_l2_{branch}' for name in ('vertices', 'joints_2d') for branch in ('posterior', 'prior')
}
SHARED_TERMS = {'camera', 'orthonormality', 'joint_limits', 'shape_prior'}


def regressor(seed=0):
  rows = np.random.default_rng(seed).dirichlet(np.ones(VERTICES), JOINTS)
  rows[-1] = np.eye(VERTICES)[2]
  return rows


def random_inputs(seed=0):
  """Draws the outputs of a network's heads for a batch, in metres, with sigmas near 1 cm."""
  generator = np.random.default_rng(seed)
  normal = generator.normal
  truth = normal(scale=0.05, size=(BATCH, VERTICES, 3))
  rotation = Rotation.random(BATCH, rng=generator).as_matrix()
  translation = normal(scale=0.2, size=(BATCH, 3))
  camera = np.concatenate(
    [cameras.rotation_to_stored(rotation), translation, np.full((BATCH, 1), 0.8)], axis=-1
  )
  return {
    'rotation': rotation,
    'truth': truth,
    'camera': jnp.asarray(camera),
    'camera_label': camera + normal(scale=0.1, size=camera.shape),
    'posterior_mean': jnp.asarray(truth + normal(scale=0.01, size=truth.shape)),
    'posterior_log_variance': jnp.asarray(2 * np.log(UNIT) + normal(size=truth.shape)),
    'prior_mean': jnp.asarray(truth + normal(scale=0.02, size=truth.shape)),
    'pose': jnp.asarray(normal(size=(BATCH, 45))),
    'betas': jnp.asarray(normal(size=(BATCH, 10))),
  }


@functools.partial(jax.jit, static_argnames=('convention', 'unit'))
def estimate_of(inputs, convention, unit=UNIT) -> HandEstimate:
  prior = DiagonalGaussian(
    inputs['prior_mean'], jnp.full_like(inputs['prior_mean'], 2 * np.log(unit))
  )
  posterior = DiagonalGaussian(inputs['posterior_mean'], inputs['posterior_log_variance'])
  propagate = jax.vmap(
    lambda vertices, camera: propagation.hand_gaussians(
      vertices,
      camera,
      jnp.asarray(regressor()),
      convention=convention,
      length_unit_m=unit,
    )
  )
  return HandEstimate(
    parameters=HandParameters(
      jnp.zeros((BATCH, 3)), inputs['pose'], inputs['betas'], jnp.zeros((BATCH, 3))
    ),
    camera=DiagonalGaussian(inputs['camera'], jnp.full_like(inputs['camera'], -3.0)),
    prior=propagate(prior, inputs['camera']),
    posterior=propagate(posterior, inputs['camera']),
  )


def batch_of(inputs, **changes) -> HandBatch:
  unused = dict.fromkeys(HandBatch._fields)
  joints = np.einsum('kv,bvi->bki', regressor(), inputs['truth'])
  projected = cameras.project_points(
    cameras.camera_from_vector(inputs['camera']), jnp.asarray(joints)
  )
  labels = {
    'vertices_hand': jnp.asarray(inputs['truth']),
    'joints_hand': jnp.asarray(joints),
    'has_3d': jnp.ones(BATCH, bool),
    'joints_normalized': projected + 0.05,
    'joint_confidence': jnp.ones((BATCH, JOINTS)),
    'camera': jnp.asarray(inputs['camera_label']),
    'camera_mask': jnp.ones((BATCH, 10), bool),
    'is_padding': jnp.zeros(BATCH, bool),
  }
  return HandBatch(**{**unused, **labels, **changes})


# Compiled as one: operation by operation these tests would take minutes.
def compute_terms(estimate, batch, config, hands_mean=None):
  """Computes the terms of the config's kind, `gaussian` or `l2`."""
  kinds = {
    'gaussian': losses.compute_gaussian_terms,
    'l2': losses.compute_squared_error_terms,
  }
  return kinds[config.kind](estimate, batch, config, hands_mean)


@functools.partial(jax.jit, static_argnames='config')
def compiled_terms(inputs, batch, config):
  estimate = estimate_of(inputs, config.convention, config.length_unit_m)
  return compute_terms(estimate, batch, config)


def terms_of(inputs, batch=None, **settings):
  return compiled_terms(inputs, batch or batch_of(inputs), LossConfig(**settings))
