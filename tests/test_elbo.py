"""The weakly supervised objective (eqs. 24 and 25) on a toy whose evidence is known, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hand_jax import losses, propagation
from hand_jax.config import LossConfig
from hand_jax.gaussian import gaussian_kl, paper_gaussian_kl, scale_gaussian
from hand_jax.types import DiagonalGaussian, HandBatch, HandEstimate, HandParameters
from tests.reference import losses as reference

VERTICES, JOINTS = 10, 5
UNIT = 0.01
TAU = 0.05


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


# The camera is fixed, so that 2D joints are linear in the vertices, and the prior is Gaussian.


def toy(seed=3):
  """(estimate inputs, 2D labels, evidence, exact posterior moments) of one hand, joint by joint.

  The regressor picks vertices, so that the posterior is diagonal and a diagonal Q can reach it.
  """
  generator = np.random.default_rng(seed)
  matrix = np.eye(JOINTS, VERTICES)
  scale, offset = 8.0, np.array([0.1, -0.2])
  prior_mean = generator.normal(scale=0.05, size=(VERTICES, 3))
  labels = scale * prior_mean[:JOINTS, :2] + offset + generator.normal(scale=0.08, size=(JOINTS, 2))
  variance_2d = (scale * UNIT) ** 2
  evidence = scipy.stats.norm.logpdf(
    labels, scale * prior_mean[:JOINTS, :2] + offset, np.sqrt(variance_2d + TAU**2)
  ).sum()
  mean, log_variance = prior_mean.copy(), np.full((VERTICES, 3), 2 * np.log(UNIT))
  gain = scale * UNIT**2 / (variance_2d + TAU**2)
  mean[:JOINTS, :2] += gain * (labels - scale * prior_mean[:JOINTS, :2] - offset)
  log_variance[:JOINTS, :2] = np.log(UNIT**2 * TAU**2 / (variance_2d + TAU**2))
  camera = np.concatenate([[1, 0, 0, 0, 1, 0], offset, [0.5, 0.1 * scale]])
  return matrix, camera, prior_mean, labels, evidence, (mean, log_variance)


@functools.partial(jax.jit, static_argnames=('convention', 'samples'))
def toy_terms(mean, log_variance, convention='exact', samples=1):
  """compute_elbo_terms averaged over samples, for the toy with this posterior."""
  matrix, camera, prior_mean, labels, *_ = toy()
  config = LossConfig(convention=convention)
  propagate = lambda g: propagation.hand_gaussians(  # noqa: E731
    g, jnp.asarray(camera), jnp.asarray(matrix), convention=convention, length_unit_m=UNIT
  )
  posterior = propagate(DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_variance)))
  prior = propagate(
    DiagonalGaussian(jnp.asarray(prior_mean), jnp.full((VERTICES, 3), 2 * np.log(UNIT)))
  )
  one = HandEstimate(
    parameters=HandParameters(jnp.zeros(3), jnp.zeros(45), jnp.zeros(10), jnp.zeros(3)),
    camera=DiagonalGaussian(jnp.asarray(camera), jnp.full(10, -60.0)),  # known for certain
    prior=prior,
    posterior=posterior,
  )
  repeat = lambda leaf: jnp.broadcast_to(leaf[None], (samples, *leaf.shape))  # noqa: E731
  batch = HandBatch(
    **{
      **dict.fromkeys(HandBatch._fields),
      'vertices_hand': jnp.full((samples, VERTICES, 3), jnp.nan),
      'joints_hand': jnp.full((samples, JOINTS, 3), jnp.nan),
      'has_3d': jnp.zeros(samples, bool),
      'joints_normalized': repeat(jnp.asarray(labels)),
      'joint_confidence': jnp.ones((samples, JOINTS)),
      'is_padding': jnp.zeros(samples, bool),
    }
  )
  keys = jax.random.split(jax.random.key(0), samples)
  camera_prior = repeat(jnp.asarray(camera))
  return losses.compute_elbo_terms(
    keys, jax.tree.map(repeat, one), batch, camera_prior, jnp.asarray(matrix), config,
    likelihood_sigma=TAU,
  )  # fmt: skip


def random_posterior(seed):
  _, _, _, _, _, (mean, log_variance) = toy()
  generator = np.random.default_rng(seed)
  return (
    mean + generator.normal(scale=0.4 * UNIT, size=mean.shape),
    log_variance + generator.normal(scale=0.5, size=mean.shape),
  )


def test_elbo_reaches_the_evidence_at_the_true_posterior():
  """There every sample gives the evidence on average, and the bound is tight."""
  *_, evidence, (mean, log_variance) = toy()
  terms = toy_terms(mean, log_variance, samples=4000)
  values = -(terms['joints_2d_nll'] + terms['vertices_kl'])
  error = values.std() / np.sqrt(len(values))
  assert abs(values.mean() - evidence) < 4 * error
  assert error < 0.06


@pytest.mark.parametrize('seed', [4, 5, 6])
def test_elbo_gap_is_the_divergence_from_the_true_posterior(seed):
  *_, evidence, (best_mean, best_log_variance) = toy()
  mean, log_variance = random_posterior(seed)
  gap = reference.kl_true(
    mean, np.exp(0.5 * log_variance), best_mean, np.exp(0.5 * best_log_variance)
  )
  terms = toy_terms(mean, log_variance, samples=4000)
  values = -(terms['joints_2d_nll'] + terms['vertices_kl'])
  error = values.std() / np.sqrt(len(values))
  assert gap > 1 > 10 * error
  np.testing.assert_allclose(evidence - values.mean(), gap, atol=4 * error)
  # Erratum 5: the loss is the negative bound, so it lies above the negative evidence.
  assert -values.mean() > -evidence


def test_erratum_8_the_marginal_joint_term_loosens_the_bound():
  """J = B V given V leaves nothing to diverge: with the term the gap grows by exactly its size."""
  mean, log_variance = random_posterior(4)
  exact = toy_terms(mean, log_variance)
  paper = toy_terms(mean, log_variance, 'paper')
  assert set(paper) - set(exact) == {'joints_kl'}
  assert paper['joints_kl'][0] > 1
  # B picks vertices here: those coordinates are counted twice.
  q, p = (
    DiagonalGaussian(jnp.asarray(m)[:JOINTS], jnp.asarray(lv)[:JOINTS])
    for m, lv in ((mean, log_variance), (toy()[2], np.full((VERTICES, 3), 2 * np.log(UNIT))))
  )
  q, p = (scale_gaussian(g, 1 / UNIT) for g in (q, p))
  np.testing.assert_allclose(paper['joints_kl'][0], paper_gaussian_kl(q, p).sum(), rtol=1e-10)
  # Conditional on V the divergence is that of a point mass from itself, in the limit of any width.
  for width in (1e-2, 1e-4):
    joint = DiagonalGaussian(jnp.asarray(0.3), jnp.asarray(2 * np.log(width)))
    assert gaussian_kl(joint, joint) == 0


def test_elbo_samples_have_their_own_noise_and_teach_both_nets():
  mean, log_variance = random_posterior(5)
  terms = toy_terms(mean, log_variance, samples=50)
  assert np.unique(terms['joints_2d_nll']).size == 50
  spread = np.corrcoef(terms['joints_2d_nll'], terms['joints_2d_nll_prior'])[0, 1]
  assert abs(spread) < 0.5

  def objective(log_variance):
    terms = toy_terms(mean, log_variance, samples=2000)
    return (terms['joints_2d_nll'] + terms['vertices_kl']).mean()

  slope = jax.jit(jax.grad(objective))
  # At the posterior the reparameterised gradient in the variance vanishes, elsewhere it does not.
  *_, (mean, best) = toy()
  at_best = slope(jnp.asarray(best))
  away = slope(jnp.asarray(best + 1.0))
  assert np.abs(at_best).max() < 0.1 * np.abs(away[:JOINTS, :2]).min()


def test_elbo_camera_divergence_and_paper_likelihood():
  mean, log_variance = toy()[5]
  exact = toy_terms(mean, log_variance)
  # KL(N(m, e^-60) || N(m, 1)) over ten numbers.
  np.testing.assert_allclose(exact['camera_kl'], 10 * 0.5 * (60 - 1), rtol=1e-12)
  paper = toy_terms(mean, log_variance, 'paper', samples=2000)
  sigma = np.exp(0.5 * log_variance[:JOINTS, :2]) / UNIT
  variance_2d = (8.0 * UNIT) ** 2 * sigma  # eq. 19's: B sigma where a variance belongs
  _, camera, _, labels, *_ = toy()
  residual = labels - 8.0 * mean[:JOINTS, :2] - camera[6:8]
  sampled = (8.0 * UNIT * sigma) ** 2  # of the sampled vertices
  expected = 0.5 * (np.log(2 * np.pi * variance_2d) + (residual**2 + sampled) / variance_2d).sum()
  values = paper['joints_2d_nll']
  error = values.std() / np.sqrt(len(values))
  assert abs(values.mean() - expected) < 4 * error
