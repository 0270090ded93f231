"""Estimates which pixels of a crop show the hand, from the landmark network's maps.

The landmark network is not changed. Its maps, from coarse to fine, are joined as in a U-Net
(Ronneberger et al. 2015): the result so far is enlarged, the next map is added, and 3x3
convolutions refine the sum.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hand_jax.models.hand_landmark import HandLandmarkOutput

# Channels at 1/32, 1/16, 1/8, 1/4 and 1/2 of the crop's side.
WIDTHS = (64, 64, 48, 32, 16)


class MaskMaps(NamedTuple):
  """The maps that the head reads, from coarse to fine."""

  last: Float[Array, 'batch _h32 _w32 1152']
  middle: Float[Array, 'batch _h16 _w16 112']
  coarse: Float[Array, 'batch _h8 _w8 40']
  fine: Float[Array, 'batch _h4 _w4 24']
  shallow: Float[Array, 'batch _h2 _w2 16']


def mask_maps(output: HandLandmarkOutput) -> MaskMaps:
  """Picks the maps that the head reads from the landmark network's output."""
  return MaskMaps(
    output.last_map, output.middle_map, output.coarse_map, output.fine_map, output.shallow_map
  )


def enlarged_mask(
  log_odds: Float[Array, 'batch _h2 _w2'], side: int
) -> Bool[Array, 'batch side side']:
  """Returns the pixels of a whole crop that show the hand with a probability above one half."""
  return jax.image.resize(log_odds, (len(log_odds), side, side), 'bilinear') > 0


class MaskHead(nn.Module):
  """Maps `MaskMaps` to the log-odds that a pixel shows the hand, at half the crop's resolution.

  Pixels of a forearm, of an object in front of the hand and of the background do not count as hand.
  """

  @nn.compact
  def __call__(self, maps: MaskMaps) -> Float[Array, 'batch _h2 _w2']:
    x = nn.relu(nn.Dense(WIDTHS[0], name='read_last')(maps.last))
    for name, found, width in zip(MaskMaps._fields[1:], maps[1:], WIDTHS[1:], strict=True):
      narrow = nn.Dense(width, use_bias=False, name=f'narrow_{name}')(x)
      x = nn.relu(_enlarged(narrow) + nn.Dense(width, name=f'read_{name}')(found))
      x = x + nn.relu(nn.Dense(width, name=f'refine_{name}')(_neighbourhoods(x)))
    return nn.Dense(1, name='log_odds')(x)[..., 0]


def _enlarged(x: Float[Array, 'batch height width channels']) -> Array:
  batch, height, width, channels = x.shape
  return jax.image.resize(x, (batch, 2 * height, 2 * width, channels), 'bilinear')


def _neighbourhoods(x: Float[Array, 'batch height width channels']) -> Array:
  """Joins the channels of a pixel and its eight neighbours, zero outside the map.

  A dense layer on them is a 3x3 convolution, whose gradient is fast on CPUs in this form.
  """
  height, width = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  shifts = [
    padded[:, row : row + height, column : column + width]
    for row in range(3)
    for column in range(3)
  ]
  return jnp.concatenate(shifts, axis=-1)
