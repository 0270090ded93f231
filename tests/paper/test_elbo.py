"""The weakly supervised objective (eqs. 24 and 25) as a bound on a known evidence, in float64.

With R and s known and a linear B, 2D joints are linear in the vertices and the camera's offset, so
that evidence and posterior are those of a linear-Gaussian model. The likelihood is then quadratic
in the sampled noise, and a few chosen draws integrate the code's own terms exactly.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.spatial.transform import Rotation

from hand_jax import losses
from hand_jax.config import LossConfig
from hand_jax.geometry import cameras
from hand_jax.training.objective import term_weights
from hand_jax.types import DiagonalGaussian
from tests import elbo_hands
from tests.elbo_hands import CERTAIN, JOINTS, SCALE, UNIT, VERTICES, ElboInputs
from tests.reference import losses as reference

TAU = 0.05
STATES = 3 * VERTICES + 2  # vertices in units, then T_x and T_y
CONVENTIONS = ['paper', 'exact']
# The prior-net's own likelihood is no part of the bound.
EXACT = LossConfig(kind='elbo', convention='exact', joints_2d_prior=0.0, likelihood_sigma=TAU)


pytestmark = pytest.mark.usefixtures('float64')


class Toy(NamedTuple):
  """labels = design x + tau noise, x the states; a model, its evidence and its posterior."""

  matrix: np.ndarray
  camera: np.ndarray
  design: np.ndarray
  prior_mean: np.ndarray
  prior_variance: np.ndarray
  labels: np.ndarray
  evidence: float
  mean: np.ndarray
  precision: np.ndarray


def toy(seed=0, picks=False, prior_spread=0.5, tau=TAU) -> Toy:
  """A hand at random; with `picks` B picks vertices and R is 1."""
  generator = np.random.default_rng(seed)
  matrix = np.eye(JOINTS, VERTICES) if picks else elbo_hands.regressor(seed)
  rotation = np.eye(3) if picks else Rotation.random(rng=generator).as_matrix()
  prior_mean = np.concatenate([5 * generator.normal(size=STATES - 2), [0.1, -0.2]])
  # The camera's prior is N(mu_C, 1).
  log_variance = np.append(prior_spread * generator.normal(size=STATES - 2), [0.0, 0.0])
  prior_variance = np.exp(log_variance)
  camera = np.concatenate(
    [cameras.rotation_to_stored(rotation), prior_mean[-2:], [0.5, 0.1 * SCALE]]
  )
  joints = np.einsum('kv,ij->kjvi', matrix, rotation[:, :2]).reshape(2 * JOINTS, -1)
  design = np.hstack([SCALE * UNIT * joints, np.tile(np.eye(2), (JOINTS, 1))])
  truth = prior_mean + np.sqrt(prior_variance) * generator.normal(size=STATES)
  labels = design @ truth + tau * generator.normal(size=2 * JOINTS)
  solved = reference.linear_evidence(design, prior_mean, prior_variance, labels, tau)
  return Toy(matrix, camera, design, prior_mean, prior_variance, labels, *solved)


def inputs_of(toy: Toy, mean, log_variance, size=1) -> ElboInputs:
  """A batch of `size` equal hands whose Q over the states has these moments."""
  camera = jnp.asarray(toy.camera)
  # T_z never enters the projection, so its posterior is its prior.
  camera_log_variance = jnp.full(10, CERTAIN).at[8].set(0.0).at[6:8].set(log_variance[-2:])

  def vertices(mean, log_variance):
    return DiagonalGaussian(
      UNIT * mean[:-2].reshape(-1, 3), log_variance[:-2].reshape(-1, 3) + 2 * np.log(UNIT)
    )

  one = ElboInputs(
    posterior=vertices(mean, log_variance),
    prior=vertices(jnp.asarray(toy.prior_mean), jnp.log(jnp.asarray(toy.prior_variance))),
    camera=DiagonalGaussian(camera.at[6:8].set(mean[-2:]), camera_log_variance),
    camera_prior=camera,
    labels=jnp.asarray(toy.labels).reshape(-1, 2),
    confidence=jnp.ones(len(toy.labels) // 2),
    is_padding=jnp.array(False),
  )
  return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (size, *leaf.shape)), one)


def negative_elbo(terms, config):
  """The trained sum in nats, less what the known R and s cost against the camera's prior."""
  divergence = reference.kl_letter if config.convention == 'paper' else reference.kl_true
  known = 7 * divergence([0.0], [np.exp(0.5 * CERTAIN)], [0.0], [1.0])
  return losses.total_loss(terms, term_weights(config)) / losses.TOTAL_SCALE - known


