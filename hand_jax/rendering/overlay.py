"""Pictures of a reconstructed hand: the mesh over its photo, coloured by uncertainty, and aside."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from hand_jax.rendering.rasterize import rasterize
from hand_jax.rendering.shading import downsample, headlight, interpolate, normalize, vertex_normals
from hand_jax.types import ArrayLike

_SUPERSAMPLING = 2
MESH_COLOR = (0.78, 0.84, 0.93)
_OPACITY = 0.92
# Outside the photo, and behind a mesh alone.
PAPER = np.float32(0.96)
# Colours that mean something are shaded lightly, so that they can be told.
_PLAIN_AMBIENT, _COLOR_AMBIENT = 0.35, 0.65


@functools.partial(jax.jit, static_argnames=('side', 'ambient'))
def render_mesh(
  vertices_image: Float[Array, 'vertices 3'],
  faces: Int[Array, 'faces 3'],
  colors: Float[Array, 'vertices 3'],
  side: int,
  ambient: float = _PLAIN_AMBIENT,
) -> tuple[Float[Array, 'side side 3'], Float[Array, 'side side 1']]:
  """A smoothly shaded mesh and its coverage in [0, 1], anti-aliased.

  `vertices_image` in pixels of the square picture, with a depth in pixels too (weak perspective:
  the same scale along all axes), so that normals are right. Colours in [0, 1].
  """
  large = side * _SUPERSAMPLING
  scaled = vertices_image[None] * _SUPERSAMPLING
  fragments = rasterize(scaled, faces, large, large)
  normals = vertex_normals(scaled, faces)
  shaded = interpolate(fragments, faces, jnp.concatenate([normals, colors[None]], axis=-1))
  light = headlight(normalize(shaded[..., :3]), ambient)
  hit = (fragments.face_index >= 0)[..., None].astype(jnp.float32)
  image = downsample(jnp.concatenate([shaded[..., 3:] * light[..., None] * hit, hit], -1), 2)[0]
  coverage = image[..., 3:]
  return image[..., :3] / jnp.maximum(coverage, 1e-6), coverage


def mesh_over(
  background: Float[ArrayLike, 'side side 3'],
  vertices_image: Float[ArrayLike, 'vertices 3'],
  faces: Int[ArrayLike, 'faces 3'],
  colors: Float[ArrayLike, 'vertices 3'],
  opacity: float = 1.0,
  ambient: float = _PLAIN_AMBIENT,
) -> Float[np.ndarray, 'side side 3']:
  """The mesh drawn over a square picture; all colours in [0, 1]."""
  rgb, coverage = render_mesh(
    jnp.asarray(vertices_image, jnp.float32),
    jnp.asarray(faces, jnp.int32),
    jnp.asarray(colors, jnp.float32),
    background.shape[0],
    ambient,
  )
  weight = opacity * np.asarray(coverage)
  return np.asarray(background) * (1 - weight) + np.asarray(rgb) * weight


def seen_from_the_side(
  vertices_image: Float[np.ndarray, 'vertices 3'], side: int
) -> Float[np.ndarray, 'vertices 3']:
  """The mesh turned by 90 degrees about the vertical: its left flank, centred in the picture."""
  x, y, depth = vertices_image.T
  turned = np.stack([-depth, y, x], axis=1)
  low, high = turned.min(axis=0), turned.max(axis=0)
  fit = min(1.0, 0.9 * side / max(high[0] - low[0], high[1] - low[1]))
  return (turned - (low + high) / 2) * fit + np.array([side / 2, side / 2, 0])


def overlay_panels(
  crop: Float[np.ndarray, 'side side 3'],
  vertices_image: Float[np.ndarray, 'vertices 3'],
  faces: Int[np.ndarray, 'faces 3'],
  sigma_colors: Float[np.ndarray, 'vertices 3'],
  legend: UInt8[np.ndarray, 'side legend_width 3'],
) -> UInt8[np.ndarray, 'side width 3']:
  """Crop, mesh over the crop, mesh coloured by uncertainty, the same from the side, and a legend.

  Colours in [0, 1]; `vertices_image` in pixels of the crop, depth in pixels too.
  """
  side = crop.shape[0]
  plain = np.broadcast_to(np.array(MESH_COLOR, np.float32), vertices_image.shape)
  paper = np.full_like(crop, PAPER)
  aside = seen_from_the_side(vertices_image, side)
  panels = [
    crop,
    mesh_over(crop, vertices_image, faces, plain, _OPACITY),
    mesh_over(
      0.3 * crop + 0.7 * paper, vertices_image, faces, sigma_colors, ambient=_COLOR_AMBIENT
    ),
    mesh_over(paper, aside, faces, sigma_colors, ambient=_COLOR_AMBIENT),
  ]
  names = ('photo', 'mesh', 'sigma', 'sigma, from the side')
  pictures = [
    _with_caption(np.round(255 * np.clip(panel, 0, 1)).astype(np.uint8), name)
    for panel, name in zip(panels, names, strict=True)
  ]
  return np.concatenate([*pictures, legend], axis=1)


def _with_caption(image: np.ndarray, text: str) -> np.ndarray:
  image = np.ascontiguousarray(image)
  place = (10, image.shape[0] - 12)
  scale = image.shape[0] / 800
  for color, thickness in (((255, 255, 255), 3), ((30, 30, 30), 1)):
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)
  return image
