"""What the image says at a hand's joints and vertices: frames of the residuals, places, maps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from experiments.configs.names import get_config
from hand_jax.geometry.cameras import camera_from_vector, project_points
from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.mano.model import regress_joints
from hand_jax.models.image_evidence import (
  LONGEST_RESIDUAL_M,
  RESIDUAL_UNIT_M,
  ImageEvidence,
  bound_length,
  extended_joints,
  joint_residuals,
)
from hand_jax.types import ImageFeatures
from tests.drawn_variables import drawn_by

pytestmark = pytest.mark.slow

HANDS = 3
# Crop units per metre, and where the wrist is in the crop.
SCALE, SHIFT = 8.0, np.array([0.1, -0.3])
# The network's own unit of length is not quite the metre, and its origin is elsewhere.
WORLD_SCALE, WORLD_SHIFT = 0.8, np.array([0.01, 0.02, -0.03])
MIDDLE_TIP = JOINT_NAMES.index('middle_tip')
residuals_of = jax.jit(joint_residuals)


@pytest.fixture(scope='module')
def hands(model):
  """Vertices and joints of hands of several shapes, in metres, with the wrist at the origin."""
  rng = np.random.default_rng(0)
  betas = jnp.asarray(rng.normal(scale=0.7, size=(HANDS, model.shapedirs.shape[-1])), jnp.float32)
  vertices = jax.jit(shaped)(model, betas)
  return vertices, np.asarray(jax.jit(regress_joints)(model, vertices))


def shaped(model, betas):
  vertices = model.v_template[None] + jnp.einsum('vds,bs->bvd', model.shapedirs, betas)
  return vertices - regress_joints(model, vertices)[:, :1]


@pytest.fixture(scope='module')
def turns():
  return Rotation.random(HANDS, rng=np.random.default_rng(1)).as_matrix()


def features_of(joints, turns, **maps):
  """What a perfect landmark network finds in photos of turned hands."""
  seen = np.einsum('bij,bkj->bki', turns, joints)
  landmarks = np.concatenate([SCALE * seen[..., :2] + SHIFT, SCALE * seen[..., 2:]], axis=-1)
  world = WORLD_SCALE * seen + WORLD_SHIFT
  return ImageFeatures(
    jnp.zeros((len(joints), 4)),
    None,
    jnp.asarray(landmarks, jnp.float32),
    world_landmarks=jnp.asarray(world, jnp.float32),
    **maps,
  )


def naive_residuals(landmarks, world, joints):
  """One hand by scipy's alignment and by least squares: (image, space) in metres, hand frame."""
  centred, seen = joints - joints.mean(axis=0), world - world.mean(axis=0)
  turn = Rotation.align_vectors(seen, centred)[0].as_matrix()
  seen_hand = seen @ turn
  scale = (seen_hand * centred).sum() / (seen_hand**2).sum()
  turned = (joints @ turn.T)[:, :2]
  rows = [[point[axis], axis == 0, axis == 1] for point in turned for axis in (0, 1)]
  view = np.linalg.lstsq(np.asarray(rows, float), landmarks[:, :2].ravel(), rcond=None)[0]
  missed = (landmarks[:, :2] - (view[0] * turned + view[1:])) / view[0]
  return missed @ turn[:2], scale * seen_hand - centred


def test_a_prior_that_is_right_leaves_nothing(hands, turns):
  found = residuals_of(features_of(hands[1], turns), hands[1])
  np.testing.assert_allclose(found.image, 0, atol=2e-6)
  np.testing.assert_allclose(found.space, 0, atol=2e-6)
  np.testing.assert_allclose(found.rotation, turns, atol=1e-4)
  np.testing.assert_allclose(found.scale, SCALE, rtol=1e-4)
  np.testing.assert_allclose(found.shift, np.tile(SHIFT, (HANDS, 1)), atol=1e-4)


def test_residuals_match_scipy_on_points_that_disagree(hands, turns):
  """Landmarks and points in space err each in their own way."""
  rng = np.random.default_rng(2)
  features = features_of(hands[1], turns)
  features = features._replace(
    landmarks=features.landmarks + rng.normal(scale=0.05, size=(HANDS, 21, 3)).astype(np.float32),
    world_landmarks=features.world_landmarks
    + rng.normal(scale=0.006, size=(HANDS, 21, 3)).astype(np.float32),
  )
  found = residuals_of(features, hands[1])
  for number in range(HANDS):
    image, space = naive_residuals(
      *(np.asarray(points[number], float) for points in features[2:3]),
      np.asarray(features.world_landmarks[number], float),
      hands[1][number].astype(float),
    )
    assert np.abs(image).max() > 1e-3 and np.abs(space).max() > 1e-3
    np.testing.assert_allclose(found.image[number], image, atol=1e-5)
    np.testing.assert_allclose(found.space[number], space, atol=1e-5)


