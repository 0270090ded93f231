"""Backgrounds of synthetic hands: views into environment maps, and procedural scenes.

Everything is drawn in display colours (sRGB, 0..1) at the image's size, in about a millisecond.
"""

import functools
from typing import Any, cast

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.synthetic.light import load_environments

# A view's map coordinates are exact on a coarse grid of this many cells per side.
_GRID = 24

# Display colours of things in rooms and streets, such as cloth, wood, walls, plants and plastics.
PALETTE = np.array(
  [
    [235, 232, 226], [214, 206, 192], [186, 178, 168], [150, 148, 146], [110, 112, 116],
    [68, 70, 74], [34, 35, 40], [16, 16, 18], [196, 164, 120], [150, 108, 68], [104, 70, 42],
    [62, 42, 28], [92, 122, 60], [52, 82, 40], [130, 150, 96], [44, 70, 112], [70, 116, 170],
    [150, 186, 214], [30, 44, 72], [150, 40, 38], [196, 74, 52], [226, 150, 60], [232, 200, 90],
    [90, 60, 110], [200, 140, 150], [40, 110, 110], [244, 244, 242], [120, 96, 84],
  ],
  np.float32,
) / 255.0  # fmt: skip

SKIN_PALETTE = np.array(
  [[240, 205, 180], [224, 178, 146], [200, 150, 116], [160, 112, 80], [110, 74, 52], [70, 46, 34]],
  np.float32,
) / 255.0  # fmt: skip


@functools.cache
def _tiled_views() -> tuple[np.ndarray, ...]:
  """Puts each map beside itself, so that a view never meets the seam."""
  return tuple(np.concatenate([view, view], axis=1) for view in load_environments().views)


