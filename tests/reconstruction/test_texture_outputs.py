"""Files of a textured hand read back: colours per vertex in their order, and the UV picture."""

import dataclasses
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from PIL import Image

from experiments.configs.names import get_config
from hand_jax.mano.assets import load_hand_appearance, load_mano_model
from hand_jax.models.hand_network import create_network
from hand_jax.reconstruction import views
from hand_jax.reconstruction.files import (
  OUTPUT_SUFFIXES,
  TEXTURE_SUFFIXES,
  UV_SUFFIXES,
  write_reconstruction,
)
from hand_jax.reconstruction.meshes import srgb_to_linear
from hand_jax.reconstruction.texture_picture import (
  TEXTURE_SIDE,
  free_hand_layout,
  free_hand_texture,
)
from hand_jax.reconstruction.trained_network import (
  HandPhoto,
  create_trained_network,
  reconstruct_branches,
  reconstruct_in_box,
)
from hand_jax.reconstruction.views import display_vertices, texture_image
from tests.drawn_variables import drawn_network
from tests.toy_mano import make_toy_mano

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('small_pictures')]

BOX = np.array([20.0, 31.0, 60.0, 47.0])
# From the camera's axes to those of OBJ and PLY.
Y_UP = np.array([1, -1, -1])


@pytest.fixture(scope='module')
def network():
  """Untrained, but every vertex has a colour of its own."""
  config, model = get_config('toy_texture'), load_mano_model()
  variables = drawn_network(create_network(config), model)
  head = variables['params']['texture_regressor']['rgb']
  head['kernel'] = jax.random.normal(jax.random.key(1), head['kernel'].shape)
  return create_trained_network(config, variables, model)


@pytest.fixture(scope='module')
def hand(network, photo):
  return reconstruct_in_box(network, HandPhoto(photo, BOX))


@pytest.fixture(scope='module')
def smooth_colors():
  """Colours that change over the hand as slowly as skin does."""
  template = np.asarray(load_mano_model().v_template, np.float64)
  low, high = template.min(axis=0), template.max(axis=0)
  return (0.1 + 0.8 * (template - low) / (high - low)).astype(np.float32)


@pytest.fixture(scope='module', params=['right', 'left'])
def written(request, network, photo, smooth_colors, tmp_path_factory):
  folder = tmp_path_factory.mktemp(request.param)
  hand = reconstruct_in_box(network, HandPhoto(photo, BOX, request.param))
  hand = dataclasses.replace(hand, vertex_colors=smooth_colors)
  return folder, hand, write_reconstruction(hand, 'my hand', folder)


def test_colours_are_the_networks_and_the_same_for_a_mirrored_photo(network, photo, hand):
  estimates = []

  def estimate(*crop):
    estimates.append(network.estimate(*crop))
    return estimates[-1]

  watched = network._replace(estimate=estimate)
  box = np.array([120 - 20 - 60, *BOX[1:]])
  mirrored = reconstruct_in_box(
    watched, HandPhoto(np.ascontiguousarray(photo[:, ::-1]), box, 'left')
  )
  np.testing.assert_array_equal(mirrored.vertex_colors, estimates[0].vertex_colors)
  np.testing.assert_array_equal(mirrored.vertex_colors, hand.vertex_colors)
  np.testing.assert_array_equal(mirrored.vertex_visible, hand.vertex_visible)
  assert hand.vertex_colors.shape == (778, 3) and np.ptp(hand.vertex_colors, axis=0).min() > 0.01


@pytest.mark.parametrize('side', ['right', 'left'])
def test_a_hand_mask_reaches_the_network_as_the_crop_does(network, photo, side):
  """A mask that is half of the photo is the same half of the crop."""
  seen = []

  def estimate(crop, mask):
    seen.append(mask)
    return network.estimate(crop, None)

  mask = np.zeros(photo.shape[:2], bool)
  mask[:, :50] = True  # left of the box' centre, which is the crop's
  watched = network._replace(estimate=estimate)
  reconstruct_branches(watched, HandPhoto(photo, BOX, side, hand_mask=mask))
  half = network.config.model.image_size // 2
  expected = slice(0, half) if side == 'right' else slice(half, 2 * half)
  columns = np.flatnonzero(seen[0].any(axis=0))
  assert seen[0].dtype == bool and set(columns) <= set(range(expected.start, expected.stop))
  assert len(columns) > half / 2


