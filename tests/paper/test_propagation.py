"""Joints and projections as Gaussians: loops, full covariances, Jensen's bounds, units, errata."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.spatial.transform import Rotation

from hand_jax import propagation
from hand_jax.gaussian import linearize_gaussian, sample_gaussian, scale_gaussian
from hand_jax.geometry import cameras
from hand_jax.types import DiagonalGaussian, HandGaussians
from tests.reference import losses as reference

VERTICES, JOINTS = 12, 4
CONVENTIONS = ['paper', 'exact']


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('float64')]


few_examples = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


def regressor(seed=0, joints=JOINTS, vertices=VERTICES):
  """Rows that are weights, as a joint regressor's: non-negative, sum one; the last one-hot."""
  rows = np.random.default_rng(seed).dirichlet(np.ones(vertices), joints)
  rows[-1] = np.eye(vertices)[3]
  return jnp.asarray(rows)


def random_vertices(seed=1, vertices=VERTICES):
  """A hand of some centimetres with sigmas round a centimetre, in metres."""
  generator = np.random.default_rng(seed)
  mean = generator.normal(scale=0.05, size=(vertices, 3))
  sigma = 0.01 * np.exp(generator.normal(scale=0.5, size=(vertices, 3)))
  return DiagonalGaussian(jnp.asarray(mean), jnp.asarray(2 * np.log(sigma)))


def rotation_of(seed):
  return Rotation.random(rng=np.random.default_rng(seed)).as_matrix()


def camera_vector(rotation, translation=(0.1, -0.2, 0.6), scale_per_metre=8.0):
  stored = cameras.rotation_to_stored(np.asarray(rotation))
  return jnp.asarray(np.concatenate([stored, translation, [0.1 * scale_per_metre]]))


compiled_gaussians = jax.jit(
  propagation.hand_gaussians, static_argnames=('convention', 'length_unit_m')
)


def propagate(vertices, camera, convention, unit=0.01, matrix=None) -> HandGaussians:
  matrix = regressor() if matrix is None else matrix
  return compiled_gaussians(vertices, camera, matrix, convention=convention, length_unit_m=unit)


