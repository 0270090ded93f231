"""Holds the outer loop of a run, `train_and_evaluate`, with all parts that are not pure."""

import contextlib
import sys
from typing import NamedTuple, NoReturn

import jax

from hand_jax.config import ExperimentConfig
from hand_jax.data.example_sources import ExampleSource
from hand_jax.data.landmark_errors import describe_selection
from hand_jax.data.pipeline import training_batches
from hand_jax.data.prepared import PreparedSource
from hand_jax.files.buckets import open_path
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
from hand_jax.training.announcing import (
  describe_devices,
  describe_extension,
  describe_parameters,
)
from hand_jax.training.camera_prior import claim_camera_prior
from hand_jax.training.hosts import (
  check_same_folder,
  check_same_settings,
  check_same_step,
  failing_together,
)
from hand_jax.training.parts import RunSources, check_batch_size, make_parts, open_sources
from hand_jax.training.preemption import Preempted, PreemptionWatch
from hand_jax.training.prefetch import DevicePrefetch
from hand_jax.training.profiling import ProfiledSteps, Profiler
from hand_jax.training.progress import Progress
from hand_jax.training.reports import RunLog
from hand_jax.training.validation import Validator
from hand_jax.training.warm_start import claim_warm_start, describe_warm_start
from hand_jax.types import ManoModel


def train_and_evaluate(
  config: ExperimentConfig,
  workdir: str,
  model: ManoModel,
  train_source: ExampleSource | None = None,
  validation_source: ExampleSource | None = None,
  extend: bool = False,
  profile: ProfiledSteps | None = None,
) -> TrainState:
  """Runs an experiment to its last step on all devices, or continues the run in `workdir`.

  On the same machine and devices, a continued run equals the uninterrupted one bit for bit.
  The workdir gets `config.json`, `lineage.json`, `metrics.jsonl`, `tensorboard/`, `overlays/` and
  `checkpoints/`. A warm start (`training.init_from`) adds `init_from.json`, and the elbo adds its
  own copy of the `camera_prior/`.

  Args:
    config: the run's config.
    workdir: the run's folder, which need not exist.
    model: the hand model, which has to be the one of the data's labels.
    train_source: the examples to train on. With None the config chooses them.
    validation_source: the examples to measure on. With None the config chooses them.
    extend: whether the run in `workdir` may have fewer steps than the config. It continues with the
      learning rate's schedule for all of the config's steps.
    profile: the steps to trace into `profile/` of the workdir, or None for none.

  Returns:
    The last state, as numpy arrays.

  Raises:
    ValueError: the config cannot work, `workdir` holds another config, a checkpoint is unreadable,
      or a warm start or camera prior does not fit.
    FileNotFoundError: there is no run to take a warm start or camera prior from.
    FileExistsError: `workdir` holds files that belong to no run, see `check_workdir`.
    FloatingPointError: `training.max_skipped_steps` steps in a row had numbers that are not finite.
      The message names step, terms and examples.
    Preempted: SIGTERM came. The run is saved, and the process ends with exit code 143 unless the
      caller catches this.
  """
  with failing_together():
    validate_config(config)
    check_batch_size(config.training.batch_size, config.training.accumulate_steps)
    check_workdir(workdir, config, extend)
    is_old = (open_path(workdir) / CONFIG_NAME).exists()
    former_steps = read_config(workdir).training.num_steps if extend else config.training.num_steps
    sources = open_sources(config, train_source, validation_source)
    if is_old and jax.process_index() == 0:
      for line in set_damaged_aside(workdir):
        print(line, file=sys.stderr, flush=True)
  check_same_settings(config)
  check_same_folder(workdir)
  with failing_together():
    step = latest_step(workdir)
  check_same_step(workdir, step)
  with failing_together():
    run = _Run(config, workdir, model, sources, profile)
  # Only now is the folder made, so that a failed command does not block its corrected version.
  with failing_together():
    claim_workdir(workdir, config, extend)
    claim_hand_model(workdir, model)
  with failing_together():
    run.claim()
  return run.train(former_steps)


class _Records(NamedTuple):
  """The outputs of a run, and the watch for preemption. Only the first host has a log."""

  log: RunLog | None
  progress: Progress
  checkpoints: Checkpoints
  preemption: PreemptionWatch


