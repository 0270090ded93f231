"""Shading and compositing of a synthetic photo: skin, sleeve, objects, background, camera."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hand_jax.data.synthetic_background import PALETTE, sample_background
from hand_jax.data.synthetic_geometry import SHADOW_SIZE, SUPERSAMPLING
from hand_jax.data.synthetic_light import Light, ambient_radiosity
from hand_jax.data.synthetic_objects import (
  SolidObject,
  cast_object,
  sample_held_object,
  sample_occluder,
)
from hand_jax.data.synthetic_sampling import HandScene, View
from hand_jax.data.synthetic_sensor import photograph
from hand_jax.data.synthetic_skin import TEXEL_M, Skin, SkinAtlas, redness_noise, to_linear

# A hand of which less than this share is left by an object loses the object instead.
MINIMUM_VISIBLE = 0.55
# Light scatters under the skin, red light farthest: it wraps round the terminator.
_WRAP = np.array([0.32, 0.14, 0.10])


class SurfaceLook(NamedTuple):
  """What never changes about the rendered surface (hand, then forearm), per vertex or face."""

  rest: np.ndarray  # (surface, 3) metres
  palm: np.ndarray  # (surface,)
  redness: np.ndarray  # (surface,) of regions, without a person's noise
  faces: np.ndarray  # (faces, 3)
  hand_faces: int  # the faces before this one belong to the hand
  atlas: SkinAtlas


class Cloth(NamedTuple):
  """Sleeve and wristband: rest x in metres (1: none) and linear reflectances."""

  sleeve_start: float
  sleeve: np.ndarray
  stripe: np.ndarray
  stripe_width: float
  band_start: float
  band_width: float
  band: np.ndarray


class SurfacePixels(NamedTuple):
  """The fine pixels that see the surface: flat indices, faces, and interpolated channels."""

  index: Int[np.ndarray, 'pixels']
  face: Int[np.ndarray, 'pixels']
  channels: Float[np.ndarray, 'pixels channels']


class Photo(NamedTuple):
  """The finished image, and where the hand is seen in it."""

  image: UInt8[np.ndarray, 'size size 3']
  hand_mask: Bool[np.ndarray, 'size size']
  objects: tuple[SolidObject, ...]


def sample_cloth(rng: np.random.Generator, sleeve_start: float) -> Cloth:
  """Random cloth; a wristband in a sixth of the images, on bare wrists only."""
  color = lambda: to_linear(np.clip(PALETTE[rng.integers(len(PALETTE))], 0.02, 0.9))
  banded = rng.uniform() < 0.17
  return Cloth(
    float(sleeve_start),
    color(),
    color(),
    rng.uniform(0.004, 0.02) if rng.uniform() < 0.25 else 0.0,
    rng.uniform(0.112, 0.13) if banded else 1.0,
    rng.uniform(0.005, 0.022),
    color(),
  )


def lamp_view(surface: Float[np.ndarray, 'surface 3'], light: Light) -> np.ndarray:
  """The surface as the lamp sees it: pixels of the shadow buffer and depth in metres."""
  direction = light.lamp_direction
  side = np.cross(direction, [0.0, 1.0, 0.0] if abs(direction[1]) < 0.9 else [1.0, 0.0, 0.0])
  side /= np.linalg.norm(side)
  points = surface @ np.stack([side, np.cross(direction, side), -direction], axis=1)
  low, high = points[:, :2].min(0), points[:, :2].max(0)
  scale = (SHADOW_SIZE - 4) / max((high - low).max(), 1e-3)
  points[:, :2] = (points[:, :2] - low) * scale + 2
  return points.astype(np.float32)


def vertex_light(
  normals: Float[np.ndarray, 'surface 3'],
  openness: Float[np.ndarray, 'surface'],
  lamp_visibility: Float[np.ndarray, 'surface'],
  light: Light,
  skin: Skin,
) -> tuple[np.ndarray, np.ndarray]:
  """Diffuse radiosity (surface, 3) and the lamp's highlight (surface,) at every vertex."""
  ambient = ambient_radiosity(normals @ light.camera_to_environment.T, light.harmonics)
  # What skin hides from skin is lit by skin: occlusion is weaker and redder than black.
  ambient *= openness[:, None] ** np.array([0.85, 1.05, 1.1])
  cosine = (normals @ light.lamp_direction)[:, None]
  wrapped = np.maximum((cosine + _WRAP) / (1 + _WRAP), 0)
  shadow = lamp_visibility[:, None] ** (1 - 0.5 * _WRAP)
  half = light.lamp_direction - np.array([0.0, 0.0, 1.0])
  half /= np.linalg.norm(half) + 1e-6
  shine = np.maximum(normals @ half, 0) ** 18 * lamp_visibility * skin.shine * 3
  rim = skin.shine * (1 - np.abs(normals[:, 2])) ** 3 * openness * 1.5
  highlight = shine * light.lamp_color.mean() + rim * ambient.mean(1)
  return ambient + wrapped * shadow * light.lamp_color, highlight


