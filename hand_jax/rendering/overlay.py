"""Draws pictures of a hand: its mesh over the photo, in other views, and in various colours."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from hand_jax.rendering.rasterize import rasterize
from hand_jax.rendering.surfaces import (
  downsample,
  headlight,
  interpolate,
  normalize,
  vertex_normals,
)
from hand_jax.types import ArrayLike

_SUPERSAMPLING = 2
MESH_COLOR = (0.78, 0.84, 0.93)
OPACITY = 0.92
# Grey level of the picture outside the photo and behind a mesh without a photo.
PAPER = np.float32(0.96)
# Colours that represent a quantity are shaded lightly, so that they can be distinguished. The
# estimated colours of a hand contain the photo's light already.
PLAIN_AMBIENT, COLOR_AMBIENT, UNLIT = 0.35, 0.65, 1.0
# The two novel views are turned far enough to show parts that the photo hides.
NOVEL_VIEW_DEGREES = 60.0


@functools.partial(jax.jit, static_argnames='side')
def render_mesh(
  vertices_image: Float[Array, 'vertices 3'],
  faces: Int[Array, 'faces 3'],
  colors: Float[Array, 'vertices 3'],
  side: int,
  ambient: float | Float[Array, ''] = PLAIN_AMBIENT,
) -> tuple[Float[Array, 'side side 3'], Float[Array, 'side side 1']]:
  """Draws a smoothly shaded, anti-aliased mesh.

  Args:
    vertices_image: pixels of the square picture. The depth is in pixels too (weak perspective has
      the same scale along all axes), so that normals are correct.
    faces: vertex ids.
    colors: RGB of the vertices, in [0, 1].
    side: side of the picture, pixels.
    ambient: share of the light that comes from all around. With 1 the colours are drawn unlit.

  Returns:
    The colours in [0, 1], and the coverage of each pixel in [0, 1].
  """
  large = side * _SUPERSAMPLING
  scaled = vertices_image[None] * _SUPERSAMPLING
  fragments = rasterize(scaled, faces, large, large)
  normals = vertex_normals(scaled, faces)
  shaded = interpolate(fragments, faces, jnp.concatenate([normals, colors[None]], axis=-1))
  light = ambient + (1 - ambient) * headlight(normalize(shaded[..., :3]), 0.0)
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
  ambient: float = PLAIN_AMBIENT,
) -> Float[np.ndarray, 'side side 3']:
  """Draws a mesh over a square picture.

  Args:
    background: RGB of the picture, in [0, 1].
    vertices_image: pixels of the picture, with the depth in pixels too.
    faces: vertex ids.
    colors: RGB of the vertices, in [0, 1].
    opacity: opacity of the mesh, in [0, 1].
    ambient: share of the light that comes from all around. With 1 the colours are drawn unlit.

  Returns:
    RGB in [0, 1].
  """
  rgb, coverage = render_mesh(
    jnp.asarray(vertices_image, jnp.float32),
    jnp.asarray(faces, jnp.int32),
    jnp.asarray(colors, jnp.float32),
    background.shape[0],
    ambient,
  )
  weight = opacity * np.asarray(coverage)
  return np.asarray(background) * (1 - weight) + np.asarray(rgb) * weight


def turned_view(
  vertices_image: Float[np.ndarray, 'vertices 3'],
  side: int,
  degrees: float,
  enlarge: bool = False,
) -> Float[np.ndarray, 'vertices 3']:
  """Turns a mesh about the vertical axis and centres it in the picture.

  Args:
    vertices_image: pixels of a square picture, with the depth in pixels too.
    side: side of the picture, pixels.
    degrees: turn of the viewpoint. Positive angles show the mesh from the photo's left, negative
      ones from the right, and 180 shows the back.
    enlarge: whether a small mesh is enlarged until it fills the picture.

  Returns:
    The turned vertices. A mesh that would not fit the picture is made smaller.
  """
  x, y, depth = vertices_image.T
  cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  turned = np.stack([cosine * x - sine * depth, y, sine * x + cosine * depth], axis=1)
  low, high = turned.min(axis=0), turned.max(axis=0)
  fit = 0.9 * side / max(high[0] - low[0], high[1] - low[1])
  fit = fit if enlarge else min(1.0, fit)
  return (turned - (low + high) / 2) * fit + np.array([side / 2, side / 2, 0])


def textured_tiles(
  crop: Float[np.ndarray, 'side side 3'],
  vertices_image: Float[np.ndarray, 'vertices 3'],
  faces: Int[np.ndarray, 'faces 3'],
  vertex_colors: Float[np.ndarray, 'vertices 3'],
) -> list[Float[np.ndarray, 'side side 3']]:
  """Draws a hand in its estimated colours over the crop, from the left and from the right.

  No light is added.

  Args:
    crop: RGB of the crop, in [0, 1].
    vertices_image: pixels of the crop, with the depth in pixels too.
    faces: vertex ids.
    vertex_colors: RGB of the vertices, in [0, 1].

  Returns:
    The three pictures, RGB in [0, 1].
  """
  side = crop.shape[0]
  paper = np.full_like(crop, PAPER)
  tiles = [mesh_over(crop, vertices_image, faces, vertex_colors, ambient=UNLIT)]
  for degrees in (NOVEL_VIEW_DEGREES, -NOVEL_VIEW_DEGREES):
    turned = turned_view(vertices_image, side, degrees, enlarge=True)
    tiles.append(mesh_over(paper, turned, faces, vertex_colors, ambient=UNLIT))
  return tiles


def texture_panels(
  crop: Float[np.ndarray, 'side side 3'],
  vertices_image: Float[np.ndarray, 'vertices 3'],
  faces: Int[np.ndarray, 'faces 3'],
  vertex_colors: Float[np.ndarray, 'vertices 3'],
) -> UInt8[np.ndarray, 'side width 3']:
  """Puts the crop and its `textured_tiles` side by side, with captions.

  Args:
    crop: RGB of the crop, in [0, 1].
    vertices_image: pixels of the crop, with the depth in pixels too.
    faces: vertex ids.
    vertex_colors: RGB of the vertices, in [0, 1].

  Returns:
    One picture with 8 bits per channel.
  """
  panels = [crop, *textured_tiles(crop, vertices_image, faces, vertex_colors)]
  names = ('photo', 'texture', 'texture, from the left', 'texture, from the right')
  pictures = [
    with_caption(to_bytes(panel), name) for panel, name in zip(panels, names, strict=True)
  ]
  return np.concatenate(pictures, axis=1)


def overlay_panels(
  crop: Float[np.ndarray, 'side side 3'],
  vertices_image: Float[np.ndarray, 'vertices 3'],
  faces: Int[np.ndarray, 'faces 3'],
  sigma_colors: Float[np.ndarray, 'vertices 3'],
  legend: UInt8[np.ndarray, 'side legend_width 3'],
) -> UInt8[np.ndarray, 'side width 3']:
  """Puts crop, mesh, uncertainty from the front and from the side, and a legend side by side.

  Args:
    crop: RGB of the crop, in [0, 1].
    vertices_image: pixels of the crop, with the depth in pixels too.
    faces: vertex ids.
    sigma_colors: RGB of the vertices that shows their uncertainty, in [0, 1].
    legend: picture that explains the colours, as high as the crop.

  Returns:
    One picture with 8 bits per channel.
  """
  side = crop.shape[0]
  plain = np.broadcast_to(np.array(MESH_COLOR, np.float32), vertices_image.shape)
  paper = np.full_like(crop, PAPER)
  aside = turned_view(vertices_image, side, 90.0)
  panels = [
    crop,
    mesh_over(crop, vertices_image, faces, plain, OPACITY),
    mesh_over(0.3 * crop + 0.7 * paper, vertices_image, faces, sigma_colors, ambient=COLOR_AMBIENT),
    mesh_over(paper, aside, faces, sigma_colors, ambient=COLOR_AMBIENT),
  ]
  names = ('photo', 'mesh', 'sigma', 'sigma, from the side')
  pictures = [
    with_caption(to_bytes(panel), name) for panel, name in zip(panels, names, strict=True)
  ]
  return np.concatenate([*pictures, legend], axis=1)


def to_bytes(colors: Float[np.ndarray, '*shape 3']) -> UInt8[np.ndarray, '*shape 3']:
  """Converts colours in [0, 1] to 8 bits per channel."""
  return np.round(255 * np.clip(colors, 0, 1)).astype(np.uint8)


def with_caption(
  image: UInt8[np.ndarray, 'height width 3'], text: str
) -> UInt8[np.ndarray, 'height width 3']:
  """Writes dark words with a white outline along the lower edge of a picture."""
  image = np.array(image)
  left, bottom = 10, image.shape[0] - 12
  scale = max(image.shape[0] / 800, 0.4)
  # The outline consists of the same words, shifted. Thicker letters would be spaced wider.
  for x, y in np.ndindex(3, 3):
    _write(image, text, (left + x - 1, bottom + y - 1), scale, (255, 255, 255))
  _write(image, text, (left, bottom), scale, (30, 30, 30))
  return image


def _write(
  image: np.ndarray, text: str, place: tuple[int, int], scale: float, color: tuple[int, int, int]
) -> None:
  cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
