"""Folded programs: constants and loops over them are computed, one platform's form is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.extend import core

from hand_jax.exporting.folding import trace_folded
from hand_jax.models.layers import depthwise_conv
from hand_jax.models.vertex_regressor import spread_vertices

(BATCH,) = export.symbolic_shape('batch')
TEMPLATE = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)


def names(program):
  return [equation.primitive.name for equation in program.jaxpr.eqns]


def call(program, x):
  """The program holds the symbolic length, which an exported one gives its number."""
  argument = jax.ShapeDtypeStruct((BATCH, *x.shape[1:]), x.dtype)
  return export.export(jax.jit(core.jaxpr_as_fun(program)))(argument).call(x)


def numbers(*shape):
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_loops_over_constants_are_computed_and_those_over_inputs_stay():
  def function(x):
    chosen = spread_vertices(jnp.asarray(TEMPLATE), 5)
    looped = lax.fori_loop(0, 3, lambda _, y: jnp.sin(y), x)
    return x[:, chosen], looped

  program = trace_folded(function, [jax.ShapeDtypeStruct((BATCH, 30), np.float32)], 'cpu')
  assert names(program).count('while') + names(program).count('scan') == 1
  assert 'argmax' not in names(program)
  x = numbers(4, 30)
  chosen, looped = call(program, x)
  expected, state = [0], np.full(30, np.inf)
  while len(expected) < 5:  # farthest points in NumPy
    state = np.minimum(state, ((TEMPLATE - TEMPLATE[expected[-1]]) ** 2).sum(1))
    expected.append(int(state.argmax()))
  np.testing.assert_array_equal(chosen, x[:, expected])
  np.testing.assert_allclose(looped, np.sin(np.sin(np.sin(x))), rtol=1e-6)


@pytest.mark.parametrize('platform, convolutions', [('cpu', 0), ('cuda', 1), ('onnx', 1)])
def test_the_form_of_one_platform_is_chosen(platform, convolutions):
  kernel = jnp.asarray(numbers(3, 3, 1, 4))

  def function(x):
    return depthwise_conv(x, kernel, 1, ((1, 1), (1, 1)))

  program = trace_folded(function, [jax.ShapeDtypeStruct((BATCH, 6, 6, 4), np.float32)], platform)
  assert names(program).count('conv_general_dilated') == convolutions
  assert not {'platform_index', 'cond', 'jit', 'pjit', 'custom_vjp_call'} & set(names(program))
  x = numbers(2, 6, 6, 4)
  found = call(program, x)[0]
  np.testing.assert_allclose(found, function(jnp.asarray(x)), atol=1e-5)


def test_what_no_result_needs_is_left_out_and_unknown_platforms_are_refused():
  def function(x):
    lax.sort(x)
    return jnp.exp(x), jnp.broadcast_to(jnp.cos(2.0), x.shape)

  program = trace_folded(function, [jax.ShapeDtypeStruct((BATCH,), np.float32)], 'cpu')
  assert names(program) == ['exp', 'broadcast_in_dim']

  def needs_tpu(x):
    return lax.platform_dependent(x, tpu=jnp.sin)

  with pytest.raises(ValueError, match="no code for the platform 'cpu'"):
    trace_folded(needs_tpu, [jax.ShapeDtypeStruct((BATCH,), np.float32)], 'cpu')
