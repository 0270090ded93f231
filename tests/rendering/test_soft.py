"""The soft rasterizer against naive float64 loops, its limits, and its derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.rendering.rasterize import rasterize
from hand_jax.rendering.soft import default_blur_radius, soft_blend, soft_silhouette
from hand_jax.rendering.surfaces import interpolate
from tests.reference.soft import central_differences, soft_blend_naive, soft_silhouette_naive

HEIGHT, WIDTH = 8, 9
_EVERYTHING = 1e3  # a blur radius that ignores nothing
_silhouette = jax.jit(soft_silhouette, static_argnums=(2, 3))


def _scene(seed):
  """8 vertices, 6 faces of all sizes; two without area, one mostly outside the image."""
  random = np.random.default_rng(seed)
  vertices = random.uniform([-1, -1, 1], [WIDTH + 1, HEIGHT + 1, 3], (8, 3))
  vertices[7] = [WIDTH + 5, -3, 2]
  return vertices, np.array([[0, 1, 2], [3, 2, 1], [0, 4, 5], [3, 3, 6], [5, 5, 5], [1, 6, 7]])


def _soft(vertices, faces, sigma, radius=_EVERYTHING, size=(HEIGHT, WIDTH), dtype=np.float64):
  """One image of one mesh, in float64 by default."""
  with jax.enable_x64(dtype == np.float64):
    image = _silhouette(
      jnp.asarray(vertices, dtype)[None],
      jnp.asarray(faces, jnp.int32),
      *size,
      jnp.asarray(sigma, dtype),
      jnp.asarray(radius, dtype),
    )
    return np.asarray(image[0])


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('sigma, radius', [(0.7, np.inf), (3.0, np.inf), (3.0, 1.9)])
def test_silhouette_matches_naive_loops(seed, sigma, radius):
  vertices, faces = _scene(seed)
  image = _soft(vertices, faces, sigma, min(radius, _EVERYTHING))
  expected = soft_silhouette_naive(vertices, faces, HEIGHT, WIDTH, sigma, radius)
  assert 0.05 < expected.mean() < 0.95
  np.testing.assert_allclose(image, expected, atol=1e-12)


def test_silhouette_in_single_precision():
  vertices, faces = _scene(0)
  image = _soft(vertices, faces, 0.7, dtype=np.float32)
  expected = soft_silhouette_naive(vertices, faces, HEIGHT, WIDTH, 0.7)
  np.testing.assert_allclose(image, expected, atol=2e-5)


@pytest.mark.slow
def test_silhouette_gradients_match_differences_of_naive_loops():
  vertices, faces = _scene(1)
  weights = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH))

  def naive(vertices, sigma=0.7):
    return np.sum(weights * soft_silhouette_naive(vertices, faces, HEIGHT, WIDTH, sigma))

  with jax.enable_x64(True):
    loss = lambda vertices, sigma: jnp.sum(  # noqa: E731
      weights * soft_silhouette(vertices[None], faces, HEIGHT, WIDTH, sigma, _EVERYTHING)[0]
    )
    faces = jnp.asarray(faces, jnp.int32)
    gradients = jax.jit(jax.grad(loss, (0, 1)))(jnp.asarray(vertices), jnp.asarray(0.7))
  by_vertices, by_sigma = map(np.asarray, gradients)
  flat = central_differences(lambda flat: naive(flat), vertices[:, :2])
  np.testing.assert_allclose(by_vertices[:, :2], flat, atol=1e-7)
  np.testing.assert_array_equal(by_vertices[:, 2], 0)
  assert np.abs(flat[:5]).max(1).min() > 1e-3
  expected = central_differences(lambda sigma: naive(vertices, float(sigma)), np.array(0.7))
  np.testing.assert_allclose(by_sigma, expected, atol=1e-7)


@pytest.mark.slow
def test_what_the_default_radius_ignores_is_below_its_bound():
  """A pile of equal faces seen from just beyond the radius: the worst case, and it is tight."""
  count, sigma = 50, 2.0
  radius = float(default_blur_radius(sigma, count))
  edge = 1.5 + radius  # of a vertical edge; the pixel at x = 1.5 is at the radius
  faces = np.tile([[0, 1, 2]], (count, 1))
  vertices = np.array([[edge, -100], [edge, 100], [edge + 50, 0.5]])
  with jax.enable_x64(True):
    image = soft_silhouette(jnp.asarray(vertices)[None], jnp.asarray(faces), 1, 6, sigma)
    whole = soft_silhouette(jnp.asarray(vertices)[None], jnp.asarray(faces), 1, 6, sigma, 50.0)
  ignored = np.asarray(whole - image)[0, 0]
  np.testing.assert_array_equal(image[0, 0, 0], 0)
  assert ignored.max() < 1e-4 and np.asarray(whole)[0, 0, 1] > 0.9e-4
  np.testing.assert_allclose(radius, np.sqrt(sigma * np.log(count * 1e4)), rtol=1e-6)


@pytest.mark.slow
def test_tends_to_hard_coverage():
  """Sharp sigma gives the hard rasterizer's mask; the blurred band narrows with sqrt(sigma)."""
  vertices = np.array([[5.2, 4.1, 1.0], [58.7, 12.5, 1.0], [21.4, 59.6, 1.0]])
  faces = np.array([[0, 1, 2]])
  fragments = rasterize(jnp.asarray(vertices, jnp.float32)[None], jnp.asarray(faces), 64, 64)
  hard = np.asarray(fragments.face_index[0] >= 0)
  errors = [
    np.abs(_soft(vertices, faces, sigma, size=(64, 64)) - hard).sum() for sigma in (9, 2.25, 0.5625)
  ]
  np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.05)
  np.testing.assert_allclose(_soft(vertices, faces, 1e-7, size=(64, 64)), hard, atol=1e-6)


