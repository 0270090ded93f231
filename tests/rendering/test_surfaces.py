"""Interpolation against loops, irradiance against quadrature, normals of known surfaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special

from hand_jax.rendering.rasterize import rasterize
from hand_jax.rendering.surfaces import (
  composite,
  directional_light,
  downsample,
  headlight,
  interpolate,
  irradiance,
  spherical_harmonics,
  vertex_normals,
)

pytestmark = pytest.mark.slow


def _scene():
  random = np.random.default_rng(0)
  vertices = random.uniform([0, 0, 1], [20, 20, 2], (2, 12, 3))
  faces = random.integers(0, 12, (8, 3))
  vertices, faces = jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32)
  return vertices, faces, rasterize(vertices, faces, 20, 20)


def test_interpolation_matches_a_loop():
  _, faces, fragments = _scene()
  attributes = jax.random.normal(jax.random.key(1), (2, 12, 5))
  image = np.asarray(interpolate(fragments, faces, attributes))
  expected = np.zeros_like(image)
  for b, y, x in np.argwhere(np.asarray(fragments.face_index) >= 0):
    ids = np.asarray(faces)[int(fragments.face_index[b, y, x])]
    weights = np.asarray(fragments.barycentric[b, y, x])
    expected[b, y, x] = sum(
      w * np.asarray(attributes[b, i]) for w, i in zip(weights, ids, strict=True)
    )
  assert (np.abs(expected) > 0).mean() > 0.2
  np.testing.assert_allclose(image, expected, atol=1e-5)


def test_interpolating_positions_gives_pixel_centres():
  """Linear in the image: the interpolated x, y, depth are the pixel's own."""
  vertices, faces, fragments = _scene()
  image = np.asarray(interpolate(fragments, faces, vertices))
  hit = np.asarray(fragments.face_index) >= 0
  y, x = np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5, indexing='ij')
  centres = np.broadcast_to(np.stack([x, y], -1), (2, 20, 20, 2))
  np.testing.assert_allclose(image[..., :2][hit], centres[hit], atol=1e-3)
  np.testing.assert_allclose(image[..., 2][hit], np.asarray(fragments.depth)[hit], atol=1e-4)
  np.testing.assert_array_equal(image[~hit], 0)


def test_unseen_nan_attributes_change_nothing():
  _, faces, fragments = _scene()
  attributes = jnp.ones((2, 12, 2))
  fragments = fragments._replace(face_index=jnp.where(fragments.face_index == 3, 3, -1))
  keep = np.isin(np.arange(12), np.asarray(faces[3]))
  broken = jnp.where(jnp.asarray(keep)[None, :, None], attributes, jnp.nan)
  masked = fragments._replace(
    barycentric=jnp.where((fragments.face_index >= 0)[..., None], fragments.barycentric, 0)
  )
  np.testing.assert_array_equal(
    interpolate(masked, faces, broken), interpolate(masked, faces, attributes)
  )


def test_interpolation_is_differentiable_in_vertices():
  """Moving all vertices by d moves a linear attribute field by -gradient * d."""
  vertices, faces, _ = _scene()
  slope = jnp.array([[0.3], [-0.7]])
  attributes = vertices[..., :2] @ slope

  def shifted(offset):
    moved = vertices.at[..., :2].add(offset[None, None])
    fragments = rasterize(moved, faces, 20, 20)
    return interpolate(fragments, faces, attributes), fragments.face_index >= 0

  image_gradient, hit = jax.jacfwd(shifted, has_aux=True)(jnp.zeros(2))
  expected = np.broadcast_to(-slope[:, 0], image_gradient[hit][:, 0].shape)
  np.testing.assert_allclose(image_gradient[hit][:, 0], expected, atol=1e-3)


def test_normals_of_a_sphere_point_outwards():
  import trimesh

  sphere = trimesh.creation.icosphere(3, 2.0)
  normals = vertex_normals(
    jnp.asarray(sphere.vertices, jnp.float32)[None], jnp.asarray(sphere.faces, jnp.int32)
  )
  # The mesh's own coarseness turns its normals by up to 0.6 degrees.
  np.testing.assert_allclose(normals[0], sphere.vertices / 2.0, atol=0.012)


def test_vertices_without_area_have_zero_normals_and_finite_gradients():
  vertices = jnp.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]])
  faces = jnp.array([[0, 1, 2], [3, 3, 0]])
  np.testing.assert_array_equal(vertex_normals(vertices, faces)[:, 2], [1, 1, 1, 0])
  gradient = jax.grad(lambda v: jnp.sum(vertex_normals(v, faces) ** 3))(vertices)
  assert np.isfinite(gradient).all()


def test_harmonics_match_scipy():
  random = np.random.default_rng(0)
  directions = random.normal(size=(20, 3))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  polar, around = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
  expected = []
  for order in range(3):
    for m in range(-order, order + 1):
      value = scipy.special.sph_harm_y(order, abs(m), polar, around) * (-1) ** m
      part = value.real if m >= 0 else value.imag
      expected.append(part * (np.sqrt(2) if m else 1))
  ours = spherical_harmonics(jnp.asarray(directions, jnp.float32))
  np.testing.assert_allclose(ours, np.stack(expected, -1), atol=1e-6)
  in_numpy = spherical_harmonics(directions)
  assert isinstance(in_numpy, np.ndarray) and isinstance(ours, jax.Array)
  np.testing.assert_allclose(in_numpy, np.stack(expected, -1), atol=1e-14)


