"""The rasterizer against naive float64 loops, its conventions one by one, and its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.rendering import rasterize as module
from hand_jax.rendering.rasterize import rasterize, visible_vertices
from hand_jax.rendering.surfaces import interpolate
from tests.reference.rasterize import (
  face_at_points,
  near_mask_naive,
  rasterize_naive,
  visible_vertices_naive,
)

pytestmark = pytest.mark.slow

_rasterize = jax.jit(rasterize, static_argnums=(2, 3))
_visible = jax.jit(visible_vertices, static_argnums=(2, 3))


def _run(vertices, faces, height, width):
  fragments = _rasterize(
    jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32), height, width
  )
  return jax.tree.map(np.asarray, fragments)


def _random_scene(seed, vertices=40, faces=60, size=40):
  random = np.random.default_rng(seed)
  points = random.uniform([-8, -8, 0.2], [size + 8, size + 8, 1.0], (vertices, 3))
  return points.astype(np.float32), random.integers(0, vertices, (faces, 3))


def _sphere(seed, height, width):
  """A lumpy closed surface with self-occlusion: 12 x 16 grid, 352 faces."""
  random = np.random.default_rng(seed)
  rows, columns = 12, 16
  polar = np.linspace(0.05, np.pi - 0.05, rows)[:, None]
  around = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
  radius = random.uniform(0.6, 1.4, (rows, columns))
  points = radius[..., None] * np.stack(
    np.broadcast_arrays(
      np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)
    ),
    -1,
  )
  points = points.reshape(-1, 3) * [0.35 * width, 0.35 * height, 0.1]
  faces = []
  for i in range(rows - 1):
    for j in range(columns):
      a, b = i * columns + j, i * columns + (j + 1) % columns
      faces += [(a, b, a + columns), (b, b + columns, a + columns)]
  points += [0.5 * width, 0.5 * height, 0.6]
  return points.astype(np.float32), np.array(faces)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('scene', [_random_scene, functools.partial(_sphere, height=40, width=40)])
def test_matches_naive_reference(scene, seed):
  vertices, faces = scene(seed)
  height, width = 40, 37
  fragments = _run(vertices[None], faces, height, width)
  index, barycentric, depth, margin = rasterize_naive(vertices, faces, height, width)
  # Only decisions finer than float32's rounding may differ.
  clear = margin > 3e-6
  assert clear.mean() > 0.98
  np.testing.assert_array_equal(fragments.face_index[0][clear], index[clear])
  same = fragments.face_index[0] == index
  assert same.mean() > 0.995 and (index >= 0).mean() > 0.2
  # Slivers magnify float32 rounding in barycentrics; the median face has an area over 10 pixels.
  np.testing.assert_allclose(fragments.barycentric[0][same], barycentric[same], atol=2e-4)
  np.testing.assert_allclose(fragments.depth[0][same], depth[same], atol=1e-4)


@pytest.mark.parametrize('seed', range(4))
def test_exact_on_a_grid_without_any_tolerance(seed):
  """Half-pixel coordinates: many pixel centres lie on edges and corners. Not one may differ."""
  random = np.random.default_rng(seed)
  vertices = random.integers(-10, 90, (80, 3)) / 2.0
  vertices[:, 2] = random.permutation(80) / 8 + 1
  faces = random.integers(0, 80, (50, 3))
  fragments = _run(vertices[None], faces, 40, 40)
  index, barycentric, _, margin = rasterize_naive(vertices, faces, 40, 40)
  assert (margin == 0).sum() > 100  # pixels on an edge
  decided = np.isinf(margin) | (fragments.face_index[0] == index)
  assert decided.mean() > 0.99
  hit = index >= 0
  np.testing.assert_array_equal(fragments.face_index[0] >= 0, hit)
  assert (fragments.barycentric >= 0).all()
  np.testing.assert_allclose(fragments.barycentric[0][decided], barycentric[decided], atol=1e-5)


def test_faces_larger_than_the_image_and_many_windows():
  vertices = np.array([[-500, -300, 1], [900, -200, 2], [100, 1500, 3.0]])
  fragments = _run(vertices[None], [[0, 1, 2]], 50, 70)
  _, barycentric, depth, _ = rasterize_naive(vertices, [[0, 1, 2]], 50, 70)
  assert (fragments.face_index == 0).all()
  np.testing.assert_allclose(fragments.barycentric[0], barycentric, atol=1e-6)
  np.testing.assert_allclose(fragments.depth[0], depth, rtol=1e-6)


@pytest.mark.parametrize('size', [(1, 1), (1, 30), (30, 1), (3, 5)])
def test_images_smaller_than_a_window(size):
  vertices, faces = _random_scene(5, size=12)
  fragments = _run(vertices[None], faces, *size)
  index, _, _, margin = rasterize_naive(vertices, faces, *size)
  clear = margin > 3e-6
  np.testing.assert_array_equal(fragments.face_index[0][clear], index[clear])


def test_pixel_centres_are_at_one_half():
  """A face around (2.5, 1.5) alone covers column 2 of row 1 and nothing else."""
  vertices = np.array([[[2.4, 1.4, 1], [2.7, 1.4, 1], [2.4, 1.7, 1]]])
  expected = np.full((4, 5), -1)
  expected[1, 2] = 0
  np.testing.assert_array_equal(_run(vertices, [[0, 1, 2]], 4, 5).face_index[0], expected)


def test_edges_and_corners_are_inside():
  vertices = np.array([[[0.5, 0.5, 1], [3.5, 0.5, 1], [0.5, 3.5, 1]]])
  expected = np.array([[0, 0, 0, 0], [0, 0, 0, -1], [0, 0, -1, -1], [0, -1, -1, -1]])
  for order in ([0, 1, 2], [2, 1, 0]):  # no culling
    np.testing.assert_array_equal(_run(vertices, [order], 4, 4).face_index[0], expected)


@pytest.mark.parametrize('orders', [([0, 1, 2], [0, 1, 2]), ([0, 1, 2], [2, 0, 1], [1, 0, 2])])
def test_equal_depths_go_to_the_lower_face(orders):
  vertices, _ = _random_scene(7, vertices=3, size=20)
  index = _run(vertices[None], list(orders), 20, 20).face_index
  assert set(np.unique(index)) == {-1, 0}


def test_overlapping_faces_of_one_depth_go_to_the_lower_face():
  vertices, faces = _random_scene(8)
  vertices[:, 2] = 0.7
  index = _run(vertices[None], faces, 40, 40).face_index[0]
  expected, _, _, margin = rasterize_naive(vertices + np.arange(40)[:, None] * 0.0, faces, 40, 40)
  first = np.full((40, 40), -1)
  for face in reversed(range(len(faces))):
    alone = rasterize_naive(vertices, faces[face : face + 1], 40, 40)[0] == 0
    first[alone] = face
  assert (index == first).mean() > 0.995
  np.testing.assert_array_equal(index >= 0, expected >= 0)
  assert (margin == 0).any()


def test_sloped_faces_differ_by_the_stated_precision_on_a_shared_edge():
  """At pixel centres on the edge both depths are the edge's, and most go to the lower face."""
  random = np.random.default_rng(0)
  scenes = 30
  corners = random.uniform([0, 0, 0.4], [40, 40, 0.7], (scenes, 4, 3))
  corners[:, 0, :2], corners[:, 1, :2] = [2.5, 2.5], [38.5, 38.5]
  corners[:, 2:, 1] = corners[:, 2:, 0] + [10, -10]  # on either side
  faces = np.array([[0, 1, 2], [1, 0, 3]])
  diagonal = np.arange(3, 38)
  first, second, both = (_run(corners, some, 41, 41) for some in (faces[:1], faces[1:], faces))
  depths = [fragments.depth[:, diagonal, diagonal] for fragments in (first, second, both)]
  share = (diagonal - 2) / 36
  expected = corners[:, :1, 2] + (corners[:, 1:2, 2] - corners[:, :1, 2]) * share
  for depth in depths:
    np.testing.assert_allclose(depth, expected, rtol=3e-7)
  seen = both.face_index[:, diagonal, diagonal]
  assert set(np.unique(seen)) <= {0, 1} and np.mean(seen == 0) > 0.8


