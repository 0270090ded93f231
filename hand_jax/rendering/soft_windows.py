"""What soft pictures are made of: windows of pixels round each face, and distances to its edges.

Pixels are visited in small windows round each face's bounding box, as many as the face and its blur
need: memory depends neither on the size of a face nor on the blur, and nothing is cut off short of
the blur radius.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from hand_jax.rendering.rasterize import pixel_span

# Edges of a smaller squared length count as points.
_SHORTEST_SQUARED = 1e-20

Body = Callable[[Int[Array, ''], tuple[Array, Array], Array], Array]


class Spans(NamedTuple):
  """Which windows each face needs, and the faces that need any, in front of `queue`."""

  first_x: Int[Array, 'faces']
  first_y: Int[Array, 'faces']
  columns: Int[Array, 'faces']
  windows: Int[Array, 'faces']
  queue: Int[Array, 'faces']
  count: Int[Array, '']


def window_spans(corners, valid, radius, height: int, width: int, window: tuple[int, int]) -> Spans:
  low, high = corners.min(axis=1) - radius, corners.max(axis=1) + radius
  first_x, span_x = pixel_span(low[:, 0], high[:, 0], width)
  first_y, span_y = pixel_span(low[:, 1], high[:, 1], height)
  columns = -(-span_x // window[1])
  windows = jnp.where(valid, columns * -(-span_y // window[0]), 0)
  (queue,) = jnp.nonzero(windows, size=windows.shape[0], fill_value=0)
  return Spans(first_x, first_y, columns, windows, queue, jnp.count_nonzero(windows))


def for_each_window(spans: Spans, window: tuple[int, int], body: Body, start: Array) -> Array:
  """Folds `body(face, (row, column) of the window's first pixel, value)` over all windows.

  No pixel is met twice by a face. Windows may reach over the right and lower border of the image
  by less than their size (see `padded`).
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
  return jnp.pad(image, ((0, window[0]), (0, window[1])))


def pixel_centers(origin, window: tuple[int, int], dtype) -> tuple[Array, Array]:
  x = lax.broadcasted_iota(jnp.int32, window, 1) + origin[1]
  y = lax.broadcasted_iota(jnp.int32, window, 0) + origin[0]
  return x.astype(dtype) + 0.5, y.astype(dtype) + 0.5


class EdgeTable(NamedTuple):
  """Per face, what distances need beside its corners; nothing of it is differentiated."""

  inverse_squared: Float[Array, 'faces 3']  # 1 / |edge|^2 from corner i to i + 1; 0 for a point
  winding: Float[Array, 'faces']  # sign of the area, 0 for a face without area


def edge_table(corners: Float[Array, 'faces 3 2']) -> EdgeTable:
  edges = jnp.roll(corners, -1, axis=1) - corners
  squared = jnp.sum(edges**2, axis=-1)
  proper = squared > _SHORTEST_SQUARED
  area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
  return EdgeTable(jnp.where(proper, 1 / jnp.where(proper, squared, 1), 0), jnp.sign(area))


def squared_distance(corners, inverse_squared, winding, x, y):
  """Squared distance of points to a triangle's boundary, and whether they are inside.

  `corners` is a list ax, ay, bx, by, cx, cy. The place of the nearest point on each edge counts as
  constant in derivatives: it is either a minimum along the edge or an end of it, so that is exact.
  """
  nearest, inside = None, None
  for i in range(3):
    ax, ay, bx, by = (*corners[2 * i : 2 * i + 2], *corners[(2 * i + 2) % 6 :][:2])
    to_x, to_y, edge_x, edge_y = x - ax, y - ay, bx - ax, by - ay
    along = jnp.clip((to_x * edge_x + to_y * edge_y) * inverse_squared[i], 0, 1)
    along = lax.stop_gradient(along)
    squared = (to_x - along * edge_x) ** 2 + (to_y - along * edge_y) ** 2
    left = (edge_x * to_y - edge_y * to_x) * winding > 0
    nearest = squared if i == 0 else jnp.minimum(nearest, squared)
    inside = left if i == 0 else inside & left
  return nearest, inside


def coverage_logit(squared, inside, sigma):
  """The argument of D's sigmoid; infinite where all slopes are 0 times finite numbers."""
  return jnp.where(inside, squared, -squared) / sigma
