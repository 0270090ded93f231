"""Objects that a synthetic hand holds or hides behind: ellipsoids, boxes and cylinders.

Pictures of them are made by casting rays.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from hand_jax.synthetic.background import PALETTE, SKIN_PALETTE
from hand_jax.synthetic.light import Light, ambient_radiosity
from hand_jax.synthetic.scene import View
from hand_jax.synthetic.skin import to_linear


class SolidObject(NamedTuple):
  """A convex solid in camera axes. Scaled by its half sizes, it fills [-1, 1]^3 in its own axes."""

  kind: str
  """'ellipsoid', 'box' or 'cylinder' (along its third axis)."""
  center: np.ndarray  # (3,)
  """Centre, metres."""
  axes: np.ndarray  # (3, 3)
  """The solid's own axes, as rows."""
  half_sizes: np.ndarray  # (3,)
  """Half of the extent along each own axis, metres."""
  color: np.ndarray  # (3,)
  """Linear reflectance."""
  stripe_color: np.ndarray  # (3,)
  """Linear reflectance of the stripes."""
  stripes: float
  """Number of bands along half of the third axis. A plain object has 0."""


class ObjectImage(NamedTuple):
  """How a solid looks in a window of the image."""

  window: tuple[slice, slice]
  """Rows and columns of the image."""
  hit: Bool[np.ndarray, 'rows columns']
  """Where the solid is seen."""
  depth: Float[np.ndarray, 'rows columns']
  """Depth in metres."""
  radiance: Float[np.ndarray, 'rows columns 3']
  """Linear radiance."""