@pytest.mark.slow
def test_a_moved_edge_covers_the_area_it_sweeps():
  """Independent of the formula: shifting a long edge by 1 covers one pixel more in each row."""
  vertices = np.array([[30.3, -400.0], [30.3, 464.0], [-400.0, 32.0]])
  faces = np.array([[0, 1, 2]])

  def covered(edge):
    moved = jnp.asarray(vertices).at[:2, 0].add(edge)
    return jnp.sum(soft_silhouette(moved[None], jnp.asarray(faces), 64, 64, 4.0, 20.0))

  with jax.enable_x64(True):
    rows = float(jax.jit(jax.grad(covered))(jnp.zeros((), jnp.float64)))
  np.testing.assert_allclose(rows / 64, 1, rtol=2e-3)
  moved = [
    _soft(vertices + [[d, 0], [d, 0], [0, 0]], faces, 4.0, 20, (64, 64)) for d in (-0.1, 0.1)
  ]
  np.testing.assert_allclose((moved[1] - moved[0]).sum() / 0.2, rows, rtol=1e-3)


def _hand_like(batch=2, size=20):
  """A batch of 60 small faces in float32, near and far, and colours."""
  random = np.random.default_rng(3)
  vertices = random.uniform([2, 2, 0.4], [size - 2, size - 2, 0.6], (batch, 40, 3))
  faces = random.integers(0, 40, (60, 3))
  colors = random.uniform(size=(batch, 40, 3))
  return *(jnp.asarray(v, jnp.float32) for v in (vertices, colors)), jnp.asarray(faces, jnp.int32)


def _picture_and_gradients(vertices, colors, faces, background, sigma, gamma):
  """RGB, silhouette, and gradients of a sum of both by vertices, colours, sigma and gamma."""

  def loss(vertices, colors, sigma, gamma):
    picture = soft_blend(vertices, faces, colors, background, 20, 20, sigma, gamma)
    return jnp.sum(picture.rgb**2) + jnp.sum(picture.silhouette**2), picture

  gradients, picture = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(vertices, colors, sigma, gamma)
  return (*picture, *gradients)


