"""AMVUR on sampled image features in the whole network: parameters, gradients, rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.mano.model import regress_joints
from hand_jax.models.hand_network import create_network
from hand_jax.models.image_evidence import ImageEvidence
from hand_jax.models.vertex_regressor import VertexRegressor
from hand_jax.types import ImageFeatures
from tests.drawn_variables import drawn_by, drawn_network

pytestmark = pytest.mark.slow

SAMPLED = [
  *('model.attention.image_features=sampled', 'model.attention.map_channels=3'),
  'model.vertex_offset_from=prior',
]
IMAGES = jnp.asarray(np.random.default_rng(1).standard_normal((2, 64, 64, 3), np.float32))


def network_of(*texts):
  return create_network(apply_overrides(get_config('toy'), texts))


def estimate_of(network, variables, model):
  apply = jax.jit(network.apply, static_argnames='train')
  return apply(variables, IMAGES, model, train=False)


def sizes(network, model):
  return jax.tree.map(jnp.shape, drawn_network(network, model)['params'])


def test_global_features_add_no_parameters_and_sampled_ones_add_to_amvur_alone(model):
  before = sizes(network_of(), model)
  assert 'image_evidence' not in before and 'evidence' not in before['vertex_regressor']
  after = sizes(network_of(*SAMPLED), model)
  width = get_config('toy').model.attention.width
  # The tiny backbone has one map and no landmarks: place and samples.
  assert after['vertex_regressor'].pop('evidence') == {'kernel': (2 + 3, width)}
  assert after['image_evidence'] == {'reduce_map': {'kernel': (64, 3), 'bias': (3,)}}
  for head in ('mean', 'log_variance'):
    assert after['vertex_regressor'].pop(head)['kernel'] == (width + 5, 3)
    before['vertex_regressor'].pop(head)
  del after['image_evidence']
  assert after == before


# The base is the same for both features, and only sampled ones have another way to the prior-net.
@pytest.mark.parametrize('features, stopped', [('global', False), ('sampled', True)])
def test_a_stopped_base_keeps_the_posteriors_gradient_from_the_prior_net(model, features, stopped):
  texts = SAMPLED if features == 'sampled' else SAMPLED[2:]
  network = network_of(*texts, f'model.attention.stop_base_gradient={str(stopped).lower()}')
  variables = drawn_network(network, model)
  params = variables['params']
  # Every gradient of a module passes through one of these.
  biases = {
    'prior_net': params['prior_net']['mlp']['output'],
    'vertex_regressor': params['vertex_regressor']['mean'],
    'backbone': params['backbone']['head'],
  }

  @jax.jit
  @jax.grad
  def gradient(biases, branch):
    changed = jax.tree.map(lambda leaf: leaf, params)
    changed['prior_net']['mlp']['output']['bias'] = biases['prior_net']
    changed['vertex_regressor']['mean']['bias'] = biases['vertex_regressor']
    changed['backbone']['head']['bias'] = biases['backbone']
    estimate = network.apply({**variables, 'params': changed}, IMAGES, model, False)
    posterior, prior = (jnp.sum(b.vertices.mean**2) for b in (estimate.posterior, estimate.prior))
    return branch * posterior + (1 - branch) * prior

  start = {name: layer['bias'] for name, layer in biases.items()}
  of_prior, of_posterior = (jax.device_get(gradient(start, branch)) for branch in (0.0, 1.0))
  assert np.any(of_prior['prior_net'])
  assert np.any(of_posterior['prior_net']) != stopped
  assert np.any(of_posterior['vertex_regressor'])
  # The images still teach the backbone through AMVUR.
  assert np.any(of_posterior['backbone'])


def test_the_second_round_samples_at_the_first_ones_mesh(model):
  """The same parameters, applied by hand to the mesh that one round gives."""
  network = network_of(*SAMPLED)
  variables = drawn_network(network, model)
  # An untrained head's steps are too small to reach another pixel.
  head = variables['params']['vertex_regressor']['mean']
  head['kernel'] = 30 * head['kernel']
  once = estimate_of(network, variables, model)
  refining = network_of(*SAMPLED, 'model.attention.rounds=2')
  twice = estimate_of(refining, variables, model).posterior
  settings, params = network.config, variables['params']

  def steps(variables):
    bound = network.bind(variables)
    found = bound._features(IMAGES, False, None)
    evidence = ImageEvidence(settings).apply(
      {'params': params['image_evidence']},
      found,
      once.posterior.vertices.mean,
      once.camera.mean,
      model,
    )
    joints = regress_joints(model, model.v_template)
    regressor = VertexRegressor(
      settings.attention,
      network.length_unit_m,
      settings.min_log_variance,
      settings.max_log_variance,
    )
    return regressor.apply(
      {'params': params['vertex_regressor']},
      model.v_template - joints[:1],
      joints - joints[:1],
      found.global_feature,
      evidence,
    )

  offset, log_variance = jax.jit(steps)(variables)
  np.testing.assert_allclose(twice.vertices.mean, once.posterior.vertices.mean + offset, atol=1e-6)
  unit = 2 * np.log(network.length_unit_m)
  np.testing.assert_allclose(twice.vertices.log_variance, log_variance + unit, atol=1e-5)
  again = 2 * (once.posterior.vertices.mean - once.prior.vertices.mean) + once.prior.vertices.mean
  assert np.abs(np.asarray(twice.vertices.mean - again)).max() > 1e-5


def test_a_posterior_follows_where_joints_were_seen(model):
  """With landmarks: the photo's points at one finger change the estimate of the posterior alone."""
  texts = [
    *SAMPLED[:1],
    *SAMPLED[2:],
    'model.image_size=224',
    'model.backbone.name=hand_landmark',
    'model.attention.rounds=2',
  ]
  network = create_network(apply_overrides(get_config('toy'), texts))
  joints = regress_joints(model, model.v_template)[None]
  joints = joints - joints.mean(axis=1, keepdims=True)
  landmarks = joints * jnp.asarray([8.0, 8.0, 8.0])[None, None]

  def features_of(world):
    return ImageFeatures(jnp.ones((1, 1152)), None, landmarks, world_landmarks=world)

  images = jnp.zeros((1, 224, 224, 3))
  start = features_of(joints)
  variables = drawn_by(lambda key: network.init(key, images, model, False, features=start))
  apply = jax.jit(
    lambda features: network.apply(variables, images, model, False, features=features)
  )
  before, after = apply(start), apply(features_of(joints.at[:, 12].add(0.02)))
  np.testing.assert_array_equal(after.prior.vertices.mean, before.prior.vertices.mean)
  assert np.abs(after.posterior.vertices.mean - before.posterior.vertices.mean).max() > 1e-5
