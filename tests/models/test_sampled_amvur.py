"""AMVUR on sampled image features in the whole network: parameters, gradients, rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.mano.model import regress_joints
from hand_jax.models.hand_network import create_network, initialize_network
from hand_jax.models.image_evidence import ImageEvidence
from hand_jax.models.vertex_regressor import VertexRegressor
from hand_jax.types import ImageFeatures

pytestmark = pytest.mark.slow

SAMPLED = [
  *('model.attention.image_features=sampled', 'model.attention.map_channels=3'),
  'model.vertex_offset_from=prior',
]
IMAGES = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))


def network_of(model, *texts):
  network = create_network(apply_overrides(get_config('toy'), texts))
  return network, initialize_network(network, jax.random.key(0), model)


def estimate_of(network, variables, model):
  apply = jax.jit(network.apply, static_argnames='train')
  return apply(variables, IMAGES, model, train=False)


def sizes(variables):
  return jax.tree.map(jnp.shape, variables['params'])


def test_global_features_add_no_parameters_and_sampled_ones_add_to_amvur_alone(model):
  before = sizes(network_of(model)[1])
  assert 'image_evidence' not in before and 'evidence' not in before['vertex_regressor']
  after = sizes(network_of(model, *SAMPLED)[1])
  width = get_config('toy').model.attention.width
  # The tiny backbone has one map and no landmarks: place and samples.
  assert after['vertex_regressor'].pop('evidence') == {'kernel': (2 + 3, width)}
  assert after['image_evidence'] == {'reduce_map': {'kernel': (64, 3), 'bias': (3,)}}
  for head in ('mean', 'log_variance'):
    assert after['vertex_regressor'].pop(head)['kernel'] == (width + 5, 3)
    before['vertex_regressor'].pop(head)
  del after['image_evidence']
  assert after == before


@pytest.mark.parametrize('stopped', [False, True])
@pytest.mark.parametrize('features', ['global', 'sampled'])
def test_a_stopped_base_keeps_the_posteriors_gradient_from_the_prior_net(model, features, stopped):
  texts = SAMPLED if features == 'sampled' else SAMPLED[2:]
  texts = [*texts, f'model.attention.stop_base_gradient={str(stopped).lower()}']
  network, variables = network_of(model, *texts)

  @jax.jit
  @jax.grad
  def gradient(params, branch):
    estimate = network.apply({**variables, 'params': params}, IMAGES, model, False)
    posterior, prior = (jnp.sum(b.vertices.mean**2) for b in (estimate.posterior, estimate.prior))
    return branch * posterior + (1 - branch) * prior

  def largest(branch, module):
    of_module = gradient(variables['params'], branch)[module]
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(of_module))

  assert largest(0.0, 'prior_net') > 0
  assert (largest(1.0, 'prior_net') == 0) == stopped
  assert largest(1.0, 'vertex_regressor') > 0
  # The images still teach the backbone through AMVUR.
  assert largest(1.0, 'backbone') > 0


@pytest.mark.parametrize('base', ['prior', 'template'])
def test_the_second_round_samples_at_the_first_ones_mesh(model, base):
  """The same parameters, applied by hand to the mesh that one round gives."""
  texts = [*SAMPLED, f'model.vertex_offset_from={base}']
  network, variables = network_of(model, *texts)
  # An untrained head's steps are too small to reach another pixel.
  head = variables['params']['vertex_regressor']['mean']
  head['kernel'] = 30 * head['kernel']
  once = estimate_of(network, variables, model)
  twice = estimate_of(
    network_of(model, *texts, 'model.attention.rounds=2')[0], variables, model
  ).posterior
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
  variables = jax.jit(network.init, static_argnums=3)(
    jax.random.key(0), images, model, False, features=start
  )
  apply = jax.jit(
    lambda features: network.apply(variables, images, model, False, features=features)
  )
  before, after = apply(start), apply(features_of(joints.at[:, 12].add(0.02)))
  np.testing.assert_array_equal(after.prior.vertices.mean, before.prior.vertices.mean)
  assert np.abs(after.posterior.vertices.mean - before.posterior.vertices.mean).max() > 1e-5
