"""Light on the skin: diffuse light per vertex, and creases, pores, nails and cloth at any point."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from hand_jax.synthetic.background import PALETTE
from hand_jax.synthetic.geometry import SHADOW_SIZE, SUPERSAMPLING
from hand_jax.synthetic.light import Light, ambient_radiosity
from hand_jax.synthetic.skin import TEXEL_M, Skin, SkinAtlas, redness_noise, to_linear

# Light scatters under the skin, red light farthest, so it wraps round the terminator.
_WRAP = np.array([0.32, 0.14, 0.10], np.float32)


class SurfaceLook(NamedTuple):
  """The constant properties of the rendered surface, which is the hand, then the forearm."""

  rest: np.ndarray  # (surface, 3)
  """Vertices at rest, metres."""
  palm: np.ndarray  # (surface,)
  """Share of palm at each vertex, from 0 to 1 on the palmar side."""
  redness: np.ndarray  # (surface,)
  """Redness of each vertex's region, without the noise of a person."""
  faces: np.ndarray  # (faces, 3)
  parts: np.ndarray  # (faces,)
  """The bone that a face moves with, as a number. The forearm has its own number."""
  hand_faces: int
  """Number of faces of the hand, which come first."""
  atlas: SkinAtlas
  """Creases, pores and nails of the hand."""


class Cloth(NamedTuple):
  """A sleeve and a wristband.

  Places are x at rest in metres, and 1 means that the thing is missing. Colours are linear
  reflectances.
  """

  sleeve_start: float
  """Where the sleeve begins."""
  sleeve: np.ndarray
  """Colour of the sleeve."""
  stripe: np.ndarray
  """Colour of its stripes."""
  stripe_width: float
  """Width of a stripe, metres. A sleeve without stripes has 0."""
  band_start: float
  """Where the wristband begins."""
  band_width: float
  """Width of the wristband, metres."""
  band: np.ndarray
  """Colour of the wristband."""


class SurfacePixels(NamedTuple):
  """The shaded samples that see the surface."""

  index: Int[np.ndarray, 'pixels']
  """Flat index of (sample, row, column)."""
  face: Int[np.ndarray, 'pixels']
  """The face that the sample sees."""
  same: Bool[np.ndarray, 'size size']
  """True where both samples of a pixel see the part that the first one sees."""
  channels: Float[np.ndarray, 'pixels channels']
  """Values at the samples."""


def sample_cloth(rng: np.random.Generator, sleeve_start: float) -> Cloth:
  """Draws the cloth on a forearm.

  A sixth of the images get a wristband, which is visible where no sleeve covers it.
  """
  colors = PALETTE[rng.integers(len(PALETTE), size=3)]
  sleeve, stripe, band = to_linear(np.clip(colors, 0.02, 0.9))
  banded = rng.uniform() < 0.17
  return Cloth(
    sleeve_start=float(sleeve_start),
    sleeve=sleeve,
    stripe=stripe,
    stripe_width=rng.uniform(0.004, 0.02) if rng.uniform() < 0.25 else 0.0,
    band_start=rng.uniform(0.112, 0.13) if banded else 1.0,
    band_width=rng.uniform(0.005, 0.022),
    band=band,
  )


