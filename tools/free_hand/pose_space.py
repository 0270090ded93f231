"""Makes the relaxed pose and the principal components of sampled poses, relative to zero pose.

They stand in for MANO's pose space and have the same shapes: 45 numbers, three for each finger
joint in the layout's order. The bending angles of a finger vary about a curl that all fingers of
the hand share.
"""

import dataclasses

import numpy as np

from tools.free_hand import layout, skeleton

# These are the relaxed flexions of a chain's three joints in degrees, and those of the thumb's.
_RELAXED_FINGER = {'index': (16, 24, 12), 'middle': (21, 28, 14), 'ring': (24, 30, 15)}
_RELAXED_FINGER['pinky'] = (26, 30, 15)
_RELAXED_THUMB = (8, 12, 14)
_FULL_FINGER = (80.0, 95.0, 60.0)
_FULL_THUMB = (25.0, 45.0, 60.0)


@dataclasses.dataclass(frozen=True)
class PoseSpace:
  """The mean pose (45,), components in orthonormal rows (45, 45), and their deviations (45,).

  The mean and the deviations are in radians.
  """

  mean: np.ndarray
  components: np.ndarray
  deviations: np.ndarray


def relaxed_pose() -> np.ndarray:
  """Returns the axis-angles (15, 3) of the relaxed hand."""
  pose = np.zeros((15, 3))
  axes = skeleton.flexion_axes()[1:]
  for finger, name in enumerate(layout.FINGER_NAMES):
    degrees = _RELAXED_THUMB if name == 'thumb' else _RELAXED_FINGER[name]
    for k in range(3):
      pose[3 * finger + k] = np.radians(degrees[k]) * axes[3 * finger + k]
  return pose


def sample_pose(random: np.random.RandomState) -> np.ndarray:
  """Draws the axis-angles (15, 3) of a natural pose. The mean over draws is the relaxed pose."""
  pose = relaxed_pose()
  axes = skeleton.flexion_axes()[1:]
  hand_curl = random.normal()
  for finger, name in enumerate(layout.FINGER_NAMES):
    thumb = name == 'thumb'
    curl = 0.6 * random.normal() + (0.3 if thumb else 0.6) * hand_curl
    full = _FULL_THUMB if thumb else _FULL_FINGER
    for k in range(3):
      share = 0.3 * curl + 0.08 * random.normal()
      pose[3 * finger + k] += np.radians(full[k]) * share * axes[3 * finger + k]
    side = np.cross(skeleton.finger_frame(finger)[0], axes[3 * finger])
    pose[3 * finger] += np.radians(12.0 if thumb else 6.0) * random.normal() * side
    if thumb:
      twist = skeleton.finger_frame(finger)[0]
      pose[3 * finger] += np.radians(10.0) * random.normal() * twist
  return pose + np.radians(1.0) * random.normal(size=(15, 3))


def varied_poses(count: int, seed: int = 2) -> list[np.ndarray]:
  """Draws poses (16, 3) with the wrist at rest."""
  random = np.random.RandomState(seed)
  return [np.concatenate([np.zeros((1, 3)), sample_pose(random)]) for _ in range(count)]


def build_pose_space(count: int = 4000, seed: int = 1) -> PoseSpace:
  """Computes the principal components of samples about the relaxed pose.

  The sign of a component makes its largest entry positive.
  """
  random = np.random.RandomState(seed)
  mean = relaxed_pose().reshape(45)
  samples = np.stack([sample_pose(random).reshape(45) for _ in range(count)]) - mean
  values, vectors = np.linalg.eigh(samples.T @ samples / count)
  order = np.argsort(-values, kind='stable')
  rows = vectors.T[order]
  rows *= np.sign(rows[np.arange(45), np.argmax(np.abs(rows), axis=1)])[:, None]
  return PoseSpace(mean, rows, np.sqrt(values[order]))
