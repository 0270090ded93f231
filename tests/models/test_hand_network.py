"""The joined network: Table 1's sizes, frames, conventions and repeatability."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs.names import EXPERIMENTS, get_config
from hand_jax.config_text import apply_overrides
from hand_jax.mano.model import regress_joints
from hand_jax.models import hand_network
from hand_jax.models.hand_network import CAMERA_MODULES, create_network, initialize_network
from hand_jax.models.vertex_regressor import positional_encoding
from hand_jax.types import HandParameters

pytestmark = pytest.mark.slow


IMAGES = jnp.asarray(np.random.default_rng(1).standard_normal((2, 64, 64, 3), np.float32))


def changed(config, **model_settings):
  return dataclasses.replace(config, model=dataclasses.replace(config.model, **model_settings))


@pytest.fixture(scope='module')
def learned_sigma(model):
  network = create_network(changed(get_config('toy'), prior_sigma='learned'))
  return network, initialize_network(network, jax.random.key(0), model)


@pytest.fixture(scope='module')
def toy(learned_sigma):
  """The network without a learned sigma. What else is drawn does not depend on that."""
  params = dict(learned_sigma[1]['params'])
  del params['prior_sigma']
  return create_network(get_config('toy')), {**learned_sigma[1], 'params': params}


@pytest.fixture(scope='module')
def compiled(toy, model):
  """The network's estimate by variables and images."""
  return jax.jit(lambda variables, images: toy[0].apply(variables, images, model, train=False))


@pytest.fixture(scope='module')
def estimate(compiled, toy):
  return compiled(toy[1], IMAGES)


def parameter_shapes(network, model):
  size = network.config.image_size
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return jax.eval_shape(
    lambda key, images: network.init(key, images, model, False), jax.random.key(0), images
  )


def test_table_1_sizes_of_the_full_experiment(model):
  config = get_config('synthetic_supervised')
  network = create_network(config)
  variables = parameter_shapes(network, model)
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  estimate, state = jax.eval_shape(
    lambda variables, images: network.apply(
      variables, images, model, False, capture_intermediates=True, mutable=['intermediates']
    ),
    variables,
    images,
  )
  features = state['intermediates']['backbone']['__call__'][0]
  assert features.shallow_map.shape == (1, 112, 112, 64)
  assert features.global_feature.shape == (1, 2048)
  params = variables['params']
  assert params['prior_net']['mlp']['output']['bias'].shape == (48,)  # 38 pose + 10 shape
  assert config.model.pose_components == 38
  assert params['vertex_regressor']['embedding']['kernel'].shape == (2051, 512)
  tokens = jax.eval_shape(
    positional_encoding,
    jax.ShapeDtypeStruct((799, 3), jnp.float32),
    jax.ShapeDtypeStruct((1, 2048), jnp.float32),
  )
  assert tokens.shape == (1, 799, 2051)
  cross = state['intermediates']['vertex_regressor']['cross_0']['__call__'][0]
  assert cross.shape == (1, 778, 512)
  assert estimate.camera.mean.shape == estimate.camera.log_variance.shape == (1, 10)
  for branch in (estimate.prior, estimate.posterior):
    assert branch.vertices.mean.shape == branch.vertices.log_variance.shape == (1, 778, 3)
    assert branch.joints.mean.shape == (1, 21, 3)
    assert branch.joints_normalized.mean.shape == (1, 21, 2)


def test_prior_mean_is_manos_hand_with_the_wrist_at_the_origin(estimate, model):
  assert isinstance(estimate.parameters, HandParameters)
  vertices = estimate.prior.vertices.mean[0]
  np.testing.assert_allclose(regress_joints(model, vertices)[0], 0, atol=1e-6)
  np.testing.assert_allclose(
    estimate.prior.joints.mean[0], regress_joints(model, vertices), atol=1e-5
  )


def test_prior_deviation_is_one_length_unit(toy, estimate):
  deviation = np.exp(np.asarray(estimate.prior.vertices.log_variance) / 2)
  np.testing.assert_allclose(deviation, toy[0].length_unit_m, rtol=1e-5)


def test_an_untrained_network_gives_a_hand(estimate):
  extent = np.ptp(np.asarray(estimate.posterior.vertices.mean[0]), axis=0)
  assert 0.12 < extent.max() < 0.25


def test_evaluation_repeats_and_examples_do_not_mix(toy, compiled, estimate):
  again = compiled(toy[1], IMAGES[::-1])
  np.testing.assert_allclose(
    again.posterior.vertices.mean[::-1], estimate.posterior.vertices.mean, atol=1e-5
  )


