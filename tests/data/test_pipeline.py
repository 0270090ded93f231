"""The batch iterators: every example where it should be, repeatable, resumable, sharded, padded."""

import dataclasses
import io
import threading

import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config import AugmentationConfig, ExperimentConfig
from hand_jax.data.example_sources import SyntheticSource, create_source
from hand_jax.data.pipeline import (
  BatchLoader,
  evaluation_batches,
  training_batches,
  training_slots,
)
from hand_jax.data.prepared import PreparedSource
from hand_jax.examples import decode_example, encode_example, example_features
from hand_jax.types import HandBatch
from tests.drawn_hands import DrawnSource
from tests.toy_mano import make_toy_mano

EXAMPLES = 6  # not a multiple of the batch size of 4


@pytest.fixture(scope='module')
def source():
  return DrawnSource(make_toy_mano(), EXAMPLES)


@pytest.fixture
def config() -> ExperimentConfig:
  return get_config('toy')


def with_training(config, **changes):
  return dataclasses.replace(config, training=dataclasses.replace(config.training, **changes))


def take(source, config, count, **kwargs):
  with training_batches(source, config, 778, **kwargs) as batches:
    return [next(batches) for _ in range(count)]


def assert_same(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def test_batches_have_the_declared_shapes_and_types(source, config):
  batch = take(source, config, 1)[0]
  size, side = config.training.batch_size, config.model.image_size
  expected = {
    'image': ((side, side, 3), np.uint8),
    'global_index': ((), np.int32),
    'is_left': ((), np.bool_),
    'vertices_hand': ((778, 3), np.float32),
    'joints_hand': ((21, 3), np.float32),
    'has_3d': ((), np.bool_),
    'joints_normalized': ((21, 2), np.float32),
    'joint_confidence': ((21,), np.float32),
    'camera': ((10,), np.float32),
    'camera_mask': ((10,), np.bool_),
    'intrinsics': ((3, 3), np.float32),
    'root_camera': ((3,), np.float32),
    'has_root': ((), np.bool_),
    'hand_mask': ((side, side), np.bool_),
    'has_mask': ((), np.bool_),
    'vertex_colors': ((778, 3), np.float32),
    'vertex_visible': ((778,), np.bool_),
    'has_vertex_colors': ((), np.bool_),
    'is_padding': ((), np.bool_),
  }
  assert set(expected) | {'example_id', 'features', 'silhouette'} == set(batch._fields)
  assert batch.features is None and batch.silhouette is None
  for field, (shape, dtype) in expected.items():
    value = getattr(batch, field)
    assert (value.shape, value.dtype) == ((size, *shape), dtype), field
  assert batch.example_id.tolist() == [f'drawn-{index}' for index in batch.global_index]


def test_training_is_repeatable_and_the_seed_matters(source, config):
  first, again = take(source, config, 3), take(source, config, 3)
  assert_same(first, again)
  other = take(source, with_training(config, seed=1), 3)
  assert any((a.image != b.image).any() for a, b in zip(first, other, strict=True))


def test_every_epoch_shows_every_example_once_in_a_new_order():
  orders = [[slot.index for slot in training_slots(3, 50, 50 * epoch, 50)] for epoch in range(3)]
  assert all(sorted(order) == list(range(50)) for order in orders)
  assert orders[0] != orders[1] != orders[2] != orders[0]
  assert all(slot.epoch == 1 for slot in training_slots(3, 50, 50, 50))


def test_noise_depends_on_epoch_and_index_not_on_the_batch(source, config):
  """The same stream cut into batches of 4 and of 2 holds the same pictures."""
  fours = take(source, config, 3)
  twos = take(source, with_training(config, batch_size=2), 6)
  np.testing.assert_array_equal(
    np.concatenate([batch.image for batch in fours]),
    np.concatenate([batch.image for batch in twos]),
  )
  # An example comes with other noise in the next epoch.
  images = {}
  for batch in fours:
    for index, image in zip(batch.global_index.tolist(), batch.image, strict=True):
      images.setdefault(index, []).append(image)
  repeated = [pair for pair in images.values() if len(pair) == 2]
  assert len(repeated) == EXAMPLES and all((a != b).any() for a, b in repeated)


@pytest.mark.slow
@pytest.mark.parametrize('position', [1, 2, 5])
def test_a_loader_continues_from_a_position(source, config, position):
  straight = take(source, config, position + 2)
  with training_batches(source, config, 778) as batches:
    for _ in range(position):
      next(batches)
    saved = batches.position  # batches made ahead do not count
  assert saved == position
  assert_same(take(source, config, 2, position=saved), straight[position:])


def test_hosts_share_a_batch(source, config):
  whole = take(source, config, 3)
  parts = [take(source, config, 3, host_index=host, host_count=2) for host in range(2)]
  for number, batch in enumerate(whole):
    halves = [part[number] for part in parts]
    joined = jax.tree.map(lambda *rows: np.concatenate(rows), *halves)
    assert_same(joined, batch)


def test_a_batch_that_does_not_divide_over_hosts_is_refused(source, config):
  with pytest.raises(ValueError, match=r'batch_size \(4\) .* number of hosts \(3\)'):
    training_batches(source, config, 778, host_count=3)


@pytest.mark.parametrize('hosts', [1, 2])
def test_evaluation_shows_every_example_once_and_pads(source, config, hosts):
  counted = []
  for host in range(hosts):
    with evaluation_batches(source, config, 778, host, hosts) as batches:
      for batch in batches:
        assert len(batch.image) == config.training.batch_size // hosts
        counted += batch.global_index[~batch.is_padding].tolist()
  assert sorted(counted) == list(range(EXAMPLES))


def test_evaluation_does_not_augment(source, config):
  with evaluation_batches(source, config, 778) as batches:
    batch = next(batches)
  plain = dataclasses.replace(
    config.data.augmentation,
    **dict.fromkeys(
      ('rotation_degrees', 'scale_fraction', 'shift_fraction', 'color_strength'), 0.0
    ),
  )
  still = dataclasses.replace(config, data=dataclasses.replace(config.data, augmentation=plain))
  shown = {}
  for training in take(source, still, 3):
    shown |= dict(zip(training.global_index.tolist(), training.image, strict=True))
  for index, image in zip(batch.global_index.tolist(), batch.image, strict=True):
    np.testing.assert_array_equal(image, shown[index])


@pytest.mark.slow
def test_batches_made_by_several_threads_are_in_order(source, config):
  single = take(source, config, 5)
  several = dataclasses.replace(config, data=dataclasses.replace(config.data, render_workers=3))
  assert_same(take(source, several, 5), single)


def numbered_batch(number: int) -> HandBatch:
  return HandBatch(*[number] * len(HandBatch._fields))


def test_closing_ends_the_threads():
  before = threading.active_count()
  with BatchLoader(numbered_batch, workers=3) as loader:
    assert [next(loader).image for _ in range(4)] == [0, 1, 2, 3]
    assert threading.active_count() > before
  assert threading.active_count() == before


def test_a_loader_of_a_given_length_ends():
  with BatchLoader(numbered_batch, num_batches=3) as loader:
    assert [batch.image for batch in loader] == [0, 1, 2]


@pytest.mark.parametrize('field', ['vertices_camera', 'joints_camera', 'global_orient'])
def test_a_bad_annotation_stops_with_its_example_and_field(source, config, field):
  class Broken(DrawnSource):
    def load(self, indices):
      examples = super().load(indices)
      bad = np.full_like(getattr(examples[-1], field), np.nan)
      return [*examples[:-1], examples[-1]._replace(**{field: bad})]

  broken = Broken(make_toy_mano(), EXAMPLES)
  with (
    training_batches(broken, config, 778) as batches,
    pytest.raises(ValueError, match=f"'drawn-[0-9]+': {field} is not finite"),
  ):
    next(batches)


@pytest.mark.slow
def test_rendered_examples_are_the_same_in_any_grouping_and_kept():
  source = SyntheticSource(seed=0, split='train', count=3, image_size=48)
  together = source.load([2, 0, 2])
  assert together[0] is together[2] is source.load([2])[0]
  alone = SyntheticSource(seed=0, split='train', count=3, image_size=48).load([2])[0]
  jax.tree.map(np.testing.assert_array_equal, alone, together[0])
  assert len(source) == 3


@pytest.mark.slow
def test_rendered_examples_have_vertex_labels_on_request(config):
  arguments = (config.data, 'train', 48, 2)
  plain, labelled = create_source(*arguments), create_source(*arguments, vertex_labels=True)
  (example,), (again,) = plain.load([1]), labelled.load([1])
  assert example.vertex_colors is None and example.vertex_visible is None
  assert again.vertex_colors.shape == (778, 3) and again.vertex_visible.shape == (778,)
  np.testing.assert_array_equal(again.image, example.image)
  for source, has_colors in ((plain, False), (labelled, True)):
    with evaluation_batches(source, config, 778) as batches:
      batch = next(batches)
    assert (batch.has_vertex_colors == has_colors).all()
    assert batch.vertex_visible.any() == has_colors


class ColoredSource(DrawnSource):
  """Drawn hands whose vertices have colours, half of them shown."""

  def load(self, indices):
    rng = np.random.default_rng(4)
    return [
      example._replace(
        vertex_visible=rng.uniform(size=778) > 0.5,
        vertex_colors=rng.uniform(size=(778, 3)).astype(np.float32),
      )
      for example in super().load(indices)
    ]


@pytest.fixture(scope='module')
def colored():
  return ColoredSource(make_toy_mano(), EXAMPLES)


@pytest.fixture(scope='module')
def drawn_hands(colored):
  """A builder of the data set 'drawn_hands'; its version 1.0.0 knows no colours of vertices."""
  import tensorflow_datasets as tfds

  class DrawnHands(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.1.0')

    def _fields(self, record):
      return {k: v for k, v in record.items() if self.version > '1.0.0' or k != 'vertex_colors'}

    def _info(self):
      features = tfds.features.FeaturesDict(self._fields(example_features()))
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      for example in colored.load(range(EXAMPLES)):
        yield example.example_id, self._fields(encode_example(example))

  return DrawnHands


@pytest.fixture(scope='module')
def prepared(tmp_path_factory, drawn_hands):
  """A folder that holds it, prepared as builders do."""
  folder = tmp_path_factory.mktemp('prepared')
  drawn_hands(data_dir=folder, file_format='array_record').download_and_prepare()
  return str(folder)


def test_sets_without_vertex_colors_are_read_until_there_is_a_newer_one(
  tmp_path, monkeypatch, drawn_hands, config
):
  for version, has_colors in (('1.0.0', False), ('1.1.0', True)):
    monkeypatch.setattr(drawn_hands, 'VERSION', version)
    drawn_hands(data_dir=tmp_path, file_format='array_record').download_and_prepare()
    source = PreparedSource('drawn_hands', str(tmp_path), 'train')
    assert all((e.vertex_colors is not None) == has_colors for e in source.load(range(EXAMPLES)))
    batch = take(source, config, 1)[0]
    assert (batch.has_vertex_colors == has_colors).all()
    assert np.isfinite(batch.vertex_colors).all()


def test_prepared_examples_are_those_that_were_encoded(prepared, colored):
  read = PreparedSource('drawn_hands', prepared, 'train')
  assert len(read) == EXAMPLES
  examples = read.load(range(EXAMPLES))
  originals = {example.example_id: example for example in colored.load(range(EXAMPLES))}
  assert {example.example_id for example in examples} == set(originals)
  for example in examples:
    original = originals[example.example_id]
    for field in original._fields:
      if field != 'image':
        np.testing.assert_array_equal(getattr(example, field), getattr(original, field))
    # JPEG at quality 95: the noise of small dots.
    difference = example.image.astype(int) - original.image
    assert np.abs(difference).mean() < 4


def test_prepared_examples_train(prepared, config):
  data = dataclasses.replace(config.data, dataset='drawn_hands', data_dir=prepared)
  source = create_source(data, 'train', image_size=64, count=5)
  assert len(source) == 5
  batches = take(source, dataclasses.replace(config, data=data), 2)
  assert len({*batches[0].example_id, *batches[1].example_id}) == 5


def test_records_are_read_as_tfds_reads_them(prepared):
  import tensorflow_datasets as tfds

  theirs = tfds.builder('drawn_hands', data_dir=prepared, try_gcs=False).as_data_source('train')
  ours = PreparedSource('drawn_hands', prepared, 'train').load(range(EXAMPLES))
  for record, example in zip(theirs, ours, strict=True):
    for value, expected in zip(example, decode_example(record), strict=True):
      np.testing.assert_array_equal(value, expected)
      assert np.asarray(value).dtype == np.asarray(expected).dtype


class Loaded:
  """Prepared examples as any other source gives them."""

  def __init__(self, examples):
    self._examples = examples

  def __len__(self):
    return len(self._examples)

  def load(self, indices):
    return [self._examples[index] for index in indices]


@pytest.fixture
def textured(config) -> ExperimentConfig:
  texture = dataclasses.replace(config.model.texture, enabled=True)
  return dataclasses.replace(config, model=dataclasses.replace(config.model, texture=texture))


@pytest.mark.slow
def test_prepared_batches_are_those_of_the_examples(prepared, textured):
  """Read lazily, by any number of threads, or loaded whole: the same content."""
  source = PreparedSource('drawn_hands', prepared, 'train')
  loaded = Loaded(source.load(range(EXAMPLES)))
  expected = take(loaded, textured, 4)
  for workers in (1, 3):
    data = dataclasses.replace(textured.data, render_workers=workers)
    assert_same(take(source, dataclasses.replace(textured, data=data), 4), expected)
  with (
    evaluation_batches(source, textured, 778) as ours,
    evaluation_batches(loaded, textured, 778) as theirs,
  ):
    assert_same(list(ours), list(theirs))


def test_training_without_texture_leaves_prepared_masks_out(prepared, config, textured):
  source = PreparedSource('drawn_hands', prepared, 'train')
  plain, full = take(source, config, 1)[0], take(source, textured, 1)[0]
  assert full.has_mask.all() and full.hand_mask.any()
  assert not plain.has_mask.any() and not plain.hand_mask.any()
  masks = ('hand_mask', 'has_mask')
  for field in set(plain._fields) - set(masks):
    np.testing.assert_array_equal(getattr(plain, field), getattr(full, field), err_msg=field)
  with evaluation_batches(source, config, 778) as batches:
    assert next(batches).has_mask.all()


@pytest.mark.parametrize(('field', 'word'), [('image', 'photo'), ('hand_mask', 'hand mask')])
def test_a_damaged_picture_stops_with_its_example(tmp_path, drawn_hands, textured, field, word):
  class Damaged(drawn_hands, skip_registration=True):
    name = 'damaged_hands'

    def _generate_examples(self):
      for name, record in super()._generate_examples():
        data = record[field].getvalue()
        cut = io.BytesIO(data[: len(data) // 2] if name == 'drawn-2' else data)
        yield name, record | {field: cut}

  Damaged(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  source = PreparedSource('damaged_hands', str(tmp_path), 'train')
  with (
    training_batches(source, textured, 778) as batches,
    pytest.raises(ValueError, match=f"Example 'drawn-2': the {word} cannot be decoded"),
  ):
    for _ in range(2):
      next(batches)


def test_an_absent_data_set_or_split_is_named(prepared, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"'drawn_hands' in .*prepare_dataset") as caught:
    PreparedSource('drawn_hands', str(tmp_path), 'train')
  assert '\n' not in str(caught.value)
  with pytest.raises(ValueError, match=r"no split 'test'; it has train\.$"):
    PreparedSource('drawn_hands', prepared, 'test')
  with pytest.raises(ValueError, match=r'Training needs one: .* --validation_fraction .* above 0'):
    PreparedSource('drawn_hands', prepared, 'validation')


def test_rendered_examples_have_the_hands_that_the_config_names(config, monkeypatch, colored):
  from hand_jax.synthetic import hands as synthetic

  asked, kinds = [], ('classic', 'broad', 'displaced')

  def render(seed, split, indices, image_size, with_vertex_labels, hands):
    asked.append((seed, split, indices, image_size, with_vertex_labels, hands))
    return colored.load(indices)

  monkeypatch.setattr(synthetic, 'render_examples', render)
  for hands in kinds:
    data = dataclasses.replace(config.data, hands=hands, seed=7, render_size=40)
    create_source(data, 'train', image_size=64, count=2).load([1])
  assert asked == [(7, 'train', [1], 40, False, hands) for hands in kinds]


def test_prepared_hands_of_another_sampler_are_not_trained_on(prepared, config, monkeypatch):
  source = PreparedSource('drawn_hands', prepared, 'train')
  assert source.hands is None  # photos, or drawings: nothing to compare
  take(source, config, 1)
  monkeypatch.setattr(PreparedSource, 'hands', 'broad')
  message = r"data\.hands='classic', but .* holds broad hands: set data\.hands=broad, or prepare it"
  with pytest.raises(ValueError, match=message):
    training_batches(source, config, 778)
  broad = dataclasses.replace(config, data=dataclasses.replace(config.data, hands='broad'))
  take(source, broad, 1)
  # Measuring a run on hands of other poses is what it is for.
  with evaluation_batches(source, config, 778) as batches:
    next(batches)


def test_a_rendered_split_needs_a_count(config):
  with pytest.raises(ValueError, match="'train' is rendered on the fly"):
    create_source(config.data, 'train', image_size=64)


def test_upright_crops_are_turned_by_the_labels_in_training_and_evaluation(source, config):
  data = dataclasses.replace(
    config.data, upright=True, augmentation=AugmentationConfig(0.0, 0.0, 0.0, 0.0)
  )
  upright = dataclasses.replace(config, data=data)

  def angles(batch):
    x, y = np.moveaxis(batch.joints_normalized[:, 9] - batch.joints_normalized[:, 0], -1, 0)
    return np.arctan2(x, -y)

  with (
    evaluation_batches(source, config, 778) as lying,
    evaluation_batches(source, upright, 778) as turned,
  ):
    for batch, other in zip(lying, turned, strict=True):
      assert np.abs(angles(batch)).max() > 0.05
      np.testing.assert_allclose(angles(other), 0, atol=1e-4)
      assert (batch.image != other.image).any()
      np.testing.assert_allclose(other.vertices_hand, batch.vertices_hand, atol=1e-6)
  (batch,) = take(source, upright, 1)
  np.testing.assert_allclose(angles(batch), 0, atol=1e-4)
  noisy = dataclasses.replace(upright, data=dataclasses.replace(config.data, upright=True))
  (batch,) = take(source, noisy, 1)
  widest = np.deg2rad(config.data.augmentation.rotation_degrees)
  found = np.abs(angles(batch))
  assert found.max() <= widest + 1e-4 and found.max() > 0.02
