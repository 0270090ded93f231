"""Cameras against loops, scipy's rotations and least squares, limits and properties, in float64."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.test_util import check_grads
from scipy.spatial.transform import Rotation

from hand_jax.geometry import cameras
from hand_jax.types import HandCamera, PerspectiveCamera
from tests.reference import losses as reference

pytestmark = pytest.mark.usefixtures('float64')


few_examples = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


def random_rotation(seed):
  return Rotation.random(rng=np.random.default_rng(seed)).as_matrix()


def random_hand(seed, count=21):
  return np.random.default_rng(seed).normal(scale=0.05, size=(count, 3))


def make_camera(rotation, translation, scale_per_metre):
  return HandCamera(
    jnp.asarray(cameras.rotation_to_stored(rotation)),
    jnp.asarray(translation, float),
    jnp.asarray([0.1 * scale_per_metre]),
  )


@pytest.mark.parametrize('module', [np, jnp])
def test_vector_holds_rotation_translation_scale_in_this_order(module):
  vector = module.arange(20.0).reshape(2, 10)
  camera = cameras.camera_from_vector(vector)
  np.testing.assert_array_equal(camera.rotation_6d[0], [0, 1, 2, 3, 4, 5])
  np.testing.assert_array_equal(camera.translation[0], [6, 7, 8])
  np.testing.assert_array_equal(camera.scale[1], [19])
  back = cameras.camera_to_vector(camera)
  assert type(back) is type(vector)
  np.testing.assert_array_equal(back, vector)


@pytest.mark.parametrize('module', [np, jnp])
def test_stored_rotation_is_read_back(module):
  rotations = module.asarray(np.stack([random_rotation(seed) for seed in range(5)]))
  stored = cameras.rotation_to_stored(rotations)
  np.testing.assert_array_equal(stored[2], np.concatenate([rotations[2][:, 0], rotations[2][:, 1]]))
  camera = cameras.camera_from_vector(
    jnp.concatenate([jnp.asarray(stored), jnp.zeros((5, 4))], axis=-1)
  )
  np.testing.assert_allclose(cameras.camera_rotation(camera), rotations, atol=1e-14)


def test_predicted_rotations_are_made_orthonormal():
  vector = jnp.asarray(np.random.default_rng(0).normal(size=(6, 10)))
  rotation = np.asarray(cameras.camera_rotation(cameras.camera_from_vector(vector)))
  product = rotation @ rotation.transpose(0, 2, 1)
  np.testing.assert_allclose(product, np.tile(np.eye(3), (6, 1, 1)), atol=1e-14)
  np.testing.assert_allclose(np.linalg.det(rotation), 1.0)


def test_rotation_is_the_transpose_of_the_global_orientation():
  orientation = Rotation.from_rotvec([0.3, -1.2, 0.5])
  points = random_hand(1)
  camera = make_camera(orientation.as_matrix().T, [0, 0, 0], 1.0)
  result = cameras.hand_to_root(camera, jnp.asarray(points))
  np.testing.assert_allclose(result, orientation.apply(points), atol=1e-14)


def test_projection_is_the_naive_one():
  rotation, points = random_rotation(2), random_hand(2)
  camera = make_camera(rotation, [0.2, -0.3, 0.7], 6.5)
  expected = reference.project(points, 6.5, rotation, [0.2, -0.3])
  np.testing.assert_allclose(cameras.project_points(camera, jnp.asarray(points)), expected)
  deeper = camera._replace(translation=camera.translation.at[2].set(9.0))
  np.testing.assert_allclose(cameras.project_points(deeper, jnp.asarray(points)), expected)


def test_projection_of_a_batch_is_that_of_each_hand():
  vectors = jnp.asarray(np.random.default_rng(3).normal(size=(4, 10)))
  points = jnp.asarray(np.stack([random_hand(seed) for seed in range(4)]))
  batch = cameras.project_points(cameras.camera_from_vector(vectors), points)
  for index in range(4):
    one = cameras.project_points(cameras.camera_from_vector(vectors[index]), points[index])
    np.testing.assert_allclose(batch[index], one, rtol=1e-12)


@pytest.mark.slow
def test_projection_gradients():
  vector = jnp.asarray(np.random.default_rng(4).normal(size=10))
  points = jnp.asarray(random_hand(4, 3))
  project = jax.jit(lambda v, p: cameras.project_points(cameras.camera_from_vector(v), p))
  check_grads(project, (vector, points), order=2, modes=['rev'], rtol=1e-4, atol=1e-4)


# Least squares.


def test_the_affine_projection_is_linear_in_the_stored_numbers():
  """Equal to the weak perspective one for orthonormal columns, and to plain sums for any."""
  points = random_hand(7)
  camera = make_camera(random_rotation(8), [0.2, -0.3, 0.5], 7.0)
  affine = cameras.project_points_affine(camera, jnp.asarray(points))
  np.testing.assert_allclose(affine, cameras.project_points(camera, jnp.asarray(points)), rtol=1e-9)
  numbers = np.arange(1.0, 7.0)
  stretched = camera._replace(rotation_6d=jnp.asarray(numbers))
  expected = 7.0 * np.stack([points @ numbers[:3], points @ numbers[3:]], -1) + [0.2, -0.3]
  batched = jax.tree.map(lambda leaf: leaf[None], stretched)
  found = cameras.project_points_affine(batched, jnp.asarray(points)[None])[0]
  np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_affine_projection_has_no_barrier_between_a_hand_and_its_reflection_in_depth():
  """From the reflected camera its squared error falls all the way to the true one; with
  Gram-Schmidt it first rises."""
  hand = random_hand(9) * [1.0, 0.2, 1.0]  # nearly a plane
  tilt = Rotation.from_euler('x', 30, degrees=True).as_matrix()
  rotation = Rotation.from_euler('y', 10, degrees=True).as_matrix() @ tilt
  true = make_camera(rotation, [0, 0, 0], 8.0)
  labels = cameras.project_points(true, jnp.asarray(hand))
  reflect = np.tile([1.0, -1.0, 1.0], 2)  # of the hand's y in both columns

  def errors(project):
    path = [
      true._replace(rotation_6d=true.rotation_6d * (1 - share + share * reflect))
      for share in np.linspace(1, 0, 21)
    ]
    return np.array([((project(camera, jnp.asarray(hand)) - labels) ** 2).sum() for camera in path])

  affine, orthonormal = errors(cameras.project_points_affine), errors(cameras.project_points)
  assert (np.diff(affine) < 0).all()
  assert orthonormal.max() > 2 * orthonormal[0]
  assert affine[0] == pytest.approx(orthonormal[0])
  assert affine[-1] == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize('seed', range(3))
def test_orthonormality_penalty(seed):
  camera = make_camera(random_rotation(seed), [0, 0, 0], 8.0)
  np.testing.assert_allclose(cameras.orthonormality_penalty(camera), 0, atol=1e-20)
  a, b = np.random.default_rng(seed).normal(size=(2, 3))
  penalty = cameras.orthonormality_penalty(
    camera._replace(rotation_6d=jnp.asarray(np.concatenate([a, b])))
  )
  np.testing.assert_allclose(penalty, (a @ a - 1) ** 2 + (b @ b - 1) ** 2 + 2 * (a @ b) ** 2)


@pytest.mark.parametrize('module', [np, jnp])
def test_fit_recovers_a_weak_perspective_camera(module):
  points = module.asarray(np.stack([random_hand(5), random_hand(6)]))
  offset = module.asarray([[[0.3, -0.1]], [[-0.2, 0.4]]])
  scales = module.asarray([7.0, 3.0]).reshape(2, 1, 1)
  fit = cameras.fit_weak_perspective(
    points, scales * points[..., :2] + offset, module.ones((2, 21))
  )
  assert isinstance(fit.scale, np.ndarray) == (module is np)
  np.testing.assert_allclose(fit.scale, [[0.7], [0.3]])
  np.testing.assert_allclose(fit.translation, offset[:, 0])
  np.testing.assert_allclose(fit.residual, 0.0, atol=1e-14)


def test_fit_is_the_least_squares_solution_of_scipy():
  generator = np.random.default_rng(7)
  points, weights = random_hand(7), generator.uniform(0.1, 1.0, size=21)
  targets = generator.normal(size=(21, 2))

  def errors(unknowns):
    scale, x, y = unknowns
    return (np.sqrt(weights)[:, None] * (scale * points[:, :2] + [x, y] - targets)).ravel()

  expected = scipy.optimize.least_squares(errors, [1.0, 0.0, 0.0])
  fit = cameras.fit_weak_perspective(points, targets, weights)
  np.testing.assert_allclose(fit.scale / 0.1, expected.x[:1], rtol=1e-6)
  np.testing.assert_allclose(fit.translation, expected.x[1:], rtol=1e-6)
  np.testing.assert_allclose(fit.residual, np.sqrt(2 * expected.cost / weights.sum()), rtol=1e-9)


@pytest.mark.parametrize('module', [np, jnp])
def test_fit_ignores_points_without_weight(module):
  points, targets = random_hand(8), np.random.default_rng(8).normal(size=(21, 2))
  weights = np.ones(21)
  expected = cameras.fit_weak_perspective(points[3:], targets[3:], weights[3:])
  points[:2], targets[2], weights[:3] = np.nan, np.inf, 0.0
  fit = cameras.fit_weak_perspective(*map(module.asarray, (points, targets, weights)))
  for value, wanted in zip(fit, expected, strict=True):
    np.testing.assert_allclose(value, wanted, rtol=1e-12)


@pytest.mark.parametrize('known', [0, 1])
def test_fit_without_two_points_has_scale_zero(known):
  weights = np.zeros(21)
  weights[:known] = 1.0
  fit = cameras.fit_weak_perspective(random_hand(9), np.ones((21, 2)), weights)
  np.testing.assert_array_equal(fit.scale, [0.0])
  np.testing.assert_array_equal(fit.translation, [known] * 2)


@few_examples
@hypothesis.given(st.floats(0.1, 10), st.floats(-2, 2), st.integers(0, 1000))
def test_fit_follows_zoom_and_shift(zoom, shift, seed):
  points, targets = random_hand(seed), np.random.default_rng(seed + 1).normal(size=(21, 2))
  fit = cameras.fit_weak_perspective(points, targets, np.ones(21))
  moved = cameras.fit_weak_perspective(points, zoom * targets + shift, np.full(21, 0.5))
  np.testing.assert_allclose(moved.scale, zoom * fit.scale, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(moved.translation, zoom * fit.translation + shift, atol=1e-9)
  np.testing.assert_allclose(moved.residual, zoom * fit.residual, rtol=1e-9)


# The pinhole.


def test_perspective_projection_is_the_intrinsics_matrix():
  intrinsics = np.array([[480.0, 0.0, 110.0], [0.0, 500.0, 120.0], [0.0, 0.0, 1.0]])
  points = random_hand(10) + np.array([[0.1, -0.05, 0.6]])
  camera = cameras.perspective_from_intrinsics(intrinsics)
  pixels = points @ intrinsics.T
  result = cameras.project_perspective(camera, points)
  np.testing.assert_allclose(result, pixels[:, :2] / pixels[:, 2:], rtol=1e-12)
  np.testing.assert_array_equal(cameras.perspective_to_intrinsics(camera), intrinsics)
  batch = np.stack([intrinsics, 2 * intrinsics])
  both = cameras.perspective_to_intrinsics(cameras.perspective_from_intrinsics(batch))
  np.testing.assert_array_equal(both[:, :2], batch[:, :2])


@pytest.mark.parametrize('depth', [cameras.NEAR_M, 0.0, -1.0])
def test_perspective_is_finite_at_and_behind_the_near_plane(depth):
  camera = PerspectiveCamera(jnp.array([480.0, 480.0]), jnp.array([112.0, 112.0]))
  points = jnp.array([[0.1, 0.2, depth]])
  value, gradient = jax.value_and_grad(lambda p: cameras.project_perspective(camera, p).sum())(
    points
  )
  assert np.isfinite(value) and np.isfinite(gradient).all()


def weak_perspective_error(depth):
  """(relative error of the depth, rms of the fit) for a hand seen at a depth by a pinhole."""
  points, focal, side = random_hand(11), 600.0 * depth, 224
  points -= points[:1]
  camera = PerspectiveCamera(np.array([focal, focal]), np.array([112.0, 112.0]))
  pixels = cameras.project_perspective(camera, points + np.array([[0.0, 0.0, depth]]))
  fit = cameras.fit_weak_perspective(
    points, cameras.normalize_points(pixels, side), np.ones(len(points))
  )
  hand_camera = HandCamera(np.zeros(6), np.zeros(3), fit.scale)
  estimate = cameras.absolute_depth(hand_camera, np.asarray(focal), side)
  return abs(estimate / depth - 1), fit.residual


def test_weak_perspective_and_its_depth_are_the_far_limit_of_a_pinhole():
  near, far = weak_perspective_error(20.0), weak_perspective_error(40.0)
  assert far[0] < 0.002
  # Both errors are of first order in the hand's size over its depth.
  np.testing.assert_allclose(np.array(near) / np.array(far), 2.0, rtol=0.05)


def test_absolute_depth_by_hand():
  # One metre spans half of the crop's [-1, 1] per unit of s: s W / 2 pixels per metre = f / z.
  camera = HandCamera(np.zeros(6), np.zeros(3), np.array([0.5]))
  assert cameras.absolute_depth(camera, np.asarray(560.0), 224) == 560.0 / (5.0 * 112)


# Crops.


@pytest.mark.parametrize('module', [np, jnp])
def test_normalized_coordinates_span_the_crop(module):
  corners = module.asarray([[0.0, 0.0], [112.0, 224.0]])
  normalized = cameras.normalize_points(corners, 224)
  np.testing.assert_array_equal(normalized, [[-1, -1], [0, 1]])
  np.testing.assert_array_equal(cameras.denormalize_points(normalized, 224), corners)


def test_crop_is_a_square_round_the_box():
  affine = cameras.crop_affine(np.array([10.0, 20.0, 30.0, 50.0]), 64, factor=2.0)
  # Centre (25, 45), side 100: from (-25, -5) to (75, 95).
  points = np.array([[-25.0, -5.0], [75.0, 95.0], [25.0, 45.0]])
  expected = np.array([[0.0, 0.0], [64.0, 64.0], [32.0, 32.0]])
  np.testing.assert_allclose(cameras.transform_points(affine, points), expected, atol=1e-12)


def test_crop_turns_the_picture_from_right_to_down_and_shifts_its_centre():
  box = np.array([0.0, 0.0, 100.0, 100.0])
  affine = cameras.crop_affine(box, 100, factor=1.0, rotation=np.pi / 2)
  np.testing.assert_allclose(
    cameras.transform_points(affine, np.array([[90.0, 50.0]])), [[50.0, 90.0]], atol=1e-12
  )
  shifted = cameras.crop_affine(box, 100, factor=1.0, shift=(0.1, -0.2))
  np.testing.assert_allclose(
    cameras.transform_points(shifted, np.array([[60.0, 30.0]])), [[50.0, 50.0]], atol=1e-12
  )


@pytest.mark.parametrize('box', [(0, 0, 0, 5), (0, 0, 5, -1), (np.nan, 0, 5, 5), (0, 0, np.inf, 5)])
def test_crop_refuses_a_box_without_area(box):
  with pytest.raises(ValueError, match='width and height above zero'):
    cameras.crop_affine(np.array(box, float), 64)


@few_examples
@hypothesis.given(
  st.floats(-3, 3), st.floats(0.5, 3), st.floats(-0.3, 0.3), st.floats(300, 900), st.booleans()
)
def test_crop_intrinsics_project_turned_points_to_crop_pixels(angle, factor, shift, fy, square):
  fx = fy if square else 600.0
  intrinsics = np.array([[fx, 0.0, 150.0], [0.0, fy, 130.0], [0.0, 0.0, 1.0]])
  points = random_hand(12) + np.array([[0.05, 0.02, 0.5]])
  pixels = points @ intrinsics.T
  box = np.array([80.0, 70.0, 120.0, 100.0])
  affine = cameras.crop_affine(box, 64, factor, angle, (shift, -shift))
  expected = cameras.transform_points(affine, pixels[:, :2] / pixels[:, 2:])
  np.testing.assert_allclose(
    np.exp(1j * cameras.affine_rotation(affine)), np.exp(1j * angle), atol=1e-12
  )
  turned = points @ cameras.rotation_in_plane(angle).T
  cropped = cameras.crop_intrinsics(affine, intrinsics)
  projected = turned @ cropped.T
  np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], expected, atol=1e-9)
  if square:
    np.testing.assert_allclose(cropped[[0, 1], [1, 0]], 0.0, atol=1e-9)
    np.testing.assert_allclose(cropped[0, 0], fy * 64 / (120 * factor))


def test_turning_the_camera_turns_the_picture():
  rotation, points, angle = random_rotation(13), random_hand(13), 0.7
  turn = cameras.rotation_in_plane(angle)
  before = cameras.project_points(make_camera(rotation, [0, 0, 0], 5.0), jnp.asarray(points))
  after = cameras.project_points(
    make_camera(rotation @ turn.T, [0, 0, 0], 5.0), jnp.asarray(points)
  )
  np.testing.assert_allclose(after, before @ turn[:2, :2].T, atol=1e-14)


def test_mirrored_image_intrinsics_and_points_agree():
  intrinsics = np.array([[480.0, 0.0, 110.0], [0.0, 500.0, 120.0], [0.0, 0.0, 1.0]])
  points = random_hand(14) + np.array([[0.1, 0.0, 0.6]])
  project = lambda matrix, p: cameras.project_perspective(  # noqa: E731
    cameras.perspective_from_intrinsics(matrix), p
  )
  mirrored = cameras.mirror_intrinsics(intrinsics, 240)
  assert mirrored[0, 0] == 480.0 and mirrored[0, 2] == 130.0
  np.testing.assert_allclose(
    project(mirrored, points * np.array([[-1.0, 1.0, 1.0]])),
    cameras.transform_points(cameras.mirror_affine(240), project(intrinsics, points)),
    rtol=1e-12,
  )
