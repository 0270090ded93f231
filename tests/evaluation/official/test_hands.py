"""From the network's frames to those of the benchmarks' files: roots, sides, axes, orders, tips."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from hand_jax.evaluation.evaluate import RootHands
from hand_jax.evaluation.official import hands as benchmark_hands
from hand_jax.evaluation.official.rules import BENCHMARKS
from hand_jax.geometry.cameras import fit_weak_perspective, normalize_points
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.joints import FINGERTIP_VERTICES, JOINT_NAMES
from tests.make_dummy_data import make_hand

FREIHAND, HO3D = BENCHMARKS['freihand'], BENCHMARKS['ho3d_v2']


def pinhole(focal, centre):
  return np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1.0]])


def test_the_predicted_root_by_hand():
  """Focal length 500, crop of 100 pixels, s of 10 per metre: 2 * 500 / (10 * 100) = 1 m.

  Joints in a plane that faces the camera are seen at that one depth, so nothing is approximate.
  """
  camera = np.zeros((1, 10))
  camera[0, 6:] = [0.5, -0.2, 7.0, 1.0]  # T_x, T_y, T_z (takes no part), s per decimetre
  joints = np.array([[[0, 0, 0], [0.05, 0, 0], [-0.02, 0.1, 0], [0.01, -0.06, 0]]])
  intrinsics = pinhole([500, 500], [40, 60])[None]
  root = benchmark_hands.predicted_roots(camera, joints, intrinsics, 100)
  # The pixels are (75, 40).
  np.testing.assert_allclose(root, [[35 / 500, -20 / 500, 1.0]])


def random_cameras(rng, count, side):
  """Cameras that see a hand of 20 cm as half a crop to a whole one, and pinholes."""
  cameras = rng.normal(size=(count, 10)) * 0.3
  cameras[:, 9] = rng.uniform(0.5, 1, count)
  focal, centre = rng.uniform(2 * side, 5 * side, (count, 2)), rng.uniform(0, side, (count, 2))
  return cameras, np.array([pinhole(*pair) for pair in zip(focal, centre, strict=True)])


def test_the_predicted_root_solves_its_equations_in_the_least_squares_sense():
  rng, side = np.random.default_rng(1), 128
  cameras, intrinsics = random_cameras(rng, 6, side)
  joints = rng.normal(size=(6, 21, 3)) * 0.04
  roots = benchmark_hands.predicted_roots(cameras, joints, intrinsics, side)
  for row in range(6):
    matrix, right = [], []
    for x, y, z in joints[row]:
      u = (10 * cameras[row, 9] * x + cameras[row, 6] + 1) * side / 2
      v = (10 * cameras[row, 9] * y + cameras[row, 7] + 1) * side / 2
      a = (u - intrinsics[row, 0, 2]) / intrinsics[row, 0, 0]
      b = (v - intrinsics[row, 1, 2]) / intrinsics[row, 1, 1]
      matrix += [[1, 0, -a], [0, 1, -b]]
      right += [a * z - x, b * z - y]
    expected = scipy.linalg.lstsq(np.array(matrix), np.array(right))[0]
    np.testing.assert_allclose(roots[row], expected, rtol=1e-9)


def test_the_labels_of_a_hand_put_it_where_it_is():
  """What a perfect network would say: the best weak-perspective camera of a pinhole's picture."""
  rng, side = np.random.default_rng(2), 224
  for distance in (0.4, 0.6, 0.9):
    hand = make_hand(load_mano_model(), int(1000 * distance), [0.05, -0.03, distance])
    root, joints = hand.joints[0].astype(float), hand.joints - hand.joints[0].astype(float)
    intrinsics = pinhole([800 * distance, 800 * distance], rng.uniform(80, 140, 2))
    pixels = hand.joints @ intrinsics.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    fit = fit_weak_perspective(joints, normalize_points(pixels, side), np.ones(21))
    camera = np.concatenate([np.zeros(6), fit.translation, [0], fit.scale])
    (found,) = benchmark_hands.predicted_roots(camera[None], joints[None], intrinsics[None], side)
    # The depth 2 f / (s W) itself is up to ten centimetres from the wrist's.
    assert np.linalg.norm(found - root) < 0.006


@pytest.mark.parametrize('scale', [0.0, -1.0, 1e-6])
def test_a_scale_of_nothing_gives_the_farthest_depth(scale):
  camera = np.zeros((1, 10))
  camera[0, 9] = scale
  joints = np.random.default_rng(3).normal(size=(1, 21, 3)) * 0.04
  intrinsics = pinhole([500, 500], [50, 50])[None]
  root = benchmark_hands.predicted_roots(camera, joints, intrinsics, 100)
  np.testing.assert_allclose(root, [[0, 0, benchmark_hands.FARTHEST_M]])