def view_of_environment(
  environment: int,
  rotation: Float[np.ndarray, '3 3'],
  tangent: float,
  size: int,
) -> UInt8[np.ndarray, 'size size 3']:
  """Draws a perspective view into an environment map, sampled bilinearly.

  Args:
    environment: index of the map in `load_environments`.
    rotation: matrix from camera axes (x right, y down, z forward) to environment axes, for column
      vectors.
    tangent: tangent of half the field of view.
    size: side of the picture, pixels.

  Returns:
    Display RGB with 8 bits per channel.
  """
  image = _tiled_views()[environment]
  height, width = image.shape[0], image.shape[1] // 2
  forward = rotation[:, 2]
  yaw = np.arctan2(forward[0], forward[2])
  # Longitudes do not wrap when they are taken relative to the view's own.
  cosine, sine = np.cos(yaw), np.sin(yaw)
  unturned = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]]) @ rotation
  ticks = np.linspace(-tangent, tangent, _GRID + 1)
  x, y = np.meshgrid(ticks, ticks)
  rays = np.stack([x, y, np.ones_like(x)], -1) @ unturned.T
  longitude = np.arctan2(rays[..., 0], rays[..., 2]) + yaw % (2 * np.pi) + np.pi
  latitude = np.arctan2(rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
  columns = (longitude / (2 * np.pi)) * width
  columns = columns - width if columns.min() > width else columns
  rows = (0.5 - latitude / np.pi) * height
  coarse = np.stack([columns - 0.5, rows - 0.5], -1).astype(np.float32)
  inner = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
  # One map holds both coordinates. OpenCV's types do not know that there may be no second.
  none = cast(Any, None)
  return cv2.remap(image, inner, none, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def smooth_noise(
  rng: np.random.Generator, size: int, cells: int, channels: int = 1
) -> Float[np.ndarray, 'size size channels']:
  """Draws random values on a grid of cells and interpolates them smoothly.

  The values of the grid are in [-1, 1]. The interpolation may leave this range a little.

  Args:
    rng: the source of randomness.
    size: side of the picture, pixels.
    cells: number of cells along each side of the grid.
    channels: number of independent channels.
  """
  grid = rng.uniform(-1, 1, (cells, cells, channels)).astype(np.float32)
  noise = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
  return noise.reshape(size, size, channels)


def draw_gradient(rng: np.random.Generator, size: int) -> Float[np.ndarray, 'size size 3']:
  """Draws a colour that changes slowly, like a wall, a table or a sky.

  Sometimes a second colour follows beyond a straight edge.
  """
  color = _pick_color(rng, neutral=0.7)
  corners = color + rng.normal(0, 0.10, (2, 2, 1)) + rng.normal(0, 0.02, (2, 2, 3))
  image = cv2.resize(corners.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
  if rng.uniform() < 0.35:
    offset, angle = rng.uniform(0.15, 0.85), rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    side = (np.cos(angle) * x + np.sin(angle) * y + 0.5 - offset) * size
    share = np.clip(side / rng.uniform(1, 8) + 0.5, 0, 1)[..., None]
    image = image * (1 - share) + (_pick_color(rng, 0.5) + rng.normal(0, 0.03)) * share
  if rng.uniform() < 0.6:
    cells = int(rng.integers(12, 60))
    image = image * (1 + rng.uniform(0, 0.06) * smooth_noise(rng, size, cells))
  return image.astype(np.float32)


def draw_texture(rng: np.random.Generator, size: int) -> Float[np.ndarray, 'size size 3']:
  """Draws noise of several scales between three colours, like foliage, carpet, stone or cloth."""
  colors = [_pick_color(rng, 0.3) for _ in range(3)]
  roughness = rng.uniform(0.45, 0.85)
  field = np.zeros((size, size, 1), np.float32)
  strength = 1.0
  for octave in range(5):
    cells = int(rng.integers(3, 6)) * 2**octave
    field += strength * smooth_noise(rng, size, min(cells, size))
    strength *= roughness
  field = field / (field.std() + 1e-3)
  share = 1 / (1 + np.exp(-rng.uniform(0.8, 3.0) * field))
  other = np.clip(smooth_noise(rng, size, 5) + 0.5, 0, 1)
  return colors[0] * share + (colors[1] * other + colors[2] * (1 - other)) * (1 - share)


def draw_clutter(
  rng: np.random.Generator, image: Float[np.ndarray, 'size size 3'], count: int
) -> Float[np.ndarray, 'size size 3']:
  """Draws rectangles, ellipses, bars and repeated items over an image.

  The first half of the items is often blurred, as if it were farther away.

  Args:
    rng: the source of randomness.
    image: display RGB in [0, 1].
    count: number of items.

  Returns:
    The new picture.
  """
  size = image.shape[0]
  canvas = np.ascontiguousarray(np.clip(image, 0, 1) * 255).astype(np.uint8)
  for step in range(count):
    color = _to_bytes(_pick_color(rng, 0.4))
    center = rng.uniform(-0.1, 1.1, 2) * size
    extent = rng.uniform(0.04, 0.42, 2) * size * (1 if step < count / 2 else 0.6)
    kind = rng.integers(5)
    if kind == 0:
      cv2.ellipse(
        canvas, (tuple(center), tuple(extent), rng.uniform(0, 180)), color, -1, cv2.LINE_AA
      )
    elif kind == 1:
      other = rng.uniform(-0.1, 1.1, 2) * size
      thickness = int(rng.integers(1, max(2, size // 14)))
      cv2.line(canvas, _whole(center), _whole(other), color, thickness, cv2.LINE_AA)
    elif kind == 2:
      _draw_row(rng, canvas, center, extent, color)
    else:
      angle = rng.normal(0, 6) if rng.uniform() < 0.7 else rng.uniform(0, 180)
      corners = cv2.boxPoints((tuple(center), tuple(extent * 1.4), angle))
      cv2.fillConvexPoly(canvas, corners.astype(np.int32), color, cv2.LINE_AA)
    if step == count // 2 and rng.uniform() < 0.7:
      canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.6, 3.0) * size / 160)
  return canvas.astype(np.float32) / 255


def draw_person(
  rng: np.random.Generator, image: Float[np.ndarray, 'size size 3']
) -> Float[np.ndarray, 'size size 3']:
  """Draws the hand's owner over a background: clothes, and a head with hair or a bare arm."""
  size = image.shape[0]
  canvas = np.ascontiguousarray(np.clip(image, 0, 1) * 255).astype(np.uint8)
  cloth = _to_bytes(_pick_color(rng, 0.5))
  skin = SKIN_PALETTE[rng.integers(len(SKIN_PALETTE))] * rng.uniform(0.75, 1.05)
  x, y = rng.uniform(0, 1) * size, rng.uniform(0.05, 0.6) * size
  head = rng.uniform(0.14, 0.34) * size
  tilt = rng.normal(0, 15)
  body = ((x + rng.normal(0, 0.1) * size, y + 2.6 * head), (4.2 * head, 4.0 * head), tilt)
  cv2.ellipse(canvas, body, cloth, -1, cv2.LINE_AA)
  if rng.uniform() < 0.6:
    hair = _to_bytes(np.array([0.16, 0.11, 0.08]) * rng.uniform(0.3, 3.0))
    cv2.ellipse(
      canvas, ((x, y - 0.15 * head), (1.5 * head, 1.75 * head), tilt), hair, -1, cv2.LINE_AA
    )
    cv2.ellipse(
      canvas,
      ((x, y + 0.1 * head), (1.15 * head, 1.5 * head), tilt),
      _to_bytes(skin),
      -1,
      cv2.LINE_AA,
    )
  else:
    start, end = rng.uniform(-0.1, 1.1, (2, 2)) * size
    cv2.line(canvas, _whole(start), _whole(end), _to_bytes(skin), int(head * 0.7) + 1, cv2.LINE_AA)
  shade = 1 + 0.18 * smooth_noise(rng, size, 6)
  return canvas.astype(np.float32) / 255 * shade


def sample_background(
  rng: np.random.Generator,
  environment: int,
  camera_to_environment: Float[np.ndarray, '3 3'],
  size: int,
) -> Float[np.ndarray, 'size size 3']:
  """Draws a background, which is a view into the lighting environment about half of the time.

  Args:
    rng: the source of randomness.
    environment: index of the map that lights the hand.
    camera_to_environment: matrix from camera axes to environment axes, for column vectors.
    size: side of the picture, pixels.

  Returns:
    RGB in display colours, which may exceed 1.
  """
  radius = int((0.6 + rng.gamma(1.2, 2.2)) * size / 160 + 0.5) if rng.uniform() < 0.7 else 0
  # A picture that will be blurred is drawn at half the resolution.
  coarse = 2 if radius >= 2 else 1
  drawn = -(-size // coarse)
  image = np.asarray(_draw_scene(rng, environment, camera_to_environment, drawn), np.float32)
  if radius:
    width = 2 * (radius // coarse) + 1
    image = cv2.stackBlur(image, (width, width))
  gain, contrast = np.float32(rng.uniform(0.7, 1.2)), np.float32(rng.uniform(0.75, 1.2))
  image = np.clip((image - np.float32(0.5)) * contrast + np.float32(0.5), 0, 1) * gain
  return cv2.resize(image, (size, size)) if coarse > 1 else image


def _draw_scene(rng, environment: int, camera_to_environment, size: int) -> np.ndarray:
  kind = rng.uniform()
  if kind < 0.52:
    tangent = np.tan(np.radians(rng.uniform(16, 42)))
    view = view_of_environment(environment, camera_to_environment, tangent, size)
    image = view.astype(np.float32) / 255
    if rng.uniform() < 0.4:
      image = _shift_colors(rng, image)
  elif kind < 0.74:
    image = draw_gradient(rng, size)
  elif kind < 0.86:
    image = draw_texture(rng, size)
  else:
    image = draw_clutter(rng, draw_gradient(rng, size), int(rng.integers(8, 40)))
  if rng.uniform() < 0.3:
    image = draw_clutter(rng, image, int(rng.integers(1, 14)))
  if rng.uniform() < 0.2:
    image = draw_person(rng, image)
  return image


def _draw_row(rng, canvas, center, extent, color) -> None:
  """Repeats one box along a line, like shelves, railings, windows or books."""
  step = np.array([extent[0] * 0.45 + 3, 0.0])
  if rng.uniform() < 0.4:
    step = step[::-1]
  size = np.maximum(extent * rng.uniform(0.25, 0.4, 2), 2)
  tint = np.asarray(color, np.float32)
  for k in range(int(rng.integers(3, 9))):
    low = center + k * step
    shade = tuple(int(c) for c in np.clip(tint * rng.uniform(0.6, 1.2), 0, 255))
    cv2.rectangle(canvas, _whole(low), _whole(low + size), shade, -1)


def _to_bytes(color) -> tuple[int, ...]:
  return tuple(int(255 * c) for c in np.clip(color, 0, 1))


def _whole(point) -> tuple[int, int]:
  return int(point[0]), int(point[1])


def _pick_color(rng: np.random.Generator, neutral: float) -> np.ndarray:
  """Picks a colour of the palette and varies it a little.

  With probability `neutral` it is one of the palette's greys.
  """
  last = 8 if rng.uniform() < neutral else len(PALETTE)
  return PALETTE[rng.integers(last)] * rng.uniform(0.8, 1.2) + rng.normal(0, 0.03, 3)


def _shift_colors(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
  """Mixes the channels a little and scales saturation, so that 18 maps look like more."""
  mix = np.eye(3) * 0.75 + rng.dirichlet([1.0, 1.0, 1.0], 3) * 0.25
  image = image @ mix.T.astype(np.float32)
  grey = image.mean(-1, keepdims=True)
  return grey + (image - grey) * np.float32(rng.uniform(0.3, 1.5))
