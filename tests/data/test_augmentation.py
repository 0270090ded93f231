"""Crops: the picture and every label move together."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_jax.config import AugmentationConfig
from hand_jax.data.augmentation import (
  CropChange,
  change_colors,
  make_row,
  mirror_example,
  sample_crop_change,
  upright_change,
)
from hand_jax.data.upright import turn_upright
from hand_jax.geometry.warping import warp_image
from tests.drawn_hands import DrawnSource, project
from tests.toy_mano import make_toy_mano

SIDE = 96
CHANGES = {
  'none': CropChange(),
  'rotation': CropChange(rotation=0.6),
  'scale': CropChange(scale=1.3),
  'shift': CropChange(shift=(0.1, -0.05)),
  'all': CropChange(rotation=-1.1, scale=0.8, shift=(-0.07, 0.1)),
}


@pytest.fixture(scope='module')
def source():
  return DrawnSource(make_toy_mano(), 4)


@pytest.fixture(params=[0, 1], ids=['left', 'right'])
def example(source, request):
  example = source.load([request.param])[0]
  assert example.side == ('right' if request.param else 'left')
  return example


def row_of(example, change=None, side=SIDE):
  return make_row(example, 5, side, 2.0, 778, change)


def turn_of(row) -> np.ndarray:
  """The camera label's R, whose first two columns are stored one after the other."""
  first, second = row.camera[:3], row.camera[3:6]
  return np.stack([first, second, np.cross(first, second)], axis=1)


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_labels_agree_with_each_other_before_and_after(example, change):
  row = row_of(example, change)
  joints_root = row.joints_hand @ turn_of(row)
  # The crop's intrinsics project the hand-frame labels, turned by R, onto the 2D labels.
  pixels = project(row.intrinsics, joints_root + row.root_camera[None])
  np.testing.assert_allclose(pixels * 2 / SIDE - 1, row.joints_normalized, atol=2e-5)
  # The weak-perspective label does so but for perspective: a few percent of the crop.
  weak = 10 * row.camera[9] * joints_root[:, :2] + row.camera[None, 6:8]
  assert np.abs(weak - row.joints_normalized).max() < 0.12
  assert row.camera_mask.all() and row.has_3d and row.has_root
  np.testing.assert_allclose(row.camera[8], row.root_camera[2], rtol=1e-6)


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_the_hand_frame_does_not_feel_the_crop(example, change):
  plain, changed = row_of(example), row_of(example, change)
  np.testing.assert_allclose(changed.vertices_hand, plain.vertices_hand, atol=1e-6)
  np.testing.assert_allclose(changed.joints_hand, plain.joints_hand, atol=1e-6)
  np.testing.assert_allclose(changed.root_camera[2], plain.root_camera[2], rtol=1e-6)


def test_the_hand_frame_is_the_hand_without_its_orientation(source):
  example = source.load([1])[0]
  row = row_of(example)
  turned = Rotation.from_rotvec(example.global_orient)
  expected = turned.inv().apply(example.vertices_camera - example.joints_camera[:1])
  np.testing.assert_allclose(row.vertices_hand, expected, atol=1e-6)
  np.testing.assert_allclose(turn_of(row), turned.as_matrix().T, atol=1e-6)
  np.testing.assert_array_equal(row.joints_hand[0], 0)


