"""Cuts the right hand (and the rings of its forearm) out of the body along edge loops."""

import collections
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Patch:
  """A triangulated piece of the body. Its triangles index the piece's own vertices."""

  vertex_ids: np.ndarray  # (P,) the number of each vertex in the body
  triangles: np.ndarray  # (F, 3)
  texture_ids: np.ndarray  # (P,) one texture coordinate per vertex


def boundary_edges(faces) -> list[tuple[int, int]]:
  """Lists the edges that belong to one face only, each in the direction in which its face runs."""
  count = collections.Counter()
  directed = {}
  for face in np.asarray(faces).tolist():
    for a, b in zip(face, face[1:] + face[:1], strict=True):
      key = (min(a, b), max(a, b))
      count[key] += 1
      directed[key] = (a, b)
  return [directed[key] for key in directed if count[key] == 1]


def boundary_loop(faces) -> np.ndarray:
  """Lists the vertices of the single boundary loop in the direction of the faces, lowest id first.

  Raises:
    ValueError: the boundary is not one simple loop.
  """
  edges = boundary_edges(faces)
  following = dict(edges)
  if len(following) != len(edges) or not edges:
    raise ValueError('The mesh boundary is empty or touches itself.')
  loop = [min(following)]
  while following[loop[-1]] != loop[0]:
    loop.append(following[loop[-1]])
  if len(loop) != len(edges):
    raise ValueError(f'The mesh boundary has several loops ({len(loop)} of {len(edges)} edges).')
  return np.array(loop)


def peel(faces: np.ndarray) -> np.ndarray:
  """Returns the mask of the faces that are left without those that touch the boundary."""
  rim = np.unique(np.array(boundary_edges(faces)))
  return ~np.isin(faces, rim).any(axis=1)


def largest_component(faces: np.ndarray) -> np.ndarray:
  """Returns the mask of the faces of the largest component, which is connected by vertices."""
  label = {int(v): int(v) for v in np.unique(faces)}

  def root(v):
    while label[v] != v:
      label[v] = label[label[v]]
      v = label[v]
    return v

  for face in faces.tolist():
    for v in face[1:]:
      a, b = root(face[0]), root(v)
      label[max(a, b)] = min(a, b)
  roots = np.array([root(face[0]) for face in faces.tolist()])
  names, sizes = np.unique(roots, return_counts=True)
  return roots == names[np.argmax(sizes)]


def cut_limb(
  quads: np.ndarray, eligible: np.ndarray, along: np.ndarray, start: float, stop: float
) -> np.ndarray:
  """Lists the quads beyond an edge loop around a limb.

  A plane cut at `start` is ragged. It is peeled ring by ring, and each rim that is left is a loop
  of edges of the mesh. The first loop whose mean coordinate passes `stop` is the cut.

  Args:
    quads: (Q, 4) faces of the body.
    eligible: the mask of the vertices that belong to the limb.
    along: each vertex's coordinate along the limb, which grows towards the tip.
    start: the coordinate of the plane.
    stop: the coordinate that the cut has to pass.

  Returns:
    The indices of the quads.

  Raises:
    ValueError: no ring passes `stop`.
  """
  chosen = np.flatnonzero((eligible & (along > start))[quads].all(axis=1))
  while len(chosen):
    chosen = chosen[largest_component(quads[chosen])]
    rim = np.unique(np.array(boundary_edges(quads[chosen])))
    if along[rim].mean() > stop:
      return chosen
    chosen = chosen[peel(quads[chosen])]
  raise ValueError(f'No edge loop of the limb lies beyond {stop}.')


def triangulate(vertices: np.ndarray, quads: np.ndarray, texture_quads: np.ndarray) -> Patch:
  """Splits quads along their shorter diagonal and renumbers their vertices from zero.

  Args:
    vertices: (N, 3) of the body.
    quads: (Q, 4) the faces of the piece.
    texture_quads: (Q, 4) the texture coordinates of their corners.
  """
  vertex_ids = np.unique(quads)
  row = {int(v): i for i, v in enumerate(vertex_ids)}
  texture_of: dict[int, int] = {}
  triangles = []
  for quad, texture in zip(quads.tolist(), texture_quads.tolist(), strict=True):
    corners = vertices[quad]
    first = np.linalg.norm(corners[0] - corners[2])
    second = np.linalg.norm(corners[1] - corners[3])
    split = ((0, 1, 2), (0, 2, 3)) if first <= second else ((0, 1, 3), (1, 2, 3))
    triangles += [[row[quad[i]] for i in corner] for corner in split]
    for vertex, coordinate in zip(quad, texture, strict=True):
      texture_of.setdefault(vertex, coordinate)
  texture_ids = np.array([texture_of[int(v)] for v in vertex_ids])
  return Patch(vertex_ids, np.array(triangles), texture_ids)