_compiled = jax.jit(_picture_and_gradients)
_GREY = np.float32([0.5, 0.5, 0.5])


def _drawn(vertices, colors, faces, sigma, gamma, background=_GREY):
  """`_picture_and_gradients` by one compiled function: meshes are padded with broken faces."""
  batch, count = vertices.shape[:2]
  size = (2 - batch, 40 - count)
  padded = np.pad(vertices, ((0, size[0]), (0, size[1]), (0, 0)), constant_values=np.nan)
  colors = np.pad(colors, ((0, size[0]), (0, size[1]), (0, 0)))
  faces = np.pad(faces, ((0, 60 - len(faces)), (0, 0)), constant_values=39)
  inputs = [np.float32(value) for value in (background, sigma, gamma)]
  drawn = _compiled(np.float32(padded), np.float32(colors), np.int32(faces), *inputs)
  cut = [*(value[:batch] for value in drawn[:2]), *(value[:batch, :count] for value in drawn[2:4])]
  return [np.asarray(value) for value in (*cut, *drawn[4:])]


@pytest.mark.slow
def test_a_batch_is_its_single_images():
  vertices, colors, faces = _hand_like()
  together = _drawn(vertices, colors, faces, 0.5, 0.05)
  assert np.abs(together[0][0] - together[0][1]).max() > 0.1
  for number in range(2):
    alone = _drawn(vertices[number, None], colors[number, None], faces, 0.5, 0.05)
    for whole, part in zip(together[:4], alone[:4], strict=True):
      np.testing.assert_array_equal(whole[number], part[0])


@pytest.mark.slow
def test_two_devices_give_what_one_gives():
  vertices, _, faces = _hand_like()

  def run(vertices, faces):
    loss = lambda v: jnp.sum(soft_silhouette(v, faces, 20, 20, 0.5) ** 2)  # noqa: E731
    return jax.value_and_grad(loss)(vertices)

  spread = jax.pmap(run, in_axes=(0, None))(vertices[:, None], faces)
  mapped = jax.jit(jax.vmap(run, (0, None)))(vertices[:, None], faces)
  one = jax.jit(run)
  for number in range(2):
    value, gradient = one(vertices[number, None], faces)
    assert np.abs(gradient).max() > 1
    for values, gradients in (spread, mapped):
      np.testing.assert_allclose(values[number], value, rtol=1e-6)
      np.testing.assert_allclose(gradients[number], gradient, atol=1e-5 * np.abs(gradient).max())


_BROKEN = np.array(
  [
    [2, 2, 1],
    [7, 2, 1],
    [3, 7, 1.5],
    [np.nan, 3, 1],
    [4, np.inf, 1],
    [1e30, 4, 1],
    [5, 2, 1],  # on the edge from 0 to 1
    [-4, -300, -7],
    [4e6, 4, -1e4],  # as after division by a depth near the camera plane
    [-9e14, -9e14, 1],  # around the whole image
    [9e14, -9e14, 1],
    [0, 9e14, 1],
  ]
)
_BAD_FACES = [[0, 1, 3], [1, 4, 2], [5, 0, 2]]
_THIN_FACES = [[0, 1, 6], [2, 2, 2], [0, 0, 2]]
_HUGE_FACES = [[0, 7, 8], [9, 10, 11]]


@pytest.mark.slow
def test_broken_faces_are_ignored_and_thin_ones_are_segments():
  good = [[0, 1, 2]]
  expected = _soft(_BROKEN, good, 0.5)
  np.testing.assert_array_equal(_soft(_BROKEN, [*good, *_BAD_FACES], 0.5), expected)
  naive = soft_silhouette_naive(_BROKEN, _THIN_FACES, HEIGHT, WIDTH, 0.5)
  np.testing.assert_allclose(_soft(_BROKEN, _THIN_FACES, 0.5), naive, atol=1e-12)
  # Outside everywhere: at most a half.
  assert _soft(_BROKEN, [[0, 0, 2]], 0.5).max() <= 0.5


