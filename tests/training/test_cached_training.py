"""Training on cached features equals training on the frozen network, example by example."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.data import cached_rows
from hand_jax.data.augmentation import make_labels, make_row
from hand_jax.data.cached_rows import check_cached_features
from hand_jax.data.crop_features import crop_change
from hand_jax.data.pipeline import evaluation_batches, stack_rows, training_batches
from hand_jax.data.prepared import PreparedSource
from hand_jax.data.silhouettes import SilhouetteMaker
from hand_jax.mano.assets import load_mano_model
from hand_jax.models.backbone import normalize_image
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_network import create_network
from hand_jax.models.map_sampling import map_projection
from hand_jax.training import parallel
from hand_jax.training.camera_prior import load_camera_prior
from hand_jax.training.state import create_optimizer
from hand_jax.training.step import make_train_step
from hand_jax.training.warm_start import check_cached_backbone
from hand_jax.types import SILHOUETTE_FULL
from tests.drawn_hands import DrawnSource
from tests.drawn_variables import drawn_first_state, drawn_network
from tests.prepared_features import SETTINGS, landmark_backbone

pytestmark = pytest.mark.slow

OVERRIDES = [
  *('data.features=cached', 'model.image_size=224', 'training.batch_size=2'),
  *('model.backbone.name=hand_landmark', 'model.backbone.pretrained=hands'),
  *('optimizer.backbone_learning_rate_scale=0', f'data.crop_factor={SETTINGS.crop_factor}'),
  *('data.train_examples=0', 'data.upright=True', 'model.attention.self_layers=0'),
]

POINTS = ('landmarks', 'world_landmarks')


@pytest.fixture(scope='module')
def config(featured):
  return apply_overrides(get_config('toy'), [*OVERRIDES, f'data.data_dir={featured.data_dir}'])


@pytest.fixture(scope='module')
def source(featured):
  return PreparedSource('synthetic_hands', featured.data_dir, 'train')


@pytest.fixture(scope='module')
def batches(config, source):
  with training_batches(source, config, 778) as loader:
    return [next(loader) for _ in range(24)]


def rows_on_pictures(source, batch):
  """The rows of a cached batch by the way that decodes photos; the crop is told by its vector."""
  rows = []
  for place, index in enumerate(batch.global_index.tolist()):
    (_, stored), *_ = source.open_features([index])
    distances = np.abs(stored.vectors.astype(np.float32) - batch.features.global_feature[place])
    crop = int(distances.max(axis=1).argmin())
    assert distances[crop].max() == 0
    (example,) = source.load([index])
    change = crop_change(SETTINGS, index, crop, example)
    rows.append((crop, make_row(example, index, 224, SETTINGS.crop_factor, 778, change)))
  return rows


def test_labels_are_those_of_the_crop_whose_features_the_batch_holds(source, batches):
  crops = set()
  for batch in batches[:4]:
    assert batch.image.shape == (2, 224, 224, 3) and not batch.image.any()
    assert batch.hand_mask.shape == (2, 224, 224) and not batch.has_mask.any()
    assert batch.features.global_feature.dtype == np.float32
    rows = rows_on_pictures(source, batch)
    crops |= {crop for crop, _ in rows}
    expected = stack_rows([row for _, row in rows])
    for name in set(batch._fields) - {'image', 'hand_mask', 'has_mask', 'features'}:
      np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name), err_msg=name)
  assert crops == {0, 1}


def test_the_crop_is_drawn_anew_each_epoch_and_repeatably(config, source, batches):
  shown = {}
  for batch in batches:
    for index, vector in zip(
      batch.global_index.tolist(), batch.features.global_feature, strict=True
    ):
      shown.setdefault(index, set()).add(vector.tobytes())
  assert [len(vectors) for _, vectors in sorted(shown.items())] == [2, 2, 2]
  with training_batches(source, config, 778, position=3) as loader:
    jax.tree.map(np.testing.assert_array_equal, next(loader), batches[3])
  parts = []
  for host in range(2):
    with training_batches(source, config, 778, 0, host, 2) as loader:
      parts.append(next(loader))
  joined = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
  jax.tree.map(np.testing.assert_array_equal, joined, batches[0])


@pytest.mark.parametrize(('room', 'readings'), [(2**31, [6, 0]), (0, [6, 6])])
def test_rows_are_read_once_where_all_of_them_fit_in_memory(
  config, source, monkeypatch, room, readings
):
  monkeypatch.setattr(cached_rows, 'CACHE_BYTES', room)
  read, open_features = [], source.open_features
  monkeypatch.setattr(
    source, 'open_features', lambda indices, _: read.extend(indices) or open_features(indices)
  )
  made = cached_rows.CachedRows(source, config, 778)
  # Twenty epochs show both crops of the three examples.
  places = [(index, epoch) for epoch in range(20) for index in range(3)]
  first, counts = made.rows(places), [len(read)]
  again = made.rows(places)
  assert [*counts, len(read) - counts[0]] == readings
  jax.tree.map(np.testing.assert_array_equal, first, again)


def test_the_bytes_of_a_row_leave_out_its_repeated_pixel(config, source):
  (row,) = cached_rows.CachedRows(source, config, 778).rows([(0, 0)])
  # Floats of vertices, their colours and the pooled vector are most of it.
  floats = 2 * 778 * 3 + 1152
  assert 4 * floats < cached_rows.held_bytes(row) < 4 * floats + 4000


def test_features_are_sharded_and_2d_labels_stay_2d(config, source, batches):
  sharded = parallel.shard_batch(batches[0])
  assert sharded.features.global_feature.shape == (2, 1, 1152)
  assert sharded.features.landmarks.shape == (2, 1, 21, 3)
  weak = dataclasses.replace(config, data=dataclasses.replace(config.data, labels='2d'))
  with training_batches(source, weak, 778) as loader:
    batch = next(loader)
  assert not batch.has_3d.any() and not batch.camera_mask[:, :6].any()
  np.testing.assert_array_equal(batch.joints_normalized, batches[0].joints_normalized)


def test_silhouettes_are_those_of_the_stored_crops(config, source):
  model = load_mano_model()
  loss = dataclasses.replace(config.loss, silhouette=1.0, silhouette_side=40)
  asking = dataclasses.replace(config, loss=loss)
  maker = SilhouetteMaker(40, model.faces)
  for labels in ('3d', '2d'):
    data = dataclasses.replace(config.data, labels=labels)
    with training_batches(
      source, dataclasses.replace(asking, data=data), 778, faces=model.faces
    ) as loader:
      batch = next(loader)
    for place, (crop, _) in enumerate(rows_on_pictures(source, batch)):
      index = int(batch.global_index[place])
      (example,) = source.load([index])
      change = crop_change(SETTINGS, index, crop, example)
      _, placement = make_labels(example, index, 224, SETTINGS.crop_factor, 778, change)
      expected = maker(example, example.hand_mask, placement)
      assert 0.02 < (expected == SILHOUETTE_FULL).mean() < 0.9
      np.testing.assert_array_equal(batch.silhouette[place], expected)


def test_evaluation_takes_the_photos(config, source):
  with evaluation_batches(source, config, 778) as loader:
    *_, last = loader
  assert last.features is None and last.image[0].any()
  assert last.is_padding.tolist() == [False, True]


def half_precision(values):
  return values.astype(np.float16).astype(np.float32)


def with_bundled_backbone(state, config):
  """Puts the bundled weights where the config asks for them."""
  if config.model.backbone.pretrained == 'none':
    return state
  bundled = load_bundled_parameters(config.model.backbone.name)['params']
  chex.assert_trees_all_equal_shapes_and_dtypes(bundled, state.params['backbone'])
  return state.replace(params={**state.params, 'backbone': jax.device_put(bundled)})


def make_step(config, model):
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = with_bundled_backbone(drawn_first_state(config, network, optimizer, model), config)
  return network, state, jax.jit(make_train_step(config, network, optimizer))


def assert_same_step(made, expected, tolerance):
  """Metrics, and the gradients of the heads, which Adam's first moments hold in tenths."""
  made, expected = jax.device_get((made, expected))
  for name, value in expected[1].items():
    error = np.abs(made[1][name] - value)
    assert error <= tolerance * (1 + np.abs(value)), name
  moments, others = (
    next(part for part in state.opt_state if hasattr(part, 'mu')).mu
    for state in (made[0], expected[0])
  )
  scale = float(max(np.abs(leaf).max() for leaf in jax.tree.leaves(others)))
  assert scale > 1e-4
  chex.assert_trees_all_close(moments, others, atol=10 * tolerance * scale)


