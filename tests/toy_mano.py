"""Makes a synthetic hand with MANO's real structure, for tests without any data file.

Fingers are tubes along -x, the palm faces -y and the thumb is on the +z side, as in MANO's axes for
a right hand. The mesh is a disc of 778 vertices and 1538 faces with a 16-edge boundary.
"""

import jax.numpy as jnp
import numpy as np

from hand_jax.mano.joints import MANO_PARENTS
from hand_jax.types import ManoModel

_VERTICES = 778
_BOUNDARY = 16


def toy_joints() -> np.ndarray:
  """Returns the 16 chain joints and 5 tips (thumb to pinky) of the toy hand, metres."""
  joints = np.zeros((16, 3))
  joints[0] = [0.09, 0.0, 0.0]
  lateral = {1: 0.025, 4: 0.005, 7: -0.035, 10: -0.015}  # index, middle, pinky, ring
  for base, z in lateral.items():
    for step, x in enumerate([0.0, -0.035, -0.058]):
      joints[base + step] = [x, 0.0, z]
  for step in range(3):  # The thumb leaves the palm sideways.
    joints[13 + step] = [0.07 - 0.022 * step, -0.008, 0.03 + 0.024 * step]
  ends = [15, 3, 6, 12, 9]
  direction = np.asarray([[-0.022, 0.0, 0.02]] + [[-0.024, 0.0, 0.0]] * 4)
  return np.concatenate([joints, joints[ends] + direction])


def toy_faces() -> np.ndarray:
  """Triangulates a disc of 778 vertices with a 16-edge rim into 1538 faces."""
  rings = 47  # 26 more vertices are put inside triangles of the first band
  faces = []
  for ring in range(rings - 1):
    for i in range(_BOUNDARY):
      a, b = ring * _BOUNDARY + i, ring * _BOUNDARY + (i + 1) % _BOUNDARY
      faces += [[a, b, a + _BOUNDARY], [b, b + _BOUNDARY, a + _BOUNDARY]]
  # Close the first ring by a fan: a disc with rings * 16 vertices.
  faces += [[0, i + 1, i] for i in range(1, _BOUNDARY - 1)]
  count = rings * _BOUNDARY
  while count < _VERTICES:  # Splitting a triangle adds one vertex and two faces.
    a, b, c = faces.pop(0)
    faces += [[a, b, count], [b, c, count], [c, a, count]]
    count += 1
  return np.asarray(faces, np.int32)


def make_toy_mano(seed: int = 0) -> ManoModel:
  """Makes a valid, deterministic model, whose regressor and skinning weights are convex."""
  rng = np.random.default_rng(seed)
  joints = toy_joints()
  # Vertices are scattered round the 20 bones.
  children = np.concatenate([np.arange(1, 16), np.arange(16, 21)])
  parents = np.concatenate([np.asarray(MANO_PARENTS[1:]), np.asarray([15, 3, 6, 12, 9])])
  bone = np.arange(_VERTICES) % len(children)
  along = rng.uniform(0, 1, _VERTICES)[:, None]
  start, end = joints[parents[bone]], joints[children[bone]]
  radius = np.where(parents[bone] == 0, 0.012, 0.007)[:, None]
  template = start + along * (end - start) + radius * _unit(rng.normal(size=(_VERTICES, 3)))
  tips = np.asarray([_nearest(template, tip) for tip in joints[16:]])
  shapedirs = rng.normal(size=(_VERTICES, 3, 10)) * 0.001
  shapedirs[:, :, 0] = (template - joints[0]) * 0.05
  posedirs = rng.normal(size=(_VERTICES, 3, 135)) * 0.0005
  components, _ = np.linalg.qr(rng.normal(size=(45, 45)))
  return ManoModel(
    v_template=jnp.asarray(template, jnp.float32),
    shapedirs=jnp.asarray(shapedirs, jnp.float32),
    posedirs=jnp.asarray(posedirs, jnp.float32),
    joint_regressor=jnp.asarray(_regressor(template, joints[:16]), jnp.float32),
    lbs_weights=jnp.asarray(_weights(template, joints), jnp.float32),
    faces=jnp.asarray(toy_faces(), jnp.int32),
    hands_mean=jnp.asarray(rng.normal(size=45) * 0.1, jnp.float32),
    hands_components=jnp.asarray(components, jnp.float32),
    fingertip_vertices=jnp.asarray(tips, jnp.int32),
  )


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _nearest(points: np.ndarray, target: np.ndarray) -> int:
  return int(np.argmin(np.linalg.norm(points - target, axis=-1)))


def _regressor(points: np.ndarray, joints: np.ndarray) -> np.ndarray:
  """Makes sparse rows that sum to one, by inverse distances to the 12 nearest vertices."""
  rows = np.zeros((len(joints), len(points)))
  for row, joint in zip(rows, joints, strict=True):
    distance = np.linalg.norm(points - joint, axis=-1)
    near = np.argsort(distance)[:12]
    row[near] = 1 / (distance[near] + 1e-3)
    row /= row.sum()
  return rows


def _weights(points: np.ndarray, joints: np.ndarray) -> np.ndarray:
  """Gives each vertex at most four joints, of which closer bones weigh more."""
  child = {0: 4, 3: 17, 6: 18, 9: 20, 12: 19, 15: 16}
  ends = np.stack([joints[child.get(i, i + 1)] for i in range(16)])
  axis = ends - joints[:16]
  along = np.einsum('vjc,jc->vj', points[:, None] - joints[None, :16], axis)
  along = np.clip(along / (axis**2).sum(-1)[None], 0, 1)
  closest = joints[None, :16] + along[..., None] * axis[None]
  distance = np.linalg.norm(points[:, None] - closest, axis=-1)
  weights = np.exp(-distance / 0.004)
  weights[weights < np.sort(weights, axis=1)[:, -4:-3]] = 0
  return weights / weights.sum(1, keepdims=True)
