"""Searches for palms in the whole photo, in the photo with a border, and in tiles.

The detector finds a hand when the hand's larger side is at least about 0.15 of the picture's side.
(54 photos of hands were shrunk to a share of the picture. At 0.15 all were found, at 0.12 there
were 42, and at 0.08 there were 13.) A level of tiles therefore has to find hands between 0.15 of
its own tile and 0.15 of the tile of the level before. Neighbouring tiles overlap by that larger
size, so that each such hand lies wholly in one of them. Somewhat larger tiles are taken where fewer
of them cover the photo.
"""

import math

import cv2
import numpy as np
from jaxtyping import UInt8

from hand_jax.detection.anchors import Palms, decode_palms, join_palms
from hand_jax.detection.networks import detect_palms
from hand_jax.detection.regions import HandRegion, crop_region, points_in_photo
from hand_jax.detection.suppression import suppress_palms
from hand_jax.models.palm_detection import INPUT_SIDE, NUM_POINTS

# The side of the finest tiles in pixels, in which hands of 40 pixels are found.
_FINEST_TILE = 256
_SMALLEST_HAND = 0.15
# Where that saves tiles, they are larger by at most these factors.
_LARGER, _LARGER_FINEST = 1.25, 1.04
# Squares are skipped if the standard deviation of each colour (0..255) is at most this.
_PLAIN = 2.0


def whole_photo(width: int, height: int) -> list[HandRegion]:
  """Gives the smallest square that holds the photo."""
  return [HandRegion((width / 2, height / 2), float(max(width, height)), 0.0)]


def bordered_photo(width: int, height: int) -> list[HandRegion]:
  """Gives a square with a border of half the photo's size, for hands that fill the photo."""
  return [HandRegion((width / 2, height / 2), 2.0 * max(width, height), 0.0)]


def tile_levels(width: int, height: int) -> list[list[HandRegion]]:
  """Lists levels of ever smaller tiles. Small photos have none.

  The side of each level's tiles is at least half that of the level before. A photo of 12 megapixels
  has levels of 6, 24, 88 and 336 tiles.
  """
  longer = max(width, height)
  levels = int(np.ceil(np.log2(max(longer / _FINEST_TILE, 1.0))))
  sides = _FINEST_TILE * (longer / _FINEST_TILE) ** (1 - np.arange(1, levels + 1) / max(levels, 1))
  most = np.append(np.minimum(_LARGER * sides[:-1], 2 * sides[1:]), _LARGER_FINEST * sides[-1:])
  found: list[list[HandRegion]] = []
  before = float(longer)
  for least, largest in zip(sides, most, strict=True):
    # The number of tiles falls in steps, so in steps of a percent little is missed.
    choices = np.linspace(least, largest, 26).tolist()
    side = min(choices, key=lambda s: _count(width, s, before) * _count(height, s, before))
    found.append(_tiles(width, height, side, before))
    before = side
  return found


def find_palms(
  image: UInt8[np.ndarray, 'height width 3'], squares: list[HandRegion], min_score: float
) -> Palms:
  """Runs the palm detector on squares of the photo.

  Args:
    image: RGB.
    squares: upright parts of the photo. Squares of almost uniform colour are skipped.
    min_score: palms of lower probability are left out.

  Returns:
    One palm per hand in pixels of the photo, with the most probable first.
  """
  pictures = [crop_region(image, square, INPUT_SIDE) for square in squares]
  shown = [i for i, picture in enumerate(pictures) if cv2.meanStdDev(picture)[1].max() > _PLAIN]
  found = [_no_palms()]
  if shown:
    output = detect_palms(np.stack([pictures[i] for i in shown]))
    for i, boxes, logits in zip(shown, *output, strict=True):
      found.append(_place_palms(decode_palms(boxes, logits, min_score), squares[i]))
  return suppress_palms(join_palms(found))


def _count(extent: int, side: float, before: float) -> int:
  """Counts the tiles along one side of the photo, which is `extent` pixels long."""
  if extent <= side:
    return 1
  return 1 + math.ceil((extent - side) / (side - _SMALLEST_HAND * before))


def _tiles(width: int, height: int, side: float, before: float) -> list[HandRegion]:
  """Covers the photo with evenly spaced squares, and each hand that tiles of `before` leave."""
  starts = [
    np.linspace(0, extent - side, _count(extent, side, before))
    if extent > side
    else np.array([(extent - side) / 2])
    for extent in (width, height)
  ]
  return [
    HandRegion((float(x + side / 2), float(y + side / 2)), side, 0.0)
    for y in starts[1]
    for x in starts[0]
  ]


def _place_palms(palms: Palms, square: HandRegion) -> Palms:
  """Converts palms from pixels of the detector's input to pixels of the photo."""
  return Palms(
    palms.score,
    points_in_photo(palms.centre, square, INPUT_SIDE),
    palms.size * (square.side / INPUT_SIDE),
    points_in_photo(palms.points.reshape(-1, 2), square, INPUT_SIDE).reshape(palms.points.shape),
  )


def _no_palms() -> Palms:
  return Palms(np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, NUM_POINTS, 2)))
