"""Compares forward passes of the backbones with PyTorch in channels-last form.

  python -m benchmarks.backbones

This needs torch (pip install -e '.[benchmark]'). Both sides run the same architectures in float32
and evaluation mode, in turn and in one process. PyTorch's networks are written here from the
papers. So torchvision, whose builds depend on those of torch, need not be installed.
"""

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags
from torch import nn

from benchmarks.interleave import compare
from hand_jax.config import BackboneConfig
from hand_jax.models.backbone import EFFICIENTNET_STAGES, RESNET50_STAGES, create_backbone

_BATCH = flags.DEFINE_integer('batch', 8, 'Images in a batch.')
_SIDE = flags.DEFINE_integer('side', 224, 'Side of the images in pixels.')
_REPEATS = flags.DEFINE_integer('repeats', 20, 'Timed calls of each competitor.')
_THREADS = flags.DEFINE_integer('threads', os.cpu_count(), 'Threads that PyTorch may use.')
_BAR = 1.25


def conv_norm(inputs, outputs, size=1, stride=1, groups=1, activation=None):
  """Builds a convolution with batch normalisation and, where one is given, an activation.

  Args:
    inputs: channels of the input.
    outputs: channels of the output.
    size: side of the kernel in pixels.
    stride: pixels between neighbouring outputs.
    groups: groups of channels that are convolved apart.
    activation: class of the activation, or None.
  """
  layers = [
    nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
    nn.BatchNorm2d(outputs),
  ]
  return nn.Sequential(*layers, *([activation(inplace=True)] if activation else []))


class TorchBottleneck(nn.Module):
  """The residual block of ResNet-50."""

  def __init__(self, inputs, features, stride):
    super().__init__()
    outputs = 4 * features
    self.branch = nn.Sequential(
      conv_norm(inputs, features, activation=nn.ReLU),
      conv_norm(features, features, 3, stride, activation=nn.ReLU),
      conv_norm(features, outputs),
    )
    same = inputs == outputs and stride == 1
    self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

  def forward(self, x):
    """Adds the branch to the shortcut."""
    return torch.relu_(self.branch(x) + self.shortcut(x))


class TorchInvertedBottleneck(nn.Module):
  """The block of EfficientNet, with a squeeze-and-excitation gate."""

  def __init__(self, inputs, settings, stride):
    super().__init__()
    wide = inputs * settings.expansion
    expand = conv_norm(inputs, wide, activation=nn.SiLU) if wide != inputs else nn.Identity()
    depthwise = conv_norm(wide, wide, settings.kernel_size, stride, wide, nn.SiLU)
    self.filter = nn.Sequential(expand, depthwise)
    squeezed = max(1, inputs // 4)
    self.gate = nn.Sequential(
      nn.AdaptiveAvgPool2d(1),
      nn.Conv2d(wide, squeezed, 1),
      nn.SiLU(inplace=True),
      nn.Conv2d(squeezed, wide, 1),
      nn.Sigmoid(),
    )
    self.project = conv_norm(wide, settings.features)
    self.residual = inputs == settings.features and stride == 1

  def forward(self, x):
    """Filters and gates the features, and adds the input where it has the same shape."""
    y = self.filter(x)
    y = self.project(y * self.gate(y))
    return x + y if self.residual else y


def torch_resnet50() -> nn.Module:
  """Builds ResNet-50 up to its global feature."""
  layers, inputs = [conv_norm(3, 64, 7, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
  for stage, (repeats, features) in enumerate(RESNET50_STAGES):
    for block in range(repeats):
      stride = 2 if stage > 0 and block == 0 else 1
      layers.append(TorchBottleneck(inputs, features, stride))
      inputs = 4 * features
  return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))


def torch_efficientnet_b0() -> nn.Module:
  """Builds EfficientNet-B0 up to its global feature."""
  layers, inputs = [conv_norm(3, 32, 3, 2, activation=nn.SiLU)], 32
  for settings in EFFICIENTNET_STAGES:
    for block in range(settings.repeats):
      stride = settings.stride if block == 0 else 1
      layers.append(TorchInvertedBottleneck(inputs, settings, stride))
      inputs = settings.features
  head = conv_norm(inputs, 1280, activation=nn.SiLU)
  return nn.Sequential(*layers, head, nn.AdaptiveAvgPool2d(1))


def torch_call(module: nn.Module, images: np.ndarray) -> Callable[[], object]:
  """Returns a function that runs one forward pass of PyTorch."""
  module = module.eval().to(memory_format=torch.channels_last)
  x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

  def call():
    with torch.inference_mode():
      return module(x)

  return call


def jax_call(name: str, images: np.ndarray) -> Callable[[], object]:
  """Returns a function that runs one forward pass of this project's backbone."""
  module = create_backbone(BackboneConfig(name))
  x = jnp.asarray(images)
  variables = jax.jit(module.init, static_argnums=2)(jax.random.key(0), x[:1], False)
  forward = jax.jit(lambda variables, x: module.apply(variables, x, False).global_feature)
  return lambda: forward(variables, x).block_until_ready()


def main(argv: list[str]) -> None:
  """Measures both backbones and prints the ratios."""
  del argv
  torch.set_num_threads(_THREADS.value)
  shape = (_BATCH.value, _SIDE.value, _SIDE.value, 3)
  images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  models = {'resnet50': torch_resnet50, 'efficientnet_b0': torch_efficientnet_b0}
  for name, create in models.items():
    print(f'{name}, forward, batch {_BATCH.value}, {_SIDE.value} x {_SIDE.value}:')
    medians = compare(
      {'torch': torch_call(create(), images), 'hand_jax': jax_call(name, images)}, _REPEATS.value
    )
    ratio = medians['hand_jax'] / medians['torch']
    print(f'hand_jax / torch = {ratio:.2f} (bar {_BAR})')


if __name__ == '__main__':
  app.run(main)
