"""Meshes of the hands that were found in a photo: fitted as right hands, then mirrored back."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.detection.reading import DetectedHand, read_regions
from hand_jax.detection.regions import HandRegion, region_from_landmarks
from hand_jax.geometry.cameras import mirror_intrinsics
from hand_jax.reconstruction.evidence import HandEvidence, landmark_evidence
from hand_jax.reconstruction.refine import (
  DEFAULT_SETTINGS,
  RefinedHand,
  RefineSettings,
  refine_hands,
)
from hand_jax.types import ManoModel

_MIRROR = np.array([-1.0, 1.0, 1.0], np.float32)
# The landmark network's square round a hand, relative to the larger side of the hand's box.
_SQUARE_OF_BOX = 1.5
# Which way up a hand in a box is, is not known: all of these are looked at.
_BOX_ANGLES = (0.0, np.pi / 2, np.pi, -np.pi / 2)


class FittedHand(NamedTuple):
  """One hand of a photo with the mesh fitted to its landmarks.

  `mesh` has the photo's axes and pixels: a left hand's is mirrored back, all but its `parameters`,
  which are those of the mirrored right hand. There is no axis over hands.
  """

  detected: DetectedHand
  mesh: RefinedHand


def fit_detected_hands(
  model: ManoModel,
  hands: list[DetectedHand],
  photo_size: tuple[int, int],
  settings: RefineSettings = DEFAULT_SETTINGS,
  intrinsics: Float[np.ndarray, '3 3'] | None = None,
) -> list[FittedHand]:
  """Fits the hand model to the landmarks of every hand found in a photo.

  Args:
    model: a right hand's model.
    hands: what `detect_hands` found.
    photo_size: the photo's width and height in pixels.
    settings: of the fit.
    intrinsics: of the photo, pixels; None where they are not known.

  Returns:
    A fitted hand for each, in the same order.
  """
  if not hands:
    return []
  width, _ = photo_size
  evidence = [_evidence(hand, photo_size, settings, intrinsics) for hand in hands]
  evidence = HandEvidence(*(np.stack(fields) for fields in zip(*evidence, strict=True)))
  refined = refine_hands(model, evidence, settings)
  fitted = []
  for number, hand in enumerate(hands):
    mesh = jax.tree.map(lambda field: field[number], refined)  # noqa: B023
    fitted.append(FittedHand(hand, _mirrored(mesh, width) if hand.side == 'left' else mesh))
  return fitted


def hand_in_box(
  image: UInt8[np.ndarray, 'height width 3'], box_xywh: Float[np.ndarray, '4']
) -> DetectedHand:
  """Reads the hand in a given box of an upright photo, whichever way up it is.

  There is always an answer; its `presence` tells how much it is worth.
  """
  x, y, width, height = (float(value) for value in box_xywh)
  centre, side = (x + width / 2, y + height / 2), _SQUARE_OF_BOX * max(width, height)
  looks = read_regions(image, [HandRegion(centre, side, float(angle)) for angle in _BOX_ANGLES])
  first = max(looks, key=lambda hand: hand.presence)
  again = read_regions(image, [region_from_landmarks(first.landmarks_image)])[0]
  return max(again, first, key=lambda hand: hand.presence)


def _evidence(
  hand: DetectedHand,
  photo_size: tuple[int, int],
  settings: RefineSettings,
  intrinsics: np.ndarray | None,
) -> HandEvidence:
  pixels, world = np.array(hand.landmarks_image), np.array(hand.landmarks_world)
  if hand.side == 'left':
    pixels[:, 0] = photo_size[0] - pixels[:, 0]
    world = world * _MIRROR
    intrinsics = None if intrinsics is None else mirror_intrinsics(intrinsics, photo_size[0])
  return landmark_evidence(
    pixels, world, photo_size, settings.image_sigma_mm, settings.world_sigma_mm, intrinsics
  )


def _mirrored(mesh: RefinedHand, width: int) -> RefinedHand:
  """The same hand in a photo of this width that is mirrored left to right."""
  flip_pixels = np.array([-1, 1], np.float32), np.array([width, 0], np.float32)
  flip_covariance = np.outer(_MIRROR, _MIRROR)
  return mesh._replace(
    vertices=mesh.vertices * _MIRROR,
    joints=mesh.joints * _MIRROR,
    joints_image=mesh.joints_image * flip_pixels[0] + flip_pixels[1],
    wrist_camera=mesh.wrist_camera * _MIRROR,
    principal_point=mesh.principal_point * flip_pixels[0] + flip_pixels[1],
    vertex_covariance=mesh.vertex_covariance * flip_covariance,
    joint_covariance=mesh.joint_covariance * flip_covariance,
  )
