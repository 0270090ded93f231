"""Hand axes, the flat zero pose, and linear blend skinning in NumPy."""

import itertools

import numpy as np

from tools.free_hand import layout

# At zero pose the straight fingers are splayed towards the thumb (about +y) by these degrees.
SPLAY_DEGREES = {'index': 7.0, 'middle': -1.0, 'ring': -8.5, 'pinky': -16.0}
_PALMAR_SHIFT = 0.0115  # of the hand's length: 2 mm
_WRIST_LIFT = 0.0225  # of the hand's length: 4 mm
# The thumb is straight and stays out of the palm's plane. Its flexion axis in the relaxed data
# points mostly to -y, so that flexion sweeps it across the palm.
THUMB_DIRECTION = np.array([-0.77, -0.30, 0.56])


def normalize(vector: np.ndarray) -> np.ndarray:
  """Scales vectors along the last axis to unit length."""
  return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def to_hand_axes(points: np.ndarray, joints: np.ndarray, tips: np.ndarray):
  """Converts body coordinates in decimetres to the layout's axes in metres, wrist at the origin.

  The frame follows the joints. The x axis points from the middle knuckle to the wrist, and z
  towards the index knuckle as seen from that of the little finger.

  Args:
    points: (P, 3) vertices of the hand.
    joints: (16, 3) joints of the rig.
    tips: (5, 3) fingertips.

  Returns:
    The points, the joints with a moved wrist (see `layout.WRIST_SHIFT`), and the tips.
  """
  x = normalize(joints[0] - joints[4])
  across = joints[1] - joints[7]
  z = normalize(across - (across @ x) * x)
  rotation = np.stack([x, np.cross(z, x), z])
  joints = joints.copy()
  joints[0] += layout.WRIST_SHIFT * (joints[4] - joints[0])
  origin = joints[0].copy()
  return tuple(0.1 * (p - origin) @ rotation.T for p in (points, joints, tips))


def finger_frame(finger: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the zero-pose direction and the flexion axis of a finger of `layout.FINGER_NAMES`."""
  name = layout.FINGER_NAMES[finger]
  if name == 'thumb':
    direction = normalize(THUMB_DIRECTION)
    axis = np.array([0.45, -0.89, 0.1])
  else:
    angle = np.radians(SPLAY_DEGREES[name])
    direction = np.array([-np.cos(angle), 0.0, np.sin(angle)])
    axis = np.array([0.0, 0.0, 1.0])
  return direction, normalize(axis - (axis @ direction) * direction)


def flexion_axes() -> np.ndarray:
  """Returns the unit axes (16, 3) at zero pose about which a positive rotation flexes.

  The wrist's row is +z.
  """
  axes = np.zeros((16, 3))
  axes[0] = (0.0, 0.0, 1.0)
  for finger in range(5):
    axes[1 + 3 * finger : 4 + 3 * finger] = finger_frame(finger)[1]
  return axes


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns the smallest rotation that takes the unit vector a to the unit vector b.

  The two must not be opposite.
  """
  v, cosine = np.cross(a, b), a @ b
  skew = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
  return np.eye(3) + skew + skew @ skew / (1 + cosine)


def flatten(
  points: np.ndarray, joints: np.ndarray, tips: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Straightens every finger along its zero-pose direction.

  Args:
    points: (P, 3) vertices, metres.
    joints: (16, 3) joints.
    tips: (5, 3) fingertips.
    weights: (P, 16) skinning weights.

  Returns:
    The moved points, and the 16 joints followed by the 5 tips.
  """
  nodes = np.concatenate([joints, tips])
  flat = nodes.copy()
  moved = weights[:, :1] * points
  for finger in range(5):
    chain = layout.chain_of(finger)
    direction = finger_frame(finger)[0]
    for near, far in itertools.pairwise(chain):
      bone = nodes[far] - nodes[near]
      flat[far] = flat[near] + np.linalg.norm(bone) * direction
      rotation = rotation_between(normalize(bone), direction)
      moved += weights[:, near : near + 1] * ((points - nodes[near]) @ rotation.T + flat[near])
  return moved, flat


def centre_joints(points: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Moves the joints of a flat hand to where the bones are between back and palm.

  The rig's finger joints lie close under the back of the fingers. They move towards the palm, to
  about 8 mm below the skin at the knuckles, where the heads of the bones have a radius of about 7
  mm. The rig's wrist lies in the middle of the flesh, most of which is palmar of the bones. It
  moves towards the back, to a third of the depth. The wrist stays the origin.
  """
  length = np.linalg.norm(nodes[18] - nodes[0])
  nodes = nodes.copy()
  for finger in range(4):
    nodes[list(layout.chain_of(finger))] += [0.0, -_PALMAR_SHIFT * length, 0.0]
  lift = np.array([0.0, _WRIST_LIFT * length, 0.0])
  nodes[1:] -= lift
  return points - lift, nodes


def scale_phalanges(
  points: np.ndarray, nodes: np.ndarray, weights: np.ndarray, factors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Lengthens each of the 15 bones of a flat hand.

  Args:
    points: (P, 3) vertices.
    nodes: (21, 3) joints and tips.
    weights: (P, 16) skinning weights.
    factors: (5, 3) growth of each bone, relative to its length.

  Returns:
    The moved vertices and the moved joints and tips.
  """
  points, moved_nodes = points.copy(), nodes.copy()
  original = points.copy()
  for finger in range(5):
    chain = layout.chain_of(finger)
    shift = np.zeros(3)
    for k in range(3):
      bone = nodes[chain[k + 1]] - nodes[chain[k]]
      along = np.clip((original - nodes[chain[k]]) @ bone / (bone @ bone), 0.0, 1.0)
      growth = factors[finger, k] * bone
      points += weights[:, chain[k], None] * (shift + along[:, None] * growth)
      shift = shift + growth
      moved_nodes[chain[k + 1]] += shift
  return points, moved_nodes


def rotation_matrix(axis_angle: np.ndarray) -> np.ndarray:
  """Converts one axis-angle vector to a matrix by Rodrigues' formula."""
  angle = np.linalg.norm(axis_angle)
  if angle < 1e-12:
    return np.eye(3)
  x, y, z = axis_angle / angle
  skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
  return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def pose_hand(
  points: np.ndarray, joints: np.ndarray, weights: np.ndarray, pose: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Poses a hand by linear blend skinning.

  Args:
    points: (P, 3) vertices at zero pose.
    joints: (16, 3) joints at zero pose.
    weights: (P, 16) skinning weights.
    pose: (16, 3) axis-angles.

  Returns:
    The posed points and the 16 posed joints.
  """
  rotations, positions = [np.eye(3)] * 16, joints[:16].copy()
  moved = np.zeros(points.shape)
  for joint, parent in enumerate(layout.PARENTS):
    local = rotation_matrix(pose[joint])
    if parent < 0:
      rotations[joint] = local
    else:
      rotations[joint] = rotations[parent] @ local
      offset = joints[joint] - joints[parent]
      positions[joint] = positions[parent] + rotations[parent] @ offset
    turned = (points - joints[joint]) @ rotations[joint].T + positions[joint]
    moved += weights[:, joint : joint + 1] * turned
  return moved, positions