def lamp_view(
  surface: Float[np.ndarray, 'surface 3'], hand_vertices: int, light: Light
) -> Float[np.ndarray, 'surface 3']:
  """Projects a surface orthographically as the lamp sees it.

  Args:
    surface: vertices of hand and forearm, metres.
    hand_vertices: number of vertices of the hand, which come first and fill the lamp's buffer.
    light: the light.

  Returns:
    Pixels of the lamp's buffer, and depth in metres.
  """
  direction = light.lamp_direction
  side = np.cross(direction, [0.0, 1.0, 0.0] if abs(direction[1]) < 0.9 else [1.0, 0.0, 0.0])
  side /= np.linalg.norm(side)
  points = surface @ np.stack([side, np.cross(direction, side), -direction], axis=1)
  low, high = points[:hand_vertices, :2].min(0), points[:hand_vertices, :2].max(0)
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
  """Computes the light on every vertex.

  Args:
    normals: unit normals in camera axes.
    openness: ambient occlusion, 1 for a vertex that sees its whole hemisphere.
    lamp_visibility: share of the lamp that each vertex sees.
    light: the light.
    skin: the skin, whose shine scales the highlight.

  Returns:
    Diffuse radiosity (surface, 3), and the highlight (surface,) of the lamp and of
    ambient light at grazing angles.
  """
  normals, openness = np.asarray(normals, np.float32), np.asarray(openness, np.float32)
  turn = np.asarray(light.camera_to_environment, np.float32)
  harmonics = np.asarray(light.harmonics, np.float32)
  ambient = ambient_radiosity(normals @ turn.T, harmonics)
  # Skin that hides other skin also lights it, so occlusion is weaker and redder than black.
  ambient *= openness[:, None] ** np.array([0.85, 1.05, 1.1], np.float32)
  direction = np.float32(light.lamp_direction)
  cosine = (normals @ direction)[:, None]
  wrapped = np.maximum((cosine + _WRAP) / (1 + _WRAP), 0)
  shadow = lamp_visibility[:, None] ** (1 - 0.5 * _WRAP)
  half = direction - np.array([0, 0, 1], np.float32)
  half /= np.linalg.norm(half) + 1e-6
  shine = np.maximum(normals @ half, 0) ** 18 * lamp_visibility * skin.shine * 3
  rim = skin.shine * (1 - np.abs(normals[:, 2])) ** 3 * openness * 1.5
  highlight = shine * light.lamp_color.mean() + rim * ambient.mean(1)
  return ambient + wrapped * shadow * np.float32(light.lamp_color), highlight


def _person_redness(look: SurfaceLook, skin: Skin) -> Float[np.ndarray, 'surface']:
  """Adds one person's redness noise to the redness of the regions."""
  return look.redness + 0.25 * redness_noise(skin, look.rest)


def shaded_samples(
  seen: Int[np.ndarray, 'fine fine'],
  surface_image: Float[np.ndarray, 'surface 3'],
  faces: Int[np.ndarray, 'faces 3'],
  parts: Int[np.ndarray, 'faces'],
  channels: Float[np.ndarray, 'surface channels'],
) -> SurfacePixels:
  """Interpolates values at the shaded samples, linearly over each face in the image plane.

  Of a pixel's four fine samples the two on its diagonal are shaded. The second one is shaded only
  where it sees another part of the hand than the first.

  Args:
    seen: the face that each fine sample sees, -1 for none.
    surface_image: pixels of the image, and depth.
    faces: faces of hand and forearm.
    parts: number of the part that each face belongs to.
    channels: values of the vertices.

  Returns:
    The samples that see the surface, and their values.
  """
  diagonal = np.stack([seen[k::SUPERSAMPLING, k::SUPERSAMPLING] for k in range(SUPERSAMPLING)])
  of_face = np.append(parts, -1)  # face -1, the background, finds the last entry
  same = of_face[diagonal[0]] == of_face[diagonal[1]]
  diagonal[1, same] = -1
  index = np.flatnonzero(diagonal.ravel() >= 0)
  face = diagonal.ravel()[index]
  used = np.zeros(len(faces), bool)
  used[face] = True
  corners = surface_image[faces[used], :2] * np.float32(SUPERSAMPLING)
  values = channels[faces[used]]
  edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  area = edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0]
  # The slope of a sliver is noise, so a sliver takes its mean value.
  usable = np.abs(area) > 1e-2
  inverse = (usable / np.where(usable, area, 1)).astype(np.float32)[:, None]
  rise, climb = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
  slope_x = (rise * other[:, 1:] - climb * edge[:, 1:]) * inverse
  slope_y = (climb * edge[:, :1] - rise * other[:, :1]) * inverse
  middle = corners.mean(1)
  constant = values.mean(1) - slope_x * middle[:, :1] - slope_y * middle[:, 1:]
  planes = np.stack([constant, slope_x, slope_y], 1)[(np.cumsum(used) - 1)[face]]
  height, width = diagonal.shape[1:]
  sample, place = np.divmod(index, height * width)
  row, column = np.divmod(place, width)
  x = (column * SUPERSAMPLING + sample + 0.5).astype(np.float32)[:, None]
  y = (row * SUPERSAMPLING + sample + 0.5).astype(np.float32)[:, None]
  return SurfacePixels(index, face, same, planes[:, 0] + planes[:, 1] * x + planes[:, 2] * y)