def test_a_step_on_cached_features_is_that_on_the_networks_own(config, source, batches, toy_model):
  """The stored vector is in half precision, of which the second tolerance speaks."""
  _, state, step = make_step(config, toy_model)
  cached = batches[0]._replace(example_id=None)
  crops = np.stack([row.image for _, row in rows_on_pictures(source, cached)])
  own = landmark_backbone()(crops)
  own = own._replace(shallow_map=None, last_map=None, middle_map=None)
  rounded = own.global_feature.astype(np.float16).astype(np.float32)
  made = step(state, cached, toy_model)
  for vector, tolerance in ((rounded, 1e-4), (own.global_feature, 5e-4)):
    computed = cached._replace(features=own._replace(global_feature=vector))
    assert_same_step(made, step(state, computed, toy_model), tolerance)
  # Without any map they have the form of stored ones. A second compilation would take long.
  assert step._cache_size() == 1
  made, state = jax.device_get((made, state))
  # The heads have moved. The backbone is the bundled one, and the optimizer keeps nothing of it.
  moments = next(part for part in made[0].opt_state if hasattr(part, 'mu')).mu
  assert set(moments) == set(state.params) - {'backbone'}
  chex.assert_trees_all_equal(made[0].params['backbone'], state.params['backbone'])
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), made[0].params, state.params)
  assert max(jax.tree.leaves(moved['camera_model'])) > 1e-5
  check_cached_backbone(config, made[0])
  learned = jax.tree.map(lambda leaf: leaf + 1e-3, state.params['backbone'])
  with pytest.raises(ValueError, match='has trained it further'):
    check_cached_backbone(config, state.replace(params={**state.params, 'backbone': learned}))


