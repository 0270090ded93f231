"""Image encoders: ResNet-50 v1.5, EfficientNets B0 and Lite0, the hand network, `tiny` for tests.

Each encoder gives the pooled last map and the stem's half-resolution map (before ResNet's
max-pool). ResNet-50 and B0 have the architectures of torchvision, and Lite0 that of TensorFlow's
TPU models, so that published weights fit parameter for parameter
(`hand_jax/models/import_torch.py`). The classifiers, and EfficientNet's dropout and stochastic
depth, are left out. The hand network is the landmark network of `hand_jax/models/hand_landmark.py`,
which was trained on real hands.
"""

import functools
import importlib.resources
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from hand_jax.config import PRETRAINED, BackboneConfig
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.computing import Computing, spatial_mean
from hand_jax.models.hand_landmark import (
  HandLandmarkNetwork,
  HandLandmarkOutput,
  normalize_landmarks,
)
from hand_jax.models.import_torch import import_torch_weights, replace_leaves
from hand_jax.models.layers import Activation, ConvNorm, SqueezeExcite, max_pool, relu6
from hand_jax.types import ArrayLike, ImageFeatures

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of 0..255, RGB
IMAGENET_STD = (58.395, 57.12, 57.375)

# The number of blocks and the inner width of each stage.
RESNET50_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
# The index of `train` among a block's arguments, where 0 is the block itself.
TRAIN_ARGUMENT = (2,)


class EfficientNetStage(NamedTuple):
  """One row of EfficientNet's table 1, which repeats an inverted bottleneck."""

  expansion: int
  kernel_size: int
  stride: int
  features: int
  repeats: int


EFFICIENTNET_STAGES = (
  EfficientNetStage(1, 3, 1, 16, 1),
  EfficientNetStage(6, 3, 2, 24, 2),
  EfficientNetStage(6, 5, 2, 40, 2),
  EfficientNetStage(6, 3, 2, 80, 3),
  EfficientNetStage(6, 5, 1, 112, 3),
  EfficientNetStage(6, 5, 2, 192, 4),
  EfficientNetStage(6, 3, 1, 320, 1),
)


class Bottleneck(nn.Module):
  """Convolutions of 1x1, 3x3 and 1x1, whose output is added to the input (He et al. 2016).

  The 3x3 convolution has the stride, as in ResNet v1.5.
  """

  features: int
  stride: int
  conv_norm: Any

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width inputs'], train: bool
  ) -> Float[Array, 'batch _h _w outputs']:
    outputs = 4 * self.features
    y = self.conv_norm(self.features, activation=nn.relu, name='reduce')(x, train)
    y = self.conv_norm(self.features, 3, self.stride, activation=nn.relu, name='middle')(y, train)
    y = self.conv_norm(outputs, name='expand')(y, train)
    if x.shape != y.shape:
      x = self.conv_norm(outputs, 1, self.stride, name='shortcut')(x, train)
    return nn.relu(x + y)


class ResNet50(nn.Module):
  """ResNet-50 with a global feature of 2048 and a shallow map (side / 2) x (side / 2) x 64."""

  conv_norm: Any
  remat: bool = False

  @nn.compact
  def __call__(self, images: Float[Array, 'batch height width 3'], train: bool) -> ImageFeatures:
    shallow = self.conv_norm(64, 7, 2, activation=nn.relu, name='stem')(images, train)
    x = max_pool(shallow)
    make_block = Computing(remat=self.remat).block(Bottleneck, TRAIN_ARGUMENT)
    for stage, (repeats, features) in enumerate(RESNET50_STAGES):
      for block in range(repeats):
        stride = 2 if stage > 0 and block == 0 else 1
        name = f'stage{stage + 1}_block{block}'
        x = make_block(features, stride, self.conv_norm, name=name)(x, train)
    return ImageFeatures(spatial_mean(x), shallow, last_map=x)


