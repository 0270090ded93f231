"""Composes synthetic photos from surface, objects and background, with exposure and camera."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hand_jax.synthetic.background import sample_background
from hand_jax.synthetic.light import Light
from hand_jax.synthetic.objects import (
  SolidObject,
  cast_object,
  sample_held_object,
  sample_occluder,
)
from hand_jax.synthetic.scene import HandScene, View
from hand_jax.synthetic.sensor import apply_balance, photograph
from hand_jax.synthetic.shading import SurfaceLook, SurfacePixels, merge_samples

# An object is left out if it would leave less than this share of the hand visible.
MINIMUM_VISIBLE = 0.55


class Photo(NamedTuple):
  """A finished photo, what it shows, and how light became colour in it."""

  image: UInt8[np.ndarray, 'size size 3']
  hand_mask: Bool[np.ndarray, 'size size']
  """True where the photo shows the hand."""
  objects: tuple[SolidObject, ...]
  """The objects that were drawn."""
  exposure: float
  """Factor on linear radiance."""
  balance: Float[np.ndarray, '3 4']
  """Affine map of display colours, see `apply_balance`."""


def sample_objects(
  rng: np.random.Generator, scene: HandScene, view: View, joints_camera: np.ndarray
) -> list[SolidObject]:
  """Draws the objects of a photo: one held in about a fifth of them, one in front in about a sixth.

  Args:
    rng: the source of randomness.
    scene: the numbers of the hand.
    view: the camera.
    joints_camera: the 21 joints, metres, camera axes.
  """
  objects = []
  if rng.uniform() < 0.2:
    objects.append(sample_held_object(rng, joints_camera, scene.rotation))
  if rng.uniform() < 0.17:
    objects.append(sample_occluder(rng, view, float(joints_camera[:, 2].min())))
  return objects


def compose_photo(
  rng: np.random.Generator,
  seen: Int[np.ndarray, 'fine fine'],
  pixels: SurfacePixels,
  radiance: Float[np.ndarray, 'pixels 3'],
  look: SurfaceLook,
  view: View,
  light: Light,
  objects: list[SolidObject],
  size: int,
) -> Photo:
  """Puts surface and objects over a background, and takes the photo.

  An object that would hide too much of the hand is left out (see `MINIMUM_VISIBLE`).

  Args:
    rng: the source of randomness.
    seen: the face that each sample of the supersampled picture sees, -1 for none.
    pixels: the shaded samples.
    radiance: linear radiance of the shaded samples.
    look: the surface's constant properties.
    view: the camera.
    light: the light.
    objects: solids that may hide the hand or be hidden by it.
    size: side of the photo, pixels.

  Returns:
    The photo, its hand mask, the objects that were drawn, exposure and colour balance.
  """
  exposure = rng.uniform(0.55, 1.1) / max(float(pixels.channels[:, :3].mean()), 1e-3)
  values = np.concatenate(
    [_tone(radiance * exposure), np.ones_like(radiance[:, :1]), pixels.channels[:, 8:9]], axis=1
  )
  samples = merge_samples(pixels, values, size)
  shaded = np.maximum(samples[..., 3:4], 0.5)
  color, depth = samples[..., :3] / shaded, samples[..., 4] / shaded[..., 0]
  # Two samples of a pixel give its colour, and all four give its coverage.
  coverage = _coverage(seen, len(look.faces)) * (samples[..., 3] > 0) * np.float32(0.25)
  color *= _crevices(depth, view, rng.uniform(10, 45))
  hand = _coverage(seen, look.hand_faces) >= 2
  depth[depth == 0] = np.inf
  background = sample_background(rng, light.environment, light.camera_to_environment, size)
  if rng.uniform() < 0.25:
    background = _cast_on_wall(rng, background, coverage)
  image = background + coverage[..., None] * (color - background)
  image, hand, kept = _add_objects(image, hand, depth, objects, view, light, exposure, size)
  image, balance = photograph(rng, image)
  return Photo(image, hand, kept, exposure, balance)


def display_colors(
  radiance: Float[np.ndarray, 'points 3'], photo: Photo
) -> Float[np.ndarray, 'points 3']:
  """Converts light to the display RGB in [0, 1] that it would have in a photo.

  The light is exposed, tone-mapped and balanced as in the photo. Effects of single pixels are left
  out: crevices from the depth image, blur, noise and compression.
  """
  toned = _tone(radiance * photo.exposure)
  return np.clip(apply_balance(toned[:, None], photo.balance)[:, 0], 0, 1)


def _crevices(depth, view: View, strength: float):
  """Darkens points that lie behind their neighbours on the hand, as between fingers.

  The dark parts become a little red. The method is that of Luft, Colditz and Deussen, "Image
  Enhancement by Unsharp Masking the Depth Buffer", 2006. The hand has two more occlusions, by
  vertices and by the lamp, but only this one resolves single pixels.
  """
  seen = (depth > 0).astype(np.float32)
  nearest = depth[depth > 0].min() if seen.any() else 1.0
  reach = 2 * int(np.clip(0.006 * view.focal_length / nearest, 1, 40)) + 1
  around = cv2.blur(depth, (reach, reach)) / np.maximum(cv2.blur(seen, (reach, reach)), 1e-3)
  behind = np.clip((depth - around - 0.001) * seen, 0, 0.015)[..., None]
  dark = 1 - np.exp(behind * np.float32(-strength))
  return 1 - dark * np.array([0.7, 1.05, 1.1], np.float32)


def _coverage(seen, faces: int) -> np.ndarray:
  """Counts how many of a pixel's four fine samples see one of the first `faces` faces."""
  hit = ((seen >= 0) & (seen < faces)).astype(np.uint8)
  return hit[::2, ::2] + hit[1::2, ::2] + hit[::2, 1::2] + hit[1::2, 1::2]


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
  """Draws a soft shadow of the hand on a wall or table not far behind it."""
  shift = rng.normal(0, 0.06, 2) * coverage.shape[0]
  matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
  moved = cv2.warpAffine(coverage, matrix, coverage.shape[::-1])
  soft = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.01, 0.06) * coverage.shape[0])
  return background * (1 - rng.uniform(0.15, 0.5) * soft[..., None])


def _tone(radiance):
  """Converts linear light to display values by a gamma with a soft shoulder."""
  display = np.maximum(radiance, 0) ** np.float32(1 / 2.2)
  over = np.maximum(display - 0.8, 0)
  return np.minimum(display, 0.8) + over / (1 + 2.2 * over)
