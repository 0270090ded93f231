"""Makes the steps of training and evaluation, which are pure functions of state and batch.

A step computes the part of one device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from hand_jax.config import ExperimentConfig
from hand_jax.losses import total_loss
from hand_jax.models.applying import apply_network
from hand_jax.models.backbone import normalize_image
from hand_jax.models.hand_network import HandNetwork, create_network
from hand_jax.runs.train_state import TrainState, state_variables
from hand_jax.training.objective import Objective, create_objective
from hand_jax.training.state import learning_rate_schedule, remember, taken_steps
from hand_jax.types import HandBatch, HandEstimate, ManoModel

Metrics = dict[str, Float[Array, '']]
Variables = dict[str, Any]
TrainStep = Callable[..., tuple[TrainState, Metrics]]
EvalStep = Callable[..., tuple[HandEstimate, dict[str, Array]]]
# From batch statistics and a batch to gradients, metrics and new batch statistics.
GradientsOf = Callable[[Any, HandBatch], tuple[Any, Metrics, Any]]
SKIPPED = 'skipped_steps'
"""A step's metric that is 1 where the step was skipped."""


@remember
def make_train_step(
  config: ExperimentConfig,
  network: HandNetwork,
  optimizer: optax.GradientTransformation,
  camera_prior_config: ExperimentConfig | None = None,
) -> TrainStep:
  """Makes the function that trains for one step.

  It maps state, batch, hand model and camera prior to the next state and the metrics. These are
  every loss term by name, `total`, and more. The camera prior is the variables of the frozen camera
  model, or None if the objective needs none.

  A batch that carries features needs no backbone, and a frozen backbone gets no gradient. If the
  objective trains only a part of the network, the rest runs in evaluation mode (Algorithm 4). A
  step whose numbers are not all finite is skipped: it changes the step's count and nothing else in
  the state, bit for bit. The optimizer and its schedule count only the steps that were not skipped.

  With `network.axis_name` set, the function runs under that mapped axis. Gradients, batch
  statistics and metrics are then averaged over it, and all replicas stay equal.

  `training.accumulate_steps` above 1 computes the gradient in that many parts of the batch, one
  after the other, and takes their mean. The result is the gradient of the whole batch, except that
  batch normalisation in training normalises each part by itself, and updates its running statistics
  with each part.

  Args:
    config: the run's config.
    network: the network to train.
    optimizer: the optimizer of its parameters, from `create_optimizer`.
    camera_prior_config: config of the run that trained the camera prior, if the objective needs it.

  Raises:
    ValueError: the objective needs a camera prior, but `camera_prior_config` is None.
  """
  axis_name = network.axis_name
  schedule = learning_rate_schedule(config.optimizer, config.training.num_steps)
  objective = create_objective(config)
  camera_prior_mean = _make_camera_prior_mean(objective, camera_prior_config)
  parts = config.training.accumulate_steps

  def train_step(
    state: TrainState, batch: HandBatch, model: ManoModel, camera_prior: Variables | None = None
  ) -> tuple[TrainState, Metrics]:
    learned = objective.learned_parameters(state.params)
    run_key = jax.random.fold_in(_run_key(state), state.step)

    def loss_of(learned, batch_stats, batch):
      images = normalize_image(batch.image, config.model.backbone.name)
      keys = _example_keys(run_key, batch)
      inputs = objective.make_inputs(batch, keys)
      params = {**state.params, **learned}
      variables = state_variables(state.replace(params=params, batch_stats=batch_stats))
      estimate, updates = network.apply(
        variables,
        images,
        model,
        train=objective.learns_everything,
        mutable=['batch_stats'],
        features=batch.features,
        **inputs,
      )
      prior_mean = camera_prior_mean(camera_prior, batch)
      terms = objective.compute_terms(keys, estimate, batch, model, prior_mean)
      metrics = {name: term.mean() for name, term in terms.items()}
      metrics['total'] = total_loss(terms, objective.weights).mean()
      return metrics['total'], (metrics, updates.get('batch_stats', {}))

    def gradients_of(batch_stats, batch):
      gradients, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(
        learned, batch_stats, batch
      )
      return gradients, metrics, batch_stats

    compute = gradients_of if parts == 1 else accumulate(gradients_of, learned, parts)
    gradients, metrics, batch_stats = compute(state.batch_stats, batch)
    if axis_name is not None:
      # The network already averages the inputs of BatchNorm, so statistics differ only by rounding.
      gradients, metrics, batch_stats = jax.lax.pmean((gradients, metrics, batch_stats), axis_name)
    updates, opt_state = optimizer.update(gradients, state.opt_state, learned)
    changed: Any = optax.apply_updates(learned, updates)
    metrics['learning_rate'] = jnp.asarray(schedule(taken_steps(state.opt_state)))
    metrics['gradient_norm'] = _global_norm(gradients)
    next_state = state.replace(
      step=state.step + 1,
      params={**state.params, **changed},
      batch_stats=batch_stats,
      opt_state=opt_state,
    )
    # All replicas decide the same, because a number that is not finite spreads to the averages.
    is_finite = _all_finite((gradients, metrics, batch_stats))
    metrics[SKIPPED] = 1 - is_finite.astype(jnp.float32)
    kept = state.replace(step=state.step + 1)
    return jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), next_state, kept), metrics

  return train_step