def test_sampled_features_of_the_photo_are_the_stored_ones(config, source, model):
  """Evaluation runs the network on the photo and reduces its maps. Training reads stored ones."""
  texts = ['model.attention.image_features=sampled', 'model.attention.rounds=1']
  texts += [f'model.attention.map_channels={SETTINGS.maps}', 'model.vertex_offset_from=prior']
  sampled = apply_overrides(config, texts)
  with training_batches(source, sampled, len(model.v_template)) as loader:
    cached = next(loader)
  stored = cached.features
  network = create_network(sampled)
  variables = drawn_network(network, model)
  variables['params']['backbone'] = load_bundled_parameters('hand_landmark')['params']
  # An untrained head's offsets are too small to tell.
  head = variables['params']['vertex_regressor']['mean']
  head['kernel'] = 30 * head['kernel']
  crops = np.stack([row.image for _, row in rows_on_pictures(source, cached)])

  @jax.jit
  def vertices(images, features):
    estimate = network.apply(variables, images, model, False, features=features)
    return estimate.posterior.vertices.mean

  unused = np.zeros_like(crops, np.float32)
  expected = np.asarray(vertices(unused, stored))
  # Half precision apart, the two are the same.
  own = landmark_backbone()(crops)
  maps = tuple(
    half_precision(found @ map_projection(found.shape[-1], SETTINGS.maps, 0))
    for found in (own.last_map, own.middle_map)
  )
  rounded = own._replace(
    global_feature=half_precision(own.global_feature),
    reduced_maps=maps,
    **dict.fromkeys(('shallow_map', 'last_map', 'middle_map')),
  )
  np.testing.assert_allclose(vertices(unused, rounded), expected, atol=1e-5)
  of_photo = vertices(normalize_image(crops, 'hand_landmark'), None)
  np.testing.assert_allclose(of_photo, expected, atol=1e-4)
  # Each of the stored parts counts for much more than that.
  swapped = [stored._replace(**{name: getattr(stored, name)[::-1]}) for name in POINTS]
  last, middle = stored.reduced_maps
  swapped += [
    stored._replace(reduced_maps=maps) for maps in ((last[::-1], middle), (last, middle[::-1]))
  ]
  for number, other in enumerate(swapped):
    assert np.abs(vertices(unused, other) - expected).max() > 5e-4, f'part {number}'


