"""Reconstruction with a random toy network: frames, left hands, files, and errors by name."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from experiments.configs.names import get_config
from hand_jax.data.augmentation import make_row
from hand_jax.examples import HandExample
from hand_jax.files.outputs import check_output_folder
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.models.hand_network import create_network, initialize_network
from hand_jax.reconstruction import files as reconstruct_files
from hand_jax.reconstruction import trained_network as module
from hand_jax.reconstruction import views as reconstruct_views
from hand_jax.reconstruction.files import (
  OUTPUT_SUFFIXES,
  write_reconstruction,
)
from hand_jax.reconstruction.trained_network import (
  HandPhoto,
  create_trained_network,
  reconstruct_branches,
  reconstruct_in_box,
)
from hand_jax.reconstruction.views import display_affine, display_vertices
from tests.reference.rasterize import face_at_points

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('small_pictures')]

BOX = np.array([20.0, 31.0, 60.0, 47.0])
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def network():
  """Random weights, noisy enough that every hand is turned, bent and uncertain in its own way."""
  config, model = get_config('toy'), load_mano_model()
  variables = initialize_network(create_network(config), jax.random.key(0), model)
  leaves, structure = jax.tree.flatten(variables['params'])
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noisy = [
    leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)
  ]
  variables = {**variables, 'params': jax.tree.unflatten(structure, noisy)}
  return create_trained_network(config, variables, model)


@pytest.fixture(scope='module')
def hand(network, photo):
  return reconstruct_in_box(network, HandPhoto(photo, BOX))


def test_wrist_is_the_origin_and_joints_are_regressed(hand, network):
  assert hand.vertices.shape == (778, 3) and hand.joints.shape == (21, 3)
  np.testing.assert_array_equal(hand.joints[0], 0)
  regressed = regress_joints(network.model, jnp.asarray(hand.vertices))
  np.testing.assert_allclose(hand.joints, regressed, atol=1e-6)
  assert np.ptp(hand.vertices, axis=0).min() > 0.01  # metres


def test_joints_image_is_the_networks_projection_in_the_photo(hand, network, photo):
  """Crop units to photo pixels by hand: the crop's centre is the box's, its side twice the box."""
  crop = cv2.warpAffine(photo, np.eye(2, 3), (120, 90))  # a copy
  size = network.config.model.image_size
  affine = module.crop_of_photo(crop, BOX, network.config)
  estimate = network.estimate(module.warp_image(crop, affine, size), None)
  side, centre = 2 * 60, np.array([20 + 30, 31 + 23.5])
  expected = centre + np.asarray(estimate.posterior.joints_normalized.mean) * side / 2
  np.testing.assert_allclose(hand.joints_image, expected, atol=1e-3)
  # Camera axes are the photo's, so weak perspective is a scale and a shift.
  projected = hand.joints_image[0] + hand.pixels_per_metre * hand.joints[:, :2]
  np.testing.assert_allclose(hand.joints_image, projected, atol=1e-2)
  variance = np.exp(np.asarray(estimate.posterior.vertices.log_variance, np.float64))
  expected_sigma = 1e3 * np.sqrt(variance.sum(-1) / 3)
  np.testing.assert_allclose(hand.vertex_sigma_mm, expected_sigma, rtol=1e-5)


@pytest.mark.parametrize('side', ['right', 'left'])
def test_the_network_sees_the_crop_it_was_trained_on(network, photo, side):
  seen = []

  def estimate(crop, mask):
    assert mask is None
    seen.append(crop)
    return network.estimate(crop, mask)

  reconstruct_in_box(network._replace(estimate=estimate), HandPhoto(photo, BOX, side))
  example = HandExample('a', photo, side, BOX, np.zeros((21, 2)), np.zeros(21))
  config = network.config
  row = make_row(example, 0, config.model.image_size, config.data.crop_factor, 778)
  # Training mirrors a left hand inside the warp, which may round a pixel the other way.
  differences = np.abs(seen[0].astype(int) - row.image)
  assert differences.max() <= (side == 'left') and (differences > 0).mean() < 1e-3


@pytest.mark.parametrize('box', [BOX, None])
def test_a_mirrored_photo_of_the_other_hand_gives_the_mirrored_hand(network, photo, box):
  width = photo.shape[1]
  right = reconstruct_in_box(network, HandPhoto(photo, box, 'right'))
  mirrored_box = None if box is None else np.array([width - box[0] - box[2], *box[1:]])
  left = reconstruct_in_box(
    network, HandPhoto(np.ascontiguousarray(photo[:, ::-1]), mirrored_box, 'left')
  )
  assert left.is_left and not right.is_left
  flip = np.array([-1, 1, 1], np.float32)
  np.testing.assert_array_equal(left.vertices, right.vertices * flip)
  np.testing.assert_array_equal(left.joints, right.joints * flip)
  np.testing.assert_array_equal(left.vertex_sigma_mm, right.vertex_sigma_mm)
  np.testing.assert_array_equal(left.vertex_visible, right.vertex_visible)
  np.testing.assert_allclose(left.joints_image[:, 0], width - right.joints_image[:, 0], atol=1e-4)
  np.testing.assert_allclose(left.joints_image[:, 1], right.joints_image[:, 1], atol=1e-4)
  # Winding reversed: normals of the mirrored mesh are the mirrored normals, still outwards.
  meshes = [trimesh.Trimesh(hand.vertices, hand.faces, process=False) for hand in (left, right)]
  np.testing.assert_allclose(meshes[0].face_normals, meshes[1].face_normals * flip, atol=1e-3)
  for name, value in left.parameters._asdict().items():
    np.testing.assert_array_equal(value, getattr(right.parameters, name))
  crops = [display_vertices(hand, 100) for hand in (left, right)]
  np.testing.assert_allclose(crops[0] * [-1, 1, 1] + [100, 0, 0], crops[1], atol=1e-3)


def test_without_a_box_the_largest_centred_square_is_the_crop(network, photo):
  hand = reconstruct_in_box(network, HandPhoto(photo))
  size = network.config.model.image_size
  corner = hand.crop_affine @ [15, 0, 1], hand.crop_affine @ [105, 90, 1]
  np.testing.assert_allclose(corner, [[0, 0, 1], [size, size, 1]], atol=1e-9)
  np.testing.assert_array_equal(hand.box_xywh, [15, 0, 90, 90])


def test_parameters_pose_the_prior_in_the_same_frame(network, photo):
  """MANO's layer with a prior-net's parameters gives the prior mesh about the wrist."""
  model = network.model
  hand = reconstruct_branches(network, HandPhoto(photo, BOX))['prior']
  parameters = jax.tree.map(jnp.asarray, hand.parameters)
  mesh = mano_forward(model, parameters)
  np.testing.assert_allclose(regress_joints(model, mesh.vertices)[0], 0, atol=1e-6)
  size = network.config.model.image_size
  affine = module.crop_of_photo(photo, BOX, network.config)
  estimate = network.estimate(module.warp_image(photo, affine, size), None)
  prior = np.asarray(estimate.prior.joints_normalized.mean, np.float64)
  joints = np.asarray(regress_joints(model, mesh.vertices), np.float64)
  pixels = (prior - prior[:1]) * 60  # the crop shows 2 units on 120 pixels
  np.testing.assert_allclose(hand.pixels_per_metre * joints[:, :2], pixels, atol=0.02)


def test_vertices_behind_the_hand_or_outside_the_photo_are_not_visible(hand, photo):
  """Against plain loops over all faces, and the projection written out."""
  height, width = photo.shape[:2]
  corners = hand.vertices.astype(np.float64)
  unhidden = np.ones(len(corners), bool)
  for ids in hand.faces:
    weights, depth = face_at_points(corners[ids], corners[:, 0], corners[:, 1])
    behind = (weights >= 0).all(-1) & (depth < corners[:, 2] - 1e-5)
    behind[ids] = False
    unhidden &= ~behind
  x, y = (hand.joints_image[0] + hand.pixels_per_metre * hand.vertices[:, :2]).T
  inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
  assert 0.1 < unhidden.mean() < 0.9 and inside.sum() > 0
  # Vertices on the rim of another face may go either way in float32.
  assert (hand.vertex_visible != (unhidden & inside)).sum() <= 3
  assert not hand.vertex_visible[~inside].any()


def test_branches_are_those_of_the_network_and_the_better_one_is_the_hand(network, hand, photo):
  branches = reconstruct_branches(network, HandPhoto(photo, BOX))
  assert list(branches) == ['posterior', 'prior']
  np.testing.assert_array_equal(branches['posterior'].vertices, hand.vertices)
  alone = reconstruct_in_box(without(network, posterior=None), HandPhoto(photo, BOX))
  np.testing.assert_array_equal(branches['prior'].vertices, alone.vertices)
  assert np.abs(branches['prior'].vertices - hand.vertices).max() > 1e-4


# Networks of one branch alone.


def without(network, **absent):
  """The network as if it had been built without a branch."""
  return network._replace(estimate=lambda *crop: network.estimate(*crop)._replace(**absent))


def test_a_prior_net_alone_gives_its_own_hand(network, photo, tmp_path):
  alone = reconstruct_in_box(without(network, posterior=None), HandPhoto(photo, BOX))
  assert alone.branch == 'prior'
  # The files' mesh is the parametric hand of the files' parameters.
  posed = mano_forward(network.model, jax.tree.map(jnp.asarray, alone.parameters))
  np.testing.assert_allclose(alone.vertices, posed.vertices, atol=2e-6)
  # One length unit, which is a centimetre.
  np.testing.assert_allclose(alone.vertex_sigma_mm, 10, rtol=1e-6)
  size = network.config.model.image_size
  affine = module.crop_of_photo(photo, BOX, network.config)
  estimate = network.estimate(module.warp_image(photo, affine, size), None)
  # The crop is centred on the box and twice as large: 120 pixels for two units.
  expected = [50, 54.5] + np.asarray(estimate.prior.joints_normalized.mean) * 60
  np.testing.assert_allclose(alone.joints_image, expected, atol=1e-3)
  paths = write_reconstruction(alone, 'name', tmp_path)
  assert all(path.stat().st_size for path in paths)
  data = json.loads((tmp_path / 'name.json').read_text())
  assert data['branch'] == 'prior'
  assert 'the mesh in the files is this parametric hand' in data['units']['mano.*']
  assert data['mano']['mesh_error_mm'] == 0


@pytest.mark.parametrize('side', ['right', 'left'])
def test_amvur_alone_gives_the_hand_and_the_nearest_parameters(network, photo, tmp_path, side):
  both = reconstruct_in_box(network, HandPhoto(photo, BOX, side))
  amvur = without(network, prior=None, parameters=None)
  alone = reconstruct_in_box(amvur, HandPhoto(photo, BOX, side))
  assert alone.branch == both.branch == 'posterior'
  for name in ('vertices', 'vertex_sigma_mm', 'joints', 'joints_image', 'camera_mean'):
    np.testing.assert_array_equal(getattr(alone, name), getattr(both, name))
  for hand in (both, alone):
    posed = mano_forward(network.model, jax.tree.map(jnp.asarray, hand.parameters)).vertices
    mirror = [-1 if side == 'left' else 1, 1, 1]
    errors = np.linalg.norm(np.asarray(posed) * mirror - hand.vertices, axis=1)
    assert hand.parameters_error_mm == pytest.approx(1e3 * errors.mean(), rel=1e-3)
    # The posterior is no parametric hand, but far nearer to this one than to a hand at rest.
    assert 0.01 < hand.parameters_error_mm < 3
  write_reconstruction(alone, 'alone', tmp_path)
  key = 'mirrored_right_hand_mano' if side == 'left' else 'mano'
  data = json.loads((tmp_path / 'alone.json').read_text())
  np.testing.assert_allclose(data[key]['betas'], alone.parameters.betas, atol=1e-6)
  assert data[key]['mesh_error_mm'] == alone.parameters_error_mm
  assert 'is the nearest to the mesh' in data['units'][f'{key}.*']
  assert 'do not animate official MANO' in data['units'][f'{key}.*']


@pytest.mark.parametrize('side', ['right', 'left'])
def test_npz_names_what_belongs_to_the_mirrored_hand(network, photo, tmp_path, side):
  hand = reconstruct_in_box(network, HandPhoto(photo, BOX, side))
  write_reconstruction(hand, 'name', tmp_path)
  with np.load(tmp_path / 'name.npz', allow_pickle=False) as arrays:
    assert arrays['side'] == side
    assert all(array.dtype != object for array in arrays.values())
    names = {'global_orient', 'hand_pose', 'betas', 'transl', 'camera_mean', 'camera_log_variance'}
    prefix = 'mirrored_right_hand_' if side == 'left' else ''
    assert {prefix + name for name in names} <= set(arrays)
    assert not (names & set(arrays) if prefix else set())
    assert json.loads(str(arrays['units']))['sigma'].startswith('millimetres')


@pytest.mark.parametrize('side', ['right', 'left'])
def test_files_place_the_hand_in_the_camera(network, photo, tmp_path, side):
  """Vertices about the wrist and in the camera differ by the wrist's place, and project alike."""
  hand = reconstruct_in_box(network, HandPhoto(photo, BOX, side))
  write_reconstruction(hand, 'name', tmp_path)
  with np.load(tmp_path / 'name.npz') as arrays:
    for name in ('vertices', 'joints'):
      offset = arrays[f'{name}_camera'] - arrays[name]
      np.testing.assert_allclose(offset, np.tile(hand.wrist_camera, (len(offset), 1)), atol=1e-6)
    points, focal = arrays['joints_camera'], arrays['focal_length_px']
    pixels = arrays['principal_point'] + focal * points[:, :2] / points[:, 2:]
    # The network's camera is weak perspective; the hand is near, and this photo's lens wide.
    assert np.linalg.norm(pixels - arrays['joints_image'], axis=1).mean() < 3
    # A diagonal of 150 pixels seen under 70 degrees.
    assert focal == pytest.approx(75 / np.tan(np.radians(35)))
    expected = arrays['wrist_camera'][2] * (0.1**2 + 0.25**2) ** 0.5
    assert arrays['depth_sigma_m'] == pytest.approx(expected)


