"""The weakly supervised objective's terms by name, and its divergences from the priors, float64."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.config import LossConfig
from hand_jax.mano.anatomy import joint_limit_penalty
from hand_jax.types import DiagonalGaussian, HandParameters
from tests import elbo_hands
from tests.elbo_hands import FEW, JOINTS, UNIT, VERTICES
from tests.reference import losses as reference

CONVENTIONS = ['paper', 'exact']


pytestmark = pytest.mark.usefixtures('float64')


few_examples = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


def terms_of(inputs, convention='exact'):
  keys = jax.random.split(jax.random.key(0), len(inputs.labels))
  return elbo_hands.compiled_terms(keys, inputs, LossConfig(kind='elbo', convention=convention))


@pytest.mark.slow
@pytest.mark.parametrize('convention', CONVENTIONS)
def test_the_terms_by_name(convention):
  inputs = elbo_hands.random_inputs(FEW)
  terms = terms_of(inputs, convention)
  names = {*elbo_hands.SAMPLED, 'vertices_kl', 'camera_kl', 'orthonormality'}
  assert set(terms) == names | ({'joints_kl'} if convention == 'paper' else set())
  assert all(term.shape == (FEW,) and np.isfinite(term).all() for term in terms.values())
  padded = inputs._replace(is_padding=jnp.array([False, True, False]))
  for name, term in terms_of(padded, convention).items():
    np.testing.assert_array_equal(term, terms[name] * np.array([1, 0, 1]), err_msg=name)


@pytest.mark.slow
def test_the_prior_nets_parameters_bring_their_own_terms():
  """The limits and the shape prior beside the objective's, which they leave as it is."""
  normal = np.random.default_rng(4).normal
  pose, betas = normal(size=(FEW, 45)), normal(size=(FEW, 10))
  parameters = HandParameters(
    jnp.zeros((FEW, 3)), jnp.asarray(pose), jnp.asarray(betas), jnp.zeros((FEW, 3))
  )
  inputs = elbo_hands.random_inputs(FEW)
  without = terms_of(inputs)
  terms = terms_of(inputs._replace(parameters=parameters))
  assert set(terms) - set(without) == {'joint_limits', 'shape_prior'}
  np.testing.assert_allclose(terms['shape_prior'], (betas**2).sum(axis=1))
  penalties = [jax.jit(joint_limit_penalty)(each) for each in pose]
  assert min(penalties) > 0
  np.testing.assert_allclose(terms['joint_limits'], penalties, rtol=1e-6)  # limits are float32
  for name, term in without.items():
    np.testing.assert_allclose(terms[name], term, rtol=1e-12, err_msg=name)


# The divergences.


@functools.partial(jax.jit, static_argnames='convention')
def divergences(vertices, camera, convention):
  """The `_kl` terms for (log-)moments in units of a posterior whose prior is all zeros."""
  inputs = elbo_hands.random_inputs()
  prior = DiagonalGaussian(
    inputs.prior.mean, jnp.full_like(inputs.prior.log_variance, 2 * np.log(UNIT))
  )
  inputs = inputs._replace(
    prior=prior,
    posterior=DiagonalGaussian(
      prior.mean + UNIT * vertices.mean[None], prior.log_variance + vertices.log_variance[None]
    ),
    camera=DiagonalGaussian(inputs.camera_prior + camera.mean[None], camera.log_variance[None]),
  )
  terms = terms_of(inputs, convention)
  return {name: term[0] for name, term in terms.items() if name.endswith('_kl')}


def departure(part, index, size):
  """Moments of vertices and camera equal to their priors' but for one number."""
  vertices, camera = (DiagonalGaussian(*np.zeros((2, *s))) for s in ((VERTICES, 3), (10,)))
  values = {'vertices': vertices, 'camera': camera}[part.split('.')[0]]
  np.ravel(getattr(values, part.split('.')[1]))[index % values.mean.size] = size
  return vertices, camera


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_divergences_are_zero_where_the_priors_are_met(convention):
  values = divergences(*departure('vertices.mean', 0, 0.0), convention)
  assert set(values) == {'vertices_kl', 'camera_kl'} | (
    {'joints_kl'} if convention == 'paper' else set()
  )
  for name, value in values.items():
    assert abs(value) < 1e-13, name


@pytest.mark.parametrize('convention', CONVENTIONS)
@few_examples
@hypothesis.given(
  part=st.sampled_from(
    [f'{name}.{moment}' for name in ('vertices', 'camera') for moment in ('mean', 'log_variance')]
  ),
  index=st.integers(0, 3 * VERTICES - 1),
  size=st.floats(1e-3, 3.0) | st.floats(-3.0, -1e-3),
)
def test_any_departure_from_a_prior_costs_its_own_term_alone(convention, part, index, size):
  vertices, camera = departure(part, index, size)
  values = divergences(vertices, camera, convention)
  letter = convention == 'paper'
  divergence = reference.kl_letter if letter else reference.kl_true
  sigma = np.exp(0.5 * vertices.log_variance)
  expected = {
    'vertices_kl': divergence(vertices.mean, sigma, np.zeros((VERTICES, 3)), np.ones_like(sigma)),
    'camera_kl': divergence(
      camera.mean, np.exp(0.5 * camera.log_variance), np.zeros(10), np.ones(10)
    ),
  }
  if letter:
    matrix = elbo_hands.regressor()
    mean, sigma = (reference.regress(matrix, values) for values in (vertices.mean, sigma))
    expected['joints_kl'] = divergence(mean, sigma, np.zeros((JOINTS, 3)), np.ones((JOINTS, 3)))
  moved = {'vertices_kl', 'joints_kl'} if part.startswith('vertices') else {'camera_kl'}
  for name, value in expected.items():
    np.testing.assert_allclose(values[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    if name in moved:
      assert values[name] > 1e-13, name
    else:
      assert abs(values[name]) < 1e-13, name


def test_the_joints_divergence_sees_joints_alone():
  """Vertices moved where B does not look leave the joints' prior and posterior equal."""
  null_space = np.linalg.svd(elbo_hands.regressor())[2][JOINTS:]
  vertices, camera = departure('vertices.mean', 0, 0.0)
  vertices = vertices._replace(mean=np.outer(null_space[0], [1.0, 2.0, 3.0]))
  values = divergences(vertices, camera, 'paper')
  np.testing.assert_allclose(values['vertices_kl'], 0.5 * 14, rtol=1e-9)
  assert abs(values['joints_kl']) < 1e-13
