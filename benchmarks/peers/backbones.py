"""ResNet-50, EfficientNet-B0 and Lite0 in PyTorch, as torchvision and timm write them.

Submodules have the names of this project's modules, so that `benchmarks.peers.weights` can copy
parameters by name. torchvision itself, whose builds depend on those of torch, is not needed.
"""

import torch
from torch import nn
from torch.nn import functional as F

from hand_jax.models.backbone import EFFICIENTNET_STAGES, RESNET50_STAGES, EfficientNetStage


class ConvNorm(nn.Module):
  """A convolution with batch normalisation and, where one is given, an activation."""

  def __init__(
    self, inputs, outputs, size=1, stride=1, groups=1, activation=None, same=False, epsilon=1e-5
  ):
    super().__init__()
    self.same, self.size, self.stride = same, size, stride
    padding = 0 if same else size // 2
    self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)
    self.norm = nn.BatchNorm2d(outputs, eps=epsilon)
    self.activation = activation

  def forward(self, x):
    """Applies the three, after TensorFlow's padding where `same` asks for it."""
    if self.same:
      x = F.pad(x, self._padding(x))
    x = self.norm(self.conv(x))
    return x if self.activation is None else self.activation(x)

  def _padding(self, x):
    """Left, right, top and bottom, the larger part after the image."""
    sides = []
    for n in (x.shape[3], x.shape[2]):
      total = max((-(-n // self.stride) - 1) * self.stride + self.size - n, 0)
      sides += [total // 2, total - total // 2]
    return sides


def _relu(x):
  return F.relu(x, inplace=True)


def _silu(x):
  return F.silu(x, inplace=True)


def _relu6(x):
  return F.relu6(x, inplace=True)


class Bottleneck(nn.Module):
  """The residual block of ResNet-50."""

  def __init__(self, inputs: int, features: int, stride: int):
    super().__init__()
    outputs = 4 * features
    self.reduce = ConvNorm(inputs, features, activation=_relu)
    self.middle = ConvNorm(features, features, 3, stride, activation=_relu)
    self.expand = ConvNorm(features, outputs)
    same = inputs == outputs and stride == 1
    self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride)

  def forward(self, x):
    """Adds the branch to the shortcut."""
    return _relu(self.expand(self.middle(self.reduce(x))) + self.shortcut(x))


class ResNet50(nn.Module):
  """ResNet-50 up to its global feature of 2048."""

  def __init__(self):
    super().__init__()
    self.stem = ConvNorm(3, 64, 7, 2, activation=_relu)
    self.blocks, inputs = [], 64
    for stage, (repeats, features) in enumerate(RESNET50_STAGES):
      for block in range(repeats):
        stride = 2 if stage > 0 and block == 0 else 1
        name = f'stage{stage + 1}_block{block}'
        self.add_module(name, Bottleneck(inputs, features, stride))
        self.blocks.append(name)
        inputs = 4 * features

  def forward(self, x):
    """Maps normalised images to global features."""
    x = F.max_pool2d(self.stem(x), 3, 2, 1)
    for name in self.blocks:
      x = getattr(self, name)(x)
    return x.mean((2, 3))


class SqueezeExcite(nn.Module):
  """Gates of the channels from their means."""

  def __init__(self, channels: int, squeezed: int):
    super().__init__()
    self.reduce = nn.Conv2d(channels, squeezed, 1)
    self.expand = nn.Conv2d(squeezed, channels, 1)

  def forward(self, x):
    """Multiplies the channels by their gates."""
    pooled = F.adaptive_avg_pool2d(x, 1)
    return x * torch.sigmoid(self.expand(_silu(self.reduce(pooled))))


class InvertedBottleneck(nn.Module):
  """The block of EfficientNet."""

  def __init__(self, inputs: int, settings: EfficientNetStage, stride: int, lite: bool):
    super().__init__()
    wide = inputs * settings.expansion
    active = {'activation': _relu6 if lite else _silu, **norm_options(lite)}
    self.expand = ConvNorm(inputs, wide, **active) if wide != inputs else nn.Identity()
    self.depthwise = ConvNorm(wide, wide, settings.kernel_size, stride, wide, **active)
    self.squeeze_excite = nn.Identity() if lite else SqueezeExcite(wide, max(1, inputs // 4))
    self.project = ConvNorm(wide, settings.features, **norm_options(lite))
    self.residual = inputs == settings.features and stride == 1

  def forward(self, x):
    """Filters and gates the features, and adds the input where it has the same shape."""
    y = self.project(self.squeeze_excite(self.depthwise(self.expand(x))))
    return x + y if self.residual else y


class EfficientNet(nn.Module):
  """EfficientNet-B0, or Lite0 without gates and with TensorFlow's padding, of 1280 features."""

  def __init__(self, lite: bool = False):
    super().__init__()
    active = {'activation': _relu6 if lite else _silu, **norm_options(lite)}
    self.stem = ConvNorm(3, 32, 3, 2, **active)
    self.blocks, inputs = [], 32
    for stage, settings in enumerate(EFFICIENTNET_STAGES):
      for block in range(settings.repeats):
        stride = settings.stride if block == 0 else 1
        name = f'stage{stage + 1}_block{block}'
        self.add_module(name, InvertedBottleneck(inputs, settings, stride, lite))
        self.blocks.append(name)
        inputs = settings.features
    self.head = ConvNorm(inputs, 1280, **active)

  def forward(self, x):
    """Maps normalised images to global features."""
    x = self.stem(x)
    for name in self.blocks:
      x = getattr(self, name)(x)
    return self.head(x).mean((2, 3))


def norm_options(lite: bool) -> dict:
  """Returns what the convolutions of Lite0 do otherwise than those of B0."""
  return {'same': True, 'epsilon': 1e-3} if lite else {}


BACKBONES = {
  'resnet50': ResNet50,
  'efficientnet_b0': EfficientNet,
  'efficientnet_lite0': lambda: EfficientNet(lite=True),
}
