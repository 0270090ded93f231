"""MANO's equations as plain NumPy loops in float64: the reference of `hand_jax.mano.model`."""

import numpy as np
import scipy.spatial.transform

from hand_jax.mano.joints import MANO_PARENTS
from hand_jax.types import HandParameters, ManoModel


def reference_mano(model: ManoModel, parameters: HandParameters) -> tuple[np.ndarray, np.ndarray]:
  """Vertices (V, 3) and the 16 chain joints (16, 3), one joint and one vertex at a time."""
  arrays = ManoModel(*(np.asarray(value, np.float64) for value in model))
  orient, hand_pose, betas, transl = (np.asarray(value, np.float64) for value in parameters)
  pose = np.concatenate([orient, hand_pose]).reshape(16, 3)
  rotations = [scipy.spatial.transform.Rotation.from_rotvec(vector).as_matrix() for vector in pose]
  shaped = arrays.v_template.copy()
  for k, beta in enumerate(betas):
    shaped += beta * arrays.shapedirs[:, :, k]
  rest = arrays.joint_regressor @ shaped
  feature = np.concatenate([(rotation - np.eye(3)).reshape(-1) for rotation in rotations[1:]])
  for k, value in enumerate(feature):
    shaped += value * arrays.posedirs[:, :, k]
  transforms = _chain(rotations, rest)
  vertices = np.zeros_like(shaped)
  for v, point in enumerate(shaped):
    for j, transform in enumerate(transforms):
      moved = transform @ np.append(point, 1.0)
      vertices[v] += arrays.lbs_weights[v, j] * moved[:3]
  joints = np.stack([(t @ np.append(rest[j], 1.0))[:3] for j, t in enumerate(transforms)])
  return vertices + transl, joints + transl


def _chain(rotations: list[np.ndarray], rest: np.ndarray) -> list[np.ndarray]:
  """Per joint, the 4 x 4 transform from rest: turn about the joint, then follow the parent."""
  transforms = []
  for j, parent in enumerate(MANO_PARENTS):
    local = np.eye(4)
    local[:3, :3] = rotations[j]
    local[:3, 3] = rest[j] - rotations[j] @ rest[j]
    transforms.append(local if parent < 0 else transforms[parent] @ local)
  return transforms