def test_nothing_is_hit_by_degenerate_or_broken_faces():
  vertices = np.array(
    [
      [5, 5, 1],
      [15, 5, 1],
      [10, 5, 1],
      [10, 15, np.nan],
      [np.inf, 0, 1],
      [5, np.nan, 1],
      [5, 15, 1],
    ]
  )
  faces = [[0, 1, 2], [0, 0, 1], [0, 0, 0], [0, 1, 3], [0, 1, 4], [0, 1, 5]]
  fragments = _run(vertices[None], faces, 20, 20)
  assert (fragments.face_index == -1).all()
  np.testing.assert_array_equal(fragments.barycentric, 0)
  assert (fragments.depth == np.inf).all()
  assert (_run(vertices[None], [*faces, [0, 1, 6]], 20, 20).face_index == 6).sum() > 50


def test_depth_may_be_negative():
  vertices = np.array([[[0, 0, -3], [9, 0, -3], [0, 9, -3], [0, 0, -5], [9, 0, -5], [0, 9, -5.0]]])
  fragments = _run(vertices, [[0, 1, 2], [3, 4, 5]], 9, 9)
  assert set(np.unique(fragments.face_index)) == {-1, 1}
  assert fragments.depth.min() == -5


def test_no_pixel_falls_between_faces_that_share_an_edge():
  """A fan of 300 slivers round a point: every pixel of its disc is covered."""
  random = np.random.default_rng(0)
  angles = np.sort(random.uniform(0, 2 * np.pi, 300))
  ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1) * 60
  vertices = np.concatenate([ring, np.zeros((1, 3))]) + [31.7, 32.3, 1]
  ids = np.arange(300)
  faces = np.stack([ids, np.roll(ids, -1), np.full(300, 300)], 1)
  random.shuffle(faces)
  assert (_run(vertices[None], faces, 64, 64).face_index >= 0).all()


