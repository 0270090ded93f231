"""Draws images of a mesh, which show vertex colours, depth or normals at each pixel."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hand_jax.rendering.rasterize import rasterize
from hand_jax.rendering.surfaces import interpolate, normalize, vertex_normals
from hand_jax.types import Fragments, RenderedHand


def render_vertex_colors(
  vertices_image: Float[Array, 'batch vertices 3'],
  faces: Int[Array, 'faces 3'],
  vertex_colors: Float[Array, 'batch vertices 3'],
  height: int,
  width: int,
) -> RenderedHand:
  """Draws a coloured hand into its crop, as in the last row of the paper's Table 1.

  At each pixel the colours of the nearest face's vertices are blended by barycentrics. No light is
  added, because the colours are those of the photo. The photometric loss sees this picture.

  Args:
    vertices_image: pixels of the crop and depth, as for `rasterize`.
    faces: vertex ids.
    vertex_colors: RGB colours as in the photo.
    height: height of the crop, pixels.
    width: width of the crop, pixels.

  Returns:
    The colours, which are 0 where no face is hit, and the pixels that show the hand.
  """
  fragments = rasterize(vertices_image, faces, height, width)
  rgb = interpolate(fragments, faces, vertex_colors)
  return RenderedHand(rgb, fragments.face_index >= 0)


def depth_image(
  fragments: Fragments, background: float = 0.0
) -> Float[Array, 'batch height width']:
  """Returns the depth at each pixel's centre, in the unit of the rasterized depths.

  Pixels that hit no face get `background`, a finite number. Depth cameras use 0 for no measurement,
  whereas `fragments.depth` holds +inf there. The result is differentiable in the rasterized
  vertices. Within a face, depth is linear in the image, which is exact for weak perspective. Under
  a perspective camera the error is up to (change of depth across the face)^2 / (4 depth). For a
  face that spans 5 mm of depth at 0.6 m this is 0.01 mm.
  """
  return jnp.where(fragments.face_index >= 0, fragments.depth, background)


def normal_image(
  fragments: Fragments,
  faces: Int[Array, 'faces 3'],
  vertices: Float[Array, 'batch vertices 3'],
) -> Float[Array, 'batch height width 3']:
  """Returns unit normals of the smooth surface at each pixel.

  Vertex normals are interpolated over the face that the pixel sees. A face seen from behind keeps
  its outward normal, which then points away from the camera. The result is differentiable in
  `vertices` and in the rasterized vertices.

  Args:
    fragments: the faces that pixels see, from `rasterize`.
    faces: vertex ids.
    vertices: vertices in any frame that has the same unit along all axes, such as camera space in
      metres or the pixels of weak perspective. Pixels with a depth in metres are wrong here.

  Returns:
    Normals in the frame of `vertices`, and 0 on the background.
  """
  return normalize(interpolate(fragments, faces, vertex_normals(vertices, faces)))
