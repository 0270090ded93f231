"""Synthetic hands: reproducible, labels that agree with each other and with the picture."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.mano.anatomy import joint_limit_penalty
from hand_jax.mano.assets import load_hand_appearance
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.synthetic import background as synthetic_background
from hand_jax.synthetic import hands as synthetic
from hand_jax.synthetic import light as synthetic_light
from hand_jax.synthetic import objects as synthetic_objects
from hand_jax.synthetic.compose import MINIMUM_VISIBLE
from hand_jax.synthetic.scene import BETA_LIMIT, View, example_generator, sample_scene
from hand_jax.types import HandParameters

SIZE = 96
COUNT = 24
UNIFORM_LIGHT = synthetic_light.Light(
  0, np.eye(3), np.outer(np.arange(9) == 0, [1.8] * 3), np.array([0.0, 0, -1]), np.zeros(3)
)


@pytest.fixture(scope='module')
def hands():
  return [synthetic.render_hand(3, 'train', index, SIZE) for index in range(COUNT)]


def project(example, points):
  pixels = points.astype(np.float64) @ example.intrinsics.astype(np.float64).T
  return pixels[:, :2] / pixels[:, 2:]


def draw_silhouette(example, faces):
  """The hand's outline by another rasterizer: OpenCV's polygons, on a finer grid."""
  fine = 8
  pixels = project(example, example.vertices_camera) * fine - 0.5
  canvas = np.zeros((SIZE * fine, SIZE * fine), np.uint8)
  for face in faces:
    cv2.fillConvexPoly(canvas, np.round(pixels[face]).astype(np.int32), 1)
  return canvas.reshape(SIZE, fine, SIZE, fine).mean((1, 3))


def assert_examples_equal(first, second):
  for name, one, other in zip(first._fields, first, second, strict=True):
    np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.slow
def test_examples_do_not_depend_on_how_they_are_asked_for(hands):
  together = synthetic.render_examples(3, 'train', [5, 0, 17], SIZE)
  alone = synthetic.render_examples(3, 'train', np.array([17]), SIZE)[0]
  for example, index in zip(together, (5, 0, 17), strict=True):
    assert_examples_equal(example, hands[index].example)
  assert_examples_equal(alone, hands[17].example)


def test_seeds_splits_and_indices_give_different_hands():
  requests = [(3, 'train', 0), (4, 'train', 0), (3, 'validation', 0), (3, 'test', 0)]
  draws = [example_generator(*request).integers(2**62) for request in requests]
  draws += [example_generator(3, 'train', index).integers(2**62) for index in range(1, 100)]
  assert len(set(draws)) == len(draws)
  images = [synthetic.render_examples(s, t, [i], SIZE)[0].image for s, t, i in requests]
  for k, image in enumerate(images):
    assert all(np.abs(image.astype(int) - other).mean() > 2 for other in images[:k])


def test_fields_have_their_shapes_and_types(hands):
  for index, hand in enumerate(hands):
    example = hand.example
    assert example.example_id == f'synthetic-3-train-{index}'
    assert example.side == 'right'
    assert example.image.shape == (SIZE, SIZE, 3) and example.image.dtype == np.uint8
    assert example.hand_mask.shape == (SIZE, SIZE) and example.hand_mask.dtype == np.bool_
    shapes = {
      'box_xywh': (4,), 'joints_image': (21, 2), 'joint_confidence': (21,), 'intrinsics': (3, 3),
      'vertices_camera': (778, 3), 'joints_camera': (21, 3), 'global_orient': (3,),
    }  # fmt: skip
    for name, shape in shapes.items():
      value = getattr(example, name)
      assert value.shape == shape and value.dtype == np.float32, name
      assert np.isfinite(value).all(), name
    np.testing.assert_array_equal(example.joint_confidence, 1)
    # A picture, not a flat or saturated field.
    assert example.image.std() > 5


def test_joints_are_regressed_from_the_vertices_and_project_to_their_pixels(hands, model):
  for hand in hands:
    example = hand.example
    regressed = regress_joints(model, jnp.asarray(example.vertices_camera))
    np.testing.assert_allclose(regressed, example.joints_camera, atol=2e-6)
    # float32 pixels of points about half a metre away.
    np.testing.assert_allclose(
      project(example, example.joints_camera), example.joints_image, atol=1e-3
    )


def test_parameters_reproduce_the_vertices(hands, model):
  pose = jax.jit(mano_forward)
  for hand in hands:
    example = hand.example
    parameters = HandParameters(
      *(jnp.asarray(a) for a in (example.global_orient, hand.hand_pose, hand.betas)), jnp.zeros(3)
    )
    posed = pose(model, parameters).vertices
    shift = example.vertices_camera.astype(np.float64) - np.asarray(posed)
    np.testing.assert_allclose(shift, np.broadcast_to(shift.mean(0), shift.shape), atol=3e-6)
    assert float(joint_limit_penalty(jnp.asarray(hand.hand_pose))) == 0
    assert np.abs(hand.betas).max() <= BETA_LIMIT


def test_the_box_is_tight_and_frames_the_hand(hands):
  for hand in hands:
    example = hand.example
    pixels = project(example, example.vertices_camera)
    low, high = pixels.min(0), pixels.max(0)
    np.testing.assert_allclose(example.box_xywh, [*low, *(high - low)], atol=2e-3)
    assert 0.449 * SIZE < example.box_xywh[2:].max() < 0.751 * SIZE
    assert (low > 0).all() and (high < SIZE).all()
    assert example.vertices_camera[:, 2].min() > 0.1


def test_the_mask_lies_inside_the_silhouette_and_shows_enough_of_it(hands, model):
  fractions = []
  for hand in hands:
    silhouette = draw_silhouette(hand.example, np.asarray(model.faces))
    reach = cv2.dilate(silhouette, np.ones((3, 3)))
    assert not hand.example.hand_mask[reach == 0].any()
    fractions.append(hand.example.hand_mask.sum() / silhouette.sum())
  # Objects leave at least MINIMUM_VISIBLE of it; the forearm can hide some more.
  assert min(fractions) > 0.3
  assert np.mean(fractions) > 0.8
  assert max(fractions) < 1.1


def render_with_sphere(monkeypatch, radius_share):
  """Example 9 with a ball half way between camera and hand, and the ball's pixels."""
  solids = []

  def place(rng, scene, view, joints):
    center = joints[[0, 5, 9, 13, 17]].mean(0) * 0.5
    radius = radius_share * view.box_xywh[2:].max() / view.focal_length * center[2]
    color = np.array([0.0, 0.0, 0.9])
    sphere = synthetic_objects.SolidObject(
      'ellipsoid', center, np.eye(3), np.full(3, radius), color, color, 0.0
    )
    solids.append(synthetic_objects.cast_object(sphere, view, UNIFORM_LIGHT, SIZE))
    return [sphere] if radius_share else []

  monkeypatch.setattr(synthetic, 'sample_objects', place)
  hand = synthetic.render_hand(3, 'train', 9, SIZE)
  covered = np.zeros((SIZE, SIZE), bool)
  if radius_share:
    covered[solids[0].window] = solids[0].hit
  return hand, covered


