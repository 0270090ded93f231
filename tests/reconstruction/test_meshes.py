"""Written meshes read back by trimesh; colours and legend agree about millimetres."""

import io
import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from hand_jax.reconstruction.meshes import (
  MeshPart,
  color_of_fraction,
  glb_bytes,
  in_axes,
  legend_image,
  legend_ticks,
  obj_text,
  ply_bytes,
  png_bytes,
  sigma_colors,
  sigma_range_mm,
  srgb_to_linear,
)


@pytest.fixture
def hand():
  random = np.random.default_rng(0)
  vertices = random.normal(size=(30, 3)).astype(np.float32) / 20
  faces = np.array([random.permutation(30)[:3] for _ in range(40)])
  return vertices, faces, random.uniform(2, 9, 30).astype(np.float32)


def _load(content, kind):
  return trimesh.load(io.BytesIO(content), file_type=kind, process=False)


def glb_parts(content):
  """The header and the binary chunk, by the container's own lengths."""
  size = int.from_bytes(content[12:16], 'little')
  assert content[:4] == b'glTF' and content[16:20] == b'JSON'
  assert content[24 + size : 28 + size] == b'BIN\0'
  return json.loads(content[20 : 20 + size]), content[28 + size :]


def shown_levels(content):
  """COLOR_0 read byte by byte and encoded for a screen (IEC 61966-2-1): 0 to 255, unrounded."""
  header, binary = glb_parts(content)
  primitive = header['meshes'][0]['primitives'][0]
  accessor = header['accessors'][primitive['attributes']['COLOR_0']]
  view = header['bufferViews'][accessor['bufferView']]
  assert 'byteStride' not in view
  kinds = {5121: (np.uint8, 255), 5123: ('<u2', 65535), 5126: ('<f4', 1)}
  kind, full = kinds[accessor['componentType']]
  width = {'VEC3': 3, 'VEC4': 4}[accessor['type']]
  start = view.get('byteOffset', 0) + accessor.get('byteOffset', 0)
  values = np.frombuffer(binary, kind, width * accessor['count'], start).reshape(-1, width)
  linear = values[:, :3].astype(np.float64) / full
  encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
  return 255 * encoded


def test_obj_holds_vertices_and_faces_in_order(hand):
  vertices, faces, _ = hand
  lines = obj_text(vertices, faces).splitlines()
  read = np.array([line.split()[1:] for line in lines if line.startswith('v ')], float)
  np.testing.assert_allclose(read, vertices, atol=1e-8)
  ids = np.array([line.split()[1:] for line in lines if line.startswith('f ')], int)
  np.testing.assert_array_equal(ids - 1, faces)
  assert len(_load(obj_text(vertices, faces).encode(), 'obj').faces) == 40


def test_obj_colours_follow_the_positions(hand):
  vertices, faces, _ = hand
  colors = np.random.default_rng(1).uniform(size=(30, 3))
  text = obj_text(vertices, faces, colors)
  read = np.array([line.split()[1:] for line in text.splitlines() if line.startswith('v ')], float)
  np.testing.assert_allclose(read, np.concatenate([vertices, colors], axis=1), atol=1e-5)
  # The reader leaves out a vertex without faces: compare corner by corner.
  mesh = _load(text.encode(), 'obj')
  read_colors = mesh.visual.vertex_colors[mesh.faces][..., :3]
  np.testing.assert_allclose(read_colors, 255 * colors[faces], atol=1)


def test_an_unlit_glb_says_so(hand):
  vertices, faces, sigma = hand
  colors = np.random.default_rng(1).uniform(size=(30, 3))
  headers = []
  for unlit in (True, False):
    content = glb_bytes([MeshPart('hand', vertices, faces, colors, sigma)], unlit)
    headers.append(glb_parts(content)[0])
    np.testing.assert_allclose(shown_levels(content), 255 * colors, atol=1e-3)
  assert headers[0]['extensionsUsed'] == ['KHR_materials_unlit']
  assert headers[0]['materials'][0]['extensions'] == {'KHR_materials_unlit': {}}
  assert 'extensionsUsed' not in headers[1] and 'extensions' not in headers[1]['materials'][0]


