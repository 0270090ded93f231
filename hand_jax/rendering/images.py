"""Images of a mesh: the colours of its vertices, its depth and its normals at each pixel."""

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
  """Draws a coloured hand into its crop: the last row of the paper's Table 1.

  The colours of the vertices are blended by barycentrics at each pixel's nearest face. No light is
  added: the colours are what the photo shows. This is what the photometric loss sees.

  Args:
    vertices_image: pixels of the crop and depth, as for `rasterize`.
    faces: vertex ids.
    vertex_colors: RGB, as the photo's.
    height: of the crop, in pixels.
    width: of the crop, in pixels.

  Returns:
    The colours, 0 where nothing is hit, and which pixels show the hand.
  """
  fragments = rasterize(vertices_image, faces, height, width)
  rgb = interpolate(fragments, faces, vertex_colors)
  return RenderedHand(rgb, fragments.face_index >= 0)


def depth_image(
  fragments: Fragments, background: float = 0.0
) -> Float[Array, 'batch height width']:
  """Depth at each pixel's centre, in the unit of the rasterized vertices' third coordinate.

  Where nothing is hit it is `background`, a finite number, by the convention of depth cameras 0 =
  no measurement (`fragments.depth` itself holds +inf there). Differentiable in the vertices that
  were rasterized. Within a face depth is linear in the image: exact for weak perspective; under a
  perspective camera off by up to (change of depth across the face)^2 / (4 depth), which is 0.01 mm
  for a face that spans 5 mm of depth at 0.6 m.
  """
  return jnp.where(fragments.face_index >= 0, fragments.depth, background)


def normal_image(
  fragments: Fragments,
  faces: Int[Array, 'faces 3'],
  vertices: Float[Array, 'batch vertices 3'],
) -> Float[Array, 'batch height width 3']:
  """Unit normals of the smooth surface at each pixel, in the frame of `vertices`; 0 on background.

  Vertex normals interpolated over the seen face. `vertices` are those of any frame with one unit
  along all axes (camera space in metres, or the pixels of weak perspective), not pixels with metres
  of depth. A face seen from behind keeps its outward normal, which then points away from the
  camera. Differentiable in `vertices` and in those rasterized.
  """
  return normalize(interpolate(fragments, faces, vertex_normals(vertices, faces)))
