"""Loss terms against loops, minima, decompositions and the errata of the printed text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from hand_jax import losses
from hand_jax.config import LossConfig
from hand_jax.gaussian import gaussian_kl, gaussian_nll, paper_gaussian_kl
from hand_jax.geometry import cameras
from hand_jax.mano.anatomy import joint_limit_penalty, relaxed_pose_penalty
from hand_jax.training.objective import term_weights
from hand_jax.types import DiagonalGaussian
from tests.loss_hands import (
  BATCH,
  CONVENTIONS,
  GAUSSIAN_TERMS,
  L2_TERMS,
  SHARED_TERMS,
  UNIT,
  VERTICES,
  batch_of,
  compute_terms,
  estimate_of,
  random_inputs,
  regressor,
  terms_of,
)
from tests.reference import losses as reference

pytestmark = pytest.mark.usefixtures('float64')


# Values.


@pytest.mark.slow
@pytest.mark.parametrize('convention', CONVENTIONS)
@pytest.mark.parametrize('unit', [0.01, 0.001])
def test_terms_are_the_naive_loops(convention, unit):
  inputs = random_inputs()
  batch = batch_of(inputs)
  terms = terms_of(inputs, batch, convention=convention, length_unit_m=unit)
  assert set(terms) == GAUSSIAN_TERMS | SHARED_TERMS
  posterior_sigma = np.exp(0.5 * np.asarray(inputs['posterior_log_variance'])) / unit
  for index in range(BATCH):
    posterior, prior = (
      reference.branch_moments(
        np.asarray(mean[index]) / unit,
        sigma,
        regressor(),
        8.0 * unit,
        inputs['rotation'][index],
        np.asarray(inputs['camera'][index, 6:8]),
        convention,
      )
      for mean, sigma in (
        (inputs['posterior_mean'], posterior_sigma[index]),
        (inputs['prior_mean'], np.ones((VERTICES, 3))),
      )
    )
    labels = {
      'vertices': np.asarray(batch.vertices_hand[index]) / unit,
      'joints': np.asarray(batch.joints_hand[index]) / unit,
      'joints_2d': np.asarray(batch.joints_normalized[index]),
    }
    for name, expected in reference.loss_terms(posterior, prior, labels, convention).items():
      np.testing.assert_allclose(terms[name][index], expected, rtol=1e-9, err_msg=name)


def test_the_priors_own_likelihood_is_scipys_and_leaves_the_other_terms():
  inputs = random_inputs()
  batch = batch_of(inputs, has_3d=jnp.asarray([True, False, True]))
  terms, before = terms_of(inputs, batch, prior_vertices=0.5), terms_of(inputs, batch)
  density = scipy.stats.norm(np.asarray(inputs['prior_mean']) / UNIT, 1.0)
  expected = -density.logpdf(np.asarray(inputs['truth']) / UNIT).sum(axis=(1, 2))
  expected[1] = 0  # a hand without 3D labels
  found = terms.pop('vertices_nll_prior')
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  assert terms.keys() == before.keys()
  for name, values in before.items():
    np.testing.assert_array_equal(terms[name], values, err_msg=name)
  weights = term_weights(LossConfig(prior_vertices=0.5, vertices_likelihood=0.0))
  assert weights['vertices_nll_prior'] == 0.5 and weights['vertices_nll'] == 0.0


def test_equation_6_is_equation_4_and_equation_5():
  """The printed sum, written as one formula, against the two terms that make it."""
  inputs = random_inputs()
  terms = terms_of(inputs, convention='paper')
  v, mu, mu_v = (np.asarray(inputs[k]) / UNIT for k in ('truth', 'posterior_mean', 'prior_mean'))
  sigma, sigma_v = np.exp(0.5 * np.asarray(inputs['posterior_log_variance'])) / UNIT, 1.0
  likelihood = 0.5 * ((v - mu) / sigma) ** 2 + np.log(np.sqrt(2 * np.pi) * sigma)
  divergence = np.log(sigma_v / sigma) - 1 + (sigma + (mu_v - mu) ** 2) / sigma_v
  expected = (likelihood + 0.5 * divergence).sum(axis=(1, 2))
  np.testing.assert_allclose(terms['vertices_nll'] + terms['vertices_kl'], expected, rtol=1e-10)


def test_equation_11_is_equations_8_and_9_up_to_a_constant():
  inputs = random_inputs()
  mean, label = inputs['camera'], inputs['camera_label']
  unit_variance = jnp.zeros_like(mean)
  likelihood = -scipy.stats.norm.logpdf(label, mean, 1.0).sum(axis=-1)
  divergence = gaussian_kl(
    DiagonalGaussian(mean, unit_variance), DiagonalGaussian(jnp.asarray(label), unit_variance)
  ).sum(axis=-1)
  constant = 10 * np.log(np.sqrt(2 * np.pi))
  for convention in CONVENTIONS:
    camera = terms_of(inputs, convention=convention)['camera']
    np.testing.assert_allclose(camera, likelihood + divergence - constant, rtol=1e-12)


def test_l2_terms_are_squared_errors():
  inputs = random_inputs()
  batch = batch_of(inputs)
  terms = terms_of(inputs, batch, kind='l2')
  assert set(terms) == L2_TERMS | SHARED_TERMS
  camera = cameras.camera_from_vector(inputs['camera'])
  for branch in ('posterior', 'prior'):
    mean = np.asarray(inputs[f'{branch}_mean'])
    vertices = ((100 * (mean - inputs['truth'])) ** 2).sum(axis=(1, 2))
    projected = cameras.project_points(camera, jnp.asarray(regressor() @ mean))
    joints_2d = ((projected - batch.joints_normalized) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(terms[f'vertices_l2_{branch}'], vertices, rtol=1e-10)
    np.testing.assert_allclose(terms[f'joints_2d_l2_{branch}'], joints_2d, rtol=1e-10)


@pytest.mark.slow
def test_the_affine_projection_takes_the_cameras_numbers_as_they_stand():
  inputs = random_inputs()
  stretched = np.array(inputs['camera'])
  stretched[:, :6] *= np.linspace(0.5, 2, 6)
  inputs['camera'] = jnp.asarray(stretched)
  batch = batch_of(inputs)
  terms = terms_of(inputs, batch, kind='l2', projection='affine')
  plain = terms_of(inputs, batch, kind='l2')
  gaussian = terms_of(inputs, batch, projection='affine')
  estimate = estimate_of(inputs, 'paper')
  for index, camera in enumerate(stretched):
    columns = camera[:6].reshape(2, 3).T
    gram = columns.T @ columns - np.eye(2)
    for found in (terms, plain, gaussian):
      np.testing.assert_allclose(found['orthonormality'][index], (gram**2).sum(), rtol=1e-10)
    for branch in ('posterior', 'prior'):
      joints = regressor() @ np.asarray(inputs[f'{branch}_mean'])[index]
      projected = 10 * camera[9] * joints @ columns + camera[6:8]
      squared = (projected - batch.joints_normalized[index]) ** 2
      name = f'joints_2d_l2_{branch}'
      np.testing.assert_allclose(terms[name][index], squared.sum(), rtol=1e-8)
      assert abs(plain[name][index] - squared.sum()) > 1e-3
      if branch == 'posterior':
        # Only the mean changes; the variance is that of the proper projection.
        log_variance = np.asarray(estimate.posterior.joints_normalized.log_variance[index])
        nll = 0.5 * (np.log(2 * np.pi) + log_variance + squared * np.exp(-log_variance))
        np.testing.assert_allclose(gaussian['joints_2d_nll'][index], nll.sum(), rtol=1e-8)
  assert (terms['orthonormality'] > 1).all()


@pytest.mark.slow
def test_terms_of_an_absent_branch_are_absent():
  inputs = random_inputs()
  batch = batch_of(inputs)
  estimate = estimate_of(inputs, 'paper')
  config = LossConfig(kind='l2')
  whole = compute_terms(estimate, batch, config)
  prior = compute_terms(estimate._replace(posterior=None), batch, config)
  amvur = compute_terms(estimate._replace(prior=None, parameters=None), batch, config)
  assert set(prior) == {name for name in whole if not name.endswith('posterior')}
  pose_terms = {'joint_limits', 'shape_prior'}
  assert set(amvur) == {name for name in whole if not name.endswith('prior')} - pose_terms
  assert pose_terms <= set(prior)
  for terms in (prior, amvur):
    total = losses.total_loss(terms, term_weights(config))
    expected = sum(
      terms[name]
      for name in terms
      if name.startswith(('vertices_l2', 'joints_2d_l2')) or name == 'camera'
    )
    np.testing.assert_allclose(total, losses.TOTAL_SCALE * expected, rtol=1e-12)


@pytest.mark.parametrize('kind', ['gaussian', 'l2'])
def test_anatomy_pose_and_shape_terms(kind):
  inputs = random_inputs()
  terms = terms_of(inputs, kind=kind)
  relaxed = np.linspace(-1, 1, 45)
  with_relaxed = losses.regularizers(estimate_of(inputs, 'paper'), jnp.asarray(relaxed))
  expected = [relaxed_pose_penalty(pose, relaxed) for pose in inputs['pose']]
  np.testing.assert_allclose(with_relaxed['pose_prior'], expected, rtol=1e-12)
  assert 'pose_prior' not in terms
  for index in range(BATCH):
    expected = joint_limit_penalty(inputs['pose'][index])
    np.testing.assert_allclose(terms['joint_limits'][index], expected, rtol=1e-12)
  np.testing.assert_allclose(terms['shape_prior'], (np.asarray(inputs['betas']) ** 2).sum(axis=1))


# Minima: what the vertex loss wants.


def one_number(sigma_phi, sigma_v=1.0, truth=0.0, kl=1.0, convention='exact'):
  """The vertex loss of one coordinate as a function of (mu_phi, mu_v)."""
  divergence = gaussian_kl if convention == 'exact' else paper_gaussian_kl

  def loss(mu_phi, mu_v):
    q = DiagonalGaussian(mu_phi, 2 * jnp.log(sigma_phi))
    p = DiagonalGaussian(mu_v, 2 * jnp.log(sigma_v))
    return gaussian_nll(q, jnp.asarray(truth)) + kl * divergence(q, p)

  return loss


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_minimum_over_both_means_is_at_the_truth(convention):
  inputs = random_inputs()
  inputs['posterior_mean'] = inputs['prior_mean'] = jnp.asarray(inputs['truth'])
  config = LossConfig(convention=convention, camera=0.0)
  batch = batch_of(inputs)
  batch = batch._replace(joints_normalized=batch.joints_normalized - 0.05)

  @jax.jit
  def total(posterior_mean, prior_mean):
    moved = {**inputs, 'posterior_mean': posterior_mean, 'prior_mean': prior_mean}
    estimate = estimate_of(moved, convention)
    return losses.total_loss(compute_terms(estimate, batch, config), term_weights(config)).sum()

  arguments = inputs['posterior_mean'], inputs['prior_mean']
  least, slopes = jax.jit(jax.value_and_grad(total, (0, 1)))(*arguments)
  np.testing.assert_allclose(slopes, np.zeros_like(slopes), atol=1e-9)
  generator = np.random.default_rng(1)
  for _ in range(5):
    steps = generator.normal(scale=1e-3, size=(2, BATCH, VERTICES, 3))
    assert total(*(a + step for a, step in zip(arguments, steps, strict=True))) > least


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_minimum_over_the_posterior_alone_is_the_weighted_mean(convention):
  sigma_phi, sigma_v, truth, mu_v = 0.7, 1.6, 0.3, -0.8
  # `paper` has its prior's sigma where the variance belongs.
  prior_precision = 1 / sigma_v**2 if convention == 'exact' else 1 / sigma_v
  precision = 1 / sigma_phi**2
  expected = (precision * truth + prior_precision * mu_v) / (precision + prior_precision)
  loss = one_number(sigma_phi, sigma_v, truth, convention=convention)
  best = scipy.optimize.minimize_scalar(lambda mu: float(loss(jnp.asarray(mu), jnp.asarray(mu_v))))
  np.testing.assert_allclose(best.x, expected, rtol=1e-6)
  slope = jax.grad(loss)(jnp.asarray(expected), jnp.asarray(mu_v))
  np.testing.assert_allclose(slope, 0.0, atol=1e-12)


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_the_divergence_teaches_the_prior_net(convention):
  """No stopped gradient: d KL / d mu_v = (mu_v - mu_phi) / sigma_v^2, with sigma_v one unit."""
  inputs = random_inputs()

  def divergence(prior_mean):
    terms = terms_of({**inputs, 'prior_mean': prior_mean}, convention=convention)
    return terms['vertices_kl'].sum()

  slope = jax.jit(jax.grad(divergence))(inputs['prior_mean'])
  expected = (inputs['prior_mean'] - inputs['posterior_mean']) / UNIT**2
  np.testing.assert_allclose(slope, expected, rtol=1e-9)


def best_sigma(error, convention, kl=1.0):
  """The posterior sigma that minimises the loss at this error, mu_v = mu_phi, sigma_v = 1."""

  def loss(log_sigma):
    function = one_number(jnp.exp(log_sigma), truth=error, kl=kl, convention=convention)
    return float(function(jnp.asarray(0.0), jnp.asarray(0.0)))

  result = scipy.optimize.minimize_scalar(
    loss, bounds=(-7, 2), method='bounded', options={'xatol': 1e-9}
  )
  return float(np.exp(result.x))


@pytest.mark.parametrize('error', [0.1, 0.5])
def test_erratum_9_the_divergence_uncalibrates_sigma(error):
  """exact: the best variance is error x sigma_v, so 1 mm of error in cm units gives 3.2 mm."""
  np.testing.assert_allclose(best_sigma(error, 'exact', kl=0.0), error, rtol=1e-5)
  np.testing.assert_allclose(best_sigma(error, 'exact'), np.sqrt(error), rtol=1e-5)
  # paper: error^2 = (sigma^2 + sigma^3) / 2, nearer to the truth at errors below the unit.
  paper = best_sigma(error, 'paper')
  np.testing.assert_allclose((paper**2 + paper**3) / 2, error**2, rtol=1e-4)
  assert error < paper < best_sigma(error, 'exact')


def test_a_small_weight_of_the_divergence_keeps_sigma_calibrated():
  errors = [best_sigma(0.1, 'exact', kl=kl) / 0.1 - 1 for kl in (0.04, 0.02, 0.01)]
  # To first order the excess is proportional to the weight: (w - w r^2) / 2.
  np.testing.assert_allclose(errors[2], 0.01 * (1 - 0.1**2) / 2, rtol=0.05)
  np.testing.assert_allclose(np.array(errors[:-1]) / np.array(errors[1:]), 2.0, rtol=0.05)


# Errata of the formulas.


@pytest.mark.slow
def test_erratum_1_the_printed_joint_loss_depends_on_the_unit_beyond_a_constant():
  """With the same prior in metres, `exact` only shifts; `paper` changes its divergence."""
  inputs = random_inputs()
  estimate = {c: estimate_of(inputs, c) for c in CONVENTIONS}
  batch = batch_of(inputs)
  difference = {}
  for convention in CONVENTIONS:
    centimetre, millimetre = (
      jax.jit(compute_terms, static_argnums=2)(
        estimate[convention], batch, LossConfig(convention=convention, length_unit_m=unit)
      )
      for unit in (0.01, 0.001)
    )
    difference[convention] = millimetre['vertices_kl'] - centimetre['vertices_kl']
    shift = millimetre['vertices_nll'] - centimetre['vertices_nll']
    np.testing.assert_allclose(shift, VERTICES * 3 * np.log(10), rtol=1e-9)
  np.testing.assert_allclose(difference['exact'], 0.0, atol=1e-8)
  assert (difference['paper'] > 10).all()


def test_erratum_7_scale_does_not_cancel_from_equation_25():
  """Its last line has s B sigma for line 3's B sigma: ratios agree, the term in the means not."""
  sigma_q, sigma_p, offset, scale = 0.4, 1.0, 0.5, 6.0
  line_3 = reference.kl_letter([0.0], [sigma_q], [offset], [sigma_p])
  last_line = reference.kl_letter([0.0], [scale * sigma_q], [scale * offset], [scale * sigma_p])
  without_means = reference.kl_letter([0.0], [sigma_q], [0.0], [sigma_p])
  np.testing.assert_allclose(
    reference.kl_letter([0.0], [scale * sigma_q], [0.0], [scale * sigma_p]), without_means
  )
  np.testing.assert_allclose(last_line - without_means, scale * (line_3 - without_means))