def test_objects_before_the_hand_leave_the_mask_but_never_take_most_of_it(monkeypatch):
  free = render_with_sphere(monkeypatch, 0.0)[0].example
  hand, covered = render_with_sphere(monkeypatch, 0.16)
  hidden = hand.example
  np.testing.assert_array_equal(hidden.hand_mask, free.hand_mask & ~covered)
  assert 0.1 < covered[free.hand_mask].mean() < 1 - MINIMUM_VISIBLE
  # The ball is blue, whatever the balance and the exposure.
  inside = cv2.erode((covered & free.hand_mask).astype(np.uint8), np.ones((7, 7))) > 0
  red, _, blue = (hidden.image[inside].astype(float) - free.image[inside]).mean(0)
  assert blue > red + 20
  buried, covered = render_with_sphere(monkeypatch, 0.6)
  assert covered[free.hand_mask].mean() > 1 - MINIMUM_VISIBLE
  assert_examples_equal(buried.example, free)


def test_what_an_object_hides_keeps_the_colour_it_shows_without_the_object(monkeypatch):
  free, _ = render_with_sphere(monkeypatch, 0.0)
  hand, _ = render_with_sphere(monkeypatch, 0.16)
  np.testing.assert_array_equal(hand.vertex_colors, free.vertex_colors)
  covered = synthetic.vertex_visibility(free) & ~synthetic.vertex_visibility(hand)
  assert covered.sum() > 15
  pixels = np.floor(project(free.example, free.example.vertices_camera)).astype(int)
  shown = free.example.image[pixels[:, 1], pixels[:, 0]] / 255
  instead = hand.example.image[pixels[:, 1], pixels[:, 0]] / 255
  assert np.median(np.abs(hand.vertex_colors - shown)[covered]) < 0.04
  assert np.median(np.abs(hand.vertex_colors - instead)[covered]) > 0.12


@pytest.mark.slow
def test_vertex_labels_come_on_request():
  (plain,) = synthetic.render_examples(3, 'test', [5], 64)
  (labelled,) = synthetic.render_examples(3, 'test', [5], 64, with_vertex_labels=True)
  assert plain.vertex_visible is None and plain.vertex_colors is None
  hand = synthetic.render_hand(3, 'test', 5, 64)
  np.testing.assert_array_equal(labelled.vertex_visible, synthetic.vertex_visibility(hand))
  np.testing.assert_array_equal(labelled.vertex_colors, hand.vertex_colors)
  unlabelled = labelled._replace(vertex_visible=None, vertex_colors=None)
  assert_examples_equal(unlabelled, plain)


