"""Backbones: outside references, shapes, sizes, and how batch normalisation is treated."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.config import BackboneConfig
from hand_jax.models import backbone
from hand_jax.models.backbone import (
  create_backbone,
  display_image,
  load_backbone_variables,
  normalize_image,
)
from tests.backbone_states import (
  FIXTURES,
  backbone_shapes,
  filled_state,
  load_fixture,
  reference_image,
  write_safetensors,
)
from tests.drawn_variables import drawn_by
from tools.drawn_hand import draw_test_picture

# Published parameter counts less those of the classifiers.
PARAMETERS = {
  'resnet50': 25_557_032 - 2_049_000,
  'efficientnet_b0': 5_288_548 - 1_281_000,
  'efficientnet_lite0': 4_652_008 - 1_281_000,
}


def tiny_variables(**settings):
  module = create_backbone(BackboneConfig('tiny', **settings))
  images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 64, 64, 3)), jnp.float32)
  return module, drawn_by(module.init, images, False), images


def relative_error(actual, expected):
  return np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()


def features(config, variables):
  apply = jax.jit(create_backbone(config).apply, static_argnums=2)
  # One of two images says as much: test_evaluation_is_repeatable_and_per_example parts them.
  result = apply(variables, jnp.asarray(reference_image()[:1]), False)
  stem = np.asarray(result.shallow_map)[:, ::16, ::16].transpose(0, 3, 1, 2)
  return result.global_feature, stem


def first_image(name):
  return {key: array[:1] for key, array in load_fixture(name).items()}


@pytest.fixture(scope='module')
def hand_features():
  """The test picture, and what the backbone of the bundled weights makes of it."""
  config = BackboneConfig('hand_landmark', pretrained='hands')
  picture = draw_test_picture(224)
  variables = load_backbone_variables(config, backbone_shapes('hand_landmark'))
  apply = jax.jit(create_backbone(config).apply, static_argnums=2)
  return picture, apply(variables, normalize_image(picture, 'hand_landmark')[None], False)


@pytest.mark.slow
def test_the_landmark_networks_points_are_those_it_was_published_with(hand_features):
  """Its own runtime's, in pixels of 224 there and in [-1, 1] here."""
  with np.load(FIXTURES / 'hand_networks.npz') as arrays:
    published = arrays['hand_landmark/Identity'].reshape(21, 3)
  landmarks = np.asarray(hand_features[1].landmarks[0])
  expected = published / 112 - [[1, 1, 0]]
  np.testing.assert_allclose(landmarks, expected, atol=2e-5)
  assert np.abs(landmarks[:, :2]).max() < 1  # the drawn hand is inside its crop


def test_the_landmark_networks_vector_is_the_mean_of_its_last_map(hand_features):
  features = hand_features[1]
  assert features.last_map.shape == (1, 7, 7, 1152)
  np.testing.assert_allclose(features.global_feature, features.last_map.mean((1, 2)), atol=1e-5)
  assert 0.05 < float(features.global_feature.mean()) < 6


def test_the_landmark_network_has_no_batch_statistics():
  assert set(backbone_shapes('hand_landmark')) == {'params'}


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet50', 'efficientnet_b0'])
def test_features_match_torchvision(name, tmp_path):
  path = tmp_path / 'weights.safetensors'
  write_safetensors(path, filled_state(name))
  config = BackboneConfig(name, weights=str(path))
  global_feature, stem = features(config, load_backbone_variables(config, backbone_shapes(name)))
  expected = first_image(name)
  assert relative_error(stem, expected['stem_slice']) <= 1e-5
  assert relative_error(global_feature, expected['global_feature']) <= 1e-5


@pytest.mark.slow
def test_shipped_lite0_matches_its_reference():
  config = BackboneConfig('efficientnet_lite0', pretrained='imagenet')
  variables = load_backbone_variables(config, backbone_shapes('efficientnet_lite0'))
  global_feature, stem = features(config, variables)
  expected = first_image('efficientnet_lite0')
  # The reference program with the same rounded kernels: the network itself is exact.
  assert relative_error(global_feature, expected['global_feature_half']) <= 1e-5
  # With the full kernels: what rounding to 11 bits in some fifty layers makes (3.7e-3 measured).
  assert relative_error(global_feature, expected['global_feature']) <= 5e-3
  assert relative_error(stem, expected['stem_slice']) <= 2e-3


@pytest.mark.slow
@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_counts_are_the_published_ones(name):
  params = backbone_shapes(name)['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, side, channels, shallow',
  [
    ('resnet50', 224, 2048, (112, 112, 64)),  # the paper's Table 1
    ('efficientnet_b0', 224, 1280, (112, 112, 32)),
    ('efficientnet_lite0', 128, 1280, (64, 64, 32)),
    ('hand_landmark', 224, 1152, (112, 112, 16)),
    ('hand_landmark', 112, 1152, (56, 56, 16)),
    ('tiny', 64, 64, (32, 32, 16)),
  ],
)
@pytest.mark.parametrize('train', [False, True])
def test_feature_shapes(name, side, channels, shallow, train):
  module = create_backbone(BackboneConfig(name))
  result = jax.eval_shape(
    lambda variables, images: module.apply(variables, images, train, mutable=['batch_stats'])[0],
    backbone_shapes(name),
    jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32),
  )
  assert result.global_feature.shape == (2, channels)
  assert result.shallow_map.shape == (2, *shallow)
  assert result.global_feature.dtype == result.shallow_map.dtype == jnp.float32


