"""The outer loop of a run, `train_and_evaluate`, with everything that is not a pure function."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hand_jax.config import ExperimentConfig, validate_config
from hand_jax.data.example_sources import ExampleSource, create_source, create_training_source
from hand_jax.data.landmark_errors import describe_selection
from hand_jax.data.pipeline import (
  check_cached_features,
  check_landmark_limit,
  check_prepared_hands,
  evaluation_batches,
  training_batches,
)
from hand_jax.data.prepared import PreparedSource
from hand_jax.evaluation.evaluate import evaluate_batches, known_joints
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.branches import best_branch
from hand_jax.models.hand_network import create_network, render_estimate
from hand_jax.runs.checkpoints import (
  Checkpoints,
  check_workdir,
  claim_workdir,
  read_config,
)
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.runs.lineage import claim_lineage, make_lineage
from hand_jax.runs.sources import latest_step
from hand_jax.runs.train_state import TrainState
from hand_jax.training import parallel
from hand_jax.training.camera_prior import claim_camera_prior, load_camera_prior
from hand_jax.training.objective import create_objective
from hand_jax.training.placement import Placement, create_placements
from hand_jax.training.prefetch import DevicePrefetch
from hand_jax.training.reports import (
  RunLog,
  Stopwatch,
  overlay_sheet,
  texture_sheet,
  validation_metrics,
)
from hand_jax.training.state import (
  count_parameters,
  create_optimizer,
  create_train_state,
  learning_rate_schedule,
)
from hand_jax.training.step import EvalStep, make_eval_step, make_train_step
from hand_jax.training.warm_start import (
  WarmStart,
  check_cached_backbone,
  check_frozen_backbone,
  check_start,
  claim_warm_start,
  describe_warm_start,
  warm_start,
)
from hand_jax.types import HandBatch, HandEstimate, ManoModel

OVERLAY_IMAGES = 8


def train_and_evaluate(
  config: ExperimentConfig,
  workdir: str,
  model: ManoModel,
  train_source: ExampleSource | None = None,
  validation_source: ExampleSource | None = None,
  extend: bool = False,
) -> TrainState:
  """Runs an experiment to its last step on all devices, or continues the run in `workdir`.

  A continued run equals the uninterrupted one bit for bit (same machine, same devices).
  The workdir gets `config.json`, `lineage.json`, `metrics.jsonl`, `tensorboard/`, `overlays/` and
  `checkpoints/`. A warm start (`training.init_from`) adds `init_from.json`, and the elbo adds its
  own copy of the `camera_prior/`.

  Args:
    config: the run's config.
    workdir: the run's folder, which need not exist.
    model: the hand model, which has to be that of the data's labels.
    train_source: the examples to train on. None takes those of the config.
    validation_source: the examples to measure on. None takes those of the config.
    extend: lets the run in `workdir` have fewer steps than the config. It goes on with the learning
      rate's schedule for all of the config's steps.

  Returns:
    The last state, as numpy arrays.

  Raises:
    ValueError: the config cannot work, `workdir` holds another config, a checkpoint is unreadable,
      or a warm start or camera prior does not fit.
    FileNotFoundError: there is no run to take a warm start or camera prior from.
    FileExistsError: `workdir` holds files of something else, see `check_workdir`.
    FloatingPointError: a loss term is not finite. The message names step and term.
  """
  validate_config(config)
  check_batch_size(config.training.batch_size, config.training.accumulate_steps)
  check_workdir(workdir, config, extend)
  former_steps = read_config(workdir).training.num_steps if extend else config.training.num_steps
  data, size = config.data, config.model.image_size
  if train_source is None:
    train_source = create_training_source(data, size)
  check_cached_features(train_source, config)
  check_prepared_hands(train_source, config)
  check_landmark_limit(train_source, config)
  if validation_source is None:
    count = config.training.validation_examples
    validation_source = create_source(data, data.validation_split, size, count)
  run = _Run(config, workdir, model, validation_source)
  # Only now is the folder made, so that a failed command does not block its corrected version.
  claim_workdir(workdir, config, extend)
  claim_hand_model(workdir, model)
  run.claim()
  return run.train(train_source, former_steps)


def describe_extension(config: ExperimentConfig, former_steps: int, step: int) -> str:
  """Describes what happens to the learning rate of an extended run.

  Args:
    config: the config of the run as it goes on.
    former_steps: its number of steps before.
    step: the step at which it goes on.
  """
  steps = config.training.num_steps
  before, now = (learning_rate_schedule(config.optimizer, count) for count in (former_steps, steps))
  first, following, last = (
    float(np.asarray(rate)) for rate in (before(step), now(step), now(steps))
  )
  return (
    f'Extended from {former_steps} to {steps} steps. The schedule of the learning rate is restated '
    f'for all {steps}: at step {step} it goes from {first:.3g} to '
    f'{following:.3g}, and reaches {last:.3g} at the last step. A run that had '
    f'{steps} steps from its start has other numbers.'
  )


def check_batch_size(batch_size: int, accumulate_steps: int = 1) -> None:
  """Checks that a batch divides over all devices of all hosts, and each share into its parts.

  Raises:
    ValueError: it does not.
  """
  if batch_size % jax.device_count():
    raise ValueError(
      f'training.batch_size should be a multiple of the number of devices '
      f'({jax.device_count()}), got {batch_size}.'
    )
  share = batch_size // jax.device_count()
  if share % accumulate_steps:
    raise ValueError(
      f"training.accumulate_steps should divide a device's share of the batch ({share} examples), "
      f'got {accumulate_steps}.'
    )


class _Run:
  """One process' part of a run: the compiled steps, the state on devices, and the reports."""

  def __init__(
    self,
    config: ExperimentConfig,
    workdir: str,
    model: ManoModel,
    validation_source: ExampleSource,
  ):
    self._config, self._workdir, self._model = config, workdir, model
    self._validation_source = validation_source
    self._is_main = jax.process_index() == 0
    self._camera_prior = load_camera_prior(workdir, config)
    prior_config, prior_variables = (self._camera_prior or (None, None))[:2]
    network = create_network(config, axis_name=parallel.AXIS_NAME)
    optimizer = create_optimizer(config.optimizer, config.training.num_steps)
    self._initial_state = create_train_state(config, network, optimizer, model)
    self._start = WarmStart(sources=(), fresh=())
    self._is_new = latest_step(workdir) is None
    if self._is_new:
      self._initial_state, self._start = warm_start(
        self._initial_state, config.training.init_from, model, config
      )
      check_start(create_objective(config), self._start)
      check_frozen_backbone(config, self._start)
      check_cached_backbone(config, self._initial_state)
    step = make_train_step(config, network, optimizer, prior_config)
    placements = create_placements(config.training.parallel)
    self._placement = placements.training
    self._train_step = self._placement.map_train_step(step)
    self._constants = (model, prior_variables)
    eval_step = make_eval_step(config, network, prior_config)
    self._evaluator = _Evaluator(config, self._constants, eval_step, placements.evaluation)

  def claim(self) -> None:
    """Records in the workdir where a new run's parameters and camera prior come from."""
    claim_camera_prior(self._workdir, self._camera_prior)
    if not self._is_new:
      return
    prior = self._camera_prior
    origins = [source.origin for source in self._start.sources]
    lineage = make_lineage(self._config, origins, prior.origin if prior else None)
    claim_lineage(self._workdir, lineage)
    if origins:
      claim_warm_start(self._workdir, self._start)

  def train(self, source: ExampleSource, former_steps: int) -> TrainState:
    """Trains to the last step. `former_steps` is the run's length before it was extended."""
    config, num_steps = self._config, self._config.training.num_steps
    with Checkpoints(self._workdir, config.training.keep_checkpoints) as checkpoints:
      state, position = self._initial_state, 0
      if restored := checkpoints.restore_latest(like=state):
        state, position = restored
      step = int(state.step)
      self._announce(step, source, former_steps)
      if step >= num_steps:
        return state
      loader = training_batches(
        source,
        config,
        len(self._model.v_template),
        position,
        jax.process_index(),
        jax.process_count(),
      )
      placement = self._placement
      batches = DevicePrefetch(loader, placement.shard_batch, position)
      with loader, _Reporter(self._workdir, config, step, self._is_main, placement) as reporter:
        state, constants = placement.replicate(state), placement.replicate(self._constants)
        while step < num_steps:
          batch = next(batches)
          state, metrics = self._train_step(state, batch.on_devices, *constants)
          step += 1
          reporter.add(step, metrics)
          if not _is_due(config, step):
            continue
          # Metrics are checked before anything is saved, so that no checkpoint holds a NaN.
          reporter.flush()
          host_state = placement.unreplicate(state)
          if _every(config.training.checkpoint_every, step, num_steps):
            checkpoints.save(host_state, batches.position)
          if reporter.log:  # only the first process has one
            self._report(reporter, reporter.log, host_state, step)
      return host_state

  def _report(self, reporter: '_Reporter', log: RunLog, state: TrainState, step: int) -> None:
    training = self._config.training
    extra = {}
    if _every(training.evaluate_every, step, training.num_steps):
      extra, sheet = self._evaluator.evaluate(state, self._validation_source)
      log.write_image('validation', sheet, step)
    reporter.report(log, step, extra)

  def _announce(self, step: int, source: ExampleSource, former_steps: int) -> None:
    if not self._is_main:
      return
    sizes = count_parameters(self._initial_state.params)
    parts = ', '.join(f'{name} {size:,}' for name, size in sizes.items())
    print(f'{self._config.name}: {sum(sizes.values()):,} parameters ({parts}).')
    devices = f'{jax.device_count()} {jax.default_backend()} device(s)'
    if step >= self._config.training.num_steps:
      print(
        f'{self._workdir} has finished its {step} steps already; nothing to do. With --extend it '
        'goes on to a larger training.num_steps.',
        flush=True,
      )
      return
    if former_steps < self._config.training.num_steps:
      print(describe_extension(self._config, former_steps, step))
    if isinstance(source, PreparedSource) and source.selection:
      print(describe_selection(source.selection, len(source)))
    if step:
      print(f'Continuing {self._workdir} after step {step} on {devices}.', flush=True)
    else:
      if self._start.sources:
        print('\n'.join(describe_warm_start(self._start)))
      print(f'Training in {self._workdir} on {devices}; compiling the step.', flush=True)


