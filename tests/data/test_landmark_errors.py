"""Landmark errors of prepared examples: what they are, and training on those with small ones."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config import ExperimentConfig
from hand_jax.config_text import apply_overrides
from hand_jax.data import crop_features as stored_features
from hand_jax.data import landmark_errors as errors_module
from hand_jax.data.augmentation import make_row
from hand_jax.data.crop_features import CropFeatures, CropFeatureSettings, crop_change
from hand_jax.data.example_sources import create_source, create_training_source
from hand_jax.data.landmark_errors import (
  Selection,
  describe_selection,
  landmark_errors,
  read_errors_by_split,
  select_examples,
)
from hand_jax.data.pipeline import check_landmark_limit, training_batches
from hand_jax.data.prepared import PreparedSource
from hand_jax.preparing import feature_extraction
from hand_jax.preparing.data_sets import describe_prepared
from hand_jax.training import loop
from tests.prepared_features import FeaturedSet, prepare_featured

pytestmark = pytest.mark.usefixtures('no_progress_bars')

SETTINGS = CropFeatureSettings(crops=2, crop_factor=1.7)
# Of the two crops of each example, by split. Sums of powers of two: their means are exact.
CROP_ERRORS = {
  'train': [0.25, 0.5, 0.125, 0.0625, 0.25, 0.125],
  'validation': [np.nan, np.nan, 0.5, 0.5],
}
TRAIN_ERRORS = [0.375, 0.09375, 0.1875]
LIMIT = 0.1875  # keeps examples 1 and 2, so that both have other indices than in the split


def prepare_with(folder, model, crop_errors) -> FeaturedSet:
  """Drawn hands whose crops have these errors, and vectors by which one can tell them."""

  def fake_features(crops, settings):
    count = len(crops)
    points = np.zeros((count, 21, 3), np.float32)
    vectors = np.random.default_rng(count).normal(size=(count, 1152)).astype(np.float16)
    ones = np.ones(count, np.float32)
    return CropFeatures(vectors, points, points, ones, ones)

  by_size = {len(errors): np.array(errors, np.float32) for errors in crop_errors.values()}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(feature_extraction, 'landmark_features', fake_features)
    patch.setattr(feature_extraction, 'landmark_errors', lambda found, *_: by_size[len(found)])
    return prepare_featured(folder, model, crop_features=SETTINGS.as_manifest())


@pytest.fixture(scope='module')
def prepared(toy_model, tmp_path_factory) -> FeaturedSet:
  return prepare_with(tmp_path_factory.mktemp('errors'), toy_model, CROP_ERRORS)


class WithoutErrors(NamedTuple):
  """Data sets that hold none: without features, and as older versions prepared features."""

  plain: FeaturedSet
  older: FeaturedSet


@pytest.fixture(scope='module')
def without_errors(toy_model, tmp_path_factory) -> WithoutErrors:
  def arrays_before(settings):
    return {name: array for name, array in arrays(settings).items() if name != 'landmark_errors'}

  plain = prepare_featured(tmp_path_factory.mktemp('plain'), toy_model)
  arrays = stored_features.stored_arrays
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(stored_features, 'stored_arrays', arrays_before)
    older = prepare_with(tmp_path_factory.mktemp('older'), toy_model, CROP_ERRORS)
  return WithoutErrors(plain, older)


def limited(prepared: FeaturedSet, most: float, count: int = 0) -> PreparedSource:
  return PreparedSource('synthetic_hands', prepared.data_dir, 'train', count, most)


def ids(source) -> list[str]:
  return [example.example_id for example in source.load(range(len(source)))]


def config_for(prepared: FeaturedSet, *texts: str) -> ExperimentConfig:
  """The toy experiment on that data set, limited."""
  shared = [f'data.data_dir={prepared.data_dir}', f'data.max_landmark_error={LIMIT}']
  shared += ['data.train_examples=0', 'training.batch_size=2', 'training.validation_examples=2']
  return apply_overrides(get_config('toy'), [*shared, *texts])


CACHED = [
  *('data.features=cached', 'model.image_size=224', f'data.crop_factor={SETTINGS.crop_factor}'),
  *('model.backbone.name=hand_landmark', 'model.backbone.pretrained=hands'),
  *('optimizer.backbone_learning_rate_scale=0', 'data.upright=True'),
]


def test_an_error_is_a_share_of_half_the_larger_side_of_the_known_joints_box():
  joints = np.zeros((4, 21, 2), np.float32)
  joints[:, 0], joints[:, 1] = [-0.4, 0.1], [0.4, -0.1]  # a box of 0.8 x 0.2
  joints[1] = joints[0][:, ::-1]
  landmarks = joints + np.array([0.03, -0.04], np.float32)[None, None]
  joints[:, 2:4] = np.nan, 1e6
  landmarks[:, 20] += 0.4  # one of 19 known joints, far off
  confidence = np.ones((4, 21), np.float32)
  confidence[:, 2:4] = 0
  confidence[2, 1:] = 0  # one joint
  joints[3] = 0.25  # all in one place
  errors = landmark_errors(landmarks, joints, confidence)
  assert errors.dtype == np.float32
  far = np.hypot(0.43, 0.36)
  np.testing.assert_allclose(errors[:2], (18 * 0.05 + far) / 19 / 0.4, rtol=1e-5)
  assert np.isnan(errors[2:]).all()
  # The unit is the hand's size: a crop that shows it at half the size changes nothing.
  np.testing.assert_allclose(landmark_errors(landmarks / 2, joints / 2, confidence), errors)


@pytest.mark.parametrize('block', [1, 2, 64])
def test_errors_are_read_as_the_means_over_crops(prepared, monkeypatch, block):
  monkeypatch.setattr(errors_module, '_BLOCK', block)
  found = read_errors_by_split(prepared.prepared.folder)
  assert found['train'].tolist() == TRAIN_ERRORS
  np.testing.assert_array_equal(found['validation'], [np.nan, 0.5])
  _, (_, features) = limited(prepared, 0.0).open_features([0, 2])
  assert features.landmark_errors.tolist() == [0.25, 0.125]


def test_examples_up_to_the_limit_are_kept_in_order(prepared):
  assert ids(limited(prepared, 0.0)) == ['drawn-0', 'drawn-1', 'drawn-2']
  assert ids(limited(prepared, LIMIT)) == ['drawn-1', 'drawn-2']
  assert ids(limited(prepared, LIMIT - 1e-6)) == ['drawn-1']
  assert ids(limited(prepared, 9.0)) == ['drawn-0', 'drawn-1', 'drawn-2']
  assert ids(limited(prepared, LIMIT, count=1)) == ['drawn-1']
  assert ids(limited(prepared, LIMIT, count=7)) == ['drawn-1', 'drawn-2']
  # Of the validation examples one has no known error, and no limit keeps it.
  source = PreparedSource('synthetic_hands', prepared.data_dir, 'validation', 0, 9.0)
  assert ids(source) == ['drawn-1']


def test_cached_labels_are_those_of_the_kept_examples_own_crops(prepared):
  """The crops were drawn from numbers in the whole split, which are not the indices here."""
  config, whole = config_for(prepared, *CACHED), limited(prepared, 0.0)
  seen = set()
  with training_batches(create_training_source(config.data, 224), config, 778) as batches:
    for batch in [next(batches) for _ in range(16)]:
      assert sorted(batch.example_id.tolist()) == ['drawn-1', 'drawn-2']
      for place, example_id in enumerate(batch.example_id.tolist()):
        number = int(example_id.removeprefix('drawn-'))
        (example, features), *_ = whole.open_features([number])
        vectors = features.vectors.astype(np.float32)
        (crop,) = np.flatnonzero((vectors == batch.features.global_feature[place]).all(axis=1))
        change = crop_change(SETTINGS, number, int(crop), example)
        row = make_row(example, 0, 224, SETTINGS.crop_factor, 778, change)
        for name in ('joints_normalized', 'camera', 'vertices_hand', 'root_camera', 'is_left'):
          np.testing.assert_array_equal(getattr(batch, name)[place], getattr(row, name), name)
        seen.add((number, int(crop)))
  assert seen == {(1, 0), (1, 1), (2, 0), (2, 1)}


def test_photos_of_the_kept_examples_train_without_cached_features(prepared, toy_model):
  config = config_for(prepared)

  class Kept:
    """The kept examples as any other source gives them."""

    examples = limited(prepared, 0.0).load([1, 2])

    def __len__(self):
      return 2

    def load(self, indices):
      return [self.examples[index] for index in indices]

  free = dataclasses.replace(config, data=dataclasses.replace(config.data, max_landmark_error=0.0))
  source = create_training_source(config.data, 64)
  with (
    training_batches(source, config, 778) as ours,
    training_batches(Kept(), free, 778) as theirs,
  ):
    batch, expected = next(ours), next(theirs)
  for name in ('example_id', 'image', 'joints_normalized', 'vertices_hand'):
    np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name), err_msg=name)


def test_only_training_is_limited(prepared):
  config = config_for(prepared)
  assert len(create_training_source(config.data, 64)) == 2
  for split, count in (('train', 3), ('validation', 2)):
    source = create_source(config.data, split, 64)
    assert len(source) == count and source.selection is None
  first = dataclasses.replace(config.data, train_examples=1)
  assert ids(create_training_source(first, 64)) == ['drawn-1']
  message = r'data\.max_landmark_error=0\.1875, but .* selected with 0: .* create_training_source'
  with pytest.raises(ValueError, match=message):
    training_batches(create_source(config.data, 'train', 64), config, 778)
  check_landmark_limit(limited(prepared, LIMIT), config)
  with pytest.raises(ValueError, match=r'selected with 0\.25'):
    check_landmark_limit(limited(prepared, 0.25), config)


def test_a_limit_that_keeps_nothing_is_refused_with_the_smallest_error(prepared):
  with pytest.raises(ValueError, match=r'=0\.09 keeps none of the 3 examples of split') as caught:
    limited(prepared, 0.09)
  assert str(caught.value).endswith(': the smallest error there is 0.0938.')
  assert '\n' not in str(caught.value)
  assert len(limited(prepared, 0.0938)) == 1
  with pytest.raises(ValueError, match=r'the smallest error there is 0\.1235\.'):
    select_examples(np.array([0.12341, np.nan]), 0.1, 'a split')
  with pytest.raises(ValueError, match='none of them has two known joints'):
    select_examples(np.array([np.nan, np.nan]), 0.1, 'a split')


def test_data_sets_without_errors_are_read_but_not_limited(without_errors):
  plain, older = without_errors
  assert ids(limited(plain, 0.0)) == ids(limited(older, 0.0)) == ['drawn-0', 'drawn-1', 'drawn-2']
  (_, features), *_ = limited(older, 0.0).open_features([1])
  assert features.landmark_errors is None and features.vectors.shape == (2, 1152)
  with pytest.raises(ValueError, match=r'was prepared without features, .* --with_features') as one:
    limited(plain, LIMIT)
  with pytest.raises(ValueError, match=r'is an older version.* again with --with_features') as two:
    limited(older, LIMIT)
  for caught, folder in ((one, plain.prepared.folder), (two, older.prepared.folder)):
    assert str(folder) in str(caught.value) and '\n' not in str(caught.value)


def test_preparing_tells_the_errors_of_each_split(prepared, without_errors):
  *_, train, validation = describe_prepared(prepared.prepared, 1.0)
  assert train == (
    'train: the median of the landmark errors is 0.188; 33.3 % of the examples have at most 0.12.'
  )
  assert validation.endswith(
    'is 0.500; 0.0 % of the examples have at most 0.12; 1 without a known one.'
  )
  *_, last = describe_prepared(without_errors.older.prepared, 1.0)
  assert last.startswith('It holds no landmark errors')
  assert len(list(describe_prepared(without_errors.plain.prepared, 1.0))) == 1


def test_a_run_tells_how_many_examples_it_keeps(prepared, toy_model, tmp_path, capsys, monkeypatch):
  """The run is stopped before its first batch, when it has said what it will do."""

  class Stopped(Exception):
    pass

  sources = []

  def stop(source, *_):
    sources.append(source)
    raise Stopped

  monkeypatch.setattr(loop, 'training_batches', stop)
  with pytest.raises(Stopped):
    loop.train_and_evaluate(config_for(prepared), str(tmp_path / 'run'), toy_model)
  assert ids(sources[0]) == ['drawn-1', 'drawn-2']
  told = '2 of 3 examples have a landmark error of at most 0.1875; training takes these.'
  assert capsys.readouterr().out.count(told) == 1
  selection = Selection(np.arange(4812), 10_000, 0.12)
  assert describe_selection(selection, 1000) == (
    '4,812 of 10,000 examples have a landmark error of at most 0.12; training takes the first '
    '1,000 of these.'
  )
