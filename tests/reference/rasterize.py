"""Naive rasterizer in NumPy float64: loops over faces, tests every pixel centre against each."""

import numpy as np


def _cross(ux, uy, wx, wy):
  return ux * wy - uy * wx


def face_at_points(corners, x, y):
  """Barycentrics (..., 3) and depth at points of one face, or of one face (3, 3, ...) per point.

  All NaN when a face has no area.
  """
  (ax, ay, az), (bx, by, bz), (cx, cy, cz) = np.asarray(corners, np.float64)
  area = _cross(bx - ax, by - ay, cx - ax, cy - ay)
  if np.any(area == 0) or not np.all(np.isfinite(area + az + bz + cz)):
    return np.full((*np.shape(x), 3), np.nan), np.full(np.shape(x), np.nan)
  # Numerators first: their signs are exact for coordinates on a grid.
  weight_a = _cross(bx - x, by - y, cx - x, cy - y) / area
  weight_b = _cross(cx - x, cy - y, ax - x, ay - y) / area
  weight_c = _cross(ax - x, ay - y, bx - x, by - y) / area
  depth = az + weight_b * (bz - az) + weight_c * (cz - az)
  return np.stack([weight_a, weight_b, weight_c], -1), depth


def rasterize_naive(vertices_image, faces, height, width):
  """Face index, barycentrics, depth and the margin of the decision, for one image.

  The margin is the smallest change that could alter a pixel's face: the smallest |barycentric| of
  any face there, and the depth gap between the nearest two faces that hold the pixel.
  """
  y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing='ij')
  face_index = np.full((height, width), -1)
  barycentric = np.zeros((height, width, 3))
  depth = np.full((height, width), np.inf)
  second = np.full((height, width), np.inf)
  edge_margin = np.full((height, width), np.inf)
  for face, ids in enumerate(np.asarray(faces)):
    weights, face_depth = face_at_points(vertices_image[ids], x, y)
    if np.isnan(weights).any():
      continue
    edge_margin = np.minimum(edge_margin, np.abs(weights).min(-1))
    hit = (weights >= 0).all(-1)
    nearer = hit & (face_depth < depth)
    second = np.where(nearer, depth, np.where(hit, np.minimum(second, face_depth), second))
    face_index[nearer] = face
    barycentric[nearer] = weights[nearer]
    depth[nearer] = face_depth[nearer]
  with np.errstate(invalid='ignore'):
    gap = np.where(np.isinf(second), np.inf, second - depth)
  return face_index, barycentric, depth, np.minimum(edge_margin, gap)


def visible_vertices_naive(vertices_image, faces, height, width, depth_tolerance):
  """A vertex is visible inside the image unless a face without it lies nearer at its position."""
  x, y, depth = np.asarray(vertices_image, np.float64).T
  visible = (x >= 0) & (x < width) & (y >= 0) & (y < height)
  for ids in np.asarray(faces):
    weights, face_depth = face_at_points(vertices_image[ids], x, y)
    hidden = (weights >= 0).all(-1) & (face_depth < depth - depth_tolerance)
    hidden[ids] = False
    visible &= ~hidden
  return visible


def near_mask_naive(vertices_image, mask):
  """Whether a vertex's pixel or one of its eight neighbours in the image is set."""
  near = np.zeros(len(vertices_image), bool)
  for vertex, (x, y) in enumerate(np.asarray(vertices_image)[:, :2]):
    row, column = int(np.floor(y)), int(np.floor(x))
    rows = slice(max(row - 1, 0), max(row + 2, 0))
    near[vertex] = mask[rows, max(column - 1, 0) : max(column + 2, 0)].any()
  return near