def test_display_vertices_keep_the_same_scale_along_all_axes(hand):
  points = display_vertices(hand, 240)  # the crop shows 120 pixels of the photo
  scale = 2 * hand.pixels_per_metre
  np.testing.assert_allclose(
    points - points[:1], (hand.vertices - hand.vertices[:1]) * scale, atol=1e-2
  )
  wrist = (hand.joints_image[0] - [50 - 60, 54.5 - 60]) * 2
  expected = wrist + hand.vertices[0, :2] * scale
  np.testing.assert_allclose(points[0, :2], expected, atol=1e-2)


@pytest.fixture(scope='module')
def written(hand, photo, tmp_path_factory):
  folder = tmp_path_factory.mktemp('output') / 'new' / 'folder'
  return folder, write_reconstruction(hand, 'name', folder)


def test_every_file_of_the_contract_is_written(written):
  folder, paths = written
  names = {f'name{suffix}' for suffix in OUTPUT_SUFFIXES}
  assert {path.name for path in folder.iterdir()} == names == {path.name for path in paths}
  assert {'name_overlay.png', 'name.obj', 'name.ply', 'name.glb', 'name.json', 'name.npz'} <= names


def test_npz_holds_the_hand(written, hand):
  with np.load(written[0] / 'name.npz', allow_pickle=False) as arrays:
    for name in ('vertices', 'joints', 'faces', 'vertex_sigma_mm', 'joints_image', 'camera_mean'):
      np.testing.assert_array_equal(arrays[name], getattr(hand, name))
    np.testing.assert_array_equal(arrays['betas'], hand.parameters.betas)
    np.testing.assert_array_equal(arrays['vertex_visible'], hand.vertex_visible)
    assert 'vertex_colors' not in arrays
    assert arrays['vertices'].dtype == np.float32


