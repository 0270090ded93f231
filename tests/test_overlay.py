"""Pictures of meshes: coverage, colour, anti-aliasing, and views that do not mirror the hand."""

import jax.numpy as jnp
import numpy as np

from hand_jax.rendering.overlay import mesh_over, render_mesh, seen_from_the_side

SQUARE = np.array([[4, 4, 0], [12.5, 4, 0], [4, 12.5, 0], [12.5, 12.5, 0.0]])
FACES = np.array([[0, 1, 2], [1, 3, 2]])


def test_coverage_is_the_area_and_edges_are_smooth():
  colors = jnp.broadcast_to(jnp.array([0.2, 0.5, 1.0]), (4, 3))
  rgb, coverage = render_mesh(jnp.asarray(SQUARE, jnp.float32), jnp.asarray(FACES), colors, 20)
  coverage = np.asarray(coverage)[..., 0]
  np.testing.assert_allclose(coverage.sum(), 8.5**2, rtol=0.01)
  assert coverage[8, 8] == 1 and coverage[2, 8] == 0 and coverage[8, 12] == 0.5
  seen = np.asarray(rgb)[coverage > 0]
  # One flat face: one brightness, the colour's own proportions, edges included.
  np.testing.assert_allclose(
    seen / seen[:, 2:], np.tile([0.2, 0.5, 1.0], (len(seen), 1)), atol=1e-5
  )
  np.testing.assert_allclose(seen, np.broadcast_to(seen[:1], seen.shape), atol=1e-5)


def test_mesh_over_mixes_by_coverage_and_opacity():
  background = np.full((20, 20, 3), 0.25)
  colors = np.ones((4, 3))
  full = mesh_over(background, SQUARE, FACES, colors)
  half = mesh_over(background, SQUARE, FACES, colors, opacity=0.5)
  np.testing.assert_allclose(half, (full + background) / 2, atol=1e-6)
  np.testing.assert_allclose(full[8, 12], (full[8, 8] + 0.25) / 2, atol=1e-6)
  np.testing.assert_array_equal(full[0], background[0])


def test_the_side_view_is_a_turn_that_fits_the_picture():
  points = np.random.default_rng(0).normal(size=(40, 3)) * [30, 60, 90]
  turned = seen_from_the_side(points, 100)
  assert turned[:, :2].min() >= 0 and turned[:, :2].max() <= 100
  centred, moved = points - points.mean(0), turned - turned.mean(0)
  matrix = np.linalg.lstsq(centred, moved, rcond=None)[0]
  scale = np.cbrt(np.linalg.det(matrix))
  assert scale > 0  # a turn, no mirror
  np.testing.assert_allclose(matrix / scale, [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], atol=1e-9)
