"""ONNX operators: programs of few operations, computed by ONNX Runtime and by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from hand_jax.geometry.alignment import rotation_between
from hand_jax.models.layers import max_pool
from hand_jax.models.map_sampling import sample_bilinear

onnxruntime = pytest.importorskip('onnxruntime', reason='comes with the extra `onnx`')
from hand_jax.exporting.to_onnx.program import onnx_program  # noqa: E402

(BATCH,) = export.symbolic_shape('batch')
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(5, 4, 3)).astype(np.float32)
ROWS = np.array([3, 0, 3])


def bent(x):
  return jnp.where(x < 0, jnp.log1p(jnp.exp(x)), x**-3 + lax.rsqrt(x * x + 1) - jnp.abs(x))


def products(x):
  left = jnp.einsum('kij,bki->bjk', TABLE, x)
  both = jnp.einsum('bjk,bki->bij', left, x)
  return left, both, jnp.einsum('bki,kij->kjb', x, TABLE), jnp.einsum('bki,bki->b', x, x)


def rows(x):
  return x[:, ROWS], x[:, :, 1], x[:, 1:4], x[:, ::2], x[..., ::-1], x[:, ROWS[:2], ROWS[1:]]


def joined(x):
  # A constant for every example, beside what belongs to each.
  repeated = jnp.broadcast_to(jnp.asarray(TABLE)[None, 0], (x.shape[0], 4, 3))
  stacked = jnp.stack([x[:, 0], jnp.full((x.shape[0], 4), 2.0)], axis=1)
  return (
    jnp.concatenate([x[..., :3], repeated], axis=1),
    stacked,
    jnp.pad(x, ((0, 0), (1, 2), (0, 1))),
  )


def parted(x):
  return *jnp.unstack(x, axis=1), *jnp.unstack(x, axis=2)


def sums(x):
  return x.sum((0, 2)), jax.nn.softmax(x, axis=1), x.max(-1), jnp.argmax(x, axis=1), x.mean(axis=1)


def replaced(x):
  return x.at[:, ROWS[:2]].set(2 * x[:, :2])


def folded_axes(x):
  return x.reshape(-1, 4), x.transpose(2, 0, 1), x.reshape(-1, 2, 10)[:, None]


def repeated(x, rows):
  return jnp.broadcast_to(x[:, None], (x.shape[0], rows, *x.shape[1:]))


def pooled(x):
  kernel = np.arange(36, dtype=np.float32).reshape(3, 3, 1, 4) / 36
  settings = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'feature_group_count': 4}
  image = repeated(x, 5)
  convolved = lax.conv_general_dilated(image, kernel, (2, 1), ((0, 1), (1, 1)), **settings)
  return convolved, max_pool(image)


def sampled(x):
  return sample_bilinear(repeated(x, 6), jnp.tanh(x[..., :2]))


def turned(x):
  return rotation_between(x[..., :3], jnp.sin(3 * x[..., 1:]))


FUNCTIONS = [
  bent,
  products,
  rows,
  joined,
  parted,
  sums,
  replaced,
  folded_axes,
  pooled,
  sampled,
  turned,
]


def run_onnx(function, *arrays):
  inputs = {
    f'input_{number}': jax.ShapeDtypeStruct((BATCH, *array.shape[1:]), array.dtype)
    for number, array in enumerate(arrays)
  }

  def named(*arguments):
    found = function(*arguments)
    found = found if isinstance(found, tuple) else (found,)
    return {f'output_{number}': array for number, array in enumerate(found)}

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = 1
  session = onnxruntime.InferenceSession(
    onnx_program(named, inputs), options, providers=['CPUExecutionProvider']
  )
  found = session.run(None, dict(zip(inputs, arrays, strict=True)))
  return dict(zip((output.name for output in session.get_outputs()), found, strict=True)), named


@pytest.mark.parametrize('function', FUNCTIONS, ids=lambda function: function.__name__)
def test_onnx_runtime_computes_what_jax_does(function):
  x = RNG.normal(size=(3, 5, 4)).astype(np.float32)
  found, named = run_onnx(function, x)
  for name, expected in named(jnp.asarray(x)).items():
    assert found[name].dtype == expected.dtype and found[name].shape == expected.shape
    np.testing.assert_allclose(found[name], expected, atol=2e-5, rtol=2e-5)


def test_choices_of_bytes_by_a_flag_of_each_example():
  def function(x, flags):
    return jnp.where(flags[:, None], x[:, ::-1], x).astype(jnp.float32) / 3

  x, flags = RNG.integers(0, 256, (3, 4), np.uint8), np.array([True, False, True])
  found, _ = run_onnx(function, x, flags)
  expected = np.where(flags[:, None], x[:, ::-1], x) / np.float32(3)
  np.testing.assert_allclose(found['output_0'], expected, rtol=1e-6)


def test_unknown_operations_are_refused_by_name():
  with pytest.raises(ValueError, match="operation 'cumsum' of JAX cannot be written to ONNX"):
    run_onnx(lambda x: jnp.cumsum(x, axis=1), np.ones((2, 3), np.float32))
