"""One step of training or evaluation: pure functions of state and batch, for one device of many."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from hand_jax.config import ExperimentConfig
from hand_jax.losses import compute_loss_terms, total_loss
from hand_jax.models.backbone import normalize_image
from hand_jax.models.hand_network import HandNetwork
from hand_jax.training.state import TrainState, learning_rate_schedule, state_variables
from hand_jax.types import HandBatch, HandEstimate, ManoModel

Metrics = dict[str, Float[Array, '']]
TrainStep = Callable[[TrainState, HandBatch, ManoModel], tuple[TrainState, Metrics]]
EvalStep = Callable[[TrainState, HandBatch, ManoModel], tuple[HandEstimate, dict[str, Array]]]


def make_train_step(
  config: ExperimentConfig,
  network: HandNetwork,
  optimizer: optax.GradientTransformation,
) -> TrainStep:
  """state, batch, hand model -> next state, metrics: every loss term by name, `total`, and more.

  With `network.axis_name` set, the function runs under that mapped axis: gradients, batch
  statistics and metrics are averaged over it, and all replicas stay equal.
  """
  axis_name = network.axis_name
  schedule = learning_rate_schedule(config.optimizer, config.training.num_steps)

  def train_step(
    state: TrainState, batch: HandBatch, model: ManoModel
  ) -> tuple[TrainState, Metrics]:
    images = normalize_image(batch.image, config.model.backbone.name)

    def loss_of(params):
      variables = state_variables(state.replace(params=params))
      estimate, updates = network.apply(
        variables, images, model, train=True, mutable=['batch_stats']
      )
      terms = compute_loss_terms(estimate, batch, config.loss)
      metrics = {name: term.mean() for name, term in terms.items()}
      metrics['total'] = total_loss(terms, config.loss).mean()
      return metrics['total'], (metrics, updates.get('batch_stats', {}))

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    (_, (metrics, batch_stats)), gradients = gradient_of(state.params)
    if axis_name is not None:
      # The network averages what BatchNorm sees already; the statistics are equal but for rounding.
      gradients, metrics, batch_stats = jax.lax.pmean((gradients, metrics, batch_stats), axis_name)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    metrics['learning_rate'] = jnp.asarray(schedule(state.step))
    metrics['gradient_norm'] = _global_norm(gradients)
    next_state = state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
    )
    return next_state, metrics

  return train_step


def make_eval_step(config: ExperimentConfig, network: HandNetwork) -> EvalStep:
  """state, batch, hand model -> the estimate and every unweighted loss term per example."""

  def eval_step(
    state: TrainState, batch: HandBatch, model: ManoModel
  ) -> tuple[HandEstimate, dict[str, Array]]:
    images = normalize_image(batch.image, config.model.backbone.name)
    estimate = network.apply(state_variables(state), images, model, train=False)
    terms = compute_loss_terms(estimate, batch, config.loss)
    return estimate, {**terms, 'total': total_loss(terms, config.loss)}

  return eval_step


def _global_norm(tree: Any) -> Float[Array, '']:
  """Euclidean norm over all leaves (written out: optax has moved its own twice)."""
  return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
