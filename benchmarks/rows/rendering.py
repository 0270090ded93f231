"""The rasterizer beside embree, and the soft silhouette beside plain autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contest import Contest, compile_call, relative_difference
from benchmarks.rasterizer import posed_hands
from benchmarks.rasterizer_rivals import ray_casting
from benchmarks.soft_silhouette import plain_silhouette, widest_window
from hand_jax.rendering.rasterize import rasterize, visible_vertices
from hand_jax.rendering.soft import default_blur_radius, soft_silhouette

SIDE = 224
# Pixels at edges may belong to either face.
_LEAST_AGREEMENT = 0.995


def rasterizer(batch: int) -> Contest:
  """Compares finding the face at each pixel with trimesh's first hits by embree.

  Raises:
    ValueError: the two name different faces at too many pixels.
  """
  vertices, faces = posed_hands(batch, SIDE)
  compiled, ours = compile_call(lambda v: rasterize(v, faces, SIDE, SIDE), vertices)
  cast = ray_casting(np.asarray(vertices), np.asarray(faces), SIDE)
  agreement = np.mean(cast() == np.asarray(ours().face_index))
  if agreement < _LEAST_AGREEMENT:
    raise ValueError(f'rasterizer and embree agree at only {agreement:.2%} of the pixels.')
  return Contest(ours, {'embree': cast}, compiled=compiled)


def visibility(batch: int) -> Contest:
  """Measures which vertices are seen."""
  vertices, faces = posed_hands(batch, SIDE)
  compiled, ours = compile_call(lambda v: visible_vertices(v, faces, SIDE, SIDE), vertices)
  return Contest(ours, {}, compiled=compiled)


def silhouette(batch: int, sigma: float = 1.0) -> Contest:
  """Compares the gradient of a soft silhouette with that of static windows by plain autodiff."""
  vertices, faces = posed_hands(batch, SIDE)
  radius = float(default_blur_radius(sigma, faces.shape[0]))
  plain = functools.partial(
    plain_silhouette,
    faces=faces,
    height=SIDE,
    width=SIDE,
    sigma=sigma,
    radius=radius,
    side=widest_window(vertices, faces, radius),
    chunk=64,
  )
  target = jnp.roll(soft_silhouette(vertices, faces, SIDE, SIDE, sigma), 5, axis=2)

  def gradient_of(picture):
    return compile_call(jax.grad(lambda v: jnp.sum((picture(v) - target) ** 2)), vertices)

  compiled, ours = gradient_of(lambda v: soft_silhouette(v, faces, SIDE, SIDE, sigma))
  _, peer = gradient_of(plain)
  difference = relative_difference([ours()], [peer()])
  return Contest(ours, {'plain autodiff': peer}, difference, compiled)
