"""Finds the face that each pixel sees, and the visible vertices, by a batched z-buffer.

The hit test uses edge functions, not normalised barycentrics. So it is exact wherever float32 holds
the products exactly (coordinates on a grid of 1/4 pixel in images up to 1000 pixels), and edge
pixels are inclusive there. Each edge is evaluated from its lower-numbered vertex, for both faces
that share it. The two faces then compute the same number with opposite signs, and no pixel falls
between them. Elsewhere rounding decides about a pixel centre within about 1e-5 pixels of an edge
(or within 2e-7 times the largest coordinate of the edge's ends, if that is more).

Depths are compared in the type of the vertices, not packed. In float32 a face's depth at a pixel is
known to about 3e-7 times its greatest depth. Faces farther apart than this are ordered correctly,
and rounding decides about closer ones. An example is a pixel on an edge that two sloped faces
share, where both have the depth of the edge except for rounding. If the computed depths are equal,
the lower face index wins. Repeated faces and parallel faces of constant depth have equal depths.

The face that a pixel sees is found in one of two forms, which agree. On a CPU each face tests the
pixels in small windows. On other devices chunks of faces are tested at all pixels at once. A loop
of thousands of small steps suits a CPU best and an accelerator worst. The second form is plain XLA,
not a hand-written kernel. It fuses into one pass over the pixels per chunk, keeps nothing of a
chunk in memory, and compiles for TPUs (benchmarks/tpu_rendering.py).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Real

from hand_jax.rendering.inputs import checked_mesh
from hand_jax.types import ArrayLike, Fragments

# Each loop step tests one window of pixels. Its shape was measured (benchmarks/rasterizer.py). On a
# CPU, XLA compiles the loop into one function only while a step touches less than about 1 kB.
WINDOW_HEIGHT = 2
WINDOW_WIDTH = 16
# This many faces are tested at all pixels at once. On a CPU it is the fastest of 8, 32 and 128.
CHUNK = 32
# Face indices are kept as float32 while rasterizing, which is exact up to this number.
MAX_FACES = 2**24
# Coordinates and areas outside these limits are not drawn. Within them, products of coordinates and
# inverse squares of areas stay finite in float32, so that no gradient becomes infinity times zero.
# Both limits are far beyond float32's resolution in an image.
LARGEST_COORDINATE = 1e8
SMALLEST_AREA = 1e-10


class _FaceTable(NamedTuple):
  """Edge functions and depths of each face, whose vertices a, b, c have ascending ids.

  The edge function of the edge opposite vertex v is `edge_v[0] * (x - anchor_x) + edge_v[1] *
  (y - anchor_y)`. The coefficients are signed by the face's area, so that the function is positive
  inside. Edges ab and ac are anchored at a, and edge bc at b.
  """

  anchor_a: Float[Array, 'faces 2']
  anchor_b: Float[Array, 'faces 2']
  edge_a: Float[Array, 'faces 2']
  edge_b: Float[Array, 'faces 2']
  edge_c: Float[Array, 'faces 2']
  depth: Float[Array, 'faces 3']  # of a, and of b and c relative to a
  area: Float[Array, 'faces']


def rasterize(
  vertices_image: Real[ArrayLike, 'batch vertices 3'],
  faces: Int[ArrayLike, 'faces 3'],
  height: int,
  width: int,
) -> Fragments:
  """Finds the nearest face at each pixel's centre, with screen-space barycentrics and depth.

  Both sides of a face are seen, and faces may have any size. A pixel on an edge belongs to the
  face. Of equal computed depths the lower face index wins (the module states the precision of
  depths). A face is never hit if its area in the image is nearly zero (twice the area is below
  `SMALLEST_AREA` square pixels), or if it has a vertex that is not finite or beyond
  `LARGEST_COORDINATE`. So NaN marks vertices that must not be drawn.

  Barycentrics and depth are differentiable in `vertices_image`, but the choice of the face is not.
  Gradients are finite, and zero for vertices of faces that no pixel sees.

  Args:
    vertices_image: pixel x, pixel y and depth. Pixel centres lie at +0.5. Smaller depths are
      nearer. They may be negative, because weak-perspective depths are relative. The caller has
      to clip at a camera.
    faces: vertex ids.
    height: height of the image, pixels.
    width: width of the image, pixels.

  Returns:
    Face index, barycentrics in the order of the face's vertices, and depth. Background pixels hold
    -1, 0 and +inf. Barycentrics and depth are float64 for float64 vertices, float32 otherwise.

  Raises:
    ValueError: the image is empty, there are `MAX_FACES` faces or more, or `checked_mesh` refuses
      the mesh. Traced vertex ids are not checked.
  """
  vertices_image, faces = checked_mesh(vertices_image, faces)
  if height < 1 or width < 1:
    raise ValueError(f'rasterize needs a positive image size, got height {height}, width {width}')
  if faces.shape[0] >= MAX_FACES:
    raise ValueError(f'rasterize takes fewer than {MAX_FACES} faces, got {faces.shape[0]}')
  if vertices_image.shape[0] == 0 or faces.shape[0] == 0:
    return _background(vertices_image, height, width)
  face_index = lax.platform_dependent(
    lax.stop_gradient(vertices_image),
    faces,
    cpu=functools.partial(_nearest_faces_in_windows, height=height, width=width),
    default=functools.partial(_nearest_faces_of_chunks, height=height, width=width),
  )
  barycentric, depth = lax.map(
    lambda image: _barycentrics_and_depth(image[0], faces, image[1]), (vertices_image, face_index)
  )
  return Fragments(face_index, barycentric, depth)


def visible_vertices(
  vertices_image: Real[ArrayLike, 'batch vertices 3'],
  faces: Int[ArrayLike, 'faces 3'],
  height: int,
  width: int,
  depth_tolerance: float = 1e-5,
  hand_mask: Bool[Array, 'batch height width'] | None = None,
) -> Bool[Array, 'batch vertices']:
  """Finds the vertices that project inside the image and that no face hides.

  The result does not depend on the pixel grid, because every vertex is tested at its own position
  against every face that does not contain it. It has no gradient.

  With a mask, an object hides every vertex whose pixel lies outside the mask and has none of its
  eight neighbours inside. The neighbours count because silhouette vertices lie on the mask's edge.

  Args:
    vertices_image: pixel x, pixel y and depth, as for `rasterize`.
    faces: vertex ids.
    height: height of the image, pixels.
    width: width of the image, pixels.
    depth_tolerance: a face must be nearer than a vertex by more than this to hide it, in the unit
      of depth (0.01 mm by default, for metres). Otherwise copies of a vertex along a seam would
      hide each other.
    hand_mask: True for pixels that show the hand, with nothing in front of it.

  Returns:
    True for visible vertices.

  Raises:
    ValueError: the mask is not of the image's size, or `checked_mesh` refuses the mesh.
  """
  vertices_image, faces = checked_mesh(vertices_image, faces)
  expected = (vertices_image.shape[0], height, width)
  if hand_mask is not None and hand_mask.shape != expected:
    raise ValueError(f'hand_mask has shape {hand_mask.shape}, expected {expected} (image size)')
  fixed = lax.stop_gradient(vertices_image)
  x, y, depth = jnp.moveaxis(fixed, -1, 0)
  visible = (x >= 0) & (x < width) & (y >= 0) & (y < height) & jnp.isfinite(depth)
  vertex_ids = jnp.arange(fixed.shape[1])

  # Each step tests one face against the vertices of the whole batch, which fill a CPU's vector
  # registers. That is several times faster there than a reduction over all pairs.
  def step(visible, face):
    table, corners = face
    hit, face_depth = _test_points(table, x, y)
    foreign = (vertex_ids != corners[0]) & (vertex_ids != corners[1]) & (vertex_ids != corners[2])
    return visible & ~(hit & foreign[None] & (face_depth < depth - depth_tolerance)), None

  if faces.shape[0] > 0:
    table = jax.vmap(_face_table, (0, None), out_axes=1)(fixed, faces)
    table = jax.tree.map(lambda field: field[:, :, None], table)
    visible = lax.scan(step, visible, (table, faces), unroll=4)[0]
  return visible if hand_mask is None else visible & near_mask(fixed, hand_mask)


def near_mask(
  vertices_image: Float[Array, 'batch vertices 3'], mask: Bool[Array, 'batch height width']
) -> Bool[Array, 'batch vertices']:
  """Returns whether the pixel of a vertex, or one of its eight neighbours, is in the mask.

  Args:
    vertices_image: pixel x, pixel y and depth.
    mask: True for pixels that show the hand, with nothing in front of it.
  """
  height, width = mask.shape[1:]
  # Vertices outside the image take a pixel of its border, but the caller does not count them.
  column = jnp.clip(jnp.floor(vertices_image[..., 0]), 0, width - 1).astype(jnp.int32)
  row = jnp.clip(jnp.floor(vertices_image[..., 1]), 0, height - 1).astype(jnp.int32)
  padded = jnp.pad(mask, ((0, 0), (1, 1), (1, 1)))
  image = jnp.arange(mask.shape[0])[:, None, None]
  shift_y, shift_x = (jnp.asarray(shift.ravel())[None, None] for shift in np.mgrid[:3, :3])
  return jnp.any(padded[image, row[..., None] + shift_y, column[..., None] + shift_x], axis=-1)


def drawable_corners(
  vertices: Float[Array, '*batch vertices 3'], faces: Int[Array, 'faces 3']
) -> Float[Array, '*batch faces 3 3']:
  """Gathers the positions of each face's vertices, all zero for a face that cannot be drawn.

  Such a face has a vertex that is not finite or beyond `LARGEST_COORDINATE`. It passes no gradient
  on, so that one broken vertex breaks neither its neighbours nor their gradients.
  """
  corners = vertices[..., faces, :]
  # NaN compares as false.
  drawable = jnp.all(jnp.abs(corners) <= LARGEST_COORDINATE, axis=(-1, -2), keepdims=True)
  return jnp.where(drawable, corners, 0)


def _background(vertices_image: Array, height: int, width: int) -> Fragments:
  shape, dtype = (vertices_image.shape[0], height, width), vertices_image.dtype
  index = jnp.full(shape, -1, jnp.int32)
  return Fragments(index, jnp.zeros((*shape, 3), dtype), jnp.full(shape, jnp.inf, dtype))


def _face_table(vertices: Float[Array, 'vertices 3'], faces: Int[Array, 'faces 3']) -> _FaceTable:
  """Computes edge functions and depths of all faces. Faces that are never hit get area 0."""
  corners = drawable_corners(vertices, jnp.sort(faces, axis=1))
  a, b, c = corners[:, 0, :2], corners[:, 1, :2], corners[:, 2, :2]
  ab, ac, bc = b - a, c - a, c - b
  area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
  area = jnp.where(jnp.abs(area) >= SMALLEST_AREA, area, 0)
  sign = jnp.sign(area)[:, None]

  def normal(edge):
    return sign * jnp.stack([-edge[:, 1], edge[:, 0]], axis=1)

  depth_a, depth_b, depth_c = corners[:, 0, 2], corners[:, 1, 2], corners[:, 2, 2]
  depth = jnp.stack([depth_a, depth_b - depth_a, depth_c - depth_a], axis=1)
  return _FaceTable(a, b, normal(bc), -normal(ac), normal(ab), depth, jnp.abs(area))


def _test_points(table: _FaceTable, x, y):
  """Returns whether each face contains the point, and the depth of the face there.

  Leading axes broadcast.
  """
  ax, ay = x - table.anchor_a[..., 0], y - table.anchor_a[..., 1]
  bx, by = x - table.anchor_b[..., 0], y - table.anchor_b[..., 1]
  weight_a = table.edge_a[..., 0] * bx + table.edge_a[..., 1] * by
  weight_b = table.edge_b[..., 0] * ax + table.edge_b[..., 1] * ay
  weight_c = table.edge_c[..., 0] * ax + table.edge_c[..., 1] * ay
  hit = (weight_a >= 0) & (weight_b >= 0) & (weight_c >= 0) & (table.area > 0)
  # Depths are relative to vertex a, so that a face of constant depth gets exactly that depth and
  # ties stay ties.
  slope = weight_b * table.depth[..., 1] + weight_c * table.depth[..., 2]
  return hit, table.depth[..., 0] + slope / table.area


def pixel_span(low, high, size: int):
  """Finds the pixels whose centres lie in [low, high] along one axis, clipped to the image.

  Args:
    low: lower ends of the intervals, pixels.
    high: upper ends of the intervals, pixels.
    size: number of pixels of the image along the axis.

  Returns:
    The first pixel of each interval, and the number of its pixels.
  """
  first = jnp.clip(jnp.ceil(low - 0.5), 0, size).astype(jnp.int32)
  last = jnp.clip(jnp.floor(high - 0.5), -1, size - 1).astype(jnp.int32)
  return first, jnp.maximum(last - first + 1, 0)


def _nearest_faces_of_chunks(
  vertices_image: Float[Array, 'batch vertices 3'],
  faces: Int[Array, 'faces 3'],
  height: int,
  width: int,
) -> Int[Array, 'batch height width']:
  """Tests every pixel against every face, a chunk of faces at a time."""
  x = (jnp.arange(width) + 0.5)[None, None, None, :]
  y = (jnp.arange(height) + 0.5)[None, None, :, None]
  # Padding adds faces that repeat vertex 0, which have no area.
  padding = -faces.shape[0] % CHUNK
  chunks = jnp.pad(faces, ((0, padding), (0, 0))).reshape(-1, CHUNK, 3)

  def step(nearest, chunk):
    depth, face_index = nearest
    first, chunk_faces = chunk
    table = jax.vmap(_face_table, (0, None))(vertices_image, chunk_faces)
    table = jax.tree.map(lambda field: field[:, :, None, None], table)
    hit, chunk_depth = _test_points(table, x, y)
    chunk_depth = jnp.where(hit, chunk_depth, jnp.inf)
    found = jnp.min(chunk_depth, axis=1)
    # The first of equal depths wins, within a chunk and between chunks. `argmin` would need XLA's
    # reduction of pairs, which is twenty times slower on a CPU.
    ids = first + jnp.arange(CHUNK, dtype=jnp.int32)[None, :, None, None]
    found_index = jnp.min(jnp.where(chunk_depth == found[:, None], ids, MAX_FACES), axis=1)
    nearer = found < depth
    return (jnp.where(nearer, found, depth), jnp.where(nearer, found_index, face_index)), None

  shape = (vertices_image.shape[0], height, width)
  start = (jnp.full(shape, jnp.inf, vertices_image.dtype), jnp.full(shape, -1, jnp.int32))
  firsts = jnp.arange(chunks.shape[0], dtype=jnp.int32) * CHUNK
  return lax.scan(step, start, (firsts, chunks))[0][1]


def _nearest_faces_in_windows(
  vertices_image: Float[Array, 'batch vertices 3'],
  faces: Int[Array, 'faces 3'],
  height: int,
  width: int,
) -> Int[Array, 'batch height width']:
  return lax.map(lambda vertices: _windows_of_faces(vertices, faces, height, width), vertices_image)


def _windows_of_faces(
  vertices: Float[Array, 'vertices 3'], faces: Int[Array, 'faces 3'], height: int, width: int
) -> Int[Array, 'height width']:
  """Visits the windows that cover each face's bounding box, one face after the other.

  Faces come in ascending order and replace a pixel only when they are strictly nearer, which
  implements the rule for ties. A face of any size is exact, but a large one takes more windows.
  """
  table = _face_table(vertices, faces)
  corners = vertices[faces]
  low, high = corners[..., :2].min(axis=1), corners[..., :2].max(axis=1)
  first_x, span_x = pixel_span(low[:, 0], high[:, 0], width)
  first_y, span_y = pixel_span(low[:, 1], high[:, 1], height)
  columns = -(-span_x // WINDOW_WIDTH)
  windows = jnp.where(table.area > 0, columns * -(-span_y // WINDOW_HEIGHT), 0)
  # Faces between pixel centres or outside the image take no step at all.
  (queue,) = jnp.nonzero(windows, size=faces.shape[0], fill_value=0)
  count = jnp.count_nonzero(windows)
  # A window that would leave the buffer is moved back inside.
  buffer_height, buffer_width = max(height, WINDOW_HEIGHT), max(width, WINDOW_WIDTH)
  offset_x = jnp.arange(WINDOW_WIDTH)[None, :] + 0.5
  offset_y = jnp.arange(WINDOW_HEIGHT)[:, None] + 0.5

  def step(state):
    position, window, buffer = state
    face = queue[position]
    row, column = window // columns[face], window % columns[face]
    start = (
      jnp.minimum(first_y[face] + row * WINDOW_HEIGHT, buffer_height - WINDOW_HEIGHT),
      jnp.minimum(first_x[face] + column * WINDOW_WIDTH, buffer_width - WINDOW_WIDTH),
    )
    one_face = jax.tree.map(lambda field: field[face][(None, None)], table)
    hit, depth = _test_points(one_face, start[1] + offset_x, start[0] + offset_y)
    old = lax.dynamic_slice(buffer, start, (WINDOW_HEIGHT, WINDOW_WIDTH))
    new = lax.complex(depth, jnp.full_like(depth, face))
    new = jnp.where(hit & (depth < old.real), new, old)
    buffer = lax.dynamic_update_slice(buffer, new, start)
    last = window + 1 >= windows[face]
    return position + last, jnp.where(last, 0, window + 1), buffer

  # Depth and face index share one buffer, as the two parts of a complex number. With two buffers,
  # or one with a leading axis of two, XLA's CPU code for a step is 8 to 100 times slower.
  dtype = jnp.result_type(vertices.dtype, jnp.complex64)
  buffer = jnp.full((buffer_height, buffer_width), complex(float('inf'), -1), dtype)
  start = (jnp.int32(0), jnp.int32(0), buffer)
  buffer = lax.while_loop(lambda state: state[0] < count, step, start)[2]
  return buffer[:height, :width].imag.astype(jnp.int32)


def _pixel_functions(vertices, faces):
  """Computes 16 numbers per face that give a pixel's (unnormalised) barycentrics and depth.

  Four affine functions of the pixel relative to vertex a give the three barycentrics, in the face's
  own order, and the depth minus the depth of a. The columns hold their x and y coefficients, their
  constants, the position of a, 1 / area and the depth of a.
  """
  table = _face_table(vertices, faces)
  valid = table.area > 0
  edges = jnp.stack([table.edge_a, table.edge_b, table.edge_c], axis=1)
  slope = table.edge_b * table.depth[:, 1:2] + table.edge_c * table.depth[:, 2:3]
  constants = jnp.stack([table.area, *[jnp.zeros_like(table.area)] * 2], axis=1)
  own_order = jnp.argsort(jnp.argsort(faces, axis=1), axis=1)
  edges = jnp.take_along_axis(edges, own_order[..., None], axis=1)
  constants = jnp.take_along_axis(constants, own_order, axis=1)
  inverse_area = jnp.where(valid, 1 / jnp.where(valid, table.area, 1), 0)
  fields = [edges[..., 0], slope[:, :1], edges[..., 1], slope[:, 1:], constants]
  fields += [
    jnp.zeros_like(slope[:, :1]),
    table.anchor_a,
    inverse_area[:, None],
    table.depth[:, :1],
  ]
  rows = jnp.concatenate(fields, axis=1)
  # Faces that no pixel sees must not bring NaN into a gradient.
  return jnp.where(valid[:, None], rows, 0)


def _barycentrics_and_depth(vertices, faces, face_index):
  """Recomputes barycentrics and depth at the seen face, from one row of a table per pixel.

  One gather per pixel is cheap to differentiate.
  """
  height, width = face_index.shape
  hit = (face_index >= 0)[..., None]
  rows = _pixel_functions(vertices, faces)[jnp.maximum(face_index, 0)]
  x = (jnp.arange(width) + 0.5)[None, :, None] - rows[..., 12:13]
  y = (jnp.arange(height) + 0.5)[:, None, None] - rows[..., 13:14]
  values = (rows[..., :4] * x + rows[..., 4:8] * y + rows[..., 8:12]) * rows[..., 14:15]
  barycentric = jnp.where(hit, values[..., :3], 0)
  depth = jnp.where(hit[..., 0], values[..., 3] + rows[..., 15], jnp.inf)
  return barycentric, depth