def test_maps_of_other_channels_are_refused(config, source):
  texts = ['model.attention.image_features=sampled', 'model.attention.map_channels=4']
  texts.append('model.vertex_offset_from=prior')
  with pytest.raises(
    ValueError, match=r'maps of 5 channels, this run samples 4: set .*_channels=5'
  ):
    check_cached_features(source, apply_overrides(config, texts))


def test_a_frozen_backbones_step_on_pictures_is_that_on_its_features(toy_model):
  """With a small backbone and the prior-net alone: the step itself is the same for all."""
  texts = ['optimizer.backbone_learning_rate_scale=0', 'model.backbone.batch_norm=frozen']
  texts += ['training.batch_size=2', 'model.image_size=32']
  config = apply_overrides(get_config('toy_prior_weak'), texts)
  network, state, step = make_step(config, toy_model)
  with training_batches(DrawnSource(toy_model, 2), config, 778) as loader:
    pictures = next(loader)._replace(example_id=None)
  images = normalize_image(pictures.image, 'tiny')
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  compute = jax.jit(lambda images: network.bind(variables).backbone(images, False))
  features = compute(images)._replace(shallow_map=None)
  known = pictures._replace(image=np.zeros_like(pictures.image), features=features)
  made, expected = step(state, pictures, toy_model), step(state, known, toy_model)
  assert_same_step(made, expected, 1e-6)
  chex.assert_trees_all_equal(made[0].params['backbone'], state.params['backbone'])


def test_sources_without_these_features_are_refused(config, source, toy_model):
  other = dataclasses.replace(config, data=dataclasses.replace(config.data, crop_factor=1.4))
  with pytest.raises(ValueError, match=r'crops of 1\.7 times the box, this run asks for 1\.4: set'):
    check_cached_features(source, other)
  lying = dataclasses.replace(config, data=dataclasses.replace(config.data, upright=False))
  with pytest.raises(
    ValueError, match=r'crops of upright hands, .* lie .*: set data\.upright=True'
  ):
    check_cached_features(source, lying)
  with pytest.raises(ValueError, match=r'holds no features\. Prepare it .* --with_features'):
    training_batches(DrawnSource(toy_model, 2), config, 778)


def test_a_camera_prior_of_pictures_is_refused(config, tmp_path, monkeypatch):
  weak = get_config('toy_weak')
  cached = dataclasses.replace(
    weak,
    data=config.data,
    model=dataclasses.replace(weak.model, image_size=224),
    training=dataclasses.replace(weak.training, camera_prior='prior_run'),
  )
  shown = dataclasses.replace(cached, data=dataclasses.replace(cached.data, features='none'))
  from hand_jax.training import camera_prior

  prior = camera_prior.CameraPrior(shown, {}, None)
  monkeypatch.setattr(camera_prior, '_take', lambda workdir: prior)
  with pytest.raises(ValueError, match='trained on pictures, and a run with'):
    load_camera_prior(str(tmp_path), cached)
