"""Blends the weights and colours of all faces at each pixel, in two forms (see soft.py).

On a CPU windows round each face are visited one after the other (`soft_windows.py`). On other
devices all tiles of the pictures are computed at once (`tiles.py`). Both compute the same numbers
except for rounding. Each form has its derivatives.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from hand_jax.rendering.coverage import edge_table_of_batch
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

# These shapes were measured, see coverage.py. The derivative sums too many numbers for quick steps.
# Large windows compensate for its slow ones.
_WINDOW = (1, 8)
_SLOPE_WINDOW = (8, 16)
# Triangles of a smaller area count as segments.
_SMALLEST_AREA = 1e-9
# Logarithm of a zero weight. It is finite, so that the difference of two is a number.
_NOTHING = -1e30

Blended = tuple[Float[Array, '*batch height width'], Float[Array, '*batch height width channels']]


def _blend_faces(height: int, width: int, numbers, valid, sigma, gamma, radius) -> Blended:
  """Computes the log of the faces' summed weights and their mean colour at each pixel.

  Args:
    height: height of the pictures, pixels.
    width: width of the pictures, pixels.
    numbers: (batch, faces, 9 + 3 channels) a face's six corner coordinates in pixels, three
      nearnesses and the colours of its corners.
    valid: (batch, faces) whether a face is drawn.
    sigma: softness of the coverage, square pixels.
    gamma: softness in nearness.
    radius: blur radius, pixels. It has no derivative.

  Returns:
    Arrays (batch, height, width) and (batch, height, width, channels).
  """
  return lax.platform_dependent(
    numbers,
    valid,
    sigma,
    gamma,
    radius,
    cpu=functools.partial(blended_in_windows, height, width),
    default=functools.partial(blended_in_tiles, height, width),
  )


blend_faces = jax.custom_vjp(_blend_faces, nondiff_argnums=(0, 1))


def _forward(height, width, numbers, valid, sigma, gamma, radius):
  exponent, color = blend_faces(height, width, numbers, valid, sigma, gamma, radius)
  return (exponent, color), (numbers, valid, sigma, gamma, radius, exponent, color)


def _backward(height, width, residuals, cotangents):
  """Uses d exponent = s d logit and d color = s (dc + (c - color) dl) for a face's share s."""
  numbers, valid, sigma, gamma, radius, exponent, color = residuals
  by_exponent, by_color = cotangents
  constant = by_exponent - jnp.sum(by_color * color, axis=-1)
  by_numbers, by_sigma, by_gamma = lax.platform_dependent(
    numbers,
    valid,
    sigma,
    gamma,
    radius,
    exponent,
    constant,
    by_color,
    cpu=slopes_in_windows,
    default=slopes_in_tiles,
  )
  nothing = np.zeros(valid.shape, jax.dtypes.float0)
  return by_numbers, nothing, by_sigma, by_gamma, radius * 0


blend_faces.defvjp(_forward, _backward)


def _fragment(parameters, edges, x, y, radius):
  """Computes the log of one face's weight at pixels, its colour, and whether it has any weight.

  `parameters` lists six corner coordinates, three nearnesses, the corners' colours, sigma, gamma.
  """
  *numbers, sigma, gamma = parameters
  ax, ay, bx, by, cx, cy = corners = numbers[:6]
  squared, inside = squared_distance(corners, edges, x, y)
  area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
  solid = jnp.abs(area) > _SMALLEST_AREA
  scale = 1 / jnp.where(solid, area, 1)
  weight_b = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) * scale
  weight_c = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * scale
  weights = [jnp.clip(weight, 0, 1) for weight in (1 - weight_b - weight_c, weight_b, weight_c)]
  norm = 1 / (weights[0] + weights[1] + weights[2])

  def weighted(a, b, c):
    return (weights[0] * a + weights[1] * b + weights[2] * c) * norm

  channels = (len(numbers) - 9) // 3
  by_corner = [numbers[9 + i * channels : 9 + (i + 1) * channels] for i in range(3)]
  colors = [weighted(*values) for values in zip(*by_corner, strict=True)]
  nearness = weighted(*numbers[6:9])
  reached = solid & (inside | (squared < radius**2)) & (nearness >= 0) & (nearness <= 1)
  exponent = _log_sigmoid(coverage_logit(squared, inside, sigma)) + nearness / gamma
  return (exponent, *colors), reached


def _log_sigmoid(x):
  """Computes log sigmoid to one rounding of 1.

  `log1p` would make a loop step six times as slow on a CPU.
  """
  return jnp.minimum(x, 0) - jnp.log(1 + jnp.exp(-jnp.abs(x)))


def _finished(peak, total, colors) -> Blended:
  """Computes the results from the greatest exponent and the sums of weights and of colours."""
  hit = total > 0
  safe = jnp.where(hit, total, 1)
  exponent = jnp.where(hit, peak + jnp.log(safe), _NOTHING)
  return exponent, colors / safe[..., None]