def test_png_keeps_every_byte():
  image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
  np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(image)))), image)


def test_ply_holds_colours_and_sigma(hand):
  vertices, faces, sigma = hand
  colors = sigma_colors(sigma, sigma_range_mm(sigma))
  mesh = _load(ply_bytes(vertices, faces, colors, sigma), 'ply')
  np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-7)
  np.testing.assert_array_equal(mesh.faces, faces)
  np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], np.round(255 * colors))
  data = mesh.metadata['_ply_raw']['vertex']['data']
  np.testing.assert_allclose(np.ravel(data['sigma_mm']), sigma)


def test_glb_is_upright_coloured_and_not_metal(hand):
  vertices, faces, sigma = hand
  colors = sigma_colors(sigma, sigma_range_mm(sigma))
  content = glb_bytes([MeshPart('hand', vertices, faces, colors, sigma)])
  scene = _load(content, 'glb')
  mesh = scene.geometry['hand']
  np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-7)
  np.testing.assert_array_equal(mesh.faces, faces)
  np.testing.assert_allclose(np.ravel(mesh.vertex_attributes['_SIGMA_MM']), sigma)
  # glTF: y up, z towards the viewer; ours: y down, z away.
  np.testing.assert_allclose(scene.graph['hand'][0], np.diag([1, -1, -1, 1]), atol=1e-12)
  np.testing.assert_allclose(shown_levels(content), 255 * colors, atol=1e-3)
  header, _ = glb_parts(content)
  material = header['materials'][header['meshes'][0]['primitives'][0]['material']]
  assert material['doubleSided'] and material['pbrMetallicRoughness']['metallicFactor'] == 0


@pytest.mark.parametrize('unlit', [True, False])
def test_a_glb_keeps_every_level_of_the_dark(unlit):
  """A ramp of finer steps than a screen's, from black: shown to half a level, no two alike."""
  ramp = np.linspace(0, 1, 1021)
  colors = np.stack([ramp, 0.1 * ramp, 0.02 * (1 - ramp)], axis=1)
  count = len(ramp)
  vertices = np.random.default_rng(2).normal(size=(count, 3)).astype(np.float32)
  faces = np.arange(count - 1).reshape(-1, 3)
  content = glb_bytes(
    [MeshPart('hand', vertices, faces, colors, np.ones(count, np.float32))], unlit
  )
  levels = shown_levels(content)
  assert np.abs(levels - 255 * colors).max() < 0.5
  dark = levels[:, 1]
  assert len(np.unique(np.round(dark))) == 26 and (np.diff(dark) > 0).all()
  # As the format allows COLOR_0: floats, not normalised, one RGB a vertex.
  header, _ = glb_parts(content)
  attributes = header['meshes'][0]['primitives'][0]['attributes']
  accessor = header['accessors'][attributes['COLOR_0']]
  assert (accessor['componentType'], accessor['type'], accessor['count']) == (5126, 'VEC3', count)
  assert not accessor.get('normalized', False)
  assert set(attributes) == {'POSITION', 'NORMAL', 'COLOR_0', '_SIGMA_MM'}


@pytest.mark.parametrize('value', [-0.25, 1.5])
def test_a_colour_out_of_range_becomes_its_nearest(hand, value):
  vertices, faces, sigma = hand
  content = glb_bytes([MeshPart('hand', vertices, faces, np.full((30, 3), value), sigma)])
  np.testing.assert_allclose(shown_levels(content), 255 * np.clip(value, 0, 1), atol=1e-4)


