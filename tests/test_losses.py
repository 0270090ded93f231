"""Loss terms against loops, minima, decompositions, masks, units, the ELBO and the errata."""

import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from jax.test_util import check_grads
from scipy.spatial.transform import Rotation

from hand_jax import losses, propagation
from hand_jax.config import LossConfig
from hand_jax.gaussian import gaussian_kl, gaussian_nll, paper_gaussian_kl
from hand_jax.geometry import cameras
from hand_jax.mano.anatomy import joint_limit_penalty, relaxed_pose_penalty
from hand_jax.types import DiagonalGaussian, HandBatch, HandEstimate, HandParameters
from tests.reference import losses as reference

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


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


few_examples = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)


def regressor(seed=0):
  rows = np.random.default_rng(seed).dirichlet(np.ones(VERTICES), JOINTS)
  rows[-1] = np.eye(VERTICES)[2]
  return rows


def random_inputs(seed=0):
  """What a network's heads give, for a batch: moments in metres, sigmas round a centimetre."""
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
@functools.partial(jax.jit, static_argnames='config')
def compiled_terms(inputs, batch, config):
  estimate = estimate_of(inputs, config.convention, config.length_unit_m)
  return losses.compute_loss_terms(estimate, batch, config)


def terms_of(inputs, batch=None, **settings):
  return compiled_terms(inputs, batch or batch_of(inputs), LossConfig(**settings))


# Values.


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


def test_terms_of_an_absent_branch_are_absent():
  inputs = random_inputs()
  batch = batch_of(inputs)
  estimate = estimate_of(inputs, 'paper')
  config = LossConfig(kind='l2')
  whole = losses.compute_loss_terms(estimate, batch, config)
  prior = losses.compute_loss_terms(estimate._replace(posterior=None), batch, config)
  amvur = losses.compute_loss_terms(estimate._replace(prior=None, parameters=None), batch, config)
  assert set(prior) == {name for name in whole if not name.endswith('posterior')}
  pose_terms = {'joint_limits', 'shape_prior'}
  assert set(amvur) == {name for name in whole if not name.endswith('prior')} - pose_terms
  assert pose_terms <= set(prior)
  for terms in (prior, amvur):
    total = losses.total_loss(terms, config)
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
    return losses.total_loss(losses.compute_loss_terms(estimate, batch, config), config).sum()

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


