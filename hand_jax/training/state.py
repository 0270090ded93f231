"""Creates the optimizer and the fresh state of a run from its config."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from hand_jax.config import ExperimentConfig, OptimizerConfig
from hand_jax.models.hand_network import BACKBONE, HandNetwork, initialize_network
from hand_jax.runs.train_state import TrainState
from hand_jax.training.objective import create_objective
from hand_jax.types import ManoModel

_Arguments = ParamSpec('_Arguments')
_Made = TypeVar('_Made')


def remember(make: Callable[_Arguments, _Made]) -> Callable[_Arguments, _Made]:
  """Keeps the results of the last four calls, and returns them for equal arguments.

  JAX caches compiled programs by function object, so a continued run in the same process starts at
  once with the same step function.
  """
  # functools loses the types of the arguments.
  return cast(Callable[_Arguments, _Made], functools.lru_cache(maxsize=4)(make))


def learning_rate_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
  """Builds a linear warm-up, which half a cosine to the last step follows.

  The cosine goes down to `final_fraction` of the full rate.
  """
  warmup = min(config.warmup_steps, num_steps)
  cosine = optax.cosine_decay_schedule(
    config.learning_rate, max(1, num_steps - warmup), alpha=config.final_fraction
  )
  if warmup == 0:
    return cosine
  # The warm-up counts from one, so that the first step already has a learning rate above zero.
  ramp = optax.linear_schedule(
    config.learning_rate / warmup, config.learning_rate, max(1, warmup - 1)
  )
  return optax.join_schedules([ramp, cosine], [warmup])


def decay_mask(params: Any) -> Any:
  """Marks the weights that decay: matrices and kernels, not biases and normalisation scales."""
  flat: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(params)
  decays = {
    path: value.ndim > 1 and path[-1] not in ('bias', 'scale') for path, value in flat.items()
  }
  return flax.traverse_util.unflatten_dict(decays)


def backbone_mask(params: Any) -> Any:
  """Marks the image encoder's parameters."""
  return {
    name: jax.tree.map(lambda _, inside=name == BACKBONE: inside, tree)
    for name, tree in params.items()
  }


# Equal settings give the same optimizer object, so that steps made with it are found in the cache.
@remember
def create_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
  """Creates AdamW (Loshchilov and Hutter 2019) with clipping and a scale for the backbone.

  The global norm of the gradients is clipped first, and the backbone's updates are scaled before
  the learning rate.
  """
  steps = []
  if config.gradient_clip_norm > 0:
    steps.append(optax.clip_by_global_norm(config.gradient_clip_norm))
  steps.append(optax.scale_by_adam())
  steps.append(optax.add_decayed_weights(config.weight_decay, mask=decay_mask))
  steps.append(optax.masked(optax.scale(config.backbone_learning_rate_scale), backbone_mask))
  steps.append(optax.scale_by_learning_rate(learning_rate_schedule(config, num_steps)))
  return optax.chain(*steps)


def taken_steps(opt_state: Any) -> Int[Array, '']:
  """Returns how many steps the state of `create_optimizer` has counted, without skipped ones."""
  return opt_state[-1].count  # of the schedule, which is the last of the chain


def create_train_state(
  config: ExperimentConfig,
  network: HandNetwork,
  optimizer: optax.GradientTransformation,
  model: ManoModel,
) -> TrainState:
  """Creates a fresh state on one device, with pretrained backbones loaded.

  Args:
    config: the run's config, whose `training.seed` seeds the parameters and the run's key.
    network: the network to initialise.
    optimizer: the optimizer to initialise.
    model: the hand model.

  Raises:
    ValueError: the pretrained weights cannot be read or do not fit.
  """
  key, init_key = jax.random.split(jax.random.key(config.training.seed))
  variables = initialize_network(network, init_key, model)
  params = variables['params']
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables.get('batch_stats', {}),
    opt_state=optimizer.init(create_objective(config).learned_parameters(params)),
    key=jax.random.key_data(key),
  )


def count_parameters(params: Any) -> dict[str, int]:
  """Counts the scalars in each part of the network."""
  return {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
