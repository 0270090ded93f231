"""The closed-form derivatives of the MANO layer against automatic ones of `mano_forward`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.mano.jacobian import mano_derivatives, posed_joints
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.types import HandParameters

pytestmark = pytest.mark.slow


@pytest.fixture
def toy_hand(toy_model, float64):
  """In double precision. Its pose blend shapes are not zero, unlike the free hand's."""
  return jax.tree.map(
    lambda field: field.astype(jnp.float64) if field.dtype.kind == 'f' else field, toy_model
  )


def parameters(size, seed=0):
  rng = np.random.default_rng(seed)
  return HandParameters(*(jnp.asarray(size * rng.normal(size=n)) for n in (3, 45, 10, 3)))


@pytest.mark.parametrize('size', [0.0, 1e-5, 3e-3, 0.5, 2.0])
def test_vertices_and_derivatives_are_those_of_the_forward_pass(size, toy_hand):
  hand = parameters(size)
  mesh = mano_derivatives(toy_hand, hand)
  expected = jax.jacfwd(lambda hand: mano_forward(toy_hand, hand).vertices)(hand)
  np.testing.assert_allclose(mesh.vertices, mano_forward(toy_hand, hand).vertices, atol=1e-14)
  numbers = jnp.concatenate(expected[:3], axis=-1)
  # Series near zero leave terms of the order of angle^4.
  np.testing.assert_allclose(mesh.derivatives, numbers, atol=1e-11)


def test_joints_and_their_forward_derivatives(toy_hand):
  hand, change = parameters(0.5), parameters(1.0, seed=1)

  def reference(hand):
    return regress_joints(toy_hand, mano_forward(toy_hand, hand).vertices)

  value, slope = jax.jvp(lambda hand: posed_joints(toy_hand, hand), (hand,), (change,))
  expected_value, expected_slope = jax.jvp(reference, (hand,), (change,))
  np.testing.assert_allclose(value, expected_value, atol=1e-14)
  np.testing.assert_allclose(slope, expected_slope, atol=1e-14)
  assert float(jnp.abs(slope).max()) > 0.01
