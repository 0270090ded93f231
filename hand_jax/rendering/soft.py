"""Draws soft silhouettes and softly blended colours (SoftRas), which change smoothly with the mesh.

The method follows Liu et al., "Soft Rasterizer: A Differentiable Renderer for Image-based 3D
Reasoning", 2019 (https://arxiv.org/abs/1904.01786). Every face covers a pixel to the degree
D = sigmoid(s d^2 / sigma), where d is the distance in pixels from the pixel's centre to the
triangle's boundary, and s is +1 inside and -1 outside (Eq. 1). The boundary consists of three
segments. A face without area has only an outside, with the value and gradient of a very thin
triangle's outside.

On a CPU pixels are visited in windows round each face, one after the other (`soft_windows.py`).
The silhouettes of 8 hands at 224 x 224 pixels with a sigma of 1 take 128,040 steps, and the
derivatives four times as many. On other devices all tiles of all pictures are computed at once, a
few faces of each at a time (`tiles.py`). Derivatives (reverse mode, first order) visit the same
pixels again and keep nothing but the picture. The second form compiles for TPUs
(benchmarks/tpu_rendering.py), but its speed there was not measured.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Real

from hand_jax.rendering.blending import blend_faces
from hand_jax.rendering.coverage import uncovered
from hand_jax.rendering.inputs import Scalar, check_setting, checked_mesh
from hand_jax.rendering.rasterize import LARGEST_COORDINATE
from hand_jax.types import ArrayLike, RenderedHand

# Silhouettes differ by less than this from those with an infinite blur radius.
_IGNORED_COVERAGE = 1e-4


def soft_silhouette(
  vertices_image: Real[ArrayLike, 'batch vertices coordinates'],
  faces: Int[ArrayLike, 'faces 3'],
  height: int,
  width: int,
  sigma: Scalar,
  blur_radius: Scalar | None = None,
) -> Float[Array, 'batch height width']:
  """Computes coverage in [0, 1], 1 - prod over faces of (1 - sigmoid(s d^2 / sigma)) (Eq. 4).

  If faces are smaller than sqrt(sigma), several of them cover a pixel outside the mesh, and the
  silhouette grows beyond the outline. To fit a hard mask, keep sigma small, or make it small at the
  end. Faces are ignored if a vertex is not finite or beyond `LARGEST_COORDINATE`. Other faces may
  reach far out of the image: in float32 and 224 x 224 pixels an edge is off by less than 5e-4
  pixels. The result is differentiable once, in reverse mode, in `vertices_image` and `sigma`.

  Args:
    vertices_image: pixel x and pixel y, with centres at +0.5. A third coordinate is not used.
    faces: vertex ids.
    height: height of the image, pixels.
    width: width of the image, pixels.
    sigma: softness in square pixels. Smaller values give a sharper picture.
    blur_radius: reach of a face in pixels, beyond which it adds nothing. With None
      `default_blur_radius` computes it.

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
  return 1 - uncovered(height, width, corners, valid, sigma, radius)


def default_blur_radius(sigma: Scalar, faces: int) -> Float[Array, '']:
  """Computes sqrt(sigma ln(1e4 faces)) pixels. Faces beyond it change coverage by less than 1e-4.

  Farther away a face's D is below exp(-d^2 / sigma) <= 1e-4 / faces. A silhouette changes by less
  than the sum of the D that are left out.
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
  """Sets the corners of unusable faces to 0, and returns which faces are usable."""
  good = jnp.all(jnp.abs(corners) <= LARGEST_COORDINATE, axis=(-2, -1), keepdims=True)
  return jnp.where(good, corners, 0), good[..., 0, 0]


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

  A face has the weight D exp(z / gamma), the background has exp(epsilon / gamma), and a pixel's
  colour is the weighted mean. z is (far - depth) / (far - near), so that 1 is nearest. The weight
  of a face is 0 where its z leaves [0, 1], and beyond the blur radius. Colour and depth are taken
  at the pixel's screen-space barycentrics, clipped to [0, 1] and divided by their sum. Outside a
  face this is a point on its boundary. Faces without area have a silhouette but no colour. The
  result is stable for small gamma.

  Args:
    vertices_image: pixels and depth. Smaller depths are nearer. Broken faces are ignored.
    faces: vertex ids.
    colors: colours of the vertices, with any number of channels.
    background: a picture, a colour or a grey level, with the channels of `colors`.
    height: height of the image, pixels.
    width: width of the image, pixels.
    sigma: softness of the coverage in square pixels, as in `soft_silhouette`.
    gamma: softness in nearness. Smaller values give more weight to the nearest face.
    blur_radius: reach of a face in pixels, as in `soft_silhouette`.
    near: depth where z is 1. With None it is in front of each mesh, by a tenth of the mesh's depth
      range.
    far: depth where z is 0. With None it is behind the mesh, by the same distance. Both defaults
      count as constants in derivatives.
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

  rows = [corners[..., :2].reshape(batch, -1, 6), nearness, colors.reshape(batch, len(faces), -1)]
  exponent, foreground = blend_faces(
    height, width, jnp.concatenate(rows, axis=-1), valid, sigma, gamma, radius
  )
  share = jax.nn.sigmoid(exponent - epsilon / gamma)[..., None]
  rgb = share * foreground + (1 - share) * background
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
