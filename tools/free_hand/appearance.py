"""Makes what rendering needs beyond the mesh: masks of nails and palm, fingertips and a forearm."""

import jax
import jax.numpy as jnp
import numpy as np

from hand_jax.rendering.surfaces import vertex_normals
from tools.free_hand import layout, skeleton
from tools.free_hand.cutting import boundary_loop

_FOREARM_LENGTH_M = 0.125
_FOREARM_RINGS = 9


def sample_texture(texture: np.ndarray, uv: np.ndarray, radius: int = 3) -> np.ndarray:
  """Averages a texture over a square around each texture coordinate.

  Args:
    texture: grey values, first row at the top (v = 1).
    uv: (N, 2) texture coordinates.
    radius: the square has a side of (2 radius + 1) texels.
  """
  height, width = texture.shape
  columns = np.clip((uv[:, 0] * width).astype(int), radius, width - 1 - radius)
  rows = np.clip(((1 - uv[:, 1]) * height).astype(int), radius, height - 1 - radius)
  total = np.zeros(len(uv))
  for dy in range(-radius, radius + 1):
    for dx in range(-radius, radius + 1):
      total += texture[rows + dy, columns + dx]
  return total / (2 * radius + 1) ** 2


def nail_mask(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
  """Returns 1 on nails and on their rims, where the texture has half its value, and 0 elsewhere."""
  return np.clip((sample_texture(texture, uv, radius=2) - 0.1) / 0.3, 0.0, 1.0)


def palm_mask(vertices: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Returns 1 on the palmar side, 0 on the back, and smooth values between.

  The thumb has a palmar side of its own. The palmar direction of a straight finger is the cross
  product of its flexion axis and its direction.

  Args:
    vertices: (V, 3) of the flat hand, metres.
    faces: (F, 3) triangles.
    weights: (V, 16) skinning weights.
  """
  palmar = np.tile([0.0, -1.0, 0.0], (16, 1))
  for finger in range(5):
    direction, axis = skeleton.finger_frame(finger)
    palmar[1 + 3 * finger : 4 + 3 * finger] = np.cross(axis, direction)
  with jax.enable_x64(True):
    normals = np.asarray(vertex_normals(jnp.asarray(vertices), jnp.asarray(faces)))
  facing = (normals * skeleton.normalize(weights @ palmar)).sum(axis=1)
  share = np.clip((facing + 0.45) / 0.7, 0.0, 1.0)
  return share * share * (3 - 2 * share)


def fingertip_vertices(vertices: np.ndarray, nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Finds the vertex at the end of each last phalanx, near its axis, from thumb to little finger.

  Args:
    vertices: (V, 3) of the flat hand, metres.
    nodes: (21, 3) its joints and tips.
    weights: (V, 16) skinning weights.
  """
  tips = []
  for name in layout.TIP_NAMES:
    finger = layout.FINGER_NAMES.index(name)
    joint = layout.chain_of(finger)[2]
    direction = skeleton.finger_frame(finger)[0]
    candidates = np.flatnonzero(weights[:, joint] > 0.5)
    offsets = vertices[candidates] - nodes[joint]
    reach = offsets @ direction
    aside = np.linalg.norm(offsets - reach[:, None] * direction, axis=1)
    tips.append(candidates[np.argmax(reach - aside)])
  return np.array(tips)


def build_forearm(
  vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Grows a tapering forearm from the wrist loop, away from the fingers, and closes it by a cap.

  Returns:
    The forearm's vertices (W, 3), its faces, and its anchors (W,). The faces index the hand's
    vertices followed by the forearm's, and continue the hand's orientation. The anchor of a forearm
    vertex is the vertex of the loop from which it grew, whose displacement it may follow when the
    hand changes shape. The cap has the first vertex of the loop as its anchor.
  """
  loop = boundary_loop(faces)
  ring = vertices[loop]
  centre = ring.mean(axis=0)
  section = (ring - centre)[:, 1:]
  angles = np.arctan2(section[:, 1], section[:, 0])
  rings, anchors = [], []
  for k in range(1, _FOREARM_RINGS + 1):
    share = k / _FOREARM_RINGS
    blend = min(1.0, 2.2 * share)
    blend = blend * blend * (3 - 2 * blend)
    swell = 1.0 + 0.34 * share**1.3
    radii = swell * np.array([0.0245, 0.031])  # from back to palm, and across
    oval = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
    target = (1 - blend) * section + blend * oval
    x = (1 - blend) * ring[:, 0] + blend * centre[0] + share * _FOREARM_LENGTH_M
    points = np.stack([x, centre[1] + target[:, 0], centre[2] + target[:, 1]], axis=1)
    rings.append(points)
    anchors.append(loop)
  cap = rings[-1].mean(axis=0, keepdims=True) + [[0.004, 0.0, 0.0]]
  forearm_faces = _forearm_faces(loop, len(vertices))
  return np.concatenate([*rings, cap]), forearm_faces, np.concatenate([*anchors, loop[:1]])


def _forearm_faces(loop: np.ndarray, num_hand_vertices: int) -> np.ndarray:
  """Lists two triangles between neighbours of successive rings, and a fan to the cap's centre."""
  size = len(loop)
  previous, faces = loop, []
  for k in range(_FOREARM_RINGS):
    current = num_hand_vertices + k * size + np.arange(size)
    for i in range(size):
      j = (i + 1) % size
      # The hand's face runs i -> j along its rim, so the forearm's face runs j -> i.
      faces += [(previous[j], previous[i], current[i]), (previous[j], current[i], current[j])]
    previous = current
  cap = num_hand_vertices + _FOREARM_RINGS * size
  faces += [(previous[(i + 1) % size], previous[i], cap) for i in range(size)]
  return np.array(faces)
