"""The rasterizer against the brute-force form (every pixel against every face) in one run.

Run with `python -m benchmarks.rasterizer`: times per batch of posed free hands, and their ratio.
"""

import functools

import jax
import jax.numpy as jnp
from absl import app, flags
from jax import lax

from benchmarks.interleave import compare
from hand_jax.geometry.rotations import axis_angle_to_matrix
from hand_jax.mano.anatomy import sample_hand_pose
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.model import mano_forward
from hand_jax.rendering.rasterize import (
  _barycentrics_and_depth,
  _face_table,
  _test_points,
  rasterize,
  visible_vertices,
)
from hand_jax.rendering.shading import interpolate
from hand_jax.types import Fragments, HandParameters

_BATCH = flags.DEFINE_integer('batch', 8, 'Images in a batch.')
_SIZE = flags.DEFINE_integer('size', 224, 'Height and width in pixels.')
_REPEATS = flags.DEFINE_integer('repeats', 20, 'Measurements of each form.')
_CHUNK = 32  # faces tested at once by the brute-force form; the fastest of 8, 32 and 128


def rasterize_brute_force(vertices_image, faces, height, width) -> Fragments:
  """The same fragments, the seen face found by testing every pixel centre against every face."""
  x = jnp.arange(width)[None, None, None, :] + 0.5
  y = jnp.arange(height)[None, None, :, None] + 0.5
  padding = -len(faces) % _CHUNK
  chunks = jnp.pad(faces, ((0, padding), (0, 0))).reshape(-1, _CHUNK, 3)

  def step(carry, chunk):
    nearest, face_index = carry
    ids, first = chunk
    table = jax.vmap(_face_table, (0, None))(vertices_image, ids)
    hit, depth = _test_points(jax.tree.map(lambda field: field[:, :, None, None], table), x, y)
    depth = jnp.where(hit, depth, jnp.inf)
    found = jnp.min(depth, axis=1)
    numbers = first + jnp.arange(_CHUNK)[None, :, None, None]
    number = jnp.min(jnp.where(depth == found[:, None], numbers, 2**30), axis=1)
    nearer = found < nearest
    return (jnp.where(nearer, found, nearest), jnp.where(nearer, number, face_index)), None

  shape = (vertices_image.shape[0], height, width)
  start = (jnp.full(shape, jnp.inf), jnp.full(shape, -1, jnp.int32))
  firsts = jnp.arange(len(chunks), dtype=jnp.int32) * _CHUNK
  face_index = lax.scan(step, start, (chunks, firsts))[0][1]
  barycentric, depth = lax.map(
    lambda image: _barycentrics_and_depth(image[0], faces, image[1]), (vertices_image, face_index)
  )
  return Fragments(face_index, barycentric, depth)


def posed_hands(batch: int, size: int):
  """Free hands in sampled poses and orientations that fill three quarters of the image."""
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


def main(_) -> None:
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
  print(f'pixels where the two forms name different faces: {differing:.1e}')

  attributes = jnp.ones((*vertices.shape[:2], 3))

  def loss(vertices, attributes):
    fragments = rasterize(vertices, faces, size, size)
    return jnp.sum(interpolate(fragments, faces, attributes) ** 2)

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
  visible = jax.jit(lambda vertices: visible_vertices(vertices, faces, size, size))
  forms['visible vertices'] = lambda: visible(vertices)
  forms['rasterize and shade, with gradient'] = lambda: gradient(vertices, attributes)
  medians = compare(
    {name: functools.partial(_wait, form) for name, form in forms.items()}, _REPEATS.value
  )
  ratio = medians['brute force'] / medians['rasterize']
  print(f'brute force / rasterize: {ratio:.1f} (bar: 30)')


def _wait(form):
  return jax.block_until_ready(form())


if __name__ == '__main__':
  app.run(main)