@pytest.mark.parametrize('convention', CONVENTIONS)
@pytest.mark.parametrize('unit', [0.001, 0.01, 1.0])
def test_moments_are_those_of_the_loops(convention, unit):
  vertices, rotation = random_vertices(), rotation_of(2)
  result = propagate(vertices, camera_vector(rotation), convention, unit)
  sigma = np.exp(0.5 * vertices.log_variance)
  expected = reference.branch_moments(
    np.asarray(vertices.mean) / unit,
    sigma / unit,
    np.asarray(regressor()),
    8.0 * unit,
    rotation,
    (0.1, -0.2),
    convention,
  )
  joints = scale_gaussian(result.joints, 1 / unit)
  for name, g in (('joints', joints), ('joints_2d', result.joints_normalized)):
    np.testing.assert_allclose(g.mean, expected[name][0], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(np.exp(0.5 * g.log_variance), expected[name][1], rtol=1e-10)
  for found, given in zip(result.vertices, vertices, strict=True):
    np.testing.assert_array_equal(found, given)


def test_exact_variances_are_marginals_of_the_linear_map():
  """The projection is affine in the vertices, so first order is everything."""
  vertices, camera = random_vertices(), camera_vector(rotation_of(3))
  result = propagate(vertices, camera, 'exact')
  named = cameras.camera_from_vector(camera)
  project = lambda v: cameras.project_points(named, regressor() @ v)  # noqa: E731
  expected = jax.jit(functools.partial(linearize_gaussian, project))(vertices)
  np.testing.assert_allclose(result.joints_normalized.mean, expected.mean, atol=1e-12)
  np.testing.assert_allclose(
    result.joints_normalized.log_variance, expected.log_variance, rtol=1e-10
  )


def test_exact_variances_are_those_of_samples():
  vertices, camera = random_vertices(), camera_vector(rotation_of(4))
  result = propagate(vertices, camera, 'exact')
  keys = jax.random.split(jax.random.key(0), 20000)
  named = cameras.camera_from_vector(camera)

  def draw(key):
    joints = regressor() @ sample_gaussian(key, vertices)
    return joints, cameras.project_points(named, joints)

  joints, projected = map(np.asarray, jax.jit(jax.vmap(draw))(keys))
  for values, g in ((joints, result.joints), (projected, result.joints_normalized)):
    # A sample variance deviates by sqrt(2 / n), here 1 %.
    np.testing.assert_allclose(values.var(axis=0), np.exp(g.log_variance), rtol=0.045)


@few_examples
@hypothesis.given(st.integers(0, 10_000))
def test_erratum_2_b_sigma_bounds_both_extremes_from_above(seed):
  """B v (B applied to variances) exceeds the variance of independent and of fully correlated V."""
  generator = np.random.default_rng(seed)
  matrix = regressor(seed)
  variance = np.exp(generator.normal(scale=2.0, size=(VERTICES, 3)))
  vertices = DiagonalGaussian(jnp.zeros((VERTICES, 3)), jnp.asarray(np.log(variance)))
  letter = np.asarray(matrix @ variance)
  camera = camera_vector(np.eye(3))
  independent = np.exp(propagate(vertices, camera, 'exact', matrix=matrix).joints.log_variance)
  correlated = np.exp(propagate(vertices, camera, 'paper', matrix=matrix).joints.log_variance)
  np.testing.assert_allclose(correlated, (matrix @ np.sqrt(variance)) ** 2, rtol=1e-10)
  tolerance = 1 + 1e-12
  assert (independent <= correlated * tolerance).all()
  assert (correlated <= letter * tolerance).all()


def test_erratum_2_b_sigma_ignores_averaging():
  """The mean of a hundred independent vertices is ten times surer than one; B sigma is not."""
  matrix = jnp.full((1, 100), 0.01)
  vertices = DiagonalGaussian(jnp.zeros((100, 3)), jnp.full((100, 3), 2 * np.log(0.01)))
  camera = camera_vector(np.eye(3))
  exact = propagate(vertices, camera, 'exact', matrix=matrix).joints
  letter = propagate(vertices, camera, 'paper', matrix=matrix).joints
  keys = jax.random.split(jax.random.key(1), 2000)
  draw = jax.jit(jax.vmap(lambda key: matrix @ sample_gaussian(key, vertices)))
  samples = np.asarray(draw(keys))
  np.testing.assert_allclose(np.exp(0.5 * exact.log_variance), 0.001, rtol=1e-10)
  np.testing.assert_allclose(samples.std(axis=0), 0.001, rtol=0.06)
  np.testing.assert_allclose(np.exp(0.5 * letter.log_variance), 0.01, rtol=1e-10)


def letter_of_equation_17(sigma, rotation, translation, scale, matrix):
  return (scale * matrix @ sigma @ rotation + translation)[:, :2]


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_erratum_3_the_letter_gives_negative_sigmas_for_a_half_turn(convention):
  vertices = random_vertices()
  half_turn = np.diag([-1.0, -1.0, 1.0])
  sigma = np.exp(0.5 * vertices.log_variance)
  letter = letter_of_equation_17(sigma, half_turn, np.zeros(3), 8.0, np.asarray(regressor()))
  assert (letter < 0).all()
  with np.errstate(invalid='ignore'):
    assert np.isnan(np.log(letter)).all()
  turned = propagate(vertices, camera_vector(half_turn), convention).joints_normalized
  straight = propagate(vertices, camera_vector(np.eye(3)), convention).joints_normalized
  np.testing.assert_allclose(turned.log_variance, straight.log_variance, rtol=1e-12)


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_erratum_3_translation_shifts_and_scale_squares(convention):
  vertices, rotation = random_vertices(), rotation_of(5)
  sigma = np.exp(0.5 * vertices.log_variance)
  matrix = np.asarray(regressor())
  letter = letter_of_equation_17(sigma, rotation, np.zeros(3), 8.0, matrix)
  moved_letter = letter_of_equation_17(sigma, rotation, np.ones(3), 8.0, matrix)
  assert (np.abs(moved_letter - letter) > 0.9).all()

  base = propagate(vertices, camera_vector(rotation, (0, 0, 1)), convention).joints_normalized
  moved = propagate(vertices, camera_vector(rotation, (1, 1, 2)), convention).joints_normalized
  zoomed = propagate(vertices, camera_vector(rotation, (0, 0, 1), 16.0), convention)
  np.testing.assert_array_equal(moved.log_variance, base.log_variance)
  np.testing.assert_allclose(moved.mean, base.mean + 1, rtol=1e-12)
  np.testing.assert_allclose(
    zoomed.joints_normalized.log_variance, base.log_variance + np.log(4), rtol=1e-12
  )


@few_examples
@hypothesis.given(st.integers(0, 10_000))
def test_equal_variances_stay_equal_under_rotation(seed):
  vertices = random_vertices()._replace(log_variance=jnp.full((VERTICES, 3), -9.0))
  turned = propagate(vertices, camera_vector(rotation_of(seed)), 'exact').joints_normalized
  straight = propagate(vertices, camera_vector(np.eye(3)), 'exact').joints_normalized
  np.testing.assert_allclose(turned.log_variance, straight.log_variance, rtol=1e-12)


@few_examples
@hypothesis.given(st.floats(0.2, 5), st.sampled_from([0.001, 0.01, 1.0]))
def test_exact_follows_a_change_of_scene_size_and_ignores_the_unit(factor, unit):
  """A hand twice as large seen at half the scale is the same picture."""
  vertices, rotation = random_vertices(), rotation_of(6)
  base = propagate(vertices, camera_vector(rotation), 'exact')
  larger = propagate(
    scale_gaussian(vertices, factor),
    camera_vector(rotation, scale_per_metre=8.0 / factor),
    'exact',
    unit,
  )
  for value, expected in zip(larger.joints_normalized, base.joints_normalized, strict=True):
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)
  expected = base.joints.log_variance + 2 * np.log(factor)
  np.testing.assert_allclose(larger.joints.log_variance, expected, rtol=1e-9)


