"""A coloured hand drawn into its crop: Table 1's last row, and what the photometric loss sees."""

from jaxtyping import Array, Float, Int

from hand_jax.rendering.rasterize import rasterize
from hand_jax.rendering.shading import interpolate
from hand_jax.types import RenderedHand


def render_hand(
  vertices_image: Float[Array, 'batch vertices 3'],
  faces: Int[Array, 'faces 3'],
  vertex_colors: Float[Array, 'batch vertices 3'],
  height: int,
  width: int,
) -> RenderedHand:
  """The colours of the vertices, blended by barycentrics at each pixel's nearest face.

  No light is added: the colours are what the photo shows. `vertices_image` as for `rasterize`.
  """
  fragments = rasterize(vertices_image, faces, height, width)
  rgb = interpolate(fragments, faces, vertex_colors)
  return RenderedHand(rgb, fragments.face_index >= 0)
