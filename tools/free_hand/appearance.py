"""What rendering wants beyond the mesh: texture coordinates, nail and palm masks, a forearm."""

import jax
import jax.numpy as jnp
import numpy as np

from hand_jax.rendering.surfaces import vertex_normals
from tools.free_hand import layout, skeleton
from tools.free_hand.cutting import boundary_loop

_FOREARM_LENGTH_M = 0.125
_FOREARM_RINGS = 9


def sample_texture(texture: np.ndarray, uv: np.ndarray, radius: int = 3) -> np.ndarray:
  """Mean grey value of a square of (2 radius + 1) texels round each texture coordinate."""
  height, width = texture.shape
  columns = np.clip((uv[:, 0] * width).astype(int), radius, width - 1 - radius)
  rows = np.clip(((1 - uv[:, 1]) * height).astype(int), radius, height - 1 - radius)
  total = np.zeros(len(uv))
  for dy in range(-radius, radius + 1):
    for dx in range(-radius, radius + 1):
      total += texture[rows + dy, columns + dx]
  return total / (2 * radius + 1) ** 2


def nail_mask(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
  """1 on nails including their rims (where the texture is half way), 0 elsewhere."""
  return np.clip((sample_texture(texture, uv, radius=2) - 0.1) / 0.3, 0.0, 1.0)


def palm_mask(vertices: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """1 on the palmar side, 0 on the back, smooth between; the thumb's own palmar side counts.

  A straight finger's palmar direction is its flexion axis crossed with its direction.
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
  """The vertex at the end of each last phalanx, near its axis; thumb to little finger."""
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
  """A tapering forearm grown from the wrist loop, away from the fingers, closed by a cap.

  Returns its vertices (W, 3), faces that index [hand vertices, forearm vertices] and continue the
  hand's orientation, and for each forearm vertex the loop vertex it grew from (the cap: the
  first), whose displacement it may follow when the hand changes shape.
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
    radii = swell * np.array([0.0245, 0.031])  # back to palm, and across
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
  """Two triangles between neighbours of successive rings, and a fan to the cap's centre."""
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