def test_batches_do_not_mix():
  scenes = [_random_scene(seed)[0] for seed in range(3)]
  faces = _random_scene(0)[1]
  together = _run(np.stack(scenes), faces, 40, 40)
  for position, vertices in enumerate(scenes):
    alone = _run(vertices[None], faces, 40, 40)
    for a, b in zip(together, alone, strict=True):
      np.testing.assert_array_equal(a[position], b[0])


def test_no_faces_and_no_images():
  empty = rasterize(jnp.zeros((2, 3, 3)), jnp.zeros((0, 3), jnp.int32), 4, 5)
  assert (empty.face_index == -1).all() and empty.depth.shape == (2, 4, 5)
  assert rasterize(jnp.zeros((0, 3, 3)), jnp.zeros((1, 3), jnp.int32), 4, 5).depth.shape[0] == 0
  with pytest.raises(ValueError, match='height 0'):
    rasterize(jnp.zeros((1, 3, 3)), jnp.zeros((1, 3), jnp.int32), 0, 5)


def test_too_many_faces_are_named(monkeypatch):
  monkeypatch.setattr(module, 'MAX_FACES', 2)
  with pytest.raises(ValueError, match='fewer than 2 faces, got 3'):
    rasterize(jnp.zeros((1, 3, 3)), jnp.zeros((3, 3), jnp.int32), 4, 5)