def test_training_changes_batch_statistics_only_when_they_are_trained(toy):
  _, variables = toy
  for mode, changes in (('train', True), ('frozen', False)):
    config = get_config('toy')
    backbone = dataclasses.replace(config.model.backbone, batch_norm=mode)
    network = create_network(changed(config, backbone=backbone))

    @jax.jit
    def statistics(variables, network=network):
      # The heads have no statistics, so the camera's alone does.
      _, state = network.apply(
        variables, IMAGES, True, mutable=['batch_stats'], method='estimate_camera'
      )
      return state['batch_stats']

    before = jax.tree.leaves(variables['batch_stats'])
    after = jax.tree.leaves(statistics(variables))
    assert len(before) == len(after) > 0
    moved = any(bool((a != b).any()) for a, b in zip(before, after, strict=True))
    assert moved == changes


def test_offset_from_the_prior_adds_to_its_mean(toy, compiled):
  network, variables = toy
  assert network.config.vertex_offset_from == 'prior'
  params = dict(variables['params'])
  head = params['vertex_regressor']['mean']
  params['vertex_regressor'] = {
    **params['vertex_regressor'],
    'mean': jax.tree.map(np.zeros_like, head),
  }
  estimate = compiled({**variables, 'params': params}, IMAGES)
  np.testing.assert_allclose(
    estimate.posterior.vertices.mean, estimate.prior.vertices.mean, atol=1e-7
  )


def camera_of(network):
  return jax.jit(functools.partial(network.apply, train=False, method='estimate_camera'))


def test_a_fresh_camera_is_as_sure_as_its_setting_says(toy, estimate):
  """Without training and without a parameter: an older run's numbers then mean the same again."""
  np.testing.assert_allclose(estimate.camera.log_variance, -5.5, atol=0.5)
  network = create_network(changed(get_config('toy'), camera_log_variance=0.0))
  unsure = camera_of(network)(toy[1], IMAGES)
  np.testing.assert_allclose(unsure.log_variance, 0, atol=0.5)
  np.testing.assert_array_equal(unsure.mean, estimate.camera.mean)
  # One head's outputs about either start, in numbers before the bound.
  raw = [8 * np.arctanh(np.asarray(each) / 8) for each in (unsure.log_variance, [[-5.5]])]
  expected = 8 * np.tanh((raw[0] + raw[1]) / 8)
  np.testing.assert_allclose(estimate.camera.log_variance, expected, atol=1e-4)


@pytest.fixture(scope='module')
def prior_sigma(learned_sigma, model):
  """The prior's deviation by variables, in length units, (2, V, 3)."""
  network, _ = learned_sigma
  apply = jax.jit(
    lambda variables: (
      network.apply(variables, IMAGES, model, train=False).prior.vertices.log_variance
    )
  )
  return lambda variables: np.exp(np.asarray(apply(variables)) / 2) / network.length_unit_m


def with_sigma_output(variables, **arrays):
  """Other values in the last layer of the sigma's head."""
  variables = jax.tree.map(np.asarray, variables)
  output = variables['params']['prior_sigma']['mlp']['output']
  output.update({name: np.full_like(output[name], value) for name, value in arrays.items()})
  return variables


def test_a_learned_prior_deviation_starts_near_one_and_follows_the_image(
  learned_sigma, prior_sigma
):
  _, variables = learned_sigma
  start = prior_sigma(variables)
  np.testing.assert_allclose(start, 1, atol=0.1)
  assert np.abs(start[0] - start[1]).max() > 1e-5
  unit = prior_sigma(with_sigma_output(variables, kernel=0.0, bias=0.0))
  np.testing.assert_allclose(unit, 1, rtol=1e-6)


def test_a_learned_prior_deviation_is_bounded_and_one_number_per_bone(
  learned_sigma, prior_sigma, model
):
  _, variables = learned_sigma
  for bias, log_variance in ((1e6, 6.0), (-1e6, -6.0)):
    sigma = prior_sigma(with_sigma_output(variables, kernel=0.0, bias=bias))
    np.testing.assert_allclose(sigma, np.exp(log_variance / 2), rtol=1e-4)
  raw = np.zeros((16, 3))
  raw[5, 1] = 2.0  # one axis of one bone
  variables = with_sigma_output(variables, kernel=0.0)
  variables['params']['prior_sigma']['mlp']['output']['bias'] = raw.ravel().astype(np.float32)
  found = 2 * np.log(prior_sigma(variables)[0])
  expected = np.asarray(model.lbs_weights)[:, 5] * 6 * np.tanh(2 / 6)
  np.testing.assert_allclose(found[:, 1], expected, atol=1e-4)
  np.testing.assert_allclose(found[:, [0, 2]], 0, atol=1e-4)


