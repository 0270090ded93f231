"""The tests' own way of checking parameters: once traced, and as strict as Flax's."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError


def test_an_initialiser_is_traced_once_for_each_shape():
  traced = []

  def draw(key, shape):
    traced.append(shape)
    return jnp.ones(shape)

  module = nn.Dense(3, kernel_init=lambda key, shape, dtype: draw(key, shape))
  params = {'kernel': np.ones((4, 3), np.float32), 'bias': np.zeros(3, np.float32)}
  for _ in range(2):
    np.testing.assert_array_equal(module.apply({'params': params}, np.ones((1, 4))), 4)
  assert traced == [(4, 3)]
  with pytest.raises(ScopeParamShapeError, match='kernel'):
    module.apply({'params': params}, np.ones((1, 5)))
  with pytest.raises(ScopeParamNotFoundError, match='bias'):
    module.apply({'params': {'kernel': params['kernel']}}, np.ones((1, 4)))