def test_every_file_is_written_and_the_json_names_them(written):
  folder, hand, paths = written
  suffixes = OUTPUT_SUFFIXES + TEXTURE_SUFFIXES + UV_SUFFIXES
  names = {f'my hand{suffix}' for suffix in suffixes}
  assert {path.name for path in folder.iterdir()} == names == {path.name for path in paths}
  data = json.loads((folder / 'my hand.json').read_text())
  told = ' '.join(data['units'])
  assert all(f'*{suffix}' in told for suffix in (*TEXTURE_SUFFIXES, '_texture.png'))
  assert data['texture']['uv'].startswith('the free hand')
  seen = {'seen': int(hand.vertex_visible.sum()), 'all': 778}
  assert data['visible_vertices'] == seen
  with np.load(folder / 'my hand.npz', allow_pickle=False) as arrays:
    np.testing.assert_array_equal(arrays['vertex_colors'], hand.vertex_colors)
    np.testing.assert_array_equal(arrays['vertex_visible'], hand.vertex_visible)
    assert arrays['hand_model'] == 'free hand 3'


def test_meshes_hold_the_colours_vertex_by_vertex(written):
  folder, hand, _ = written
  ply = trimesh.load(folder / 'my hand_textured.ply', process=False)
  np.testing.assert_allclose(ply.vertices, hand.vertices * Y_UP, atol=1e-7)
  np.testing.assert_array_equal(ply.faces, hand.faces)
  np.testing.assert_array_equal(ply.visual.vertex_colors[:, :3], np.round(255 * hand.vertex_colors))
  glb = trimesh.load(folder / 'my hand_textured.glb', process=False).geometry['hand']
  np.testing.assert_allclose(glb.vertices, hand.vertices, atol=1e-7)
  linear = np.asarray(glb.visual.vertex_attributes['color'])[:, :3]
  np.testing.assert_allclose(linear, srgb_to_linear(hand.vertex_colors), atol=1e-6)
  lines = (folder / 'my hand_textured.obj').read_text().splitlines()
  read = np.array([line.split()[1:] for line in lines if line.startswith('v ')], float)
  np.testing.assert_allclose(read[:, :3], hand.vertices * Y_UP, atol=1e-7)
  np.testing.assert_allclose(read[:, 3:], hand.vertex_colors, atol=1e-5)


def sample(image, uv):
  """Bilinear, v up, the first pixel's centre half a pixel from the corner."""
  height, width = image.shape[:2]
  at = np.stack([uv[:, 0] * width, (1 - uv[:, 1]) * height], axis=1) - 0.5
  maps = at.astype(np.float32)[None]
  return cv2.remap(image, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]


def test_the_obj_wears_the_texture_as_a_reader_finds_it(written):
  """The reader follows mtllib, usemtl and map_Kd; each corner's texel is its vertex' colour."""
  folder, hand, _ = written
  mesh = trimesh.load(folder / 'my hand_textured.obj', process=False)
  image = np.asarray(mesh.visual.material.image.convert('RGB'))
  assert image.shape == (TEXTURE_SIDE, TEXTURE_SIDE, 3)
  # The reader splits vertices at seams: compare corner by corner.
  places = mesh.vertices[mesh.faces]
  np.testing.assert_allclose(places, hand.vertices[hand.faces] * Y_UP, atol=1e-7)
  uv = mesh.visual.uv[mesh.faces].reshape(-1, 2)
  error = np.abs(sample(image, uv) / 255 - hand.vertex_colors[hand.faces].reshape(-1, 3))
  # One texel of 8 bits off the vertex, where triangles are a few texels wide.
  assert error.max() < 0.012 and error.mean() < 0.003


def test_the_picture_holds_each_face_and_nothing_bleeds(smooth_colors):
  """Middles of all faces, those across seams too: linear between the corners' colours."""
  image, layout = free_hand_texture(smooth_colors), free_hand_layout()
  faces = np.asarray(load_mano_model().faces)
  np.testing.assert_array_equal(layout.vertices[layout.corners], faces)
  middles = layout.places[layout.corners].mean(axis=1)
  uv = np.stack([middles[:, 0], TEXTURE_SIDE - middles[:, 1]], axis=1) / TEXTURE_SIDE
  error = np.abs(sample(image, uv) / 255 - smooth_colors[faces].mean(axis=1))
  assert error.max() < 0.012
  assert ((layout.places > 0) & (layout.places < TEXTURE_SIDE)).all()
  assert image.min() >= 20  # no bare texel: the darkest colour is 0.1


