"""The training step and its state: learning, repeatability, one device against two, all configs."""

import dataclasses

import chex
import jax
import numpy as np
import optax
import pytest

from experiments.configs.names import get_config
from hand_jax.config import OptimizerConfig
from hand_jax.config_text import apply_overrides
from hand_jax.data.pipeline import training_batches
from hand_jax.models import backbone
from hand_jax.models.hand_network import create_network
from hand_jax.runs.train_state import state_variables
from hand_jax.training import parallel
from hand_jax.training.objective import term_weights
from hand_jax.training.parts import check_batch_size
from hand_jax.training.state import (
  backbone_mask,
  count_parameters,
  create_optimizer,
  create_train_state,
  decay_mask,
  learning_rate_schedule,
)
from hand_jax.training.step import make_eval_step, make_train_step
from tests.drawn_hands import DrawnSource
from tests.toy_runs import expected_terms

pytestmark = pytest.mark.slow

STEPS = 24


@pytest.fixture(scope='module')
def config():
  return apply_overrides(
    get_config('toy'),
    [
      *('optimizer.learning_rate=1e-2', 'optimizer.warmup_steps=0'),
      # As small as all parts allow, since most of the time goes into compiling the steps.
      *(f'training.num_steps={STEPS}', 'model.image_size=32', 'model.attention.self_layers=0'),
    ],
  )


def test_a_tiny_batch_is_learnt(run):
  totals = np.array([values['total'] for values in run[2]])
  assert np.isfinite(totals).all()
  assert totals[-3:].mean() < 0.35 * totals[0]


def test_metrics_are_every_loss_term_by_name_and_their_weighted_total(run, config):
  values = run[2][0]
  weights = term_weights(config.loss)
  assert set(values) == {*weights, 'total', 'learning_rate', 'gradient_norm', 'skipped_steps'}
  assert all(np.shape(value) == () for value in values.values())
  total = 1e-3 * sum(weight * values[name] for name, weight in weights.items())
  np.testing.assert_allclose(values['total'], total, rtol=1e-5)


def test_the_step_counts_and_moves_everything_but_the_key(run):
  _, states, _ = run
  first, second = jax.device_get((states[0], states[1]))
  assert [int(state.step) for state in states] == list(range(STEPS + 1))
  np.testing.assert_array_equal(first.key, second.key)
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params, second.params)
  # The template tokens' and the camera's parts all learn; only dead units may stand still.
  assert np.mean(jax.tree.leaves(moved)) > 0.9
  statistics = jax.tree.map(
    lambda a, b: bool((a != b).any()), first.batch_stats, second.batch_stats
  )
  assert jax.tree.leaves(statistics) and all(jax.tree.leaves(statistics))


def test_a_step_repeats_bit_for_bit_and_is_compiled_once(run, toy_model, batch):
  step, states, metrics = run
  again, values = step(states[3], batch, toy_model)
  chex.assert_trees_all_equal(again, states[4])
  chex.assert_trees_all_equal(jax.device_get(values), metrics[3])
  assert step._cache_size() == 1


def test_the_seed_decides_the_first_state(toy_model):
  config = get_config('toy_prior_weak')
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)

  def first_state(seed):
    seeded = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
    return jax.device_get(create_train_state(seeded, create_network(seeded), optimizer, toy_model))

  state, other = first_state(0), first_state(1)
  drawn = [
    (a != b).any()
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True)
    if a.std() > 0  # the others start at a constant
  ]
  assert len(drawn) > 5 and all(drawn)
  assert (state.key != other.key).any()


@pytest.fixture(scope='module')
def mapped(config, toy_model, batch, parts):
  """Three steps of the run on two devices, each seeing half of the batch."""
  _, optimizer, state = parts
  network = create_network(config, axis_name=parallel.AXIS_NAME)
  step = parallel.map_train_step(make_train_step(config, network, optimizer))
  state, replicated_model = parallel.replicate(state), parallel.replicate(toy_model)
  metrics = []
  for _ in range(3):
    state, values = step(state, parallel.shard_batch(batch), replicated_model)
    metrics.append(parallel.unreplicate(values))
  return state, metrics, step


