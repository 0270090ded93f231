"""Rotations against SciPy, at their singular points, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.transform
from jax.test_util import check_grads

from hand_jax.geometry.rotations import (
  axis_angle_to_matrix,
  matrix_to_axis_angle,
  matrix_to_rotation_6d,
  mirror_axis_angle,
  rotation_6d_to_matrix,
)

Rotation = scipy.spatial.transform.Rotation
ANGLES = [0.0, 1e-9, 1e-5, 1e-3, 2e-3, 0.1, 1.0, 2.5, 3.0, np.pi - 1e-3, np.pi - 1e-5]


def axes(count: int) -> np.ndarray:
  vectors = np.random.default_rng(3).normal(size=(count, 3))
  return np.concatenate([vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.eye(3)])


@pytest.mark.parametrize('angle', [*ANGLES, 4.0, 6.2])
def test_axis_angle_to_matrix_is_scipys(angle):
  vectors = axes(20) * angle
  with jax.enable_x64(True):
    matrix = axis_angle_to_matrix(jnp.asarray(vectors, jnp.float64))
  np.testing.assert_allclose(matrix, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


def test_axis_angle_to_matrix_in_float32_keeps_single_precision():
  vectors = np.concatenate([axes(20) * angle for angle in ANGLES])
  matrix = axis_angle_to_matrix(jnp.asarray(vectors, jnp.float32))
  assert matrix.dtype == jnp.float32
  np.testing.assert_allclose(matrix, Rotation.from_rotvec(vectors).as_matrix(), atol=5e-7)


@pytest.mark.parametrize('angle', ANGLES)
def test_matrix_to_axis_angle_inverts_scipys_matrices(angle):
  vectors = axes(20) * angle
  with jax.enable_x64(True):
    matrix = jnp.asarray(Rotation.from_rotvec(vectors).as_matrix(), jnp.float64)
    result = matrix_to_axis_angle(matrix)
  np.testing.assert_allclose(result, vectors, atol=1e-9)


def test_matrix_to_axis_angle_at_a_half_turn_gives_the_axis_up_to_its_sign():
  vectors = axes(20) * np.pi
  matrix = Rotation.from_rotvec(vectors).as_matrix()
  with jax.enable_x64(True):
    result = np.array(matrix_to_axis_angle(jnp.asarray(matrix, jnp.float64)))
  np.testing.assert_allclose(np.linalg.norm(result, axis=1), np.pi, atol=1e-7)
  np.testing.assert_allclose(Rotation.from_rotvec(result).as_matrix(), matrix, atol=1e-7)


def test_matrix_to_axis_angle_in_float32_near_zero_and_pi():
  for angle in (1e-4, 0.05, 3.0, np.pi - 1e-2):
    vectors = axes(20) * angle
    matrix = jnp.asarray(Rotation.from_rotvec(vectors).as_matrix(), jnp.float32)
    # A float32 matrix fixes the vector to about its own rounding, 1e-7, nowhere singular.
    np.testing.assert_allclose(matrix_to_axis_angle(matrix), vectors, atol=2e-6)


@pytest.mark.slow
def test_axis_angle_wraps_to_the_shorter_way_round():
  result = matrix_to_axis_angle(axis_angle_to_matrix(jnp.asarray([0.0, 0.0, 4.0])))
  np.testing.assert_allclose(result, [0, 0, 4 - 2 * np.pi], atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize('angle', [0.0, 1e-4, 0.7, 3.1])
def test_gradients_of_axis_angle_to_matrix(angle):
  with jax.enable_x64(True):
    vector = jnp.asarray(axes(1)[0] * angle, jnp.float64)
    check_grads(
      jax.jit(axis_angle_to_matrix), (vector,), order=2, modes=['rev'], atol=1e-4, rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize('angle', [0.0, 1e-4, 0.7, 3.1])
def test_gradients_of_the_round_trip_are_the_identity(angle):
  vector = jnp.asarray(axes(1)[0] * angle, jnp.float32)
  jacobian = jax.jacrev(lambda x: matrix_to_axis_angle(axis_angle_to_matrix(x)))(vector)
  np.testing.assert_allclose(jacobian, np.eye(3), atol=1e-4)


def test_rotation_6d_stores_two_columns_and_reads_them_back():
  matrix = Rotation.from_rotvec(axes(10) * 2.0).as_matrix().astype(np.float32)
  stored = matrix_to_rotation_6d(jnp.asarray(matrix))
  np.testing.assert_array_equal(stored[:, :3], matrix[:, :, 0])
  np.testing.assert_array_equal(stored[:, 3:], matrix[:, :, 1])
  np.testing.assert_allclose(rotation_6d_to_matrix(stored), matrix, atol=1e-6)


def test_rotation_6d_of_any_numbers_is_a_rotation_of_the_first_direction():
  numbers = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
  matrix = np.asarray(rotation_6d_to_matrix(jnp.asarray(numbers)))
  np.testing.assert_allclose(
    np.swapaxes(matrix, -1, -2) @ matrix, np.broadcast_to(np.eye(3), (50, 3, 3)), atol=2e-6
  )
  np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=2e-6)
  first = numbers[:, :3] / np.linalg.norm(numbers[:, :3], axis=1, keepdims=True)
  np.testing.assert_allclose(matrix[:, :, 0], first, atol=1e-6)


@pytest.mark.slow
def test_rotation_6d_is_finite_where_it_is_undefined():
  for numbers in (jnp.zeros(6), jnp.asarray([1.0, 0, 0, 2, 0, 0])):
    jacobian = jax.jacrev(rotation_6d_to_matrix)(numbers)
    assert bool(jnp.all(jnp.isfinite(rotation_6d_to_matrix(numbers))))
    assert bool(jnp.all(jnp.isfinite(jacobian)))


def test_mirrored_axis_angle_is_the_rotation_seen_in_a_mirror():
  vectors = axes(10) * 1.3
  mirror = np.diag([-1.0, 1, 1])
  expected = mirror @ Rotation.from_rotvec(vectors).as_matrix() @ mirror
  mirrored = axis_angle_to_matrix(mirror_axis_angle(jnp.asarray(vectors, jnp.float32)))
  np.testing.assert_allclose(mirrored, expected, atol=1e-6)
