"""Soft silhouette and soft colour blending (SoftRas): pictures that move smoothly with the mesh.

After Liu et al., "Soft Rasterizer: A Differentiable Renderer for Image-based 3D Reasoning", 2019
(https://arxiv.org/abs/1904.01786). Every face covers a pixel to the degree D = sigmoid(s d^2 /
sigma), where d is the distance in pixels from the pixel's centre to the triangle's boundary, and s
is +1 inside and -1 outside (Eq. 1). The boundary consists of three segments. A face without area
has an outside only, with the value and gradient of a very thin triangle's outside.

Pixels are visited in windows round each face (`soft_windows.py`). Derivatives (reverse mode, first
order) visit the same windows again and keep nothing but the picture. Such loops suit CPUs.
Accelerators run them too, but slowly: 128,040 steps for the silhouettes of 8 hands at 224 x 224
pixels with a sigma of 1, and four times as many for the derivatives. Unlike the hard rasterizer,
there is no second form that takes many windows at once, and no speed was measured there.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Real

from hand_jax.rendering.inputs import Scalar, check_setting, checked_mesh
from hand_jax.rendering.rasterize import LARGEST_COORDINATE
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
from hand_jax.types import ArrayLike, RenderedHand

# Each loop step visits one window of pixels. The shapes are measured: as in the hard rasterizer, a
# step has to touch less than about 1 kB to be quick on a CPU. For the same reason a step sums two
# numbers, the parts of a complex one, rather than all it could. The derivative of blended colours
# sums too many for that, and makes up for slow steps by large windows.
_WINDOW = (2, 16)
_BLEND_WINDOW = (1, 8)
_BLEND_SLOPE_WINDOW = (8, 16)
# Silhouettes differ by less than this from those with an infinite blur radius.
_IGNORED_COVERAGE = 1e-4
# Triangles of a smaller area count as segments.
_SMALLEST_AREA = 1e-9


def soft_silhouette(
  vertices_image: Real[ArrayLike, 'batch vertices coordinates'],
  faces: Int[ArrayLike, 'faces 3'],
  height: int,
  width: int,
  sigma: Scalar,
  blur_radius: Scalar | None = None,
) -> Float[Array, 'batch height width']:
  """Computes coverage in [0, 1]: 1 - prod over faces of (1 - sigmoid(s d^2 / sigma)), Eq. 4.

  Where faces are smaller than sqrt(sigma), several of them cover a pixel outside the mesh, and the
  silhouette grows beyond the outline. Against a hard mask keep sigma small, or end with it small.
  Faces are ignored if a vertex is not finite or beyond `LARGEST_COORDINATE`. Others may reach far
  out of the image: in float32 and 224 x 224 pixels an edge is off by less than 5e-4 pixels. The
  result is differentiable once, in reverse mode, in `vertices_image` and `sigma`.

  Args:
    vertices_image: pixel x and pixel y, with centres at +0.5. A third coordinate is not used.
    faces: vertex ids.
    height: height of the image, pixels.
    width: width of the image, pixels.
    sigma: softness in square pixels. Smaller values give a sharper picture.
    blur_radius: reach of a face in pixels, beyond which it adds nothing. None takes
      `default_blur_radius`.

  Raises:
    ValueError: the image is empty, `sigma` is below 1e-12, `blur_radius` is negative, or
      `checked_mesh` refuses the mesh. Values known only inside a traced function are not checked.
  """
  vertices_image, faces = checked_mesh(vertices_image, faces, (2, 3))
  _check(height, width, sigma, blur_radius)
  batch, dtype = vertices_image.shape[0], vertices_image.dtype
  if batch == 0 or faces.shape[0] == 0:
    return jnp.zeros((batch, height, width), dtype)
  radius = default_blur_radius(sigma, faces.shape[0]) if blur_radius is None else blur_radius
  sigma, radius = jnp.asarray(sigma, dtype), lax.stop_gradient(jnp.asarray(radius, dtype))
  corners, valid = _drop_broken(vertices_image[:, faces, :2])
  return 1 - lax.map(
    lambda image: _uncovered(height, width, *image, sigma, radius), (corners, valid)
  )


def default_blur_radius(sigma: Scalar, faces: int) -> Float[Array, '']:
  """Computes sqrt(sigma ln(1e4 faces)) pixels. Faces beyond it change coverage by less than 1e-4.

  Farther away a face's D is below exp(-d^2 / sigma) <= 1e-4 / faces, and a silhouette changes by
  less than the sum of the D that are left out.
  """
  return jnp.sqrt(sigma * np.log(faces / _IGNORED_COVERAGE))


def _check(height, width, sigma, blur_radius) -> None:
  if height < 1 or width < 1:
    raise ValueError(f'soft pictures need a positive size, got height {height}, width {width}')
  check_setting('sigma (square pixels)', sigma)
  if blur_radius is None or isinstance(blur_radius, Tracer):
    return
  if not float(blur_radius) >= 0:
    raise ValueError(f'blur_radius (pixels) must not be negative, got {blur_radius}')


def _drop_broken(corners: Array) -> tuple[Array, Array]:
  """Sets the corners of unusable faces to 0, and tells which faces are usable."""
  good = jnp.all(jnp.abs(corners) <= LARGEST_COORDINATE, axis=(-2, -1), keepdims=True)
  return jnp.where(good, corners, 0), good[..., 0, 0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _uncovered(height: int, width: int, corners, valid, sigma, radius):
  """Multiplies 1 - D over all faces at each pixel of one image."""
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


def _uncovered_forward(height, width, corners, valid, sigma, radius):
  image = _uncovered(height, width, corners, valid, sigma, radius)
  return image, (corners, valid, sigma, radius, image)


def _uncovered_backward(height, width, residuals, cotangent):
  """Uses d image / d logit of a face = -image D, corner by corner, and then sigma."""
  corners, valid, sigma, radius, image = residuals
  table = edge_table(corners)
  flat = corners.reshape(-1, 6)
  weight = padded(-cotangent * image, _WINDOW)
  spans = window_spans(corners, valid, radius, height, width, _WINDOW)

  def totals(first):
    """Sums derivatives per face by parameter `first` and the next one, as a complex number."""

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
  by_corners = jnp.stack([by_corner.real, by_corner.imag], axis=2)
  return by_corners, np.zeros(valid.shape, jax.dtypes.float0), jnp.sum(totals(6)), radius * 0


_uncovered.defvjp(_uncovered_forward, _uncovered_backward)


def soft_blend(
  vertices_image: Real[ArrayLike, 'batch vertices 3'],
  faces: Int[ArrayLike, 'faces 3'],
  colors: Real[ArrayLike, 'batch vertices channels'],
  background: Real[ArrayLike, 'batch height width channels'] | Real[ArrayLike, 'channels'] | Scalar,
  height: int,
  width: int,
  sigma: Scalar,
  gamma: Scalar,
  blur_radius: Scalar | None = None,
  near: Scalar | None = None,
  far: Scalar | None = None,
  epsilon: float = 1e-3,
) -> RenderedHand:
  """Blends colours by nearness and coverage (Eq. 2 and 3 of SoftRas), and adds the soft silhouette.

  A face weighs D exp(z / gamma), the background exp(epsilon / gamma), and a pixel's colour is the
  weighted mean. z = (far - depth) / (far - near), so that 1 is nearest. Faces weigh nothing where
  their z leaves [0, 1], or beyond the blur radius. Colour and depth are those at the pixel's
  screen-space barycentrics, clipped to [0, 1] and divided by their sum. Outside a face they belong
  to a point on its boundary. Faces without area have a silhouette but no colour. The result is
  stable for small gamma.

  Args:
    vertices_image: pixels and depth. Smaller depths are nearer. Broken faces are ignored.
    faces: vertex ids.
    colors: colours of the vertices, with any number of channels.
    background: a picture, a colour or a grey.
    height: height of the image, pixels.
    width: width of the image, pixels.
    sigma: softness of the coverage in square pixels, as in `soft_silhouette`.
    gamma: softness in nearness. Smaller values give more weight to the nearest face.
    blur_radius: reach of a face in pixels, as in `soft_silhouette`.
    near: depth where z is 1. None puts it a tenth of each mesh's depth range before the mesh.
    far: depth where z is 0. None puts it as far behind the mesh. Both defaults count as constants.
    epsilon: nearness of the background.

  Raises:
    ValueError: as in `soft_silhouette`, or `gamma` or `far - near` is below 1e-12, or `colors`
      belong to another mesh.
  """
  vertices_image, faces = checked_mesh(vertices_image, faces)
  colors, _ = checked_mesh(colors, faces, None, 'colors')
  if colors.shape[:2] != vertices_image.shape[:2]:
    expected = ', '.join(map(str, vertices_image.shape[:2]))
    raise ValueError(f'colors has shape {colors.shape}, expected ({expected}, channels)')
  _check(height, width, sigma, blur_radius)
  check_setting('gamma', gamma)
  if near is not None and far is not None:
    check_setting('far - near', far - near)
  batch, dtype = vertices_image.shape[0], vertices_image.dtype
  shape = (batch, height, width, colors.shape[-1])
  background = jnp.asarray(background, dtype)
  background = jnp.broadcast_to(
    background.reshape((1,) * (4 - background.ndim) + background.shape), shape
  )
  silhouette = soft_silhouette(vertices_image, faces, height, width, sigma, blur_radius)
  if batch == 0 or faces.shape[0] == 0:
    return RenderedHand(background, silhouette)
  radius = default_blur_radius(sigma, faces.shape[0]) if blur_radius is None else blur_radius
  sigma, gamma = jnp.asarray(sigma, dtype), jnp.asarray(gamma, dtype)
  radius = lax.stop_gradient(jnp.asarray(radius, dtype))
  # Barycentrics are measured from a face's first corner, which has to be the nearest to the image.
  corners = vertices_image[:, faces]
  order = jnp.argsort(jnp.max(jnp.abs(corners[..., :2]), axis=-1), axis=-1)[..., None]
  corners, valid = _drop_broken(jnp.take_along_axis(corners, order, axis=2))
  colors = jnp.take_along_axis(colors[:, faces], order, axis=2)
  nearness = _nearness(corners[..., 2], valid, near, far)

  def one(image):
    corners, valid, nearness, colors, background = image
    rows = [corners[..., :2].reshape(-1, 6), nearness, colors.reshape(len(faces), -1)]
    exponent, foreground = _blend_faces(
      height, width, jnp.concatenate(rows, axis=1), valid, sigma, gamma, radius
    )
    share = jax.nn.sigmoid(exponent - epsilon / gamma)[..., None]
    return share * foreground + (1 - share) * background

  rgb = lax.map(one, (corners, valid, nearness, colors, background))
  return RenderedHand(rgb, silhouette)


def _nearness(depth, valid, near, far):
  """Maps the corners' depths (batch, faces, 3) to 1 at `near` and 0 at `far`."""
  usable = valid[..., None]
  low = jnp.min(jnp.where(usable, depth, jnp.inf), axis=(1, 2), keepdims=True)
  high = jnp.max(jnp.where(usable, depth, -jnp.inf), axis=(1, 2), keepdims=True)
  low, high = (jnp.where(jnp.isfinite(end), lax.stop_gradient(end), 0) for end in (low, high))
  margin = jnp.where(high > low, (high - low) / 10, 1)
  near = low - margin if near is None else jnp.full_like(low, near)
  far = high + margin if far is None else jnp.full_like(low, far)
  return (far - depth) / (far - near)


