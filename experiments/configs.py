"""Named experiments: each takes the defaults and changes what differs."""

import difflib

from hand_jax.config import (
  AttentionConfig,
  AugmentationConfig,
  BackboneConfig,
  DataConfig,
  ExperimentConfig,
  LossConfig,
  ModelConfig,
  OptimizerConfig,
  TrainingConfig,
  validate_config,
)


def synthetic_supervised() -> ExperimentConfig:
  """The paper's supervised model (Algorithm 3) at Table 1's full size, for accelerators."""
  return ExperimentConfig(
    name='synthetic_supervised',
    model=ModelConfig(
      image_size=224,
      backbone=BackboneConfig(name='resnet50'),
      prior_hidden=(1024, 512),
      camera_hidden=(512,),
      pose_components=38,  # with 10 shape numbers, Table 1's 48 outputs
      attention=AttentionConfig(width=512, heads=4, cross_layers=1, self_layers=4),
    ),
    optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=1000),
    data=DataConfig(train_examples=100_000, render_workers=4),
    training=TrainingConfig(num_steps=200_000, batch_size=64, evaluate_every=5000),
  )


def synthetic_small() -> ExperimentConfig:
  """A model two CPU cores can train: ImageNet-pretrained Lite0, narrow attention, coarse vertices.

  The weights bring camera, joints and vertices to one order: a sum over 2334 vertex coordinates
  would drown the camera's ten numbers.
  """
  return ExperimentConfig(
    name='synthetic_small',
    model=ModelConfig(
      image_size=112,
      backbone=BackboneConfig(name='efficientnet_lite0', pretrained='imagenet'),
      prior_hidden=(512,),
      camera_hidden=(256,),
      attention=AttentionConfig(
        width=128, heads=4, cross_layers=1, self_layers=2, mlp_ratio=2, coarse_vertices=195
      ),
      vertex_offset_from='prior',
    ),
    loss=LossConfig(convention='paper', joints=5.0, joints_2d=10.0, camera=2000.0),
    optimizer=OptimizerConfig(
      learning_rate=1e-3, backbone_learning_rate_scale=0.3, warmup_steps=100
    ),
    data=DataConfig(
      train_examples=24576,
      crop_factor=1.4,
      render_size=128,
      augmentation=AugmentationConfig(rotation_degrees=45.0),
    ),
    training=TrainingConfig(
      num_steps=4000,
      batch_size=32,
      log_every=50,
      evaluate_every=500,
      checkpoint_every=500,
      validation_examples=256,
    ),
  )


def toy() -> ExperimentConfig:
  """Everything once, in seconds: for tests, and for a first look at what a run writes."""
  return ExperimentConfig(
    name='toy',
    model=ModelConfig(
      image_size=64,
      backbone=BackboneConfig(name='tiny'),
      prior_hidden=(32,),
      camera_hidden=(16,),
      pose_components=12,
      attention=AttentionConfig(width=8, heads=2, cross_layers=1, self_layers=1, mlp_ratio=2),
      vertex_offset_from='prior',
    ),
    loss=LossConfig(convention='exact'),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
    data=DataConfig(
      train_examples=16,
      augmentation=AugmentationConfig(rotation_degrees=15.0, scale_fraction=0.1),
    ),
    training=TrainingConfig(
      num_steps=12,
      batch_size=4,
      log_every=3,
      evaluate_every=6,
      checkpoint_every=6,
      validation_examples=6,
    ),
  )


EXPERIMENTS = {
  experiment.__name__: experiment for experiment in (synthetic_supervised, synthetic_small, toy)
}


def get_config(name: str) -> ExperimentConfig:
  """The experiment of that name.

  Raises:
    ValueError: there is none; the message lists those there are.
  """
  if name not in EXPERIMENTS:
    near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
    hint = f' Did you mean {near[0]}?' if near else ''
    raise ValueError(f'Unknown config {name!r}.{hint} There are {", ".join(EXPERIMENTS)}.')
  return validate_config(EXPERIMENTS[name]())
