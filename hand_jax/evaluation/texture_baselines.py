"""Colours vertices without learning: by the hand's mean colour, or by the nearest visible vertex.

All functions work on one photo at a time, on the host. Colours are display RGB in [0, 1].
"""

import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Bool, Float, Int

# A hand gets this colour if the photo shows nothing of it.
GREY = 0.5


def hop_distances(
  faces: Int[np.ndarray, 'faces 3'], num_vertices: int
) -> Int[np.ndarray, 'vertices vertices']:
  """Counts the edges on the shortest path along the mesh between each two vertices.

  Pairs that no path connects get `num_vertices`.
  """
  edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
  size = (num_vertices, num_vertices)
  graph = scipy.sparse.csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), size)
  hops = scipy.sparse.csgraph.shortest_path(graph, directed=False, unweighted=True)
  return np.where(np.isfinite(hops), hops, num_vertices).astype(np.int32)


def mean_color(
  photo: Float[np.ndarray, 'height width 3'], mask: Bool[np.ndarray, 'height width']
) -> Float[np.ndarray, '3']:
  """Averages the pixels inside the mask, or gives grey where it has none.

  Of all single colours the mean has the least squared error inside the mask, and so the highest
  PSNR.
  """
  if not mask.any():
    return np.full(3, GREY)
  return photo[mask].mean(axis=0, dtype=np.float64)


def fill_from_visible(
  colors: Float[np.ndarray, 'vertices 3'],
  visible: Bool[np.ndarray, ' vertices'],
  hops: Int[np.ndarray, 'vertices vertices'],
  fallback: Float[np.ndarray, '3'],
) -> Float[np.ndarray, 'vertices 3']:
  """Gives every vertex the colour of the nearest visible vertex along the mesh.

  A visible vertex keeps its own colour. Several vertices at the same distance are averaged.

  Args:
    colors: the colour at each vertex. Those of vertices that are not visible have no effect, NaN
      included.
    visible: which vertices the photo shows.
    hops: the edges between each two vertices, as `hop_distances` counts them.
    fallback: the colour of vertices that are connected with no visible one.
  """
  unreachable = len(hops)
  to_visible = np.where(visible[None], hops, unreachable)
  nearest = to_visible.min(axis=1, keepdims=True)
  chosen = (to_visible == nearest) & (nearest < unreachable)
  count = chosen.sum(axis=1, keepdims=True)
  sums = chosen.astype(np.float64) @ np.where(visible[:, None], colors, 0.0)
  return np.where(count > 0, sums / np.maximum(count, 1), fallback[None])
