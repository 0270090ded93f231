"""Gradients in parts of a batch: those of the whole batch, and what batch statistics do."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.models.backbone import normalize_image
from hand_jax.models.hand_network import create_network
from hand_jax.runs.train_state import state_variables
from hand_jax.training.parts import check_batch_size
from hand_jax.training.step import make_train_step

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def config():
  return apply_overrides(
    get_config('toy_prior_weak'),
    ['optimizer.warmup_steps=0', 'training.num_steps=9', 'data.train_examples=16'],
  )


def changed(config, **training):
  return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


def with_statistics(config, mode):
  backbone = dataclasses.replace(config.model.backbone, batch_norm=mode)
  return dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=backbone))


def take_step(config, parts, batch, model):
  _, optimizer, state = parts
  step = jax.jit(make_train_step(config, create_network(config), optimizer))
  return jax.device_get(step(state, batch, model))


def moments(state):
  return next(part for part in state.opt_state if isinstance(part, optax.ScaleByAdamState)).mu


def test_parts_give_the_step_of_the_large_batch(config, parts, batch, toy_model):
  frozen = with_statistics(config, 'frozen')
  whole, expected = take_step(frozen, parts, batch, toy_model)
  state, metrics = take_step(changed(frozen, accumulate_steps=4), parts, batch, toy_model)
  assert set(metrics) == set(expected)
  for name, value in metrics.items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
  for ours, theirs in zip(
    jax.tree.leaves(moments(state)), jax.tree.leaves(moments(whole)), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max() + 1e-9)
  jax.tree.map(np.testing.assert_array_equal, state.batch_stats, parts[2].batch_stats)
  assert int(state.step) == 1


def test_running_statistics_go_from_part_to_part(config, parts, batch, toy_model):
  """Forward passes over one half after the other, with the statistics that the first one left."""
  state, _ = take_step(changed(config, accumulate_steps=2), parts, batch, toy_model)
  network, _, before = parts
  images = normalize_image(batch.image, config.model.backbone.name)
  variables = state_variables(before)

  # One operation at a time would compile each of them.
  @jax.jit
  def left_by(variables, half):
    return network.apply(variables, half, toy_model, train=True, mutable=['batch_stats'])[1]

  for half in (images[:2], images[2:]):
    variables = {**variables, **left_by(variables, half)}
  for ours, theirs in zip(
    jax.tree.leaves(state.batch_stats), jax.tree.leaves(variables['batch_stats']), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_parts_that_do_not_divide_a_share_are_refused(config, parts, batch, toy_model):
  with pytest.raises(ValueError, match=r"should divide a device's share of the batch \(4 examp"):
    check_batch_size(8, accumulate_steps=3)
  with pytest.raises(ValueError, match=r'training.accumulate_steps=3 should divide'):
    take_step(changed(config, accumulate_steps=3), parts, batch, toy_model)
  with pytest.raises(ValueError, match=r'training.accumulate_steps should be positive, got 0'):
    apply_overrides(config, ['training.accumulate_steps=0'])