def test_meshes_hold_the_same_vertices(written, hand):
  folder, _ = written
  for name in ('name.obj', 'name.ply'):
    mesh = trimesh.load(folder / name, process=False)
    np.testing.assert_allclose(mesh.vertices, hand.vertices * [1, -1, -1], atol=1e-7)
    np.testing.assert_array_equal(mesh.faces, hand.faces)


def test_obj_and_ply_have_the_camera_s_axes_when_asked_for(hand, tmp_path):
  write_reconstruction(hand, 'name', tmp_path, 'camera')
  for name in ('name.obj', 'name.ply'):
    mesh = trimesh.load(tmp_path / name, process=False)
    np.testing.assert_allclose(mesh.vertices, hand.vertices, atol=1e-7)
  assert 'y down, z away' in (tmp_path / 'name.obj').read_text().splitlines()[0]


def test_json_tells_units_camera_and_parameters(written, hand):
  text = (written[0] / 'name.json').read_text()

  def refuse(constant):
    raise AssertionError(f'{constant} is no JSON')

  data = json.loads(text, parse_constant=refuse)
  assert data['photo'] == 'the image' and data['hand'] == 'right'
  assert data['photo_size'] == {'width': 120, 'height': 90}
  np.testing.assert_allclose(data['joints']['index_tip'], hand.joints[8], atol=1e-6)
  np.testing.assert_allclose(data['mano']['hand_pose'], hand.parameters.hand_pose, atol=1e-6)
  assert data['sigma_mm']['max'] == pytest.approx(hand.vertex_sigma_mm.max(), rel=1e-6)
  assert data['camera']['pixels_per_metre'] == pytest.approx(hand.pixels_per_metre)
  assert 'millimetres' in data['units']['sigma']