class _Evaluator:
  """Computes validation figures and overlays of a state, on this process' devices alone."""

  def __init__(
    self,
    config: ExperimentConfig,
    constants: tuple[ManoModel, Any],
    step: EvalStep,
    placement: Placement,
  ):
    model = constants[0]
    # One host evaluates alone, so a batch has the size of one host's share in training.
    batch_size = config.training.batch_size // jax.process_count()
    training = dataclasses.replace(config.training, batch_size=batch_size)
    self._config = dataclasses.replace(config, training=training)
    self._placement = placement
    self._step = placement.map_eval_step(step)
    self._constants = placement.replicate(constants)
    self._model = model
    self._num_vertices = len(model.v_template)
    self._regressor = np.asarray(extended_joint_regressor(model))

  def evaluate(
    self, state: TrainState, source: ExampleSource
  ) -> tuple[dict[str, float], np.ndarray]:
    """Computes metrics with the prefix `validation_`, and draws overlays of the first batch."""
    # The optimizer's moments stay on the host.
    placement = self._placement
    state = placement.replicate(state.replace(opt_state=()))
    totals, sheets = [], []

    def estimate(batch: HandBatch) -> HandEstimate:
      outputs = self._step(state, placement.shard_batch(batch), *self._constants)
      estimate, terms = placement.gather(outputs)
      totals.append(terms['total'][~batch.is_padding])
      if not sheets:
        sheets.append(_overlays(batch, estimate, self._model))
      return estimate

    with evaluation_batches(source, self._config, self._num_vertices) as batches:
      results = evaluate_batches(estimate, batches, self._regressor, full=False)
    total = float(np.concatenate(totals).mean())
    metrics = {'validation_total': total, **validation_metrics(results)}
    return metrics, sheets[0]


