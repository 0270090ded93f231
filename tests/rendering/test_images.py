"""Depth and normal images of surfaces whose depths and normals are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.rendering.images import depth_image, normal_image
from hand_jax.rendering.rasterize import rasterize

_SIZE = 32


def _plane():
  """z = 5 + 0.5 (x - 16) - 0.25 (y - 16) over the square from 4 to 28, wound to face the viewer."""
  x, y = np.array([4, 28, 28, 4.0]), np.array([4, 4, 28, 28.0])
  vertices = np.stack([x, y, 5 + 0.5 * (x - 16) - 0.25 * (y - 16)], 1)
  return jnp.asarray(vertices[None], jnp.float32), jnp.array([[0, 3, 1], [1, 3, 2]], jnp.int32)


@pytest.mark.slow
def test_depth_of_a_tilted_plane():
  vertices, faces = _plane()
  image = depth_image(rasterize(vertices, faces, _SIZE, _SIZE), background=-1.0)[0]
  y, x = np.meshgrid(np.arange(_SIZE) + 0.5, np.arange(_SIZE) + 0.5, indexing='ij')
  inside = (x > 4) & (x < 28) & (y > 4) & (y < 28)
  expected = np.where(inside, 5 + 0.5 * (x - 16) - 0.25 * (y - 16), -1)
  np.testing.assert_allclose(image, expected, atol=1e-5)


@pytest.mark.slow
def test_normals_of_a_tilted_plane_point_to_the_viewer():
  """The gradient of the plane's equation, (0.5, -0.25, -1), at unit length; zero around it."""
  vertices, faces = _plane()
  image = np.asarray(normal_image(rasterize(vertices, faces, _SIZE, _SIZE), faces, vertices))[0]
  normal = np.array([0.5, -0.25, -1]) / np.sqrt(0.25 + 0.0625 + 1)
  expected = np.zeros((_SIZE, _SIZE, 3))
  expected[4:28, 4:28] = normal
  np.testing.assert_allclose(image, expected, atol=1e-6)


def test_the_winding_decides_the_side():
  vertices, faces = _plane()
  fragments = rasterize(vertices, faces, _SIZE, _SIZE)
  front = normal_image(fragments, faces, vertices)
  np.testing.assert_allclose(normal_image(fragments, faces[:, ::-1], vertices), -front, atol=1e-6)


@pytest.mark.slow
def test_a_sphere_of_pixels():
  """Radius 12 about (16, 16, 20): depth 20 - sqrt(144 - r^2), normal (p - centre) / 12."""
  import trimesh

  sphere = trimesh.creation.icosphere(4, 12.0)
  faces = jnp.asarray(sphere.faces, jnp.int32)
  vertices = jnp.asarray(sphere.vertices + [16, 16, 20], jnp.float32)[None]
  fragments = rasterize(vertices, faces, _SIZE, _SIZE)
  depth, normals = depth_image(fragments)[0], normal_image(fragments, faces, vertices)[0]
  offset = np.arange(_SIZE) + 0.5 - 16
  squared = offset[:, None] ** 2 + offset[None] ** 2
  clear = squared < 10**2  # the rim is steep
  height = np.sqrt(144 - np.where(clear, squared, 0))
  # Faces 4.5 degrees wide lie up to 0.012 inside the sphere; its slope nearly doubles that.
  np.testing.assert_allclose(depth[clear], 20 - height[clear], atol=0.025)
  expected = np.stack(
    [
      np.broadcast_to(offset[None], clear.shape),
      np.broadcast_to(offset[:, None], clear.shape),
      -height,
    ],
    -1,
  )
  np.testing.assert_allclose(normals[clear], expected[clear] / 12, atol=0.01)
  np.testing.assert_array_equal(depth[squared > 12**2], 0)
  np.testing.assert_array_equal(normals[squared > 12**2], 0)


@pytest.mark.slow
def test_gradients_of_both_images_by_hand():
  """Sliding the plane along x by d changes each depth by -0.5 d; raising one corner tilts it."""
  vertices, faces = _plane()

  def middle(vertices):
    fragments = rasterize(vertices, faces, _SIZE, _SIZE)
    return depth_image(fragments)[0, 16, 16], normal_image(fragments, faces, vertices)[0, 16, 16]

  depth, normal = jax.jit(jax.jacrev(middle))(vertices)
  np.testing.assert_allclose(depth[0, :, 0].sum(), -0.5, atol=1e-5)
  np.testing.assert_allclose(depth[0, :, 2].sum(), 1, atol=1e-5)
  # A common shift turns no normal; its length stays one whatever moves.
  np.testing.assert_allclose(normal[:, 0].sum(axis=1), np.zeros((3, 3)), atol=1e-5)
  unit = np.array([0.5, -0.25, -1]) / np.sqrt(0.25 + 0.0625 + 1)
  np.testing.assert_allclose(np.einsum('c,cvk->vk', unit, normal[:, 0]), 0, atol=1e-5)
  assert np.abs(normal).max() > 0.01
