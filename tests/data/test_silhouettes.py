"""Silhouettes: small hand masks in the crop, whose hidden pixels are marked as unknown."""

import dataclasses

import cv2
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.data.augmentation import CropChange, add_picture, make_labels
from hand_jax.data.pipeline import evaluation_batches, training_batches
from hand_jax.data.silhouettes import SilhouetteMaker, draw_mesh
from hand_jax.examples import HandExample
from hand_jax.types import SILHOUETTE_FULL, SILHOUETTE_UNKNOWN
from tests.drawn_hands import DrawnSource
from tests.toy_mano import make_toy_mano

# A plate half a metre from the camera, which covers columns 30 to 70 and rows 20 to 80.
INTRINSICS = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]], np.float32)
CORNERS = np.array([[30.0, 20], [70, 20], [70, 80], [30, 80]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])
SIDE = 32


def plate(side='right', **changes) -> HandExample:
  vertices = np.concatenate([(CORNERS - 50) / 100, np.ones((4, 1))], axis=1) * 0.5
  mask = np.zeros((100, 100), bool)
  mask[20:80, 30:70] = True
  example = HandExample(
    example_id='plate',
    image=np.zeros((100, 100, 3), np.uint8),
    side=side,
    box_xywh=np.array([30.0, 20, 40, 60]),
    joints_image=np.full((21, 2), 50.0),
    joint_confidence=np.ones(21),
    intrinsics=INTRINSICS,
    vertices_camera=vertices.astype(np.float32),
    joints_camera=np.tile([0.0, 0, 0.5], (21, 1)).astype(np.float32),
    hand_mask=mask,
  )
  return example._replace(**changes)


def silhouette_of(example, change=None):
  change = change or CropChange()
  row, placement = make_labels(example, 0, 4 * SIDE, 1.5, 4, change)
  made = SilhouetteMaker(SIDE, FACES)(example, example.hand_mask, placement)
  return made, add_picture(row, placement, example.image, example.hand_mask).hand_mask


@pytest.mark.parametrize('side', ['right', 'left'])
@pytest.mark.parametrize('rotation', [0.0, 0.7])
def test_a_silhouette_is_the_crops_mask_in_small(side, rotation):
  # Asymmetric, so that a mirrored or turned mask would be told.
  mask = plate().hand_mask.copy()
  mask[20:40, 30:50] = False
  example = plate(side, hand_mask=mask, vertices_camera=None)
  change = CropChange(rotation=rotation, scale=1.1, shift=(0.1, -0.05))
  made, large = silhouette_of(example, change)
  reduced = cv2.resize(large.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
  assert np.abs(made / SILHOUETTE_FULL - reduced).mean() < 0.01
  assert 0.1 < reduced.mean() < 0.9


@pytest.mark.parametrize('side', ['right', 'left'])
@pytest.mark.parametrize('rotation', [0.0, 0.7])
def test_pixels_of_the_mesh_outside_the_mask_are_unknown(side, rotation):
  change = CropChange(rotation=rotation)
  whole, _ = silhouette_of(plate(side), change)
  assert not (whole == SILHOUETTE_UNKNOWN).any()
  # An object covers the lower left of the plate, and some of the background.
  mask = plate().hand_mask.copy()
  mask[60:, :50] = False
  seen, _ = silhouette_of(plate(side, hand_mask=mask), change)
  hidden = seen == SILHOUETTE_UNKNOWN
  without, _ = silhouette_of(plate(side, hand_mask=mask, vertices_camera=None), change)
  np.testing.assert_array_equal(seen[~hidden], without[~hidden])
  # A third of the rows and half of the columns. The object's own outline hides half a pixel more
  # or less.
  expected = (whole - without.astype(int)).sum() / SILHOUETTE_FULL
  assert hidden.sum() == pytest.approx(expected, rel=0.1)
  # The mesh and the warped mask differ by some share of the pixels along the outline.
  assert (whole[hidden] > SILHOUETTE_FULL / 3).all()


def test_a_hand_that_leaves_the_photo_is_unknown_beyond_its_border():
  corners = CORNERS + [40, 0]
  vertices = np.concatenate([(corners - 50) / 100, np.ones((4, 1))], axis=1) * 0.5
  mask = np.zeros((100, 100), bool)
  mask[20:80, 70:] = True
  example = plate(
    hand_mask=mask, vertices_camera=vertices.astype(np.float32), box_xywh=[70.0, 20, 40, 60]
  )
  made, _ = silhouette_of(example._replace(box_xywh=np.asarray(example.box_xywh)))
  # The crop is 90 pixels wide from 45 on, so that the photo ends after 55 of them.
  border = round(SIDE * 55 / 90)
  middle = made[SIDE // 2]
  assert (middle[border + 1 : round(SIDE * 65 / 90) - 1] == SILHOUETTE_UNKNOWN).all()
  assert not (middle[: border - 1] == SILHOUETTE_UNKNOWN).any()


def test_without_a_mask_nothing_is_known():
  made, _ = silhouette_of(plate(hand_mask=None))
  assert (made == SILHOUETTE_UNKNOWN).all()


def test_a_mesh_is_drawn_by_the_shares_of_pixels():
  points = np.array([[2.5, 3.0], [9.0, 3.0], [9.0, 7.25], [2.5, 7.25]])
  drawn = draw_mesh(points, FACES, 12) / SILHOUETTE_FULL
  # OpenCV adds up to half a fine pixel at each side.
  assert drawn.sum() == pytest.approx(6.5 * 4.25, rel=0.1)
  np.testing.assert_allclose(drawn[3:7, 3:9], 1, atol=1e-6)
  assert drawn[:2].max() == drawn[:, :2].max() == drawn[8:].max() == 0
  beyond = draw_mesh(np.array([[0.0, 0], [1e9, 0], [0, 1e9], [-5, -5]]), FACES, 12)
  assert not beyond.any()


@pytest.mark.parametrize('labels', ['3d', '2d'])
def test_batches_have_silhouettes_where_the_loss_asks_for_them(labels):
  model = make_toy_mano()
  source, config = DrawnSource(model, 4), get_config('toy')
  data = dataclasses.replace(config.data, labels=labels)
  loss = dataclasses.replace(config.loss, silhouette=1.0, silhouette_side=20)
  asking = dataclasses.replace(config, data=data, loss=loss)
  with training_batches(source, asking, 778, faces=model.faces) as batches:
    batch = next(batches)
  assert (batch.silhouette.shape, batch.silhouette.dtype) == ((4, 20, 20), np.uint8)
  assert batch.has_mask.all() == (labels == '3d')
  shown = batch.silhouette == SILHOUETTE_FULL
  assert 0.02 < shown.mean() < 0.6
  with evaluation_batches(source, asking, 778, faces=model.faces) as batches:
    assert next(batches).silhouette.shape == (4, 20, 20)
  quiet = dataclasses.replace(asking, loss=config.loss)
  with training_batches(source, quiet, 778, faces=model.faces) as batches:
    assert next(batches).silhouette is None
