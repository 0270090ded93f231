"""Adapts skinning weights to moved joints, and smooths weights over the mesh."""

import numpy as np

from tools.free_hand import layout, skeleton
from tools.free_hand.cutting import boundary_edges

_SMOOTHING_DISTANCE_M = 0.0015  # A neighbour at this distance weighs as much as the vertex.
_RAY_WIDTH_M = 0.006  # The palm follows a knuckle up to about this far beside the finger's line.
_NEIGHBOURS = 6
# The weights follow a moved knuckle fully up to this distance beyond it, and less and less up to
# this distance before the next joint.
_FALLOFF_M = 0.005


def move_weights(
  vertices: np.ndarray, weights: np.ndarray, rig: np.ndarray, joints: np.ndarray
) -> np.ndarray:
  """Computes weights for joints that were moved inside the mesh, along their fingers.

  A vertex gets the weights of the place that lies to the old joints as the vertex lies to the new
  ones.

  Args:
    vertices: (P, 3) of a flat hand, metres.
    weights: (P, 16) the weights that belong to `rig`.
    rig: (21, 3) the old joints and tips.
    joints: (21, 3) the new joints and tips.
  """
  fingers = _looked_up(vertices, weights, _finger_offsets(vertices, rig, joints))[:, 1:13]
  thumb = _looked_up(vertices, weights, _thumb_offsets(vertices, rig, joints))[:, 13:]
  # A vertex belongs to the thumb as much as before, but it may follow another bone of the thumb.
  of_thumb = weights[:, 13:].sum(axis=1, keepdims=True)
  thumb = of_thumb * thumb / np.maximum(thumb.sum(axis=1, keepdims=True), 1e-12)
  room = 1 - of_thumb
  fingers = fingers * np.minimum(1.0, room / np.maximum(fingers.sum(axis=1, keepdims=True), 1e-12))
  result = np.concatenate([np.zeros((len(vertices), 1)), fingers, thumb], axis=1)
  result[:, 0] = 1 - result.sum(axis=1)
  return np.maximum(result, 0.0)


def _finger_offsets(vertices: np.ndarray, rig: np.ndarray, joints: np.ndarray) -> np.ndarray:
  """Returns the offsets from each vertex to the place where its four fingers' weights come from."""
  shares, offsets = [], []
  for finger in range(4):
    first, second = layout.chain_of(finger)[:2]
    direction, axis = skeleton.finger_frame(finger)
    along = (vertices - joints[first]) @ direction
    stop = (joints[second] - joints[first]) @ direction - _FALLOFF_M
    share = np.clip((along - _FALLOFF_M) / (stop - _FALLOFF_M), 0.0, 1.0)
    share = 1 - share * share * (3 - 2 * share)
    aside = (vertices - joints[first]) @ axis
    shares.append(np.exp(-0.5 * (aside / _RAY_WIDTH_M) ** 2))
    offsets.append(share[:, None] * (rig[first] - joints[first]))
  shares = np.stack(shares) / (np.sum(shares, axis=0) + 1e-12)
  return np.einsum('fv,fvc->vc', shares, np.stack(offsets))


def _thumb_offsets(vertices: np.ndarray, rig: np.ndarray, joints: np.ndarray) -> np.ndarray:
  chain = layout.chain_of(layout.FINGER_NAMES.index('thumb'))
  direction = skeleton.finger_frame(layout.FINGER_NAMES.index('thumb'))[0]
  new = (joints[list(chain)] - joints[chain[0]]) @ direction
  shift = (rig[list(chain)] - joints[list(chain)]) @ direction
  along = (vertices - joints[chain[0]]) @ direction
  return np.interp(along, new, shift)[:, None] * direction


def _looked_up(vertices: np.ndarray, weights: np.ndarray, offsets: np.ndarray) -> np.ndarray:
  """Interpolates weights at displaced places from near vertices, by inverse squared distance."""
  result = np.zeros_like(weights)
  for row, place in enumerate(vertices + offsets):
    squared = ((vertices - place) ** 2).sum(axis=1)
    near = np.argsort(squared, kind='stable')[:_NEIGHBOURS]
    share = 1 / (squared[near] + 1e-12)
    result[row] = share @ weights[near] / share.sum()
  return result


def smooth_weights(
  weights: np.ndarray, vertices: np.ndarray, faces: np.ndarray, rounds: int = 3
) -> np.ndarray:
  """Averages skinning weights with those of the neighbours, in which near ones count more.

  The rows of boundary vertices stay. The source's weights jump across a short edge in the thumb's
  web, which would tear the web when the thumb bends.

  Args:
    weights: (V, 16) skinning weights.
    vertices: (V, 3) metres.
    faces: (F, 3) triangles.
    rounds: how often to average.
  """
  fixed = np.unique(np.array(boundary_edges(faces)))
  edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
  edges = np.unique(np.sort(edges, axis=1), axis=0)
  edges = np.concatenate([edges, edges[:, ::-1]])
  gap = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
  pull = (_SMOOTHING_DISTANCE_M / gap) ** 2
  result = weights
  for _ in range(rounds):
    total, share = result.copy(), np.ones((len(weights), 1))
    np.add.at(total, edges[:, 0], pull[:, None] * result[edges[:, 1]])
    np.add.at(share, edges[:, 0], pull[:, None])
    result = total / share
    result[fixed] = weights[fixed]
  return result
