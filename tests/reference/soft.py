"""Naive soft rasterizer in NumPy float64: every pixel against every face, from the formulas."""

import numpy as np


def _distance_to_segment(point, a, b):
  edge = b - a
  length = np.sqrt(edge @ edge)
  if length == 0:
    return np.linalg.norm(point - a)
  direction = edge / length
  along = (point - a) @ direction
  if along <= 0:
    return np.linalg.norm(point - a)
  if along >= length:
    return np.linalg.norm(point - b)
  return abs(direction[0] * (point - a)[1] - direction[1] * (point - a)[0])


def barycentrics(point, corners):
  """Screen-space barycentrics by solving the linear system; None for a triangle without area."""
  system = np.concatenate([np.asarray(corners).T, np.ones((1, 3))])
  if abs(np.linalg.det(system)) < 1e-12:
    return None
  return np.linalg.solve(system, np.array([*point, 1.0]))


def signed_distance(point, corners):
  """Distance to the triangle's boundary, positive inside and negative outside."""
  distance = min(_distance_to_segment(point, corners[i], corners[(i + 1) % 3]) for i in range(3))
  weights = barycentrics(point, corners)
  inside = weights is not None and (weights > 0).all()
  return distance if inside else -distance


def _sigmoid(value):
  return np.exp(-np.logaddexp(0, -value))


def _coverage(point, corners, sigma, blur_radius):
  """D of one face at one pixel, 0 beyond the blur radius."""
  distance = signed_distance(point, corners)
  if distance <= -blur_radius:
    return 0.0
  return _sigmoid(np.sign(distance) * distance**2 / sigma)


def soft_silhouette_naive(vertices, faces, height, width, sigma, blur_radius=np.inf):
  """1 - prod over faces of (1 - D) for one image (vertices, 2 or 3)."""
  image = np.zeros((height, width))
  for row, column in np.ndindex(height, width):
    point = np.array([column + 0.5, row + 0.5])
    left_over = 1.0
    for ids in np.asarray(faces):
      corners = np.asarray(vertices, np.float64)[ids, :2]
      if np.isfinite(corners).all():
        left_over *= 1 - _coverage(point, corners, sigma, blur_radius)
    image[row, column] = 1 - left_over
  return image


def soft_blend_naive(
  vertices,
  faces,
  colors,
  background,
  sigma,
  gamma,
  near,
  far,
  blur_radius=np.inf,
  epsilon=1e-3,
):
  """Colours of one image; `background` (height, width, channels). Subtracts no maximum."""
  height, width, channels = background.shape
  image = np.zeros((height, width, channels))
  vertices = np.asarray(vertices, np.float64)
  for row, column in np.ndindex(height, width):
    point = np.array([column + 0.5, row + 0.5])
    total = np.exp(epsilon / gamma)
    color = total * background[row, column]
    for ids in np.asarray(faces):
      corners = vertices[ids]
      weights = barycentrics(point, corners[:, :2]) if np.isfinite(corners).all() else None
      if weights is None:
        continue
      weights = np.clip(weights, 0, 1)
      weights /= weights.sum()
      nearness = (far - weights @ corners[:, 2]) / (far - near)
      if not 0 <= nearness <= 1:
        continue
      weight = _coverage(point, corners[:, :2], sigma, blur_radius) * np.exp(nearness / gamma)
      total += weight
      color = color + weight * (weights @ np.asarray(colors)[ids])
    image[row, column] = color / total
  return image


def central_differences(function, values, step=1e-6):
  """d function / d values for a function of one array that returns a number."""
  gradient = np.zeros_like(values)
  for place in np.ndindex(*values.shape):
    change = np.zeros_like(values)
    change[place] = step
    gradient[place] = (function(values + change) - function(values - change)) / (2 * step)
  return gradient
