"""Features in prepared data sets: those of just the crops that training sees, sizes, manifests."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from hand_jax.data.augmentation import make_row
from hand_jax.data.crop_features import (
  CropFeatureSettings,
  bytes_per_example,
  crop_change,
  settings_of_manifest,
)
from hand_jax.data.prepared import PreparedSource
from hand_jax.examples import HandExample, Skip, encode_example
from hand_jax.models.map_sampling import map_projection
from hand_jax.preparing import feature_extraction
from hand_jax.preparing.data_sets import (
  PrepareRequest,
  describe_prepared,
  refuse_idle_feature_flags,
)
from hand_jax.preparing.feature_extraction import with_crop_features
from tests.prepared_features import COUNTS, SETTINGS, landmark_backbone, prepare_featured

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('no_progress_bars')]

# The middle finger's base (joint 9) lies below the wrist.
UPSIDE_DOWN = HandExample(
  'upside down',
  np.zeros((20, 20, 3), np.uint8),
  'right',
  np.array([2.0, 2.0, 10.0, 10.0]),
  np.where(np.arange(21)[:, None] == 9, [5.0, 9.0], [5.0, 4.0]),
  np.ones(21),
)


def training_crops(source, indices):
  """The crops by `make_row`, as training without features makes them from the stored photos."""
  return [
    make_row(
      example, index, 224, SETTINGS.crop_factor, 778, crop_change(SETTINGS, index, crop, example)
    )
    for index, example in zip(indices, source.load(indices), strict=True)
    for crop in range(SETTINGS.crops)
  ]


@pytest.fixture(scope='module')
def train(featured):
  return PreparedSource('synthetic_hands', featured.data_dir, 'train')


def test_features_are_the_networks_on_the_crops_that_training_sees(train):
  indices = [0, 2]  # a left hand and a right one
  rows = training_crops(train, indices)
  expected = landmark_backbone()(np.stack([row.image for row in rows]))
  stored = [features for _, features in train.open_features(indices)]
  vectors = np.concatenate([features.vectors for features in stored])
  assert vectors.dtype == np.float16
  np.testing.assert_allclose(vectors, expected.global_feature, rtol=1e-3, atol=1e-4)
  landmarks = np.concatenate([features.landmarks for features in stored])
  np.testing.assert_allclose(landmarks, expected.landmarks, atol=1e-4)
  # The crops differ, or any of them would do.
  assert np.abs(np.diff(landmarks, axis=0)).max(axis=(1, 2)).min() > 0.02


def test_landmark_errors_are_distances_to_the_labels_by_half_the_hands_box(train):
  indices = [0, 1, 2]  # the first is a left hand
  rows = training_crops(train, indices)
  stored = [features for _, features in train.open_features(indices)]
  errors = np.concatenate([features.landmark_errors for features in stored])
  landmarks = np.concatenate([features.landmarks for features in stored])
  assert errors.dtype == np.float32 and errors.shape == (6,)
  for row, found, error in zip(rows, landmarks, errors, strict=True):
    # In pixels of the crop, joint by joint.
    pixels, labels = (found[:, :2] + 1) * 112, (row.joints_normalized + 1) * 112
    distances = [np.hypot(*(pixel - label)) for pixel, label in zip(pixels, labels, strict=True)]
    width, height = labels.max(axis=0) - labels.min(axis=0)
    np.testing.assert_allclose(error, 2 * np.mean(distances) / max(width, height), rtol=1e-4)


def test_outputs_are_the_networks_own_layers_on_the_vector(train):
  from hand_jax.models.bundled import load_bundled_parameters

  layers = load_bundled_parameters('hand_landmark')['params']
  (_, features), *_ = train.open_features([1])

  def linear(name):
    return features.vectors.astype(np.float32) @ np.asarray(layers[name]['kernel']) + np.asarray(
      layers[name]['bias']
    )

  # Half precision's 11 bits in the vector.
  np.testing.assert_allclose(
    features.world_points.reshape(2, 63), linear('world_landmarks'), atol=2e-4
  )
  for name in ('presence', 'right'):
    expected = 1 / (1 + np.exp(-linear(name)[:, 0]))
    np.testing.assert_allclose(getattr(features, name), expected, atol=5e-3)


def test_maps_are_projected_to_few_channels(train):
  rows = training_crops(train, [1])
  last_map = landmark_backbone()(np.stack([row.image for row in rows] * 2))[3][:2]
  (_, features), *_ = train.open_features([1])
  assert features.last_maps.shape == (2, 7, 7, 5) and features.last_maps.dtype == np.float16
  assert features.middle_maps.shape == (2, 14, 14, 5)
  expected = last_map @ map_projection(1152, 5, SETTINGS.projection_seed)
  np.testing.assert_allclose(features.last_maps, expected, rtol=2e-3, atol=2e-3)
  assert features.middle_maps.std() > 0.01


def test_crops_depend_on_seed_index_and_number_and_keep_their_ranges():
  settings = CropFeatureSettings(
    rotation_degrees=10.0, scale_fraction=0.2, shift_fraction=0.05, upright=False
  )
  draw = functools.partial(crop_change, example=UPSIDE_DOWN)
  assert draw(settings, 4, 1) == draw(settings, 4, 1)
  changes = [draw(settings, index, crop) for index in range(50) for crop in range(4)]
  assert len({change.rotation for change in changes}) == 200
  assert draw(dataclasses.replace(settings, seed=1), 0, 0) != changes[0]
  turns = np.rad2deg([change.rotation for change in changes])
  assert 9 < np.abs(turns).max() <= 10
  scales = np.array([change.scale for change in changes])
  assert 1 / 1.2 <= scales.min() < 0.87 and 1.15 < scales.max() <= 1.2
  assert 0.045 < np.abs([change.shift for change in changes]).max() <= 0.05
  # An upright crop is turned first. All else is drawn as before.
  upright = dataclasses.replace(settings, upright=True)
  for number, change in enumerate(changes):
    turned = draw(upright, number // 4, number % 4)
    assert abs(turned.rotation - change.rotation) == pytest.approx(np.pi)
    assert dataclasses.replace(turned, rotation=change.rotation) == change


def test_stored_crops_show_hands_upright_but_for_the_drawn_turn(train):
  """The first is a left hand: its mirrored picture is turned."""
  indices = [0, 1, 2]
  plain = dataclasses.replace(SETTINGS, upright=False)
  for index, (example, _) in zip(indices, train.open_features(indices), strict=True):
    for crop in range(SETTINGS.crops):
      change = train.stored_change(index, crop, example)
      drawn = crop_change(plain, index, crop, example).rotation
      x, y = make_row(example, 0, 224, 1.7, 778, change).joints_normalized[[9, 0]]
      direction = x - y
      # Clockwise as seen from straight up.
      angle = np.arctan2(direction[0], -direction[1])
      assert angle == pytest.approx(drawn, abs=1e-4)
      assert abs(drawn) > 1e-3


def test_manifests_without_the_setting_mean_crops_as_hands_lie():
  stated = CropFeatureSettings().as_manifest()
  assert settings_of_manifest({'settings': {'crop_features': stated}}).upright
  del stated['upright']
  assert not settings_of_manifest({'settings': {'crop_features': stated}}).upright


def test_skips_keep_their_places_and_take_no_number(toy_model, featured, monkeypatch):
  monkeypatch.setattr(feature_extraction, '_BATCH', 4)  # two examples a block
  asked = []

  def record_number(settings, index, crop, example):
    asked.append((index, crop))
    return crop_change(settings, index, crop, example)

  monkeypatch.setattr(feature_extraction, 'crop_change', record_number)
  monkeypatch.setattr(feature_extraction, 'landmark_features', fake_features)
  first, second, third = [encode_example(e) for e in featured.sources['train'].load([0, 1, 2])]
  records = [first, Skip('a', 'bad'), Skip('b', 'bad'), Skip('c', 'bad'), second, third]
  made = list(with_crop_features(records, SETTINGS))
  assert [isinstance(record, Skip) for record in made] == [False, True, True, True, False, False]
  assert asked == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
  # `fake_features` numbers the crops of each call.
  assert [record['feature_presence'].tolist() for record in (made[0], made[4], made[5])] == [
    [0, 1],
    [0, 1],
    [2, 3],
  ]


def fake_features(crops, settings):
  count = len(crops)
  return feature_extraction.CropFeatures(
    vectors=np.zeros((count, 1152), np.float16),
    landmarks=np.zeros((count, 21, 3), np.float32),
    world_points=np.zeros((count, 21, 3), np.float32),
    presence=np.arange(count, dtype=np.float32),
    right=np.zeros(count, np.float32),
    last_maps=np.zeros((count, 7, 7, 5), np.float16),
    middle_maps=np.zeros((count, 14, 14, 5), np.float16),
  )


def test_the_manifest_states_the_crops_and_the_hash_covers_the_features(
  featured, toy_model, tmp_path, monkeypatch
):
  manifest = json.loads((featured.prepared.folder / 'manifest.json').read_text())
  assert manifest['settings']['crop_features'] == dataclasses.asdict(SETTINGS)
  assert manifest['examples'] == COUNTS
  plain = prepare_featured(tmp_path / 'plain', toy_model)
  assert 'crop_features' not in plain.prepared.manifest['settings']
  assert plain.prepared.manifest['sha256']['train'] != manifest['sha256']['train']
  monkeypatch.setattr(feature_extraction, 'landmark_features', fake_features)
  settings = {'crop_features': SETTINGS.as_manifest()}
  other = prepare_featured(tmp_path / 'other', toy_model, **settings)
  assert other.prepared.manifest['sha256']['train'] != manifest['sha256']['train']
  source = PreparedSource('synthetic_hands', plain.data_dir, 'train')
  assert source.feature_settings is None and len(source.load([0, 1])) == 2
  with pytest.raises(ValueError, match='was prepared without features'):
    source.open_features([0])


def test_a_set_with_other_features_or_none_is_not_taken_for_the_one_asked(
  featured, toy_model, tmp_path
):
  more = dataclasses.replace(SETTINGS, crops=3).as_manifest()
  folder = featured.prepared.folder.parent.parent
  with pytest.raises(ValueError, match=r"was built with crop_features {.*'crops': 2"):
    prepare_featured(folder, toy_model, crop_features=more)
  plain = prepare_featured(tmp_path, toy_model)
  with pytest.raises(ValueError, match='was built with crop_features None instead of'):
    prepare_featured(tmp_path, toy_model, crop_features=more)
  assert plain.prepared.is_new


def test_sizes_are_told(featured):
  lines = list(describe_prepared(featured.prepared, 1.0))
  # 2 crops: 1152 halves, 2 x 63 + 3 floats, 5 x (49 + 196) halves.
  each = 2 * (2 * 1152 + 4 * (2 * 63 + 3) + 2 * 5 * 245)
  assert bytes_per_example(SETTINGS) == each == 10540
  assert 'Features of 2 crops each with maps of 5 channels: 10.5 kB per example, 0.1 MB' in lines[1]
  assert 'MB on disk' in lines[1]


def test_flags_become_settings():
  assert PrepareRequest('x').feature_settings() == {}
  request = PrepareRequest('x', with_features=True, feature_crops=3, feature_crop_factor=2.0)
  stated = request.feature_settings()['crop_features']
  assert CropFeatureSettings(**stated) == CropFeatureSettings(crops=3, crop_factor=2.0)
  refuse_idle_feature_flags(['feature_crops'], True)
  with pytest.raises(ValueError, match=r'--feature_crops describes .* needs --with_features'):
    refuse_idle_feature_flags(['seed', 'feature_crops'], False)
