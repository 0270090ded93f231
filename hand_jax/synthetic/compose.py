"""Compositing of a synthetic photo: surface, objects, background, exposure, camera."""

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

# A hand of which less than this share is left by an object loses the object instead.
MINIMUM_VISIBLE = 0.55


class Photo(NamedTuple):
  """The finished image, where the hand is seen in it, and how light became colour."""

  image: UInt8[np.ndarray, 'size size 3']
  hand_mask: Bool[np.ndarray, 'size size']
  objects: tuple[SolidObject, ...]
  exposure: float  # factor on linear radiance
  balance: Float[np.ndarray, '3 4']  # of display colours, see `apply_balance`


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
  seen: Int[np.ndarray, 'fine fine'],
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
  values = np.concatenate(
    [_tone(radiance * exposure), np.ones_like(radiance[:, :1]), pixels.channels[:, 8:9]], axis=1
  )
  samples = merge_samples(pixels, values, size)
  shaded = np.maximum(samples[..., 3:4], 0.5)
  color, depth = samples[..., :3] / shaded, samples[..., 4] / shaded[..., 0]
  # Two samples give the colour, all four the coverage.
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
  """Display RGB in [0, 1] of light in this photo: exposed, tone-mapped and balanced as it was.

  Without what belongs to pixels: crevices from the depth image, blur, noise and compression.
  """
  toned = _tone(radiance * photo.exposure)
  return np.clip(apply_balance(toned[:, None], photo.balance)[:, 0], 0, 1)


def _crevices(depth, view: View, strength: float):
  """Darkens what lies behind its neighbours on the hand, as between fingers; reddish.

  Luft, Colditz and Deussen, "Image Enhancement by Unsharp Masking the Depth Buffer", 2006. Between
  the two occlusions by vertices and by the lamp this one has the pixels' own detail.
  """
  seen = (depth > 0).astype(np.float32)
  nearest = depth[depth > 0].min() if seen.any() else 1.0
  reach = 2 * int(np.clip(0.006 * view.focal_length / nearest, 1, 40)) + 1
  around = cv2.blur(depth, (reach, reach)) / np.maximum(cv2.blur(seen, (reach, reach)), 1e-3)
  behind = np.clip((depth - around - 0.001) * seen, 0, 0.015)[..., None]
  dark = 1 - np.exp(behind * np.float32(-strength))
  return 1 - dark * np.array([0.7, 1.05, 1.1], np.float32)


def _coverage(seen, faces: int) -> np.ndarray:
  """How many of a pixel's four fine samples see one of the first `faces` faces."""
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
