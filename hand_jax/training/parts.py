"""Opens a run's data and makes its first state and its compiled step, without writing anything."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from hand_jax.config import ExperimentConfig
from hand_jax.data.cached_rows import check_cached_features
from hand_jax.data.example_sources import ExampleSource, create_source, create_training_source
from hand_jax.data.pipeline import check_landmark_limit, check_prepared_hands
from hand_jax.models.hand_network import create_network
from hand_jax.runs.sources import latest_step
from hand_jax.runs.train_state import TrainState
from hand_jax.training import parallel
from hand_jax.training.camera_prior import CameraPrior, load_camera_prior
from hand_jax.training.objective import create_objective
from hand_jax.training.placement import Placements, create_placements
from hand_jax.training.state import create_optimizer, create_train_state
from hand_jax.training.step import EvalStep, make_eval_step, make_train_step
from hand_jax.training.warm_start import (
  WarmStart,
  check_cached_backbone,
  check_frozen_backbone,
  check_start,
  warm_start,
)
from hand_jax.types import ManoModel


class RunSources(NamedTuple):
  """The examples of a run."""

  training: ExampleSource
  validation: ExampleSource


class RunParts(NamedTuple):
  """The state, steps and constants of a run."""

  initial_state: TrainState
  """The state before the first step."""
  start: WarmStart
  """The parameters taken from other runs."""
  is_new: bool
  """Whether the run's folder has no checkpoint."""
  camera_prior: CameraPrior | None
  placements: Placements
  train_step: Callable
  """The mapped step. It is compiled at its first call."""
  eval_step: EvalStep
  """The evaluation step, not mapped."""
  constants: tuple
  """Arguments of both steps besides state and batch: the hand model and the prior's variables."""


def open_sources(
  config: ExperimentConfig,
  training: ExampleSource | None = None,
  validation: ExampleSource | None = None,
) -> RunSources:
  """Opens the examples of a run, and checks that they fit its config.

  Args:
    config: the run's config.
    training: the examples to train on. With None the config chooses them.
    validation: the examples to measure on. With None the config chooses them.

  Raises:
    FileNotFoundError: the data do not exist.
    ValueError: the data do not fit the config.
  """
  data, size = config.data, config.model.image_size
  if training is None:
    training = create_training_source(data, size)
  check_cached_features(training, config)
  check_prepared_hands(training, config)
  check_landmark_limit(training, config)
  if validation is None:
    count = config.training.validation_examples
    validation = create_source(data, data.validation_split, size, count)
  return RunSources(training, validation)


def make_parts(config: ExperimentConfig, workdir: str, model: ManoModel) -> RunParts:
  """Makes the first state of a run, including its warm start, and the compiled steps.

  Args:
    config: the run's config.
    workdir: the run's folder, which need not exist.
    model: the hand model.

  Raises:
    FileNotFoundError: a run from which this one starts is missing.
    ValueError: a run from which this one starts does not fit.
  """
  camera_prior = load_camera_prior(workdir, config)
  prior_config, prior_variables = (camera_prior or (None, None))[:2]
  network = create_network(config, axis_name=parallel.AXIS_NAME)
  optimizer = create_optimizer(config.optimizer, config.training.num_steps)
  state = create_train_state(config, network, optimizer, model)
  start = WarmStart(sources=(), fresh=())
  is_new = latest_step(workdir) is None
  if is_new:
    state, start = warm_start(state, config.training.init_from, model, config)
    check_start(create_objective(config), start)
    check_frozen_backbone(config, start)
    check_cached_backbone(config, state)
  placements = create_placements(config.training.parallel)
  step = make_train_step(config, network, optimizer, prior_config)
  return RunParts(
    initial_state=state,
    start=start,
    is_new=is_new,
    camera_prior=camera_prior,
    placements=placements,
    train_step=placements.training.map_train_step(step),
    eval_step=make_eval_step(config, network, prior_config),
    constants=(model, prior_variables),
  )


def check_batch_size(batch_size: int, accumulate_steps: int = 1) -> None:
  """Checks that a batch divides over all devices of all hosts, and each share into its parts.

  Raises:
    ValueError: the batch or a share does not divide.
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
