"""Rotations, scales and shifts that carry points to points, against scipy and least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_jax.geometry.alignment import fit_scale_and_shift, quaternion_to_matrix, rotation_between

fit_rotation = jax.jit(rotation_between)


def pairs(kind, count=6, points=21):
  """Centred points and a turned, noisy copy of them, about as large as a hand in metres."""
  rng = np.random.default_rng(0)
  source = rng.normal(scale=0.04, size=(count, points, 3))
  if kind == 'flat':
    source[..., 2] = 0
  source -= source.mean(axis=1, keepdims=True)
  turns = Rotation.random(count, rng=rng)
  target = np.einsum('bij,bnj->bni', turns.as_matrix(), source)
  if kind == 'mirrored':
    target[..., 2] *= -1
  if kind != 'exact':
    target += rng.normal(scale=0.01, size=target.shape)
    target -= target.mean(axis=1, keepdims=True)
  return source.astype(np.float32), target.astype(np.float32)


@pytest.mark.parametrize('kind', ['exact', 'noisy', 'flat', 'mirrored'])
def test_rotation_is_that_of_the_singular_value_decomposition(kind):
  source, target = pairs(kind)
  found = np.asarray(fit_rotation(source, target))
  for turned, one, other in zip(found, source, target, strict=True):
    expected = Rotation.align_vectors(other, one)[0].as_matrix()
    np.testing.assert_allclose(turned, expected, atol=1e-3 if kind == 'mirrored' else 1e-4)


def test_rotations_are_proper_and_half_turns_are_found():
  source, _ = pairs('exact', count=3)
  half_turns = np.stack([np.diag(signs) for signs in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1])])
  found = fit_rotation(source, np.einsum('bij,bnj->bni', half_turns, source).astype(np.float32))
  np.testing.assert_allclose(found, half_turns, atol=1e-5)
  mirrored = np.asarray(fit_rotation(*pairs('mirrored')))
  np.testing.assert_allclose(np.linalg.det(mirrored), 1, atol=1e-5)


def test_points_that_all_lie_in_one_place_give_a_rotation_still():
  found = np.asarray(fit_rotation(np.zeros((1, 21, 3), np.float32), pairs('exact', count=1)[1]))
  np.testing.assert_allclose(found[0] @ found[0].T, np.eye(3), atol=1e-5)


def test_quaternions_of_any_length_and_either_sign():
  turns = Rotation.random(5, rng=np.random.default_rng(1))
  x, y, z, w = turns.as_quat().T
  quaternions = np.stack([w, x, y, z], axis=-1).astype(np.float32)
  for factor in (1.0, -3.0):
    np.testing.assert_allclose(
      quaternion_to_matrix(jnp.asarray(factor * quaternions)), turns.as_matrix(), atol=1e-6
    )


def test_scale_and_shift_are_those_of_least_squares():
  rng = np.random.default_rng(2)
  source = rng.normal(size=(4, 21, 2))
  target = 3 * source + rng.normal(size=(4, 1, 2)) + rng.normal(scale=0.3, size=source.shape)
  scale, shift = fit_scale_and_shift(
    jnp.asarray(source, jnp.float32), jnp.asarray(target, jnp.float32)
  )
  for number in range(4):
    # Unknowns: one scale, two shifts; a row for each coordinate.
    rows = [[point[axis], axis == 0, axis == 1] for point in source[number] for axis in (0, 1)]
    expected = np.linalg.lstsq(np.asarray(rows, float), target[number].ravel(), rcond=None)[0]
    np.testing.assert_allclose([scale[number], *shift[number]], expected, atol=1e-5)


def test_scale_stays_positive_where_points_run_the_other_way():
  source = jnp.asarray(pairs('exact')[0])
  scale, _ = fit_scale_and_shift(source, -source)
  assert (np.asarray(scale) > 0).all() and (np.asarray(scale) < 0.01).all()


def test_a_batch_of_any_size_can_be_exported():
  (batch,) = jax.export.symbolic_shape('batch')
  points = jax.ShapeDtypeStruct((batch, 21, 3), jnp.float32)
  exported = jax.export.export(fit_rotation)(points, points)
  source, target = pairs('noisy', count=3)
  np.testing.assert_allclose(exported.call(source, target), fit_rotation(source, target), atol=1e-6)
