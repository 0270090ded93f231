"""Vertices with common causes: their joints, projections, losses and samples, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax import losses, propagation
from hand_jax.config import LossConfig
from hand_jax.geometry import cameras
from hand_jax.types import DiagonalGaussian, LowRankGaussian
from tests import elbo_hands, loss_hands
from tests.loss_hands import BATCH, UNIT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('float64')]

CAUSES = 4
NAMES = ('vertices', 'joints', 'joints_normalized')


def random_factor(shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(scale=0.01, size=(*shape, CAUSES)))


compiled_gaussians = jax.jit(
  propagation.hand_gaussians, static_argnames=('convention', 'length_unit_m')
)
compiled_terms = jax.jit(losses.compute_gaussian_terms, static_argnames='config')


@jax.jit
def estimates(inputs, factor, own_sigma=UNIT):
  """A batch whose prior has the causes, beside one whose prior has a deviation of one unit."""
  plain = loss_hands.estimate_of(inputs, 'exact')
  own = jnp.full_like(inputs['prior_mean'], 1.0) * 2 * jnp.log(own_sigma)
  prior = jax.vmap(
    lambda vertices, camera: propagation.hand_gaussians(
      vertices, camera, jnp.asarray(loss_hands.regressor()), convention='exact', length_unit_m=UNIT
    )
  )(LowRankGaussian(inputs['prior_mean'], own, factor), inputs['camera'])
  return plain._replace(prior=prior), plain


def dense_log_density(gaussian, value):
  """Natural logarithm of the density of one hand's points, by the full covariance."""
  factor = np.asarray(gaussian.factor).reshape(gaussian.mean.size, -1)
  wide = np.diag(np.exp(np.ravel(gaussian.own_log_variance))) + factor @ factor.T
  difference = np.ravel(value - gaussian.mean)
  distance = difference @ np.linalg.solve(wide, difference)
  return -0.5 * (distance + np.linalg.slogdet(2 * np.pi * wide)[1])


@pytest.mark.parametrize('scale', [8.0, 0.1, -8.0])
def test_causes_pass_through_joints_and_projections_as_the_displacements_they_are(scale):
  inputs = loss_hands.random_inputs()
  camera = inputs['camera'][0].at[-1].set(0.1 * scale)
  matrix = jnp.asarray(loss_hands.regressor())
  factor = random_factor(inputs['prior_mean'][0].shape)
  vertices = LowRankGaussian(inputs['prior_mean'][0], inputs['posterior_log_variance'][0], factor)
  arguments = {'convention': 'exact', 'length_unit_m': UNIT}
  hand = compiled_gaussians(vertices, camera, matrix, **arguments)
  own = compiled_gaussians(DiagonalGaussian(*vertices[:2]), camera, matrix, **arguments)
  whole = hand.correlated
  named = cameras.camera_from_vector(camera)
  for cause in range(CAUSES):
    moved = np.asarray(matrix) @ np.asarray(factor)[..., cause]
    np.testing.assert_allclose(np.asarray(whole.joints.factor)[..., cause], moved, atol=1e-15)
    projected = cameras.project_points(named, hand.joints.mean + moved)
    # Covariances neither tell the sign nor shrink below the least scale.
    at_least = max(abs(scale), propagation.MIN_SCALE_PER_M) / scale
    expected = at_least * (projected - hand.joints_normalized.mean)
    found = np.asarray(whole.joints_normalized.factor)[..., cause]
    np.testing.assert_allclose(found, expected, atol=1e-14)
  for name in NAMES:
    np.testing.assert_array_equal(getattr(whole, name).own_log_variance, getattr(own, name)[1])
    common = np.sum(np.asarray(getattr(whole, name).factor) ** 2, axis=-1)
    variance = np.exp(getattr(own, name).log_variance) + common
    np.testing.assert_allclose(np.exp(getattr(hand, name).log_variance), variance, rtol=1e-12)


def test_terms_without_causes_are_the_diagonal_ones():
  inputs = loss_hands.random_inputs()
  causeless, plain = estimates(inputs, jnp.zeros((*inputs['truth'].shape, CAUSES)))
  batch = loss_hands.batch_of(inputs)
  config = LossConfig(convention='exact', prior_vertices=1.0)
  found = compiled_terms(causeless, batch, config)
  expected = compiled_terms(plain, batch, config)
  assert found.keys() == expected.keys()
  for name, term in expected.items():
    np.testing.assert_allclose(found[name], term, rtol=1e-10, err_msg=name)


def test_the_priors_likelihood_counts_whole_hands_and_ignores_masked_ones():
  inputs = loss_hands.random_inputs()
  estimate, _ = estimates(inputs, random_factor(inputs['truth'].shape))
  labels = inputs['truth'].copy()
  labels[1] = np.nan
  batch = loss_hands.batch_of(
    inputs, vertices_hand=jnp.asarray(labels), has_3d=jnp.asarray([True, False, True])
  )
  config = LossConfig(convention='exact', prior_vertices=1.0)
  found = compiled_terms(estimate, batch, config)['vertices_nll_prior']
  whole = estimate.prior.correlated.vertices
  in_metres = [
    -dense_log_density(jax.tree.map(lambda leaf, at=at: leaf[at], whole), labels[at])
    for at in (0, 2)
  ]
  expected = np.asarray(in_metres) + labels[0].size * np.log(1 / UNIT)
  np.testing.assert_allclose(found, [expected[0], 0, expected[1]], rtol=1e-10)