def person_redness(look: SurfaceLook, skin: Skin) -> Float[np.ndarray, 'surface']:
  """Redness of the regions and of one person's skin."""
  return look.redness + 0.25 * redness_noise(skin, look.rest)


def interpolate(
  seen: Int[np.ndarray, 'fine fine'],
  surface_image: Float[np.ndarray, 'surface 3'],
  faces: Int[np.ndarray, 'faces 3'],
  channels: Float[np.ndarray, 'surface channels'],
) -> SurfacePixels:
  """Values at the seen fine pixels, linear over each face in the image plane."""
  index = np.flatnonzero(seen.ravel() >= 0)
  face = seen.ravel()[index]
  corners = surface_image[faces, :2] * SUPERSAMPLING
  values = channels[faces]
  edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  area = edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0]
  # A sliver's slope is noise: it takes its mean.
  inverse = np.where(np.abs(area) > 1e-2, 1 / np.where(area == 0, 1, area), 0)[:, None]
  rise, climb = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
  slope_x = (rise * other[:, 1:] - climb * edge[:, 1:]) * inverse
  slope_y = (climb * edge[:, :1] - rise * other[:, :1]) * inverse
  middle = corners.mean(1)
  constant = values.mean(1) - slope_x * middle[:, :1] - slope_y * middle[:, 1:]
  planes = np.stack([constant, slope_x, slope_y], 1).astype(np.float32)[face]
  width = seen.shape[1]
  x = (index % width + 0.5).astype(np.float32)[:, None]
  y = (index // width + 0.5).astype(np.float32)[:, None]
  return SurfacePixels(index, face, planes[:, 0] + planes[:, 1] * x + planes[:, 2] * y)


def shade_pixels(
  pixels: SurfacePixels, look: SurfaceLook, skin: Skin, cloth: Cloth
) -> Float[np.ndarray, 'pixels 3']:
  """Linear radiance: skin with creases, pores and nails; sleeve and wristband on the forearm."""
  radiosity, highlight = pixels.channels[:, :3], pixels.channels[:, 3:4]
  palm, red = np.clip(pixels.channels[:, 4:5], 0, 1), pixels.channels[:, 5:6]
  x, z = pixels.channels[:, 6], pixels.channels[:, 7]
  rows, columns = look.atlas.layers.shape[:2]
  column = np.clip((x - look.atlas.origin[0]) / TEXEL_M, 0, columns - 1).astype(np.int32)
  row = np.clip((z - look.atlas.origin[1]) / TEXEL_M, 0, rows - 1).astype(np.int32)
  layers = look.atlas.layers.reshape(-1, 4)[row * columns + column]
  back_side = np.clip(1.8 - 3.0 * palm, 0, 1)
  crease = layers[:, :1] * (1 - back_side) + layers[:, 1:2] * back_side
  as_float = lambda value: np.asarray(value, np.float32)
  albedo = as_float(skin.back) + palm * as_float(skin.palm - skin.back)
  albedo *= 1 + red * as_float(skin.blush - 1)
  darker = 1 - crease * as_float(skin.crease * np.array([0.55, 0.75, 0.8]))
  albedo *= darker * (1 + np.float32(skin.pores) * layers[:, 2:3])
  nail = layers[:, 3:4] * back_side
  albedo += nail * (as_float(skin.nail) - albedo)
  highlight = highlight * (1 + 2.5 * nail)
  _dress(albedo, highlight, pixels.face >= look.hand_faces, x, z, cloth)
  return albedo * radiosity + highlight


def _dress(albedo, highlight, on_forearm, x, z, cloth: Cloth) -> None:
  """Replaces skin by sleeve and wristband, in place."""
  sleeve = on_forearm & (x > cloth.sleeve_start)
  if sleeve.any():
    color = cloth.sleeve.astype(np.float32)
    if cloth.stripe_width:
      odd = np.floor(x[sleeve] / cloth.stripe_width).astype(np.int32) % 2 == 0
      albedo[sleeve] = np.where(odd[:, None], cloth.stripe.astype(np.float32), color)
    else:
      folds = 1 + 0.12 * np.sin(x[sleeve] * 330 + 2.0 * np.sin(z[sleeve] * 170))
      albedo[sleeve] = color * folds[:, None].astype(np.float32)
    highlight[sleeve] = 0
  band = on_forearm & (x > cloth.band_start) & (x < cloth.band_start + cloth.band_width) & ~sleeve
  albedo[band] = cloth.band.astype(np.float32)


def sample_objects(
  rng: np.random.Generator, scene: HandScene, view: View, joints_camera: np.ndarray
) -> list[SolidObject]:
  """Held in about a fifth of the images, in front in about a sixth."""
  objects = []
  if rng.uniform() < 0.2:
    objects.append(sample_held_object(rng, joints_camera, scene.rotation))
  if rng.uniform() < 0.17:
    objects.append(sample_occluder(rng, view, float(joints_camera[:, 2].min())))
  return objects


def compose_photo(
  rng: np.random.Generator,
  pixels: SurfacePixels,
  radiance: Float[np.ndarray, 'pixels 3'],
  look: SurfaceLook,
  view: View,
  light: Light,
  objects: list[SolidObject],
  size: int,
) -> Photo:
  """Puts surface and objects over a background, exposes, and takes the photo."""
  exposure = rng.uniform(0.55, 1.1) / max(float(pixels.channels[:, :3].mean()), 1e-3)
  fine = SUPERSAMPLING * size
  layer = np.zeros((fine * fine, 4), np.float32)
  layer[pixels.index, :3] = _tone(radiance * exposure)
  layer[pixels.index, 3] = 1
  layer = cv2.resize(layer.reshape(fine, fine, 4), (size, size), interpolation=cv2.INTER_AREA)
  depth = np.full(fine * fine, np.inf, np.float32)
  depth[pixels.index] = pixels.channels[:, 8]
  depth = depth.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).min((1, 3))
  hand = np.zeros(fine * fine, np.float32)
  hand[pixels.index] = pixels.face < look.hand_faces
  hand = cv2.resize(hand.reshape(fine, fine), (size, size), interpolation=cv2.INTER_AREA) >= 0.5
  background = sample_background(rng, light.environment, light.camera_to_environment, size)
  alpha = layer[..., 3:]
  if rng.uniform() < 0.25:
    background = _cast_on_wall(rng, background, layer[..., 3])
  image = background * (1 - alpha) + layer[..., :3]
  image, hand, kept = _add_objects(image, hand, depth, objects, view, light, exposure, size)
  return Photo(photograph(rng, image), hand, kept)


