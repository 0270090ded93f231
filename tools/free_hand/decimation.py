"""Simplifies a mesh by half-edge collapses with the quadric error, and keeps a subset of vertices.

The method is that of Garland and Heckbert, "Surface simplification using quadric error metrics",
1997, in the half-edge form. A vertex u merges into its neighbour v, which does not move. So
skinning weights, texture coordinates and blend shapes carry over by indexing. The same input always
gives the same output.
"""

import heapq

import numpy as np

from tools.free_hand.cutting import boundary_edges

_MIN_NORMAL_COSINE = 0.35
_MIN_ASPECT = 0.07  # doubled area over the square of the longest side
_LENGTH_WEIGHT = 4e-3  # This term spreads vertices over flat regions.


class _Mesh:
  """A triangle mesh that is being simplified, with the faces and the quadric of each vertex."""

  def __init__(self, vertices: np.ndarray, faces: np.ndarray, importance: np.ndarray):
    self.vertices = vertices
    self.faces = dict(enumerate(map(tuple, faces.tolist())))
    self.faces_of: dict[int, set[int]] = {}
    self.quadrics = np.zeros((len(vertices), 4, 4))
    for index, face in self.faces.items():
      normal, area = self._normal(face)
      plane = np.append(normal, -normal @ vertices[face[0]])
      for vertex in face:
        self.faces_of.setdefault(vertex, set()).add(index)
        self.quadrics[vertex] += area * importance[vertex] * np.outer(plane, plane)
    self.importance = importance
    self.boundary = {vertex for edge in boundary_edges(faces) for vertex in edge}
    self.stamp = [0] * len(vertices)

  def _normal(self, face):
    a, b, c = self.vertices[list(face)]
    normal = np.cross(b - a, c - a)
    doubled_area = float(np.linalg.norm(normal))
    return normal / max(doubled_area, 1e-30), doubled_area / 2

  def neighbours(self, vertex: int) -> set[int]:
    found = {other for index in self.faces_of[vertex] for other in self.faces[index]}
    found.discard(vertex)
    return found

  def cost(self, u: int, v: int) -> float:
    point = np.append(self.vertices[v], 1.0)
    length = float(np.linalg.norm(self.vertices[u] - self.vertices[v]))
    error = float(point @ (self.quadrics[u] + self.quadrics[v]) @ point)
    return error + _LENGTH_WEIGHT * float(self.importance[u]) * length**4

  def may_collapse(self, u: int, v: int) -> bool:
    """Returns whether the mesh stays a manifold disc where no face flips or becomes a sliver."""
    shared = self.faces_of[u] & self.faces_of[v]
    opposite = {w for index in shared for w in self.faces[index]} - {u, v}
    if self.neighbours(u) & self.neighbours(v) != opposite:
      return False
    on_boundary = u in self.boundary
    if on_boundary and v not in self.boundary:
      return False
    if len(shared) != (1 if on_boundary else 2):
      return False
    if any(w not in self.boundary and len(self.neighbours(w)) <= 3 for w in opposite):
      return False
    return all(self._stays_well_shaped(u, v, index) for index in self.faces_of[u] - shared)

  def _stays_well_shaped(self, u: int, v: int, index: int) -> bool:
    face = self.faces[index]
    changed = tuple(v if w == u else w for w in face)
    before, _ = self._normal(face)
    after, area = self._normal(changed)
    if before @ after < _MIN_NORMAL_COSINE:
      return False
    corners = self.vertices[list(changed)]
    longest = max(float(((corners[k] - corners[k - 1]) ** 2).sum()) for k in range(3))
    return 2 * area >= _MIN_ASPECT * longest

  def collapse(self, u: int, v: int) -> None:
    for index in self.faces_of[u] & self.faces_of[v]:
      for w in self.faces.pop(index):
        self.faces_of[w].discard(index)
    for index in self.faces_of.pop(u):
      self.faces[index] = tuple(v if w == u else w for w in self.faces[index])
      self.faces_of[v].add(index)
    self.boundary.discard(u)
    self.quadrics[v] += self.quadrics[u]
    self.stamp[v] += 1


def _collapse_until(mesh: _Mesh, done, is_candidate) -> None:
  """Collapses the cheapest allowed half edges until `done()` is true or none is left."""
  heap: list[tuple[float, int, int, int, int]] = []

  def push(u, v):
    if is_candidate(u, v):
      heapq.heappush(heap, (mesh.cost(u, v), u, v, mesh.stamp[u], mesh.stamp[v]))

  for u in sorted(mesh.faces_of):
    for v in sorted(mesh.neighbours(u)):
      push(u, v)
  while heap and not done():
    _, u, v, stamp_u, stamp_v = heapq.heappop(heap)
    alive = u in mesh.faces_of and v in mesh.faces_of
    if not alive or (stamp_u, stamp_v) != (mesh.stamp[u], mesh.stamp[v]):
      continue
    if v not in mesh.neighbours(u) or not mesh.may_collapse(u, v):
      continue
    mesh.collapse(u, v)
    # Pairs that were refused before may be allowed now, so the whole second ring is offered again.
    ring = sorted(mesh.neighbours(v))
    for w in ring:
      push(v, w)
      for x in sorted(mesh.neighbours(w)):
        push(w, x)


def decimate(
  vertices: np.ndarray,
  faces: np.ndarray,
  num_vertices: int,
  num_boundary_edges: int,
  importance: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Simplifies a disc to exact numbers of vertices and boundary edges.

  The boundary loop is thinned first, and then the interior.

  Args:
    vertices: (V, 3) of the disc.
    faces: (F, 3) triangles.
    num_vertices: how many vertices are kept.
    num_boundary_edges: how many edges the boundary loop keeps.
    importance: one number for each vertex, which makes its removal costlier. The default is 1.

  Returns:
    The ids of the kept vertices, ascending, and the renumbered faces.

  Raises:
    ValueError: no allowed collapse was left before the numbers were reached.
  """
  vertices = np.asarray(vertices, float)
  extent = np.linalg.norm(np.ptp(vertices, axis=0))
  if importance is None:
    importance = np.ones(len(vertices))
  mesh = _Mesh(vertices * (20.0 / extent), faces, importance)
  _collapse_until(
    mesh,
    lambda: len(mesh.boundary) <= num_boundary_edges,
    lambda u, v: u in mesh.boundary and v in mesh.boundary,
  )
  _collapse_until(
    mesh, lambda: len(mesh.faces_of) <= num_vertices, lambda u, v: u not in mesh.boundary
  )
  kept = np.array(sorted(mesh.faces_of))
  if len(kept) != num_vertices or len(mesh.boundary) != num_boundary_edges:
    raise ValueError(
      f'Decimation stopped at {len(kept)} vertices and {len(mesh.boundary)} boundary edges, '
      f'{num_vertices} and {num_boundary_edges} were asked for.'
    )
  row = {int(v): i for i, v in enumerate(kept)}
  return kept, np.array([[row[v] for v in mesh.faces[index]] for index in sorted(mesh.faces)])
