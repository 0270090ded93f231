"""The mesh against pmap: the same steps, states and estimates on two devices."""

import jax
import numpy as np
import optax
import pytest

from experiments.configs.names import get_config
from hand_jax.config_text import apply_overrides
from hand_jax.models.hand_network import create_network
from hand_jax.training import parallel
from hand_jax.training.placement import create_placements
from hand_jax.training.step import make_eval_step, make_train_step

pytestmark = pytest.mark.slow

STEPS = 2


@pytest.fixture(scope='module')
def config():
  # Both branches, as small as they can be: most of the time goes into compiling the steps.
  small = ['model.attention.self_layers=0', 'optimizer.warmup_steps=0', 'training.num_steps=24']
  return apply_overrides(get_config('toy'), small)


class Run:
  """Two steps by one placement, with what they leave, and the estimate of the last state."""

  def __init__(self, kind, config, toy_model, batch, parts):
    _, optimizer, state = parts
    self.placement, evaluation = create_placements(kind)
    network = create_network(config, axis_name=parallel.AXIS_NAME)
    step = self.placement.map_train_step(make_train_step(config, network, optimizer))
    placed = self.placement.shard_batch(batch)
    model = self.placement.replicate(toy_model)
    self.first = self.last = self.placement.replicate(state)
    self.metrics = []
    for _ in range(STEPS):
      self.last, values = step(self.last, placed, model)
      self.metrics.append(self.placement.unreplicate(values))
    self.state = self.placement.unreplicate(self.last)
    evaluate = evaluation.map_eval_step(make_eval_step(config, network))
    outputs = evaluate(
      evaluation.replicate(self.state),
      evaluation.shard_batch(batch),
      evaluation.replicate(toy_model),
    )
    self.estimate, self.terms = evaluation.gather(outputs)


@pytest.fixture(scope='module')
def runs(config, toy_model, batch, parts):
  return {kind: Run(kind, config, toy_model, batch, parts) for kind in ('pmap', 'mesh')}


def test_the_mesh_takes_the_steps_of_pmap(runs):
  for ours, theirs in zip(runs['mesh'].metrics, runs['pmap'].metrics, strict=True):
    assert set(ours) == set(theirs)
    for name, value in ours.items():
      np.testing.assert_allclose(value, theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_mesh_computes_the_gradients_and_statistics_of_pmap(runs):
  """Adam divides gradients by their size, so its first moment is what shows them."""

  def moments(state):
    return next(part for part in state.opt_state if isinstance(part, optax.ScaleByAdamState)).mu

  mesh, pmap = runs['mesh'].state, runs['pmap'].state
  pairs = [(moments(mesh), moments(pmap)), (mesh.batch_stats, pmap.batch_stats)]
  for ours, theirs in pairs:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(b).max() + 1e-7)
  assert int(mesh.step) == int(pmap.step) == STEPS


def test_the_mesh_estimates_what_pmap_does(runs):
  """The states differ by rounding, and so do the estimates."""
  mesh, pmap = runs['mesh'], runs['pmap']
  assert mesh.terms['total'].shape == (4,)
  np.testing.assert_allclose(mesh.terms['total'], pmap.terms['total'], rtol=1e-2)
  ours, theirs = (run.estimate.posterior.vertices.mean for run in (mesh, pmap))
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_replicas_on_the_mesh_are_equal_and_have_memory_of_their_own(runs):
  for leaf in jax.tree.leaves(runs['mesh'].last):
    first, second = (np.asarray(shard.data) for shard in leaf.addressable_shards)
    np.testing.assert_array_equal(first, second)
    assert first.shape == leaf.shape and not np.shares_memory(first, second)


@pytest.mark.parametrize('kind', ['pmap', 'mesh'])
def test_a_step_takes_the_memory_of_its_state(runs, kind):
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(runs[kind].first.params))


@pytest.mark.parametrize('kind', ['pmap', 'mesh'])
def test_every_device_holds_its_share_of_a_batch(batch, kind):
  images = create_placements(kind).training.shard_batch(batch).image
  shares = [np.asarray(shard.data).reshape(2, *batch.image.shape[1:]) for shard in shards(images)]
  np.testing.assert_array_equal(np.concatenate(shares), batch.image)


def shards(array):
  return sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)


@pytest.mark.parametrize('kind', ['pmap', 'mesh'])
def test_a_batch_that_does_not_divide_is_refused(batch, kind):
  odd = jax.tree.map(lambda leaf: leaf[:3], batch)
  with pytest.raises(ValueError, match='3 examples on this host do not divide over 2'):
    create_placements(kind).training.shard_batch(odd)
