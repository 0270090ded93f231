"""The free hand's conventions: joint names and order, axes and signs, sources.

Frame of the right hand's template (MANO's): metres; zero pose is a flat hand, its fingers straight;
they point along -x, the palm faces -y, the thumb lies on the +z side, so it is a right hand.
The wrist joint of the mean shape is at `WRIST_POSITION`.

Signs, right hand, for axis-angle rotations of the 15 finger joints:
  index, middle, ring, little finger: flexion (towards the palm) is a POSITIVE rotation about +z;
    abduction towards the thumb is a POSITIVE rotation about +y
    (a splayed finger's own flexion axis differs from +z by its splay, up to 16 degrees about y;
    bending about `flexion_axes[joint]` keeps it in its own plane).
  thumb, straight along (-0.771, -0.301, 0.561), out of the palm's plane: flexion, a sweep across
    the palm, is POSITIVE about `flexion_axes` = (0.431, -0.895, 0.113); palmar abduction is
    POSITIVE about direction x flexion axis = (0.468, 0.329, 0.820); opposition, which turns the pad
    to the fingers' pads, adds a NEGATIVE rotation about the direction. At its base these ranges
    look natural: flexion -15..35, abduction -15..40, twist -40..10 degrees.
Left hand: the exact mirror x -> -x, faces reversed; an axis-angle (x, y, z) becomes (x, -y, -z).
`flexion_axes` of the left file are already mirrored, positive = flexion again.

Joint order is MANO's: wrist, then index, middle, little finger, ring finger, thumb, three each.
Fingertips are ordered thumb, index, middle, ring, little finger.
"""

import numpy as np

VERSION = 2  # of the free hand; raised by whatever changes a number in its files
NUM_VERTICES = 778
NUM_FACES = 1538
NUM_BOUNDARY_EDGES = 16
NUM_SHAPES = 10
HAND_LENGTH_M = 0.178  # wrist joint to the tip of the middle finger, adult mean
HAND_LENGTH_DEVIATION_M = 0.0105
WRIST_POSITION = np.array([0.0957, 0.0064, 0.0062])

# The rig's wrist lies too far into the forearm: it moves this share towards the middle knuckle.
WRIST_SHIFT = 0.22

FINGER_NAMES = ('index', 'middle', 'pinky', 'ring', 'thumb')  # MANO's order of chains
RIG_FINGERS = (2, 3, 5, 4, 1)  # the same fingers by the rig's number
TIP_NAMES = ('thumb', 'index', 'middle', 'ring', 'pinky')
TIP_OF_CHAIN = tuple(TIP_NAMES.index(name) for name in FINGER_NAMES)
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
BONE_NAMES = ('wrist.R',) + tuple(f'finger{k}-{i}.R' for k in RIG_FINGERS for i in (1, 2, 3))
JOINT_GROUPS = ('joint-r-hand',) + tuple(
  f'joint-r-finger-{k}-{i}' for k in RIG_FINGERS for i in (1, 2, 3)
)
TIP_GROUPS = tuple(f'joint-r-finger-{RIG_FINGERS[FINGER_NAMES.index(n)]}-4' for n in TIP_NAMES)


def chain_of(finger: int) -> tuple[int, int, int, int]:
  """Indices of one finger's three joints and tip among the 16 joints followed by 5 tips."""
  first = 1 + 3 * finger
  return first, first + 1, first + 2, 16 + TIP_OF_CHAIN[finger]