def test_two_devices_take_the_step_of_one(run, mapped):
  _, states, expected = run
  state, metrics, _ = mapped
  for values, reference in zip(metrics, expected, strict=False):
    for name, value in values.items():
      # Sums in another order; the steps amplify it.
      np.testing.assert_allclose(value, reference[name], rtol=2e-3, atol=1e-5, err_msg=name)
  statistics = parallel.unreplicate(state.batch_stats)
  chex.assert_trees_all_close(
    statistics, jax.device_get(states[3].batch_stats), rtol=1e-3, atol=1e-4
  )


def test_gradients_of_two_devices_are_those_of_one(run, mapped, parts):
  """Adam divides gradients by their size, so its first moment is what shows them."""
  _, states, _ = run

  def moments(state):
    return next(part for part in state.opt_state if isinstance(part, optax.ScaleByAdamState)).mu

  expected = jax.device_get(moments(states[3]))
  found = moments(parallel.unreplicate(mapped[0]))
  for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=3e-3 * np.abs(theirs).max() + 1e-7)


def test_replicas_stay_equal(mapped):
  for leaf in jax.tree.leaves(mapped[0]):
    first, second = (np.asarray(shard.data) for shard in leaf.addressable_shards)
    np.testing.assert_array_equal(first, second)


def test_a_batch_that_does_not_divide_over_devices_is_refused(batch):
  with pytest.raises(ValueError, match=r'number of devices \(2\), got 3'):
    check_batch_size(3)
  odd = jax.tree.map(lambda leaf: leaf[:3], batch)
  with pytest.raises(ValueError, match='3 examples on this host do not divide over 2'):
    parallel.shard_batch(odd)


def test_gather_undoes_sharding(batch):
  shards = parallel.shard_batch(batch)
  doubled = jax.pmap(lambda leaf: 2 * leaf)(shards.joints_hand)
  np.testing.assert_array_equal(parallel.gather(doubled), 2 * batch.joints_hand)


def test_nan_under_a_mask_changes_nothing(run, batch, toy_model):
  step, states, _ = run
  masked = batch._replace(
    has_3d=np.array([True, False, True, True]),
    camera_mask=batch.camera_mask & (np.arange(10) != 8)[None],
    joint_confidence=np.where(np.arange(21) == 4, 0, batch.joint_confidence).astype(np.float32),
  )
  dirty = jax.tree.map(np.copy, masked)
  dirty.vertices_hand[1], dirty.joints_hand[1] = np.nan, np.nan
  dirty.camera[:, 8] = np.nan
  dirty.joints_normalized[:, 4] = np.nan
  dirty.intrinsics[...], dirty.root_camera[...] = np.nan, np.nan
  clean_state, clean = step(states[0], masked, toy_model)
  dirty_state, values = step(states[0], dirty, toy_model)
  chex.assert_trees_all_equal(values, clean)
  chex.assert_trees_all_equal(dirty_state, clean_state)


@pytest.mark.parametrize('spoiled', ['image', 'label'])
def test_a_step_that_is_not_finite_changes_only_the_count(run, batch, toy_model, spoiled):
  """On one device; on two, of which one has the bad example, see `mapped`."""
  step, states, _ = run
  before = states[2].replace(params=jax.tree.map(lambda leaf: -leaf, states[2].params))
  bad = jax.tree.map(np.copy, batch)
  if spoiled == 'label':
    bad.joints_normalized[1, 3] = 1e25  # whose square overflows
  else:
    # A picture has no NaN, but a network that overflows has.
    scale = {
      'feature_norm': jax.tree.map(lambda leaf: leaf * np.inf, before.params['feature_norm'])
    }
    before = before.replace(params={**before.params, **scale})
  after, metrics = step(before, bad, toy_model)
  assert metrics['skipped_steps'] == 1 and not np.isfinite(metrics['total'])
  assert int(after.step) == int(before.step) + 1
  for ours, theirs in zip(
    *map(jax.tree.leaves, (after.replace(step=0), before.replace(step=0))), strict=True
  ):
    # Bytes, since NaN is no NaN's equal and -0 is 0's.
    assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
  assert run[2][0]['skipped_steps'] == 0