class _Reporter:
  """Collects the metrics of the steps, refuses those that are not finite, and writes their means.

  A step's metrics are fetched while the next step runs, so that devices do not wait for the host.
  """

  def __init__(
    self,
    workdir: str,
    config: ExperimentConfig,
    start_step: int,
    is_main: bool,
    placement: Placement,
  ):
    num_steps = config.training.num_steps
    self.log = RunLog(workdir, start_step, num_steps) if is_main else None
    self._watch = Stopwatch(config.training.batch_size, num_steps)
    self._placement = placement
    self._pending: tuple[int, dict[str, jax.Array]] | None = None
    self._collected: list[dict[str, float]] = []

  def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of a step, which are replicated and perhaps not computed yet."""
    self.flush()
    self._pending = (step, metrics)

  def flush(self) -> None:
    """Waits for the metrics that were taken last.

    Raises:
      FloatingPointError: a metric is not finite.
    """
    if self._pending is None:
      return
    step, metrics = self._pending
    values = {name: float(value) for name, value in self._placement.unreplicate(metrics).items()}
    self._pending = None
    check_finite(step, values)
    self._collected.append(values)
    self._watch.step()

  def report(self, log: RunLog, step: int, extra: dict[str, float]) -> None:
    """Writes the means since the last report, with the extra figures of this step."""
    means = {
      name: math.fsum(values[name] for values in self._collected) / len(self._collected)
      for name in self._collected[0]
    }
    means['learning_rate'] = self._collected[-1]['learning_rate']
    log.write({'step': step, **means, **extra, **self._watch.read(step)})
    self._collected = []
    self._watch.restart()

  def __enter__(self) -> '_Reporter':
    return self

  def __exit__(self, *_) -> None:
    if self.log:
      self.log.close()


def check_finite(step: int, metrics: dict[str, float]) -> None:
  """Checks that all metrics of a step are finite.

  Raises:
    FloatingPointError: a metric is NaN or infinite. The message names the step and all such
      metrics.
  """
  bad = [f'{name} = {value}' for name, value in metrics.items() if not math.isfinite(value)]
  if bad:
    raise FloatingPointError(
      f'Training stopped at step {step}: {", ".join(bad)}. A lower optimizer.learning_rate or '
      'optimizer.gradient_clip_norm may help; the last checkpoint is from before.'
    )


def _every(interval: int, step: int, num_steps: int) -> bool:
  return step % interval == 0 or step == num_steps


def _is_due(config: ExperimentConfig, step: int) -> bool:
  """Tells whether a step is reported, because it is logged, evaluated or saved, or is the last."""
  training = config.training
  intervals = (training.log_every, training.evaluate_every, training.checkpoint_every)
  return any(_every(interval, step, training.num_steps) for interval in intervals)


_render_estimate = jax.jit(render_estimate, static_argnums=2)


def _overlays(batch: HandBatch, estimate: HandEstimate, model: ManoModel) -> np.ndarray:
  """Draws what a run learns over photos: skeletons, or the coloured hand of a texture branch."""
  shown = np.flatnonzero(~batch.is_padding)[:OVERLAY_IMAGES]
  if estimate.vertex_colors is not None:
    estimate = jax.tree.map(lambda leaf: jnp.asarray(leaf[shown]), estimate)
    return texture_sheet(
      batch.image[shown], _render_estimate(estimate, model, batch.image.shape[1])
    )
  return overlay_sheet(
    batch.image[shown],
    np.asarray(best_branch(estimate).joints_normalized.mean[shown]),
    np.where(known_joints(batch)[..., None], batch.joints_normalized, np.nan)[shown],
  )
