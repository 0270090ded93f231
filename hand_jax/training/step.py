"""One step of training or evaluation: pure functions of state and batch, for one device of many."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from hand_jax.config import ExperimentConfig
from hand_jax.losses import (
  LossTerms,
  compute_elbo_terms,
  compute_loss_terms,
  compute_photometric_terms,
  total_loss,
)
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.backbone import normalize_image
from hand_jax.models.hand_network import HandNetwork, create_network, render_estimate
from hand_jax.models.texture_regressor import HiddenRegion, sample_hidden_region
from hand_jax.runs.train_state import TrainState, state_variables
from hand_jax.training.state import learned_parameters, learning_rate_schedule
from hand_jax.types import HandBatch, HandEstimate, ManoModel

Metrics = dict[str, Float[Array, '']]
Variables = dict[str, Any]
TrainStep = Callable[..., tuple[TrainState, Metrics]]
EvalStep = Callable[..., tuple[HandEstimate, dict[str, Array]]]


def make_train_step(
  config: ExperimentConfig,
  network: HandNetwork,
  optimizer: optax.GradientTransformation,
  camera_prior_config: ExperimentConfig | None = None,
) -> TrainStep:
  """state, batch, hand model, camera prior -> next state, and metrics: every loss term by name,
  `total`, and more.

  The camera prior is the variables of the frozen camera model that `camera_prior_config` describes,
  where `loss.kind` is 'elbo', else None. `photometric` changes the texture branch alone, and the
  rest runs as it will in use (Algorithm 4). With `network.axis_name` set, the function runs under
  that mapped axis: gradients, batch statistics and metrics are averaged over it, and all replicas
  stay equal.
  """
  axis_name = network.axis_name
  schedule = learning_rate_schedule(config.optimizer, config.training.num_steps)
  loss_terms = _make_loss_terms(config, camera_prior_config)
  is_frozen = config.loss.kind == 'photometric'

  def train_step(
    state: TrainState, batch: HandBatch, model: ManoModel, camera_prior: Variables | None = None
  ) -> tuple[TrainState, Metrics]:
    images = normalize_image(batch.image, config.model.backbone.name)
    keys = _example_keys(jax.random.fold_in(_run_key(state), state.step), batch)
    learned = learned_parameters(state.params, config)
    inputs = _texture_inputs(config, batch, keys) if is_frozen else {}

    def loss_of(learned):
      variables = state_variables(state.replace(params={**state.params, **learned}))
      estimate, updates = network.apply(
        variables, images, model, train=not is_frozen, mutable=['batch_stats'], **inputs
      )
      terms = loss_terms(keys, estimate, batch, model, camera_prior)
      metrics = {name: term.mean() for name, term in terms.items()}
      metrics['total'] = total_loss(terms, config.loss).mean()
      return metrics['total'], (metrics, updates.get('batch_stats', {}))

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    (_, (metrics, batch_stats)), gradients = gradient_of(learned)
    if axis_name is not None:
      # The network averages what BatchNorm sees already; the statistics are equal but for rounding.
      gradients, metrics, batch_stats = jax.lax.pmean((gradients, metrics, batch_stats), axis_name)
    updates, opt_state = optimizer.update(gradients, state.opt_state, learned)
    metrics['learning_rate'] = jnp.asarray(schedule(state.step))
    metrics['gradient_norm'] = _global_norm(gradients)
    next_state = state.replace(
      step=state.step + 1,
      params={**state.params, **optax.apply_updates(learned, updates)},
      batch_stats=batch_stats,
      opt_state=opt_state,
    )
    return next_state, metrics

  return train_step


def make_eval_step(
  config: ExperimentConfig,
  network: HandNetwork,
  camera_prior_config: ExperimentConfig | None = None,
) -> EvalStep:
  """state, batch, hand model, camera prior (see `make_train_step`) -> the estimate and every
  unweighted loss term per example. What is sampled depends on the run's key and the example."""
  loss_terms = _make_loss_terms(config, camera_prior_config)

  def eval_step(
    state: TrainState, batch: HandBatch, model: ManoModel, camera_prior: Variables | None = None
  ) -> tuple[HandEstimate, dict[str, Array]]:
    images = normalize_image(batch.image, config.model.backbone.name)
    inputs = _texture_inputs(config, batch) if config.model.texture.enabled else {}
    estimate = network.apply(state_variables(state), images, model, train=False, **inputs)
    terms = loss_terms(_example_keys(_run_key(state), batch), estimate, batch, model, camera_prior)
    return estimate, {**terms, 'total': total_loss(terms, config.loss)}

  return eval_step


def _make_loss_terms(
  config: ExperimentConfig, camera_prior_config: ExperimentConfig | None
) -> Callable[..., LossTerms]:
  """keys, estimate, batch, hand model, camera prior -> the terms of the config's objective."""
  if config.loss.kind == 'photometric':
    side = config.model.image_size
    return lambda keys, estimate, batch, model, camera_prior: compute_photometric_terms(
      render_estimate(estimate, model, side), batch, config.loss
    )
  if config.loss.kind != 'elbo':
    return lambda keys, estimate, batch, model, camera_prior: compute_loss_terms(
      estimate, batch, config.loss, model.hands_mean
    )
  if camera_prior_config is None:
    raise ValueError("loss.kind='elbo' needs the config of the camera prior.")
  camera_network = create_network(camera_prior_config)
  backbone_name = camera_prior_config.model.backbone.name

  def elbo_terms(keys, estimate, batch, model, camera_prior) -> LossTerms:
    images = normalize_image(batch.image, backbone_name)
    camera = camera_network.apply(camera_prior, images, train=False, method='estimate_camera')
    regressor = extended_joint_regressor(model)
    return compute_elbo_terms(
      keys, estimate, batch, camera.mean, regressor, config.loss, model.hands_mean
    )

  return elbo_terms


def _texture_inputs(
  config: ExperimentConfig, batch: HandBatch, keys: Array | None = None
) -> dict[str, Array | HiddenRegion]:
  """What the texture branch may see; with keys (training) less of it, see TextureConfig."""
  inputs = {'hand_mask': batch.hand_mask | ~batch.has_mask[:, None, None]}
  fraction = config.model.texture.hidden_fraction
  if keys is not None and fraction > 0:
    inputs['hidden'] = jax.vmap(sample_hidden_region, in_axes=(0, None))(keys, fraction)
  return inputs


def _run_key(state: TrainState) -> Array:
  return jax.random.wrap_key_data(state.key)


def _example_keys(key: Array, batch: HandBatch) -> Array:
  """One key per example, from its place in the split: devices and batch order change nothing."""
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch.global_index)


def _global_norm(tree: Any) -> Float[Array, '']:
  """Euclidean norm over all leaves (written out: optax has moved its own twice)."""
  return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
