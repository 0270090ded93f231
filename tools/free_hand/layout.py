"""The free hand's conventions: names and order of the joints, axes and signs, sources.

The right hand's template has MANO's frame, in metres. At zero pose the hand is flat and its fingers
are straight. The fingers point along -x, the palm faces -y, and the thumb lies on the +z side, so
it is a right hand. The wrist joint of the mean shape is at `WRIST_POSITION`.

These are the signs of axis-angle rotations of the right hand's 15 finger joints:
  index, middle, ring, little finger: flexion (towards the palm) is a POSITIVE rotation about +z.
    Abduction towards the thumb is a POSITIVE rotation about +y. The flexion axis of a splayed
    finger differs from +z by its splay, which is up to 16 degrees about y. Bending about
    `flexion_axes[joint]` keeps the finger in its own plane.
  thumb: it is straight along (-0.771, -0.301, 0.561), out of the palm's plane. Flexion, a sweep
    across the palm, is POSITIVE about `flexion_axes` = (0.431, -0.895, 0.113). Palmar abduction is
    POSITIVE about direction x flexion axis = (0.468, 0.329, 0.820). Opposition, which turns the pad
    to the pads of the fingers, adds a NEGATIVE rotation about the direction. At the thumb's base
    these ranges look natural: flexion -15..35, abduction -15..40, twist -40..10 degrees.
The left hand is the exact mirror x -> -x with reversed faces. An axis-angle (x, y, z) becomes (x,
-y, -z). `flexion_axes` of the left file are already mirrored, so that positive is flexion again.

The order of joints is MANO's: wrist, index, middle, little finger, ring finger and thumb, with
three joints for each finger. The order of fingertips is thumb, index, middle, ring, little finger.
"""

import numpy as np

VERSION = 3  # Any change of a number in the free hand's files raises this.
NUM_VERTICES = 778
NUM_FACES = 1538
NUM_BOUNDARY_EDGES = 16
NUM_SHAPES = 10
HAND_LENGTH_M = 0.178  # wrist joint to the tip of the middle finger, adult mean
HAND_LENGTH_DEVIATION_M = 0.0105
WRIST_POSITION = np.array([0.0957, 0.0064, 0.0062])

# The rig's wrist lies too far into the forearm, so it moves by this share of the distance to the
# middle knuckle.
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
  """Lists the indices of a finger's three joints and tip, among 16 joints and then 5 tips."""
  first = 1 + 3 * finger
  return first, first + 1, first + 2, 16 + TIP_OF_CHAIN[finger]
