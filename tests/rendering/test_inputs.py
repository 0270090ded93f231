"""What the rendering functions take: kinds of numbers, and errors that name what is wrong."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.rendering.inputs import checked_mesh
from hand_jax.rendering.rasterize import rasterize, visible_vertices
from hand_jax.rendering.soft import soft_blend, soft_silhouette
from hand_jax.rendering.surfaces import interpolate

_TRIANGLE = np.array([[[1, 1, 2], [8, 2, 3], [3, 8, 4]]])
_FACES = np.array([[0, 1, 2]])
# As users have them: without the checks of annotations, which only tests run with.
_rasterize, _visible, _interpolate, _silhouette, _blend = map(
  inspect.unwrap, (rasterize, visible_vertices, interpolate, soft_silhouette, soft_blend)
)
_FUNCTIONS = {
  'rasterize': lambda vertices, faces: _rasterize(vertices, faces, 9, 9),
  'visible_vertices': lambda vertices, faces: _visible(vertices, faces, 9, 9),
  'soft_silhouette': lambda vertices, faces: _silhouette(vertices, faces, 9, 9, 1.0),
  'soft_blend': lambda vertices, faces: _blend(vertices, faces, _TRIANGLE, 0, 9, 9, 1.0, 0.1),
}


@pytest.mark.parametrize('name', _FUNCTIONS)
@pytest.mark.parametrize(
  'vertices, faces, message',
  [
    (_TRIANGLE[0], _FACES, r'vertices_image has shape \(3, 3\), expected \(batch, vertices, '),
    (_TRIANGLE[..., :1], _FACES, r'shape \(1, 3, 1\), expected \(batch, vertices, (2 or )?3\)'),
    (_TRIANGLE + 1j, _FACES, 'vertices_image holds complex128, expected real numbers'),
    (_TRIANGLE > 2, _FACES, 'vertices_image holds bool, expected real numbers'),
    (_TRIANGLE, _FACES[0], r'faces has shape \(3,\), expected \(faces, 3\)'),
    (_TRIANGLE, _FACES[:, :2], r'faces has shape \(1, 2\), expected \(faces, 3\)'),
    (_TRIANGLE, _FACES * 1.0, 'faces holds float64, expected integers'),
    (_TRIANGLE, _FACES + 1, 'vertices 1 to 3, expected ids from 0 to 2: there are 3 vertices'),
    (_TRIANGLE, jnp.asarray(_FACES) - 1, 'faces names vertices -1 to 1, expected ids from 0 to 2'),
  ],
)
def test_a_mesh_that_is_none_is_named(name, vertices, faces, message):
  with pytest.raises(ValueError, match=message):
    _FUNCTIONS[name](vertices, faces)


@pytest.mark.parametrize('name', ['rasterize', 'visible_vertices', 'soft_blend'])
def test_depth_is_missed_where_it_is_needed(name):
  with pytest.raises(ValueError, match=r'shape \(1, 3, 2\), expected \(batch, vertices, 3\)'):
    _FUNCTIONS[name](_TRIANGLE[..., :2], _FACES)


def test_ids_are_checked_within_a_traced_function_where_they_are_known():
  vertices = jnp.asarray(_TRIANGLE, jnp.float32)
  with pytest.raises(ValueError, match='faces names vertices 5 to 7'):
    jax.eval_shape(lambda vertices: rasterize(vertices, _FACES + 5, 9, 9), vertices)
  jax.eval_shape(lambda faces: rasterize(vertices, faces, 9, 9), _FACES)


def test_attributes_of_another_mesh_are_named():
  fragments = rasterize(_TRIANGLE, _FACES, 9, 9)
  with pytest.raises(ValueError, match='faces names vertices 0 to 2, expected ids from 0 to 1'):
    _interpolate(fragments, _FACES, np.ones((1, 2, 5)))
  with pytest.raises(ValueError, match=r'attributes has shape \(4, 3, 5\), expected a batch of 1'):
    _interpolate(fragments, _FACES, np.ones((4, 3, 5)))
  with pytest.raises(ValueError, match=r'attributes has shape \(3, 5\), expected \(batch, '):
    _interpolate(fragments, _FACES, np.ones((3, 5)))


@pytest.mark.parametrize('colors', [np.ones((1, 4, 3)), np.ones((2, 3, 3)), np.ones((3, 3))])
def test_colors_of_another_mesh_are_named(colors):
  with pytest.raises(ValueError, match=r'colors has shape .*, expected \((batch|1, 3), '):
    _blend(_TRIANGLE, _FACES, colors, 0, 9, 9, 1.0, 0.1)


@functools.cache
def _drawn(name, dtype):
  function = _FUNCTIONS[name]
  return [np.asarray(value) for value in jax.tree.leaves(function(dtype(_TRIANGLE), _FACES))]


@pytest.mark.slow
@pytest.mark.parametrize('name', _FUNCTIONS)
@pytest.mark.parametrize('dtype', [np.float64, np.int64, np.uint8, jnp.bfloat16, np.float16])
def test_any_real_numbers_are_drawn_in_single_precision(name, dtype):
  for ours, expected in zip(_drawn(name, dtype), _drawn(name, jnp.float32), strict=True):
    assert ours.dtype == expected.dtype and ours.dtype in (np.float32, np.int32, bool)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.slow
def test_double_precision_stays_where_it_is_enabled():
  """Barycentrics and depth exact to float64, whichever the faces' type."""
  corner = 1 / 3
  with jax.enable_x64(True):
    vertices = jnp.array([[[corner, 0.1, 0.7], [9, 0, 1.1], [0.2, 9, 1.3]]], jnp.float64)
    double = rasterize(vertices, jnp.array([[2, 0, 1]]), 9, 9)
    single = rasterize(vertices.astype(jnp.float32), jnp.array([[2, 0, 1]]), 9, 9)
    seen = visible_vertices(vertices, jnp.array([[2, 0, 1]]), 9, 9)
    mesh, faces = checked_mesh(np.ones((1, 3, 3), jnp.bfloat16), np.zeros((1, 3), np.int64))
  np.testing.assert_array_equal(double.face_index, single.face_index)
  assert [value.dtype for value in double] == [np.int32, np.float64, np.float64]
  assert [value.dtype for value in single] == [np.int32, np.float32, np.float32]
  assert mesh.dtype == np.float32 and faces.dtype == np.int32 and bool(seen[0, 0])
  edges = np.array([[0.2, 9], [corner, 0.1], [9, 0]]).T
  expected = np.linalg.solve(np.vstack([edges, np.ones(3)]), [2.5, 1.5, 1])
  np.testing.assert_allclose(double.barycentric[0, 1, 2], expected, rtol=1e-13)
  np.testing.assert_allclose(double.depth[0, 1, 2], expected @ [1.3, 0.7, 1.1], rtol=1e-13)


@pytest.mark.slow
def test_half_precision_vertices_have_a_gradient_of_their_own_type():
  measure = lambda vertices: jnp.sum(rasterize(vertices, _FACES, 9, 9).barycentric ** 2)  # noqa: E731
  half, single = (
    jax.grad(measure)(jnp.asarray(_TRIANGLE, dtype)) for dtype in (jnp.bfloat16, jnp.float32)
  )
  assert half.dtype == jnp.bfloat16 and np.abs(single).max() > 0.5
  np.testing.assert_array_equal(half, single.astype(jnp.bfloat16))
