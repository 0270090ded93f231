"""Pictures of meshes: coverage, colour, anti-aliasing, and views that do not mirror the hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.rendering.overlay import (
  mesh_over,
  render_mesh,
  texture_panels,
  turned_view,
  with_caption,
)

SQUARE = np.array([[4, 4, 0], [12.5, 4, 0], [4, 12.5, 0], [12.5, 12.5, 0.0]])
FACES = np.array([[0, 1, 2], [1, 3, 2]])


@pytest.mark.slow
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


@pytest.mark.slow
def test_mesh_over_mixes_by_coverage_and_opacity():
  background = np.full((20, 20, 3), 0.25)
  colors = np.ones((4, 3))
  full = mesh_over(background, SQUARE, FACES, colors)
  half = mesh_over(background, SQUARE, FACES, colors, opacity=0.5)
  np.testing.assert_allclose(half, (full + background) / 2, atol=1e-6)
  np.testing.assert_allclose(full[8, 12], (full[8, 8] + 0.25) / 2, atol=1e-6)
  np.testing.assert_array_equal(full[0], background[0])


def test_a_turned_view_is_a_turn_that_fits_the_picture():
  points = np.random.default_rng(0).normal(size=(40, 3)) * [30, 60, 90]
  for degrees, expected in ((90.0, [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]), (0.0, np.eye(3))):
    turned = turned_view(points, 100, degrees)
    assert turned[:, :2].min() >= 0 and turned[:, :2].max() <= 100
    centred, moved = points - points.mean(0), turned - turned.mean(0)
    matrix = np.linalg.lstsq(centred, moved, rcond=None)[0]
    scale = np.cbrt(np.linalg.det(matrix))
    assert scale > 0  # a turn, no mirror
    np.testing.assert_allclose(matrix / scale, expected, atol=1e-9)


def test_a_view_from_the_left_shows_the_left_side_nearer():
  """The photo's leftmost point comes nearest from there, its rightmost from the right."""
  points = np.array([[-1, 0, 0], [1, 0, 0], [0, 0.5, 0], [0, 0, -0.2]])
  left, right = (turned_view(points, 10, degrees) for degrees in (60.0, -60.0))
  assert left[:, 2].argmin() == 0 and right[:, 2].argmin() == 1
  assert left[0, 0] < left[1, 0]  # not from behind
  # Seen from the left, what stands out towards the camera moves to the right.
  assert left[3, 0] > 5 > right[3, 0]
  small = turned_view(points, 10, 60.0)
  large = turned_view(points, 10, 60.0, enlarge=True)
  assert np.ptp(small, axis=0).max() < 2.1
  np.testing.assert_allclose(np.ptp(large[:, :2], axis=0).max(), 9)


@pytest.mark.slow
def test_textured_panels_hold_the_photo_and_unlit_colours():
  crop = np.full((40, 40, 3), 0.25)
  tilted = SQUARE + np.array([[0, 0, 0], [0, 0, 8], [0, 0, 0], [0, 0, 8]])
  colors = np.tile([0.2, 0.4, 0.6], (4, 1))
  panels = texture_panels(crop, tilted, FACES, colors)
  assert panels.shape == (40, 160, 3)
  # The rows above the captions.
  photo, drawn, left, right = np.split(panels[:14], 4, axis=1)
  np.testing.assert_array_equal(photo, 64)
  np.testing.assert_array_equal(drawn[5:12, 5:12], np.tile([51, 102, 153], (7, 7, 1)))
  np.testing.assert_array_equal(drawn[:, 14:], 64)
  for turned in (left, right):
    np.testing.assert_array_equal(turned[0, 0], 245)  # no photo there
    assert (turned[8:12, 20] == [51, 102, 153]).all()


def test_a_caption_lies_at_the_lower_edge_and_leaves_the_rest():
  image = np.full((200, 200, 3), 120, np.uint8)
  written = with_caption(image, 'photo')
  assert (image == 120).all()
  changed = np.argwhere((written != image).any(axis=-1))
  low, high = changed.min(axis=0), changed.max(axis=0)
  assert low[0] > 165 and high[0] < 200 and low[1] >= 5 and high[1] < 80
  assert written.min() < 60 and written.max() > 240
