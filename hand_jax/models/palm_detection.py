"""Finds boxes and seven points of palms at 2016 anchors of a square photo, by the palm detector.

The architecture is that of MediaPipe's `palm_detection_full` (Apache-2.0), a single-shot detector
in the manner of BlazeFace (Bazarevsky et al. 2019). Its blocks have one 5x5 depthwise and one 1x1
convolution, and are added to their input before a PReLU. They reduce the map to 6 x 6, and then
double it to 24 x 24 with skip connections. `tools/convert_hand_networks.py` converts the published
weights.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hand_jax.models.conv_bias import ChannelPRelu, ConvBias
from hand_jax.models.layers import conv_padding

INPUT_SIDE = 192
NUM_POINTS = 7
BOX_VALUES = 4 + 2 * NUM_POINTS  # x and y of the centre, the size and each point


class EncoderStage(NamedTuple):
  """One row of the architecture. Every stage but the first halves the map in its first block."""

  features: int
  blocks: int


class DecoderStage(NamedTuple):
  """Doubles the map, adds the encoder's, filters, and predicts at `anchors` anchors per cell."""

  features: int
  skip: int  # the encoder stage of the same resolution, counted from 1
  blocks: int
  anchors: int


ENCODER = (
  EncoderStage(32, 4),
  EncoderStage(64, 5),
  EncoderStage(128, 5),
  EncoderStage(256, 5),
  EncoderStage(256, 5),
)
DECODER = (DecoderStage(256, 4, 2, 6), DecoderStage(128, 3, 2, 2))


class PalmDetectionOutput(NamedTuple):
  """Raw outputs per anchor.

  The finest map comes first. In each map anchors are ordered by row, then by column, then within
  their cell.
  """

  boxes: Float[Array, 'batch anchors 18']
  """x and y of the centre, the size and seven points, in pixels of the input. Centre and points are
  relative to the anchor's centre."""
  logits: Float[Array, 'batch anchors']
  """Logits of the probability that there is a palm."""


class SeparableBlock(nn.Module):
  """A 5x5 depthwise and a 1x1 convolution, which are added to the input before a PReLU.

  With stride 2 the input is max-pooled and padded with zero channels before the addition.
  """

  features: int
  stride: int = 1

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width inputs']
  ) -> Float[Array, 'batch _h _w features']:
    inputs = x.shape[-1]
    padding = conv_padding('same', 5, self.stride, (x.shape[1], x.shape[2]))
    (top, bottom), (left, right) = padding
    # The addition below reads the padded map too. Otherwise XLA would write the map without padding
    # first, and then copy it.
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))
    x = padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]
    y = ConvBias(
      inputs, 5, self.stride, depthwise=True, use_bias=False, padded=True, name='depthwise'
    )(padded)
    y = ConvBias(self.features, name='project')(y)
    if self.stride == 2:
      x = nn.max_pool(x, (2, 2), (2, 2))
      x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - inputs)))
    return ChannelPRelu(name='prelu')(x + y)


class UpsampleBlock(nn.Module):
  """A 1x1 convolution, bilinear resizing to twice the size, and a PReLU.

  The published network resizes first, which costs more. The result is the same, because both steps
  are linear and the weights of the resizing sum to one.
  """

  features: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width inputs']
  ) -> Float[Array, 'batch _h _w features']:
    x = ConvBias(self.features, name='project')(x)
    batch, height, width, channels = x.shape
    x = jax.image.resize(x, (batch, 2 * height, 2 * width, channels), 'bilinear')
    return ChannelPRelu(name='prelu')(x)


class PalmDetectionNetwork(nn.Module):
  """Maps square photos of side 192 with values in [0, 1] to `PalmDetectionOutput`."""

  @nn.compact
  def __call__(self, images: Float[Array, 'batch side side 3']) -> PalmDetectionOutput:
    x = ConvBias(ENCODER[0].features, 5, 2, name='stem')(images)
    x = ChannelPRelu(name='stem_prelu')(x)
    maps = []
    for stage, row in enumerate(ENCODER, start=1):
      for block in range(row.blocks):
        stride = 2 if stage > 1 and block == 0 else 1
        x = SeparableBlock(row.features, stride, name=f'encoder{stage}_block{block}')(x)
      maps.append(x)
    boxes, logits = [], []
    for stage, row in enumerate(DECODER, start=1):
      x = maps[row.skip - 1] + UpsampleBlock(row.features, name=f'decoder{stage}_upsample')(x)
      for block in range(row.blocks):
        x = SeparableBlock(row.features, name=f'decoder{stage}_block{block}')(x)
      score = ConvBias(row.anchors, name=f'decoder{stage}_logits')(x)
      box = ConvBias(row.anchors * BOX_VALUES, name=f'decoder{stage}_boxes')(x)
      logits.append(score.reshape(x.shape[0], -1))
      boxes.append(box.reshape(x.shape[0], -1, BOX_VALUES))
    return PalmDetectionOutput(jnp.concatenate(boxes[::-1], 1), jnp.concatenate(logits[::-1], 1))
