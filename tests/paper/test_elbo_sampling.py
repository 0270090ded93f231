"""How the weakly supervised objective samples, masks and projects, in float64."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.config import LossConfig
from hand_jax.types import DiagonalGaussian
from tests import elbo_hands
from tests.elbo_hands import FEW, JOINTS, MANY, SAMPLED, UNIT, VERTICES
from tests.reference import losses as reference

CONVENTIONS = ['paper', 'exact']
TAU = LossConfig().likelihood_sigma


pytestmark = [pytest.mark.usefixtures('float64'), pytest.mark.slow]


def config_of(convention='exact', **settings):
  return LossConfig(kind='elbo', convention=convention, **settings)


def keys_of(size, seed=0):
  return jax.random.split(jax.random.key(seed), size)


def repeated(inputs):
  """MANY times the first hand of a batch."""
  return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], (MANY, *leaf.shape[1:])), inputs)


SCALES = ('sampling_scale', 'camera_sampling_scale')


def terms_of(inputs, keys=None, convention='exact', **settings):
  keys = keys_of(len(inputs.labels)) if keys is None else keys
  scales = [settings.pop(name, 1.0) for name in SCALES]
  return terms_at_scales(keys, inputs, config_of(convention, **settings), scales)


@functools.partial(jax.jit, static_argnames='config')
def terms_at_scales(keys, inputs, config, scales):
  """The terms with any two scales, which no part of the program depends on."""
  config = copy.copy(config)
  for name, scale in zip(SCALES, scales, strict=True):
    object.__setattr__(config, name, scale)
  return elbo_hands.elbo_terms(keys, inputs, config)


@functools.partial(jax.jit, static_argnames='config')
def terms_at_noise(inputs, vertex_noise, camera_noise, config, matrix=None):
  """The terms of each hand at its own noise, which compile sooner than random numbers."""

  def one(inputs, *noise):
    alone = jax.tree.map(lambda leaf: leaf[None], inputs)
    return elbo_hands.terms_at_noise(alone, config, *noise, matrix)

  terms = jax.vmap(one)(inputs, vertex_noise, camera_noise)
  return {name: term[:, 0] for name, term in terms.items()}


def naive_nll(inputs, branch, vertex_noise, camera_noise, convention, projection='orthonormal'):
  """The loop reference of one draw for the first hand; noise multiplies the deviations."""
  gaussian = getattr(inputs, branch)
  sigma = np.exp(0.5 * np.asarray(gaussian.log_variance[0])) / UNIT
  vertices = np.asarray(gaussian.mean[0]) / UNIT + sigma * vertex_noise
  camera = inputs.camera.mean[0] + np.exp(0.5 * inputs.camera.log_variance[0]) * camera_noise
  return reference.sampled_nll(
    np.asarray(inputs.labels[0]),
    np.asarray(inputs.confidence[0]),
    vertices,
    sigma,
    np.asarray(camera),
    elbo_hands.regressor(),
    convention,
    UNIT,
    TAU,
    projection,
  )


# One draw, and its expectation.


@pytest.mark.parametrize('projection', ['orthonormal', 'affine'])
@pytest.mark.parametrize('convention', CONVENTIONS)
def test_a_draws_likelihood_is_the_naive_loop(convention, projection):
  """Vertices and camera, rotation and scale with it, moved by the same noise in code and loop."""
  inputs = elbo_hands.random_inputs()
  generator = np.random.default_rng(1)
  vertex_noise = generator.normal(size=(10, VERTICES, 3))
  camera_noise = generator.normal(size=(10, 10))
  config = config_of(convention, projection=projection)
  at_noise = functools.partial(elbo_hands.terms_at_noise, inputs, config)
  terms = jax.jit(jax.vmap(at_noise))(vertex_noise, camera_noise)
  for index in range(10):
    for name, branch in zip(SAMPLED, ('posterior', 'prior'), strict=True):
      expected = naive_nll(
        inputs, branch, vertex_noise[index], camera_noise[index], convention, projection
      )
      np.testing.assert_allclose(terms[name][index, 0], expected, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_expected_likelihood_under_an_uncertain_camera(convention):
  """The code's keys against the loop's own random numbers, within both standard errors."""
  inputs = elbo_hands.random_inputs(seed=2, camera_log_variance=-3.5)
  loops = 300
  generator = np.random.default_rng(2)
  terms = terms_of(repeated(inputs), convention=convention)
  for name, branch in zip(SAMPLED, ('posterior', 'prior'), strict=True):
    noise = lambda: (generator.normal(size=(VERTICES, 3)), generator.normal(size=10))  # noqa: E731
    naive = np.array([naive_nll(inputs, branch, *noise(), convention) for _ in range(loops)])
    error = np.hypot(naive.std() / np.sqrt(loops), terms[name].std() / np.sqrt(MANY))
    assert abs(terms[name].mean() - naive.mean()) < 3.5 * error, name
    still = np.mean([
      naive_nll(inputs, branch, generator.normal(size=(VERTICES, 3)), np.zeros(10), convention)
      for _ in range(100)
    ])  # fmt: skip
    assert abs(naive.mean() - still) > 4 * error  # else the camera would not be seen


# Masks.


@functools.partial(jax.jit, static_argnames='config')
def value_and_slopes(inputs, config):
  """All terms, and the gradients of their sum in whatever the networks give."""

  def total(learned):
    terms = elbo_hands.elbo_terms(keys_of(FEW), inputs._replace(**learned), config)
    return sum(terms.values()).sum(), terms

  learned = {name: getattr(inputs, name) for name in ('posterior', 'prior', 'camera')}
  slopes, terms = jax.grad(total, has_aux=True)(learned)
  return terms, slopes


def masked(inputs, confidence, filling):
  """Two joints of the first hand and all of the last one's: this confidence, this label."""
  unknown = jnp.zeros((FEW, JOINTS), bool).at[0, 1].set(True).at[0, 3].set(True).at[2].set(True)
  return inputs._replace(
    confidence=jnp.where(unknown, confidence, inputs.confidence),
    labels=jnp.where(unknown[..., None], jnp.asarray(filling), inputs.labels),
  )


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_a_masked_joint_changes_neither_value_nor_gradient(convention):
  """Bit by bit: of confidence zero, whatever its label; or with a coordinate that is no number."""
  inputs = elbo_hands.random_inputs(FEW)
  config = config_of(convention)
  terms, slopes = value_and_slopes(masked(inputs, 0.0, [0.0, 0.0]), config)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((terms, slopes)))
  for name in SAMPLED:
    assert terms[name][2] == 0
  numbers, nan, infinity = [0.3, -1e30], jnp.nan, jnp.inf
  for confidence, filling in [
    (0.0, numbers), (0.0, [nan, nan]), (0.0, [infinity, -infinity]),
    (1.0, [nan, nan]), (0.7, [nan, 0.2]), (1.0, [0.2, nan]), (1.0, [infinity, 0.2]),
    (1.0, [0.2, -infinity]),
  ]:  # fmt: skip
    other = value_and_slopes(masked(inputs, confidence, filling), config)
    for left, right in zip(jax.tree.leaves(other), jax.tree.leaves((terms, slopes)), strict=True):
      np.testing.assert_array_equal(left, right)
  # A known joint does matter.
  other, _ = value_and_slopes(masked(inputs, 1.0, [0.2, 0.2]), config)
  for name in SAMPLED:
    np.testing.assert_array_equal(other[name] == terms[name], [False, True, False])


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_a_masked_joint_leaves_the_others_as_without_it(convention):
  """The likelihood of the rest is that of a hand which has no such joint."""
  inputs = elbo_hands.random_inputs(FEW)
  kept = np.array([0, 2])
  hidden = inputs._replace(confidence=inputs.confidence.at[:, jnp.array([1, 3])].set(0.0))
  fewer = inputs._replace(labels=inputs.labels[:, kept], confidence=inputs.confidence[:, kept])
  config, matrix = config_of(convention), elbo_hands.regressor()
  generator = np.random.default_rng(1)
  noise = generator.normal(size=(FEW, VERTICES, 3)), generator.normal(size=(FEW, 10))
  terms = terms_at_noise(hidden, *noise, config, matrix)
  expected = terms_at_noise(fewer, *noise, config, matrix[kept])
  for name in SAMPLED:
    np.testing.assert_allclose(terms[name], expected[name], rtol=1e-12)


