"""Hands with known features, and their errors one by one: the same figures as from photos."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config import FEATURE_SIDE, BackboneConfig
from hand_jax.data.pipeline import evaluation_batches
from hand_jax.evaluation.evaluate import METRIC_NAMES, evaluate_batches, make_estimate_fn
from hand_jax.evaluation.featured_split import (
  cached_split,
  featured_split,
  make_features_fn,
)
from hand_jax.evaluation.hand_errors import (
  JOINTS_2D,
  measure_hands,
  read_hand_errors,
  write_hand_errors,
)
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.hand_network import create_network
from hand_jax.training.state import create_optimizer, create_train_state
from tests.drawn_hands import DrawnSource

pytestmark = pytest.mark.slow

HANDS = 5


@pytest.fixture(scope='module')
def config():
  toy = get_config('toy')
  model = dataclasses.replace(
    toy.model,
    image_size=FEATURE_SIDE,
    backbone=BackboneConfig(name='hand_landmark', pretrained='hands'),
    attention=dataclasses.replace(toy.model.attention, image_features='sampled', map_channels=3),
  )
  optimizer = dataclasses.replace(toy.optimizer, backbone_learning_rate_scale=0.0)
  return dataclasses.replace(toy, model=model, optimizer=optimizer)


@pytest.fixture(scope='module')
def source(model):
  return DrawnSource(model, HANDS, seed=4)


@pytest.fixture(scope='module')
def variables(config, model):
  """A network before its first step, whose AMVUR moves vertices all the same."""
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = create_train_state(config, create_network(config), optimizer, model)
  keys = iter(range(10**6))

  def stir(path, leaf):
    if 'backbone' in jax.tree_util.keystr(path):
      return np.asarray(leaf)
    return np.asarray(leaf) + 0.2 * np.random.default_rng(next(keys)).normal(size=leaf.shape)

  return {'params': jax.tree_util.tree_map_with_path(stir, state.params)} | (
    {'batch_stats': state.batch_stats} if state.batch_stats else {}
  )


@pytest.fixture(scope='module')
def split(source, config):
  return featured_split(source.load(range(HANDS)), config.data.crop_factor, 3)


@pytest.fixture(scope='module')
def errors(config, variables, model, split):
  estimate = make_features_fn(config, variables, model)
  return measure_hands(estimate, split, extended_joint_regressor(model))


def test_the_means_are_those_of_an_evaluation_on_photos(config, variables, model, source, errors):
  with evaluation_batches(source, config, len(model.v_template)) as batches:
    expected = evaluate_batches(
      make_estimate_fn(config, variables, model), batches, extended_joint_regressor(model)
    )
  assert set(errors.values) == {'prior', 'posterior'}
  for branch, figures in errors.values.items():
    assert set(figures) == {*METRIC_NAMES, JOINTS_2D}
    assert all(len(array) == HANDS for array in figures.values())
    for name in METRIC_NAMES:
      np.testing.assert_allclose(
        errors.mean(branch, name), expected[branch][name], rtol=1e-3, err_msg=name
      )
    np.testing.assert_allclose(
      errors.mean(branch, JOINTS_2D), expected['joints_2d'][f'{branch}_px'], rtol=1e-3
    )
  # The branches and the hands differ, so that a mix-up would show.
  assert abs(errors.mean('prior', 'pa_mpvpe_mm') - errors.mean('posterior', 'pa_mpvpe_mm')) > 0.1
  assert np.ptp(errors.values['posterior']['mpjpe_mm']) > 0.1
  assert list(errors.example_id) == [f'drawn-{index}' for index in range(HANDS)]


def test_without_meshes_joints_are_measured_alone(config, variables, model, source, split, errors):
  photos = [
    example._replace(vertices_camera=None, global_orient=None)
    for example in source.load(range(HANDS))
  ]
  found = featured_split(photos, config.data.crop_factor, 3)
  assert found.vertices_root is None
  measured = measure_hands(
    make_features_fn(config, variables, model), found, extended_joint_regressor(model)
  )
  for branch, figures in measured.values.items():
    assert set(figures) == {'mpjpe_mm', 'pa_mpjpe_mm', JOINTS_2D}
    assert measured.mean(branch, 'pa_mpvpe_mm') is None
    for name, array in figures.items():
      np.testing.assert_allclose(array, errors.values[branch][name], rtol=1e-6)


def test_a_kept_split_is_read_again_and_another_one_is_made(tmp_path, split):
  path, made = tmp_path / 'kept' / 'split.npz', []

  def make():
    made.append(1)
    return split

  first, second = (cached_split(path, 'hands one', make) for _ in range(2))
  assert len(made) == 1 and first is split
  assert jax.tree.structure(second) == jax.tree.structure(split)
  for kept, array in zip(jax.tree.leaves(second), jax.tree.leaves(split), strict=True):
    np.testing.assert_array_equal(kept, array)
  cached_split(path, 'hands two', make)
  assert len(made) == 2
  assert [file.name for file in path.parent.iterdir()] == ['split.npz']


def test_errors_survive_their_file(tmp_path, errors):
  path = tmp_path / 'errors' / 'test.npz'
  write_hand_errors(path, errors)
  found = read_hand_errors(path)
  np.testing.assert_array_equal(found.example_id, errors.example_id)
  for branch, figures in errors.values.items():
    assert found.values[branch].keys() == figures.keys()
    for name, array in figures.items():
      np.testing.assert_array_equal(found.values[branch][name], array)


def test_a_hand_has_the_same_features_in_any_batch(source, split, config):
  alone = featured_split(source.load([3]), config.data.crop_factor, 3).features
  for name in ('global_feature', 'landmarks', 'world_landmarks'):
    found, expected = getattr(alone, name)[0], getattr(split.features, name)[3]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  assert alone.shallow_map is None and alone.last_map is None
  assert [each.shape[1:] for each in alone.reduced_maps or ()] == [(7, 7, 3), (14, 14, 3)]


def test_what_cannot_be_measured_is_refused(source, config, variables, model):
  examples = source.load(range(2))
  with pytest.raises(ValueError, match='no example'):
    featured_split([], 1.4)
  with pytest.raises(ValueError, match=r'drawn-1.*camera axes'):
    featured_split([examples[0], examples[1]._replace(joints_camera=None)], 1.4)
  with pytest.raises(ValueError, match=r'drawn-0.*at least one in the photo'):
    featured_split([examples[0]._replace(joint_confidence=np.zeros(21))], 1.4)
  with pytest.raises(ValueError, match='Only some examples have meshes'):
    featured_split([examples[0], examples[1]._replace(vertices_camera=None)], 1.4)
  learning = dataclasses.replace(
    config, optimizer=dataclasses.replace(config.optimizer, backbone_learning_rate_scale=0.1)
  )
  with pytest.raises(ValueError, match=r'frozen hand_landmark.*scale=0\.1'):
    make_features_fn(learning, variables, model)
