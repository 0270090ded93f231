"""Brings the flat hand to the bone lengths of people, which published tables give.

The source's rig has its knuckles too near to the webs of the fingers, the two outer joints of each
finger too near to the palm, and a little finger that is too short. Knuckles move inside the mesh.
The outer joints move together with the mesh, because its creases lie there.
"""

import dataclasses

import numpy as np

from tools.free_hand import layout, skeleton

# These lengths in mm were measured on X-rays of 66 people: metacarpal, proximal, middle and distal
# phalanx, and the soft tissue beyond the last bone. The thumb has no middle phalanx. Buryanov and
# Kotiuk, "Proportions of hand segments", Int. J. Morphology 28(3), 2010,
# doi 10.4067/S0717-95022010000300015.
BONES_MM = {
  'index': (68.12, 39.78, 22.38, 15.82, 3.84),
  'middle': (64.60, 44.63, 26.33, 17.40, 3.95),
  'ring': (58.00, 41.37, 25.65, 17.30, 3.95),
  'pinky': (53.69, 32.74, 18.11, 15.96, 3.73),
  'thumb': (46.22, 31.57, 0.0, 21.67, 5.67),
}
# These are the distances from the wrist's centre of rotation to those of the knuckles, as shares of
# the hand's length. Buchholz, Armstrong and Goldstein, "Anthropometric data for describing the
# kinematics of the human hand", Ergonomics 35(3), 1992.
KNUCKLE_SHARES = {'index': 0.463, 'middle': 0.446, 'ring': 0.421, 'pinky': 0.414}
# The hand of the tables has this length from the wrist's centre to the middle fingertip. Its bones
# and the carpus add up to it.
_TABLE_HAND_LENGTH_MM = 187.0
# A joint turns about the middle of a bone's rounded head. So the distance between the centres of
# two joints is the sum of the bone, a joint space and the difference of two radii. The space and
# the radii are our estimates. They add up to at most 3 mm except at the knuckles, whose heads are
# the largest.
_JOINT_SPACE_MM = 1.0
_HEAD_RADII_MM = {'thumb': (2.0, 6.0, 4.0)}
_FINGER_HEAD_RADII_MM = (7.0, 4.0, 3.0)
_LITTLE_FINGER_SHARE = 0.85
# The thumb's first joint lies between trapezium and metacarpal, nearer to the wrist than the rig's.
_THUMB_BASE_SHIFT = 0.017  # of the hand's length: 3 mm


@dataclasses.dataclass(frozen=True)
class Proportions:
  """The changes that bring a flat hand of any size to the bone lengths of people, as shares."""

  growth: np.ndarray  # (5, 3)
  """The growth of the rig's three bones of each finger, relative to them. The mesh follows it."""
  base_shift: np.ndarray  # (5,)
  """How far a finger's first joint moves towards the wrist, relative to the hand's length."""
  thumb_second: float
  """The distance between the thumb's first two joints, relative to the hand's length."""


def segment_lengths(hand_length: float) -> np.ndarray:
  """Returns the distances (5, 3) between joint centres, in the layout's order of fingers.

  The last distance of a finger reaches to the end of its skin.
  """
  lengths = np.zeros((5, 3))
  for finger, name in enumerate(layout.FINGER_NAMES):
    metacarpal, proximal, middle, distal, tissue = BONES_MM[name]
    bones = (metacarpal, proximal, distal) if name == 'thumb' else (proximal, middle, distal)
    radii = np.array(_HEAD_RADII_MM.get(name, _FINGER_HEAD_RADII_MM))
    radii = radii * (_LITTLE_FINGER_SHARE if name == 'pinky' else 1.0)
    lengths[finger] = np.array(bones) + _JOINT_SPACE_MM + radii
    lengths[finger, :2] -= radii[1:]
    lengths[finger, 2] += tissue
  return lengths * hand_length / _TABLE_HAND_LENGTH_MM


def hand_length(points: np.ndarray, nodes: np.ndarray, weights: np.ndarray) -> float:
  """Measures the distance from the wrist to the end of the middle finger's skin.

  Args:
    points: (P, 3) vertices of the flat hand.
    nodes: (21, 3) its joints and tips.
    weights: (P, 16) skinning weights.
  """
  last = layout.chain_of(layout.FINGER_NAMES.index('middle'))[2]
  return float(np.linalg.norm(points[weights[:, last] > 0.5] - nodes[0], axis=1).max())