# Logarithm of a zero weight. It is finite, so that the difference of two is a number.
_NOTHING = -1e30


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
  """Is exact to one rounding of 1. `log1p` would make a loop step six times as slow on a CPU."""
  return jnp.minimum(x, 0) - jnp.log(1 + jnp.exp(-jnp.abs(x)))


def _blended_faces(
  height: int, width: int, numbers, valid, sigma, gamma, radius
) -> tuple[Array, Array]:
  """Computes the log of the faces' summed weights and their mean colour at each pixel of an image.

  `numbers` holds a face's parameters as in `_fragment`, without sigma and gamma. Each loop keeps
  one image: first the greatest exponent, then the sums of weights and colours two at a time.
  """
  visit = _blend_visitor(height, width, numbers, valid, sigma, gamma, radius)
  dtype = numbers.dtype
  shape = (height + _BLEND_WINDOW[0], width + _BLEND_WINDOW[1])

  def greatest(parts, reached, old, _):
    return jnp.where(reached, jnp.maximum(old, parts[0]), old)

  peak = visit(greatest, jnp.full(shape, _NOTHING, dtype))
  channels = (numbers.shape[1] - 9) // 3

  def sums(first):
    def add(parts, reached, old, origin):
      top = lax.dynamic_slice(peak, origin, _BLEND_WINDOW)
      weight = jnp.where(reached, jnp.exp(jnp.minimum(parts[0] - top, 0)), 0)
      terms = [jnp.ones_like(weight), *parts[1:], jnp.zeros_like(weight)][first : first + 2]
      return old + lax.complex(*[jnp.where(reached, weight * term, 0) for term in terms])

    return visit(add, jnp.zeros(shape, jnp.result_type(dtype, jnp.complex64)))

  pairs = [sums(first) for first in range(0, channels + 1, 2)]
  planes = [part for pair in pairs for part in (pair.real, pair.imag)][: channels + 1]
  total, *colors = (plane[:height, :width] for plane in planes)
  hit = total > 0
  safe = jnp.where(hit, total, 1)
  exponent = jnp.where(hit, peak[:height, :width] + jnp.log(safe), _NOTHING)
  return exponent, jnp.stack(colors, axis=-1) / safe[..., None]