@pytest.mark.parametrize('seed', range(2))
def test_irradiance_matches_quadrature(seed):
  """The integral of radiance times the clamped cosine, for light made of the nine harmonics."""
  random = np.random.default_rng(seed)
  coefficients = random.normal(size=9) * 0.1
  coefficients[0] = 3  # bright enough for positive light everywhere
  normal = random.normal(size=3)
  normal /= np.linalg.norm(normal)

  def direction(polar, around):
    sine = np.sin(polar)
    return np.array([sine * np.cos(around), sine * np.sin(around), np.cos(polar)])

  samples = np.linspace(0, np.pi, 201), np.linspace(0, 2 * np.pi, 401)
  grid = np.moveaxis(direction(*np.meshgrid(*samples, indexing='ij')), 0, -1)
  light = np.asarray(spherical_harmonics(jnp.asarray(grid, jnp.float32)), np.float64) @ coefficients
  integrand = light * np.maximum(grid @ normal, 0) * np.sin(samples[0])[:, None]
  expected = scipy.integrate.simpson(scipy.integrate.simpson(integrand, x=samples[1]), x=samples[0])
  light_rgb = jnp.asarray(np.stack([coefficients, 2 * coefficients, 0 * coefficients], 1))
  computed = irradiance(light_rgb.astype(jnp.float32), jnp.asarray(normal, jnp.float32))
  np.testing.assert_allclose(computed, [expected, 2 * expected, 0], rtol=1e-3)


def test_irradiance_is_never_negative_and_broadcasts_over_pixels():
  coefficients = jnp.zeros((2, 1, 9, 3)).at[:, :, 2].set(1.0)
  normals = jnp.broadcast_to(jnp.array([0.0, 0, -1]), (2, 7, 3))
  np.testing.assert_array_equal(irradiance(coefficients, normals), np.zeros((2, 7, 3)))


def test_headlight_lights_both_sides_and_stays_in_range():
  normals = jax.random.normal(jax.random.key(0), (50, 3))
  normals = normals / jnp.linalg.norm(normals, axis=1, keepdims=True)
  light = headlight(normals, ambient=0.3)
  np.testing.assert_allclose(light, headlight(-normals, ambient=0.3), rtol=1e-6)
  assert light.min() >= 0.3 and light.max() <= 1 and light.max() > 0.95


def test_a_broken_vertex_spoils_no_normal_but_its_own():
  """A cube's corner is NaN: what remains has the normals of the faces that are left."""
  import trimesh

  cube = trimesh.creation.box()
  faces = jnp.asarray(cube.faces, jnp.int32)
  vertices = jnp.asarray(cube.vertices, jnp.float32).at[3].set(jnp.nan)
  left = np.asarray(cube.faces)[~np.any(cube.faces == 3, axis=1)]
  sums = np.zeros((8, 3))
  for face in left:
    a, b, c = cube.vertices[face]
    sums[face] += np.cross(b - a, c - a)
  lengths = np.linalg.norm(sums, axis=1, keepdims=True)
  expected = sums / np.where(lengths > 0, lengths, 1)
  np.testing.assert_allclose(vertex_normals(vertices, faces), expected, atol=1e-6)
  gradient = jax.jit(jax.grad(lambda v: jnp.sum(vertex_normals(v, faces) ** 3)))(vertices)
  assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(gradient[3], 0)


def test_directional_light_follows_the_cosine():
  """By hand: n . l of 1, 1/2, 0 and below, for a lamp of any length."""
  normals = jnp.array([[0, 0, -1], [0, np.sqrt(3) / 2, -0.5], [1, 0, 0], [0, 0, 1], [0, 0, 0.0]])
  light = directional_light(normals, jnp.array([0.0, 0, -7]), ambient=0.2)
  np.testing.assert_allclose(light, [1, 0.6, 0.2, 0.2, 0.2], rtol=1e-6)


def test_directional_light_takes_a_lamp_per_image():
  normals = jnp.broadcast_to(jnp.array([1.0, 0, 0]), (2, 3, 4, 3))
  lamps = jnp.array([[1.0, 0, 0], [1, 1, 0]])[:, None, None]
  light = directional_light(normals, lamps, ambient=0.0)
  np.testing.assert_allclose(light[:, 2, 3], [1, np.sqrt(0.5)], rtol=1e-6)
  nothing = jax.grad(lambda lamp: jnp.sum(directional_light(normals, lamp)))(jnp.zeros(3))
  np.testing.assert_array_equal(nothing, 0)


def test_composite_and_downsample():
  background, foreground = jnp.zeros((1, 4, 6, 3)), jnp.ones((1, 4, 6, 3))
  mask = jnp.zeros((1, 4, 6), bool).at[0, :2, :3].set(True)
  image = downsample(composite(background, foreground, mask, 0.5), 2)
  np.testing.assert_allclose(image[0, :, :, 0], [[0.5, 0.25, 0], [0, 0, 0]])
  with pytest.raises(ValueError, match='4 x 6 pixels cannot be divided by 4'):
    downsample(background, 4)