@pytest.mark.parametrize('branch, other', [('prior', 'posterior'), ('posterior', 'prior')])
def test_one_branch_alone_leaves_the_other_out(branch, other, toy, model):
  joint, joint_variables = toy
  network = create_network(
    changed(get_config('toy'), branches=branch, vertex_offset_from='template')
  )
  shapes = parameter_shapes(network, model)
  own = {'prior': 'prior_net', 'posterior': 'vertex_regressor'}
  assert set(shapes['params']) == {'backbone', 'feature_norm', 'camera_model', own[branch]}
  # The joint network's parameters fit by name; the camera needs the shared ones alone.
  variables = {
    collection: {name: tree for name, tree in parts.items() if name in shapes['params']}
    for collection, parts in joint_variables.items()
  }
  apply = jax.jit(network.apply, static_argnames='train')
  estimate = apply(variables, IMAGES, model, train=False)
  assert getattr(estimate, other) is None and getattr(estimate, branch) is not None
  assert (estimate.parameters is None) == (branch == 'posterior')
  shared = {
    collection: {name: tree for name, tree in parts.items() if name in CAMERA_MODULES}
    for collection, parts in joint_variables.items()
  }
  camera = camera_of(joint)(shared, IMAGES)
  np.testing.assert_array_equal(camera.mean, estimate.camera.mean)


HANDS = ['model.backbone.name=hand_landmark', 'model.backbone.pretrained=hands']


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_every_experiment_may_name_the_landmark_network(name):
  assert apply_overrides(get_config(name), HANDS).model.backbone.name == 'hand_landmark'


# Every branch, both textures, and AMVUR at full and at coarse size.
@pytest.mark.parametrize(
  'name',
  [
    'synthetic_supervised',
    'synthetic_small_weak_learned_sigma',
    'ho3d_v3_texture',
    'toy_prior_weak',
  ],
)
def test_networks_take_the_landmark_network(name, model):
  config = apply_overrides(get_config(name), HANDS)
  network = create_network(config)
  size = config.model.image_size
  mask = jnp.ones((1, size, size), bool)

  def estimate(key, images):
    if name != 'toy_prior_weak':  # One case shows that the bundled weights fit.
      return network.init_with_output(key, images, model, False, mask)[0]
    variables = initialize_network(network, key, model)
    return network.apply(variables, images, model, False, mask)

  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  result = jax.eval_shape(estimate, jax.random.key(0), images)
  assert result.camera.mean.shape == (1, 10)
  assert (result.vertex_colors is not None) == config.model.texture.enabled


def test_known_features_stand_for_the_backbone(toy, estimate, model):
  network, variables = toy
  features = jax.jit(lambda images: network.bind(variables).backbone(images, False))(IMAGES)
  # Compiled, since one operation at a time takes four times as long.
  apply = jax.jit(network.apply, static_argnames='train')
  known = apply(variables, IMAGES + 9, model, train=False, features=features)
  chex.assert_trees_all_close(known, estimate, rtol=1e-5, atol=1e-6)
  other = features._replace(global_feature=features.global_feature[..., ::-1])
  changed = apply(variables, IMAGES, model, train=False, features=other)
  assert np.abs(changed.camera.mean - estimate.camera.mean).max() > 1e-4


def test_a_pretrained_backbone_changes_nothing_else_in_what_is_drawn(toy, model, monkeypatch):
  network, drawn = toy
  backbone = dataclasses.replace(network.config.backbone, weights='some.pth')
  network = network.clone(config=dataclasses.replace(network.config, backbone=backbone))

  def load(config, shapes):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5, leaf.dtype), shapes)

  monkeypatch.setattr(hand_network, 'load_backbone_variables', load)
  started = initialize_network(network, jax.random.key(0), model)
  chex.assert_trees_all_equal_shapes_and_dtypes(started, drawn)
  for collection, parts in started.items():
    for name, tree in parts.items():
      expected = load(None, tree) if name == 'backbone' else drawn[collection][name]
      chex.assert_trees_all_equal(tree, expected)
