"""Draws the free hand's texture image from vertex colours, and writes the OBJ that uses it.

The free hand has one texture coordinate per vertex, so faces across a seam of its layout would
stretch over half the picture. Each of these faces gets a small patch of its own beside the layout
instead.
"""

import functools
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from hand_jax.mano.assets import load_hand_appearance, load_mano_model
from hand_jax.reconstruction.meshes import vertex_lines
from hand_jax.rendering.overlay import to_bytes
from hand_jax.rendering.rasterize import rasterize

TEXTURE_SIDE = 1024
_PATCH_SIDE = 16
_MARGIN = 8.5
# The colours of a face continue this far beyond it, in pixels.
_BLEED = 12.0
# A face is cut out if its pixels per metre differ from the median by at least this factor.
_LARGEST_STRETCH = 2.0


class TextureLayout(NamedTuple):
  """The position of each face in the picture. The first V places belong to the vertices.

  `places` are pixels of the square picture. The first pixel's centre is (0.5, 0.5), y points down,
  and the places of the patches come last. `corners` holds an index into them for each corner of
  each face, and `vertices` holds the vertex at each place.
  """

  places: Float[np.ndarray, 'places 2']
  corners: Int[np.ndarray, 'faces 3']
  vertices: Int[np.ndarray, ' places']


class _Texels(NamedTuple):
  """The pixels on faces or near them, with the three vertices of which each takes its colour.

  A pixel beside the faces takes the vertices and shares of the nearest pixel on one.
  """

  is_colored: Bool[np.ndarray, 'side side']
  vertices: Int[np.ndarray, '3 colored']
  shares: Float[np.ndarray, '3 colored']


@functools.cache
def free_hand_layout() -> TextureLayout:
  """Lays out the free right hand. The left hand has the same faces with reversed winding."""
  model = load_mano_model()
  return texture_layout(
    np.asarray(load_hand_appearance().uv, np.float64),
    np.asarray(model.v_template, np.float64),
    np.asarray(model.faces),
  )


