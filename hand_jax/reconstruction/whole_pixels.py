"""Converts hands that were found in a photo of reduced size to pixels of the whole photo."""

import dataclasses

import numpy as np

from hand_jax.detection.reading import DetectedHand
from hand_jax.reconstruction.reconstruction import Reconstruction


def in_whole_pixels(
  hand: Reconstruction, scale: float, whole_size: tuple[int, int] | None
) -> Reconstruction:
  """Expresses a hand in pixels of the whole photo.

  Args:
    hand: the hand, in pixels of its `photo`.
    scale: the size of `photo` relative to the whole photo.
    whole_size: width and height of the whole photo in pixels.
  """
  if scale == 1:
    return hand
  enlarge = 1 / scale
  return dataclasses.replace(
    hand,
    vertices_image=(enlarge * hand.vertices_image).astype(np.float32),
    joints_image=(enlarge * hand.joints_image).astype(np.float32),
    pixels_per_metre=enlarge * hand.pixels_per_metre,
    camera=hand.camera.scaled(enlarge),
    box_xywh=enlarge * hand.box_xywh,
    crop_affine=hand.crop_affine @ np.diag([scale, scale, 1.0]),
    detection=None if hand.detection is None else _detected(hand.detection, enlarge),
    photo_scale=scale,
    whole_size=whole_size,
  )


def _detected(hand: DetectedHand, enlarge: float) -> DetectedHand:
  x, y = hand.roi.centre
  return hand._replace(
    box_xywh=enlarge * hand.box_xywh,
    landmarks_image=enlarge * hand.landmarks_image,
    landmarks_depth=enlarge * hand.landmarks_depth,
    roi=hand.roi._replace(centre=(enlarge * x, enlarge * y), side=enlarge * hand.roi.side),
  )
