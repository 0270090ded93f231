"""The fit of a hand: hands made up are found again, and sigma follows from the evidence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_jax.evaluation.metrics import mpjpe_mm, procrustes_align
from hand_jax.fitting.evidence import PointErrors, hand_evidence, view_position
from hand_jax.fitting.hand_unknowns import (
  CIRCUMSTANCES,
  HandPrior,
  hand_unknown_count,
  joint_vertices_only,
  rough_start,
  unpack_hand,
  unpack_unknowns,
)
from hand_jax.fitting.refine import (
  RefineSettings,
  hand_residuals,
  refine_hands,
)
from hand_jax.geometry.cameras import PerspectiveCamera, project_perspective
from hand_jax.mano.anatomy import LOWER_LIMITS, UPPER_LIMITS, angles_to_pose
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.types import HandParameters

pytestmark = pytest.mark.slow

SIZE = (640, 480)
FOCAL = 700.0
INTRINSICS = np.array([[FOCAL, 0, 300], [0, FOCAL, 250], [0, 0, 1.0]])
# The same number of steps in all tests, so that the fit is compiled for one and for eight hands.
SETTINGS = RefineSettings(steps=20)
PRIOR = HandPrior(
  ((LOWER_LIMITS + UPPER_LIMITS) / 2).reshape(45),
  np.float32(12 * np.eye(45) + 3 * np.tri(45, k=-1)),
  np.float32(1),
)


def made_up_hand(model, seed, shape_size=1.0):
  """A hand inside its joints' ranges, somewhere in the photo: mesh, camera joints, and pixels."""
  rng = np.random.default_rng(seed)
  low, high = LOWER_LIMITS, UPPER_LIMITS
  angles = low + (high - low) * rng.uniform(0.2, 0.7, (15, 3)).astype(np.float32)
  parameters = HandParameters(
    jnp.asarray(Rotation.random(random_state=seed).as_rotvec(), jnp.float32),
    angles_to_pose(angles),
    jnp.asarray(shape_size * rng.normal(size=10), jnp.float32),
    jnp.asarray([0.02, -0.03, 0.5]),
  )
  vertices = np.asarray(mano_forward(model, parameters).vertices)
  joints = np.asarray(regress_joints(model, jnp.asarray(vertices)))
  camera = PerspectiveCamera(np.full(2, FOCAL, np.float32), INTRINSICS[:2, 2].astype(np.float32))
  return vertices, joints, np.asarray(project_perspective(camera, joints))


def world_points(joints, seed):
  """The joints as a landmark network has them: shifted, scaled and a little turned."""
  turn = Rotation.from_rotvec(0.1 * np.random.default_rng(seed).normal(size=3)).as_matrix()
  return 1.1 * (joints - joints.mean(0)) @ turn.T + [0.01, 0.02, 0.0]


def heads_points(joints, seed):
  """The joints as the heads have them: shifted, a little turned and scaled."""
  turn = Rotation.from_rotvec(0.05 * np.random.default_rng([seed, 1]).normal(size=3)).as_matrix()
  return 0.95 * (joints - joints.mean(0)) @ turn.T


def evidence_of(hands, sigma_mm=0.1, intrinsics=INTRINSICS):
  pixels = np.stack([pixels for _, _, pixels in hands])
  world = np.stack([world_points(joints, k) for k, (_, joints, _) in enumerate(hands)])
  heads = np.stack([heads_points(joints, k) for k, (_, joints, _) in enumerate(hands)])
  errors = PointErrors(sigma_mm, sigma_mm, sigma_mm)
  return hand_evidence(pixels, world, SIZE, errors, intrinsics, heads)


def one_hand(evidence, k):
  return jax.tree.map(lambda field: field[k : k + 1], evidence)


SIGMAS = {'image': 'image_sigma', 'world': 'world_sigma', 'heads': 'heads_sigma'}


def without_points(evidence, joints=slice(None), kinds=tuple(SIGMAS)):
  for kind in kinds:
    sigma = getattr(evidence, SIGMAS[kind]).copy()
    sigma[:, joints] = np.inf
    evidence = evidence._replace(**{SIGMAS[kind]: sigma})
  return evidence


