"""Checks whether labels can belong to a hand: metres, a camera in pixels, joints in their box.

Labels in another unit, or for another copy of the photo, look like any other numbers. Their size
gives them away. Each check raises a ValueError that names the found and the expected values.
"""

import numpy as np
from jaxtyping import Float

HAND_EXTENT_M = (0.02, 0.5)
"""A hand's largest extent along an axis lies in this range.

No fist is smaller, and no hand with a forearm is larger.
"""
DISTANCE_M = (0.02, 20.0)
"""A hand's distance from the camera lies in this range."""
FOCAL_PER_SIDE = (0.2, 50.0)
"""The focal length over the photo's larger side lies in this range.

These are fields of view from 136 degrees to one degree.
"""
# At least this many joints show the extent of the whole hand. Fewer may lie close together.
_ENOUGH_JOINTS = 15
# Joints reach beyond the hand's box by at most this share of the box's larger side.
_BOX_MARGIN = 0.25
_LARGEST_OF_BOX = 1.5
# A few joints may hide each other. More than this in one place are a tool's mark for unknown ones.
_MOST_IN_ONE_PLACE = 3


def check_extent(points: Float[np.ndarray, 'points 3'], name: str) -> None:
  """Checks that points of a hand (finite, metres) extend as far as a hand does.

  Fewer than 15 points may lie close together, so only the upper limit holds for them.

  Raises:
    ValueError: the extent is not that of a hand. The message begins with `name`.
  """
  if len(points) < 2:
    return
  _refuse_extent(float(np.ptp(points, axis=0).max()), len(points) >= _ENOUGH_JOINTS, name)


def check_extents(points: Float[np.ndarray, 'samples points 3'], name: str) -> None:
  """Checks that the median extent of many hands is that of a hand, to find files in another unit.

  Raises:
    ValueError: the extent is not that of a hand. The message begins with `name`.
  """
  if len(points):
    extents = np.ptp(points, axis=1).max(axis=1)
    _refuse_extent(float(np.median(extents)), True, f'{name} (median of {len(points)} hands)')


def _refuse_extent(extent: float, is_whole: bool, name: str) -> None:
  least, most = HAND_EXTENT_M
  if extent > most:
    raise ValueError(
      f'{name}: the points extend over {extent:.3g} m, a hand over {least:g} to {most:g} m: '
      f'expected metres, these look like {_unit(extent)}'
    )
  if is_whole and extent < least:
    raise ValueError(
      f'{name}: the points extend over {extent:.3g} m, a hand over {least:g} to {most:g} m: '
      'expected metres, these look like another unit'
    )


def _unit(extent: float) -> str:
  """Names the unit in which a hand has this extent."""
  return 'millimetres' if extent > 50 else 'centimetres' if extent > 2 else 'another unit'


def check_distance(distance: float, name: str) -> None:
  """Checks that a hand's distance from the camera (metres) is plausible.

  Raises:
    ValueError: the hand is too near or too far. The message begins with `name`.
  """
  least, most = DISTANCE_M
  if not least <= distance <= most:
    raise ValueError(
      f'{name}: the hand is {distance:.3g} m from the camera, expected {least:g} to {most:g} m: '
      'are these metres?'
    )


def check_camera(
  intrinsics: Float[np.ndarray, '3 3'], size: tuple[int, int], name: str = 'intrinsics'
) -> None:
  """Checks that intrinsics can be those of a photo, in its pixels.

  The principal point of a photo that was cut out of a larger one may lie outside it.

  Args:
    intrinsics: focal lengths and principal point.
    size: the photo's width and height in pixels.
    name: the label's name, for error messages.

  Raises:
    ValueError: the focal length or the principal point is implausible. The message begins with
      `name`.
  """
  focal, side = np.sqrt(intrinsics[0, 0] * intrinsics[1, 1]), max(size)
  least, most = (side * share for share in FOCAL_PER_SIDE)
  if not least <= focal <= most:
    raise ValueError(
      f'{name}: a focal length of {focal:.4g} for a photo of {size[0]} x {size[1]} pixels, '
      f'expected pixels, {least:.4g} to {most:.4g}'
    )
  beyond = np.abs(intrinsics[:2, 2] - np.array(size) / 2).max()
  if beyond > most:
    raise ValueError(
      f'{name}: a principal point of {intrinsics[0, 2]:.4g}, {intrinsics[1, 2]:.4g} for a photo of '
      f'{size[0]} x {size[1]} pixels'
    )


def check_apart(points: Float[np.ndarray, 'known 2']) -> None:
  """Checks that known joints are not marks for unknown ones.

  Tools write joints that they do not know as [0, 0] or [-1, -1]. The joints are given as the file
  has them.

  Raises:
    ValueError: several joints lie in one place.
  """
  places, counts = np.unique(points, axis=0, return_counts=True)
  for place, count in zip(places.tolist(), counts.tolist(), strict=True):
    if count > (1 if max(place) <= 0 else _MOST_IN_ONE_PLACE):
      text = ', '.join(f'{value:g}' for value in place)
      raise ValueError(
        f'{count} joints are at [{text}]: a joint that is not known is null or has confidence 0'
      )


def check_joints_in_box(
  joints: Float[np.ndarray, 'known 2'],
  box_xywh: Float[np.ndarray, '4'],
  size: tuple[int, int],
) -> None:
  """Checks that the known joints of a hand lie where its box is.

  A box may end where the photo ends, so a joint beyond the photo counts at the nearest point of the
  photo's border.

  Args:
    joints: continuous pixels.
    box_xywh: x, y, width and height of the whole hand's box, in the same pixels.
    size: the photo's width and height.

  Raises:
    ValueError: the box holds too few of the joints, or they extend much further than it.
  """
  if not len(joints):
    return
  shown = np.clip(joints, 0, np.array(size, float))
  low, high = box_xywh[:2], box_xywh[:2] + box_xywh[2:]
  side = box_xywh[2:].max()
  text = ','.join(f'{value:g}' for value in box_xywh)
  where = (
    f'the box {text} (x,y,width,height), but they lie from {_pair(joints.min(axis=0))} to '
    f'{_pair(joints.max(axis=0))}: are both in pixels of this photo of {size[0]} x {size[1]}?'
  )
  if not _inside(joints, low, high).any():
    raise ValueError(f'none of the {len(joints)} known joints lies in {where}')
  near = _inside(shown, low - _BOX_MARGIN * side, high + _BOX_MARGIN * side)
  if 2 * near.sum() < len(joints):
    raise ValueError(f'only {near.sum()} of the {len(joints)} known joints lie in or near {where}')
  if np.ptp(shown, axis=0).max() > _LARGEST_OF_BOX * side:
    raise ValueError(f'the known joints extend much further than {where}')


def _inside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
  return np.all((points >= low[None]) & (points <= high[None]), axis=1)


def _pair(values: np.ndarray) -> str:
  return ', '.join(f'{value:.4g}' for value in values)
