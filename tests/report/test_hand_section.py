"""What the page says of a hand: its mesh to the last bit that matters, its facts, its joints."""

import base64
import json

import numpy as np
import pytest

from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.reconstruction.meshes import legend_ticks, sigma_colors, sigma_range_mm
from hand_jax.report.mesh_blocks import json_block
from hand_jax.report.writing import write_report
from tests.report.page_reading import Page, unpacked
from tests.report.report_hands import made_hand, made_photo


def page_of(folder, *hands) -> Page:
  (path,) = write_report(folder, [made_photo('a.jpg', *hands)])
  return Page(path)


def facts(page: Page) -> dict[str, str]:
  names, values = page.all('dt'), page.all('dd')
  return {name[2]: value[2] for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize('textured', [True, False])
def test_the_mesh_comes_back(tmp_path, textured):
  hand = made_hand(3)._replace(**({} if textured else {'vertex_colors': None}))
  page = page_of(tmp_path, hand)
  block = page.block('photo-1-hand-1-mesh')
  count = len(hand.vertices)
  data = unpacked(block['data'], 'u1').tobytes()
  assert len(data) == count * (9 + 3 * textured) and block['vertices'] == count
  vertices = np.frombuffer(data, '<i2', 3 * count).reshape(-1, 3) * block['metres_per_step']
  np.testing.assert_allclose(vertices, hand.vertices, atol=5e-6)
  sigma = np.frombuffer(data, '<u2', count, 6 * count) * block['mm_per_step']
  np.testing.assert_allclose(sigma, hand.vertex_sigma_mm, atol=1e-3)
  visible = np.frombuffer(data, 'u1', count, 8 * count)
  np.testing.assert_array_equal(visible, hand.vertex_visible)
  assert block['colors'] is textured
  if textured:
    colors = np.frombuffer(data, 'u1', 3 * count, 9 * count).reshape(-1, 3) / 255
    np.testing.assert_allclose(colors, hand.vertex_colors, atol=0.5 / 255 + 1e-6)
  faces = unpacked(page.block(block['faces'])['data'], '<u2').reshape(-1, 3)
  np.testing.assert_array_equal(faces, hand.faces)


def test_the_camera_is_where_the_photo_was_taken(tmp_path):
  page = page_of(tmp_path, made_hand(wrist_camera=np.array([0.1, -0.2, 0.5])))
  # Seen from a wrist that is right of, above and before it: left, below (y is up) and nearer.
  assert page.block('photo-1-hand-1-mesh')['camera'] == [-0.1, -0.2, 0.5]


def test_meshes_of_many_vertices_keep_their_triangles(tmp_path):
  count = 70_000
  hand = made_hand(
    vertices=np.random.default_rng(0).normal(size=(count, 3)),
    faces=np.array([[0, 1, count - 1]]),
    vertex_sigma_mm=np.ones(count),
    vertex_visible=np.ones(count, bool),
    vertex_colors=None,
  )
  page = page_of(tmp_path, hand)
  faces = page.block(page.block('photo-1-hand-1-mesh')['faces'])
  assert faces['bits'] == 32
  assert unpacked(faces['data'], '<u4').tolist() == [0, 1, count - 1]


def test_equal_triangles_are_held_once(tmp_path):
  page = page_of(tmp_path, made_hand(0), made_hand(1), made_hand(2, 'left'))
  blocks = [page.block(f'photo-1-hand-{k}-mesh')['faces'] for k in (1, 2, 3)]
  assert blocks[0] == blocks[1] != blocks[2]
  ids = [a['id'] for _, a, _ in page.all('script') if a.get('id', '').startswith('faces-')]
  assert sorted(ids) == sorted(set(blocks))


def test_the_switches_are_those_that_the_hand_has(tmp_path):
  page = page_of(tmp_path, made_hand(0), made_hand(1, vertex_colors=None))
  modes = ['plain', 'uncertainty', 'texture', 'visibility']
  first = page.all('input', name='photo-1-hand-1-mode')
  assert [attributes['value'] for _, attributes, _ in first] == modes
  second = page.all('input', name='photo-1-hand-2-mode')
  assert [attributes['value'] for _, attributes, _ in second] == [*modes[:2], modes[3]]


def test_the_legend_and_the_colours_are_those_of_the_other_outputs(tmp_path):
  hand = made_hand()
  page = page_of(tmp_path, hand)
  range_mm = sigma_range_mm(hand.vertex_sigma_mm)
  assert page.block('photo-1-hand-1-mesh')['range_mm'] == list(range_mm)
  assert [text for _, _, text in page.all('text')] == [text for _, text in legend_ticks(range_mm)]
  colors = base64.b64decode(page.block('page-settings')['viridis'])
  table = np.frombuffer(colors, 'u1').reshape(-1, 3) / 255
  sigmas = np.linspace(*range_mm, len(table))
  np.testing.assert_allclose(table, sigma_colors(sigmas, range_mm), atol=0.51 / 255)


def test_facts_of_a_found_hand(tmp_path):
  hand = made_hand(vertex_sigma_mm=np.linspace(2, 6, 778), focal_source='from the EXIF data')
  found = facts(page_of(tmp_path, hand))
  assert found['Side'] == 'right, probability 88 %'
  assert found['Detection'] == 'probability of a hand 97 %'
  assert found['Sigma'] == '4.0 mm on average, 2.0 to 6.0 mm'
  assert found['Distance'] == '0.55 m from the camera, sigma 0.06 m'
  assert found['Wrist'] == "2.0 cm right of and 3.0 cm above the camera's axis"
  assert found['Focal length'] == '1123 px, from the EXIF data'
  assert found['Box'] == '210 x 180 px, left 20, top 30'
  assert found['Hand model'] == 'free hand 3'


def test_facts_of_a_given_hand(tmp_path):
  found = facts(page_of(tmp_path, made_hand(0, 'left', score=None, side_score=None)))
  assert found['Side'] == 'left, as given'
  assert found['Detection'] == 'given, not searched for'


def test_the_joints_are_listed_in_millimetres(tmp_path):
  joints = np.zeros((21, 3))
  joints[8] = [0.0123, -0.0456, -0.00001]
  page = page_of(tmp_path, made_hand(joints=joints, joint_sigma_mm=np.arange(21.0)))
  names = [text for _, _, text in page.all('th', scope='row')]
  assert names == [name.replace('_', ' ') for name in JOINT_NAMES]
  cells = [text for _, _, text in page.all('td')]
  assert len(cells) == 21 * 4
  assert cells[8 * 4 : 9 * 4] == ['12.3', '\u221245.6', '0.0', '8.0']


def test_a_block_of_data_cannot_end_its_element():
  text = '</script><!--'
  assert '<' not in json_block({text: text})
  assert json.loads(json_block({text: text})) == {text: text}


@pytest.mark.parametrize(
  'changes, message',
  [
    (
      {'vertex_sigma_mm': np.full(778, np.nan)},
      'vertex_sigma_mm holds a number that is not finite',
    ),
    ({'joints': np.zeros((16, 3))}, 'joints has 16 rows, expected 21'),
    ({'vertex_visible': np.ones(3, bool)}, 'vertex_visible has 3 rows, expected 778'),
    ({'faces': np.array([[0, 1, 778]])}, 'faces name vertices 0 to 778, expected 0 to 777'),
  ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path, changes, message):
  with pytest.raises(ValueError, match=f'photo_1_right: {message}'):
    page_of(tmp_path, made_hand(name='photo_1_right')._replace(**changes))
  assert not list(tmp_path.iterdir())