def test_erratum_1_the_printed_joint_loss_depends_on_the_unit_beyond_a_constant():
  """With the same prior in metres, `exact` only shifts; `paper` changes its divergence."""
  inputs = random_inputs()
  estimate = {c: estimate_of(inputs, c) for c in CONVENTIONS}
  batch = batch_of(inputs)
  difference = {}
  for convention in CONVENTIONS:
    centimetre, millimetre = (
      jax.jit(losses.compute_loss_terms, static_argnums=2)(
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


# Masks, order, weights.


LEARNED = ('posterior_mean', 'posterior_log_variance', 'prior_mean', 'camera', 'pose', 'betas')


@functools.partial(jax.jit, static_argnames='config')
def compiled_value_and_slopes(inputs, batch, config):
  def total(values):
    estimate = estimate_of({**inputs, **values}, config.convention, config.length_unit_m)
    values = losses.total_loss(losses.compute_loss_terms(estimate, batch, config), config)
    return values.sum(), values

  values = {name: inputs[name] for name in LEARNED}
  slopes, per_example = jax.grad(total, has_aux=True)(values)
  return per_example, slopes


def value_and_slopes(inputs, batch, **settings):
  return compiled_value_and_slopes(inputs, batch, LossConfig(**settings))


def masked_batches(inputs, filling):
  """Some of every kind of label masked and filled with a value."""
  batch = batch_of(inputs)
  has_3d = jnp.array([True, False, True])
  confidence = batch.joint_confidence.at[0, 2].set(0.0).at[2].set(0.0)
  mask = batch.camera_mask.at[1].set(False).at[0, 8].set(False)
  fill = lambda known, values: jnp.where(known, values, filling)  # noqa: E731
  return batch._replace(
    has_3d=has_3d,
    vertices_hand=fill(has_3d[:, None, None], batch.vertices_hand),
    joints_hand=fill(has_3d[:, None, None], batch.joints_hand),
    joint_confidence=confidence,
    joints_normalized=fill(confidence[..., None] > 0, batch.joints_normalized),
    camera_mask=mask,
    camera=fill(mask, batch.camera),
  )


@pytest.mark.parametrize('settings', [
  {'convention': 'paper'}, {'convention': 'exact'}, {'kind': 'l2'}
], ids=lambda s: '-'.join(s.values()))  # fmt: skip
def test_what_a_masked_label_holds_changes_nothing(settings):
  inputs = random_inputs()
  value, slopes = value_and_slopes(inputs, masked_batches(inputs, 0.0), **settings)
  assert np.isfinite(value).all()
  for filling in (jnp.nan, jnp.inf, 1e30):
    other, other_slopes = value_and_slopes(inputs, masked_batches(inputs, filling), **settings)
    np.testing.assert_array_equal(other, value)
    for name in slopes:
      np.testing.assert_array_equal(other_slopes[name], slopes[name], err_msg=name)


def test_masks_leave_out_exactly_their_labels():
  inputs = random_inputs()
  whole, masked = (
    terms_of(inputs, batch) for batch in (batch_of(inputs), masked_batches(inputs, jnp.nan))
  )
  for name in ('vertices_nll', 'joints_nll'):
    np.testing.assert_allclose(masked[name], whole[name] * np.array([1, 0, 1]), rtol=1e-12)
  squares = np.square(np.asarray(inputs['camera']) - inputs['camera_label'])
  known = np.ones((BATCH, 10))
  known[1], known[0, 8] = 0, 0
  np.testing.assert_allclose(masked['camera'], (known * squares).sum(axis=1), rtol=1e-12)
  assert masked['joints_2d_nll'][1] == whole['joints_2d_nll'][1]
  assert masked['joints_2d_nll'][2] == 0
  # The divergence from the prior-net needs no label.
  for name in GAUSSIAN_TERMS:
    if name.endswith('_kl'):
      np.testing.assert_array_equal(masked[name], whole[name])


@few_examples
@hypothesis.given(st.lists(st.floats(0.01, 1), min_size=JOINTS, max_size=JOINTS))
def test_a_joint_weighs_by_its_confidence(confidences):
  inputs = random_inputs()
  confidence = jnp.asarray([confidences] * BATCH)
  gaussian = estimate_of(inputs, 'exact').posterior.joints_normalized
  value = batch_of(inputs).joints_normalized
  per_joint = -scipy.stats.norm.logpdf(
    value, gaussian.mean, np.exp(0.5 * gaussian.log_variance)
  ).sum(axis=-1)
  expected = (per_joint * confidence).sum(axis=-1)
  np.testing.assert_allclose(losses.masked_nll(gaussian, value, confidence), expected, rtol=1e-10)
  squares = ((gaussian.mean - value) ** 2).sum(axis=-1)
  np.testing.assert_allclose(
    losses.masked_squared_error(gaussian.mean, value, confidence),
    (squares * confidence).sum(axis=-1),
    rtol=1e-10,
  )


def test_padding_is_zero_in_every_term_and_gradient():
  inputs = random_inputs()
  batch = batch_of(inputs, is_padding=jnp.array([False, False, True]))
  for name, term in terms_of(inputs, batch).items():
    assert term[2] == 0, name
    np.testing.assert_array_equal(term[:2], terms_of(inputs)[name][:2])
  _, slopes = value_and_slopes(inputs, batch, joint_limits=1.0, shape_prior=1.0)
  assert all((slope[2] == 0).all() for slope in slopes.values())


@pytest.mark.parametrize('kind', ['gaussian', 'l2'])
def test_order_of_the_batch_does_not_matter(kind):
  inputs = random_inputs()
  config = LossConfig(kind=kind)
  estimate, batch = estimate_of(inputs, 'paper'), masked_batches(inputs, jnp.nan)
  order = jnp.array([2, 0, 1])
  straight = losses.compute_loss_terms(estimate, batch, config)
  moved = losses.compute_loss_terms(
    *jax.tree.map(lambda leaf: leaf[order], (estimate, batch)), config
  )
  for name, term in straight.items():
    np.testing.assert_allclose(moved[name], term[order], rtol=1e-12, err_msg=name)


def test_compiled_and_on_two_devices_terms_are_the_same():
  inputs = random_inputs()
  config = LossConfig()
  estimate, batch = estimate_of(inputs, 'paper'), batch_of(inputs)
  function = lambda e, b: losses.compute_loss_terms(e, b, config)  # noqa: E731
  expected = function(estimate, batch)  # one operation at a time
  twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (estimate, batch))
  for name, term in jax.jit(function)(estimate, batch).items():
    np.testing.assert_allclose(term, expected[name], rtol=1e-10, err_msg=name)
  for name, term in jax.pmap(function)(*twice).items():
    np.testing.assert_allclose(term, np.stack([expected[name]] * 2), rtol=1e-10, err_msg=name)


@pytest.mark.parametrize('convention', CONVENTIONS)
@pytest.mark.parametrize('factor', [0.1, 7.0])
def test_a_change_of_unit_with_the_scene_changes_nothing(factor, convention):
  """Everything twice as large, sigma_v and the camera with it, unit twice as large: same terms."""
  inputs = random_inputs()
  larger = {**inputs, 'camera': inputs['camera'].at[:, 9].divide(factor)}
  for name in ('truth', 'posterior_mean', 'prior_mean'):
    larger[name] = factor * inputs[name]
  larger['posterior_log_variance'] = inputs['posterior_log_variance'] + 2 * np.log(factor)
  terms = terms_of(inputs, convention=convention)
  scaled = terms_of(larger, convention=convention, length_unit_m=UNIT * factor)
  for name in GAUSSIAN_TERMS:
    np.testing.assert_allclose(scaled[name], terms[name], rtol=1e-8, err_msg=name)


def test_l2_lengths_scale_with_the_square_of_the_unit():
  inputs = random_inputs()
  centimetre, millimetre = (
    terms_of(inputs, kind='l2', length_unit_m=unit) for unit in (0.01, 0.001)
  )
  for name in sorted(L2_TERMS):
    factor = 100 if name.startswith('vertices') else 1
    np.testing.assert_allclose(millimetre[name], factor * centimetre[name], rtol=1e-10)


def test_total_is_the_weighted_sum():
  names = sorted(GAUSSIAN_TERMS | SHARED_TERMS | {'pose_prior'})
  terms = {name: jnp.full(BATCH, 10.0**index) for index, name in enumerate(names)}
  config = LossConfig(
    vertices=2.0, joints=3.0, joints_2d=5.0, camera=7.0, kl=0.5, joint_limits=11.0,
    shape_prior=13.0, pose_prior=17.0, orthonormality=19.0,
  )  # fmt: skip
  weights = {
    'vertices_nll': 2.0, 'vertices_kl': 1.0, 'joints_nll': 3.0, 'joints_kl': 1.5,
    'joints_2d_nll': 5.0, 'joints_2d_kl': 2.5, 'camera': 7.0, 'joint_limits': 11.0,
    'shape_prior': 13.0, 'pose_prior': 17.0, 'orthonormality': 19.0,
  }  # fmt: skip
  expected = losses.TOTAL_SCALE * sum(weights[n] * 10.0**i for i, n in enumerate(names))
  np.testing.assert_allclose(losses.total_loss(terms, config), expected)


def test_total_of_the_elbo():
  """`kl` and the prior-net's own weight multiply their quantities'; the joints' divergence is the
  paper's alone."""
  weights = {
    'joints_2d_nll': 5.0, 'joints_2d_nll_prior': 1.25, 'vertices_kl': 1.0, 'camera_kl': 3.5,
    'joints_kl': 1.5, 'joint_limits': 11.0, 'shape_prior': 13.0, 'pose_prior': 17.0,
    'orthonormality': 0.0,
  }  # fmt: skip
  config = LossConfig(
    kind='elbo', vertices=2.0, joints=3.0, joints_2d=5.0, camera=7.0, kl=0.5, joints_2d_prior=0.25,
    joint_limits=11.0, shape_prior=13.0, pose_prior=17.0,
  )  # fmt: skip
  assert losses.term_weights(config) == weights
  exact = losses.term_weights(dataclasses.replace(config, convention='exact'))
  assert set(weights) - set(exact) == {'joints_kl'}


def test_a_term_of_weight_zero_passes_on_nothing():
  config = LossConfig(kind='l2', joints_2d=0.0)
  terms = dict.fromkeys(L2_TERMS | SHARED_TERMS, jnp.ones(BATCH))
  terms['joints_2d_l2_prior'] = jnp.full(BATCH, jnp.inf)
  np.testing.assert_allclose(losses.total_loss(terms, config), 3 * losses.TOTAL_SCALE)
  with pytest.raises(ValueError, match='Every loss weight is zero'):
    losses.total_loss(terms, LossConfig(kind='l2', vertices=0.0, joints_2d=0.0, camera=0.0))


def test_refuses_an_unknown_kind():
  inputs = random_inputs()
  config = LossConfig()
  object.__setattr__(config, 'kind', 'l1')  # past the type, as untyped callers can
  with pytest.raises(ValueError, match="'gaussian' or 'l2'"):
    losses.compute_loss_terms(estimate_of(inputs, 'paper'), batch_of(inputs), config)


@pytest.mark.parametrize('settings', [
  {'convention': 'paper'}, {'convention': 'exact'}, {'kind': 'l2'}
], ids=lambda s: '-'.join(s.values()))  # fmt: skip
def test_gradients_to_second_order(settings):
  inputs = random_inputs()
  config = LossConfig(**settings)
  batch = masked_batches(inputs, jnp.nan)

  @jax.jit
  def total(posterior_cm, log_variance, prior_cm, camera):
    values = {
      'posterior_mean': posterior_cm * UNIT,
      'posterior_log_variance': log_variance,
      'prior_mean': prior_cm * UNIT,
      'camera': camera,
    }
    estimate = estimate_of({**inputs, **values}, config.convention)
    return losses.total_loss(losses.compute_loss_terms(estimate, batch, config), config).sum()

  arguments = (
    inputs['posterior_mean'] / UNIT,
    inputs['posterior_log_variance'],
    inputs['prior_mean'] / UNIT,
    inputs['camera'],
  )
  check_grads(total, arguments, order=1, modes=['rev'], rtol=1e-4, atol=1e-4)
  check_grads(total, arguments, order=2, modes=['fwd'], rtol=1e-3, atol=1e-3)
