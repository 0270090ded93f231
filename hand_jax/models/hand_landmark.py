"""The landmark network, which finds 21 points, presence and side in a turned crop of one hand.

The architecture is that of MediaPipe's `hand_landmark_full` (Apache-2.0). It has EfficientNet-B0's
inverted bottlenecks (Tan and Le 2019) without squeeze-excite, with ReLU6 and with batch
normalisation folded into the convolutions. The last block is not narrowed: its map is averaged to a
vector of 1152 numbers, and all four outputs are linear layers on this vector.
`tools/convert_hand_networks.py` converts the published weights.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from hand_jax.models.computing import Computing, spatial_mean
from hand_jax.models.conv_bias import ConvBias
from hand_jax.models.layers import relu6

INPUT_SIDE = 224
NUM_LANDMARKS = 21


class BottleneckStage(NamedTuple):
  """One row of the architecture: blocks that widen, filter by depthwise, and narrow again."""

  expansion: int  # widens the first block's input, and 1 does not widen
  later_expansion: int  # widens the inputs of the further blocks
  kernel_size: int
  stride: int  # of the first block, while the others have 1
  features: int
  blocks: int


STAGES = (
  BottleneckStage(1, 1, 3, 1, 16, 1),
  BottleneckStage(4, 6, 3, 2, 24, 2),
  BottleneckStage(6, 6, 5, 2, 40, 2),
  BottleneckStage(6, 6, 3, 2, 80, 3),
  BottleneckStage(6, 6, 5, 1, 112, 3),
  BottleneckStage(6, 6, 5, 2, 192, 4),
)
STEM_FEATURES = 24
HEAD_FEATURES = 1152


class HandLandmarkOutput(NamedTuple):
  """The landmark network's outputs and features for each crop."""

  landmarks: Float[Array, 'batch 21 3']
  """x and y in pixels of the 224-pixel crop, and the depth beyond the wrist in the same unit. The
  first pixel's centre is (0.5, 0.5)."""
  world_landmarks: Float[Array, 'batch 21 3']
  """Metres, in the axes of the turned crop (x right, y down, z forward). The origin is near the
  hand's centre."""
  presence: Float[Array, 'batch']
  """Probability that the crop shows a hand."""
  right: Float[Array, 'batch']
  """Probability that the hand is a right hand."""
  global_feature: Float[Array, 'batch 1152']
  """The pooled vector, on which the four outputs above are linear layers."""
  last_map: Float[Array, 'batch height width 1152']
  """The map whose mean is the pooled vector (side / 32)."""
  middle_map: Float[Array, 'batch _h _w 112']
  """The output of stage 5 (side / 16)."""
  shallow_map: Float[Array, 'batch _height _width 16']
  """The output of stage 1 (side / 2)."""
  fine_map: Float[Array, 'batch _h4 _w4 24']
  """The output of stage 2 (side / 4)."""
  coarse_map: Float[Array, 'batch _h8 _w8 40']
  """The output of stage 3 (side / 8)."""


class InvertedBottleneck(nn.Module):
  """Widens by 1x1, filters by depthwise and narrows by 1x1.

  The result is added to the input where their shapes agree.
  """

  expansion: int
  kernel_size: int
  stride: int
  features: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width inputs']
  ) -> Float[Array, 'batch _h _w features']:
    wide = self.expansion * x.shape[-1]
    y = x
    if self.expansion > 1:
      y = ConvBias(wide, activation=relu6, name='expand')(y)
    y = ConvBias(
      wide, self.kernel_size, self.stride, depthwise=True, activation=relu6, name='depthwise'
    )(y)
    y = ConvBias(self.features, name='project')(y)
    return x + y if x.shape == y.shape else y


class HandLandmarkNetwork(nn.Module):
  """Maps crops with values in [0, 1] to `HandLandmarkOutput`.

  Crops may have any side. The network was trained on 224. With `remat`, a gradient computes the
  blocks' activations again.
  """

  remat: bool = False

  @nn.compact
  def __call__(self, crops: Float[Array, 'batch side side 3']) -> HandLandmarkOutput:
    x = ConvBias(STEM_FEATURES, 3, 2, activation=relu6, name='stem')(crops)
    stage_maps = []
    make_block = Computing(remat=self.remat).block(InvertedBottleneck)
    for stage, row in enumerate(STAGES, start=1):
      for block in range(row.blocks):
        expansion, stride = row.later_expansion, 1
        if block == 0:
          expansion, stride = row.expansion, row.stride
        name = f'stage{stage}_block{block}'
        x = make_block(expansion, row.kernel_size, stride, row.features, name=name)(x)
      stage_maps.append(x)
    x = ConvBias(HEAD_FEATURES, activation=relu6, name='head_expand')(x)
    x = ConvBias(HEAD_FEATURES, 3, depthwise=True, activation=relu6, name='head_depthwise')(x)
    vector = spatial_mean(x)
    right = nn.sigmoid(nn.Dense(1, name='right')(vector))[:, 0]
    presence = nn.sigmoid(nn.Dense(1, name='presence')(vector))[:, 0]
    landmarks = nn.Dense(3 * NUM_LANDMARKS, name='landmarks')(vector)
    world_landmarks = nn.Dense(3 * NUM_LANDMARKS, name='world_landmarks')(vector)
    return HandLandmarkOutput(
      landmarks.reshape(-1, NUM_LANDMARKS, 3),
      world_landmarks.reshape(-1, NUM_LANDMARKS, 3),
      presence,
      right,
      vector,
      last_map=x,
      middle_map=stage_maps[4],
      shallow_map=stage_maps[0],
      fine_map=stage_maps[1],
      coarse_map=stage_maps[2],
    )


def normalize_crops(
  crops: UInt8[Array, 'batch height width 3'],
) -> Float[Array, 'batch height width 3']:
  """Maps RGB 0..255 to [0, 1], as both hand networks were trained."""
  return crops.astype('float32') / 255.0


def normalize_landmarks(
  landmarks: Float[Array, 'batch 21 3'],
) -> Float[Array, 'batch 21 3']:
  """Maps landmarks of the network to [-1, 1] over the crop, and their depths to the same unit.

  The network's pixels are those of the side that it was trained on, whatever side the crop has.
  """
  return landmarks * (2 / INPUT_SIDE) - jnp.array([1.0, 1.0, 0.0])[None, None]