@pytest.mark.parametrize('sigma, gamma', [(0.5, 0.1), (1e-12, 1e-12), (1e6, 1e6)])
def test_values_and_gradients_are_finite_whatever_the_faces(sigma, gamma):
  faces = [[0, 1, 2], *_BAD_FACES, *_THIN_FACES, *_HUGE_FACES]
  colors = np.random.default_rng(0).uniform(size=(1, 12, 3))
  drawn = _drawn(_BROKEN[None], colors, faces, sigma, gamma)
  for value in drawn:
    assert np.isfinite(value).all()
  by_vertices = drawn[2][0]
  np.testing.assert_array_equal(by_vertices[3:6], 0)
  if sigma == 0.5:
    assert np.abs(by_vertices[:3]).max(1).min() > 1e-3


def _far_faces(far):
  """Triangles with one, two and three corners `far` pixels away, and the corners' levers.

  Numbers that float32 holds. A lever says how far to move a corner to move its edges in view by 1.
  """
  random = np.random.default_rng(3)
  angle = random.uniform(0, 2 * np.pi, 4)
  along = far * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  aside = along[:, ::-1] * [-1, 1]
  corners = random.uniform(1, 7, (4, 3, 2))
  corners[0, 2] += along[0]  # two edges leave the image
  corners[1, 1], corners[1, 2] = corners[1, 1] + along[1], corners[1, 1] - along[1]
  corners[2, 1:] += np.stack([along[2], aside[2]])
  corners[3] = corners[3, 1] + np.stack([aside[3], along[3], -along[3]])  # one edge through it
  levers = np.array([[1, 1, far], [1, 1, 1], [1, far, far], [1, 1, 1]])
  return np.float32(corners).astype(np.float64), levers[..., None]


@functools.cache
def _far_picture():
  weights = np.random.default_rng(1).normal(size=(HEIGHT, WIDTH)).astype(np.float32)

  def loss(corners):
    faces = jnp.arange(3, dtype=jnp.int32)[None]
    image = soft_silhouette(corners, faces, HEIGHT, WIDTH, 1.0, 6.0)
    return jnp.sum(weights[None] * image), image

  return jax.jit(jax.grad(loss, has_aux=True)), weights


@pytest.mark.slow
@pytest.mark.parametrize('far', [1e5, 1e6, 9e7])
def test_far_corners_are_as_exact_as_near_ones(far):
  """Values and derivatives in float32 against float64 loops."""
  corners, levers = _far_faces(far)
  picture, weights = _far_picture()
  gradients, images = map(np.asarray, picture(jnp.asarray(corners, jnp.float32)))

  def naive(face):
    return soft_silhouette_naive(face, [[0, 1, 2]], HEIGHT, WIDTH, 1.0, 6.0)

  for face, lever, image, gradient in zip(corners, levers, images, gradients, strict=True):
    expected = naive(face)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_allclose(image, expected, atol=1e-5)
    slope = central_differences(
      lambda moved, face=face, lever=lever: np.sum(weights * naive(face + moved * lever)),
      np.zeros((3, 2)),
      step=1e-4,
    )
    np.testing.assert_allclose(gradient * lever, slope, rtol=1e-3, atol=1e-3 * np.abs(slope).max())


def test_colors_beside_a_far_corner():
  """Whichever corner of a face is the far one, and listed first."""
  corners = np.float32([[1, 2, 1], [3, 6, 2], [1e6, 5e5, 1.5]])
  colors = np.random.default_rng(0).uniform(size=(3, 3))
  expected = soft_blend_naive(
    corners, [[0, 1, 2]], colors, np.full((20, 20, 3), 0.5), 0.5, 0.1, 1 - 0.1, 2 + 0.1
  )
  for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
    rgb = _drawn(corners[None], colors[None], [order], 0.5, 0.1)[0]
    np.testing.assert_allclose(rgb[0], expected, atol=2e-4)