def test_paper_projection_depends_on_the_unit():
  """B sigma in a variance's place: its square root grows with the root of the unit."""
  vertices, camera = random_vertices(), camera_vector(rotation_of(7))
  centimetre = propagate(vertices, camera, 'paper', 0.01)
  metre = propagate(vertices, camera, 'paper', 1.0)
  np.testing.assert_allclose(metre.joints.log_variance, centimetre.joints.log_variance)
  np.testing.assert_allclose(
    metre.joints_normalized.log_variance - centimetre.joints_normalized.log_variance,
    np.log(100),
    rtol=1e-10,
  )


@pytest.mark.parametrize('convention', CONVENTIONS)
@pytest.mark.parametrize('scale', [0.0, -1e-4])
def test_a_vanishing_scale_keeps_values_and_gradients_finite(convention, scale):
  camera = camera_vector(rotation_of(8), scale_per_metre=scale)

  def total(vertices, camera):
    leaves = jax.tree.leaves(propagate(vertices, camera, convention))
    return sum(leaf.sum() for leaf in leaves)

  value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(random_vertices(), camera)
  assert np.isfinite(value)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
  smallest = camera_vector(rotation_of(8), scale_per_metre=propagation.MIN_SCALE_PER_M)
  np.testing.assert_allclose(
    propagate(random_vertices(), camera, convention).joints_normalized.log_variance,
    propagate(random_vertices(), smallest, convention).joints_normalized.log_variance,
  )


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_a_batch_by_vmap_is_each_hand(convention):
  hands = [random_vertices(seed) for seed in range(3)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *hands)
  vectors = jnp.stack([camera_vector(rotation_of(seed)) for seed in range(3)])
  batch = jax.jit(jax.vmap(lambda v, c: propagate(v, c, convention)))(stacked, vectors)
  one = propagate(hands[1], vectors[1], convention)
  for value, expected in zip(jax.tree.leaves(batch), jax.tree.leaves(one), strict=True):
    np.testing.assert_allclose(value[1], expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_gradients_to_second_order(convention):
  # Lengths of order one, so that finite differences have digits.
  vertices = scale_gaussian(random_vertices(), 20.0)

  def total(vertices, camera):
    result = propagate(vertices, camera, convention)
    return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(result[1:]))

  camera = camera_vector(rotation_of(9), scale_per_metre=5.0)
  total = jax.jit(total)
  check_grads(total, (vertices, camera), order=1, modes=['rev'], rtol=1e-4, atol=1e-4)
  check_grads(total, (vertices, camera), order=2, modes=['fwd'], rtol=1e-3, atol=1e-3)


def test_refuses_an_unknown_convention():
  with pytest.raises(Exception, match='paper'):
    propagate(random_vertices(), camera_vector(np.eye(3)), 'letter')