# Of free hand 3: the generator after the last draw, and the mean colour of each quarter. The
# generator's numbers are those of free hands 1 and 2 too.
KNOWN_PHOTOS = [
  ((0, 'train', 0), 2979376528,
   [[143.7, 119.0, 87.6], [153.0, 157.9, 127.9], [120.2, 139.7, 89.1], [145.7, 144.9, 103.5]]),
  ((0, 'train', 1), 1276649712,
   [[141.3, 117.3, 89.8], [123.0, 67.3, 47.5], [173.0, 145.1, 110.8], [112.5, 95.2, 74.0]]),
  ((3, 'validation', 2), 1396783920,
   [[132.0, 122.0, 124.2], [175.2, 135.0, 134.5], [130.4, 114.9, 110.2], [162.4, 150.6, 147.0]]),
  ((5, 'test', 11), 1797967337,
   [[126.5, 118.4, 122.3], [104.6, 101.8, 116.3], [133.7, 122.7, 123.5], [126.6, 103.1, 88.3]]),
]  # fmt: skip


@pytest.mark.parametrize(('wanted', 'state', 'quarters'), KNOWN_PHOTOS)
def test_photos_stay_what_they_were(monkeypatch, wanted, state, quarters):
  """Runs and prepared data name their pictures by seed, split and index alone."""
  generators = []

  def generator(*arguments):
    generators.append(example_generator(*arguments))
    return generators[-1]

  monkeypatch.setattr(synthetic, 'example_generator', generator)
  image = synthetic.render_hand(*wanted, SIZE).example.image
  # One draw more or less, and this number is another.
  assert generators[0].bit_generator.state['state']['state'] % 2**32 == state
  half = SIZE // 2
  found = image.reshape(2, half, 2, half, 3).mean((1, 3)).reshape(4, 3)
  # Another processor rounds otherwise: a level in some pixels.
  np.testing.assert_allclose(found, quarters, atol=0.3)


def test_visible_vertices_face_the_camera_and_lie_on_the_mask(hands, model):
  arm_faces = np.asarray(load_hand_appearance().forearm_faces)
  faces = np.concatenate([np.asarray(model.faces), arm_faces])
  for hand in hands:
    example = hand.example
    visible = synthetic.vertex_visibility(hand)
    assert 0.08 < visible.mean() < 0.75
    # From outside a closed surface a vertex is seen only with a face that is turned to the camera.
    surface = np.concatenate([example.vertices_camera, hand.forearm_camera]).astype(np.float64)
    a, b, c = (surface[faces[:, k]] for k in range(3))
    front = (np.cross(b - a, c - a) * a).sum(1) < 0
    has_front = np.zeros(len(surface), bool)
    has_front[faces[front]] = True
    assert has_front[: len(visible)][visible].all()
    pixels = np.floor(project(example, example.vertices_camera[visible])).astype(int)
    near = cv2.dilate(example.hand_mask.astype(np.uint8), np.ones((3, 3)))
    assert near[pixels[:, 1], pixels[:, 0]].all()


def test_scenes_turn_rigidly_and_never_look_along_the_forearm():
  for index in range(200):
    rotation = sample_scene(np.random.default_rng(index)).rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0
    # The camera's direction in the hand frame is -rotation[2]; the elbow lies along +x.
    assert -rotation[2, 0] < 0.8


def test_broad_hands_turn_palm_or_back_to_the_camera_more_often():
  share = {}
  for hands in ('classic', 'broad'):
    scenes = [sample_scene(np.random.default_rng(index), hands) for index in range(400)]
    # The palm's normal is the hand frame's y axis; within 32 degrees it faces the camera.
    share[hands] = np.mean([abs(scene.rotation[2, 1]) > 0.85 for scene in scenes])
  # By drawing a million normals: a uniform viewpoint off the forearm lies there in 16.6 %, one near
  # the palm's or the back's normal in 67.4 % (spread 0.38) or 91.0 % (0.25).
  assert share['classic'] == pytest.approx(0.62 * 0.166 + 0.38 * 0.674, abs=0.08)
  assert share['broad'] == pytest.approx(0.25 * 0.166 + 0.75 * 0.910, abs=0.08)