def _blend_inputs(seed):
  random = np.random.default_rng(seed)
  vertices, faces = _scene(seed)
  vertices[6, 2] = 3.4  # beyond `far`
  colors = random.uniform(size=(8, 3))
  background = random.uniform(size=(HEIGHT, WIDTH, 3))
  return {
    'vertices': vertices,
    'colors': colors,
    'background': background,
    'sigma': np.array(0.8),
    'gamma': np.array(0.2),
  }, faces


def _naive_blend(inputs, faces):
  return soft_blend_naive(**inputs, faces=faces, near=0.9, far=3.1)


def _soft_blend(inputs, faces):
  picture = soft_blend(
    inputs['vertices'][None],
    faces,
    inputs['colors'][None],
    inputs['background'][None],
    HEIGHT,
    WIDTH,
    inputs['sigma'],
    inputs['gamma'],
    blur_radius=_EVERYTHING,
    near=0.9,
    far=3.1,
  )
  return picture.rgb[0]


@functools.cache
def _blend_and_gradient():
  return jax.jit(
    lambda inputs, faces, weights: jax.value_and_grad(
      lambda inputs: (lambda rgb: (jnp.sum(rgb * weights), rgb))(_soft_blend(inputs, faces)),
      has_aux=True,
    )(inputs)
  )


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(2))
def test_blend_and_its_gradients_match_naive_loops(seed):
  """Derivatives along random changes of everything at once, and of sigma and gamma alone."""
  inputs, faces = _blend_inputs(seed)
  random = np.random.default_rng(seed)
  weights = random.normal(size=(HEIGHT, WIDTH, 3))
  with jax.enable_x64(True):
    (_, rgb), gradients = _blend_and_gradient()(
      jax.tree.map(jnp.asarray, inputs), jnp.asarray(faces, jnp.int32), jnp.asarray(weights)
    )
  np.testing.assert_allclose(rgb, _naive_blend(inputs, faces), atol=1e-12)
  for names in [*[[name] for name in inputs], list(inputs)]:
    change = {
      name: random.normal(size=value.shape) * (name in names) for name, value in inputs.items()
    }
    ends = [
      np.sum(
        weights * _naive_blend({name: inputs[name] + step * change[name] for name in inputs}, faces)
      )
      for step in (1e-6, -1e-6)
    ]
    expected = (ends[0] - ends[1]) / 2e-6
    slope = sum(np.sum(np.asarray(gradients[name]) * change[name]) for name in inputs)
    np.testing.assert_allclose(slope, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_blend_tends_to_the_hard_picture():
  vertices, colors, faces = _hand_like()
  fragments = rasterize(vertices, faces, 20, 20)
  hard = interpolate(fragments, faces, colors)
  hard = jnp.where((fragments.face_index >= 0)[..., None], hard, 0.5)
  errors = []
  for sigma, gamma in [(1e-2, 3e-2), (1e-4, 1e-3), (1e-8, 1e-5)]:
    rgb = _drawn(vertices, colors, faces, sigma, gamma)[0]
    errors.append(np.abs(rgb - hard).max(-1))
  assert errors[0].mean() > 4 * errors[1].mean() > 0
  # At depths closer than gamma resolves, or on an edge to 1e-4 pixels, a pixel may differ.
  assert (errors[2] < 1e-3).mean() > 0.995


def test_the_nearer_face_wins_as_gamma_falls():
  """Two faces over one another: exact shares from the formula, and they follow the depths."""
  triangle = np.array([[-90.0, -90.0], [200.0, -90.0], [-90.0, 200.0]])
  colors = np.repeat(np.eye(3)[:2], 3, axis=0)[None]
  faces = [[0, 1, 2], [3, 4, 5]]
  for depths in ([1.0, 2.0], [2.0, 1.0]):
    vertices = np.concatenate([np.tile(triangle, (2, 1)), np.repeat(depths, 3)[:, None]], axis=1)
    for gamma in (0.5, 0.1, 1e-4):
      rgb = _drawn(vertices[None], colors, faces, 0.1, gamma, [0, 0, 1])[0]
      # A tenth of the range beyond each end: z is 11/12 for the nearer and 1/12 for the farther.
      near, far = (11 / 12, 1 / 12) if depths[0] < depths[1] else (1 / 12, 11 / 12)
      exponents = np.array([near, far, 1e-3]) / gamma
      shares = np.exp(exponents - exponents.max())
      np.testing.assert_allclose(rgb[0, 2, 1], shares / shares.sum(), atol=2e-5)


def test_default_range_of_depth_follows_the_mesh():
  """Neither a shift nor a change of unit of the depth changes the picture; a flat mesh has one."""
  vertices, colors, faces = map(np.asarray, _hand_like())
  picture, scaled, flat = (
    _drawn(np.concatenate([vertices[..., :2], depth], -1), colors, faces, 0.5, 0.1)[0]
    for depth in (vertices[..., 2:], vertices[..., 2:] * 1000 - 300, 0 * vertices[..., 2:] + 0.7)
  )
  np.testing.assert_allclose(picture, scaled, atol=1e-4)
  assert np.isfinite(flat).all() and np.abs(flat - 0.5).max() > 0.1


def test_lowers_for_tpu():
  inputs = (*_hand_like(), _GREY, np.float32(0.5), np.float32(0.05))
  shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in inputs]
  module = jax.export.export(_compiled, platforms=['tpu'])(*shapes)
  assert module.platforms == ('tpu',) and 'stablehlo.while' in module.mlir_module()


