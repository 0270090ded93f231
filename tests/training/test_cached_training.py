"""Training on cached features equals training on the frozen network, example by example."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.data.augmentation import make_row
from hand_jax.data.crop_features import crop_change
from hand_jax.data.pipeline import (
  check_cached_features,
  evaluation_batches,
  stack_rows,
  training_batches,
)
from hand_jax.data.prepared import PreparedSource
from hand_jax.models.hand_network import create_network
from hand_jax.training import parallel
from hand_jax.training.camera_prior import load_camera_prior
from hand_jax.training.state import create_optimizer, create_train_state
from hand_jax.training.step import make_train_step
from hand_jax.training.warm_start import check_cached_backbone
from tests.drawn_hands import DrawnSource
from tests.prepared_features import SETTINGS

OVERRIDES = [
  *('data.features=cached', 'model.image_size=224', 'training.batch_size=2'),
  *('model.backbone.name=hand_landmark', 'model.backbone.pretrained=hands'),
  *('optimizer.backbone_learning_rate_scale=0', f'data.crop_factor={SETTINGS.crop_factor}'),
  'data.train_examples=0',
]


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
    change = crop_change(SETTINGS, index, crop)
    (example,) = source.load([index])
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


def test_features_are_sharded_and_2d_labels_stay_2d(config, source, batches):
  sharded = parallel.shard_batch(batches[0])
  assert sharded.features.global_feature.shape == (2, 1, 1152)
  assert sharded.features.landmarks.shape == (2, 1, 21, 3)
  weak = dataclasses.replace(config, data=dataclasses.replace(config.data, labels='2d'))
  with training_batches(source, weak, 778) as loader:
    batch = next(loader)
  assert not batch.has_3d.any() and not batch.camera_mask[:, :6].any()
  np.testing.assert_array_equal(batch.joints_normalized, batches[0].joints_normalized)


def test_evaluation_takes_the_photos(config, source):
  with evaluation_batches(source, config, 778) as loader:
    *_, last = loader
  assert last.features is None and last.image[0].any()
  assert last.is_padding.tolist() == [False, True]


@pytest.mark.slow
def test_a_step_on_features_is_the_step_on_their_crops(config, source, batches, toy_model):
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = create_train_state(config, network, optimizer, toy_model)
  step = jax.jit(make_train_step(config, network, optimizer))
  cached = batches[0]._replace(example_id=None)
  pictures = [row for _, row in rows_on_pictures(source, cached)]
  pictures = stack_rows(pictures)._replace(example_id=None)
  assert pictures.features is None
  after, metrics = step(state, cached, toy_model)
  expected_after, expected = step(state, pictures, toy_model)
  # The stored vector is in half precision.
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
  # Adam's first moments are the (clipped) gradients, in tenths.
  (moments, others) = (
    next(part for part in made.opt_state if hasattr(part, 'mu')).mu
    for made in (after, expected_after)
  )
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(others))
  chex.assert_trees_all_close(moments, others, atol=1e-3 * float(scale))
  # The backbone is the bundled one still, and the heads have moved.
  chex.assert_trees_all_equal(after.params['backbone'], state.params['backbone'])
  chex.assert_trees_all_equal(expected_after.params['backbone'], state.params['backbone'])
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, state.params)
  assert max(jax.tree.leaves(moved['camera_model'])) > 1e-5
  check_cached_backbone(config, after)
  learned = jax.tree.map(lambda leaf: leaf + 1e-3, state.params['backbone'])
  with pytest.raises(ValueError, match='has learned since'):
    check_cached_backbone(config, state.replace(params={**state.params, 'backbone': learned}))


def test_sources_without_these_features_are_refused(config, source, toy_model):
  other = dataclasses.replace(config, data=dataclasses.replace(config.data, crop_factor=1.4))
  with pytest.raises(ValueError, match=r'crops of 1\.7 times the box, this run asks for 1\.4: set'):
    check_cached_features(source, other)
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