def test_srgb_decoding_has_the_standards_values():
  """Middle grey 0.5 is 21.4 % of the light; both ends stay; the pieces meet."""
  np.testing.assert_allclose(srgb_to_linear(np.array([0, 0.5, 1.0])), [0, 0.2140411, 1], atol=1e-7)
  low, high = srgb_to_linear(np.array([0.04045, 0.04045 + 1e-9]))
  assert abs(high - low) < 1e-6


def test_colour_map_is_viridis_and_gets_brighter():
  colors = color_of_fraction(np.linspace(-0.5, 1.5, 101))
  np.testing.assert_allclose(colors[0], [0.267, 0.005, 0.329], atol=0.005)
  np.testing.assert_allclose(colors[-1], [0.993, 0.906, 0.144], atol=0.005)
  brightness = srgb_to_linear(colors) @ [0.2126, 0.7152, 0.0722]
  assert (np.diff(brightness[25:76]) > 0).all()


@pytest.mark.parametrize(
  'low, high', [(9.76, 13.6), (0.013, 0.41), (4.0, 4.0), (0.2, 311.0), (5, 5.001), (30, 7000)]
)
def test_range_holds_every_sigma_and_ticks_are_round(low, high):
  start, end = sigma_range_mm(np.array([low, high, (low + high) / 2]))
  assert 0 <= start <= low + 1e-6 and high - 1e-6 <= end and end > start
  assert end - start <= 1.5 * (high - low) + 0.1 * high  # not much wider than needed
  ticks = legend_ticks((start, end))
  assert 2 <= len(ticks) <= 12
  assert start - 1e-6 <= ticks[0][0] and ticks[-1][0] <= end + 1e-6
  for value, text in ticks:
    assert float(text) == pytest.approx(value, abs=1e-6)


def test_legend_runs_from_low_at_the_bottom_to_high_at_the_top():
  image = legend_image((2.0, 6.0), 400)
  assert image.shape[0] == 400 and image.dtype == np.uint8
  bar = image[:, 30]
  colored = np.flatnonzero((bar != 245).any(-1))
  ends = np.round(255 * color_of_fraction(np.array([1.0, 0.0])))
  rows = colored[colored > 53]  # below the words
  np.testing.assert_array_equal(bar[rows[0]], ends[0])
  np.testing.assert_array_equal(bar[rows[-1]], ends[1])


def test_a_scene_holds_each_hand_in_its_place():
  """Two hands at their own places, both turned so that y is up."""
  rng = np.random.default_rng(3)
  parts = []
  for name, depth in (('1_left', 0.4), ('2_right', 0.7)):
    vertices = (0.05 * rng.normal(size=(9, 3)) + [0, 0, depth]).astype(np.float32)
    colors = rng.uniform(size=(9, 3))
    faces = np.arange(9).reshape(3, 3)
    parts.append(MeshPart(name, vertices, faces, colors, np.full(9, 2.0, np.float32)))
  scene = trimesh.load(io.BytesIO(glb_bytes(parts)), file_type='glb', process=False)
  assert set(scene.graph.nodes_geometry) == {'1_left', '2_right'}
  for part in parts:
    transform, geometry = scene.graph[part.name]
    mesh = scene.geometry[geometry]
    placed = np.c_[mesh.vertices, np.ones(len(mesh.vertices))] @ transform.T
    np.testing.assert_allclose(placed[:, :3], part.vertices * [1, -1, -1], atol=1e-6)


def test_axes_differ_by_half_a_turn_about_x():
  vertices = np.random.default_rng(4).normal(size=(5, 3))
  np.testing.assert_array_equal(in_axes(vertices, 'camera'), vertices)
  turned = in_axes(vertices, 'y_up')
  np.testing.assert_array_equal(turned, vertices @ np.diag([1.0, -1.0, -1.0]))
  # Right-handed still: no face turns inside out.
  assert np.linalg.det(np.linalg.lstsq(vertices, turned, rcond=None)[0]) == pytest.approx(1)
