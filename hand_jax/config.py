"""Frozen dataclasses for one experiment. Named experiments live in `experiments/configs.py`."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
  """Image encoder. `pretrained` 'imagenet' exists for efficientnet_lite0; others take `weights`."""

  name: Literal['resnet50', 'efficientnet_b0', 'efficientnet_lite0', 'tiny'] = 'resnet50'
  pretrained: Literal['none', 'imagenet'] = 'none'
  weights: str = ''  # a torchvision .pth or .safetensors file, or empty
  batch_norm: Literal['train', 'frozen'] = 'train'  # frozen: running statistics, never updated


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
  """AMVUR's blocks: cross-attention (vertices over joints), then self-attention over vertices."""

  width: int = 512
  heads: int = 4
  cross_layers: int = 1
  self_layers: int = 4
  mlp_ratio: int = 4


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The network. Log-variances are of metres squared after `length_unit_m`, see the bounds."""

  image_size: int = 224
  backbone: BackboneConfig = BackboneConfig()
  prior_hidden: tuple[int, ...] = (1024, 512)
  camera_hidden: tuple[int, ...] = (512,)
  pose_components: int = 45  # below 45: PCA coefficients of the model's pose space
  attention: AttentionConfig = AttentionConfig()
  vertex_offset_from: Literal['template', 'prior'] = 'template'  # what the mean head adds to
  # Bounds of the vertex log-variance, in units of length_unit_m squared.
  min_log_variance: float = -8.0
  max_log_variance: float = 6.0


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights of the loss terms by name, and the two conventions of the derivations."""

  kind: Literal['gaussian', 'l2'] = 'gaussian'
  convention: Literal['paper', 'exact'] = 'paper'
  length_unit_m: float = 0.01
  vertices: float = 1.0
  joints: float = 1.0
  joints_2d: float = 1.0
  camera: float = 1.0
  kl: float = 1.0  # multiplies the KL part of each Gaussian term
  joint_limits: float = 0.0
  shape_prior: float = 0.0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW with linear warm-up and cosine decay to `final_fraction` of the learning rate."""

  learning_rate: float = 1e-4
  backbone_learning_rate_scale: float = 1.0
  warmup_steps: int = 500
  final_fraction: float = 0.01
  weight_decay: float = 1e-4
  gradient_clip_norm: float = 1.0  # 0: off


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
  """Random changes of a training crop; zero switches one off."""

  rotation_degrees: float = 30.0
  scale_fraction: float = 0.15
  shift_fraction: float = 0.08
  color_strength: float = 0.2


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where examples come from. An empty `data_dir` renders synthetic hands on the fly."""

  dataset: str = 'synthetic_hands'
  data_dir: str = ''
  train_split: str = 'train'
  validation_split: str = 'validation'
  train_examples: int = 0  # 0: all of the split (needed when rendering on the fly)
  crop_factor: float = 2.0  # crop side over the larger side of the hand's box
  render_workers: int = 1
  augmentation: AugmentationConfig = AugmentationConfig()


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """The run's length, rhythm and seed; `batch_size` is over all devices and hosts."""

  num_steps: int = 10000
  batch_size: int = 32
  seed: int = 0
  log_every: int = 50
  evaluate_every: int = 1000
  checkpoint_every: int = 1000
  keep_checkpoints: int = 2
  validation_examples: int = 256


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
  """One experiment, whole; written to the workdir and read back from it."""

  name: str = 'synthetic_supervised'
  model: ModelConfig = ModelConfig()
  loss: LossConfig = LossConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  data: DataConfig = DataConfig()
  training: TrainingConfig = TrainingConfig()
