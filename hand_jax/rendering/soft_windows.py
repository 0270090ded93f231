"""Holds the parts of soft rendering: windows of pixels round each face, and distances to its edges.

Pixels are visited in small windows round each face's bounding box, as many as the face and its blur
need. So memory depends neither on the size of a face nor on the blur, and no pixel within the blur
radius is left out.

Distances are measured to lines that are given by a point near the image and a direction. So an edge
that reaches far out is as exact in the image as a short one (`edge_table`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from hand_jax.rendering.rasterize import pixel_span

# Edges of a smaller squared length (square pixels) count as points.
_SHORTEST_SQUARED = 1e-20
# Edges longer than this (pixels) are measured from their point nearest to the image, to keep
# float32 precision.
_LONG = 100.0

Body = Callable[[Int[Array, ''], tuple[Array, Array], Array], Array]


class Spans(NamedTuple):
  """The windows that each face needs, for `for_each_window`."""

  first_x: Int[Array, 'faces']
  """Column of the first window's first pixel, for each face."""
  first_y: Int[Array, 'faces']
  """Row of the first window's first pixel, for each face."""
  columns: Int[Array, 'faces']
  """Number of windows side by side, for each face."""
  windows: Int[Array, 'faces']
  """Number of all windows, for each face."""
  queue: Int[Array, 'faces']
  """The faces that need any window come first, in ascending order."""
  count: Int[Array, '']
  """Number of faces that need any window."""


