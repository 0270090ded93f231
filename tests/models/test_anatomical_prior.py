"""The prior that knows anatomy: its covariance, what it makes cheap, and networks with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.gaussian import gaussian_kl
from hand_jax.low_rank import low_rank_kl
from hand_jax.mano.anatomy import angles_to_pose, pose_to_angles
from hand_jax.mano.jacobian import hand_frame_derivatives
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.anatomical_prior import stated_deviations
from hand_jax.models.hand_network import create_network, initialize_network
from hand_jax.models.prior_net import hand_frame_vertices
from hand_jax.propagation import hand_gaussians
from hand_jax.types import DiagonalGaussian, HandParameters, LowRankGaussian

pytestmark = pytest.mark.slow

UNIT = 0.01
ANATOMICAL = ['model.prior_sigma=anatomical', 'loss.convention=exact']
INDEX_MCP = 0  # place of the joint in MANO's order, without the wrist
INDEX_TIP = 1  # place among the fingertips


def a_hand(model, seed=0):
  generator = np.random.default_rng(seed)
  pose = model.hands_mean + jnp.asarray(0.2 * generator.normal(size=45), jnp.float32)
  betas = jnp.asarray(generator.normal(size=10), jnp.float32)
  return HandParameters(jnp.zeros(3), pose, betas, jnp.zeros(3))


@jax.jit
def prior_of(model, hand):
  """The prior as its definition says."""
  mean = hand_frame_vertices(model, hand)
  factor = hand_frame_derivatives(model, hand) * stated_deviations(0.15, 10)[None, None]
  return LowRankGaussian(mean, jnp.full_like(mean, 2 * np.log(0.2 * UNIT)), factor)


@jax.jit
def bent_vertices(model, hand, degrees):
  """With the index finger's knuckle bent further."""
  angles = pose_to_angles(hand.hand_pose).at[INDEX_MCP, 0].add(degrees)
  return hand_frame_vertices(model, hand._replace(hand_pose=angles_to_pose(angles)))


compiled_kl, compiled_plain_kl = jax.jit(low_rank_kl), jax.jit(gaussian_kl)
compiled_gaussians = jax.jit(
  functools.partial(hand_gaussians, convention='exact', length_unit_m=UNIT)
)


def test_derivatives_are_those_by_angles_of_the_hand_frame(toy_model, float64):
  toy = jax.tree.map(
    lambda field: field.astype(jnp.float64) if field.dtype.kind == 'f' else field, toy_model
  )
  generator = np.random.default_rng(0)
  pose, betas = (jnp.asarray(0.3 * generator.normal(size=size)) for size in (45, 10))

  def vertices(angles, betas):
    pose = angles_to_pose(jnp.rad2deg(angles).reshape(15, 3))
    return hand_frame_vertices(toy, HandParameters(jnp.zeros(3), pose, betas, jnp.zeros(3)))

  angles = jnp.deg2rad(pose_to_angles(pose)).reshape(-1)
  by_angles, by_betas = jax.jit(jax.jacfwd(vertices, argnums=(0, 1)))(angles, betas)
  hand = HandParameters(jnp.zeros(3), pose, betas, jnp.zeros(3))
  found = jax.jit(hand_frame_derivatives)(toy, hand)
  # The axes are stored in single precision, so the way from pose to angles and back rounds.
  np.testing.assert_allclose(found[..., :45], by_angles, atol=1e-7)
  np.testing.assert_allclose(found[..., 45:], by_betas, atol=1e-9)
  assert np.abs(found[..., :45]).max() > 0.01


def test_deviations_are_shares_of_the_ranges_of_joints():
  deviations = np.rad2deg(stated_deviations(0.1, 10)[:45]).reshape(15, 3)
  # An index finger's knuckle bends over 125 degrees, leans over 45 and twists over 24.
  np.testing.assert_allclose(deviations[INDEX_MCP], [12.5, 4.5, 2.4], rtol=1e-5)
  np.testing.assert_array_equal(stated_deviations(0.1, 10)[45:], np.ones(10, np.float32))