def _add_objects(image, hand, depth, objects, view, light, exposure, size):
  total = max(int(hand.sum()), 1)
  kept = []
  for solid in objects:
    cast = cast_object(solid, view, light, size)
    if cast is None:
      continue
    front = cast.hit & (cast.depth < depth[cast.window])
    left = hand.copy()
    left[cast.window] &= ~front
    if left.sum() < MINIMUM_VISIBLE * total:
      continue
    hand = left
    soft = cv2.blur(front.astype(np.float32), (2, 2))[..., None] * 0.5 + front[..., None] * 0.5
    image[cast.window] += soft * (_tone(cast.radiance * exposure) - image[cast.window])
    depth[cast.window] = np.where(front, cast.depth, depth[cast.window])
    kept.append(solid)
  return image, hand, tuple(kept)


def _cast_on_wall(rng, background, coverage):
  """A soft shadow of the hand on a wall or table not far behind it."""
  shift = rng.normal(0, 0.06, 2) * coverage.shape[0]
  matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
  moved = cv2.warpAffine(coverage, matrix, coverage.shape[::-1])
  soft = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.01, 0.06) * coverage.shape[0])
  return background * (1 - rng.uniform(0.15, 0.5) * soft[..., None])


def _tone(radiance):
  """Linear light to display values: gamma with a soft shoulder."""
  display = np.maximum(radiance, 0) ** np.float32(1 / 2.2)
  over = np.maximum(display - 0.8, 0)
  return np.minimum(display, 0.8) + over / (1 + 2.2 * over)