def sigma_of(evidence, factor):
  return evidence._replace(**{name: factor * getattr(evidence, name) for name in SIGMAS.values()})


@pytest.fixture(scope='module')
def hands(model):
  return [made_up_hand(model, seed) for seed in range(4)]


def test_joints_of_the_reduced_model_are_the_whole_models(model):
  parameters = HandParameters(
    *(jnp.asarray(np.random.default_rng(n).normal(size=n), jnp.float32) for n in (3, 45, 10)),
    jnp.zeros(3),
  )
  reduced = joint_vertices_only(model)
  assert len(reduced.v_template) < len(model.v_template) / 4
  joints = [
    regress_joints(part, mano_forward(part, parameters).vertices) for part in (model, reduced)
  ]
  np.testing.assert_allclose(joints[0], joints[1], atol=1e-6)


def test_a_made_up_hand_is_found_again(model, hands):
  result = refine_hands(model, evidence_of(hands), PRIOR, SETTINGS)
  for k, (vertices, joints, pixels) in enumerate(hands):
    aligned = procrustes_align(result.joints[k], joints)
    assert mpjpe_mm(aligned[None], joints[None])[0] < 0.3
    np.testing.assert_allclose(result.joints_image[k], pixels, atol=0.5)
    # The focal length is known, so place and orientation are; size and distance go together.
    size = np.linalg.norm(joints - joints[0]) / np.linalg.norm(result.joints[k])
    assert size == pytest.approx(1, abs=0.15)
    np.testing.assert_allclose(size * result.joints[k], joints - joints[0], atol=2e-3)
    np.testing.assert_allclose(size * result.wrist_camera[k], joints[0], atol=5e-3)
    np.testing.assert_allclose(size * result.vertices[k], vertices - joints[0], atol=4e-3)


def test_the_result_agrees_with_itself(model, hands):
  result = refine_hands(model, evidence_of(hands), PRIOR, SETTINGS)
  for k in range(len(hands)):
    parameters = HandParameters(*(field[k] for field in result.parameters))
    vertices = np.asarray(mano_forward(model, jax.tree.map(jnp.asarray, parameters)).vertices)
    joints = np.asarray(regress_joints(model, jnp.asarray(vertices)))
    np.testing.assert_allclose(result.vertices[k], vertices - joints[0], atol=1e-5)
    np.testing.assert_allclose(result.joints[k], joints - joints[0], atol=1e-5)
    camera = PerspectiveCamera(np.repeat(result.focal_length[k], 2), result.principal_point[k])
    pinhole = project_perspective(camera, result.joints[k] + result.wrist_camera[k])
    np.testing.assert_allclose(result.joints_image[k], pinhole, atol=0.01)
    weak = result.pixels_per_metre[k] * result.joints[k][:, :2] + result.joints_image[k][0]
    assert np.linalg.norm(weak - pinhole, axis=1).mean() < 0.2 * np.ptp(pinhole, axis=0).max()
  variances = np.trace(result.vertex_covariance, axis1=-2, axis2=-1) / 3
  np.testing.assert_allclose(result.vertex_sigma_mm, 1000 * np.sqrt(variances), rtol=1e-5)
  np.testing.assert_allclose(result.joint_covariance[:, 0], 0, atol=1e-12)


def test_without_intrinsics_the_shape_is_found_too(model, hands):
  result = refine_hands(model, evidence_of(hands, intrinsics=None), PRIOR, SETTINGS)
  joints = np.stack([joints for _, joints, _ in hands])
  assert mpjpe_mm(procrustes_align(result.joints, joints), joints).max() < 0.5


def test_a_batch_gives_what_single_hands_give(model, hands):
  evidence = evidence_of(hands, sigma_mm=6.0)
  batch = refine_hands(model, evidence, PRIOR, SETTINGS)
  for k in range(2):
    single = refine_hands(model, one_hand(evidence, k), PRIOR, SETTINGS)
    np.testing.assert_allclose(single.vertices[0], batch.vertices[k], atol=2e-5)
    np.testing.assert_allclose(single.vertex_sigma_mm[0], batch.vertex_sigma_mm[k], rtol=2e-3)