def test_a_bent_finger_is_cheap_and_a_dent_is_dear(model):
  """One deviation of a knuckle against a dent of equal norm. sigma_v = 1 sees no difference."""
  prior = prior_of(model, a_hand(model))
  bend = np.asarray(prior.factor)[..., 3 * INDEX_MCP]
  dent = np.random.default_rng(0).normal(size=bend.shape).astype(np.float32)
  dent *= np.linalg.norm(bend) / np.linalg.norm(dent)
  unit = DiagonalGaussian(prior.mean, jnp.full_like(prior.mean, 2 * np.log(UNIT)))

  def costs(displacement):
    q = DiagonalGaussian(jnp.asarray(prior.mean + displacement), prior.own_log_variance)
    return np.asarray([compiled_kl(q, prior), compiled_plain_kl(q, unit).sum()])

  bend_cost, dent_cost = (costs(displacement) - costs(0.0) for displacement in (bend, dent))
  assert 0 < bend_cost[0] < 0.5
  assert dent_cost[0] > 1000 * bend_cost[0]
  np.testing.assert_allclose(bend_cost[1], dent_cost[1], rtol=1e-3)


def test_a_finite_bend_is_cheap_too(model):
  """Derivatives are those of straight lines. A bend of ten degrees follows its arc near enough."""
  hand = a_hand(model)
  prior = prior_of(model, hand)
  moved = bent_vertices(model, hand, 10.0)
  still, cost = (
    compiled_kl(DiagonalGaussian(mean, prior.own_log_variance), prior)
    for mean in (prior.mean, moved)
  )
  assert np.abs(moved - prior.mean).max() > 0.01
  # Half of 10 degrees over 18.75, squared, and what the arc departs from the line.
  assert 0 < cost - still < 5


