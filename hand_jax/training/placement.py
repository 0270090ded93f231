"""Chooses how the arrays of a run lie on its devices, and how steps run over them.

`training.parallel` 'pmap' gives every array a leading device axis. 'mesh' has global arrays over a
named mesh, and maps the same steps by `jit` of `shard_map`. JAX keeps pmap in maintenance only.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from hand_jax.training import parallel
from hand_jax.training.step import EvalStep, TrainStep
from hand_jax.types import HandBatch


@runtime_checkable
class Placement(Protocol):
  """Puts states and batches on devices, maps steps over them, and copies results back."""

  def map_train_step(self, step: TrainStep) -> TrainStep:
    """Maps a training step. The state is donated, so the caller cannot use its old state."""
    ...

  def map_eval_step(self, step: EvalStep) -> EvalStep:
    """Maps an evaluation step, which keeps the state."""
    ...

  def replicate(self, tree: Any) -> Any:
    """Copies every array to each device."""
    ...

  def unreplicate(self, tree: Any) -> Any:
    """Copies replicated arrays to the host, as numpy. Donation does not affect them."""
    ...

  def shard_batch(self, batch: HandBatch) -> HandBatch:
    """Splits a host's batch over its devices, without the example ids.

    Raises:
      ValueError: the batch size is not a multiple of the number of devices.
    """
    ...

  def gather(self, tree: Any) -> Any:
    """Copies this host's outputs of an evaluation step to numpy, in the order of its batch."""
    ...


class Placements(NamedTuple):
  """The placements of a run."""

  training: Placement
  """All devices of all hosts."""
  evaluation: Placement
  """Only this host's devices, which wait for no other host."""


def create_placements(kind: Literal['pmap', 'mesh']) -> Placements:
  """Makes the placements that `training.parallel` names."""
  if kind == 'mesh':
    return Placements(MeshPlacement(jax.devices()), MeshPlacement(jax.local_devices()))
  return Placements(PmapPlacement(), PmapPlacement())


class PmapPlacement:
  """Maps steps by pmap, see `hand_jax/training/parallel.py`."""

  def map_train_step(self, step: TrainStep) -> TrainStep:
    return parallel.map_train_step(step)

  def map_eval_step(self, step: EvalStep) -> EvalStep:
    return parallel.map_eval_step(step)

  def replicate(self, tree: Any) -> Any:
    return parallel.replicate(tree)

  def unreplicate(self, tree: Any) -> Any:
    return parallel.unreplicate(tree)

  def shard_batch(self, batch: HandBatch) -> HandBatch:
    batch = parallel.shard_batch(batch)
    sharding = NamedSharding(_make_mesh(jax.local_devices()), jax.P(parallel.AXIS_NAME))
    return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), batch)

  def gather(self, tree: Any) -> Any:
    return parallel.gather(tree)


class MeshPlacement:
  """Maps steps by `jit` of `shard_map` over a mesh with the one axis `parallel.AXIS_NAME`."""

  def __init__(self, devices: Sequence[Any]):
    mesh = _make_mesh(devices)
    self._mesh = mesh
    self._replicated = NamedSharding(mesh, jax.P())
    self._sharded = NamedSharding(mesh, jax.P(parallel.AXIS_NAME))
    self._local_devices = self._replicated.addressable_devices

  def map_train_step(self, step: TrainStep) -> TrainStep:
    return jax.jit(self._map(step, jax.P()), donate_argnums=0)

  def map_eval_step(self, step: EvalStep) -> EvalStep:
    return jax.jit(self._map(step, jax.P(parallel.AXIS_NAME)))

  def _map(self, step: Any, output: Any) -> Any:
    """Maps a step over its state, batch, model and camera prior. Only the batch is sharded."""

    def with_all_arguments(state, batch, model, camera_prior=None):
      # With its check of replication, shard_map would sum the gradients before the step averages
      # them, as the step does for pmap too.
      mapped = jax.shard_map(
        step,
        mesh=self._mesh,
        in_specs=(jax.P(), jax.P(parallel.AXIS_NAME), jax.P(), jax.P()),
        out_specs=output,
        check_vma=False,
      )
      return mapped(state, batch, model, camera_prior)

    return with_all_arguments

  def replicate(self, tree: Any) -> Any:
    def place(leaf):
      # Each device gets its own memory. CPU devices could otherwise share the host's array, and a
      # step writes into donated memory.
      copies = [jax.device_put(np.array(leaf), device) for device in self._local_devices]
      return jax.make_array_from_single_device_arrays(np.shape(leaf), self._replicated, copies)

    return jax.tree.map(place, tree)

  def place_shapes(self, arguments: Any) -> tuple[Any, Any, Any, Any]:
    """Adds to the shapes of state, batch, model and camera prior how each lies on the devices.

    A step is compiled with them.
    """

    def placed(tree: Any, sharding: NamedSharding) -> Any:
      return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
      )

    state, batch, model, camera_prior = arguments
    return (
      placed(state, self._replicated),
      placed(batch, self._sharded),
      placed(model, self._replicated),
      placed(camera_prior, self._replicated),
    )

  def unreplicate(self, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.array(leaf.addressable_shards[0].data), tree)

  def shard_batch(self, batch: HandBatch) -> HandBatch:
    parallel.share_of_batch(batch, len(self._local_devices))
    place = jax.make_array_from_process_local_data
    return jax.tree.map(lambda leaf: place(self._sharded, leaf), batch._replace(example_id=None))

  def gather(self, tree: Any) -> Any:
    def merge(leaf: jax.Array) -> np.ndarray:
      shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0)
      return np.concatenate([np.asarray(shard.data) for shard in shards])

    return jax.tree.map(merge, tree)


def _make_mesh(devices: Sequence[Any]) -> Mesh:
  return Mesh(np.array(devices), (parallel.AXIS_NAME,))