def test_environment_light_matches_an_integral_over_the_map():
  environments = synthetic_light.load_environments()
  assert len(environments.names) == 18
  height, width = environments.light.shape[1:3]
  directions = synthetic_light.equirectangular_directions(height, width).reshape(-1, 3)
  weights = synthetic_light.solid_angles(height, width).ravel()
  assert weights.sum() == pytest.approx(4 * np.pi, rel=1e-12)
  normals = np.random.default_rng(0).normal(size=(40, 3))
  normals /= np.linalg.norm(normals, axis=1, keepdims=True)
  cosines = np.maximum(normals @ directions.T, 0) * weights / np.pi
  for light, harmonics in zip(environments.light, environments.harmonics, strict=True):
    expected = cosines @ light.reshape(-1, 3)
    found = synthetic_light.ambient_radiosity(normals, harmonics.astype(np.float64))
    # Nine coefficients leave a few per cent of the irradiance of any light (Ramamoorthi 2001).
    assert np.abs(found - expected).mean() < 0.03 * expected.mean()


def test_uniform_light_is_seen_as_itself():
  directions = synthetic_light.equirectangular_directions(64, 128).reshape(-1, 3)
  weights = synthetic_light.solid_angles(64, 128).ravel()
  radiance = np.tile([0.2, 0.5, 0.9], (len(directions), 1))
  harmonics = synthetic_light.project_to_harmonics(directions, radiance, weights)
  found = synthetic_light.ambient_radiosity(directions[::97], harmonics)
  np.testing.assert_allclose(found, radiance[::97], rtol=2e-3)


@pytest.mark.parametrize('seed', range(6))
def test_views_show_the_direction_they_look_in(monkeypatch, seed):
  directions = synthetic_light.equirectangular_directions(256, 512)
  coded = ((directions + 1) * 127.5).astype(np.uint8)
  tiled = (np.concatenate([coded, coded], axis=1),)
  monkeypatch.setattr(synthetic_background, '_tiled_views', lambda: tiled)
  rng = np.random.default_rng(seed)
  rotation = synthetic_light.sample_light(rng).camera_to_environment
  size, tangent = 48, 0.6
  view = synthetic_background.view_of_environment(0, rotation, tangent, size)
  ticks = ((np.arange(size) + 0.5) / size * 2 - 1) * tangent
  rays = np.stack(np.broadcast_arrays(ticks[None], ticks[:, None], 1.0), -1) @ rotation.T
  rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
  error = np.abs(view / 127.5 - 1 - rays)
  # 8 bits, bilinear lookups, and a coarse grid of coordinates, which is poor near the poles only.
  assert np.quantile(error, 0.9) < 0.05


@pytest.mark.parametrize('kind', ['ellipsoid', 'box', 'cylinder'])
def test_cast_objects_are_hit_on_their_nearest_surface(kind):
  rng = np.random.default_rng(4)
  view = View(np.zeros(3), 90.0, np.array([40.0, 44.0]), np.zeros(4))
  light = synthetic_light.sample_light(rng)
  axes = synthetic_objects.random_rotation(rng)
  np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
  half = np.array([0.05, 0.07, 0.11])
  center = np.array([0.01, 0.02, 0.6])
  color = np.ones(3)
  solid = synthetic_objects.SolidObject(kind, center, axes, half, color, color, 0.0)
  cast = synthetic_objects.cast_object(solid, view, light, SIZE)
  rows, columns = np.nonzero(cast.hit)
  assert len(rows) > 100
  x = (columns + cast.window[1].start + 0.5 - 40.0) / 90
  y = (rows + cast.window[0].start + 0.5 - 44.0) / 90
  rays = np.stack([x, y, np.ones_like(x)], -1)
  own = ((cast.depth[rows, columns][:, None] * rays - center) @ axes.T) / half
  measure = {
    'ellipsoid': lambda p: np.linalg.norm(p, axis=1),
    'box': lambda p: np.abs(p).max(1),
    'cylinder': lambda p: np.maximum(np.linalg.norm(p[:, :2], axis=1), np.abs(p[:, 2])),
  }[kind]
  np.testing.assert_allclose(measure(own), 1, atol=2e-4)
  # A little further the ray is inside, a little nearer outside.
  step = (0.002 * rays @ axes.T) / half
  grazing = np.quantile(measure(own + step), 0.8)
  assert grazing < 1.0 and (measure(own - step) > 1).mean() > 0.99


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((0, 'trian', [0], 96), "split is 'trian', expected one of train, validation, test"),
    ((-1, 'train', [0], 96), 'seed -1'),
    ((0, 'train', [-4], 96), 'index -4'),
    ((0, 'train', [0], 16), 'image_size is 16'),
  ],
)
def test_impossible_requests_are_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    synthetic.render_examples(*arguments)


def test_bundled_maps_are_small_and_finite():
  environments = synthetic_light.load_environments()
  assert all(view.shape == (256, 512, 3) and view.std() > 10 for view in environments.views)
  assert np.isfinite(environments.light).all() and environments.light.min() >= 0
  assert jax.tree.all(jax.tree.map(lambda a: np.isfinite(a).all(), environments.harmonics))