def texture_layout(
  uv: Float[np.ndarray, 'vertices 2'],
  template: Float[np.ndarray, 'vertices 3'],
  faces: Int[np.ndarray, 'faces 3'],
) -> TextureLayout:
  """Fits the UVs (v up) into the picture, and places patches for faces across a seam at the right.

  A face crosses a seam if it is flipped, or stretched far more than other faces. A face that covers
  the vertex of another face gets a patch too.

  Args:
    uv: texture coordinates of the vertices.
    template: the resting vertices in metres, for the lengths of edges.
    faces: indices of their corners.
  """
  crossing = _crosses_a_seam(uv, template, faces)
  cut = np.flatnonzero(crossing | _covers_others(uv, faces, ~crossing))
  per_column = TEXTURE_SIDE // _PATCH_SIDE
  columns = -(-len(cut) // per_column)
  low, high = uv.min(axis=0), uv.max(axis=0)
  room = np.array([TEXTURE_SIDE - columns * _PATCH_SIDE, TEXTURE_SIDE]) - 2 * _MARGIN
  scale = (room / (high - low)).min()
  upright = np.stack([uv[:, 0] - low[0], high[1] - uv[:, 1]], axis=1)
  # Corners of patches lie on pixel centres, which then have the vertex' colour exactly.
  first, last = 2.5, _PATCH_SIDE - 2.5
  triangle = np.array([[first, first], [last, first], [first, last]])
  number = np.arange(len(cut))
  corner = np.stack([number // per_column - columns, number % per_column], axis=1) * _PATCH_SIDE
  corner = corner + np.array([[TEXTURE_SIDE, 0]])
  patches = (corner[:, None] + triangle[None]).reshape(-1, 2)
  corners = np.array(faces)
  corners[cut] = len(uv) + np.arange(3 * len(cut)).reshape(-1, 3)
  return TextureLayout(
    places=np.concatenate([upright * scale + _MARGIN, patches]),
    corners=corners,
    vertices=np.concatenate([np.arange(len(uv)), faces[cut].ravel()]),
  )


def _crosses_a_seam(uv: np.ndarray, template: np.ndarray, faces: np.ndarray) -> np.ndarray:
  edges = np.roll(uv[faces], -1, axis=1) - uv[faces]
  lengths = np.linalg.norm(np.roll(template[faces], -1, axis=1) - template[faces], axis=-1)
  stretch = (np.linalg.norm(edges, axis=-1) / lengths).max(axis=1)
  area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
  turned_over = np.sign(area) != np.sign(np.median(np.sign(area)))
  return turned_over | (stretch > _LARGEST_STRETCH * np.median(stretch))


def _covers_others(uv: np.ndarray, faces: np.ndarray, kept: np.ndarray) -> np.ndarray:
  """Returns which kept faces contain a vertex of other kept faces."""
  points = uv[np.unique(faces[kept])]
  covers = np.zeros(len(faces), bool)
  for number in np.flatnonzero(kept):
    corners = uv[faces[number]]
    # Each row is an edge, and gives the side on which each point lies.
    edges, offsets = np.roll(corners, -1, axis=0) - corners, points[None] - corners[:, None]
    sides = edges[:, None, 0] * offsets[..., 1] - edges[:, None, 1] * offsets[..., 0]
    covers[number] = (sides > 0).all(axis=0).any() or (sides < 0).all(axis=0).any()
  return covers


@functools.partial(jax.jit, static_argnames='side')
def _fragments(
  places: Float[Array, 'places 3'], corners: Int[Array, 'faces 3'], side: int
) -> tuple[Int[Array, 'side side'], Float[Array, 'side side 3']]:
  fragments = rasterize(places[None], corners, side, side)
  return fragments.face_index[0], fragments.barycentric[0]


def _texels(layout: TextureLayout) -> _Texels:
  flat = np.concatenate([layout.places, np.zeros((len(layout.places), 1))], axis=1)
  corners = jnp.asarray(layout.corners, jnp.int32)
  face, shares = _fragments(jnp.asarray(flat, jnp.float32), corners, TEXTURE_SIDE)
  face, shares = np.asarray(face), np.asarray(shares)
  # Pixels round a face take its colours, so that viewers blend no other colour in.
  bare = (face < 0).astype(np.uint8)
  distance, label = cv2.distanceTransformWithLabels(
    bare, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
  )
  label = label.astype(np.int64)
  nearest = np.zeros(label.max() + 1, np.int64)
  covered = np.flatnonzero(bare == 0)
  nearest[label.ravel()[covered]] = covered
  is_colored = distance <= _BLEED
  source = nearest[label[is_colored]]
  vertices = layout.vertices[layout.corners[face.ravel()[source]]]
  shares = shares.reshape(-1, 3)[source]
  return _Texels(is_colored, np.ascontiguousarray(vertices.T), np.ascontiguousarray(shares.T))


@functools.cache
def _free_hand_texels() -> _Texels:
  return _texels(free_hand_layout())


def free_hand_texture(
  vertex_colors: Float[np.ndarray, 'vertices 3'],
) -> UInt8[np.ndarray, 'side side 3']:
  """Draws the picture of `free_hand_layout`. Pixels far from the hand get the mean colour."""
  is_colored, vertices, shares = _free_hand_texels()
  # Sums over the corners one after the other are much faster than one over an axis of three.
  first, second, third = (
    vertex_colors[corner] * share[:, None] for corner, share in zip(vertices, shares, strict=True)
  )
  picture = np.empty((*is_colored.shape, 3), np.uint8)
  picture[:] = to_bytes(vertex_colors.mean(axis=0))
  picture[is_colored] = to_bytes(first + second + third)
  return picture


def textured_obj_text(
  vertices: Float[np.ndarray, 'vertices 3'],
  faces: Int[np.ndarray, 'faces 3'],
  colors: Float[np.ndarray, 'vertices 3'],
  material_file: str,
  is_left: bool,
  axes: str,
) -> str:
  """Writes an OBJ of a free hand with vertex colours and texture coordinates.

  The first texture coordinates (v up) are those of the vertices, in order.

  Args:
    vertices: metres, camera axes.
    faces: indices of their corners.
    colors: sRGB in [0, 1].
    material_file: the name of the material's file.
    is_left: whether the hand is a left hand.
    axes: the axes of the file, see `in_axes`.
  """
  layout = free_hand_layout()
  corners = layout.corners[:, ::-1] if is_left else layout.corners
  u, v = layout.places[:, 0] / TEXTURE_SIDE, 1 - layout.places[:, 1] / TEXTURE_SIDE
  lines = [*vertex_lines(vertices, colors, axes), f'mtllib {material_file}', 'usemtl hand']
  lines += [f'vt {x:.6f} {y:.6f}' for x, y in zip(u, v, strict=True)]
  for ids, places in zip(np.asarray(faces) + 1, corners + 1, strict=True):
    pairs = zip(ids, places, strict=True)
    lines.append('f ' + ' '.join(f'{vertex}/{place}' for vertex, place in pairs))
  return '\n'.join(lines) + '\n'


def material_text(texture_file: str) -> str:
  """Writes the OBJ's material, which shows the picture's colours without any light."""
  lines = ['newmtl hand', 'Ka 1 1 1', 'Kd 1 1 1', 'Ks 0 0 0', 'illum 0']
  return '\n'.join([*lines, f'map_Kd {texture_file}']) + '\n'