def test_no_hand_gives_empty_arrays(model, hands):
  evidence = jax.tree.map(lambda field: field[:0], evidence_of(hands))
  result = refine_hands(model, evidence, PRIOR, SETTINGS)
  assert result.vertices.shape == (0, 778, 3) and result.parameters.betas.shape == (0, 10)


def test_unknown_points_have_no_effect_not_even_nan(model, hands):
  evidence = without_points(evidence_of(hands), [8, 13])
  pixels, world = evidence.points_image.copy(), evidence.points_world.copy()
  pixels[:, 8], world[:, 13] = np.nan, 1e6
  spoilt = evidence._replace(points_image=pixels, points_world=world)
  expected, result = (refine_hands(model, given, PRIOR, SETTINGS) for given in (evidence, spoilt))
  np.testing.assert_array_equal(result.vertices, expected.vertices)
  np.testing.assert_array_equal(result.vertex_sigma_mm, expected.vertex_sigma_mm)
  # What is not seen is less sure.
  full = refine_hands(model, evidence_of(hands), PRIOR, SETTINGS)
  assert (expected.joint_sigma_mm[:, 8] > 1.4 * full.joint_sigma_mm[:, 8]).all()


def test_one_bad_point_does_not_spoil_the_hand(model, hands):
  evidence = evidence_of(hands, sigma_mm=6.0)
  pixels, world = evidence.points_image.copy(), evidence.points_world.copy()
  pixels[:, 12] += 200
  world[:, 12] += 0.2
  spoilt = evidence._replace(points_image=pixels, points_world=world)
  good = refine_hands(model, evidence, PRIOR, SETTINGS)
  robust = refine_hands(model, spoilt, PRIOR, SETTINGS)
  plain = refine_hands(model, spoilt, PRIOR, SETTINGS._replace(robust_limit=1e3))
  others = [k for k in range(21) if k not in (9, 10, 11, 12)]

  def change(result):
    aligned = procrustes_align(result.joints[:, others], good.joints[:, others])
    return mpjpe_mm(aligned, good.joints[:, others]).mean()

  assert change(robust) < 4
  assert change(plain) > 3 * change(robust)


def test_no_evidence_gives_the_prior_and_its_covariance(model, hands):
  evidence = without_points(evidence_of(hands[:1]))
  result = refine_hands(model, evidence, PRIOR, SETTINGS)
  mean = np.asarray(angles_to_pose(PRIOR.pose_mean.reshape(15, 3)))
  np.testing.assert_allclose(result.parameters.hand_pose[0], mean, atol=1e-6)
  np.testing.assert_allclose(result.parameters.betas, 0, atol=1e-7)
  np.testing.assert_allclose(result.parameters.global_orient, 0, atol=1e-6)
  # Derivatives of the forward pass times the prior's deviations, in float64.
  count = hand_unknown_count(model)

  def root_relative(unknowns):
    vertices = mano_forward(model, unpack_hand(unknowns, model, PRIOR)).vertices
    return vertices - regress_joints(model, vertices)[:1]

  factor = np.asarray(jax.jacfwd(root_relative)(jnp.zeros(count)), np.float64)
  expected = np.einsum('vap,vbp->vab', factor, factor)
  np.testing.assert_allclose(result.vertex_covariance[0], expected, rtol=1e-3, atol=1e-7)
  assert result.vertex_sigma_mm.max() > 50