def blended_in_windows(height: int, width: int, numbers, valid, sigma, gamma, radius) -> Blended:
  """Computes `blend_faces` on a CPU.

  Each loop keeps one image. The first loop finds the greatest exponent, and the later loops sum
  weights and colours, two at a time.

  Args:
    height: height of the pictures, pixels.
    width: width of the pictures, pixels.
    numbers: (batch, faces, 9 + 3 channels) the faces, as in `blend_faces`.
    valid: (batch, faces) whether a face is drawn.
    sigma: softness of the coverage, square pixels.
    gamma: softness in nearness.
    radius: blur radius, pixels.
  """

  def one(image):
    numbers, valid = image
    visit = _visitor(height, width, numbers, valid, sigma, gamma, radius)
    dtype = numbers.dtype
    shape = (height + _WINDOW[0], width + _WINDOW[1])

    def greatest(parts, reached, old, _):
      return jnp.where(reached, jnp.maximum(old, parts[0]), old)

    peak = visit(greatest, jnp.full(shape, _NOTHING, dtype))
    channels = (numbers.shape[1] - 9) // 3

    def sums(first):
      def add(parts, reached, old, origin):
        top = lax.dynamic_slice(peak, origin, _WINDOW)
        weight = jnp.where(reached, jnp.exp(jnp.minimum(parts[0] - top, 0)), 0)
        terms = [jnp.ones_like(weight), *parts[1:], jnp.zeros_like(weight)][first : first + 2]
        return old + lax.complex(*[jnp.where(reached, weight * term, 0) for term in terms])

      return visit(add, jnp.zeros(shape, jnp.result_type(dtype, jnp.complex64)))

    pairs = [sums(first) for first in range(0, channels + 1, 2)]
    planes = [part for pair in pairs for part in (pair.real, pair.imag)][: channels + 1]
    total, *colors = (plane[:height, :width] for plane in planes)
    return _finished(peak[:height, :width], total, jnp.stack(colors, axis=-1))

  return lax.map(one, (numbers, valid))


def _visitor(height, width, numbers, valid, sigma, gamma, radius):
  """Returns a function that folds `update(parts, reached, old, origin)` into an image."""
  dtype = numbers.dtype
  corners = numbers[:, :6].reshape(-1, 3, 2)
  table = edge_table(corners)
  spans = window_spans(corners, valid, radius, height, width, _WINDOW)

  def visit(update, image):
    def body(face, origin, image):
      x, y = pixel_centers(origin, _WINDOW, dtype)
      parameters = [*numbers[face], sigma, gamma]
      parts, reached = _fragment(parameters, edges_of(face, table), x, y, radius)
      old = lax.dynamic_slice(image, origin, _WINDOW)
      new = update(parts, reached, old, origin)
      return lax.dynamic_update_slice(image, new, origin)

    return for_each_window(spans, _WINDOW, body, image)

  return visit


def slopes_in_windows(
  numbers, valid, sigma, gamma, radius, exponent, constant, by_color
) -> tuple[Array, Array, Array]:
  """Sums derivatives over each face's pixels.

  Args:
    numbers: as in `blend_faces`, like the next four arguments.
    valid: whether a face is drawn.
    sigma: softness of the coverage, square pixels.
    gamma: softness in nearness.
    radius: blur radius, pixels.
    exponent: (batch, height, width) the first result of `blend_faces`.
    constant: (batch, height, width) the derivative by the exponent, minus the product of the mean
      colour and the derivative by it.
    by_color: (batch, height, width, channels) the derivative by the mean colour.

  Returns:
    The derivatives by numbers, sigma and gamma.
  """
  height, width = exponent.shape[1:]
  window = _SLOPE_WINDOW

  def one(image):
    numbers, valid, exponent, constant, by_color = image
    dtype = numbers.dtype
    corners = numbers[:, :6].reshape(-1, 3, 2)
    table = edge_table(corners)
    spans = window_spans(corners, valid, radius, height, width, window)
    constant, exponent = padded(constant, window), padded(exponent, window)
    pulls = [padded(plane, window) for plane in jnp.moveaxis(by_color, -1, 0)]

    def body(face, origin, sums):
      x, y = pixel_centers(origin, window, dtype)
      # One copy of each parameter per pixel gives the derivatives pixel by pixel.
      parameters = [jnp.broadcast_to(value, window) for value in (*numbers[face], sigma, gamma)]
      parts, pull_back, reached = jax.vjp(
        lambda *parameters: _fragment(parameters, edges_of(face, table), x, y, radius),
        *parameters,
        has_aux=True,
      )
      at_window = functools.partial(lax.dynamic_slice, start_indices=origin, slice_sizes=window)
      here = [at_window(plane) for plane in (exponent, constant, *pulls)]
      terms = pull_back(_pulls_of(parts, reached, *here))
      return sums.at[face].add(jnp.stack([jnp.sum(term) for term in terms]))

    start = jnp.zeros((numbers.shape[0], numbers.shape[1] + 2), dtype)
    return for_each_window(spans, window, body, start)

  sums = lax.map(one, (numbers, valid, exponent, constant, by_color))
  by_sigma, by_gamma = jnp.sum(sums[..., -2:], axis=(0, 1))
  return sums[..., :-2], by_sigma, by_gamma


