"""The landmark network: a turned square crop of one hand -> 21 points, presence and side.

The architecture is that of MediaPipe's `hand_landmark_full` (Apache-2.0): EfficientNet-B0's
inverted bottlenecks (Tan and Le 2019) without squeeze-excite, with ReLU6 and batch normalisation
folded into the convolutions; its last block is not narrowed but averaged to a vector of 1152
numbers, of which all four outputs are linear layers. `tools/convert_hand_networks.py` converts its
published weights."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from hand_jax.models.conv_bias import ConvBias
from hand_jax.models.layers import relu6

INPUT_SIDE = 224
NUM_LANDMARKS = 21


class BottleneckStage(NamedTuple):
  """One row of the architecture: blocks that widen, filter by depthwise, and narrow again."""

  expansion: int  # of the first block's input; 1: no widening
  later_expansion: int  # of the further blocks' inputs
  kernel_size: int
  stride: int  # of the first block
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
  """What the landmark network says of each crop.

  `landmarks`: x and y in pixels of the 224-pixel crop (first pixel's centre at 0.5, 0.5), and the
  depth relative to the wrist in the same unit, smaller towards the camera. `world_landmarks`:
  metres, origin near the hand's centre, axes of the turned crop (x right, y down, z forward).
  `presence`: probability that the crop shows a hand. `right`: probability that it is a right hand.
  The features: the pooled vector that the four outputs are linear in, the map that it is the mean
  of (side / 32), the map of stage 5 (side / 16) and that of stage 1 (side / 2).
  """

  landmarks: Float[Array, 'batch 21 3']
  world_landmarks: Float[Array, 'batch 21 3']
  presence: Float[Array, 'batch']
  right: Float[Array, 'batch']
  global_feature: Float[Array, 'batch 1152']
  last_map: Float[Array, 'batch height width 1152']
  middle_map: Float[Array, 'batch _h _w 112']
  shallow_map: Float[Array, 'batch _height _width 16']


class InvertedBottleneck(nn.Module):
  """Widen by 1x1, filter by depthwise, narrow by 1x1; added to the input where shapes agree."""

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
  """Crops with values in [0, 1] -> HandLandmarkOutput. Any side fits; it was trained on 224."""

  @nn.compact
  def __call__(self, crops: Float[Array, 'batch side side 3']) -> HandLandmarkOutput:
    x = ConvBias(STEM_FEATURES, 3, 2, activation=relu6, name='stem')(crops)
    stage_maps = []
    for stage, row in enumerate(STAGES, start=1):
      for block in range(row.blocks):
        expansion, stride = row.later_expansion, 1
        if block == 0:
          expansion, stride = row.expansion, row.stride
        name = f'stage{stage}_block{block}'
        x = InvertedBottleneck(expansion, row.kernel_size, stride, row.features, name=name)(x)
      stage_maps.append(x)
    x = ConvBias(HEAD_FEATURES, activation=relu6, name='head_expand')(x)
    x = ConvBias(HEAD_FEATURES, 3, depthwise=True, activation=relu6, name='head_depthwise')(x)
    vector = x.mean((1, 2))
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

  The network counts in pixels of the side that it was trained on, whatever the crop's own side.
  """
  return landmarks * (2 / INPUT_SIDE) - jnp.array([1.0, 1.0, 0.0])[None, None]