class _Run:
  """One process' part of a run, with the compiled steps, the state on devices, and the reports."""

  def __init__(
    self,
    config: ExperimentConfig,
    workdir: str,
    model: ManoModel,
    sources: RunSources,
    profile: ProfiledSteps | None,
  ):
    self._config, self._workdir, self._model = config, workdir, model
    self._sources, self._profile = sources, profile
    self._is_main = jax.process_index() == 0
    self._parts = make_parts(config, workdir, model)
    self._placement = self._parts.placements.training
    self._validator = Validator(
      config, self._parts.constants, self._parts.eval_step, self._parts.placements.evaluation
    )

  def claim(self) -> None:
    """Records in the workdir where a new run's parameters and camera prior come from."""
    prior, start = self._parts.camera_prior, self._parts.start
    claim_camera_prior(self._workdir, prior)
    if not self._parts.is_new:
      return
    origins = [source.origin for source in start.sources]
    lineage = make_lineage(self._config, origins, prior.origin if prior else None)
    claim_lineage(self._workdir, lineage)
    if origins:
      claim_warm_start(self._workdir, start)

  def train(self, former_steps: int) -> TrainState:
    """Trains to the last step. `former_steps` is the run's length before it was extended."""
    config, training = self._config, self._config.training
    with (
      PreemptionWatch() as preemption,
      Checkpoints(self._workdir, training.keep_checkpoints, training.best_metric) as checkpoints,
    ):
      state, position, saved = self._parts.initial_state, 0, {}
      with failing_together():
        restored = checkpoints.restore_latest(like=state)
      if restored:
        state, position, saved = restored
      step = int(state.step)
      progress = Progress(config, saved, self._placement.unreplicate)
      self._announce(step, former_steps)
      # A run that was stopped before it wrote the row of this step writes it now.
      lacks_row = progress.has_row and _is_due(config, step)
      if step >= training.num_steps and not lacks_row:
        return state
      loader = training_batches(
        self._sources.training,
        config,
        len(self._model.v_template),
        position,
        jax.process_index(),
        jax.process_count(),
        self._model.faces,
      )
      # A kill after that row was written leaves the same checkpoint, so it is written once more.
      profiling = Profiler(self._workdir, self._profile)
      with loader, self._open_log(step - lacks_row) as log, profiling as profiler:
        records = _Records(log, progress, checkpoints, preemption)
        if lacks_row and self._report(records, state) is None:
          self._stop(step)
        host_state = state
        placement = self._placement
        batches = DevicePrefetch(loader, placement.shard_batch, position)
        state = placement.replicate(state)
        constants = placement.replicate(self._parts.constants)
        while step < training.num_steps:
          batch = next(batches)
          names = [str(name) for name in batch.host.example_id]
          profiler.start(step + 1)
          state, metrics = self._parts.train_step(state, batch.on_devices, *constants)
          step += 1
          profiler.stop(step, metrics)
          progress.add(step, metrics, names)
          is_preempted = preemption.is_due()
          if is_preempted or _is_due(config, step):
            host_state = placement.unreplicate(state)
            self._record(records, host_state, batches.position, is_preempted)
      return host_state

  def _record(
    self, records: '_Records', state: TrainState, position: int, is_preempted: bool
  ) -> None:
    """Writes the outputs that are due after a step, first the row of the log, then the checkpoint.

    So no row is lost if the process is killed in between. The run that continues from the previous
    checkpoint writes the row again, with the same numbers.

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

    It returns None, and writes nothing, if the run has to be saved before they are computed.
    """
    training, step = self._config.training, int(state.step)
    figures = {}
    if _every(training.evaluate_every, step, training.num_steps):
      validation = self._validator.validate(state, self._sources.validation, records.preemption)
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

  def _announce(self, step: int, former_steps: int) -> None:
    if not self._is_main:
      return
    print(describe_parameters(self._config, self._parts.initial_state))
    devices = describe_devices()
    source = self._sources.training
    if step >= self._config.training.num_steps:
      print(
        f'{self._workdir} has finished its {step} steps already; nothing to do. With --extend it '
        'trains further, to a larger training.num_steps.',
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
      if self._parts.start.sources:
        print('\n'.join(describe_warm_start(self._parts.start)))
      print(f'Training in {self._workdir} on {devices}; compiling the step.', flush=True)


def _every(interval: int, step: int, num_steps: int) -> bool:
  return step % interval == 0 or step == num_steps


def _is_due(config: ExperimentConfig, step: int) -> bool:
  """Returns whether a step is reported: it is logged, evaluated or saved, or it is the last one."""
  training = config.training
  intervals = (training.log_every, training.evaluate_every, training.checkpoint_every)
  return any(_every(interval, step, training.num_steps) for interval in intervals)