def _pulls_of(parts, reached, exponent, constant, *pulls) -> tuple[Array, ...]:
  """Computes the derivatives by a face's exponent and colours from those by the blended ones."""
  share = jnp.where(reached, jnp.exp(jnp.minimum(parts[0] - exponent, 0)), 0)
  by_parts = [share * pull for pull in pulls]
  by_logit = constant * share
  for by_part, part in zip(by_parts, parts[1:], strict=True):
    by_logit += jnp.where(reached, by_part * part, 0)
  return (by_logit, *by_parts)


def blended_in_tiles(height: int, width: int, numbers, valid, sigma, gamma, radius) -> Blended:
  """Computes `blend_faces` on accelerators.

  Sums of weights are relative to the greatest exponent so far.

  Args:
    height: height of the pictures, pixels.
    width: width of the pictures, pixels.
    numbers: (batch, faces, 9 + 3 channels) the faces, as in `blend_faces`.
    valid: (batch, faces) whether a face is drawn.
    sigma: softness of the coverage, square pixels.
    gamma: softness in nearness.
    radius: blur radius, pixels.
  """
  corners = numbers[..., :6].reshape(*numbers.shape[:2], 3, 2)
  tiles, table = tiles_of(corners, valid, radius, height, width), edge_table_of_batch(corners)

  def add(faces, exist, state):
    peak, *sums = state
    parameters = [*take(numbers, faces), sigma, gamma]
    edges = take_edges(table, faces)
    (exponent, *colors), reached = _fragment(parameters, edges, tiles.x, tiles.y, radius)
    exponent = jnp.where(reached & exist, exponent, _NOTHING)
    top = jnp.maximum(peak, jnp.max(exponent, axis=2, keepdims=True))
    weight = jnp.where(reached & exist, jnp.exp(exponent - top), 0)
    kept = jnp.exp(peak - top)
    terms = [weight, *(jnp.where(reached & exist, weight * color, 0) for color in colors)]
    return top, *(
      kept * old + jnp.sum(term, axis=2, keepdims=True)
      for old, term in zip(sums, terms, strict=True)
    )

  channels = (numbers.shape[-1] - 9) // 3
  shape = (numbers.shape[0], tiles.x.shape[1], 1, SIDE, SIDE)
  nothing = jnp.zeros(shape, numbers.dtype)
  start = (jnp.full(shape, _NOTHING, numbers.dtype), *[nothing] * (channels + 1))
  state = fold_faces(tiles, add, start)
  peak, total, *colors = (from_tiles(plane, height, width) for plane in state)
  return _finished(peak, total, jnp.stack(colors, axis=-1))


def slopes_in_tiles(
  numbers, valid, sigma, gamma, radius, exponent, constant, by_color
) -> tuple[Array, Array, Array]:
  """Computes `slopes_in_windows` on accelerators.

  Args:
    numbers: as in `slopes_in_windows`, like all other arguments.
    valid: whether a face is drawn.
    sigma: softness of the coverage, square pixels.
    gamma: softness in nearness.
    radius: blur radius, pixels.
    exponent: the first result of `blend_faces`.
    constant: a derivative at each pixel.
    by_color: the derivative by the mean colour.
  """
  corners = numbers[..., :6].reshape(*numbers.shape[:2], 3, 2)
  tiles = tiles_of(corners, valid, radius, *exponent.shape[1:])
  table = edge_table_of_batch(corners)
  planes = [exponent, constant, *jnp.moveaxis(by_color, -1, 0)]
  here = [to_tiles(plane) for plane in planes]

  def add(faces, exist, state):
    sums, by_sigma, by_gamma = state
    edges = take_edges(table, faces)
    parts, pull_back, reached = jax.vjp(
      lambda *parameters: _fragment(parameters, edges, tiles.x, tiles.y, radius),
      *take(numbers, faces),
      sigma,
      gamma,
      has_aux=True,
    )
    *terms, term_sigma, term_gamma = pull_back(_pulls_of(parts, reached & exist, *here))
    return add_to_faces(sums, faces, terms), by_sigma + term_sigma, by_gamma + term_gamma

  start = (jnp.zeros_like(numbers), jnp.zeros_like(sigma), jnp.zeros_like(gamma))
  return fold_faces(tiles, add, start)