def random_rotation(rng: np.random.Generator) -> Float[np.ndarray, '3 3']:
  """Draws a rotation matrix uniformly, by a normalised Gaussian quaternion."""
  w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
  return np.array(
    [
      [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
      [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
      [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
  )


def _sample_look(rng: np.random.Generator) -> dict:
  palette = SKIN_PALETTE if rng.uniform() < 0.12 else PALETTE
  colors = palette[rng.integers(len(palette), size=2)] * rng.uniform(0.7, 1.1, (2, 1))
  color, stripe_color = to_linear(colors)
  stripes = rng.uniform(1, 9) if rng.uniform() < 0.35 else 0.0
  return {'color': color, 'stripe_color': stripe_color, 'stripes': stripes}


def sample_held_object(
  rng: np.random.Generator, joints_camera: Float[np.ndarray, '21 3'], rotation: np.ndarray
) -> SolidObject:
  """Draws an object in the palm, such as a ball, a can, a box or a tool across the fingers.

  Args:
    rng: the source of randomness.
    joints_camera: the 21 joints, metres, camera axes.
    rotation: matrix from hand frame to camera axes, for column vectors.
  """
  kind = ('ellipsoid', 'box', 'cylinder', 'cylinder')[rng.integers(4)]
  slim = rng.uniform() < 0.4
  radius = rng.uniform(0.004, 0.011) if slim else rng.uniform(0.014, 0.036)
  length = (
    rng.uniform(0.05, 0.11) if slim or rng.uniform() < 0.6 else radius * rng.uniform(0.8, 1.6)
  )
  if kind == 'ellipsoid':
    length = radius * rng.uniform(0.9, 1.5)
  # The object lies across the palm (along MANO's z), a little tilted. The palm faces -y.
  across, normal = rotation[:, 2], -rotation[:, 1]
  direction = across + rng.normal(0, 0.35, 3)
  direction /= np.linalg.norm(direction)
  first = np.cross(direction, rng.normal(0, 1, 3))
  first /= np.linalg.norm(first)
  axes = np.stack([first, np.cross(direction, first), direction])
  palm = joints_camera[[0, 5, 9, 13, 17, 5, 9, 13, 17]].mean(0)
  center = palm + normal * (radius + 0.016) + across * rng.normal(0, 0.015)
  half = np.array([radius * rng.uniform(0.75, 1.2), radius, length])
  return SolidObject(kind, center, axes, half, **_sample_look(rng))


def sample_occluder(rng: np.random.Generator, view: View, depth: float) -> SolidObject:
  """Draws an object between camera and hand, over a side or a corner of the hand's box.

  Args:
    rng: the source of randomness.
    view: the camera.
    depth: depth of the nearest joint, metres.
  """
  kind = ('ellipsoid', 'box', 'cylinder')[rng.integers(3)]
  depth = depth * rng.uniform(0.55, 0.85)
  angle = rng.uniform(0, 2 * np.pi)
  x, y, width, height = view.box_xywh
  reach = rng.uniform(0.25, 0.6)
  pixel = np.array([x + width / 2, y + height / 2])
  pixel = pixel + reach * np.array([width * np.cos(angle), height * np.sin(angle)])
  extent = max(width, height) * depth / view.focal_length
  slim = rng.uniform() < 0.5
  half = extent * rng.uniform(
    [0.03, 0.03, 0.2] if slim else [0.08] * 3, [0.07, 0.07, 0.6] if slim else [0.24] * 3
  )
  center = np.array([*((pixel - view.principal_point) / view.focal_length * depth), depth])
  return SolidObject(kind, center, random_rotation(rng), half, **_sample_look(rng))


def cast_object(solid: SolidObject, view: View, light: Light, size: int) -> ObjectImage | None:
  """Casts a ray through each pixel near a solid.

  Args:
    solid: the object.
    view: the camera.
    light: the light on the object.
    size: side of the image, pixels.

  Returns:
    The picture of the object, or None where it lies outside the image or too close to the camera.
  """
  window = _window(solid, view, size)
  if window is None:
    return None
  rows, columns = (np.arange(part.start, part.stop, dtype=np.float32) + 0.5 for part in window)
  rays = np.empty((len(rows), len(columns), 3), np.float32)
  rays[..., 0] = (columns[None] - view.principal_point[0]) / view.focal_length
  rays[..., 1] = (rows[:, None] - view.principal_point[1]) / view.focal_length
  rays[..., 2] = 1.0
  to_own = (solid.axes / solid.half_sizes[:, None]).astype(np.float32)
  origin = -(to_own @ solid.center).astype(np.float32)
  directions = rays @ to_own.T
  near, normals, hit = _intersect(solid.kind, origin, directions)
  points = origin + near[..., None] * directions
  normals = (normals / solid.half_sizes.astype(np.float32)) @ solid.axes.astype(np.float32)
  normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
  radiance = _shade(solid, points, normals, light)
  return ObjectImage(window, hit & (near > 0), near, radiance)


def _window(solid: SolidObject, view: View, size: int) -> tuple[slice, slice] | None:
  signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(-1, 3)
  corners = solid.center + (signs * solid.half_sizes) @ solid.axes
  if corners[:, 2].min() < 0.05:
    return None
  pixels = corners[:, :2] / corners[:, 2:] * view.focal_length + view.principal_point
  low = np.clip(np.floor(pixels.min(0)), 0, size).astype(int)
  high = np.clip(np.ceil(pixels.max(0)), 0, size).astype(int)
  if (high - low).min() < 2:
    return None
  return slice(low[1], high[1]), slice(low[0], high[0])


def _intersect(kind: str, origin: np.ndarray, directions: np.ndarray):
  """Finds the nearest ray parameter, the normal in own axes, and the hit mask of a unit solid."""
  shape = directions.shape[:-1]
  near, far = np.full(shape, -np.inf, np.float32), np.full(shape, np.inf, np.float32)
  normals = np.zeros((*shape, 3), np.float32)
  slabs = {'ellipsoid': (), 'box': (0, 1, 2), 'cylinder': (2,)}[kind]
  rounds = {'ellipsoid': (0, 1, 2), 'box': (), 'cylinder': (0, 1)}[kind]
  for axis in slabs:
    along = directions[..., axis]
    along = np.where(np.abs(along) < 1e-9, 1e-9, along)
    enter = (-np.sign(along) - origin[axis]) / along
    leave = (np.sign(along) - origin[axis]) / along
    later = enter > near
    near = np.where(later, enter, near)
    normals[later] = 0
    normals[..., axis] = np.where(later, -np.sign(along), normals[..., axis])
    far = np.minimum(far, leave)
  if rounds:
    part, start = directions[..., list(rounds)], origin[list(rounds)]
    a, b, c = (part**2).sum(-1), part @ start, float(start @ start) - 1
    root = b * b - a * c
    enter = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    leave = np.where(root > 0, (-b + np.sqrt(np.maximum(root, 0))) / a, -np.inf)
    later = enter > near
    near = np.where(later, enter, near)
    normals[later] = 0
    radial = start + np.where(np.isfinite(enter), enter, 0)[..., None] * part
    for k, axis in enumerate(rounds):
      normals[..., axis] = np.where(later, radial[..., k], normals[..., axis])
    far = np.minimum(far, leave)
  hit = (near < far) & np.isfinite(near)
  return np.where(hit, near, 0), normals, hit


def _shade(solid: SolidObject, points, normals, light: Light):
  albedo = np.broadcast_to(solid.color.astype(np.float32), normals.shape)
  if solid.stripes:
    band = np.floor(points[..., 2:] * solid.stripes).astype(np.int32) % 2 == 0
    albedo = np.where(band, solid.stripe_color.astype(np.float32), albedo)
  # Ambient light is smooth, so its values at six normals give those at all others.
  x, y, z = np.eye(3)
  probes = np.stack([x, -x, y, -y, z, -z]) @ light.camera_to_environment.T
  ambient = ambient_radiosity(probes, light.harmonics).astype(np.float32)
  squared = normals**2
  irradiance = np.zeros_like(normals)
  for axis in range(3):
    positive = normals[..., axis : axis + 1] > 0
    side = np.where(positive, ambient[2 * axis], ambient[2 * axis + 1])
    irradiance += squared[..., axis : axis + 1] * side
  facing = np.maximum(normals @ light.lamp_direction.astype(np.float32), 0)
  return albedo * (irradiance + facing[..., None] * light.lamp_color.astype(np.float32))
