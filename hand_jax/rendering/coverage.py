"""Computes the product of 1 - D over all faces, and its derivatives (see soft.py), in two forms.

On a CPU windows round each face are visited one after the other (`soft_windows.py`). On other
devices all tiles of the pictures are computed at once (`tiles.py`). Both compute the same numbers
except for rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from hand_jax.rendering.soft_windows import (
  coverage_logit,
  edge_table,
  edges_of,
  for_each_window,
  padded,
  pixel_centers,
  squared_distance,
  window_spans,
)
from hand_jax.rendering.tiles import (
  SIDE,
  add_to_faces,
  fold_faces,
  from_tiles,
  take,
  take_edges,
  tiles_of,
  to_tiles,
)

# Each loop step visits one window of pixels. This shape was measured. As in the hard rasterizer, a
# step has to touch less than about 1 kB to be quick on a CPU. For the same reason a step sums only
# two numbers, as the parts of a complex one.
_WINDOW = (2, 16)


def _uncovered(height: int, width: int, corners, valid, sigma, radius):
  """Multiplies 1 - D over all faces at each pixel.

  Args:
    height: height of the pictures, pixels.
    width: width of the pictures, pixels.
    corners: (batch, faces, 3, 2) corners of the faces, pixels.
    valid: (batch, faces) whether a face is drawn.
    sigma: softness, square pixels.
    radius: blur radius, pixels. It has no derivative.

  Returns:
    An array (batch, height, width).
  """
  return lax.platform_dependent(
    corners,
    valid,
    sigma,
    radius,
    cpu=functools.partial(uncovered_in_windows, height, width),
    default=functools.partial(uncovered_in_tiles, height, width),
  )


uncovered = jax.custom_vjp(_uncovered, nondiff_argnums=(0, 1))


def _forward(height, width, corners, valid, sigma, radius):
  image = uncovered(height, width, corners, valid, sigma, radius)
  return image, (corners, valid, sigma, radius, image)


def _backward(height, width, residuals, cotangent):
  """Uses d image / d logit of a face = -image D."""
  corners, valid, sigma, radius, image = residuals
  by_corners, by_sigma = lax.platform_dependent(
    corners,
    valid,
    sigma,
    radius,
    -cotangent * image,
    cpu=slopes_in_windows,
    default=slopes_in_tiles,
  )
  return by_corners, np.zeros(valid.shape, jax.dtypes.float0), by_sigma, radius * 0


uncovered.defvjp(_forward, _backward)


def uncovered_in_windows(height: int, width: int, corners, valid, sigma, radius) -> Array:
  """Computes `uncovered` on a CPU.

  Args:
    height: height of the pictures, pixels.
    width: width of the pictures, pixels.
    corners: (batch, faces, 3, 2) corners of the faces, pixels.
    valid: (batch, faces) whether a face is drawn.
    sigma: softness, square pixels.
    radius: blur radius, pixels.
  """

  def one(image):
    corners, valid = image
    table = edge_table(corners)
    flat = corners.reshape(-1, 6)

    def body(face, origin, image):
      x, y = pixel_centers(origin, _WINDOW, corners.dtype)
      squared, inside = squared_distance(list(flat[face]), edges_of(face, table), x, y)
      left_over = 1 / (1 + jnp.exp(coverage_logit(squared, inside, sigma)))
      left_over = jnp.where(inside | (squared < radius**2), left_over, 1)
      old = lax.dynamic_slice(image, origin, _WINDOW)
      return lax.dynamic_update_slice(image, old * left_over, origin)

    spans = window_spans(corners, valid, radius, height, width, _WINDOW)
    start = jnp.ones((height + _WINDOW[0], width + _WINDOW[1]), corners.dtype)
    return for_each_window(spans, _WINDOW, body, start)[:height, :width]

  return lax.map(one, (corners, valid))


def slopes_in_windows(corners, valid, sigma, radius, weight) -> tuple[Array, Array]:
  """Sums the derivatives by the corners and by sigma over each face's pixels.

  Args:
    corners: as in `uncovered`, like the next three arguments.
    valid: whether a face is drawn.
    sigma: softness, square pixels.
    radius: blur radius, pixels.
    weight: (batch, height, width) the derivative by the sum of logits, divided by -D.

  Returns:
    The derivatives by corners and by sigma.
  """
  height, width = weight.shape[1:]

  def one(image):
    corners, valid, weight = image
    table = edge_table(corners)
    flat = corners.reshape(-1, 6)
    weight = padded(weight, _WINDOW)
    spans = window_spans(corners, valid, radius, height, width, _WINDOW)

    def totals(first):
      """Sums derivatives by parameter `first` and the next one, as a complex number."""

      def body(face, origin, sums):
        x, y = pixel_centers(origin, _WINDOW, corners.dtype)
        parameters = [*flat[face], sigma]

        def logit(*some):
          numbers = parameters[:first] + [*some] + parameters[first + 2 :]
          squared, inside = squared_distance(numbers[:6], edges_of(face, table), x, y)
          return coverage_logit(squared, inside, numbers[6]), inside | (squared < radius**2)

        # One copy of a parameter per pixel gives the derivatives pixel by pixel.
        some = [jnp.broadcast_to(value, _WINDOW) for value in parameters[first : first + 2]]
        value, pull_back, reached = jax.vjp(logit, *some, has_aux=True)
        slope = lax.dynamic_slice(weight, origin, _WINDOW) / (1 + jnp.exp(-value))
        terms = pull_back(jnp.where(reached, slope, 0))
        return sums.at[face].add(jnp.sum(lax.complex(*terms) if len(terms) == 2 else terms[0]))

      dtype = corners.dtype if first == 6 else jnp.result_type(corners.dtype, jnp.complex64)
      return for_each_window(spans, _WINDOW, body, jnp.zeros(corners.shape[0], dtype))

    by_corner = jnp.stack([totals(0), totals(2), totals(4)], axis=1)
    return jnp.stack([by_corner.real, by_corner.imag], axis=2), jnp.sum(totals(6))

  by_corners, by_sigma = lax.map(one, (corners, valid, weight))
  return by_corners, jnp.sum(by_sigma)


def uncovered_in_tiles(height: int, width: int, corners, valid, sigma, radius) -> Array:
  """Computes `uncovered` on accelerators.

  Args:
    height: height of the pictures, pixels.
    width: width of the pictures, pixels.
    corners: (batch, faces, 3, 2) corners of the faces, pixels.
    valid: (batch, faces) whether a face is drawn.
    sigma: softness, square pixels.
    radius: blur radius, pixels.
  """
  tiles = tiles_of(corners, valid, radius, height, width)
  table, flat = edge_table_of_batch(corners), corners.reshape(*corners.shape[:2], 6)

  def multiply(faces, exist, image):
    numbers, edges = take(flat, faces), take_edges(table, faces)
    squared, inside = squared_distance(numbers, edges, tiles.x, tiles.y)
    left_over = 1 / (1 + jnp.exp(coverage_logit(squared, inside, sigma)))
    reached = exist & (inside | (squared < radius**2))
    return image * jnp.prod(jnp.where(reached, left_over, 1), axis=2, keepdims=True)

  shape = (corners.shape[0], tiles.x.shape[1], 1, SIDE, SIDE)
  return from_tiles(fold_faces(tiles, multiply, jnp.ones(shape, corners.dtype)), height, width)


def slopes_in_tiles(corners, valid, sigma, radius, weight) -> tuple[Array, Array]:
  """Computes `slopes_in_windows` on accelerators.

  Args:
    corners: (batch, faces, 3, 2) corners of the faces, pixels.
    valid: (batch, faces) whether a face is drawn.
    sigma: softness, square pixels.
    radius: blur radius, pixels.
    weight: (batch, height, width) the derivative by the sum of logits, divided by -D.

  Returns:
    The derivatives by corners and by sigma.
  """
  tiles = tiles_of(corners, valid, radius, *weight.shape[1:])
  table, flat = edge_table_of_batch(corners), corners.reshape(*corners.shape[:2], 6)
  weight = to_tiles(weight)

  def add(faces, exist, state):
    sums, by_sigma = state
    edges = take_edges(table, faces)

    def logit(sigma, *numbers):
      squared, inside = squared_distance(list(numbers), edges, tiles.x, tiles.y)
      return coverage_logit(squared, inside, sigma), exist & (inside | (squared < radius**2))

    value, pull_back, reached = jax.vjp(logit, sigma, *take(flat, faces), has_aux=True)
    term, *terms = pull_back(jnp.where(reached, weight / (1 + jnp.exp(-value)), 0))
    return add_to_faces(sums, faces, terms), by_sigma + term

  sums, by_sigma = fold_faces(tiles, add, (jnp.zeros_like(flat), jnp.zeros_like(sigma)))
  return sums.reshape(corners.shape), by_sigma


edge_table_of_batch = jax.vmap(edge_table)