_blend_faces = jax.custom_vjp(_blended_faces, nondiff_argnums=(0, 1))


def _blend_visitor(height, width, numbers, valid, sigma, gamma, radius):
  """Returns a function that folds `update(parts, reached, old, origin)` into an image."""
  window, dtype = _BLEND_WINDOW, numbers.dtype
  corners = numbers[:, :6].reshape(-1, 3, 2)
  table = edge_table(corners)
  spans = window_spans(corners, valid, radius, height, width, window)

  def visit(update, image):
    def body(face, origin, image):
      x, y = pixel_centers(origin, window, dtype)
      parameters = [*numbers[face], sigma, gamma]
      parts, reached = _fragment(parameters, edges_of(face, table), x, y, radius)
      old = lax.dynamic_slice(image, origin, window)
      new = update(parts, reached, old, origin)
      return lax.dynamic_update_slice(image, new, origin)

    return for_each_window(spans, window, body, image)

  return visit


def _blend_faces_forward(height, width, numbers, valid, sigma, gamma, radius):
  exponent, color = _blend_faces(height, width, numbers, valid, sigma, gamma, radius)
  return (exponent, color), (numbers, valid, sigma, gamma, radius, exponent, color)


def _blend_faces_backward(height, width, residuals, cotangents):
  """With a face's share s of a pixel: d exponent = s d logit, d color = s (dc + (c - color) dl)."""
  numbers, valid, sigma, gamma, radius, exponent, color = residuals
  window, dtype = _BLEND_SLOPE_WINDOW, numbers.dtype
  corners = numbers[:, :6].reshape(-1, 3, 2)
  table = edge_table(corners)
  spans = window_spans(corners, valid, radius, height, width, window)
  by_exponent, by_color = cotangents
  constant = padded(by_exponent - jnp.sum(by_color * color, axis=-1), window)
  pulls = [padded(plane, window) for plane in jnp.moveaxis(by_color, -1, 0)]
  exponent = padded(exponent, window)

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
    share = jnp.exp(jnp.minimum(parts[0] - at_window(exponent), 0))
    share = jnp.where(reached, share, 0)
    by_parts = [share * at_window(pull) for pull in pulls]
    by_logit = at_window(constant) * share
    for by_part, part in zip(by_parts, parts[1:], strict=True):
      by_logit += jnp.where(reached, by_part * part, 0)
    terms = pull_back((by_logit, *by_parts))
    return sums.at[face].add(jnp.stack([jnp.sum(term) for term in terms]))

  start = jnp.zeros((numbers.shape[0], numbers.shape[1] + 2), dtype)
  sums = for_each_window(spans, window, body, start)
  by_sigma, by_gamma = jnp.sum(sums[:, -2:], axis=0)
  nothing = np.zeros(valid.shape, jax.dtypes.float0)
  return sums[:, :-2], nothing, by_sigma, by_gamma, radius * 0


_blend_faces.defvjp(_blend_faces_forward, _blend_faces_backward)