def dense_reference(model, evidence, prior, settings):
  """Covariances from a dense float64 inverse of the energy's own Gauss-Newton matrix.

  The mesh and its covariance, that of the joints' pixels, and the variance of the wrist's depth.
  """
  with jax.enable_x64(True):
    model64, evidence64 = jax.tree.map(
      lambda field: jnp.asarray(field, jnp.float64) if field.dtype.kind == 'f' else field,
      (model, jax.tree.map(lambda field: field[0], evidence)),
    )
    prior = HandPrior(*(jnp.asarray(field, jnp.float64) for field in prior))
    start = rough_start(model64, evidence64)
    unknowns = jnp.zeros(CIRCUMSTANCES + hand_unknown_count(model))

    def stacked(x):
      residuals = hand_residuals(model64, evidence64, start, prior, x)
      return residuals.blocks, residuals.plain

    value_and_slope = jax.jit(lambda x: (stacked(x), jax.jacfwd(stacked)(x)))
    for _ in range(60):
      (blocks, plain), jacobian = jax.tree.map(np.asarray, value_and_slope(unknowns))
      matrix, gradient = jacobian[1].T @ jacobian[1], jacobian[1].T @ plain
      for block, change in zip(blocks, jacobian[0], strict=True):
        for row, slope in zip(block, change, strict=True):
          weight = 1 / np.sqrt(1 + row @ row / settings.robust_limit**2)
          matrix = matrix + weight * slope.T @ slope
          gradient = gradient + weight * slope.T @ row
      unknowns = unknowns - 0.7 * np.linalg.solve(matrix, gradient)
    covariance = np.linalg.inv(matrix)
    count = hand_unknown_count(model)

    def vertices_of(hand):
      parameters = unpack_hand(hand, model64, prior)
      vertices = mano_forward(model64, parameters).vertices @ start.rotation.T
      return vertices - regress_joints(model64, vertices)[:1]

    def seen(unknowns):
      hand = unpack_unknowns(unknowns, model64, start, prior)
      joints = regress_joints(model64, mano_forward(model64, hand.parameters).vertices)
      joints = (joints - joints.mean(0, keepdims=True)) @ start.rotation.T
      middle, focal = evidence64.principal_point, jnp.exp(sum(hand.view[1:]))
      joints = joints + view_position(hand.view, middle)[None]
      camera = PerspectiveCamera(jnp.repeat(focal, 2), middle)
      return project_perspective(camera, joints), joints[0, 2]

    slopes = jax.jit(jax.jacfwd(vertices_of))(unknowns[-count:])
    pixels, depth = jax.jit(jax.jacfwd(seen))(unknowns)
    return (
      np.asarray(vertices_of(unknowns[-count:])),
      np.asarray(jnp.einsum('vap,pq,vbq->vab', slopes, covariance[-count:, -count:], slopes)),
      np.asarray(jnp.einsum('vap,pq,vbq->vab', pixels, covariance, pixels)),
      float(depth @ covariance @ depth),
    )


def test_covariance_is_that_of_a_dense_float64_reference(model, hands):
  evidence = evidence_of(hands[1:2], sigma_mm=6.0)
  result = refine_hands(model, evidence, PRIOR, SETTINGS)
  vertices, covariance, in_image, depth = dense_reference(model, evidence, PRIOR, SETTINGS)
  np.testing.assert_allclose(result.vertices[0], vertices, atol=3e-4)
  sigma = 1000 * np.sqrt(np.trace(covariance, axis1=1, axis2=2) / 3)
  np.testing.assert_allclose(result.vertex_sigma_mm[0], sigma, rtol=0.02)
  for found, expected in (
    (result.vertex_covariance[0], covariance),
    (result.joint_image_covariance[0], in_image),
  ):
    scale = np.sqrt(np.einsum('vaa,vbb->vab', expected, expected))
    np.testing.assert_allclose((found - expected) / scale, 0, atol=0.05)
  assert result.wrist_depth_sigma[0] == pytest.approx(np.sqrt(depth), rel=0.02)


def test_the_image_is_surer_than_the_points_and_depth_follows_the_priors(model, hands):
  known = evidence_of(hands, sigma_mm=6.0)
  result = refine_hands(model, known, PRIOR, SETTINGS)
  sigma = np.sqrt(np.trace(result.joint_image_covariance, axis1=2, axis2=3) / 2)
  # Each joint's pixel is told by its own point and by all others.
  assert (sigma < known.image_sigma).all() and (sigma > 0.1 * known.image_sigma).all()
  # With a known focal length the depth is as unsure as the size: it is their quotient.
  assumed = refine_hands(model, evidence_of(hands, 6.0, intrinsics=None), PRIOR, SETTINGS)
  assert (assumed.wrist_depth_sigma > result.wrist_depth_sigma).all()
  share = result.wrist_depth_sigma / result.wrist_camera[:, 2]
  assert ((share > 0.02) & (share < 0.2)).all()