def test_the_camera_label_is_the_least_squares_one(source):
  example = source.load([1])[0]
  example.joint_confidence[4] = 0
  example.joints_image[4] = np.nan
  row = row_of(example, CHANGES['all'])
  points = (row.joints_hand @ turn_of(row))[:, :2].astype(np.float64)
  kept = np.arange(len(points)) != 4
  # Unknowns s, T_x, T_y; the stored scale is per decimetre.
  rows_x = np.stack([points[:, 0], np.ones(len(points)), np.zeros(len(points))], 1)
  rows_y = np.stack([points[:, 1], np.zeros(len(points)), np.ones(len(points))], 1)
  matrix = np.concatenate([rows_x[kept], rows_y[kept]])
  values = np.concatenate([row.joints_normalized[kept, 0], row.joints_normalized[kept, 1]])
  scale, t_x, t_y = np.linalg.lstsq(matrix, values, rcond=None)[0]
  np.testing.assert_allclose(row.camera[6:8], [t_x, t_y], atol=1e-5)
  np.testing.assert_allclose(row.camera[9], scale / 10, rtol=1e-5)
  other = row_of(example._replace(joints_image=np.where(kept[:, None], example.joints_image, 1e6)))
  np.testing.assert_array_equal(other.camera, row_of(example).camera)


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize('size', [48, 96, 700], ids=['enlarged', 'alike', 'shrunk'])
def test_a_drawn_dot_stays_under_its_joint(size, change):
  """Half a pixel of error, at the crop's scale, would show here."""
  dot = np.array([0.55, 0.47]) * size  # continuous pixels
  image = np.zeros((size, size, 3), np.uint8)
  y, x = np.mgrid[:size, :size] + 0.5
  blob = np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / (2 * (0.03 * size) ** 2))
  image[...] = np.round(blob[..., None] * 255)
  # A joint placed on the blob, cropped round the whole image.
  joints = np.tile(dot, (21, 1)).astype(np.float32)
  example = (
    DrawnSource(make_toy_mano(), 1)
    .load([0])[0]
    ._replace(
      image=image,
      side='right',
      joints_image=joints,
      box_xywh=np.array([size / 4, size / 4, size / 2, size / 2]),
      hand_mask=None,
    )
  )
  row = row_of(example, change)
  weight = row.image[..., 0].astype(np.float64)
  y, x = np.mgrid[:SIDE, :SIDE] + 0.5
  center = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
  label = (row.joints_normalized[0] + 1) * SIDE / 2
  np.testing.assert_allclose(center, label, atol=0.06)


def test_scale_enlarges_and_shift_moves_the_crop(source):
  example = source.load([1])[0]
  plain = row_of(example).joints_normalized
  larger = row_of(example, CropChange(scale=1.25)).joints_normalized
  np.testing.assert_allclose(larger, 1.25 * plain, atol=1e-5)
  shifted = row_of(example, CropChange(shift=(0.1, -0.05))).joints_normalized
  np.testing.assert_allclose(shifted, plain - np.array([0.2, -0.1])[None], atol=1e-5)


def test_outside_the_photo_is_black():
  image = np.full((20, 20, 3), 200, np.uint8)
  affine = np.eye(3)
  affine[:2, 2] = 10  # the photo covers crop pixels 10 to 30
  crop = change_colors(warp_image(image, affine, 40), CropChange(gains=(1.2, 1.0, 1.0), gamma=0.7))
  assert (crop[:9] == 0).all() and (crop[:, :9] == 0).all()
  assert (crop[31:] == 0).all() and (crop[:, 31:] == 0).all()
  assert (crop[11:29, 11:29] > 100).all()


def test_the_mask_moves_with_the_picture(example):
  row = row_of(example, CHANGES['all'])
  # The drawn hand is brighter than its background and its padding.
  seen = row.image.astype(int).max(-1) > 70
  assert row.has_mask
  overlap = (seen & row.hand_mask).sum() / (seen | row.hand_mask).sum()
  # The dots' soft edges may count or not; a mask left behind covers under a third.
  assert overlap > 0.85


DOT = 400  # the vertex that is drawn


def with_dots(example, seed=0):
  """Vertices of random colours, all shown; in the photo a large dot of one vertex's colour."""
  rng = np.random.default_rng(seed)
  colors = rng.uniform(0.1, 0.9, (778, 3)).astype(np.float32)
  point = project(example.intrinsics, example.vertices_camera)[DOT]
  image = example.image.copy()
  center = tuple(np.round(point - 0.5).astype(int).tolist())
  cv2.circle(image, center, 5, (colors[DOT] * 255).round().tolist(), -1)
  visible = np.ones(778, bool)
  return example._replace(image=image, vertex_colors=colors, vertex_visible=visible)


COLOR_CHANGES = {
  'none': CropChange(),
  'gains': CropChange(gains=(1.2, 0.8, 1.1)),
  'gamma': CropChange(gamma=1.3, rotation=0.4),
  'saturation': CropChange(saturation=0.6, scale=1.2),
  'all': CropChange(gains=(0.9, 1.3, 0.7), gamma=0.8, saturation=1.2, shift=(0.05, 0.0)),
}


