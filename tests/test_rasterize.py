"""The rasterizer against naive float64 loops, its conventions one by one, and its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hand_jax.rendering import rasterize as module
from hand_jax.rendering.rasterize import rasterize, visible_vertices
from tests.reference.rasterize import rasterize_naive, visible_vertices_naive

_rasterize = jax.jit(rasterize, static_argnums=(2, 3))


def _run(vertices, faces, height, width):
  fragments = _rasterize(
    jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32), height, width
  )
  return jax.tree.map(np.asarray, fragments)


def _random_scene(seed, vertices=40, faces=60, size=40):
  random = np.random.default_rng(seed)
  points = random.uniform([-8, -8, 0.2], [size + 8, size + 8, 1.0], (vertices, 3))
  return points.astype(np.float32), random.integers(0, vertices, (faces, 3))


def _sphere(seed, height, width):
  """A lumpy closed surface with self-occlusion: 12 x 16 grid, 352 faces."""
  random = np.random.default_rng(seed)
  rows, columns = 12, 16
  polar = np.linspace(0.05, np.pi - 0.05, rows)[:, None]
  around = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
  radius = random.uniform(0.6, 1.4, (rows, columns))
  points = radius[..., None] * np.stack(
    np.broadcast_arrays(
      np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)
    ),
    -1,
  )
  points = points.reshape(-1, 3) * [0.35 * width, 0.35 * height, 0.1]
  faces = []
  for i in range(rows - 1):
    for j in range(columns):
      a, b = i * columns + j, i * columns + (j + 1) % columns
      faces += [(a, b, a + columns), (b, b + columns, a + columns)]
  points += [0.5 * width, 0.5 * height, 0.6]
  return points.astype(np.float32), np.array(faces)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('scene', [_random_scene, functools.partial(_sphere, height=40, width=40)])
def test_matches_naive_reference(scene, seed):
  vertices, faces = scene(seed)
  height, width = 40, 37
  fragments = _run(vertices[None], faces, height, width)
  index, barycentric, depth, margin = rasterize_naive(vertices, faces, height, width)
  # Only decisions finer than float32's rounding may differ.
  clear = margin > 3e-6
  assert clear.mean() > 0.98
  np.testing.assert_array_equal(fragments.face_index[0][clear], index[clear])
  same = fragments.face_index[0] == index
  assert same.mean() > 0.999 and (index >= 0).mean() > 0.2
  # Slivers magnify float32 rounding in barycentrics; the median face has an area over 10 pixels.
  np.testing.assert_allclose(fragments.barycentric[0][same], barycentric[same], atol=2e-4)
  np.testing.assert_allclose(fragments.depth[0][same], depth[same], atol=1e-4)


@pytest.mark.parametrize('seed', range(4))
def test_exact_on_a_grid_without_any_tolerance(seed):
  """Half-pixel coordinates: many pixel centres lie on edges and corners. Not one may differ."""
  random = np.random.default_rng(seed)
  vertices = random.integers(-10, 90, (80, 3)) / 2.0
  vertices[:, 2] = random.permutation(80) / 8 + 1
  faces = random.integers(0, 80, (50, 3))
  fragments = _run(vertices[None], faces, 40, 40)
  index, barycentric, _, margin = rasterize_naive(vertices, faces, 40, 40)
  assert (margin == 0).sum() > 100  # pixels on an edge
  decided = np.isinf(margin) | (fragments.face_index[0] == index)
  assert decided.mean() > 0.99
  hit = index >= 0
  np.testing.assert_array_equal(fragments.face_index[0] >= 0, hit)
  assert (fragments.barycentric >= 0).all()
  np.testing.assert_allclose(
    fragments.barycentric[0][decided], barycentric[decided], atol=1e-5
  )
