"""What loss terms ignore, how they are weighed and summed, and their gradients."""

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

from hand_jax import losses
from hand_jax.config import LossConfig
from hand_jax.training.objective import term_weights
from tests.loss_hands import (
  BATCH,
  CONVENTIONS,
  GAUSSIAN_TERMS,
  JOINTS,
  L2_TERMS,
  SHARED_TERMS,
  UNIT,
  batch_of,
  compute_terms,
  estimate_of,
  random_inputs,
  terms_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('float64')]


few_examples = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)


LEARNED = ('posterior_mean', 'posterior_log_variance', 'prior_mean', 'camera', 'pose', 'betas')


@functools.partial(jax.jit, static_argnames='config')
def compiled_value_and_slopes(inputs, batch, config):
  def total(values):
    estimate = estimate_of({**inputs, **values}, config.convention, config.length_unit_m)
    values = losses.total_loss(compute_terms(estimate, batch, config), term_weights(config))
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
  order = np.array([2, 0, 1])
  compiled = jax.jit(functools.partial(compute_terms, config=config))
  straight = compiled(estimate, batch)
  moved = compiled(*jax.tree.map(lambda leaf: np.asarray(leaf)[order], (estimate, batch)))
  for name, term in straight.items():
    np.testing.assert_allclose(moved[name], np.asarray(term)[order], rtol=1e-12, err_msg=name)


def test_on_two_devices_terms_are_the_same():
  inputs = random_inputs()
  config = LossConfig()
  estimate, batch = estimate_of(inputs, 'paper'), batch_of(inputs)
  function = lambda e, b: compute_terms(e, b, config)  # noqa: E731
  expected = jax.jit(function)(estimate, batch)
  twice = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), (estimate, batch))
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
  np.testing.assert_allclose(losses.total_loss(terms, term_weights(config)), expected)


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
  assert term_weights(config) == weights
  exact = term_weights(dataclasses.replace(config, convention='exact'))
  assert set(weights) - set(exact) == {'joints_kl'}


def test_a_term_of_weight_zero_passes_on_nothing():
  config = LossConfig(kind='l2', joints_2d=0.0)
  terms = dict.fromkeys(L2_TERMS | SHARED_TERMS, jnp.ones(BATCH))
  terms['joints_2d_l2_prior'] = jnp.full(BATCH, jnp.inf)
  np.testing.assert_allclose(losses.total_loss(terms, term_weights(config)), 3 * losses.TOTAL_SCALE)
  with pytest.raises(ValueError, match='Every loss weight is zero'):
    losses.total_loss(
      terms, term_weights(LossConfig(kind='l2', vertices=0.0, joints_2d=0.0, camera=0.0))
    )


def test_refuses_an_unknown_kind():
  config = LossConfig()
  object.__setattr__(config, 'kind', 'l1')  # past the type, as untyped callers can
  with pytest.raises(ValueError, match="one of gaussian, l2, elbo, photometric, got 'l1'"):
    term_weights(config)


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
    return losses.total_loss(compute_terms(estimate, batch, config), term_weights(config)).sum()

  arguments = (
    inputs['posterior_mean'] / UNIT,
    inputs['posterior_log_variance'],
    inputs['prior_mean'] / UNIT,
    inputs['camera'],
  )
  check_grads(total, arguments, order=1, modes=['rev'], rtol=1e-4, atol=1e-4)
  check_grads(total, arguments, order=2, modes=['fwd'], rtol=1e-3, atol=1e-3)
