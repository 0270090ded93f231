"""Displaced hands: outside the shape space, smooth, as large as stated, a function of the draw."""

import numpy as np
import pytest

from hand_jax.synthetic.mismatch import (
  MAGNITUDE_MM,
  cotangent_laplacian,
  free_hand_surface,
  rest_surface,
  rigid_motions,
  sample_displacement,
  smooth_fields,
)

DRAWS = 40


@pytest.fixture(scope='module')
def surface():
  return free_hand_surface()


@pytest.fixture(scope='module')
def displacements(surface):
  return [sample_displacement(np.random.default_rng(k), surface) for k in range(DRAWS)]


def edges_of(model) -> np.ndarray:
  faces = np.asarray(model.faces)
  edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
  return np.unique(np.sort(edges, axis=1), axis=0)


def test_no_shape_and_no_rigid_motion_explains_any_of_it(displacements, model):
  vertices = np.asarray(model.v_template, np.float64)
  shapes = np.asarray(model.shapedirs, np.float64).reshape(vertices.size, -1)
  explaining = np.concatenate([shapes, rigid_motions(vertices)], axis=1)
  for displacement in displacements:
    # What least squares finds of it with all of these together: nothing.
    found = np.linalg.lstsq(explaining, displacement.ravel(), rcond=None)[0]
    explained = np.linalg.norm(explaining @ found)
    assert explained < 1e-9 * np.linalg.norm(displacement)


def test_magnitudes_fill_the_stated_range(displacements):
  sizes = [1000 * np.sqrt(np.mean(np.sum(d**2, axis=1))) for d in displacements]
  assert MAGNITUDE_MM[0] <= min(sizes) < 1.15 * MAGNITUDE_MM[0]
  assert 0.87 * MAGNITUDE_MM[1] < max(sizes) <= MAGNITUDE_MM[1]
  # No part of the hand is left alone, and none is torn out.
  lengths = 1000 * np.linalg.norm(displacements, axis=2)
  of_vertex = np.sqrt(np.mean(lengths**2, axis=0))
  assert of_vertex.min() > 0.3 and of_vertex.max() < 4
  assert np.quantile(lengths, 0.95) < 3.5


def test_neighbours_move_alike(displacements, model):
  """Against draws that know nothing of neighbours, whose differences are the root of two larger."""
  edges = edges_of(model)
  distance = np.linalg.norm(np.diff(np.asarray(model.v_template)[edges], axis=1)[:, 0], axis=1)
  near = edges[distance < 0.006]
  assert len(near) > 500
  for displacement in displacements:
    size = np.sqrt(np.mean(np.sum(displacement**2, axis=1)))
    difference = displacement[near[:, 0]] - displacement[near[:, 1]]
    assert np.sqrt(np.mean(np.sum(difference**2, axis=1))) < 0.75 * size


def test_wider_fields_are_smoother(surface, model):
  edges, noise = edges_of(model), np.random.default_rng(0).normal(size=(778, 20))
  roughness = []
  for width in (0.0, 0.016, 0.032, 0.1):
    fields = smooth_fields(surface, noise, width)
    np.testing.assert_allclose(np.mean(fields**2, axis=0), 1, rtol=1e-12)
    roughness.append(np.sqrt(np.mean((fields[edges[:, 0]] - fields[edges[:, 1]]) ** 2)))
  assert roughness[0] == pytest.approx(np.sqrt(2), rel=0.05)  # white noise as it was
  assert roughness[0] > 1.5 * roughness[1] > 1.5 * roughness[2] > 1.5 * roughness[3]


def test_a_draw_repeats_with_its_generator_and_differs_from_others(displacements, surface, model):
  again = sample_displacement(np.random.default_rng(3), rest_surface(model))
  np.testing.assert_allclose(again, displacements[3], atol=1e-12)
  flat = np.stack([d.ravel() / np.linalg.norm(d) for d in displacements])
  likeness = np.abs(flat @ flat.T) - np.eye(DRAWS)
  assert likeness.max() < 0.6


def test_signs_of_the_modes_do_not_matter(surface):
  """Two processors may find an eigenvector with either sign; the hand is the same."""
  signs = np.random.default_rng(0).choice([-1.0, 1.0], len(surface.stiffness))
  turned = surface._replace(modes=surface.modes * signs)
  expected = sample_displacement(np.random.default_rng(1), surface)
  found = sample_displacement(np.random.default_rng(1), turned)
  np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_laplacian_is_that_of_the_plane():
  """On a grid of right triangles it is the five-point rule; linear functions have none inside."""
  side = 6
  x, y = np.meshgrid(np.arange(side), np.arange(side), indexing='ij')
  vertices = np.stack([x.ravel(), y.ravel(), np.zeros(side**2)], axis=1).astype(float)
  corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
  faces = np.concatenate(
    [
      np.stack([corner, corner + side, corner + side + 1], axis=1),
      np.stack([corner, corner + side + 1, corner + 1], axis=1),
    ]
  )
  laplacian, areas = cotangent_laplacian(vertices, faces)
  assert areas.sum() == pytest.approx((side - 1) ** 2)
  inside = ((x > 0) & (x < side - 1) & (y > 0) & (y < side - 1)).ravel()
  np.testing.assert_allclose((laplacian @ vertices)[inside], 0, atol=1e-12)
  np.testing.assert_allclose(laplacian.sum(1), 0, atol=1e-12)
  squares = vertices[:, 0] ** 2 + 3 * vertices[:, 1] ** 2
  np.testing.assert_allclose((laplacian @ squares)[inside], -8 * areas[inside], atol=1e-12)
