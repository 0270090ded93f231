"""Vertex colours without learning: the hand's mean colour, and the nearest visible vertex's.

For one photo at a time, on the host; colours are display RGB in [0, 1].
"""

import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Bool, Float, Int

# Of a photo that shows nothing of the hand.
GREY = 0.5


def hop_distances(
  faces: Int[np.ndarray, 'faces 3'], num_vertices: int
) -> Int[np.ndarray, 'vertices vertices']:
  """Counts the edges of the mesh between each two vertices; `num_vertices` where none connect."""
  edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
  size = (num_vertices, num_vertices)
  graph = scipy.sparse.csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), size)
  hops = scipy.sparse.csgraph.shortest_path(graph, directed=False, unweighted=True)
  return np.where(np.isfinite(hops), hops, num_vertices).astype(np.int32)


def mean_color(
  photo: Float[np.ndarray, 'height width 3'], mask: Bool[np.ndarray, 'height width']
) -> Float[np.ndarray, '3']:
  """The mean of the mask's pixels; grey where it has none.

  Of all single colours the one of least squared error inside the mask, and so of highest PSNR.
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
  """Every vertex takes the colour of the nearest visible one along the mesh, as `hops` counts.

  Several at the same distance are averaged; a visible vertex keeps its own colour. `fallback` goes
  to those that no visible vertex is connected with. Colours of vertices that are not visible have
  no effect, NaN included.
  """
  unreachable = len(hops)
  to_visible = np.where(visible[None], hops, unreachable)
  nearest = to_visible.min(axis=1, keepdims=True)
  chosen = (to_visible == nearest) & (nearest < unreachable)
  count = chosen.sum(axis=1, keepdims=True)
  sums = chosen.astype(np.float64) @ np.where(visible[:, None], colors, 0.0)
  return np.where(count > 0, sums / np.maximum(count, 1), fallback[None])