def accumulate(gradients_of: GradientsOf, learned: Any, parts: int) -> GradientsOf:
  """Makes a function that computes gradients in parts of the batch, one after the other.

  Activations need only the memory of one part. Gradients and metrics are the means over the parts,
  and the batch statistics are passed from part to part.

  Args:
    gradients_of: maps batch statistics and a batch to gradients, metrics and new statistics. The
      gradients and metrics are means over the batch.
    learned: the trained parameters, which have the shapes of the gradients.
    parts: the number of parts.
  """

  def accumulated(batch_stats: Any, batch: HandBatch) -> tuple[Any, Metrics, Any]:
    size = len(batch.image)
    if size % parts:
      raise ValueError(
        f"training.accumulate_steps={parts} should divide a device's share of the batch, which has "
        f'{size} examples.'
      )
    split = jax.tree.map(lambda leaf: leaf.reshape(parts, size // parts, *leaf.shape[1:]), batch)

    def add(carry, part):
      total, batch_stats = carry
      gradients, metrics, batch_stats = gradients_of(batch_stats, part)
      return (jax.tree.map(jnp.add, total, gradients), batch_stats), metrics

    start = (jax.tree.map(jnp.zeros_like, learned), batch_stats)
    (total, batch_stats), metrics = jax.lax.scan(add, start, split)
    gradients = jax.tree.map(lambda leaf: leaf / parts, total)
    return gradients, jax.tree.map(lambda values: values.mean(axis=0), metrics), batch_stats

  return accumulated


@remember
def make_eval_step(
  config: ExperimentConfig,
  network: HandNetwork,
  camera_prior_config: ExperimentConfig | None = None,
) -> EvalStep:
  """Makes the function that evaluates one batch.

  It maps state, batch, hand model and camera prior (see `make_train_step`) to the estimate and
  every unweighted loss term per example. The samples depend on the run's key and the example.

  Args:
    config: the run's config.
    network: the run's network.
    camera_prior_config: config of the run that trained the camera prior, if the objective needs it.

  Raises:
    ValueError: the objective needs a camera prior, but `camera_prior_config` is None.
  """
  objective = create_objective(config)
  camera_prior_mean = _make_camera_prior_mean(objective, camera_prior_config)

  def eval_step(
    state: TrainState, batch: HandBatch, model: ManoModel, camera_prior: Variables | None = None
  ) -> tuple[HandEstimate, dict[str, Array]]:
    images = normalize_image(batch.image, config.model.backbone.name)
    inputs = objective.make_inputs(batch, None)
    inputs['features'] = batch.features
    estimate = apply_network(network, state_variables(state), images, model, train=False, **inputs)
    keys, prior_mean = _example_keys(_run_key(state), batch), camera_prior_mean(camera_prior, batch)
    terms = objective.compute_terms(keys, estimate, batch, model, prior_mean)
    return estimate, {**terms, 'total': total_loss(terms, objective.weights)}

  return eval_step


def _make_camera_prior_mean(
  objective: Objective, config: ExperimentConfig | None
) -> Callable[[Variables | None, HandBatch], Float[Array, 'batch 10'] | None]:
  """Makes the function that maps camera prior and batch to the mean of the prior's camera.

  The mean is None if the objective needs no camera prior.
  """
  if not objective.needs_camera_prior:
    return lambda camera_prior, batch: None
  if config is None:
    raise ValueError(f'loss.kind={objective.kind!r} needs the config of the camera prior.')
  network = create_network(config)

  def estimate(camera_prior: Variables | None, batch: HandBatch) -> Float[Array, 'batch 10']:
    images = normalize_image(batch.image, config.model.backbone.name)
    camera = apply_network(
      network,
      camera_prior,
      images,
      train=False,
      features=batch.features,
      method='estimate_camera',
    )
    return camera.mean

  return estimate


def _run_key(state: TrainState) -> Array:
  return jax.random.wrap_key_data(state.key)


def _example_keys(key: Array, batch: HandBatch) -> Array:
  """Makes one key per example from its index in the split, for any devices and batch order."""
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch.global_index)


def _all_finite(tree: Any) -> Bool[Array, '']:
  """Returns whether every number of every leaf is finite.

  The flags are combined by a dot product. A reduction would be computed again in the fused loop of
  each leaf that depends on it, which more than doubles the time of compilation.
  """
  flags = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
  bad = 1 - flags.astype(jnp.float32)
  return jnp.dot(bad, bad) == 0


def _global_norm(tree: Any) -> Float[Array, '']:
  """Computes the Euclidean norm over all leaves.

  It is written out because optax has moved its own function twice.
  """
  return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
