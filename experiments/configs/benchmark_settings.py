"""Settings that the experiments on FreiHAND and HO3D share: loss, crops, augmentation, schedule."""

from dataclasses import replace
from typing import Literal

from experiments.configs.synthetic import WEAK_ELBO, synthetic_supervised, synthetic_weak
from hand_jax.config import AugmentationConfig, DataConfig, ExperimentConfig, LossConfig

# These weights give the terms of camera, joints and vertices one order of magnitude, as in
# `synthetic_small`.
BENCHMARK_LOSS = LossConfig(
  convention='paper', joints=5.0, joints_2d=5.0, camera=700.0, shape_prior=3.0
)
# These are 40 epochs in batches of 64. The paper's release trains for as many epochs.
_STEPS = {'freihand': 81_000, 'ho3d_v2': 41_000, 'ho3d_v3': 49_000}
# The paper's release trains on the crops without augmentation.
_AUGMENTATION = AugmentationConfig(
  rotation_degrees=30.0, scale_fraction=0.1, shift_fraction=0.05, color_strength=0.2
)


def supervised(dataset: str, name: str) -> ExperimentConfig:
  """Builds Algorithm 1 with ResNet-50 on the training split of a data set."""
  full = replace(synthetic_supervised(), loss=BENCHMARK_LOSS)
  return _on(dataset, full, name, '3d')


def weakly_supervised(dataset: str, name: str) -> ExperimentConfig:
  """Builds Algorithm 2 with EfficientNet-B0 on the 2D joints of a data set's training split."""
  weak = replace(synthetic_weak(), loss=WEAK_ELBO)
  return _on(dataset, weak, name, '2d')


def _on(
  dataset: str, config: ExperimentConfig, name: str, labels: Literal['3d', '2d']
) -> ExperimentConfig:
  data = DataConfig(
    dataset=dataset,
    hands='classic',
    labels=labels,
    data_dir='prepared',
    crop_factor=2.0,
    render_workers=8,
    augmentation=_AUGMENTATION,
  )
  training = replace(
    config.training,
    num_steps=_STEPS[dataset],
    batch_size=64,
    evaluate_every=2000,
    checkpoint_every=2000,
    validation_examples=0,
  )
  return replace(config, name=name, data=data, training=training)