def test_the_logged_learning_rate_is_that_of_the_steps_that_were_not_skipped(run, batch, toy_model):
  step, states, metrics = run
  _, after_two_skipped = step(states[0].replace(step=states[2].step), batch, toy_model)
  assert after_two_skipped['learning_rate'] == metrics[0]['learning_rate']
  assert metrics[2]['learning_rate'] != metrics[0]['learning_rate']


def test_two_devices_skip_a_step_that_one_finds_not_finite(mapped, batch, toy_model):
  step = mapped[2]
  state = parallel.replicate(parallel.unreplicate(mapped[0]))
  expected = parallel.unreplicate(state)
  bad = jax.tree.map(np.copy, batch)
  bad.joints_normalized[3, 3] = 1e25
  after, metrics = step(state, parallel.shard_batch(bad), parallel.replicate(toy_model))
  assert parallel.unreplicate(metrics)['skipped_steps'] == 1
  for leaf in jax.tree.leaves(after):
    first, second = (np.asarray(shard.data) for shard in leaf.addressable_shards)
    np.testing.assert_array_equal(first, second)
  chex.assert_trees_all_equal(parallel.unreplicate(after).params, expected.params)
  chex.assert_trees_all_equal(parallel.unreplicate(after).batch_stats, expected.batch_stats)


def test_the_evaluation_step_is_repeatable_and_per_example(config, toy_model, batch, parts):
  network, _, state = parts
  step = jax.jit(make_eval_step(config, network))
  estimate, terms = step(state, batch, toy_model)
  assert all(term.shape == (4,) for term in terms.values())
  order = np.array([2, 0, 3, 1])
  _, shuffled = step(state, jax.tree.map(lambda leaf: leaf[order], batch), toy_model)
  for name, term in terms.items():
    np.testing.assert_allclose(shuffled[name], term[order], rtol=1e-4, atol=1e-5, err_msg=name)
  assert estimate.posterior.vertices.mean.shape == (4, *toy_model.v_template.shape)


# One of each backbone, kind of loss and attention. The others combine these, and tests/experiments
# takes steps with them at toy size.
FULL_SIZE = (
  'synthetic_supervised',
  'synthetic_supervised_texture',
  'synthetic_small_weak_learned_sigma',
  'hand_photos',
)


@pytest.mark.parametrize('name', FULL_SIZE)
def test_a_step_at_full_size_keeps_the_state_and_has_every_term(name, toy_model, monkeypatch):
  """Shapes alone. Each stage of a backbone has its first two blocks, which the others are like."""
  stages = backbone.RESNET50_STAGES
  monkeypatch.setattr(backbone, 'RESNET50_STAGES', tuple((2, width) for _, width in stages))
  stages = [row._replace(repeats=min(row.repeats, 2)) for row in backbone.EFFICIENTNET_STAGES]
  monkeypatch.setattr(backbone, 'EFFICIENTNET_STAGES', tuple(stages))
  config = get_config(name)
  # Drawn hands have pictures, no stored features.
  texts = ['training.batch_size=2', 'data.features=none']
  if config.model.backbone.pretrained == 'imagenet':
    texts.append('model.backbone.pretrained=none')  # whose weights are of all blocks
  config = apply_overrides(config, texts)
  network = create_network(config)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = jax.eval_shape(lambda: create_train_state(config, network, optimizer, toy_model))
  with training_batches(DrawnSource(toy_model, 2), config, len(toy_model.v_template)) as batches:
    batch = next(batches)._replace(example_id=None)
  # The camera prior of a weak run may be any run's camera model, so here its own.
  prior = (config, state_variables(state)) if config.loss.kind == 'elbo' else (None, None)
  step = make_train_step(config, network, optimizer, prior[0])
  after, metrics = jax.eval_shape(step, state, batch, toy_model, prior[1])
  chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
  assert expected_terms(config) <= set(metrics)
  assert sum(count_parameters(state.params).values()) > 5_000


