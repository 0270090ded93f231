"""Maps steps over devices by pmap: replicates the state, splits the batch, and gathers the results.

`hand_jax/training/placement.py` chooses between this and a mesh.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hand_jax.training.step import EvalStep, TrainStep
from hand_jax.types import HandBatch

AXIS_NAME = 'batch'


def map_train_step(step: TrainStep, devices: Sequence[Any] | None = None) -> TrainStep:
  """Maps the step over all devices of all hosts, or over `devices`.

  Every argument has a leading device axis.

  The state is donated, so the caller cannot use its old state afterwards. It is replicated, because
  a broadcast state with donation works in one process and fails in two.
  """
  return jax.pmap(step, axis_name=AXIS_NAME, donate_argnums=0, devices=devices)


def map_eval_step(step: EvalStep) -> EvalStep:
  """Maps the evaluation step over this host's devices. It keeps the state and waits for no host."""
  return jax.pmap(step, axis_name=AXIS_NAME, devices=jax.local_devices())


def replicate(tree: Any) -> Any:
  """Copies every array to each local device, along a new leading axis."""
  devices = np.array(jax.local_devices())
  sharding = jax.NamedSharding(jax.sharding.Mesh(devices, (AXIS_NAME,)), jax.P(AXIS_NAME))
  return jax.tree.map(
    lambda leaf: jax.device_put(np.stack([np.asarray(leaf)] * len(devices)), sharding), tree
  )


def unreplicate(tree: Any) -> Any:
  """Copies the first local device's arrays to the host, as numpy. Donation does not affect them."""
  return jax.tree.map(lambda leaf: np.array(leaf.addressable_shards[0].data)[0], tree)


def shard_batch(batch: HandBatch) -> HandBatch:
  """Splits a host's batch over its devices along a new leading axis, without the example ids.

  Raises:
    ValueError: the batch size is not a multiple of the number of devices.
  """
  devices = jax.local_device_count()
  size = share_of_batch(batch, devices)
  batch = batch._replace(example_id=None)
  return jax.tree.map(lambda leaf: leaf.reshape(devices, size, *leaf.shape[1:]), batch)


def share_of_batch(batch: HandBatch, devices: int) -> int:
  """Counts the examples of a host's batch that each of its devices gets.

  Raises:
    ValueError: the batch size is not a multiple of the number of devices.
  """
  size = len(batch.image)
  if size % devices:
    raise ValueError(
      f'training.batch_size should be a multiple of the number of devices: {size} examples on this '
      f'host do not divide over {devices}.'
    )
  return size // devices


def gather(tree: Any) -> Any:
  """Copies this host's outputs of a mapped step to numpy, with one batch axis for all devices."""

  def merge(leaf: jax.Array) -> np.ndarray:
    shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    local = np.concatenate([np.asarray(shard.data) for shard in shards])
    return local.reshape(-1, *local.shape[2:])

  return jax.tree.map(merge, tree)
