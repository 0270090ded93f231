"""Checks that the settings of an experiment can be used together."""

import math

from hand_jax.config import (
  FEATURE_SIDE,
  PRETRAINED,
  DataConfig,
  ExperimentConfig,
  ModelConfig,
  TextureConfig,
  flatten_config,
)

# `validation_metrics` (training/reports.py) makes these names.
_LOSS_WEIGHTS = (
  *('vertices', 'joints', 'joints_2d', 'camera', 'kl', 'vertices_likelihood', 'prior_vertices'),
  *('joint_limits', 'shape_prior', 'pose_prior', 'orthonormality', 'joints_2d_prior'),
  *('silhouette', 'photometric_weight'),
)
_ERRORS = ('mpjpe_mm', 'mpvpe_mm', 'pa_mpjpe_mm', 'pa_mpvpe_mm', 'joints_2d_px')
VALIDATION_FIGURES = (
  'validation_total',
  *(f'validation_{name}' for name in _ERRORS),
  *(f'validation_prior_{name}' for name in _ERRORS),
)
"""Names of the figures that a validation during training may have."""


def validate_config(config: ExperimentConfig) -> ExperimentConfig:
  """Checks that the settings can be used together, and returns the same config.

  Raises:
    ValueError: a setting cannot be used. The text gives its full name and the expected value.
  """
  for path, value in flatten_config(config).items():
    if isinstance(value, float) and not math.isfinite(value):
      raise ValueError(f'{path} should be a finite number, got {value}.')
  model, training, data = config.model, config.training, config.data
  augmentation = data.augmentation
  _positive('model.image_size', model.image_size)
  _positive('model.attention.width', model.attention.width)
  _positive('model.attention.heads', model.attention.heads)
  _positive('model.attention.mlp_ratio', model.attention.mlp_ratio)
  for name in ('cross_layers', 'self_layers', 'coarse_vertices', 'map_channels'):
    if (count := getattr(model.attention, name)) < 0:
      raise ValueError(f'model.attention.{name} should not be negative, got {count}.')
  _between('model.attention.rounds', model.attention.rounds, 1, 2)
  _check_texture(model.texture)
  for name in ('prior_hidden', 'camera_hidden'):
    for width in getattr(model, name):
      _positive(f'model.{name}', width)
  _positive('loss.length_unit_m', config.loss.length_unit_m)
  _positive('optimizer.learning_rate', config.optimizer.learning_rate)
  _positive('data.crop_factor', data.crop_factor)
  counts = ('num_steps', 'batch_size', 'log_every', 'evaluate_every', 'checkpoint_every')
  for name in (*counts, 'accumulate_steps'):
    _positive(f'training.{name}', getattr(training, name))
  for name in ('keep_checkpoints', 'max_skipped_steps'):
    _positive(f'training.{name}', getattr(training, name))
  if training.best_metric and training.best_metric not in VALIDATION_FIGURES:
    raise ValueError(
      'training.best_metric should be a validation figure, or empty: expected one of '
      f'{", ".join(VALIDATION_FIGURES)}, got {training.best_metric!r}.'
    )
  for path, seed in (('training.seed', training.seed), ('data.seed', data.seed)):
    if seed < 0:
      raise ValueError(f'{path} should not be negative, got {seed}.')
  _between('model.pose_components', model.pose_components, 1, 45)
  _between('data.augmentation.scale_fraction', augmentation.scale_fraction, 0, 0.9)
  _between('data.augmentation.color_strength', augmentation.color_strength, 0, 0.9)
  if model.attention.width % model.attention.heads:
    raise ValueError(
      f'model.attention.width should be a multiple of model.attention.heads '
      f'({model.attention.heads}), got {model.attention.width}.'
    )
  if model.min_log_variance >= model.max_log_variance:
    raise ValueError(
      f'model.min_log_variance should be below model.max_log_variance '
      f'({model.max_log_variance}), got {model.min_log_variance}.'
    )
  if not model.min_log_variance < 0 < model.max_log_variance:
    raise ValueError(
      'model.min_log_variance should be below zero and model.max_log_variance above it, where an '
      f'untrained network starts; got {model.min_log_variance} and {model.max_log_variance}.'
    )
  _check_objective(config)
  _check_image_features(model)
  pretrained = model.backbone.pretrained
  if pretrained != 'none' and model.backbone.name != (meant := PRETRAINED.get(pretrained)):
    raise ValueError(
      f'model.backbone.pretrained={pretrained!r} exists for {meant} alone, not for '
      f'{model.backbone.name}: give a file in model.backbone.weights.'
    )
  _check_cached_features(config)
  _check_landmark_limit(data)
  if not data.data_dir and data.dataset != 'synthetic_hands':
    raise ValueError(
      f'data.data_dir should name the folder of the prepared {data.dataset}: only synthetic_hands '
      'can be rendered on the fly.'
    )
  if not data.data_dir and data.train_examples <= 0:
    raise ValueError(
      'data.train_examples should be positive when examples are rendered on the fly '
      '(data.data_dir is empty).'
    )
  return config


def _check_texture(texture: TextureConfig) -> None:
  for name in ('width', 'heads', 'mlp_ratio'):
    _positive(f'model.texture.{name}', getattr(texture, name))
  if texture.self_layers < 0:
    raise ValueError(
      f'model.texture.self_layers should not be negative, got {texture.self_layers}.'
    )
  if texture.width % texture.heads:
    raise ValueError(
      f'model.texture.width should be a multiple of model.texture.heads ({texture.heads}), got '
      f'{texture.width}.'
    )
  _between('model.texture.hidden_fraction', texture.hidden_fraction, 0, 0.95)


