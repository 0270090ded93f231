"""The letter of Algorithm 2 as settings: drawn joints, printed sigmas; the scale's own prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.config import LossConfig
from hand_jax.training.objective import term_weights
from tests import elbo_hands
from tests.elbo_hands import JOINTS, MANY, SAMPLED, UNIT, VERTICES
from tests.reference import losses as reference

pytestmark = [pytest.mark.usefixtures('float64'), pytest.mark.slow]

CONVENTIONS = ['paper', 'exact']
TAU = LossConfig().likelihood_sigma


def config_of(convention, **settings):
  return LossConfig(kind='elbo', convention=convention, **settings)


def moments(inputs, branch):
  """Means and deviations of the first hand's vertices, in length units."""
  gaussian = getattr(inputs, branch)
  sigma = np.exp(0.5 * np.asarray(gaussian.log_variance[0])) / UNIT
  return np.asarray(gaussian.mean[0]) / UNIT, sigma


def moved_camera(inputs, noise, deviation=None):
  """The first hand's camera moved by noise of its own deviation or another."""
  own = np.exp(0.5 * np.asarray(inputs.camera.log_variance[0]))
  return np.asarray(inputs.camera.mean[0]) + (own if deviation is None else deviation) * noise


def joint_deviation(sigma, convention):
  """That of N_B, in length units."""
  matrix = elbo_hands.regressor()
  if convention == 'exact':
    return np.sqrt(reference.regress(matrix**2, sigma**2))
  return reference.regress(matrix, sigma)


def nll_of_joints(inputs, branch, joints, camera, convention, projection):
  """The loop reference at drawn joints (length units) and a drawn camera."""
  _, sigma = moments(inputs, branch)
  columns = reference.orthonormal_columns(camera)
  scale, translation = 10 * camera[9] * UNIT, camera[6:8]
  zeros = np.zeros((VERTICES, 3))
  spread = reference.branch_moments(
    zeros, sigma, elbo_hands.regressor(), scale, columns, translation, convention
  )['joints_2d'][1]
  stored = np.stack([camera[:3], camera[3:6]], axis=1)
  mean = reference.project(
    joints, scale, stored if projection == 'affine' else columns, translation
  )
  if convention == 'exact':
    spread = np.full_like(mean, TAU)
  labels, weights = np.asarray(inputs.labels[0]), np.asarray(inputs.confidence[0])
  return sum(weights[k] * reference.nll(labels[k], mean[k], spread[k]) for k in range(len(labels)))


@pytest.mark.parametrize('drawn_sigmas', ['predicted', 'printed'])
@pytest.mark.parametrize('projection', ['orthonormal', 'affine'])
@pytest.mark.parametrize('convention', CONVENTIONS)
def test_drawn_joints_come_from_their_own_gaussian(convention, projection, drawn_sigmas):
  """J3D ~ N(B mu, B sigma), whatever the vertices; with sigma to the letter a variance."""
  inputs = elbo_hands.random_inputs()
  generator = np.random.default_rng(1)
  joint_noise, camera_noise = generator.normal(size=(JOINTS, 3)), generator.normal(size=10)
  config = config_of(
    convention, projection=projection, joint_draws='drawn', drawn_sigmas=drawn_sigmas
  )
  terms = jax.jit(elbo_hands.terms_at_noise, static_argnums=1)(
    inputs, config, joint_noise, camera_noise
  )
  printed = drawn_sigmas == 'printed'
  camera = moved_camera(inputs, camera_noise, 1.0 if printed else None)
  for name, branch in zip(SAMPLED, ('posterior', 'prior'), strict=True):
    mean, sigma = moments(inputs, branch)
    deviation = joint_deviation(sigma, convention)
    if printed and convention == 'paper':
      deviation = np.sqrt(deviation)
    joints = reference.regress(elbo_hands.regressor(), mean) + deviation * joint_noise
    expected = nll_of_joints(inputs, branch, joints, camera, convention, projection)
    np.testing.assert_allclose(terms[name][0], expected, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_printed_sigmas_draw_a_unit_camera_and_take_sigma_for_a_variance(convention):
  inputs = elbo_hands.random_inputs()
  generator = np.random.default_rng(2)
  vertex_noise, camera_noise = generator.normal(size=(VERTICES, 3)), generator.normal(size=10)
  config = config_of(convention, drawn_sigmas='printed')
  terms = jax.jit(elbo_hands.terms_at_noise, static_argnums=1)(
    inputs, config, vertex_noise, camera_noise
  )
  for name, branch in zip(SAMPLED, ('posterior', 'prior'), strict=True):
    mean, sigma = moments(inputs, branch)
    deviation = sigma if convention == 'exact' else np.sqrt(sigma)
    expected = reference.sampled_nll(
      np.asarray(inputs.labels[0]),
      np.asarray(inputs.confidence[0]),
      mean + deviation * vertex_noise,
      sigma,
      moved_camera(inputs, camera_noise, 1.0),
      elbo_hands.regressor(),
      convention,
      UNIT,
      TAU,
    )
    np.testing.assert_allclose(terms[name][0], expected, rtol=1e-9, err_msg=name)


def test_regressed_and_drawn_joints_have_one_spread_in_the_exact_form():
  """One joint at a time B V and N_B agree; what differs is that drawn joints err independently."""
  inputs = elbo_hands.random_inputs(seed=5)
  inputs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], (MANY, *leaf.shape[1:])), inputs)
  keys = jax.random.split(jax.random.key(0), MANY)
  still = {'camera_sampling_scale': 0.0}
  found = [
    elbo_hands.compiled_terms(keys, inputs, config_of('exact', joint_draws=draws, **still))
    for draws in ('regressed', 'drawn')
  ]
  for name in SAMPLED:
    left, right = (terms[name] for terms in found)
    error = np.hypot(left.std(), right.std()) / np.sqrt(MANY)
    assert abs(left.mean() - right.mean()) < 4 * error
    assert left.std() > 0.1
  for name in set(found[0]) - set(SAMPLED):
    np.testing.assert_array_equal(found[0][name], found[1][name])


@pytest.mark.parametrize('convention', CONVENTIONS)
@pytest.mark.parametrize('sigma', [1.0, 0.05])
def test_the_scale_has_a_deviation_of_its_own_in_the_camera_prior(convention, sigma):
  inputs = elbo_hands.random_inputs(seed=6)
  keys = jax.random.split(jax.random.key(0), 1)
  terms = elbo_hands.compiled_terms(keys, inputs, config_of(convention, scale_prior_sigma=sigma))
  divergence = reference.kl_letter if convention == 'paper' else reference.kl_true
  deviations = np.array([1.0] * 9 + [sigma])
  own = np.exp(0.5 * np.asarray(inputs.camera.log_variance[0]))
  prior = np.asarray(inputs.camera_prior[0])
  expected = divergence(np.asarray(inputs.camera.mean[0]), own, prior, deviations)
  np.testing.assert_allclose(terms['camera_kl'][0], expected, rtol=1e-9)


def test_the_vertices_likelihood_goes_alone():
  """Without their labels the divergence of the vertices stays, which needs none."""
  whole, without = (term_weights(LossConfig(vertices_likelihood=each)) for each in (1.0, 0.0))
  assert whole['vertices_nll'] == 1 and without['vertices_nll'] == 0
  assert {name: weight for name, weight in without.items() if name != 'vertices_nll'} == {
    name: weight for name, weight in whole.items() if name != 'vertices_nll'
  }
  assert without['vertices_kl'] == 1