def fit_proportions(points: np.ndarray, nodes: np.ndarray, weights: np.ndarray) -> Proportions:
  """Finds the proportions that bring an average flat hand to the bone lengths of the tables.

  Args:
    points: (P, 3) vertices of the flat hand.
    nodes: (21, 3) joints and tips of its rig.
    weights: (P, 16) skinning weights.
  """
  length = hand_length(points, nodes, weights)
  wanted = segment_lengths(length)
  growth, base_shift = np.zeros((5, 3)), np.zeros(5)
  for finger, name in enumerate(layout.FINGER_NAMES):
    chain = layout.chain_of(finger)
    direction = skeleton.finger_frame(finger)[0]
    along = np.array([(nodes[i] - nodes[chain[0]]) @ direction for i in chain])
    reach = (points[weights[:, chain[2]] > 0.5] - nodes[chain[0]]) @ direction
    beyond = reach.max() - along[3]
    if name == 'thumb':
      shift = _THUMB_BASE_SHIFT * length
    else:
      shift = _shift_to(nodes[chain[0]] - nodes[0], direction, KNUCKLE_SHARES[name] * length)
    ends = np.cumsum(wanted[finger]) - shift
    ends[2] -= beyond
    if name == 'thumb':
      ends[0] = along[1]  # Inside the mesh only the joint moves.
    growth[finger] = np.diff(np.append(0.0, ends)) / np.diff(along) - 1
    base_shift[finger] = shift / length
  return Proportions(growth, base_shift, wanted[layout.FINGER_NAMES.index('thumb'), 0] / length)


def _shift_to(offset: np.ndarray, direction: np.ndarray, distance: float) -> float:
  """Returns how far `offset` moves against `direction` until its length is `distance`."""
  along = offset @ direction
  return along - np.sqrt(along**2 - offset @ offset + distance**2)


def apply_proportions(
  points: np.ndarray, nodes: np.ndarray, weights: np.ndarray, proportions: Proportions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Brings a flat hand to the bone lengths of people.

  Args:
    points: (P, 3) vertices of the flat hand.
    nodes: (21, 3) joints and tips of its rig.
    weights: (P, 16) skinning weights, which belong to the rig's joints.
    proportions: the changes, see `fit_proportions`.

  Returns:
    The vertices, the anatomical joints and tips, and the rig's joints where they went with the
    mesh. The skinning weights belong to the last.
  """
  length = hand_length(points, nodes, weights)
  points, rig = skeleton.scale_phalanges(points, nodes, weights, proportions.growth)
  moved = rig.copy()
  for finger, name in enumerate(layout.FINGER_NAMES):
    first, second = layout.chain_of(finger)[:2]
    direction = skeleton.finger_frame(finger)[0]
    moved[first] -= proportions.base_shift[finger] * length * direction
    if name == 'thumb':
      moved[second] = moved[first] + proportions.thumb_second * length * direction
  return points, moved, rig


def scale_palm(
  points: np.ndarray, nodes: np.ndarray, weights: np.ndarray, longer: float, wider: float
) -> tuple[np.ndarray, np.ndarray]:
  """Lengthens and widens the palm of a flat hand, whose fingers keep their size.

  The wrist is the origin, and the fingers point along -x.

  Args:
    points: (P, 3) vertices of the flat hand.
    nodes: (21, 3) its joints and tips.
    weights: (P, 16) skinning weights.
    longer: growth of the palm's length, relative to it.
    wider: growth of the palm's width, relative to it.

  Returns:
    The moved vertices and the moved joints and tips.
  """
  knuckles = nodes[[layout.chain_of(finger)[0] for finger in range(5)]]
  reach = -knuckles[:4, 0].mean()

  def displaced(positions: np.ndarray, share: np.ndarray) -> np.ndarray:
    # A finger goes where its knuckle goes. `share` (N, 5) says how far a point belongs to a finger.
    anchors = share @ knuckles + (1 - share.sum(axis=1, keepdims=True)) * positions
    along = np.clip(-anchors[:, 0], 0.0, reach)
    zero = np.zeros(len(positions))
    return positions + np.stack([-longer * along, zero, wider * anchors[:, 2]], axis=1)

  of_bones = weights[:, 1:].reshape(-1, 5, 3).sum(axis=2)
  of_nodes = np.concatenate([np.zeros((1, 5)), np.repeat(np.eye(5), 3, axis=0)])
  of_tips = np.eye(5)[[layout.FINGER_NAMES.index(name) for name in layout.TIP_NAMES]]
  return displaced(points, of_bones), displaced(nodes, np.concatenate([of_nodes, of_tips]))