def test_where_evidence_dominates_twice_the_observations_halve_the_variance(model):
  # The size of a hand is the prior's affair, so it is held; the prior of the pose is wide. The hand
  # is met exactly, so that the weights of robust residuals are one.
  wide = PRIOR._replace(pose_factor=np.float32(1000 * np.eye(45)), shape_sigma=np.float32(0.01))
  evidence = evidence_of([made_up_hand(model, 0, shape_size=0.0)], sigma_mm=1.0)
  once = refine_hands(model, evidence, wide, SETTINGS)
  # Two observations of a point with one error are one with an error smaller by sqrt(2).
  twice = refine_hands(model, sigma_of(evidence, np.float32(np.sqrt(0.5))), wide, SETTINGS)
  ratio = np.trace(twice.joint_covariance[0, 1:], axis1=1, axis2=2) / np.trace(
    once.joint_covariance[0, 1:], axis1=1, axis2=2
  )
  assert np.median(ratio) == pytest.approx(0.5, abs=0.03)


def test_residuals_have_the_derivatives_of_finite_differences(model, hands):
  with jax.enable_x64(True):
    model64, evidence = jax.tree.map(
      lambda field: jnp.asarray(field, jnp.float64) if field.dtype.kind == 'f' else field,
      (model, jax.tree.map(lambda field: field[0], evidence_of(hands, sigma_mm=6.0))),
    )
    start = rough_start(model64, evidence)
    rng = np.random.default_rng(5)
    unknowns = jnp.asarray(0.5 * rng.normal(size=CIRCUMSTANCES + hand_unknown_count(model)))

    @jax.jit
    def stacked(x):
      residuals = hand_residuals(model64, evidence, start, PRIOR, x)
      return jnp.concatenate([*(block.reshape(-1) for block in residuals.blocks), residuals.plain])

    jacobian = jax.jacfwd(stacked)(unknowns)
    for k in range(len(unknowns)):
      step = 1e-5 * jnp.eye(len(unknowns))[k]
      difference = (stacked(unknowns + step) - stacked(unknowns - step)) / 2e-5
      np.testing.assert_allclose(jacobian[:, k], difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('kind', ['world', 'heads'])
def test_sure_evidence_of_one_kind_is_believed_over_the_others(model, hands, kind):
  """All other points are centimetres off, and are known to be."""
  _, joints, pixels = hands[0]
  evidence = evidence_of([(None, joints, pixels)], sigma_mm=0.1)
  rng = np.random.default_rng(1)
  for name in [name for name in SIGMAS if name != kind]:
    points = getattr(evidence, f'points_{name}')
    noise = 0.1 * np.std(points, axis=1, keepdims=True) * rng.normal(size=points.shape)
    evidence = evidence._replace(
      **{f'points_{name}': np.float32(points + noise)},
      **{SIGMAS[name]: np.float32(1e3) * getattr(evidence, SIGMAS[name])},
    )
  result = refine_hands(model, evidence, PRIOR, SETTINGS)
  assert mpjpe_mm(procrustes_align(result.joints, joints[None]), joints[None])[0] < 1.0


def test_evidence_has_errors_in_pixels_of_the_hand():
  pixels = np.zeros((1, 21, 2), np.float32)
  pixels[0, :, 0] = np.linspace(100, 300, 21)
  world = np.zeros((1, 21, 3), np.float32)
  world[0, :, 0] = np.linspace(-0.1, 0.1, 21)  # 1 pixel per millimetre
  sizes = np.linspace(4, 6, 21)
  evidence = hand_evidence(pixels, world, SIZE, PointErrors(sizes, 8.0, 7.0))
  np.testing.assert_allclose(evidence.image_sigma, sizes[None], rtol=1e-5)
  np.testing.assert_allclose(evidence.world_sigma, 0.008)
  np.testing.assert_allclose(evidence.principal_point, [[320, 240]])
  assert np.isinf(evidence.heads_sigma).all()  # there are no heads
  known = hand_evidence(pixels, world, SIZE, PointErrors(5.0, 8.0, 7.0), INTRINSICS, world)
  np.testing.assert_allclose(known.heads_sigma, 0.007)
  np.testing.assert_allclose(known.principal_point, [[300, 250]])
  np.testing.assert_allclose(np.exp(known.log_focal_length), FOCAL, rtol=1e-5)