def at_nodes(toy: Toy, mean, log_variance, config, nodes):
  """Every term where the states' noise is a node, (nodes,): to be averaged over the nodes."""

  def at_node(node):
    camera_noise = jnp.zeros(10).at[6:8].set(node[-2:])
    terms = elbo_hands.terms_at_noise(
      inputs_of(toy, mean, log_variance),
      config,
      node[:-2].reshape(-1, 3),
      camera_noise,
      toy.matrix,
    )
    return {'total': negative_elbo(terms, config), **terms}

  return jax.tree.map(lambda term: term[:, 0], jax.vmap(at_node)(jnp.asarray(nodes)))


compiled_at_nodes = jax.jit(at_nodes, static_argnames='config')


def integrate(toy: Toy, mean, log_variance, config=EXACT):
  """Every term's expectation over Q, exact up to rounding."""
  terms = at_nodes(toy, mean, log_variance, config, elbo_hands.cubature(STATES))
  return jax.tree.map(jnp.mean, terms)


integrated = jax.jit(integrate, static_argnames='config')


def random_posterior(toy: Toy, seed):
  """A diagonal Q not far from the true posterior."""
  generator = np.random.default_rng(seed)
  sigma = 1 / np.sqrt(np.diag(toy.precision))
  mean = toy.mean + 0.5 * sigma * generator.normal(size=sigma.shape)
  return mean, 2 * np.log(sigma) + 0.5 * generator.normal(size=sigma.shape)


# The bound and its gap.


def test_the_toys_evidence_is_that_of_the_joint_normal():
  model = toy()
  covariance = model.design @ np.diag(model.prior_variance) @ model.design.T
  expected = scipy.stats.multivariate_normal.logpdf(
    model.labels, model.design @ model.prior_mean, covariance + TAU**2 * np.eye(2 * JOINTS)
  )
  np.testing.assert_allclose(model.evidence, expected, rtol=1e-10)


def test_elbo_is_the_evidence_at_the_true_posterior():
  """Where B picks vertices and the camera is known a diagonal Q reaches the posterior: no gap."""
  model = toy(picks=True)
  design, prior_variance = model.design.copy(), model.prior_variance.copy()
  design[:, -2:], prior_variance[-2:] = 0.0, 1.0  # the camera's offset is no state here
  labels = model.labels - np.tile(model.prior_mean[-2:], JOINTS)
  evidence, mean, precision = reference.linear_evidence(
    design, model.prior_mean, prior_variance, labels, TAU
  )
  np.testing.assert_array_equal(precision, np.diag(np.diag(precision)))
  log_variance = -np.log(np.diag(precision))
  log_variance[-2:] = CERTAIN
  cost = 2 * reference.kl_true([0.0], [np.exp(0.5 * CERTAIN)], [0.0], [1.0])
  bound = -integrated(model, mean, log_variance)['total'] + cost
  np.testing.assert_allclose(bound, evidence, rtol=1e-10)


@pytest.mark.parametrize('seed', range(5))
def test_elbo_gap_is_the_divergence_from_the_true_posterior(seed):
  """Eq. 21: ln P(J2D) - ELBO = KL(Q || P(. | J2D)), Q independent, the posterior correlated."""
  model = toy(seed)
  mean, log_variance = random_posterior(model, seed)
  divergence = reference.kl_to_full(mean, np.exp(log_variance), model.mean, model.precision)
  loss = integrated(model, mean, log_variance)['total']
  assert divergence > 1
  # Erratum 5: the loss is the negative bound, so it lies above the negative evidence.
  assert loss > -model.evidence
  np.testing.assert_allclose(model.evidence + loss, divergence, rtol=1e-9)