class InvertedBottleneck(nn.Module):
  """Widens by 1x1, filters by depthwise, gates (B0 only), narrows by 1x1 (Sandler et al. 2018)."""

  settings: EfficientNetStage
  stride: int
  activation: Activation
  squeeze_excite: bool
  conv_norm: Any

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width inputs'], train: bool
  ) -> Float[Array, 'batch _h _w outputs']:
    inputs = x.shape[-1]
    size, wide = self.settings.kernel_size, inputs * self.settings.expansion
    active = functools.partial(self.conv_norm, activation=self.activation)
    y = x
    if wide != inputs:
      y = active(wide, name='expand')(y, train)
    y = active(wide, size, self.stride, depthwise=True, name='depthwise')(y, train)
    if self.squeeze_excite:
      y = SqueezeExcite(max(1, inputs // 4), name='squeeze_excite')(y)
    y = self.conv_norm(self.settings.features, name='project')(y, train)
    return x + y if x.shape == y.shape else y


class EfficientNet(nn.Module):
  """EfficientNet with a global feature of 1280 (Tan and Le 2019).

  The shallow map is (side / 2) x (side / 2) x 32.
  """

  activation: Activation
  squeeze_excite: bool
  conv_norm: Any
  remat: bool = False

  @nn.compact
  def __call__(self, images: Float[Array, 'batch height width 3'], train: bool) -> ImageFeatures:
    active = functools.partial(self.conv_norm, activation=self.activation)
    x = shallow = active(32, 3, 2, name='stem')(images, train)
    make_block = Computing(remat=self.remat).block(InvertedBottleneck, TRAIN_ARGUMENT)
    for stage, settings in enumerate(EFFICIENTNET_STAGES):
      for block in range(settings.repeats):
        x = make_block(
          settings,
          settings.stride if block == 0 else 1,
          self.activation,
          self.squeeze_excite,
          self.conv_norm,
          name=f'stage{stage + 1}_block{block}',
        )(x, train)
    x = active(1280, name='head')(x, train)
    return ImageFeatures(spatial_mean(x), shallow, last_map=x)


class TinyBackbone(nn.Module):
  """Three small convolutions for tests.

  The global feature has 64 numbers, and the shallow map is (side / 2) x (side / 2) x 16.
  """

  conv_norm: Any

  @nn.compact
  def __call__(self, images: Float[Array, 'batch height width 3'], train: bool) -> ImageFeatures:
    active = functools.partial(self.conv_norm, activation=nn.relu)
    shallow = active(16, 3, 2, name='stem')(images, train)
    x = active(32, 3, 2, name='middle')(shallow, train)
    x = active(64, 3, 2, name='head')(x, train)
    return ImageFeatures(spatial_mean(x), shallow, last_map=x)


class HandLandmarkBackbone(HandLandmarkNetwork):
  """The landmark network as a backbone, with a global feature of 1152 and landmarks.

  The shallow map is (side / 2) x (side / 2) x 16 and the last map (side / 32) x (side / 32) x 1152.
  There are no batch statistics, because its normalisation is folded into the convolutions.
  """

  def __call__(self, images: Float[Array, 'batch height width 3'], train: bool) -> ImageFeatures:
    del train
    return landmark_features(super().__call__(images))


def landmark_features(output: HandLandmarkOutput) -> ImageFeatures:
  """Picks the features of a backbone from the landmark network's output."""
  return ImageFeatures(
    output.global_feature,
    output.shallow_map,
    normalize_landmarks(output.landmarks),
    output.last_map,
    output.world_landmarks,
    output.middle_map,
  )


ConvNormFactory = Callable[..., nn.Module]


def _efficientnet_b0(conv_norm: ConvNormFactory) -> nn.Module:
  return EfficientNet(nn.silu, True, conv_norm)


def _efficientnet_lite0(conv_norm: ConvNormFactory) -> nn.Module:
  # Its weights were trained with TensorFlow's padding and batch normalisation.
  lite = functools.partial(conv_norm, padding='same', momentum=0.99, epsilon=1e-3)
  return EfficientNet(relu6, False, lite)


def _hand_landmark(conv_norm: ConvNormFactory) -> nn.Module:
  del conv_norm  # its normalisation is folded into the convolutions
  return HandLandmarkBackbone()


_BACKBONES: dict[str, Callable[[ConvNormFactory], nn.Module]] = {
  'resnet50': ResNet50,
  'efficientnet_b0': _efficientnet_b0,
  'efficientnet_lite0': _efficientnet_lite0,
  'hand_landmark': _hand_landmark,
  'tiny': TinyBackbone,
}
"""Each backbone of `BackboneConfig.name`, built from its convolution with normalisation."""


def create_backbone(
  config: BackboneConfig, axis_name: str | None = None, remat: bool = False
) -> nn.Module:
  """Makes the module of `config.name`, which maps (normalised images, train) to `ImageFeatures`.

  Args:
    config: names the backbone and the mode of its batch normalisation.
    axis_name: the axis over devices to average batch statistics over. It has no effect with frozen
      batch normalisation, or on hand_landmark, which has none.
    remat: whether a gradient computes the blocks' activations again instead of keeping them, in
      backbones that have a field of this name.

  Raises:
    ValueError: the name or the mode of batch normalisation is unknown.
  """
  if config.batch_norm not in ('train', 'frozen'):
    raise ValueError(f"batch_norm is '{config.batch_norm}'; expected 'train' or 'frozen'.")
  if config.name not in _BACKBONES:
    names = ', '.join(_BACKBONES)
    raise ValueError(f"unknown backbone '{config.name}'; expected one of {names}.")
  frozen = config.batch_norm == 'frozen'
  conv_norm = functools.partial(ConvNorm, frozen=frozen, axis_name=axis_name)
  backbone = _BACKBONES[config.name](conv_norm)
  return backbone.clone(remat=True) if remat and hasattr(backbone, 'remat') else backbone


def normalize_image(
  image: UInt8[ArrayLike, '*batch height width 3'], name: str
) -> Float[Array, '*batch height width 3']:
  """Maps RGB 0..255 to the values that the backbone `name` was trained on.

  These are (x - 127) / 128 for efficientnet_lite0, x / 255 for hand_landmark, and ImageNet's
  (x - mean) / standard deviation for the others.
  """
  image = jnp.asarray(image, jnp.float32)
  if name == 'hand_landmark':
    return image / 255.0
  if name == 'efficientnet_lite0':
    return (image - 127.0) / 128.0
  trailing = (1,) * (image.ndim - 1) + (3,)
  mean = jnp.asarray(IMAGENET_MEAN, jnp.float32).reshape(trailing)
  std = jnp.asarray(IMAGENET_STD, jnp.float32).reshape(trailing)
  return (image - mean) / std


def display_image(
  normalized: Float[Array, '*batch height width 3'], name: str
) -> Float[Array, '*batch height width 3']:
  """Converts a backbone's input back to display RGB in [0, 1], see `normalize_image`."""
  black, white = (normalize_image(np.full((1, 1, 3), value, np.uint8), name) for value in (0, 255))
  trailing = (1,) * (normalized.ndim - 1) + (3,)
  black, white = black.reshape(trailing), white.reshape(trailing)
  return (jnp.asarray(normalized, jnp.float32) - black) / (white - black)


def load_backbone_variables(config: BackboneConfig, variables: dict[str, Any]) -> dict[str, Any]:
  """Replaces an initialised backbone's variables by pretrained ones, where the config names any.

  Args:
    config: its `weights` names a torchvision `.pth` or `.safetensors` file. Its `pretrained` takes
      weights from the package: 'imagenet' for efficientnet_lite0, 'hands' for hand_landmark.
    variables: the backbone's 'params' and 'batch_stats'.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: both settings are given, the weights are for another backbone, or the file does not
      hold exactly this backbone.
  """
  if config.weights and config.pretrained != 'none':
    raise ValueError(
      f"both weights='{config.weights}' and pretrained='{config.pretrained}' are set; keep one."
    )
  if config.weights:
    return import_torch_weights(config.weights, config.name, variables)
  if config.pretrained == 'none':
    return variables
  if config.name != PRETRAINED.get(config.pretrained):
    raise ValueError(
      f"no pretrained='{config.pretrained}' weights come with the package for '{config.name}', "
      "only 'imagenet' for efficientnet_lite0 and 'hands' for hand_landmark; set `weights` to a "
      'torchvision file instead.'
    )
  if config.pretrained == 'hands':
    return load_bundled_parameters('hand_landmark')
  asset = importlib.resources.files('hand_jax') / 'assets' / 'efficientnet_lite0.npz'
  with importlib.resources.as_file(asset) as path, np.load(path) as arrays:
    return replace_leaves(variables, dict(arrays), 'efficientnet_lite0.npz')