def test_overlay_shows_photo_mesh_and_sigma(hand, photo):
  """The mesh's pixels differ between the panels, and lie where its vertices are."""
  side, caption = reconstruct_views.PANEL_SIDE, 40
  image = reconstruct_views.overlay_image(hand).astype(int)
  plain, over, sigma = (image[: side - caption, i * side : (i + 1) * side] for i in range(3))
  changed = np.abs(plain - over).sum(-1) > 30
  points = display_vertices(hand, side)[:, :2]
  inside = (points > 2).all(1) & (points < side - caption - 2).all(1)
  columns, rows = points[inside].astype(int).T
  assert inside.sum() > 50 and changed[rows, columns].mean() > 0.7
  outside = np.ones_like(changed)
  low, high = points.min(0), points.max(0)
  outside[
    max(0, int(low[1]) - 2) : int(high[1]) + 3, max(0, int(low[0]) - 2) : int(high[0]) + 3
  ] = 0
  assert not changed[outside].any()
  saturation = np.ptp(sigma[rows, columns], axis=-1)
  assert np.median(saturation) > 40  # coloured, unlike the grey mesh


def test_an_interrupted_write_leaves_nothing_under_its_final_name(
  hand, photo, tmp_path, monkeypatch
):
  def fail(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(reconstruct_files, 'glb_bytes', fail)
  with pytest.raises(KeyboardInterrupt):
    write_reconstruction(hand, 'name', tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_a_wrong_side_is_refused(network, photo):
  with pytest.raises(ValueError, match="'both', expected 'right' or 'left'"):
    reconstruct_in_box(network, HandPhoto(photo, BOX, 'both'))


@pytest.mark.parametrize(
  'field, number',
  [
    ('camera', np.nan),
    ('parameters', np.inf),
    ('prior', np.nan),
    ('posterior', np.nan),
    ('vertex_colors', np.nan),
  ],
)
def test_an_estimate_that_is_not_finite_is_refused_by_name(network, photo, field, number):
  """One number in the last array of a field; the photo, the run and the field are named."""

  def estimate(*crop):
    estimate = network.estimate(*crop)._replace(vertex_colors=jnp.zeros((778, 3)))
    leaves, structure = jax.tree.flatten(getattr(estimate, field))
    leaves[-1] = jnp.ravel(leaves[-1]).at[-1].set(number).reshape(leaves[-1].shape)
    return estimate._replace(**{field: jax.tree.unflatten(structure, leaves)})

  broken = network._replace(estimate=estimate, run='runs/some')
  with pytest.raises(ValueError, match=rf'runs/some for a\.png is not finite \({field}\)'):
    reconstruct_in_box(broken, HandPhoto(photo, BOX, name='a.png'))


def test_a_sigma_beyond_all_numbers_is_refused_by_name(network, photo):
  def estimate(*crop):
    estimate = network.estimate(*crop)
    vertices = estimate.posterior.vertices
    vertices = vertices._replace(log_variance=jnp.full_like(vertices.mean, 2000.0))
    return estimate._replace(posterior=estimate.posterior._replace(vertices=vertices))

  with pytest.raises(ValueError, match=r'^The estimate of toy .*\(vertex_sigma_mm\)'):
    reconstruct_in_box(network._replace(estimate=estimate), HandPhoto(photo, BOX))


@pytest.mark.parametrize('shape', [(120, 90), (90, 121), (90, 120, 1)])
def test_a_mask_of_another_size_is_refused(network, photo, shape):
  sizes = ' x '.join(str(length) for length in shape[::-1])
  with pytest.raises(ValueError, match=f'hand_mask has {sizes} pixels, a.png 120 x 90'):
    reconstruct_branches(network, HandPhoto(photo, BOX, 'right', 'a.png', np.ones(shape, bool)))


@pytest.mark.parametrize('below', ['', 'new/folder'])
def test_a_file_where_the_folder_should_be_is_named(hand, photo, tmp_path, below):
  (tmp_path / 'out').write_text('mine')
  with pytest.raises(NotADirectoryError, match=r'^Results cannot go to .*out is a file'):
    write_reconstruction(hand, 'name', tmp_path / 'out' / below)
  assert (tmp_path / 'out').read_text() == 'mine'


def test_importing_loads_neither_tensorflow_nor_torch():
  code = (
    'import sys, hand_jax.reconstruction.trained_network\n'
    "print([name for name in ('tensorflow', 'torch', 'trimesh') if name in sys.modules])"
  )
  run = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert run.stdout.strip() == '[]'


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'access', lambda path, mode: path != tmp_path)
  with pytest.raises(PermissionError, match=r'^Results cannot go to .*out: .* may not be written'):
    check_output_folder(tmp_path / 'out')


def in_upright_run(network):
  data = dataclasses.replace(network.config.data, upright=True)
  return network._replace(config=dataclasses.replace(network.config, data=data))


@pytest.mark.parametrize('side', ['right', 'left'])
def test_an_upright_runs_hand_turns_with_the_photo(network, photo, side):
  """The photo turned by a quarter shows the same upright crop, and so the same hand, turned."""
  upright = in_upright_run(network)
  landmarks = np.random.default_rng(3).uniform(30, 60, (21, 2))
  landmarks[0], landmarks[9] = [40, 60], [60, 48]
  seen = []

  def estimate(crop, mask):
    seen.append(crop)
    return network.estimate(crop, mask)

  upright = upright._replace(estimate=estimate)
  hand = reconstruct_in_box(upright, HandPhoto(photo, BOX, side, landmarks_image=landmarks))
  height = photo.shape[0]
  # A quarter clockwise: (x, y) -> (height - y, x).
  turned_photo = np.ascontiguousarray(np.rot90(photo, -1))
  turned_box = np.array([height - BOX[1] - BOX[3], BOX[0], BOX[3], BOX[2]])
  turned_landmarks = np.stack([height - landmarks[:, 1], landmarks[:, 0]], axis=1)
  turned = reconstruct_in_box(
    upright, HandPhoto(turned_photo, turned_box, side, landmarks_image=turned_landmarks)
  )
  assert np.abs(seen[0].astype(int) - seen[1]).max() <= 1
  quarter = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32)  # of row vectors
  np.testing.assert_allclose(turned.vertices, hand.vertices @ quarter, atol=1e-4)
  np.testing.assert_allclose(turned.joints, hand.joints @ quarter, atol=1e-4)
  expected = np.stack([height - hand.joints_image[:, 1], hand.joints_image[:, 0]], axis=1)
  np.testing.assert_allclose(turned.joints_image, expected, atol=0.05)
  swapped = hand.joint_sigma_xyz_mm[:, [1, 0, 2]]
  np.testing.assert_allclose(turned.joint_sigma_xyz_mm, swapped, rtol=1e-3)
  # In the photo's axes, weak perspective is a scale and a shift.
  projected = hand.joints_image[0] + hand.pixels_per_metre * hand.joints[:, :2]
  np.testing.assert_allclose(hand.joints_image, projected, atol=1e-2)
  # The crop has the middle finger's base straight above the wrist.
  wrist, base = (hand.crop_affine @ [*landmarks[joint], 1] for joint in (0, 9))
  assert wrist[0] == pytest.approx(base[0]) and base[1] < wrist[1]
  posed = mano_forward(network.model, jax.tree.map(jnp.asarray, hand.parameters)).vertices
  mirror = [-1 if side == 'left' else 1, 1, 1]
  errors = np.linalg.norm(np.asarray(posed) * mirror - hand.vertices, axis=1)
  assert hand.parameters_error_mm == pytest.approx(1e3 * errors.mean(), rel=1e-3)
  # Pictures show the whole crop, as the photo lies.
  to_crop, scale = display_affine(hand, 100)
  np.testing.assert_allclose(to_crop[:2, :2], scale * np.eye(2), atol=1e-9)
  np.testing.assert_allclose(to_crop @ [50, 54.5, 1], [50, 50, 1])
  assert scale == pytest.approx(100 / 120)


def test_an_upright_run_looks_for_landmarks_that_nobody_gives(network, photo, monkeypatch):
  landmarks = np.zeros((21, 2))
  landmarks[9] = [10, 0]  # to the right
  asked = []

  def look(image, box, side):
    asked.append((box.tolist(), side))
    return types.SimpleNamespace(landmarks_image=landmarks)

  monkeypatch.setattr(module, 'hand_in_box', look)
  reconstruct_in_box(network, HandPhoto(photo, BOX))
  assert asked == []
  hand = reconstruct_in_box(in_upright_run(network), HandPhoto(photo, BOX, 'left'))
  assert asked == [(BOX.tolist(), 'left')]
  given = HandPhoto(photo, BOX, 'left', landmarks_image=landmarks)
  expected = reconstruct_in_box(in_upright_run(network), given)
  np.testing.assert_array_equal(hand.crop_affine, expected.crop_affine)
  reconstruct_in_box(in_upright_run(network), HandPhoto(photo))
  assert asked[1:] == [([15.0, 0.0, 90.0, 90.0], 'right')]