def window_spans(corners, valid, radius, height: int, width: int, window: tuple[int, int]) -> Spans:
  """Finds the windows that cover each face and its blur.

  Args:
    corners: corners of the faces, pixels.
    valid: whether a face is drawn at all.
    radius: blur radius, pixels.
    height: height of the image, pixels.
    width: width of the image, pixels.
    window: height and width of a window, pixels.
  """
  low, high = corners.min(axis=1) - radius, corners.max(axis=1) + radius
  first_x, span_x = pixel_span(low[:, 0], high[:, 0], width)
  first_y, span_y = pixel_span(low[:, 1], high[:, 1], height)
  columns = -(-span_x // window[1])
  windows = jnp.where(valid, columns * -(-span_y // window[0]), 0)
  (queue,) = jnp.nonzero(windows, size=windows.shape[0], fill_value=0)
  return Spans(first_x, first_y, columns, windows, queue, jnp.count_nonzero(windows))


def for_each_window(spans: Spans, window: tuple[int, int], body: Body, start: Array) -> Array:
  """Folds a function over all windows of all faces.

  A face meets no pixel twice. Windows may reach over the right and lower border of the image by
  less than their size (see `padded`).

  Args:
    spans: the windows, from `window_spans`.
    window: height and width of a window, pixels.
    body: called as `body(face, (row, column) of the window's first pixel, value)`. It returns the
      next value.
    start: the first value.

  Returns:
    The last value.
  """

  def step(state):
    position, number, value = state
    face = spans.queue[position]
    columns = spans.columns[face]
    row, column = number // columns, number % columns
    origin = (spans.first_y[face] + row * window[0], spans.first_x[face] + column * window[1])
    value = body(face, origin, value)
    last = number + 1 >= spans.windows[face]
    return position + last, jnp.where(last, 0, number + 1), value

  state = (jnp.int32(0), jnp.int32(0), start)
  return lax.while_loop(lambda state: state[0] < spans.count, step, state)[2]


def padded(image: Array, window: tuple[int, int]) -> Array:
  """Pads an image with zeros on the right and below, so that windows may reach over its border."""
  return jnp.pad(image, ((0, window[0]), (0, window[1])))


def pixel_centers(origin, window: tuple[int, int], dtype) -> tuple[Array, Array]:
  """Returns the x and y of all pixel centres of a window.

  Args:
    origin: row and column of the window's first pixel.
    window: height and width of the window, pixels.
    dtype: type of the result.
  """
  x = lax.broadcasted_iota(jnp.int32, window, 1) + origin[1]
  y = lax.broadcasted_iota(jnp.int32, window, 0) + origin[0]
  return x.astype(dtype) + 0.5, y.astype(dtype) + 0.5


class EdgeTable(NamedTuple):
  """Edges of faces, from corner i to i + 1, in a form for computing distances.

  All numbers count as constants in derivatives.
  """

  x: Float[Array, '*faces 3']  # a point on the edge
  y: Float[Array, '*faces 3']
  direction_x: Float[Array, '*faces 3']  # of length 1, also for an edge that is a point
  direction_y: Float[Array, '*faces 3']
  start: Float[Array, '*faces 3']  # places of the corners along the direction, from the point on
  end: Float[Array, '*faces 3']
  inverse_length: Float[Array, '*faces 3']  # 0 for a point
  winding: Float[Array, '*faces']  # sign of the area, 0 for a face without area


def edge_table(corners: Float[Array, 'faces 3 2']) -> EdgeTable:
  """Describes short edges by their first corners, and long ones by a point near the image.

  That point is the one of the edge that is nearest to the first pixel. Differences of pixels and
  far corners would lose most of the pixels' precision in float32, which is 0.06 pixels at a
  coordinate of 1e6. The line's distance from the origin is known far better, as the cross product
  of the edge's ends divided by its length.
  """
  ends = jnp.roll(corners, -1, axis=1)
  edges = ends - corners
  squared = jnp.sum(edges**2, axis=-1)
  proper = squared > _SHORTEST_SQUARED
  inverse = jnp.where(proper, 1 / jnp.sqrt(jnp.where(proper, squared, 1)), 0)
  length = squared * inverse
  direction = jnp.where(proper[..., None], edges * inverse[..., None], jnp.eye(2)[:1, None])
  far = length > _LONG
  crossed = _cross(corners, ends)
  # The end is not start + length. If the end is near the image, its own product is more precise.
  start = jnp.where(far, jnp.sum(corners * direction, axis=-1), 0)
  end = jnp.where(far, jnp.sum(ends * direction, axis=-1), length)
  place = jnp.clip(0, start, end)
  foot = (crossed * inverse)[..., None] * jnp.stack([direction[..., 1], -direction[..., 0]], -1)
  point = jnp.where(far[..., None], foot + place[..., None] * direction, corners)
  area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
  area = jnp.where(jnp.any(far, axis=1), jnp.sum(crossed, axis=1), area)
  sides = (*jnp.moveaxis(point, -1, 0), *jnp.moveaxis(direction, -1, 0))
  return EdgeTable._make((*sides, start - place, end - place, inverse, jnp.sign(area)))


def edges_of(face: Int[Array, ''], table: EdgeTable) -> EdgeTable:
  """Selects the edges of one face."""
  return EdgeTable(*(field[face] for field in table))


def _cross(a: Float[Array, '*shape 2'], b: Float[Array, '*shape 2']) -> Float[Array, '*shape']:
  """Computes ax by - ay bx, about 4000 times as precisely as float32 if the products nearly cancel.

  Numbers are split into halves, whose products are exact.
  """
  kind = jnp.finfo(a.dtype)

  def halves(value):
    high = lax.reduce_precision(value, kind.nexp, kind.nmant // 2)
    return high, value - high

  (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
  products = [
    one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    for one in (a_high, a_low)
    for other in (b_high, b_low)
  ]
  return products[0] + (products[1] + products[2]) + products[3]


def _each_edge(edges: EdgeTable, x, y):
  """Yields four things for each edge of a face.

  They are the squared distance, whether the point is on the inner side, the vector from the nearest
  point of the edge, and the weights of the edge's two ends at that nearest point.
  """
  for i in range(3):
    edge = EdgeTable._make((*(field[i] for field in edges[:-1]), edges.winding))
    to_x, to_y = x - edge.x, y - edge.y
    place = to_x * edge.direction_x + to_y * edge.direction_y
    aside = to_y * edge.direction_x - to_x * edge.direction_y
    met = jnp.clip(place, edge.start, edge.end)
    beyond = place - met
    way_x = beyond * edge.direction_x - aside * edge.direction_y
    way_y = beyond * edge.direction_y + aside * edge.direction_x
    # This is not 1 - the other share. The share of a far corner is small, and computed in this way
    # it is as precise as the distance from the near corner.
    first = jnp.where(edge.inverse_length > 0, (edge.end - met) * edge.inverse_length, 1)
    second = (met - edge.start) * edge.inverse_length
    yield aside**2 + beyond**2, aside * edges.winding > 0, (way_x, way_y), (first, second)


@jax.custom_jvp
def squared_distance(corners: list[Array], edges: EdgeTable, x, y) -> tuple[Array, Array]:
  """Computes squared distances of points to a triangle's boundary, and which points are inside.

  Args:
    corners: ax, ay, bx, by, cx and cy, pixels. The distance is differentiated by them, but its
      value does not use them.
    edges: the face's part of an `edge_table`, which determines the value.
    x: x of the points, pixels.
    y: y of the points, pixels.
  """
  squares, sides, *_ = zip(*_each_edge(edges, x, y), strict=True)
  return functools.reduce(jnp.minimum, squares), functools.reduce(jnp.logical_and, sides)


@squared_distance.defjvp
def _squared_distance_slope(primals, tangents) -> Any:
  """Moves the nearest point with the ends of its edge, at a constant place along the edge.

  This is exact, because that place is either a minimum along the edge or an end of the edge.
  """
  squared, inside = squared_distance(*primals)
  moves = tangents[0]
  slope, found = 0, jnp.zeros_like(inside)
  for i, (square, _, way, shares) in enumerate(_each_edge(*primals[1:])):
    move_x, move_y = (
      shares[0] * moves[2 * i + axis] + shares[1] * moves[(2 * i + 2) % 6 + axis] for axis in (0, 1)
    )
    chosen = (square == squared) & ~found
    slope += jnp.where(chosen, -2 * (way[0] * move_x + way[1] * move_y), 0)
    found |= chosen
  return (squared, inside), (slope, np.zeros(inside.shape, jax.dtypes.float0))


def coverage_logit(squared, inside, sigma):
  """Computes the argument of D's sigmoid.

  It may become infinite, but only where the slope is 0 and multiplies finite numbers.

  Args:
    squared: squared distance to the boundary, square pixels.
    inside: whether the point is inside the triangle.
    sigma: softness, square pixels.
  """
  return jnp.where(inside, squared, -squared) / sigma