def test_a_displacement_by_a_cause_is_cheap_and_a_dent_is_dear():
  """In every term. Without causes the vertices' divergence cannot tell them apart."""
  inputs = loss_hands.random_inputs()
  factor = random_factor(inputs['truth'].shape)
  estimate, plain = estimates(inputs, factor, 0.1 * UNIT)
  generator = np.random.default_rng(1)
  bend = 2 * factor[..., 0]
  dent = jnp.asarray(generator.normal(size=bend.shape))
  dent *= jnp.linalg.norm(bend) / jnp.linalg.norm(dent)
  batch = loss_hands.batch_of(inputs)

  def divergence(estimate, displacement):
    moved = estimate.posterior.vertices._replace(mean=inputs['prior_mean'] + displacement)
    estimate = estimate._replace(posterior=estimate.posterior._replace(vertices=moved))
    terms = compiled_terms(estimate, batch, LossConfig(convention='exact'))
    return terms['vertices_kl'].sum()

  still = divergence(estimate, 0.0)
  # Two deviations of one cause cost at most 1/2 2^2 nats for each hand.
  assert 0 < divergence(estimate, bend) - still <= 2 * BATCH
  assert divergence(estimate, dent) - still > 50 * BATCH
  same = [divergence(plain, displacement) for displacement in (bend, dent)]
  np.testing.assert_allclose(*same, rtol=1e-10)


def test_the_weak_divergence_knows_the_causes():
  inputs = elbo_hands.random_inputs(elbo_hands.FEW)
  factor = random_factor(inputs.prior.mean.shape)
  inputs = inputs._replace(prior=LowRankGaussian(*inputs.prior, factor))
  keys = jax.random.split(jax.random.key(0), elbo_hands.FEW)
  config = LossConfig(kind='elbo', convention='exact')
  found = elbo_hands.compiled_terms(keys, inputs, config)['vertices_kl']
  for hand in range(elbo_hands.FEW):
    q, p = jax.tree.map(lambda leaf, at=hand: leaf[at], (inputs.posterior, inputs.prior))
    # A Gaussian's divergence is its cross entropy, which the variances raise, less its entropy.
    columns = np.asarray(p.factor).reshape(p.mean.size, -1)
    precision = np.linalg.inv(np.diag(np.exp(np.ravel(p.own_log_variance))) + columns @ columns.T)
    variance = np.exp(np.ravel(q.log_variance))
    cross = -dense_log_density(p, q.mean) + 0.5 * np.diag(precision) @ variance
    entropy = 0.5 * np.sum(np.log(2 * np.pi * np.e * variance))
    np.testing.assert_allclose(found[hand], cross - entropy, rtol=1e-9)


@pytest.mark.parametrize('joint_draws', ['regressed', 'drawn'])
@pytest.mark.parametrize('projection', ['orthonormal', 'affine'])
def test_weak_samples_spread_as_the_projections_say(joint_draws, projection):
  """The expected likelihood of a sure label grows by the traces of both branches' variances."""
  inputs = elbo_hands.random_inputs(elbo_hands.MANY)
  first = jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), inputs._replace(parameters=None)
  )
  certain = jnp.full_like(first.camera.log_variance, elbo_hands.CERTAIN)
  camera = jnp.asarray(first.camera.mean)
  if projection == 'affine':  # where both projections agree, but for the means
    camera = camera.at[:, :6].set(jnp.asarray([1.0, 0, 0, 0, 1, 0])[None])
  factor = random_factor(first.prior.mean.shape[1:])
  prior = LowRankGaussian(*first.prior, jnp.broadcast_to(factor, (elbo_hands.MANY, *factor.shape)))
  first = first._replace(prior=prior, camera=DiagonalGaussian(camera, certain))
  config = LossConfig(
    kind='elbo', convention='exact', joint_draws=joint_draws, projection=projection
  )
  keys = jax.random.split(jax.random.key(0), elbo_hands.MANY)
  found = elbo_hands.compiled_terms(keys, first, config)['joints_2d_nll_prior'].mean()
  one = jax.tree.map(lambda leaf: leaf[0], (prior, camera))
  hand = compiled_gaussians(
    *one, jnp.asarray(elbo_hands.regressor()), convention='exact', length_unit_m=UNIT
  )
  gaussian, variance = hand.joints_normalized, config.likelihood_sigma**2
  squared = (first.labels[0] - gaussian.mean) ** 2 + np.exp(gaussian.log_variance)
  each = 0.5 * (np.log(2 * np.pi * variance) + squared / variance)
  expected = np.sum(first.confidence[0][:, None] * each)
  np.testing.assert_allclose(found, expected, rtol=0.05)


def test_the_printed_equations_are_refused():
  inputs = loss_hands.random_inputs()
  estimate, _ = estimates(inputs, random_factor(inputs['truth'].shape))
  whole = jax.tree.map(lambda leaf: leaf[0], estimate.prior.correlated.vertices)
  with pytest.raises(ValueError, match=r"convention='paper' has no form.*take 'exact'"):
    propagation.hand_gaussians(
      whole,
      inputs['camera'][0],
      jnp.asarray(loss_hands.regressor()),
      convention='paper',
      length_unit_m=UNIT,
    )
  config = LossConfig(convention='paper')
  with pytest.raises(ValueError, match="convention='paper' has no common causes: take 'exact'"):
    losses.compute_gaussian_terms(estimate, loss_hands.batch_of(inputs), config)
