"""Joint names, orders and fingertip vertices: MANO's 16 chain joints and the 21 standard ones."""

MANO_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)

MANO_FINGERS = ('index', 'middle', 'pinky', 'ring', 'thumb')
FINGERS = ('thumb', 'index', 'middle', 'ring', 'pinky')

_SEGMENTS = ('mcp', 'pip', 'dip')
_THUMB_SEGMENTS = ('cmc', 'mcp', 'ip')


def _segments(finger: str) -> tuple[str, ...]:
  return _THUMB_SEGMENTS if finger == 'thumb' else _SEGMENTS


MANO_JOINT_NAMES = (
  'wrist',
  *(f'{finger}_{segment}' for finger in MANO_FINGERS for segment in _segments(finger)),
)
"""MANO's own order of the 16 chain joints.

The wrist comes first, then index, middle, pinky, ring and thumb, each from the palm outwards.
"""

JOINT_NAMES = (
  'wrist',
  *(f'{finger}_{segment}' for finger in FINGERS for segment in (*_segments(finger), 'tip')),
)
"""The standard order of FreiHAND, OpenPose and MediaPipe.

The wrist comes first, then thumb to pinky, each from its base to its tip.
"""

# These indices gather from [16 MANO joints, tips of thumb, index, middle, ring, pinky].
MANO_TO_STANDARD = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
STANDARD_TO_MANO = tuple(MANO_TO_STANDARD.index(i) for i in range(21))

STANDARD_PARENTS = tuple(
  -1 if i == 0 else (0 if (i - 1) % 4 == 0 else i - 1) for i in range(len(JOINT_NAMES))
)
BONES = [(parent, child) for child, parent in enumerate(STANDARD_PARENTS) if parent >= 0]
"""The (parent, child) pairs of the 20 bones, in the standard order."""

# These indices gather from a data set's own order into the standard one.
DATASET_TO_STANDARD = {
  'freihand': tuple(range(21)),
  'ho3d': MANO_TO_STANDARD,
  'synthetic_hands': tuple(range(21)),
}

# Vertex ids on MANO's mesh, thumb to pinky. Each data set was annotated with its own ids, so an
# evaluation has to use those of its data set.
FINGERTIP_VERTICES = {
  'freihand': (744, 320, 443, 555, 672),
  'ho3d': (744, 333, 444, 555, 672),
  'smplx': (744, 320, 443, 554, 671),
  'manopth_right': (745, 317, 444, 556, 673),
  'manopth_left': (745, 317, 445, 556, 673),
}