@pytest.mark.parametrize('start', ['zero', 'bent'])
def test_the_divergence_has_the_slope_of_its_differences_in_pose_and_shape(
  start, toy_model, float64
):
  """The covariance moves with the hand. At zero angles the rotations' series take over."""
  toy = jax.tree.map(
    lambda field: field.astype(jnp.float64) if field.dtype.kind == 'f' else field, toy_model
  )
  generator = np.random.default_rng(0)
  bend = 0.3 if start == 'bent' else 0.0
  numbers = jnp.asarray(bend * generator.normal(size=55))
  mean = prior_of(toy, a_hand(toy)).mean
  q = DiagonalGaussian(mean, jnp.full_like(mean, 2 * np.log(0.2 * UNIT)))

  @jax.jit
  @jax.value_and_grad
  def divergence(numbers):
    hand = HandParameters(jnp.zeros(3), numbers[:45], numbers[45:], jnp.zeros(3))
    return low_rank_kl(q, prior_of(toy, hand))

  _, slope = divergence(numbers)
  assert np.isfinite(slope).all()
  for _ in range(3):
    direction = generator.normal(size=55)
    direction /= np.linalg.norm(direction)
    ahead, behind = (divergence(numbers + step * direction)[0] for step in (1e-5, -1e-5))
    np.testing.assert_allclose(slope @ direction, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize('name', ['vertices', 'joints', 'joints_normalized'])
def test_single_precision_suffices_for_a_whole_hand(name, model):
  """Also with the widest learned angles and a quarter of the usual own deviation."""
  prior = prior_of(model, a_hand(model))
  own = jnp.full_like(prior.mean, 2 * np.log(0.05 * UNIT))
  wide = prior._replace(own_log_variance=own, factor=prior.factor * np.exp(2))
  causes = jnp.asarray(np.random.default_rng(0).normal(size=55), jnp.float32)
  moved = DiagonalGaussian(wide.mean + wide.factor @ causes, own)
  camera = jnp.asarray([1.0, 0, 0, 0, 1, 0, 0, 0, 0, 0.7])
  p, q = (
    compiled_gaussians(vertices, camera, extended_joint_regressor(model))
    for vertices in (wide, moved)
  )
  p, q = getattr(p.correlated, name), getattr(q, name)
  factor = np.asarray(p.factor, np.float64).reshape(p.mean.size, -1)
  variance = np.exp(np.ravel(q.log_variance).astype(np.float64))
  own = np.exp(np.ravel(p.own_log_variance).astype(np.float64))
  difference = np.ravel(q.mean).astype(np.float64) - np.ravel(p.mean)
  # The covariance diag(own) + factor factor^T is inverted by Woodbury's identity in double
  # precision. That it is the dense one, tests/paper/test_low_rank.py shows.
  scaled = factor / own[:, None]
  inner = np.eye(factor.shape[1]) + factor.T @ scaled
  exact = difference / own - scaled @ np.linalg.solve(inner, scaled.T @ difference)
  precision = 1 / own - np.sum(scaled.T * np.linalg.solve(inner, scaled.T), axis=0)
  log_determinant = np.log(own).sum() + np.linalg.slogdet(inner)[1]
  log_ratio = log_determinant - np.log(variance).sum()
  distance = difference @ exact - difference.size
  expected = 0.5 * (precision @ variance + distance + log_ratio)
  found, slope = jax.jit(jax.value_and_grad(low_rank_kl))(q, p)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert np.linalg.norm(np.ravel(slope.mean) - exact) < 1e-2 * np.linalg.norm(exact)


@pytest.fixture(scope='module')
def networks(model):
  """The toy network with the stated and with the learned covariance, each with its estimate."""
  images = jnp.asarray(np.random.default_rng(1).standard_normal((2, 64, 64, 3), np.float32))

  def run(*texts):
    network = create_network(apply_overrides(get_config('toy'), [*ANATOMICAL, *texts]))
    apply = lambda variables: network.apply(variables, images, model, train=False)  # noqa: E731
    return network, apply

  stated, apply_stated = run()
  learned, apply_learned = run('model.anatomy.angle_deviations=learned')
  variables = initialize_network(learned, jax.random.key(0), model)
  own = jax.eval_shape(lambda: initialize_network(stated, jax.random.key(0), model))['params']
  # What else the networks draw does not depend on the deviations.
  shared = {**variables, 'params': {name: variables['params'][name] for name in own}}
  # Of the learned prior only the vertices are looked at.
  factor = jax.jit(lambda variables: apply_learned(variables).prior.correlated.vertices.factor)
  return jax.jit(apply_stated)(shared), variables, factor


def test_the_networks_prior_has_the_covariance_at_its_own_parameters(networks, model):
  estimate, _, _ = networks
  assert estimate.posterior.correlated is None
  whole = estimate.prior.correlated.vertices
  for example in range(2):
    hand = jax.tree.map(lambda leaf, at=example: leaf[at], estimate.parameters)
    expected = prior_of(model, hand)
    for name, values in expected._asdict().items():
      np.testing.assert_allclose(getattr(whole, name)[example], values, atol=1e-6, err_msg=name)
  sigma = np.exp(np.asarray(estimate.prior.vertices.log_variance[0]) / 2) / UNIT
  tip = int(model.fingertip_vertices[INDEX_TIP])
  assert sigma.min() >= 0.2 - 1e-4
  assert sigma[tip].max() > 1 > np.median(sigma)
  assert estimate.prior.correlated.joints_normalized.factor.shape == (2, 21, 2, 55)


def test_learned_deviations_start_near_the_stated_ones_and_are_bounded(networks):
  estimate, variables, factor = networks
  stated = estimate.prior.correlated.vertices.factor

  def ratios(variables):
    return np.linalg.norm(factor(variables), axis=(1, 2)) / np.linalg.norm(stated, axis=(1, 2))

  start = ratios(variables)
  np.testing.assert_allclose(start, 1, atol=0.3)
  assert np.abs(start[0] - start[1])[:45].max() > 1e-5
  output = variables['params']['anatomical_prior']['mlp']['output']
  output = {'kernel': jnp.zeros_like(output['kernel']), 'bias': output['bias'].at[:].set(1e6)}
  variables = jax.tree.map(lambda leaf: leaf, variables)
  variables['params']['anatomical_prior']['mlp']['output'] = output
  most = ratios(variables)
  np.testing.assert_allclose(most[:, :45], np.exp(2), rtol=1e-4)
  np.testing.assert_allclose(most[:, 45:], 1, rtol=1e-4)


def test_the_prior_of_printed_equations_is_refused():
  with pytest.raises(ValueError, match=r"expected loss\.convention='exact', got 'paper'"):
    apply_overrides(get_config('toy'), ['model.prior_sigma=anatomical', 'loss.convention=paper'])
  for name in ('angle_share', 'vertex_sigma'):
    with pytest.raises(ValueError, match=rf'model\.anatomy\.{name} should be positive, got 0'):
      apply_overrides(get_config('toy'), [*ANATOMICAL, f'model.anatomy.{name}=0'])
