"""Vertices' colours of synthetic hands: what the photo shows, and what it would show."""

import cv2
import numpy as np
import pytest

from hand_jax.examples import HandExample
from hand_jax.mano.assets import load_hand_appearance, load_mano_model
from hand_jax.synthetic import compose as synthetic_render
from hand_jax.synthetic import geometry as synthetic_geometry
from hand_jax.synthetic import hands as synthetic
from hand_jax.synthetic import sensor as synthetic_sensor

SIZE = 96
# Fine enough that a vertex and the middle of its pixel look alike.
LARGE = 256
COUNT = 12


@pytest.fixture(scope='module')
def examples():
  return synthetic.render_examples(3, 'test', range(COUNT), SIZE, with_vertex_labels=True)


def vertex_pixels(example: HandExample, finer: int = 1) -> tuple[np.ndarray, np.ndarray]:
  """Row and column of every vertex's pixel, of an image `finer` times as large."""
  points = example.vertices_camera.astype(np.float64) @ example.intrinsics.T
  pixels = np.floor(points[:, :2] / points[:, 2:] * finer).astype(int)
  column, row = np.clip(pixels, 0, len(example.image) * finer - 1).T
  return row, column


def inside_mask(example: HandExample) -> np.ndarray:
  """Vertices whose pixel and its eight neighbours all show the hand."""
  mask = example.hand_mask.astype(np.uint8)
  inner = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
  return inner[vertex_pixels(example)] > 0


def facing(example: HandExample) -> np.ndarray:
  """Cosine between each vertex's normal (a loop's sum over its faces) and the way to the camera."""
  vertices = example.vertices_camera.astype(np.float64)
  normals = np.zeros_like(vertices)
  for a, b, c in np.asarray(load_mano_model().faces):
    normal = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    for corner in (a, b, c):
      normals[corner] += normal
  cosine = -(normals * vertices).sum(1) / np.linalg.norm(vertices, axis=1)
  return cosine / np.linalg.norm(normals, axis=1)


def differences(example: HandExample, colors: np.ndarray, chosen: np.ndarray) -> np.ndarray:
  """Absolute differences between the chosen vertices' colours and their pixels' in the photo."""
  row, column = vertex_pixels(example)
  return np.abs(example.image[row, column] / 255 - colors)[chosen]


def shuffled(example: HandExample, chosen: np.ndarray) -> np.ndarray:
  """Colours with those of the chosen vertices exchanged among them."""
  colors = example.vertex_colors.copy()
  colors[chosen] = np.random.default_rng(0).permutation(colors[chosen])
  return colors


@pytest.mark.slow
def test_every_vertex_has_a_display_colour(examples):
  hidden = 0
  for example in examples:
    colors = example.vertex_colors
    assert colors.shape == (778, 3) and colors.dtype == np.float32
    assert np.isfinite(colors).all() and colors.min() >= 0 and colors.max() <= 1
    assert len(np.unique(colors, axis=0)) > 400  # not one colour for all; brightest ones may clip
    hidden += (~example.vertex_visible).sum()
  assert hidden > COUNT * 778 * 0.3


def test_colours_are_a_function_of_the_request(examples):
  (again,) = synthetic.render_examples(3, 'test', [4], SIZE, with_vertex_labels=True)
  np.testing.assert_array_equal(again.vertex_colors, examples[4].vertex_colors)
  for k, example in enumerate(examples):
    for other in examples[:k]:
      assert np.abs(example.vertex_colors - other.vertex_colors).mean() > 0.02


@pytest.mark.slow
def test_the_photo_shows_visible_vertices_in_their_colours(examples):
  """Blur, noise, compression and crevices are in the photo alone: a few hundredths."""
  found, by_chance = [], []
  for example in examples:
    chosen = example.vertex_visible & inside_mask(example) & (facing(example) > 0.4)
    assert chosen.sum() > 20
    found.append(np.median(differences(example, example.vertex_colors, chosen)))
    by_chance.append(np.median(differences(example, shuffled(example, chosen), chosen)))
  assert max(found) < 0.05
  assert np.mean(found) < 0.025
  assert np.mean(by_chance) > 3 * np.mean(found)


def render_clean(monkeypatch, far_side: bool):
  """Photos without what belongs to pixels, each with its shown vertices, well inside the hand.

  On `far_side` the surface farthest from the camera is drawn instead of the nearest: a photo of
  the vertices that the hand itself hides.
  """
  seen_faces, seen = synthetic_geometry.seen_faces, []

  def see(surface_image, faces, size):
    if far_side:
      surface_image = surface_image * np.float32([1, 1, -1]) + np.float32([0, 0, 2])
    seen.append(np.asarray(seen_faces(surface_image, faces, size)))
    return seen[-1]

  def photograph(rng, image):
    balance = synthetic_sensor._sample_balance(rng)
    image = synthetic_sensor.apply_balance(image.astype(np.float32), balance)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8), balance

  monkeypatch.setattr(synthetic_geometry, 'seen_faces', see)
  monkeypatch.setattr(synthetic_render, 'photograph', photograph)
  monkeypatch.setattr(synthetic_render, '_crevices', lambda *_: np.float32(1))
  monkeypatch.setattr(synthetic, 'sample_objects', lambda *_: [])
  arm_faces = load_hand_appearance().forearm_faces
  corners = np.concatenate([np.asarray(load_mano_model().faces), arm_faces, [[-1] * 3]])
  for index in range(8):
    (example,) = synthetic.render_examples(3, 'train', [index], LARGE, with_vertex_labels=True)
    # Shown: the face seen at the vertex's own fine pixel is one of its faces.
    at_vertex = seen[-1][vertex_pixels(example, finer=2)]
    shown = (corners[at_vertex] == np.arange(778)[:, None]).any(1)
    yield example, shown & inside_mask(example)


@pytest.mark.slow
@pytest.mark.parametrize('far_side', [False, True], ids=['near side', 'far side'])
def test_colours_are_those_of_a_clean_photo_of_either_side(monkeypatch, far_side):
  nail = load_hand_appearance().nail > 0.9
  means, medians, nails = [], [], []
  for example, chosen in render_clean(monkeypatch, far_side):
    assert chosen.sum() > 50
    # The two sides are of different vertices.
    if far_side:
      assert example.vertex_visible[chosen].mean() < 0.2
    found = differences(example, example.vertex_colors, chosen)
    means.append(found.mean())
    medians.append(np.median(found))
    nails += differences(example, example.vertex_colors, chosen & nail).ravel().tolist()
    assert np.median(differences(example, shuffled(example, chosen), chosen)) > 3 * medians[-1]
  # Half a pixel and the pores are left: a level and a half, more at shadows' and nails' edges.
  assert max(medians) < 0.015 and np.mean(medians) < 0.008
  assert max(means) < 0.035 and np.mean(means) < 0.017
  assert len(nails) > 40 and np.median(nails) < 0.03
