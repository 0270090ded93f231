"""The optimizer and the fresh state of a run, from its config."""

from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from hand_jax.config import ExperimentConfig, OptimizerConfig
from hand_jax.models.hand_network import HandNetwork, initialize_network
from hand_jax.runs.train_state import TrainState
from hand_jax.training.objective import create_objective
from hand_jax.types import ManoModel

BACKBONE = 'backbone'


def learning_rate_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
  """Linear warm-up from zero, then half a cosine down to `final_fraction` at the last step."""
  warmup = min(config.warmup_steps, num_steps)
  cosine = optax.cosine_decay_schedule(
    config.learning_rate, max(1, num_steps - warmup), alpha=config.final_fraction
  )
  if warmup == 0:
    return cosine
  # Counted from one: the first step already learns.
  ramp = optax.linear_schedule(
    config.learning_rate / warmup, config.learning_rate, max(1, warmup - 1)
  )
  return optax.join_schedules([ramp, cosine], [warmup])


def decay_mask(params: Any) -> Any:
  """True for the weights that decay: matrices and kernels, not biases and normalisation scales."""
  flat = flax.traverse_util.flatten_dict(params)
  decays = {
    path: value.ndim > 1 and path[-1] not in ('bias', 'scale') for path, value in flat.items()
  }
  return flax.traverse_util.unflatten_dict(decays)


def backbone_mask(params: Any) -> Any:
  """True for the image encoder's parameters."""
  return {
    name: jax.tree.map(lambda _, inside=name == BACKBONE: inside, tree)
    for name, tree in params.items()
  }


def create_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
  """AdamW (Loshchilov and Hutter 2019): the global norm clipped first, the backbone scaled last."""
  steps = []
  if config.gradient_clip_norm > 0:
    steps.append(optax.clip_by_global_norm(config.gradient_clip_norm))
  steps.append(optax.scale_by_adam())
  steps.append(optax.add_decayed_weights(config.weight_decay, mask=decay_mask))
  steps.append(optax.masked(optax.scale(config.backbone_learning_rate_scale), backbone_mask))
  steps.append(optax.scale_by_learning_rate(learning_rate_schedule(config, num_steps)))
  return optax.chain(*steps)


def create_train_state(
  config: ExperimentConfig,
  network: HandNetwork,
  optimizer: optax.GradientTransformation,
  model: ManoModel,
) -> TrainState:
  """A fresh state, on one device, from `training.seed`; pretrained backbones are loaded.

  Raises:
    ValueError: the configured pretrained weights cannot be read or do not fit.
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
  """Number of scalars in each part of the network."""
  return {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