def test_a_finger_that_was_seen_elsewhere_is_that_joints_residual(hands, turns):
  """The prior is at the hand, and the photo shows the middle fingertip 2 cm off."""
  moved = np.array(hands[1])
  step = 0.02 * np.array([0.0, 0.6, 0.8], np.float32)
  moved[:, MIDDLE_TIP] += step
  found = residuals_of(features_of(moved, turns), hands[1])
  others = np.arange(21) != MIDDLE_TIP
  for number in range(HANDS):
    # One joint of 21 moves turn, scale and shift a little, so that some of the step remains there.
    np.testing.assert_allclose(found.space[number, MIDDLE_TIP], step, atol=0.006)
    assert np.linalg.norm(found.space[number, others], axis=-1).max() < 0.35 * 0.02
    # The image shows the part of the step across the viewing axis.
    axis = turns[number][2]
    across = step - axis * (axis @ step)
    np.testing.assert_allclose(found.image[number, MIDDLE_TIP], across, atol=0.006)
    np.testing.assert_allclose(found.image[number] @ axis, 0, atol=2e-3)


def test_residuals_turn_with_the_hand_frame_and_not_with_the_photo(hands, turns):
  rng = np.random.default_rng(3)
  prior = (hands[1] + rng.normal(scale=0.008, size=hands[1].shape)).astype(np.float32)
  start = residuals_of(features_of(hands[1], turns), prior)
  # The photo turned in its plane, larger, and shifted.
  angle = Rotation.from_euler('z', 50, degrees=True).as_matrix()
  seen = features_of(hands[1], angle @ turns)
  larger = np.float32(1.4) * np.asarray(seen.landmarks) + np.float32([0.2, 0.1, 0.0])
  seen = seen._replace(landmarks=jnp.asarray(larger))
  found = residuals_of(seen, prior)
  np.testing.assert_allclose(found.image, start.image, atol=1e-5)
  np.testing.assert_allclose(found.space, start.space, atol=1e-5)
  # A hand frame with other axes.
  other = Rotation.from_euler('xyz', [20, -70, 130], degrees=True).as_matrix()
  found = residuals_of(features_of(hands[1], turns), (prior @ other.T).astype(np.float32))
  np.testing.assert_allclose(found.image, start.image @ other.T, atol=1e-5)
  np.testing.assert_allclose(found.space, start.space @ other.T, atol=1e-5)


def test_long_residuals_are_shortened_and_keep_their_direction():
  direction = np.array([0.6, 0.0, -0.8], np.float32)
  # 4 cm over the root of two by hand; a millimetre stays, and nothing passes 4 cm.
  lengths, expected = [0.001, 0.04, 100.0], [0.00099969, 0.0282843, 0.04]
  found = jax.jit(bound_length)(jnp.asarray(np.asarray(lengths)[:, None] * direction, jnp.float32))
  np.testing.assert_allclose(found, np.asarray(expected)[:, None] * direction, rtol=1e-4)


def test_landmarks_that_fit_no_hand_give_bounded_tokens(model, hands, turns):
  """Image points on the far side of the wrist: the fitted scale falls to nearly nothing."""
  features = features_of(hands[1], turns)
  landmarks = jnp.asarray(np.asarray(features.landmarks) * np.float32([-1.0, -1.0, 1.0]))
  features = features._replace(landmarks=landmarks)
  assert np.abs(residuals_of(features, hands[1]).image).max() > 1
  found = tokens_of(model, features, hands[0])
  longest = LONGEST_RESIDUAL_M / RESIDUAL_UNIT_M
  for tokens in found:
    for part in (tokens[..., 2:5], tokens[..., 5:]):
      assert np.linalg.norm(part, axis=-1).max() <= 1.0001 * longest


def test_points_of_another_network_are_refused(hands):
  alone = ImageFeatures(jnp.zeros((HANDS, 4)), None, jnp.zeros((HANDS, 21, 3)))
  with pytest.raises(ValueError, match="need the landmark network's points"):
    joint_residuals(alone, jnp.asarray(hands[1]))


# Tokens.


def test_evidence_of_some_vertices_is_that_of_all_of_them_there(model, hands, turns):
  vertices, joints = hands
  features = features_of(joints, turns)
  module, variables, camera = evidence_of(model, features, vertices)
  every = jax.jit(module.apply)(variables, features, vertices, camera, model)
  queries = jnp.asarray([5, 700, 3])
  some = jax.jit(module.apply)(variables, features, vertices, camera, model, queries)
  np.testing.assert_allclose(some.vertices, every.vertices[:, queries], atol=1e-6)
  np.testing.assert_allclose(some.joints, every.joints, atol=1e-6)


def evidence_of(model, features, vertices, camera=None, channels=0, backbone='hand_landmark'):
  config = get_config('toy').model
  attention = dataclasses.replace(config.attention, image_features='sampled', map_channels=channels)
  backbone = dataclasses.replace(config.backbone, name=backbone)
  module = ImageEvidence(dataclasses.replace(config, attention=attention, backbone=backbone))
  camera = jnp.zeros((len(vertices), 10)) if camera is None else camera
  variables = drawn_by(module.init, features, vertices, camera, model)
  return module, variables, camera


def tokens_of(model, features, vertices, **settings):
  module, variables, camera = evidence_of(model, features, vertices, **settings)
  return jax.jit(module.apply)(variables, features, vertices, camera, model)