def test_resnet_strides_where_v1_5_does():
  """In a stage's first block the 3x3 convolution halves the image, so 1x1 kernels see all of it."""
  module = create_backbone(BackboneConfig('resnet50'))
  _, intermediates = jax.eval_shape(
    lambda variables, images: module.apply(
      variables, images, False, capture_intermediates=True, mutable=['intermediates']
    ),
    backbone_shapes('resnet50'),
    jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),
  )
  block = intermediates['intermediates']['stage2_block0']
  assert block['reduce']['__call__'][0].shape == (1, 56, 56, 128)
  assert block['middle']['__call__'][0].shape == (1, 28, 28, 128)


@pytest.mark.slow
def test_training_updates_statistics_and_frozen_keeps_them():
  for mode, unchanged in (('train', False), ('frozen', True)):
    module, variables, images = tiny_variables(batch_norm=mode)
    apply = jax.jit(functools.partial(module.apply, mutable=['batch_stats']), static_argnums=2)
    _, updated = apply(variables, images, True)
    pairs = jax.tree.map(jnp.array_equal, updated['batch_stats'], variables['batch_stats'])
    assert all(bool(equal) == unchanged for equal in jax.tree.leaves(pairs))


@pytest.mark.slow
def test_evaluation_is_repeatable_and_per_example():
  module, variables, images = tiny_variables()
  apply = jax.jit(module.apply, static_argnums=2)
  once = apply(variables, images, False)
  chex.assert_trees_all_equal(once, apply(variables, images, False))
  alone = apply(variables, images[:1], False)
  np.testing.assert_allclose(alone.global_feature[0], once.global_feature[0], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_training_step_lowers_for_tpu(monkeypatch):
  """Of the first stage and of two blocks of the widest."""
  stages = backbone.EFFICIENTNET_STAGES
  monkeypatch.setattr(backbone, 'EFFICIENTNET_STAGES', (stages[0], stages[5]._replace(repeats=2)))
  module = create_backbone(BackboneConfig('efficientnet_lite0'))

  def loss(params, batch_stats, images):
    variables = {'params': params, 'batch_stats': batch_stats}
    result, updated = module.apply(variables, images, True, mutable=['batch_stats'])
    return result.global_feature.sum() + result.shallow_map.mean(), updated

  images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  variables = jax.eval_shape(lambda images: module.init(jax.random.key(0), images, False), images)
  step = jax.jit(jax.grad(loss, has_aux=True))
  traced = step.trace(variables['params'], variables['batch_stats'], images)
  text = traced.lower(lowering_platforms=('tpu',)).as_text()
  assert 'feature_group_count = 1152' in text  # depthwise, as one convolution


def test_images_are_normalised_as_each_backbone_learnt():
  image = np.array([[[0, 127, 255]]], np.uint8)
  lite = normalize_image(image, 'efficientnet_lite0')
  np.testing.assert_allclose(lite, [[[-127 / 128, 0, 1]]], rtol=1e-6)
  hands = normalize_image(image, 'hand_landmark')
  np.testing.assert_allclose(hands, [[[0, 127 / 255, 1]]], rtol=1e-6)
  expected = (np.array([0, 127, 255]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  batch = normalize_image(jnp.asarray(image)[None], 'resnet50')
  np.testing.assert_allclose(batch, expected[None, None, None], rtol=1e-5)


def test_without_pretrained_weights_variables_stay():
  _, variables, _ = tiny_variables()
  assert load_backbone_variables(BackboneConfig('tiny'), variables) is variables


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'name': 'resnet50', 'pretrained': 'imagenet'}, "for 'resnet50', only 'imagenet'"),
    ({'name': 'tiny', 'pretrained': 'hands'}, "no pretrained='hands' .* 'hands' for hand_landmark"),
    ({'name': 'hand_landmark', 'pretrained': 'imagenet'}, "for 'hand_landmark', only"),
    ({'name': 'efficientnet_lite0', 'pretrained': 'imagenet', 'weights': 'a.pth'}, 'keep one'),
  ],
)
def test_impossible_pretraining_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    load_backbone_variables(BackboneConfig(**settings), backbone_shapes(settings['name']))


def with_setting(config, name, value):
  """Past the type checks of the tests, as a configuration file would bring it."""
  object.__setattr__(config, name, value)
  return config


def test_unknown_settings_are_named():
  with pytest.raises(ValueError, match="unknown backbone 'vgg'; expected one of resnet50"):
    create_backbone(with_setting(BackboneConfig(), 'name', 'vgg'))
  with pytest.raises(ValueError, match="batch_norm is 'off'"):
    create_backbone(with_setting(BackboneConfig(), 'batch_norm', 'off'))


@pytest.mark.parametrize('name', ['resnet50', 'efficientnet_lite0', 'hand_landmark'])
def test_a_normalised_picture_is_turned_back(name):
  picture = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
  found = display_image(normalize_image(picture, name), name)
  np.testing.assert_allclose(found, picture / 255, atol=1e-6)