def test_a_joint_weighs_by_its_confidence():
  inputs = elbo_hands.random_inputs(FEW)
  whole = terms_of(inputs)
  half = terms_of(inputs._replace(confidence=0.5 * inputs.confidence))
  for name in SAMPLED:
    np.testing.assert_allclose(half[name], 0.5 * whole[name], rtol=1e-12)


# Keys.


def test_the_same_keys_give_the_same_terms_and_others_do_not():
  inputs = elbo_hands.random_inputs(FEW)
  terms, again, other = (terms_of(inputs, keys_of(FEW, seed)) for seed in (0, 0, 1))
  for name, term in terms.items():
    np.testing.assert_array_equal(again[name], term)
    assert (other[name] != term).all() == (name in SAMPLED), name


def test_an_examples_samples_depend_on_its_own_key_alone():
  """Not on its place in the batch, nor on who else is in it, nor on how many."""
  inputs, keys = elbo_hands.random_inputs(FEW), keys_of(FEW)
  terms = terms_of(inputs, keys, samples=2)
  for chosen in (np.array([2, 0, 1]), np.array([2])):
    part = jax.tree.map(lambda leaf, chosen=chosen: np.asarray(leaf)[chosen], inputs)
    for name, term in terms_of(part, keys[chosen], samples=2).items():
      np.testing.assert_allclose(term, terms[name][chosen], rtol=1e-12, err_msg=name)
  moved = terms_of(inputs, keys.at[0].set(keys_of(1, seed=9)[0]), samples=2)
  for name in SAMPLED:
    np.testing.assert_array_equal(moved[name] == terms[name], [False, True, True])


def correlation(left, right):
  return abs(np.corrcoef(np.asarray(left), np.asarray(right))[0, 1])