def test_where_no_depth_fits_the_hand_goes_to_that_of_its_scale():
  """Of two hands the first has a scale that puts it beyond ten metres: it alone falls back."""
  rng, side = np.random.default_rng(1), 128
  cameras, intrinsics = random_cameras(rng, 2, side)
  cameras[0, 9] = 0.003  # 2 f / (s W) beyond ten metres
  joints = rng.normal(size=(2, 21, 3)) * 0.04
  roots = benchmark_hands.predicted_roots(cameras, joints, intrinsics, side)
  assert roots[0, 2] == benchmark_hands.FARTHEST_M and 0.1 < roots[1, 2] < 2
  u, v, _ = intrinsics[0] @ roots[0] / roots[0, 2]
  np.testing.assert_allclose([2 * u / side - 1, 2 * v / side - 1], cameras[0, 6:8])


def make_hands(count=3):
  rng = np.random.default_rng(2)
  return RootHands(rng.normal(size=(count, 9, 3)), rng.normal(size=(count, 21, 3)))


def test_a_known_root_is_where_the_wrist_goes():
  hands = make_hands()
  nowhere = np.full((3, 3), np.nan)
  root = np.array([[0, 0, 0.5], [0.1, 0, 0.6], [0, 0.2, 0.7]])
  everywhere, right = np.ones(3, bool), np.zeros(3, bool)
  moved = benchmark_hands.absolute_hands(hands, nowhere, root, everywhere, right)
  np.testing.assert_allclose(moved.joints[:, 0], root)
  for row in range(3):
    shift = root[row] - hands.joints[row, 0]
    np.testing.assert_allclose(moved.vertices[row], hands.vertices[row] + shift)
  moved = benchmark_hands.absolute_hands(hands, root, nowhere, ~everywhere, right)
  np.testing.assert_allclose(moved.joints, hands.joints + root[:, None])


def test_left_hands_are_mirrored_back():
  hands, root = make_hands(2), np.array([[0.1, 0.2, 0.5], [0.1, 0.2, 0.5]])
  known = np.zeros(2, bool)
  moved = benchmark_hands.absolute_hands(hands, root, root, known, np.array([True, False]))
  x, y, z = np.moveaxis(hands.vertices[0] + root[0], -1, 0)
  np.testing.assert_allclose(moved.vertices[0], np.stack([-x, y, z], -1))
  np.testing.assert_allclose(moved.vertices[1], hands.vertices[1] + root[1])


def test_the_files_axes_and_order():
  hands = make_hands(1)
  same = benchmark_hands.in_file_convention(hands, FREIHAND)
  np.testing.assert_array_equal(same.joints, hands.joints)
  np.testing.assert_array_equal(same.vertices, hands.vertices)
  ho3d = benchmark_hands.in_file_convention(hands, HO3D)
  x, y, z = np.moveaxis(hands.vertices, -1, 0)
  np.testing.assert_array_equal(ho3d.vertices, np.stack([x, -y, -z], -1))
  # HO3D's joint 4 is the middle MCP, 16 the thumb's tip.
  for place, name in ((0, 'wrist'), (4, 'middle_mcp'), (13, 'thumb_cmc'), (16, 'thumb_tip')):
    x, y, z = hands.joints[0, JOINT_NAMES.index(name)]
    np.testing.assert_array_equal(ho3d.joints[0, place], [x, -y, -z])


def test_joints_end_in_the_benchmarks_own_fingertips():
  model = load_mano_model()
  own = np.asarray(model.fingertip_vertices)
  tips = [
    JOINT_NAMES.index(f'{name}_tip') for name in ('thumb', 'index', 'middle', 'ring', 'pinky')
  ]

  def tip_vertices(model, benchmark):
    return benchmark_hands.benchmark_regressor(model, benchmark)[tips].argmax(axis=1).tolist()

  # The free hand's mesh is not MANO's.
  assert tip_vertices(model, HO3D) == own.tolist()
  mano = model._replace(fingertip_vertices=jnp.asarray(FINGERTIP_VERTICES['freihand']))
  assert tip_vertices(mano, HO3D) == [744, 333, 444, 555, 672]
  assert tip_vertices(mano, FREIHAND) == [744, 320, 443, 555, 672]