def test_nothing_to_draw():
  vertices, faces = jnp.zeros((2, 3, 3)), jnp.zeros((0, 3), jnp.int32)
  np.testing.assert_array_equal(soft_silhouette(vertices, faces, 4, 5, 1.0), np.zeros((2, 4, 5)))
  picture = soft_blend(vertices, faces, vertices, jnp.array([0.1, 0.2, 0.3]), 4, 5, 1.0, 0.1)
  np.testing.assert_allclose(picture.rgb[1, 3, 4], [0.1, 0.2, 0.3], rtol=1e-6)
  one = jnp.zeros((1, 3), jnp.int32)
  assert soft_silhouette(vertices[:0], one, 4, 5, 1.0).shape == (0, 4, 5)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'height': 0}, 'height 0'),
    ({'sigma': 0.0}, 'sigma .* got 0.0'),
    ({'sigma': float('nan')}, 'sigma .* got nan'),
    ({'blur_radius': -1.0}, 'blur_radius .* got -1.0'),
    ({'vertices_image': jnp.zeros((1, 3, 4))}, 'expected .*, 2 or 3'),
    ({'gamma': -0.1}, 'gamma .* got -0.1'),
    ({'near': 2.0, 'far': 2.0}, 'far - near .* got 0.0'),
  ],
)
def test_bad_settings_are_named(change, message):
  triangle = jnp.array([[[0.0, 0, 1], [5, 0, 1], [0, 5, 1]]])
  common = {
    'vertices_image': triangle,
    'faces': jnp.array([[0, 1, 2]]),
    'height': 4,
    'width': 4,
    'sigma': 1.0,
  }
  blend = {'colors': triangle, 'background': 0.0, 'gamma': 0.1}
  if not change.keys() & {'gamma', 'near', 'vertices_image'}:
    with pytest.raises(ValueError, match=message):
      soft_silhouette(**{**common, **change})
  if 'vertices_image' in change:
    with pytest.raises(ValueError, match=message):
      soft_silhouette(**{**common, **change})
  else:
    with pytest.raises(ValueError, match=message):
      soft_blend(**{**common, **blend, **change})