def _check_objective(config: ExperimentConfig) -> None:
  """Refuses a loss that the chosen branches of the network cannot serve."""
  model, loss = config.model, config.loss
  alone = loss.kind == 'photometric'
  if alone and (loss.photometric_weight or loss.silhouette):
    raise ValueError(
      "loss.kind='photometric' trains the texture branch alone, with one term: expected 0 for "
      f'loss.photometric_weight and loss.silhouette, got {loss.photometric_weight} and '
      f'{loss.silhouette}.'
    )
  if model.texture.enabled != (alone or loss.photometric_weight > 0):
    raise ValueError(
      "model.texture.enabled and loss.kind='photometric' go together, where the texture branch is "
      'trained alone, or a loss.photometric_weight, which trains it with the rest. Got '
      f'{model.texture.enabled}, {loss.kind!r} and {loss.photometric_weight}.'
    )
  if model.branches != 'both' and loss.kind not in ('l2', 'photometric'):
    raise ValueError(
      f'loss.kind={loss.kind!r} compares the posterior with the prior, which needs '
      f"model.branches='both', got {model.branches!r}: train one branch alone with loss.kind='l2'."
    )
  if model.branches == 'posterior' and model.vertex_offset_from != 'template':
    raise ValueError(
      "model.branches='posterior' has no prior's mesh to add to: expected "
      f"model.vertex_offset_from='template', got {model.vertex_offset_from!r}."
    )
  if model.prior_sigma == 'anatomical' and loss.convention != 'exact':
    raise ValueError(
      "model.prior_sigma='anatomical' has common causes, which the printed equations do not know: "
      f"expected loss.convention='exact', got {loss.convention!r}."
    )
  _positive('model.anatomy.angle_share', model.anatomy.angle_share)
  _positive('model.anatomy.vertex_sigma', model.anatomy.vertex_sigma)
  _positive('loss.likelihood_sigma', loss.likelihood_sigma)
  _positive('loss.samples', loss.samples)
  _positive('loss.scale_prior_sigma', loss.scale_prior_sigma)
  for name in ('silhouette_sigma', 'photometric_sigma', 'photometric_gamma'):
    _positive(f'loss.{name}', getattr(loss, name))
  _between('loss.silhouette_side', loss.silhouette_side, 16, 1024)
  _between('model.camera_log_variance', model.camera_log_variance, -7.5, 7.5)
  for name in ('sampling_scale', 'camera_sampling_scale', *_LOSS_WEIGHTS):
    if getattr(loss, name) < 0:
      raise ValueError(f'loss.{name} should not be negative, got {getattr(loss, name)}.')


def _check_image_features(model: ModelConfig) -> None:
  """Refuses image features that the backbone or the branches cannot serve."""
  attention = model.attention
  if attention.image_features == 'global':
    if attention.rounds != 1 or attention.map_channels:
      raise ValueError(
        'model.attention.rounds and model.attention.map_channels refine what is sampled: expected '
        f"1 and 0 with model.attention.image_features='global', got {attention.rounds} and "
        f'{attention.map_channels}.'
      )
    return
  if model.branches != 'both':
    raise ValueError(
      "model.attention.image_features='sampled' reads the image where the prior's mesh is, which "
      f"needs model.branches='both', got {model.branches!r}."
    )
  if model.backbone.name != 'hand_landmark' and not attention.map_channels:
    raise ValueError(
      f"model.attention.image_features='sampled' has nothing to sample: {model.backbone.name} "
      'gives no landmarks. Set model.attention.map_channels to a positive number, or take '
      'model.backbone.name=hand_landmark.'
    )


def _check_cached_features(config: ExperimentConfig) -> None:
  """Refuses cached features where the training needs the photo itself."""
  if config.data.features != 'cached':
    return
  wanted = {
    'model.backbone.name': 'hand_landmark',
    'model.backbone.pretrained': 'hands',
    'optimizer.backbone_learning_rate_scale': 0,
    'model.image_size': FEATURE_SIDE,
    'model.texture.enabled': False,
  }
  flat = flatten_config(config)
  for path, value in wanted.items():
    if flat[path] != value:
      text = str(value).lower() if isinstance(value, bool) else value
      raise ValueError(
        f"data.features='cached' holds the vector of the frozen landmark network for crops of "
        f'{FEATURE_SIDE} px: expected {path}={text}, got {flat[path]}.'
      )
  if not config.data.data_dir:
    raise ValueError(
      "data.features='cached' reads a prepared data set: name its folder in data.data_dir "
      '(prepare_dataset --with_features).'
    )


def _check_landmark_limit(data: DataConfig) -> None:
  """Refuses a limit of landmark errors where no errors are stored."""
  if data.max_landmark_error < 0:
    raise ValueError(
      f'data.max_landmark_error should not be negative, got {data.max_landmark_error}.'
    )
  if data.max_landmark_error and not data.data_dir:
    raise ValueError(
      f'data.max_landmark_error={data.max_landmark_error:g} reads the errors of a prepared data '
      'set: name its folder in data.data_dir (prepare_dataset --with_features).'
    )


def _positive(path: str, value: float | int) -> None:
  if not value > 0:
    raise ValueError(f'{path} should be positive, got {value}.')


def _between(path: str, value: float | int, low: float | int, high: float | int) -> None:
  if not low <= value <= high:
    raise ValueError(f'{path} should be between {low} and {high}, got {value}.')
