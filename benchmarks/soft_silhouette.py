"""Compares the soft silhouette and its gradient with plain autodiff of static windows, in one run.

  python -m benchmarks.soft_silhouette

The benchmark prints times for a batch of posed free hands, their ratio, and the differences of
values and gradients. Both forms compute the same function with the same blur radius. The plain form
gives every face a square window that holds the largest face of the batch with its blur, and it
leaves the derivative to JAX. It works through the faces in chunks, so that the arrays that autodiff
keeps fit into memory and caches. The fastest chunk size counts.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import lax

from benchmarks.interleave import compare
from benchmarks.rasterizer import posed_hands
from experiments.launching import launch, refuse_arguments
from hand_jax.rendering.soft import default_blur_radius, soft_silhouette

# The flags --batch, --size and --repeats are defined in benchmarks.rasterizer.
_SIGMA = flags.DEFINE_float('sigma', 1.0, 'Blur in square pixels.')
_CHUNKS = flags.DEFINE_list('chunks', ['64', '512'], 'Sizes of chunks in faces, all of them tried.')


def plain_silhouette(vertices_image, faces, height, width, sigma, radius, side, chunk):
  """Draws the same picture from one static window per face, which is added to the image.

  Args:
    vertices_image: (batch, V, 3) pixels and depth.
    faces: (F, 3) vertex ids of the triangles.
    height: height of the images, pixels.
    width: width of the images, pixels.
    sigma: blur in square pixels.
    radius: blur radius in pixels.
    side: side of a window in pixels.
    chunk: number of faces that are computed together.
  """
  padding = -faces.shape[0] % chunk
  ids = jnp.pad(faces, ((0, padding), (0, 0))).reshape(-1, chunk, 3)
  real = (jnp.arange(faces.shape[0] + padding) < faces.shape[0]).reshape(-1, chunk)
  offset = jnp.arange(side)
  add = lax.ScatterDimensionNumbers(
    update_window_dims=(1, 2), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1)
  )

  def one(vertices):
    def step(image, some):
      corners, exists = vertices[some[0], :2], some[1]
      low = jnp.floor(lax.stop_gradient(corners).min(axis=1) - radius).astype(jnp.int32)
      low = jnp.clip(low, 0, jnp.array([[width, height]]))
      x = (low[:, :1] + offset[None]).astype(corners.dtype)[:, None, :] + 0.5
      y = (low[:, 1:] + offset[None]).astype(corners.dtype)[:, :, None] + 0.5
      logs = _log_left_over(corners[:, None, None], x, y, sigma, radius)
      logs = jnp.where(exists[:, None, None], logs, 0)
      places = jnp.stack([low[:, 1], low[:, 0]], axis=1)
      return lax.scatter_add(image, places, logs, add, mode='promise_in_bounds'), None

    logs = lax.scan(step, jnp.zeros((height + side, width + side)), (ids, real))[0]
    return 1 - jnp.exp(logs[:height, :width])

  return lax.map(one, vertices_image)


def _log_left_over(corners, x, y, sigma, radius):
  """Returns log(1 - D) of faces at pixels (faces, height, width), which is 0 beyond the blur.

  The corners have the shape (faces, 1, 1, 3, 2).
  """
  squares, sides = [], []
  for i in range(3):
    (ax, ay), (bx, by) = (jnp.moveaxis(corners[..., k % 3, :], -1, 0) for k in (i, i + 1))
    edge_x, edge_y = bx - ax, by - ay
    squared = edge_x**2 + edge_y**2
    to_x, to_y = x - ax, y - ay
    along = (to_x * edge_x + to_y * edge_y) / jnp.where(squared > 0, squared, 1)
    along = jnp.clip(along, 0, 1)
    squares.append((to_x - along * edge_x) ** 2 + (to_y - along * edge_y) ** 2)
    sides.append(edge_x * to_y - edge_y * to_x)
  squared = jnp.minimum(jnp.minimum(*squares[:2]), squares[2])
  positive = (sides[0] > 0) & (sides[1] > 0) & (sides[2] > 0)
  inside = positive | ((sides[0] < 0) & (sides[1] < 0) & (sides[2] < 0))
  logit = jnp.where(inside, squared, -squared) / sigma
  # XLA's CPU code takes far longer for log1p than for log. The comparison would be unfair with it.
  logs = -jnp.maximum(logit, 0) - jnp.log(1 + jnp.exp(-jnp.abs(logit)))
  return jnp.where(inside | (squared < radius**2), logs, 0)


def widest_window(vertices_image, faces, radius) -> int:
  """Returns the side in pixels of a square window that holds any face of the batch with its blur.

  Args:
    vertices_image: (batch, V, 3) pixels and depth.
    faces: (F, 3) vertex ids of the triangles.
    radius: blur radius in pixels.
  """
  corners = np.asarray(vertices_image)[:, np.asarray(faces), :2]
  extent = (corners.max(axis=2) - corners.min(axis=2)).max()
  return math.ceil(extent + 2 * radius) + 1


def main(argv: list[str]) -> None:
  """Compares the forms, measures them and prints the ratio."""
  refuse_arguments(argv)
  batch, size, sigma = flags.FLAGS.batch, flags.FLAGS.size, _SIGMA.value
  vertices, faces = posed_hands(batch, size)
  radius = float(default_blur_radius(sigma, faces.shape[0]))
  side = widest_window(vertices, faces, radius)
  print(f'{batch} hands of {size} x {size} pixels, sigma {sigma} square pixels')
  print(f'blur radius {radius:.2f} pixels, static windows of {side} x {side} pixels')
  pictures = {'windows by need': lambda v: soft_silhouette(v, faces, size, size, sigma)}
  for chunk in map(int, _CHUNKS.value):
    pictures[f'plain autodiff, {chunk} at once'] = functools.partial(
      plain_silhouette,
      faces=faces,
      height=size,
      width=size,
      sigma=sigma,
      radius=radius,
      side=side,
      chunk=chunk,
    )
  target = jnp.roll(soft_silhouette(vertices, faces, size, size, sigma), 5, axis=2)
  forms = {}
  for name, picture in pictures.items():

    def loss(vertices, picture=picture):
      image = picture(vertices)
      return jnp.sum((image - target) ** 2), image

    forms[name] = functools.partial(jax.jit(jax.grad(loss, has_aux=True)), vertices)
  (gradient, image), *others = (form() for form in forms.values())
  for other_gradient, other_image in others[:1]:
    largest = jnp.abs(gradient).max()
    print(f'largest difference of values: {jnp.abs(image - other_image).max():.1e}')
    print(
      f'largest difference of gradients: {jnp.abs(gradient - other_gradient).max():.1e}'
      f' (largest gradient {largest:.1e})'
    )
  medians = compare(
    {name: functools.partial(_wait, form) for name, form in forms.items()}, flags.FLAGS.repeats
  )
  ours, *plain = medians.values()
  print(f'plain autodiff / windows by need, value and gradient: {min(plain) / ours:.1f} (bar: 2)')


def _wait(form):
  return jax.block_until_ready(form())


if __name__ == '__main__':
  launch(main)
