"""Vertex colours without learning: by hand, along a strip of triangles, and the best mean."""

import math

import numpy as np

from hand_jax.evaluation import texture_baselines as baselines
from hand_jax.evaluation import texture_scores as texture
from tests.evaluation.test_texture_scores import picture, some_mask
from tests.toy_mano import toy_faces


def test_mean_color_is_the_best_single_color():
  photo, mask = picture(0), some_mask(0)
  best = baselines.mean_color(photo, mask)
  pixels = [photo[y, x] for y, x in np.argwhere(mask)]
  np.testing.assert_allclose(best, sum(pixels) / len(pixels))

  def quality(color):
    return texture.psnr_db(photo, np.broadcast_to(color, photo.shape), mask)

  rng = np.random.default_rng(0)
  for step in rng.normal(scale=0.01, size=(20, 3)):
    assert quality(best + step) < quality(best)
  np.testing.assert_array_equal(baselines.mean_color(photo, np.zeros_like(mask)), [0.5] * 3)


# A strip of triangles: vertices i and i + 1, i and i + 2 share an edge.
STRIP = np.array([[0, 1, 2], [1, 3, 2], [2, 3, 4], [3, 5, 4]])


def test_hops_along_a_strip():
  hops = baselines.hop_distances(STRIP, 7)
  for first in range(6):
    for second in range(6):
      assert hops[first, second] == math.ceil(abs(first - second) / 2)
  # The seventh vertex is in no face.
  assert hops[6].tolist() == [7, 7, 7, 7, 7, 7, 0]


def test_hops_of_a_hand_grow_by_one_from_neighbour_to_neighbour():
  """They are 0 at a vertex itself, elsewhere one more than the least of its neighbours."""
  faces = toy_faces()
  hops = baselines.hop_distances(faces, 778)
  assert hops.dtype == np.int32
  neighbours = [set() for _ in range(778)]
  for face in faces.tolist():
    for vertex in face:
      neighbours[vertex].update(face)
  for vertex, around in enumerate(neighbours):
    expected = 1 + hops[sorted(around - {vertex})].min(axis=0)
    expected[vertex] = 0
    np.testing.assert_array_equal(hops[vertex], expected)


def filled(visible, count=6, faces=STRIP):
  """The strip filled from the visible vertices, vertex i of colour (i, i, i)."""
  colors = np.full((count, 3), np.nan)
  colors[visible] = np.array(visible)[:, None]
  shown = np.isin(np.arange(count), visible)
  hops = baselines.hop_distances(faces, count)
  found = baselines.fill_from_visible(colors, shown, hops, np.array([-1.0, -2.0, -3.0]))
  return found[:, 0].tolist()


def test_each_vertex_is_filled_from_the_nearest_visible_one():
  assert filled([0, 5]) == [0, 0, 0, 5, 5, 5]
  assert filled([1]) == [1] * 6
  assert filled([0, 1, 2, 3, 4, 5]) == [0, 1, 2, 3, 4, 5]
  # Vertex 2 is one edge from 0 and from 4; vertex 3 from 4 alone.
  assert filled([0, 4]) == [0, 0, 2, 4, 4, 4]
  # Vertex 5 is two edges from 1 and from 2, by three ways: each counts once.
  assert filled([1, 2]) == [1.5, 1, 2, 1.5, 2, 1.5]


def test_what_no_visible_vertex_is_connected_with_takes_the_fallback():
  assert filled([]) == [-1] * 6
  assert filled([2], count=7) == [2] * 6 + [-1]
