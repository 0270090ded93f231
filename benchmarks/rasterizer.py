"""Compares the rasterizer with its brute-force form and with other libraries, in one run.

  python -m benchmarks.rasterizer

The benchmark prints times for a batch of posed free hands, and their ratios. Brute force tests
every pixel against every face. Other libraries are measured if they can be imported, and a line
names those that cannot. `benchmarks/rasterizer_rivals.py` explains how to install them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import lax

from benchmarks import rasterizer_rivals
from benchmarks.interleave import compare
from experiments.launching import launch, refuse_arguments
from hand_jax.geometry.rotations import axis_angle_to_matrix
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.model import mano_forward
from hand_jax.mano.pose_families import sample_hand_pose
from hand_jax.rendering.rasterize import (
  _barycentrics_and_depth,
  _nearest_faces_of_chunks,
  rasterize,
  visible_vertices,
)
from hand_jax.rendering.surfaces import interpolate
from hand_jax.types import Fragments, HandParameters

_BATCH = flags.DEFINE_integer('batch', 8, 'Images in a batch.')
_SIZE = flags.DEFINE_integer('size', 224, 'Height and width in pixels.')
_REPEATS = flags.DEFINE_integer('repeats', 20, 'Measurements of each form.')


def rasterize_brute_force(vertices_image, faces, height, width) -> Fragments:
  """Finds the same fragments by testing every pixel centre against every face.

  Args:
    vertices_image: (batch, V, 3) pixels and depth.
    faces: (F, 3) vertex ids of the triangles.
    height: height of the images, pixels.
    width: width of the images, pixels.
  """
  face_index = _nearest_faces_of_chunks(vertices_image, faces, height, width)
  barycentric, depth = lax.map(
    lambda image: _barycentrics_and_depth(image[0], faces, image[1]), (vertices_image, face_index)
  )
  return Fragments(face_index, barycentric, depth)


def posed_hands(batch: int, size: int):
  """Poses free hands at random orientations, so that each fills three quarters of its image.

  Args:
    batch: number of hands.
    size: height and width of the images in pixels.

  Returns:
    The vertices (batch, V, 3) in pixels and depth, and the faces.
  """
  model = load_mano_model()

  def one(key):
    pose_key, turn_key = jax.random.split(key)
    zeros = jnp.zeros(3)
    pose = sample_hand_pose(pose_key)
    turn = axis_angle_to_matrix(1.5 * jax.random.normal(turn_key, (3,)))
    mesh = mano_forward(model, HandParameters(zeros, pose, jnp.zeros(10), zeros))
    points = mesh.vertices @ turn
    low, high = points.min(0), points.max(0)
    scale = 0.75 * size / jnp.max((high - low)[:2])
    pixels = (points - (low + high) / 2) * scale + size / 2
    return jnp.concatenate([pixels[:, :2], points[:, 2:] + 0.5], axis=1)

  return jax.vmap(one)(jax.random.split(jax.random.key(0), batch)), model.faces


def main(argv: list[str]) -> None:
  """Checks that the forms agree, measures them and prints the ratios."""
  refuse_arguments(argv)
  size = _SIZE.value
  vertices, faces = posed_hands(_BATCH.value, size)
  forms = {}
  for name, function in (('rasterize', rasterize), ('brute force', rasterize_brute_force)):
    compiled = jax.jit(functools.partial(function, height=size, width=size))
    forms[name] = functools.partial(compiled, vertices, faces)
  fast, slow = (form() for form in forms.values())
  differing = jnp.mean(fast.face_index != slow.face_index)
  covered = jnp.mean(fast.face_index >= 0)
  print(f'{_BATCH.value} hands of {size} x {size} pixels, {covered:.1%} covered')
  print(f'share of pixels where the two forms find different faces: {differing:.1e}')

  attributes = jnp.ones((*vertices.shape[:2], 3))

  def loss(vertices, attributes):
    fragments = rasterize(vertices, faces, size, size)
    return jnp.sum(interpolate(fragments, faces, attributes) ** 2)

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
  visible = jax.jit(lambda vertices: visible_vertices(vertices, faces, size, size))
  forms['visible vertices'] = lambda: visible(vertices)
  forms['rasterize and shade, with gradient'] = lambda: gradient(vertices, attributes)
  timed = {name: functools.partial(_wait, form) for name, form in forms.items()}
  rivals = rasterizer_rivals.available(np.asarray(vertices), np.asarray(faces), size)
  for name, rival in rivals.items():
    agreement = np.mean(rival() == np.asarray(fast.face_index))
    print(f'{name}: finds the same face at {agreement:.3%} of the pixels')
    timed[name] = rival
  medians = compare(timed, _REPEATS.value)
  per_image = 1e3 * medians['visible vertices'] / _BATCH.value
  print(f'visible vertices: {per_image:.2f} ms an image')
  for name, bar in (('brute force', 30), *((name, 1) for name in rivals)):
    print(f'{name} / rasterize: {medians[name] / medians["rasterize"]:.1f} (bar: {bar})')


def _wait(form):
  return jax.block_until_ready(form())


if __name__ == '__main__':
  launch(main)