@pytest.mark.parametrize('change', COLOR_CHANGES.values(), ids=COLOR_CHANGES)
def test_a_dot_keeps_the_colour_of_its_vertex(example, change):
  example = with_dots(example)
  row = row_of(example, change)
  # The labels that are there say where the vertex is: no code of the colours' own.
  pixel = project(row.intrinsics, row.vertices_hand @ turn_of(row) + row.root_camera[None])[DOT]
  shown = row.image[int(pixel[1]), int(pixel[0])] / 255
  # Both are rounded to levels two or three times.
  np.testing.assert_allclose(row.vertex_colors[DOT], shown, atol=2.5 / 255)
  assert row.has_vertex_colors and row.vertex_visible[DOT]
  before = example.vertex_colors[DOT]
  if change.gamma == 1 and change.saturation == 1:
    expected = before * np.array(change.gains)
    np.testing.assert_allclose(row.vertex_colors[DOT], expected.clip(0, 1), atol=2.5 / 255)
  if change == CropChange():
    np.testing.assert_allclose(row.vertex_colors, example.vertex_colors, atol=0.51 / 255)
  else:
    assert np.abs(row.vertex_colors[DOT] - before).max() > 0.03


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_the_crop_shows_the_vertices_that_lie_in_it(example, change):
  # A crop that cuts the hand: its box is a quarter of the hand's own.
  x, y, width, height = example.box_xywh
  cut = with_dots(example)._replace(
    box_xywh=np.array([x + width / 4, y + height / 4, width / 4, height / 4], np.float32)
  )
  cut.vertex_visible[::3] = False
  row = row_of(cut, change)
  pixels = project(row.intrinsics, row.vertices_hand @ turn_of(row) + row.root_camera[None])
  # A vertex within a thousandth of a pixel of the border may fall on either side.
  inside = ((pixels > 1e-3) & (pixels < SIDE - 1e-3)).all(1)
  outside = ((pixels < -1e-3) | (pixels > SIDE + 1e-3)).any(1)
  assert 20 < inside.sum() < 760 and outside.sum() > 20
  np.testing.assert_array_equal(row.vertex_visible[inside], cut.vertex_visible[inside])
  assert not row.vertex_visible[outside].any()


def test_mirrored_vertices_keep_their_order(example):
  example = with_dots(example)
  example.vertex_visible[:300] = False
  row, mirrored = row_of(example), row_of(mirror_example(example))
  assert bool(row.is_left) != bool(mirrored.is_left)
  for labels in (row, mirrored):
    np.testing.assert_allclose(labels.vertex_colors, example.vertex_colors, atol=0.51 / 255)
    np.testing.assert_array_equal(labels.vertex_visible, example.vertex_visible)


def test_mirroring_twice_changes_nothing(example):
  twice = mirror_example(mirror_example(example))
  for field, value, expected in zip(example._fields, twice, example, strict=True):
    if expected is None or isinstance(expected, str):
      assert value == expected, field
    else:
      np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-5, err_msg=field)


def test_a_mirrored_example_is_that_of_a_mirrored_hand(example):
  mirrored = mirror_example(example)
  flip = np.diag([-1.0, 1.0, 1.0])
  pixels = project(mirrored.intrinsics, mirrored.vertices_camera)
  # The drawn hands' boxes are tight.
  expected_box = [*pixels.min(0), *(pixels.max(0) - pixels.min(0))]
  np.testing.assert_allclose(mirrored.box_xywh, expected_box, atol=1e-4)
  np.testing.assert_allclose(
    project(mirrored.intrinsics, mirrored.joints_camera), mirrored.joints_image, atol=1e-4
  )
  turned = Rotation.from_rotvec(example.global_orient).as_matrix()
  found = Rotation.from_rotvec(mirrored.global_orient).as_matrix()
  np.testing.assert_allclose(found, flip @ turned @ flip, atol=1e-6)


def test_a_mirrored_photo_of_the_other_hand_gives_the_same_row(example):
  row, mirrored = row_of(example), row_of(mirror_example(example))
  assert bool(row.is_left) != bool(mirrored.is_left)
  np.testing.assert_array_equal(row.image, mirrored.image)
  for field in ('vertices_hand', 'joints_hand', 'joints_normalized', 'camera', 'intrinsics'):
    np.testing.assert_allclose(
      getattr(row, field), getattr(mirrored, field), atol=1e-4, err_msg=field
    )