def test_gradients_match_differences_of_the_naive_formula():
  """Central differences in float64, with the seen faces held fixed."""
  vertices = np.array([[2, 1, 1], [11, 3, 2], [4, 10, 1.5], [1, 8, 1.2], [10, 9, 1], [7, 0.3, 2.2]])
  faces = np.array([[0, 1, 2], [5, 4, 3]])
  face_index = _run(vertices[None], faces, 12, 12).face_index[0]
  rows, columns = np.nonzero(face_index >= 0)
  seen = faces[face_index[rows, columns]]
  assert set(np.unique(face_index)) == {-1, 0, 1}
  weights = np.random.default_rng(0).normal(size=(12, 12, 4)).astype(np.float32)

  def naive(vertices):
    corners = np.moveaxis(vertices[seen], 0, -1)
    barycentric, depth = face_at_points(corners, columns + 0.5, rows + 0.5)
    values = np.concatenate([barycentric, depth[:, None]], 1)
    return np.sum(values * weights[rows, columns])

  def measure(vertices):
    fragments = rasterize(vertices, jnp.asarray(faces, jnp.int32), 12, 12)
    depth = jnp.where(fragments.face_index >= 0, fragments.depth, 0)
    return jnp.sum(fragments.barycentric * weights[None, ..., :3]) + jnp.sum(
      depth * weights[None, ..., 3]
    )

  expected = np.zeros_like(vertices)
  for position in np.ndindex(*vertices.shape):
    step = np.zeros_like(vertices)
    step[position] = 1e-5
    expected[position] = (naive(vertices + step) - naive(vertices - step)) / 2e-5
  gradient = jax.grad(lambda v: measure(v[None]))(jnp.asarray(vertices, jnp.float32))
  np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)


def test_gradients_are_finite_beside_broken_and_hidden_faces():
  vertices = np.array([[5, 5, 1], [15, 5, 1], [5, 15, 1], [np.nan, 0, 1], [10, 5, 1.0]])
  faces = jnp.array([[0, 1, 2], [0, 1, 3], [0, 1, 4], [0, 0, 1]])

  def measure(vertices):
    fragments = rasterize(vertices, faces, 20, 20)
    hit = fragments.face_index >= 0
    return jnp.sum(fragments.barycentric**2) + jnp.sum(jnp.where(hit, fragments.depth, 0))

  gradient = np.asarray(jax.grad(measure)(jnp.asarray(vertices[None], jnp.float32)))
  assert np.isfinite(gradient).all() and np.abs(gradient[0, :3]).min(1).max() > 0


@pytest.mark.parametrize('seed', range(3))
def test_visible_vertices_match_naive_reference(seed):
  vertices, faces = _sphere(seed, 40, 60)
  vertices[:5, :2] += 100  # outside the image
  computed = _visible(jnp.asarray(vertices[None]), jnp.asarray(faces, jnp.int32), 40, 60)
  expected = visible_vertices_naive(vertices, faces, 40, 60, 1e-5)
  assert 0.2 < expected.mean() < 0.8
  np.testing.assert_array_equal(np.asarray(computed[0]), expected)


def test_visibility_tolerance_and_border():
  """A vertex behind a face by less than the tolerance is visible; the right border is outside."""
  square = [[0, 0, 1], [8, 0, 1], [0, 8, 1], [8, 8, 1]]
  vertices = jnp.array([[*square, [2, 2, 1.005], [2, 2, 1.05], [2, 2, 0.9], [2, 2, jnp.nan]]])
  faces = jnp.array([[0, 1, 2], [1, 3, 2]])
  visible = visible_vertices(vertices, faces, 8, 8, depth_tolerance=0.01)
  expected = [True, False, False, False, True, False, True, False]
  np.testing.assert_array_equal(np.asarray(visible[0]), expected)


def test_a_face_never_hides_its_own_vertices():
  """Steep faces far apart, no tolerance: rounding of a face's depth at its corners is no matter."""
  random = np.random.default_rng(0)
  corners = random.uniform([0, 0, 1], [9, 9, 50], (100, 3, 3)) + 0.1
  corners[..., 0] += 10 * np.arange(100)[:, None]
  vertices = jnp.asarray(corners.reshape(1, 300, 3), jnp.float32)
  faces = jnp.arange(300).reshape(100, 3)
  assert bool(visible_vertices(vertices, faces, 10, 1000, depth_tolerance=0.0).all())