def test_expected_likelihoods_are_the_closed_form():
  """Both likelihoods: of the posterior's samples and, with a weight of its own, of the prior's."""
  model = toy(1)
  mean, log_variance = random_posterior(model, 1)
  terms = integrated(model, mean, log_variance)
  expect = functools.partial(reference.linear_expected_nll, model.design)
  expected = expect(mean, np.exp(log_variance), model.labels, TAU)
  np.testing.assert_allclose(terms['joints_2d_nll'], expected, rtol=1e-9)
  mean[:-2] = model.prior_mean[:-2]
  variance = np.append(model.prior_variance[:-2], np.exp(log_variance[-2:]))
  expected = expect(mean, variance, model.labels, TAU)
  np.testing.assert_allclose(terms['joints_2d_nll_prior'], expected, rtol=1e-9)


@pytest.mark.slow
def test_the_bound_holds_on_average_with_random_samples():
  """The sampler itself, keys and all: within its own standard error of the exact integral."""
  model = toy(2)
  mean, log_variance = random_posterior(model, 2)
  size = 4000
  inputs = inputs_of(model, jnp.asarray(mean), jnp.asarray(log_variance), size)
  keys = jax.random.split(jax.random.key(0), size)
  terms = elbo_hands.compiled_terms(keys, inputs, EXACT, model.matrix)
  exact = integrated(model, mean, log_variance)
  for name in ('joints_2d_nll', 'joints_2d_nll_prior'):
    error = terms[name].std() / np.sqrt(size)
    assert error < 0.1  # nats
    assert abs(terms[name].mean() - exact[name]) < 4 * error, name
  bound = -negative_elbo(terms, EXACT).mean()
  assert bound < model.evidence


@pytest.mark.slow
def test_erratum_8_the_marginal_joint_term_loosens_the_bound():
  """`paper`: the gap exceeds the divergence from the true posterior by exactly the joints' term.

  With every sigma one unit, sigma and sigma^2 are the same number: then eq. 19's likelihood is that
  of a label's deviation of one projected unit and eq. 5 is a KL, which leaves erratum 8 alone.
  """
  tau = SCALE * UNIT
  for seed in range(3):
    model = toy(seed, prior_spread=0.0, tau=tau)
    shift = np.random.default_rng(seed).normal(size=STATES)
    mean, log_variance = model.mean + shift, np.zeros(STATES)
    divergence = reference.kl_to_full(mean, np.ones(STATES), model.mean, model.precision)
    joints_q, joints_p = (
      reference.regress(model.matrix, states[:-2].reshape(-1, 3))
      for states in (mean, model.prior_mean)
    )
    ones = np.ones((JOINTS, 3))
    joints_kl = reference.kl_letter(joints_q, ones, joints_p, ones)
    gap = {}
    for convention in CONVENTIONS:
      config = LossConfig(
        kind='elbo', convention=convention, joints_2d_prior=0.0, likelihood_sigma=tau
      )
      terms = integrated(model, mean, log_variance, config)
      assert ('joints_kl' in terms) == (convention == 'paper')
      gap[convention] = model.evidence + terms['total']
    assert joints_kl > 1
    np.testing.assert_allclose(gap['exact'], divergence, rtol=1e-9)
    np.testing.assert_allclose(gap['paper'], divergence + joints_kl, rtol=1e-9)