def test_posterior_and_prior_are_sampled_apart():
  """Equal Gaussians for both, so that shared noise of vertices or camera would show."""
  inputs = elbo_hands.random_inputs(seed=3)
  inputs = repeated(inputs._replace(prior=inputs.posterior))
  for still in ('sampling_scale', 'camera_sampling_scale'):
    terms = terms_of(inputs, camera_draws='two', **{still: 0.0})
    posterior, prior = (terms[name] for name in SAMPLED)
    assert posterior.std() > 0.1
    assert correlation(posterior, prior) < 4 / np.sqrt(MANY)


def test_one_camera_is_drawn_for_both_branches():
  """Algorithm 2, step 5: its noise is one, that of the vertices is not."""
  inputs = elbo_hands.random_inputs(seed=3)
  inputs = repeated(inputs._replace(prior=inputs.posterior))
  terms = terms_of(inputs, sampling_scale=0.0, samples=2)
  assert terms['joints_2d_nll'].std() > 0.1
  np.testing.assert_array_equal(*(terms[name] for name in SAMPLED))
  terms = terms_of(inputs, camera_sampling_scale=0.0)
  assert correlation(*(terms[name] for name in SAMPLED)) < 4 / np.sqrt(MANY)


def test_vertices_and_camera_are_sampled_apart():
  """With one noise for both, moving the camera along a vertex's error would cancel it."""
  inputs = repeated(elbo_hands.random_inputs(seed=3))
  camera, vertices = (
    terms_of(inputs, **{still: 0.0})['joints_2d_nll']
    for still in ('sampling_scale', 'camera_sampling_scale')
  )
  assert correlation(camera, vertices) < 4 / np.sqrt(MANY)


# Number of samples and their scales.


def test_samples_are_averaged_and_independent():
  """A mean of two draws, each its own: the same expectation, half of the variance."""
  count = 2
  inputs = repeated(elbo_hands.random_inputs(seed=4, camera_log_variance=-7.0))
  one = terms_of(inputs)
  more = terms_of(inputs, keys_of(MANY, seed=1), samples=count)
  for name in SAMPLED:
    error = one[name].std() / np.sqrt(MANY)
    assert abs(one[name].mean() - more[name].mean()) < 4 * error
    # Draws that repeat would leave more variance; the ratio's own error is below a tenth of it.
    np.testing.assert_allclose(more[name].var() * count, one[name].var(), rtol=0.25)
  for name in set(one) - set(SAMPLED):
    np.testing.assert_allclose(more[name], one[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_scales_of_zero_give_the_value_at_the_means(convention):
  inputs = elbo_hands.random_inputs(FEW)
  still = {'sampling_scale': 0.0, 'camera_sampling_scale': 0.0}
  # Samples are the same loop in either convention.
  samples = 2 if convention == 'exact' else 1
  terms = terms_of(inputs, convention=convention, samples=samples, **still)
  for name, branch in zip(SAMPLED, ('posterior', 'prior'), strict=True):
    expected = naive_nll(inputs, branch, np.zeros((VERTICES, 3)), np.zeros(10), convention)
    np.testing.assert_allclose(terms[name][0], expected, rtol=1e-9)


def widened(gaussian, factor):
  return DiagonalGaussian(gaussian.mean, gaussian.log_variance + 2 * np.log(factor))


def test_a_scale_of_sampling_is_that_of_the_deviation():
  """In `exact`, where a deviation has no other part in the likelihood, and at the same keys."""
  inputs = elbo_hands.random_inputs(FEW)
  factor = 0.3
  for settings, wider in (
    ({'sampling_scale': factor}, ('posterior', 'prior')),
    ({'camera_sampling_scale': factor}, ('camera',)),
  ):
    changes = {name: widened(getattr(inputs, name), factor) for name in wider}
    expected = terms_of(inputs._replace(**changes))
    scaled, whole = terms_of(inputs, **settings), terms_of(inputs)
    for name in SAMPLED:
      np.testing.assert_allclose(scaled[name], expected[name], rtol=1e-10, err_msg=name)
      assert (scaled[name] != whole[name]).all()
    # The divergences know nothing of sampling.
    for name in ('vertices_kl', 'camera_kl'):
      np.testing.assert_allclose(scaled[name], whole[name], rtol=1e-12)


def test_the_settings_deviation_is_that_of_a_label():
  """`exact`: at the means, the likelihood's log term and the size of its squares."""
  inputs = elbo_hands.random_inputs(FEW)
  noise = np.zeros((FEW, VERTICES, 3)), np.zeros((FEW, 10))
  narrow, wide = (
    terms_at_noise(inputs, *noise, config_of(likelihood_sigma=tau)) for tau in (TAU, 2 * TAU)
  )
  weight = 2 * np.asarray(inputs.confidence).sum(axis=1)
  for name in SAMPLED:
    logs = [0.5 * weight * np.log(2 * np.pi * tau**2) for tau in (TAU, 2 * TAU)]
    np.testing.assert_allclose(4 * (wide[name] - logs[1]), narrow[name] - logs[0], rtol=1e-9)
