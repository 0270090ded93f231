"""Finds every hand in a photo, by palms and two readings of each by the landmark network.

The whole photo is searched first. If that finds nothing, the photo is searched with a border, for
hands that fill it. Tiles follow, from coarse to fine, for hands that are small in the photo. Once a
hand is found, the search ends at the first level of tiles that finds no further hand.
"""

import numpy as np
from jaxtyping import UInt8

from hand_jax.detection.anchors import Palms
from hand_jax.detection.reading import DetectedHand, read_regions
from hand_jax.detection.regions import HandRegion, region_from_landmarks, region_from_palm
from hand_jax.detection.search import bordered_photo, find_palms, tile_levels, whole_photo
from hand_jax.detection.suppression import overlaps

# Palms of lower probability are not read, and readings of lower presence do not count as hands. In
# all 160 photos of hands on which this was tried, presence was 0.98 or more. In none of 280
# pictures without a hand (environments, forearms, objects, plain and textured images) did both
# readings reach 0.8.
_MIN_PALM, _MIN_PRESENCE = 0.3, 0.8
# The first reading may be off centre, so it needs less presence. The second one decides.
_MIN_FIRST_PRESENCE = 0.5
# Two readings show the same hand if their boxes overlap by more than this: the first number is
# relative to the area of both together, the second to the smaller box.
_SAME_HAND, _INSIDE_HAND = 0.5, 0.7
# One search reads at most this many palms for each hand of `max_hands`.
_PALMS_PER_HAND = 3


def detect_hands(
  image: UInt8[np.ndarray, 'height width 3'], max_hands: int = 10
) -> list[DetectedHand]:
  """Finds the hands of a photo.

  Args:
    image: RGB, upright.
    max_hands: the search ends when this many hands are found.

  Returns:
    The hands, with the largest presence first. A photo without hands gives an empty list.

  Raises:
    ValueError: the image is not 8-bit RGB, or `max_hands` is no integer above 0.
  """
  check_image(image)
  if not isinstance(max_hands, int | np.integer) or max_hands < 1:
    raise ValueError(f'max_hands is {max_hands!r}, expected an integer of at least 1.')
  height, width = image.shape[:2]
  hands = _search(image, whole_photo(width, height), [], max_hands, confirm=False)
  if not hands:
    hands = _search(image, bordered_photo(width, height), [], max_hands, confirm=True)
  for tiles in tile_levels(width, height):
    before = len(hands)
    if before >= max_hands:
      break
    hands = _search(image, tiles, hands, max_hands, confirm=True)
    if before and len(hands) == before:
      break
  return sorted(hands, key=lambda hand: -hand.presence)[:max_hands]


def _search(
  image: np.ndarray,
  squares: list[HandRegion],
  known: list[DetectedHand],
  max_hands: int,
  confirm: bool,
) -> list[DetectedHand]:
  """Joins the known hands and those found in the squares, without duplicates.

  With `confirm` the first reading needs as much presence as the second. This is for searches of
  many squares, where one reading is more likely to take something else for a hand.
  """
  palms = _unknown_palms(find_palms(image, squares, _MIN_PALM), known)
  palms = palms.select(np.arange(min(len(palms.score), _PALMS_PER_HAND * max_hands)))
  regions = [region_from_palm(*palm) for palm in zip(*palms[1:], strict=True)]
  min_first = _MIN_PRESENCE if confirm else _MIN_FIRST_PRESENCE
  first = [hand for hand in read_regions(image, regions) if hand.presence >= min_first]
  again = [region_from_landmarks(hand.landmarks_image) for hand in first]
  second = [hand for hand in read_regions(image, again) if hand.presence >= _MIN_PRESENCE]
  return _without_duplicates(known + sorted(second, key=lambda hand: -hand.presence))


def _unknown_palms(palms: Palms, known: list[DetectedHand]) -> Palms:
  """Keeps the palms whose centre lies in no known hand's box."""
  fresh = np.ones(len(palms.score), bool)
  for hand in known:
    low, size = hand.box_xywh[:2], hand.box_xywh[2:]
    inside = (palms.centre > low) & (palms.centre < low + size)
    fresh &= ~inside.all(1)
  return palms.select(fresh)


def _without_duplicates(hands: list[DetectedHand]) -> list[DetectedHand]:
  """Drops hands that overlap one earlier in the list."""
  kept: list[DetectedHand] = []
  for hand in hands:
    if kept:
      others = np.stack([_corners(other) for other in kept])
      union, smaller = overlaps(_corners(hand), others)
      if union.max() > _SAME_HAND or smaller.max() > _INSIDE_HAND:
        continue
    kept.append(hand)
  return kept


def _corners(hand: DetectedHand) -> np.ndarray:
  return np.concatenate([hand.box_xywh[:2], hand.box_xywh[:2] + hand.box_xywh[2:]])


def check_image(image: np.ndarray) -> None:
  """Checks that something is an 8-bit RGB picture.

  Raises:
    ValueError: it is no array, or an array of another shape or type.
  """
  if not isinstance(image, np.ndarray):
    raise ValueError(
      f'the image is {type(image).__name__}, expected a NumPy array (height, width, 3) of uint8, '
      'RGB: hand_jax.read_photo(path) reads one.'
    )
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
    raise ValueError(
      f'image has shape {image.shape} and type {image.dtype}; '
      'expected (height, width, 3) and uint8, RGB.'
    )