@pytest.mark.slow
def test_erratum_8_in_one_dimension():
  """J = V in N(0, 1), label 0.7 of deviation 0.5, Q = N(0.4, 0.3): a gap of 0.111, and 0.443.

  One vertex is its one joint; x and y are two copies of the toy, unseen z rests at its prior.
  Three Gauss-Hermite points per coordinate integrate a quadratic exactly; five agree.
  """
  model = toy(picks=True)._replace(
    matrix=np.eye(1),
    prior_mean=np.zeros(5),
    prior_variance=np.ones(5),
    labels=np.full(2, 0.7 * SCALE * UNIT),
    camera=np.array([1, 0, 0, 0, 1, 0, 0, 0, 0.5, 0.1 * SCALE]),
  )
  mean = jnp.array([0.4, 0.4, 0.0, 0.0, 0.0])
  log_variance = jnp.array([np.log(0.3), np.log(0.3), 0.0, CERTAIN, CERTAIN])
  config = dataclasses.replace(EXACT, likelihood_sigma=0.5 * SCALE * UNIT)
  evidence = 2 * scipy.stats.norm.logpdf(0.7, 0.0, np.sqrt(1 + 0.5**2)) - 2 * np.log(SCALE * UNIT)
  cost = 2 * reference.kl_true([0.0], [np.exp(0.5 * CERTAIN)], [0.0], [1.0])
  for points in (3, 5):
    node, weight = np.polynomial.hermite_e.hermegauss(points)
    nodes = np.stack(np.meshgrid(node, node, node), axis=-1).reshape(-1, 3)
    weights = np.stack(np.meshgrid(weight, weight, weight), axis=-1).reshape(-1, 3).prod(axis=-1)
    nodes = np.concatenate([nodes, np.zeros((len(nodes), 2))], axis=1)
    values = compiled_at_nodes(model, mean, log_variance, config, nodes)['total']
    loss = (weights / weights.sum()) @ values - cost
    gap = (evidence + loss) / 2
    posterior = 1.0 / (1 + 1 / 0.5**2)
    divergence = reference.kl_true(
      [0.4], [np.sqrt(0.3)], [posterior * 0.7 / 0.5**2], [np.sqrt(posterior)]
    )
    np.testing.assert_allclose(gap, divergence, rtol=1e-9)
    np.testing.assert_allclose(gap, 0.111, atol=5e-4)
    # The true divergence of the joints, which are the vertices: what eq. 25 adds.
    marginal = reference.kl_true([0.4], [np.sqrt(0.3)], [0.0], [1.0])
    np.testing.assert_allclose(gap + marginal, 0.443, atol=5e-4)


# The gradient.


def closed_form_gradients(model: Toy, mean, log_variance):
  """d(-ELBO) = d KL(Q || posterior) in Q's mean and log-variance."""
  by_mean = model.precision @ (mean - model.mean)
  by_log_variance = 0.5 * (np.exp(log_variance) * np.diag(model.precision) - 1)
  return by_mean, by_log_variance


@pytest.mark.slow
def test_reparameterised_gradient_is_the_closed_forms():
  model = toy(3)
  mean, log_variance = random_posterior(model, 3)
  gradient = jax.jit(jax.grad(lambda m, lv: integrate(model, m, lv)['total'], (0, 1)))
  slopes = gradient(jnp.asarray(mean), jnp.asarray(log_variance))
  expected = closed_form_gradients(model, mean, log_variance)
  for slope, value in zip(slopes, expected, strict=True):
    assert np.abs(value).max() > 0.3
    np.testing.assert_allclose(slope, value, rtol=1e-7, atol=1e-9)
  # The best independent Q has the posterior's mean and the diagonal of its precision.
  best = jnp.asarray(model.mean), -jnp.log(jnp.asarray(np.diag(model.precision)))
  for slope in gradient(*best):
    np.testing.assert_allclose(slope, 0.0, atol=1e-8)


@pytest.mark.slow
def test_sampled_gradient_is_unbiased():
  """Over 4000 keys the mean gradient of each state is within its standard error of the exact."""
  model = toy(4)
  mean, log_variance = random_posterior(model, 4)
  size = 4000
  keys = jax.random.split(jax.random.key(1), size)

  @jax.jit
  @jax.grad
  def slopes(moments):
    one = lambda mean, log_variance: jax.tree.map(  # noqa: E731
      lambda leaf: leaf[0], inputs_of(model, mean, log_variance)
    )
    terms = elbo_hands.elbo_terms(keys, jax.vmap(one)(*moments), EXACT, model.matrix)
    return negative_elbo(terms, EXACT).sum()

  per_key = slopes(tuple(jnp.tile(jnp.asarray(m), (size, 1)) for m in (mean, log_variance)))
  expected = closed_form_gradients(model, mean, log_variance)
  for samples, value in zip(per_key, expected, strict=True):
    error = samples.std(axis=0) / np.sqrt(size)
    score = (samples.mean(axis=0) - value) / error
    assert np.abs(score).max() < 4
    assert np.median(error) < 0.1 * np.abs(value).max()