@pytest.mark.parametrize(
  ('absent', 'mask', 'has_3d'),
  [
    (('vertices_camera',), [True] * 10, False),
    (('global_orient',), [False] * 6 + [True] * 4, False),
    (('vertices_camera', 'joints_camera'), [True] * 6 + [False] * 4, False),
    (('intrinsics', 'hand_mask'), [True] * 10, True),
    (('vertex_colors',), [True] * 10, True),
    (('vertex_visible',), [True] * 10, True),
  ],
  ids=[
    'no mesh', 'no orientation', '2D alone', 'no intrinsics, no mask', 'no colours',
    'no visibility',
  ],
)  # fmt: skip
def test_absent_labels_are_masked(source, absent, mask, has_3d):
  example = with_dots(source.load([1])[0])
  row = row_of(example._replace(**dict.fromkeys(absent)))
  full = row_of(example)
  np.testing.assert_array_equal(row.camera_mask, mask)
  assert row.has_3d == has_3d
  assert row.has_root == ('joints_camera' not in absent)
  assert row.has_mask == ('hand_mask' not in absent)
  for_colors = {'vertex_colors', 'vertex_visible', 'vertices_camera'}
  assert row.has_vertex_colors == for_colors.isdisjoint(absent)
  assert full.has_vertex_colors
  for value, expected in zip(row, full, strict=True):
    assert np.shape(value) == np.shape(expected)
    assert np.asarray(value).dtype == np.asarray(expected).dtype


def test_too_few_known_joints_leave_scale_and_shift_masked(source):
  example = source.load([1])[0]
  example.joint_confidence[3:] = 0
  row = row_of(example)
  np.testing.assert_array_equal(row.camera_mask, [True] * 6 + [False, False, True, False])


def test_changes_stay_in_their_ranges_and_zero_switches_off():
  config = AugmentationConfig(30.0, 0.15, 0.08, 0.2)
  draws = [sample_crop_change(config, np.random.default_rng(seed)) for seed in range(500)]
  rotations = np.rad2deg([draw.rotation for draw in draws])
  scales = np.array([draw.scale for draw in draws])
  shifts = np.array([draw.shift for draw in draws])
  for values, bound in ((rotations, 30), (np.log(scales), np.log(1.15)), (shifts, 0.08)):
    assert np.abs(values).max() <= bound * (1 + 1e-9)
    assert np.abs(values).max() > 0.95 * bound
    # The mean of 500 uniform draws is within 5 standard errors of no change.
    assert abs(values.mean()) < 5 * bound / np.sqrt(3 * len(values))
  off = sample_crop_change(AugmentationConfig(0.0, 0.0, 0.0, 0.0), np.random.default_rng(1))
  assert off == CropChange()


def test_the_turn_upright_is_clockwise_for_a_hand_that_points_left():
  joints = np.zeros((21, 2))
  for direction, turn in (((0, -3), 0), ((-3, 0), 90), ((3, 0), -90), ((2, -2), -45)):
    joints[9] = joints[0] + direction
    assert np.rad2deg(turn_upright(joints)) == pytest.approx(turn)
  assert turn_upright(np.ones((21, 2))) == 0


@pytest.mark.parametrize('index', [0, 1], ids=['left', 'right'])
def test_an_upright_crops_labels_and_picture_turn_together(source, index):
  example = source.load([index])[0]
  drawn = CropChange(rotation=0.3, scale=1.1, shift=(0.05, -0.02), gamma=0.9)
  change = upright_change(example, drawn)
  assert abs(change.rotation - 0.3) > 0.01
  row = row_of(example, change)
  x, y = row.joints_normalized[9] - row.joints_normalized[0]
  assert np.arctan2(x, -y) == pytest.approx(0.3, abs=1e-4)
  # Joints that the crop's own camera projects are the labels.
  joints_root = row.joints_hand @ turn_of(row)
  pixels = project(row.intrinsics, joints_root + row.root_camera[None])
  np.testing.assert_allclose(pixels * 2 / SIDE - 1, row.joints_normalized, atol=2e-5)
  weak = 10 * row.camera[9] * joints_root[:, :2] + row.camera[None, 6:8]
  assert np.abs(weak - row.joints_normalized).max() < 0.12
  # The mesh lies on what the picture shows of it.
  vertices = (row.vertices_hand @ turn_of(row)) + row.root_camera[None]
  places = np.floor(project(row.intrinsics, vertices)).astype(int)
  inside = ((places >= 1) & (places < SIDE - 1)).all(axis=1)
  shown = row.hand_mask[places[inside, 1], places[inside, 0]]
  assert inside.mean() > 0.9 and shown.mean() > 0.95


@pytest.mark.parametrize('unknown', [0, 9], ids=['wrist', 'middle finger'])
def test_hands_of_unknown_direction_are_not_turned(source, unknown):
  example = source.load([1])[0]
  example.joint_confidence[unknown] = 0
  example.joints_image[unknown] = np.nan
  change = CropChange(rotation=0.2)
  assert upright_change(example, change) == change
  example.joint_confidence[:] = np.arange(21) % 9 == 0
  example.joint_confidence[unknown] = 1
  assert upright_change(example._replace(joints_image=np.ones((21, 2))), change) == change