def merge_samples(
  pixels: SurfacePixels, values: Float[np.ndarray, 'pixels channels'], size: int
) -> Float[np.ndarray, 'size size channels']:
  """Averages the two shaded samples of every pixel. A sample that sees nothing counts as zero.

  Args:
    pixels: the shaded samples.
    values: values of these samples.
    size: side of the image, pixels.
  """
  count = size * size
  place = pixels.index % count
  weighted = values * np.where(pixels.same.ravel()[place], 1, 0.5).astype(np.float32)[:, None]
  merged = np.zeros((count, values.shape[1]), np.float32)
  first = np.searchsorted(pixels.index, count)
  merged[place[:first]] = weighted[:first]
  merged[place[first:]] += weighted[first:]
  return merged.reshape(size, size, -1)


def surface_channels(
  radiosity: Float[np.ndarray, 'surface 3'],
  highlight: Float[np.ndarray, 'surface'],
  look: SurfaceLook,
  skin: Skin,
  depth: Float[np.ndarray, 'surface'],
) -> Float[np.ndarray, 'surface 9']:
  """Collects the values per vertex that `shade_points` needs, all of them linear over a face.

  They are radiosity (3), highlight, palm, redness, and x and z at rest in metres. The depth comes
  last.

  Args:
    radiosity: diffuse light of the vertices.
    highlight: highlight of the vertices.
    look: the surface's constant properties.
    skin: the person's skin.
    depth: depth in metres.
  """
  details = [highlight, look.palm, _person_redness(look, skin), look.rest[:, 0], look.rest[:, 2]]
  return np.concatenate([radiosity, np.stack([*details, depth], 1)], axis=1).astype(np.float32)


def shade_points(
  channels: Float[np.ndarray, 'points 9'],
  on_forearm: Bool[np.ndarray, 'points'],
  look: SurfaceLook,
  skin: Skin,
  cloth: Cloth,
) -> Float[np.ndarray, 'points 3']:
  """Computes linear radiance at points of the surface.

  Skin has creases, pores and nails. The forearm may have a sleeve or a wristband.

  Args:
    channels: the `surface_channels` at the points.
    on_forearm: whether a point lies on the forearm.
    look: the surface's constant properties.
    skin: the person's skin.
    cloth: sleeve and wristband.

  Returns:
    Linear RGB radiance.
  """
  radiosity, highlight = channels[:, :3], channels[:, 3:4]
  palm, red = np.clip(channels[:, 4:5], 0, 1), channels[:, 5:6]
  x, z = channels[:, 6], channels[:, 7]
  rows, columns = look.atlas.layers.shape[:2]
  column = np.clip((x - look.atlas.origin[0]) / TEXEL_M, 0, columns - 1).astype(np.int32)
  row = np.clip((z - look.atlas.origin[1]) / TEXEL_M, 0, rows - 1).astype(np.int32)
  layers = look.atlas.layers.reshape(-1, 4)[row * columns + column]
  back_side = np.clip(1.8 - 3.0 * palm, 0, 1)
  crease = layers[:, :1] * (1 - back_side) + layers[:, 1:2] * back_side
  albedo = np.float32(skin.back) + palm * np.float32(skin.palm - skin.back)
  albedo *= 1 + red * np.float32(skin.blush - 1)
  darker = 1 - crease * np.float32(skin.crease * np.array([0.55, 0.75, 0.8]))
  albedo *= darker * (1 + np.float32(skin.pores) * layers[:, 2:3])
  nail = layers[:, 3:4] * back_side
  albedo += nail * (np.float32(skin.nail) - albedo)
  highlight = highlight * (1 + 2.5 * nail)
  _dress(albedo, highlight, on_forearm, x, z, cloth)
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