def test_weights_of_norms_and_biases_do_not_decay():
  params = {
    'backbone': {
      'stem': {'kernel': np.ones((3, 3, 3, 4)), 'scale': np.ones(4), 'bias': np.ones(4)}
    },
    'head': {'kernel': np.ones((4, 2)), 'bias': np.ones((1, 2))},
  }
  optimizer = create_optimizer(
    OptimizerConfig(
      learning_rate=0.1,
      backbone_learning_rate_scale=0.25,
      warmup_steps=0,
      weight_decay=0.5,
      gradient_clip_norm=0.0,
    ),
    num_steps=10,
  )
  gradients = jax.tree.map(np.zeros_like, params)
  updates, _ = jax.jit(lambda: optimizer.update(gradients, optimizer.init(params), params))()
  # No gradient: what is left is decay, learning rate x weight decay, a quarter in the backbone.
  np.testing.assert_allclose(updates['head']['kernel'], -0.05, rtol=1e-6)
  np.testing.assert_allclose(updates['backbone']['stem']['kernel'], -0.0125, rtol=1e-6)
  for leaf in (updates['head']['bias'], *map(updates['backbone']['stem'].get, ('scale', 'bias'))):
    np.testing.assert_array_equal(leaf, 0)
  assert decay_mask(params)['head'] == {'kernel': True, 'bias': False}
  assert backbone_mask(params)['head'] == {'kernel': False, 'bias': False}


def test_the_clip_binds_on_every_step(config, run):
  """As the setting's words say: what it takes away is how the sizes of gradients differ."""
  norms = [metrics['gradient_norm'] for metrics in run[2]]
  assert len(norms) >= 10 and min(norms) > config.optimizer.gradient_clip_norm == 1


def test_gradients_are_clipped_together():
  config = OptimizerConfig(warmup_steps=0, weight_decay=0.0, gradient_clip_norm=1.0)
  shapes = {'a': (2, 2), 'b': (2, 1)}
  params = {name: {'kernel': np.zeros(shape, np.float32)} for name, shape in shapes.items()}
  gradients = {
    name: {'kernel': np.full(shapes[name], size, np.float32)}
    for name, size in (('a', 30), ('b', 40))
  }
  optimizer = create_optimizer(config, 10)
  _, opt_state = jax.jit(lambda: optimizer.update(gradients, optimizer.init(params), params))()
  adam = next(part for part in opt_state if isinstance(part, optax.ScaleByAdamState))
  norm = np.sqrt(4 * 30.0**2 + 2 * 40.0**2)
  np.testing.assert_allclose(adam.mu['a']['kernel'], 0.1 * 30 / norm, rtol=1e-5)
  np.testing.assert_allclose(adam.mu['b']['kernel'], 0.1 * 40 / norm, rtol=1e-5)


@pytest.mark.parametrize('warmup', [0, 1, 10])
def test_the_learning_rate_warms_up_and_falls_as_a_cosine(warmup):
  config = OptimizerConfig(learning_rate=2.0, warmup_steps=warmup, final_fraction=0.1)
  schedule = learning_rate_schedule(config, 110)
  rates = np.array([schedule(step) for step in range(111)])
  for step in range(warmup):
    np.testing.assert_allclose(rates[step], 2.0 * (step + 1) / warmup, rtol=1e-6)
  progress = np.arange(111 - warmup) / (110 - warmup)
  expected = 0.2 + 1.8 * 0.5 * (1 + np.cos(np.pi * progress))
  np.testing.assert_allclose(rates[warmup:], expected, rtol=1e-5)
