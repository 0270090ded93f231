"""Hands that no camera should meet: images and gradients stay finite, and nothing hides it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.geometry.cameras import NEAR_M
from hand_jax.mano.assets import load_mano_model
from hand_jax.rendering.clipping import drop_near_vertices, project_in_front
from hand_jax.rendering.images import depth_image, normal_image
from hand_jax.rendering.rasterize import rasterize, visible_vertices
from hand_jax.rendering.surfaces import directional_light, headlight, interpolate
from hand_jax.types import PerspectiveCamera

_SIZE = 48
_CAMERA = PerspectiveCamera(jnp.full((1, 2), 100.0), jnp.full((1, 2), _SIZE / 2))
_NEAR = 0.05


def _images(points_camera, faces):
  """Everything a loss may look at, of a hand in camera space."""
  vertices = project_in_front(_CAMERA, points_camera, _NEAR)
  fragments = rasterize(vertices, faces, _SIZE, _SIZE)
  normals = normal_image(fragments, faces, points_camera)
  light = headlight(normals) + directional_light(normals, jnp.array([0.3, -0.5, -1]))
  colors = interpolate(fragments, faces, points_camera)
  images = (colors, depth_image(fragments), normals, light, fragments.barycentric)
  return images, (fragments.face_index, visible_vertices(vertices, faces, _SIZE, _SIZE))


@functools.cache
def _compiled():
  def loss(points_camera, faces):
    images, seen = _images(points_camera, faces)
    return sum(jnp.sum(image**2) for image in images), (images, seen)

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture(scope='module')
def hand():
  """The free hand at half a metre, in the middle of the image."""
  model = load_mano_model()
  vertices = np.asarray(model.v_template) - np.asarray(model.v_template).mean(0)
  return vertices.astype(np.float32) + np.float32([0, 0, 0.5]), np.asarray(model.faces)


def _moved(offset):
  def change(vertices, faces):
    return vertices + np.float32(offset), faces, np.zeros(len(vertices), bool)

  return change


def _behind(share):
  """Shifted along the viewing axis so that this share of the vertices is nearer than the limit."""

  def change(vertices, faces):
    shift = _NEAR - np.quantile(vertices[:, 2], share)
    moved = vertices + np.float32([0, 0, shift])
    return moved, faces, moved[:, 2] < _NEAR

  return change


def _at_the_camera(vertices, faces):
  """Depths of exactly zero, where a projection divides by nothing."""
  moved = vertices.copy()
  moved[::7, 2] = 0
  return moved, faces, moved[:, 2] < _NEAR


def _zero_area(vertices, faces):
  """Faces of one point, of two, and a fingerful of vertices in one place."""
  faces = faces.copy()
  faces[::5, 1] = faces[::5, 0]
  faces[1::50] = faces[1::50, :1]
  merged = vertices.copy()
  merged[300:400] = merged[300]
  return merged, faces, np.zeros(len(vertices), bool)


def _broken(value, rows):
  def change(vertices, faces):
    spoiled = vertices.copy()
    spoiled[rows, 1] = value
    dropped = np.zeros(len(vertices), bool)
    dropped[rows] = True
    return spoiled, faces, dropped

  return change


_CASES = {
  'whole': (_moved([0, 0, 0]), (0.03, 1)),
  'partly outside': (_moved([0.12, 0.05, 0]), (0.01, 0.5)),
  'outside': (_moved([5, 0, 0]), (0, 0)),
  'all behind': (_behind(1.0), (0, 0.01)),
  'half behind': (_behind(0.5), (0.01, 1)),
  'at depth zero': (_at_the_camera, (0, 1)),
  'zero area': (_zero_area, (0.02, 1)),
  'some NaN': (_broken(np.nan, slice(0, 60, 7)), (0.02, 1)),
  'some infinite': (_broken(np.inf, slice(0, 60, 7)), (0.02, 1)),
  'all NaN': (_broken(np.nan, slice(None)), (0, 0)),
}


@pytest.mark.slow
@pytest.mark.parametrize('case', _CASES)
def test_images_and_gradients_are_finite(case, hand):
  change, (least, most) = _CASES[case]
  vertices, faces, dropped = change(*hand)
  (loss, (images, (face_index, visible))), gradient = _compiled()(
    jnp.asarray(vertices[None]), jnp.asarray(faces, jnp.int32)
  )
  assert np.isfinite(loss)
  for image in images:
    assert np.isfinite(image).all()
  covered = np.mean(np.asarray(face_index) >= 0)
  assert least <= covered <= most
  gradient = np.asarray(gradient)
  assert np.isfinite(gradient).all()
  # A vertex behind the camera still turns the normals of its neighbours; a broken one does nothing.
  np.testing.assert_array_equal(gradient[0, ~np.isfinite(vertices).all(1)], 0)
  assert (np.abs(gradient).max() > 0) == (covered > 0)
  # What is dropped is neither visible nor part of a face that is seen.
  assert not np.asarray(visible)[0, dropped].any()
  seen = np.unique(np.asarray(face_index))
  assert not dropped[faces[seen[seen >= 0]]].any()


def test_broken_vertices_change_no_other_pixel(hand):
  """Away from the dropped faces, the image is that of the whole hand."""
  vertices, faces = hand
  spoiled, _, dropped = _broken(np.nan, slice(0, 60, 7))(vertices, faces)
  faces_on_device = jnp.asarray(faces, jnp.int32)
  (_, (whole, (index, _))), _ = _compiled()(jnp.asarray(vertices[None]), faces_on_device)
  (_, (images, _)), _ = _compiled()(jnp.asarray(spoiled[None]), faces_on_device)
  # Normals of the dropped vertices' neighbours change: stay two faces away.
  near = np.isin(np.arange(len(vertices)), faces[dropped[faces].any(1)])
  away = ~near[faces].any(1)
  kept = (np.asarray(index) >= 0) & away[np.maximum(np.asarray(index), 0)]
  assert kept.sum() > 40
  for spoiled_image, image in zip(images, whole, strict=True):
    np.testing.assert_allclose(np.asarray(spoiled_image)[kept], np.asarray(image)[kept], atol=1e-5)


def test_near_vertices_become_nan_and_pass_no_gradient():
  vertices = jnp.array([[1.0, 2, 0.3], [3, 4, 0.05], [5, 6, 0.049], [7, 8, -1], [np.nan, 0, 9]])
  kept = [True, True, False, False, False]
  ours = drop_near_vertices(vertices, _NEAR)
  np.testing.assert_array_equal(ours[:2], vertices[:2])
  assert np.isnan(ours[2:]).all()
  gradient = jax.grad(lambda v: jnp.nansum(drop_near_vertices(v, _NEAR)))(vertices)
  np.testing.assert_array_equal(gradient, np.broadcast_to(np.array(kept)[:, None], (5, 3)))


def test_projection_in_front_by_hand():
  points = jnp.array([[[0.1, -0.2, 0.5], [0.1, 0.1, _NEAR], [0, 0, 0], [0, 0, -1], [np.inf, 0, 1]]])
  ours = project_in_front(_CAMERA, points, _NEAR)[0]
  np.testing.assert_allclose(ours[:2], [[44, -16, 0.5], [224, 224, _NEAR]], rtol=1e-6)
  assert np.isnan(ours[2:]).all()
  derivative = jax.jit(jax.grad(lambda p: jnp.nansum(project_in_front(_CAMERA, p, _NEAR))))
  gradient = derivative(points)[0]
  # x + y + z of pixels (100 x / z, 100 y / z) and depth.
  np.testing.assert_allclose(gradient[:2], [[200, 200, 41], [2000, 2000, -7999]], rtol=1e-5)
  np.testing.assert_array_equal(gradient[2:], 0)


def test_a_near_plane_behind_the_limit_is_named():
  with pytest.raises(ValueError, match=f'near_m is 0.0, expected at least {NEAR_M}'):
    project_in_front(_CAMERA, jnp.zeros((1, 4, 3)), near_m=0.0)