@pytest.mark.parametrize('seed', range(2))
def test_an_object_hides_what_lies_outside_the_hand_mask(seed):
  """Both rules at once, each in its own image of a batch, with vertices beyond every border."""
  vertices, faces = _sphere(seed, 40, 60)
  vertices[:3, :2] += 100
  vertices[3:6, :2] -= 100
  masks = np.zeros((2, 40, 60), bool)
  masks[0, :, :31] = True  # an object covers the right half
  masks[1] = np.random.default_rng(seed).random((40, 60)) < 0.08
  batch = np.stack([vertices, vertices + np.float32([3.25, -2.5, 0])])
  computed = _visible(
    jnp.asarray(batch), jnp.asarray(faces, jnp.int32), 40, 60, hand_mask=jnp.asarray(masks)
  )
  for image, mask, ours in zip(batch, masks, np.asarray(computed), strict=True):
    free = visible_vertices_naive(image, faces, 40, 60, 1e-5)
    near = near_mask_naive(image, mask)
    assert (free & near).sum() > 10 and (free & ~near).sum() > 10 and (near & ~free).sum() > 10
    np.testing.assert_array_equal(ours, free & near)


def test_a_neighbouring_pixel_of_the_mask_is_enough():
  """One pixel of the mask, row 0 and column 3: vertices in the six pixels around it are visible."""
  columns, rows = np.meshgrid(np.arange(5) + 0.01, np.arange(3) + 0.99)
  vertices = np.stack([columns.ravel(), rows.ravel(), np.ones(15)], 1)
  mask = jnp.zeros((1, 3, 5), bool).at[0, 0, 3].set(True)
  visible = visible_vertices(
    jnp.asarray(vertices[None], jnp.float32), jnp.zeros((0, 3), jnp.int32), 3, 5, hand_mask=mask
  )
  expected = [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
  np.testing.assert_array_equal(np.asarray(visible[0]).reshape(3, 5), np.array(expected, bool))


def test_a_mask_of_another_size_is_named():
  with pytest.raises(ValueError, match=r'shape \(1, 5, 4\), expected \(1, 4, 5\)'):
    visible_vertices(
      jnp.zeros((1, 3, 3)), jnp.zeros((1, 3), jnp.int32), 4, 5, hand_mask=jnp.ones((1, 5, 4), bool)
    )


@pytest.mark.parametrize('case', ['random', 'grid', 'sphere', 'many'])
def test_both_forms_see_the_same_faces(case):
  """The form for accelerators, run here, against the one for CPUs: ties, padding and all."""
  random = np.random.default_rng(3)
  if case == 'random':
    vertices, faces = _random_scene(3)
  elif case == 'grid':
    vertices = np.float32(random.integers(-10, 90, (80, 3)) / 2)
    faces = random.integers(0, 80, (module.CHUNK, 3))
  elif case == 'sphere':
    vertices, faces = _sphere(3, 40, 37)
  else:  # equal faces in different chunks
    vertices = np.float32(
      [[1, 1, 1], [30, 2, 1], [3, 30, 1], [5, 5, 0.5], [9, 5, 0.5], [5, 9, 0.5]]
    )
    faces = np.array([[0, 1, 2], [3, 4, 5]] * module.CHUNK)
  vertices[7:8] = np.nan
  arguments = jnp.asarray(np.stack([vertices, vertices[::-1]])), jnp.asarray(faces, jnp.int32)
  forms = (module._nearest_faces_in_windows, module._nearest_faces_of_chunks)
  windows, chunks = (
    np.asarray(jax.jit(form, static_argnums=(2, 3))(*arguments, 40, 37)) for form in forms
  )
  assert (windows >= 0).mean() > 0.2
  np.testing.assert_array_equal(windows, chunks)


def test_a_tpu_takes_the_functions():
  """They lower for a platform that is not here, gradient included, without the CPU's loop."""

  def loss(vertices, attributes, faces):
    fragments = rasterize(vertices, faces, 24, 24)
    return jnp.sum(interpolate(fragments, faces, attributes) ** 2)

  vertices = jax.ShapeDtypeStruct((2, 40, 3), jnp.float32)
  faces = jax.ShapeDtypeStruct((60, 3), jnp.int32)
  mask = jax.ShapeDtypeStruct((2, 24, 24), jnp.bool_)

  def visible(vertices, faces, mask):
    return visible_vertices(vertices, faces, 24, 24, hand_mask=mask)

  gradient = jax.grad(loss, argnums=(0, 1))
  exported = jax.export.export(jax.jit(gradient), platforms=['tpu'])(vertices, vertices, faces)
  assert [value.shape for value in exported.out_avals] == [(2, 40, 3), (2, 40, 3)]
  assert 'complex' not in exported.mlir_module()
  on_cpu = jax.export.export(jax.jit(gradient), platforms=['cpu'])(vertices, vertices, faces)
  assert 'complex' in on_cpu.mlir_module()
  seen = jax.export.export(jax.jit(visible), platforms=['tpu'])(vertices, faces, mask)
  assert seen.out_avals[0].shape == (2, 40)


def test_slivers_and_giants_leave_gradients_finite():
  """Areas whose inverse square overflows, and edges whose product does, are not drawn."""
  good = [[2, 2, 1], [16, 2, 1], [2, 16, 1]]
  broken = [
    [[5, 5, 0.5], [5 + 1e-6, 5, 0.5], [5, 5 + 1e-6, 0.5]],
    [[0, 0, 0.5], [1e-15, 0, 0.5], [0, 1e-15, 0.5]],
    [[0, 0, 0.5], [3e-20, 0, 0.5], [0, 3e-20, 0.5]],
    [[-3e38, -3e38, 0.5], [3e38, -3e38, 0.5], [0, 3e38, 0.5]],
    [[-1e20, -1e20, 0.5], [1e20, -1e20, 0.5], [0, 1e20, 0.5]],
    [[-9, -9, -3e38], [30, -9, 3e38], [0, 30, 3e38]],
    [[-9, -9, 0.5], [np.inf, -9, 0.5], [0, 30, 0.5]],
  ]
  vertices = jnp.asarray(np.reshape([good, *broken], (1, -1, 3)), jnp.float32)
  faces = jnp.arange(vertices.shape[1], dtype=jnp.int32).reshape(-1, 3)

  def measure(vertices):
    fragments = rasterize(vertices, faces, 20, 20)
    hit = fragments.face_index >= 0
    total = jnp.sum(fragments.barycentric**2) + jnp.sum(jnp.where(hit, fragments.depth, 0))
    return total, fragments.face_index

  gradient, index = jax.jit(jax.grad(measure, has_aux=True))(vertices)
  assert set(np.unique(index)) == {-1, 0}
  np.testing.assert_array_equal(gradient[0, 3:], 0)
  assert np.isfinite(gradient).all() and np.abs(gradient[0, :3]).min(1).max() > 0


def test_inside_pmap_each_device_draws_its_own_images():
  """Both functions and a gradient, two devices, against the whole batch at once."""
  scenes = np.stack([_random_scene(seed)[0] for seed in range(2)])[:, None]
  faces = jnp.asarray(_random_scene(0)[1], jnp.int32)

  def draw(vertices):
    def measure(vertices):
      fragments = rasterize(vertices, faces, 40, 40)
      return jnp.sum(fragments.barycentric**3), fragments

    gradient, fragments = jax.grad(measure, has_aux=True)(vertices)
    return gradient, fragments, visible_vertices(vertices, faces, 40, 40)

  devices = jax.devices()[:2]
  apart = jax.pmap(draw, devices=devices)(jnp.asarray(scenes))
  together = jax.jit(draw)(jnp.asarray(scenes[:, 0]))
  assert len(devices) == 2
  for a, b in zip(jax.tree.leaves(apart), jax.tree.leaves(together), strict=True):
    np.testing.assert_allclose(np.asarray(a)[:, 0], b, rtol=1e-4, atol=1e-4)