def test_joint_tokens_hold_place_and_residuals_and_vertices_those_of_near_joints(
  model, hands, turns
):
  vertices, joints = hands
  moved = np.array(joints)
  moved[:, MIDDLE_TIP] += [0.0, 0.012, 0.016]
  features = features_of(moved, turns)
  found = tokens_of(model, features, vertices)
  assert found.joints.shape == (HANDS, 21, 8) and found.vertices.shape == (HANDS, 778, 8)
  residuals = residuals_of(features, joints)
  bounded = [jax.jit(bound_length)(found) for found in (residuals.image, residuals.space)]
  expected = np.concatenate(bounded, axis=-1) / RESIDUAL_UNIT_M
  np.testing.assert_allclose(found.joints[..., 2:], expected, atol=2e-3)
  turned = np.einsum('bij,bnj->bni', residuals.rotation, vertices)[..., :2]
  places = residuals.scale[:, None, None] * turned + residuals.shift[:, None]
  np.testing.assert_allclose(found.vertices[..., :2], places, atol=1e-4)
  # The tip's own vertex reads mostly the tip, one at the wrist nothing of it.
  tip = int(model.fingertip_vertices[2])
  distance = np.linalg.norm(np.asarray(vertices[0]), axis=-1)
  size = np.linalg.norm(np.asarray(found.vertices[0, :, 5:]), axis=-1)
  assert size[tip] > 0.6 * np.linalg.norm(expected[0, MIDDLE_TIP, 3:])
  assert size[distance.argmin()] < 0.3 * size[tip]


def test_perfect_landmarks_place_the_joints_where_they_are_seen(model, hands, turns):
  features = features_of(hands[1], turns)
  found = tokens_of(model, features, hands[0])
  np.testing.assert_allclose(found.joints[..., :2], features.landmarks[..., :2], atol=1e-4)


def ramp(size, channels=2):
  """A map that holds each place's own x and y."""
  centre = (np.arange(size) + 0.5) / size * 2 - 1
  one = np.stack(np.meshgrid(centre, centre), -1)
  return jnp.asarray(np.broadcast_to(one, (HANDS, size, size, channels)), jnp.float32)


def test_maps_are_sampled_where_the_hand_is_seen(model, hands, turns):
  maps = (ramp(7), ramp(14))
  found = tokens_of(model, features_of(hands[1], turns, reduced_maps=maps), hands[0], channels=2)
  assert found.joints.shape == (HANDS, 21, 12)
  for tokens in found:
    for start, size in ((8, 7), (10, 14)):
      inside = 1 - 1 / size  # The outermost pixel centres, where the border begins.
      expected = np.clip(tokens[..., :2], -inside, inside)
      np.testing.assert_allclose(tokens[..., start : start + 2], expected, atol=1e-5)


def test_without_landmarks_the_estimated_camera_places_the_hand(model, hands):
  camera = np.tile([0.9, 0.1, 0.2, -0.1, 1.1, 0.3, 0.05, -0.1, 0.5, 0.6], (HANDS, 1))
  camera = jnp.asarray(camera, jnp.float32)
  features = ImageFeatures(jnp.zeros((HANDS, 4)), None, last_map=ramp(8))
  found = tokens_of(
    model, features, hands[0], camera=camera, channels=3, backbone='efficientnet_lite0'
  )
  expected = jax.jit(lambda *of: project_points(camera_from_vector(of[0]), of[1]))(camera, hands[1])
  np.testing.assert_allclose(found.joints[..., :2], expected, atol=1e-5)
  assert found.joints.shape == (HANDS, 21, 5)


def test_features_without_maps_are_refused_where_maps_are_sampled(model, hands, turns):
  with pytest.raises(ValueError, match=r'map_channels=4 samples maps.*--feature_maps=4'):
    tokens_of(model, features_of(hands[1], turns), hands[0], channels=4)


def test_no_gradient_reaches_the_hand_or_its_camera_but_maps_learn(model, hands):
  features = ImageFeatures(jnp.zeros((HANDS, 4)), None, last_map=ramp(8))
  camera = jnp.asarray(np.tile([1, 0, 0, 0, 1, 0, 0, 0, 0.5, 0.6], (HANDS, 1)), jnp.float32)
  module, variables, _ = evidence_of(
    model, features, hands[0], camera, channels=3, backbone='efficientnet_lite0'
  )

  @jax.jit
  @jax.grad
  def gradient(inputs):
    variables, feature_map, vertices, camera = inputs
    seen = features._replace(last_map=feature_map)
    found = module.apply(variables, seen, vertices, camera, model)
    return jnp.sum(found.vertices**2) + jnp.sum(found.joints**2)

  of_weights, of_map, of_hand, of_camera = gradient(
    (variables, features.last_map, hands[0], camera)
  )
  assert not of_hand.any() and not of_camera.any()
  assert np.abs(of_map).max() > 0
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(of_weights))


def test_joints_of_a_batch_are_the_regressed_ones(model, hands):
  np.testing.assert_allclose(jax.jit(extended_joints)(model, hands[0]), hands[1], atol=1e-6)