def test_the_layout_is_the_free_hands_without_stretched_faces():
  layout = free_hand_layout()
  uv = np.asarray(load_hand_appearance().uv, np.float64)
  # A shift and one scale; v points up, rows down.
  own = layout.places[:778] * [1, -1]
  ratio = np.ptp(own, axis=0) / np.ptp(uv, axis=0)
  np.testing.assert_allclose(ratio[0], ratio[1], rtol=1e-5)
  np.testing.assert_allclose(own - own[:1], (uv - uv[:1]) * ratio[0], atol=1e-3)
  cut = (layout.corners >= 778).any(axis=1)
  assert 150 < cut.sum() < 300
  corners = layout.places[layout.corners]
  edges = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=-1)
  assert edges.max() < TEXTURE_SIDE / 8  # uncut, some are longer than half the picture
  covered = np.zeros((TEXTURE_SIDE, TEXTURE_SIDE), int)
  for face in corners[~cut]:
    one = np.zeros(covered.shape, np.uint8)
    cv2.fillConvexPoly(one, np.round((face - 0.5) * 16).astype(int), 1, shift=4)
    low, high = np.floor(face.min(0)).astype(int), np.ceil(face.max(0)).astype(int) + 1
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    covered[window] += cv2.erode(one[window], np.ones((3, 3), np.uint8))
  assert (covered > 1).mean() < 1e-4


def test_views_show_the_photo_and_the_colours_over_it(written, photo, monkeypatch):
  _, hand, _ = written
  # In smaller pictures most vertices would lie on an outline.
  monkeypatch.setattr(views, 'PANEL_SIDE', 200)
  side, caption = views.PANEL_SIDE, 40
  picture = texture_image(hand)
  assert picture.shape == (side, 4 * side, 3)
  drawn = picture[:, side : 2 * side].astype(float) / 255
  points = display_vertices(hand, side)
  inside = ((points[:, :2] > 3) & (points[:, :2] < side - caption)).all(axis=1)
  seen = inside & hand.vertex_visible
  assert seen.sum() > 50
  columns, rows = points[seen, :2].astype(int).T
  error = np.abs(drawn[rows, columns] - hand.vertex_colors[seen]).max(axis=1)
  assert np.median(error) < 0.02  # vertices on the outline are mixed with the photo
  for view in (2, 3):
    aside = picture[: side - caption, view * side : (view + 1) * side]
    assert (aside[0, 0] == 245).all()
    assert 0.1 < (aside != 245).any(axis=-1).mean() < 0.9


def test_another_hand_model_has_no_texture_picture(hand, photo, tmp_path):
  """Of MANO there are vertex colours alone, and the JSON says so."""
  other = dataclasses.replace(hand, hand_model='MANO')
  paths = write_reconstruction(other, 'name', tmp_path)
  names = {f'name{suffix}' for suffix in OUTPUT_SUFFIXES + TEXTURE_SUFFIXES}
  assert {path.name for path in tmp_path.iterdir()} == names == {path.name for path in paths}
  data = json.loads((tmp_path / 'name.json').read_text())
  assert data['texture']['uv'].startswith('none')
  assert '*_texture.png' not in data['units']
  text = (tmp_path / 'name_textured.obj').read_text()
  assert 'mtllib' not in text and 'vt ' not in text
  read = np.array([line.split()[1:] for line in text.splitlines() if line.startswith('v ')], float)
  np.testing.assert_allclose(read[:, 3:], hand.vertex_colors, atol=1e-5)


def test_the_free_hand_is_told_from_other_models(network, hand, photo):
  assert hand.is_free_hand
  # The estimate may be anything: which model it belongs to is what is asked.
  estimate = network.estimate(np.zeros((64, 64, 3), np.uint8), None)
  toy = network._replace(model=make_toy_mano(), estimate=lambda *_: estimate)
  assert not reconstruct_in_box(toy, HandPhoto(photo, BOX)).is_free_hand


def test_the_texture_image_file_is_the_picture(written):
  folder, hand, _ = written
  stored = np.asarray(Image.open(folder / 'my hand_texture.png'))
  np.testing.assert_array_equal(stored, free_hand_texture(hand.vertex_colors))
  assert jnp.asarray(stored).dtype == np.uint8
