"""The outer loop of a run, `train_and_evaluate`, with everything that is not a pure function."""

import contextlib
import pathlib
import sys
from typing import NamedTuple, NoReturn

import jax
import numpy as np

from hand_jax.config import ExperimentConfig
from hand_jax.data.cached_rows import check_cached_features
from hand_jax.data.example_sources import ExampleSource, create_source, create_training_source
from hand_jax.data.landmark_errors import describe_selection
from hand_jax.data.pipeline import check_landmark_limit, check_prepared_hands, training_batches
from hand_jax.data.prepared import PreparedSource
from hand_jax.models.hand_network import create_network
from hand_jax.runs.checkpoints import (
  CONFIG_NAME,
  Checkpoints,
  check_workdir,
  claim_workdir,
  read_config,
)
from hand_jax.runs.damage import set_damaged_aside
from hand_jax.runs.hand_models import claim_hand_model
from hand_jax.runs.lineage import claim_lineage, make_lineage
from hand_jax.runs.sources import latest_step
from hand_jax.runs.train_state import TrainState
from hand_jax.setting_checks import validate_config
from hand_jax.training import parallel
from hand_jax.training.camera_prior import claim_camera_prior, load_camera_prior
from hand_jax.training.hosts import check_same_folder, check_same_step, failing_together
from hand_jax.training.objective import create_objective
from hand_jax.training.placement import create_placements
from hand_jax.training.preemption import Preempted, PreemptionWatch
from hand_jax.training.prefetch import DevicePrefetch
from hand_jax.training.progress import Progress
from hand_jax.training.reports import RunLog
from hand_jax.training.state import (
  count_parameters,
  create_optimizer,
  create_train_state,
  learning_rate_schedule,
)
from hand_jax.training.step import make_eval_step, make_train_step
from hand_jax.training.validation import Validator
from hand_jax.training.warm_start import (
  WarmStart,
  check_cached_backbone,
  check_frozen_backbone,
  check_start,
  claim_warm_start,
  describe_warm_start,
  warm_start,
)
from hand_jax.types import ManoModel


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
    FloatingPointError: `training.max_skipped_steps` steps in a row had numbers that are not finite.
      The message names step, terms and examples.
    Preempted: SIGTERM came. The run is saved, and the process ends with exit code 143 unless this
      is caught.
  """
  with failing_together():
    validate_config(config)
    check_batch_size(config.training.batch_size, config.training.accumulate_steps)
    check_workdir(workdir, config, extend)
    is_old = (pathlib.Path(workdir) / CONFIG_NAME).exists()
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
    if is_old and jax.process_index() == 0:
      for line in set_damaged_aside(workdir):
        print(line, file=sys.stderr, flush=True)
  check_same_folder(workdir)
  check_same_step(workdir, latest_step(workdir))
  with failing_together():
    run = _Run(config, workdir, model, validation_source)
  # Only now is the folder made, so that a failed command does not block its corrected version.
  with failing_together():
    claim_workdir(workdir, config, extend)
    claim_hand_model(workdir, model)
  with failing_together():
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


class _Records(NamedTuple):
  """What a run writes to, and who tells when to stop. Only the first host has a log."""

  log: RunLog | None
  progress: Progress
  checkpoints: Checkpoints
  preemption: PreemptionWatch


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
    self._validator = Validator(config, self._constants, eval_step, placements.evaluation)

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
    config, training = self._config, self._config.training
    with (
      PreemptionWatch() as preemption,
      Checkpoints(self._workdir, training.keep_checkpoints, training.best_metric) as checkpoints,
    ):
      state, position, saved = self._initial_state, 0, {}
      with failing_together():
        restored = checkpoints.restore_latest(like=state)
      if restored:
        state, position, saved = restored
      step = int(state.step)
      progress = Progress(config, saved, self._placement.unreplicate)
      self._announce(step, source, former_steps)
      # A run that was stopped before it wrote the row of this step writes it now.
      lacks_row = progress.has_row and _is_due(config, step)
      if step >= training.num_steps and not lacks_row:
        return state
      loader = training_batches(
        source,
        config,
        len(self._model.v_template),
        position,
        jax.process_index(),
        jax.process_count(),
      )
      # A kill after that row was written leaves the same checkpoint, so it is written once more.
      with loader, self._open_log(step - lacks_row) as log:
        records = _Records(log, progress, checkpoints, preemption)
        if lacks_row and self._report(records, state) is None:
          self._stop(step)
        host_state = state
        placement = self._placement
        batches = DevicePrefetch(loader, placement.shard_batch, position)
        state, constants = placement.replicate(state), placement.replicate(self._constants)
        while step < training.num_steps:
          batch = next(batches)
          names = [str(name) for name in batch.host.example_id]
          state, metrics = self._train_step(state, batch.on_devices, *constants)
          step += 1
          progress.add(step, metrics, names)
          is_preempted = preemption.is_due()
          if is_preempted or _is_due(config, step):
            host_state = placement.unreplicate(state)
            self._record(records, host_state, batches.position, is_preempted)
      return host_state

  def _record(
    self, records: '_Records', state: TrainState, position: int, is_preempted: bool
  ) -> None:
    """Writes what is due after a step: the row of the log first, and then the checkpoint.

    So a kill in between costs no row. The row is written again, with the same numbers, by the run
    that goes on from the checkpoint before.

    Raises:
      Preempted: the run has to stop, and was saved.
    """
    training, step = self._config.training, int(state.step)
    records.progress.flush()
    figures = {}
    if not is_preempted:
      validated = self._report(records, state)
      is_preempted, figures = validated is None, validated or {}
    if is_preempted or _every(training.checkpoint_every, step, training.num_steps):
      records.checkpoints.save(state, position, records.progress.to_json(), figures)
    if is_preempted:
      records.checkpoints.wait()
      self._stop(step)

  def _report(self, records: '_Records', state: TrainState) -> dict[str, float] | None:
    """Writes a row of the log and returns its validation figures.

    It returns None, and writes nothing, where the run has to be saved before they are computed.
    """
    training, step = self._config.training, int(state.step)
    figures = {}
    if _every(training.evaluate_every, step, training.num_steps):
      validation = self._validator.validate(state, self._validation_source, records.preemption)
      if validation is None:
        return None
      figures = validation.figures
      if records.log:
        records.log.write_image('validation', validation.picture, step)
    records.progress.write_row(records.log, step, figures)
    return figures

  def _stop(self, step: int) -> NoReturn:
    """Ends a run that has been saved."""
    ending = Preempted(self._workdir, step)
    if self._is_main:
      print(ending, file=sys.stderr, flush=True)
    raise ending

  def _open_log(self, step: int) -> contextlib.AbstractContextManager[RunLog | None]:
    """Opens the log on the first host. The others have none."""
    if not self._is_main:
      return contextlib.nullcontext()
    return RunLog(self._workdir, step, self._config.training.num_steps)

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


def _every(interval: int, step: int, num_steps: int) -> bool:
  return step % interval == 0 or step == num_steps


def _is_due(config: ExperimentConfig, step: int) -> bool:
  """Tells whether a step is reported, because it is logged, evaluated or saved, or is the last."""
  training = config.training
  intervals = (training.log_every, training.evaluate_every, training.checkpoint_every)
  return any(_every(interval, step, training.num_steps) for interval in intervals)
