"""Fits meshes to the hands that were found in a photo.

All hands are fitted as right hands, and left ones are mirrored back.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from hand_jax.detection.reading import DetectedHand, read_regions
from hand_jax.detection.regions import HandRegion, region_from_landmarks
from hand_jax.fitting.evidence import HandEvidence, PointErrors, hand_evidence
from hand_jax.fitting.heads_evidence import estimate_joints
from hand_jax.fitting.outline import HandOutline, beyond_the_wrist, find_outline
from hand_jax.fitting.posterior import RefinedHand
from hand_jax.fitting.refine import FitMinimum, fit_hands, fit_to_outlines, hand_posteriors
from hand_jax.fitting.released_weights import Release
from hand_jax.fitting.sigma_calibration import calibrate
from hand_jax.geometry.cameras import mirror_intrinsics
from hand_jax.models.joint_heads import JointEstimate
from hand_jax.types import ArrayLike, ManoModel

_MIRROR = np.array([-1.0, 1.0, 1.0], np.float32)
# The side of the landmark network's square around a hand, as a multiple of the larger side of the
# hand's box.
_SQUARE_OF_BOX = 1.5
# The landmarks of each reading give the square for the next. There are at most this many further
# readings, and they end where presence falls by more than the noise.
_LOOKS_AGAIN, _PRESENCE_NOISE = 2, 0.05
# The fit is continued this many times on newly compared outlines.
_OUTLINE_ROUNDS = 2
# A box does not tell how its hand is turned, so all of these angles are read.
_BOX_ANGLES = (0.0, np.pi / 2, np.pi, -np.pi / 2)


class FittedHand(NamedTuple):
  """One hand of a photo with the mesh fitted to its evidence."""

  detected: DetectedHand
  mesh: RefinedHand
  """The mesh in the photo's axes and pixels, without an axis over hands. A left hand is mirrored
  back, except for `parameters`, which are those of the mirrored right hand."""
  log_scale: float
  """The heads' estimate of the scale of the hand's errors, see `JointEstimate`."""
  degrees_of_freedom: float
  """Those of the distribution of errors, see `SigmaCalibration`."""


class SeenHand(NamedTuple):
  """A hand that was found, with the size and intrinsics of its photo."""

  detected: DetectedHand
  photo_size: tuple[int, int]
  """Width and height in pixels."""
  intrinsics: Float[np.ndarray, '3 3'] | None = None
  """Intrinsics of the photo in pixels, or None where they are unknown."""


HandMask = Bool[np.ndarray, 'height width']
"""True where a photo shows a hand."""


def fit_detected_hands(
  model: ManoModel,
  hands: list[SeenHand],
  release: Release,
  masks_fn: Callable[[], Sequence[HandMask | None]] | None = None,
) -> list[FittedHand]:
  """Fits the hand model to the networks' readings of hands from one photo or several.

  Args:
    model: a right hand's model.
    hands: the hands that `detect_hands` found, with their photos.
    release: the heads, errors, prior and calibration of the fit.
    masks_fn: gives the mask of each hand, whose outline is evidence, or None for a hand without
      one. It is called while the first fit runs, which does not need the masks.

  Returns:
    A fitted hand for each hand, in the same order.
  """
  if not hands:
    return []
  estimate = estimate_joints(release, [hand.detected for hand in hands])
  evidence = [
    _evidence(hand, JointEstimate(*heads), release)
    for hand, *heads in zip(hands, *estimate, strict=True)
  ]
  evidence = HandEvidence(*(np.stack(fields) for fields in zip(*evidence, strict=True)))
  found = fit_hands(model, evidence, release.prior)
  masks = [None] * len(hands) if masks_fn is None else masks_fn()
  found = _fit_outlines(model, hands, masks, evidence, found, release)
  refined = hand_posteriors(model, evidence, found, release.prior)
  fitted = []
  for number, (seen, log_scale) in enumerate(zip(hands, estimate.log_scale, strict=True)):
    mesh = jax.tree.map(lambda field: field[number], refined)  # noqa: B023
    mesh = calibrate(mesh, release.calibration, float(log_scale))
    mesh = _mirrored(mesh, seen.photo_size[0]) if seen.detected.side == 'left' else mesh
    degrees = float(release.calibration.degrees_of_freedom)
    fitted.append(FittedHand(seen.detected, mesh, float(log_scale), degrees))
  return fitted


def _fit_outlines(
  model: ManoModel,
  hands: list[SeenHand],
  masks: Sequence[HandMask | None],
  evidence: HandEvidence,
  fitted: FitMinimum,
  release: Release,
) -> FitMinimum:
  """Continues the fit of the hands that have a mask. The others keep theirs."""
  masked = [number for number, mask in enumerate(masks) if mask is not None]
  if not masked:
    return fitted
  shown = [
    mask[:, ::-1] if hand.detected.side == 'left' else mask
    for hand, mask in zip(hands, masks, strict=True)
    if mask is not None
  ]
  counted, faces = beyond_the_wrist(model), np.asarray(model.faces)
  evidence, found = jax.tree.map(lambda field: np.asarray(field)[masked], (evidence, fitted))
  for _ in range(_OUTLINE_ROUNDS):
    pairs = zip(np.asarray(found.vertices_image), shown, strict=True)
    outlines = [find_outline(pixels, faces, mask, counted) for pixels, mask in pairs]
    outlines = HandOutline(*(np.stack(fields) for fields in zip(*outlines, strict=True)))
    found = fit_to_outlines(model, evidence, outlines, found, release.prior)

  def put(field: ArrayLike, new: ArrayLike) -> np.ndarray:
    field = np.array(field)
    field[masked] = new
    return field

  return jax.tree.map(put, fitted, found)


def hand_in_box(
  image: UInt8[np.ndarray, 'height width 3'],
  box_xywh: Float[np.ndarray, '4'],
  side: str | None = None,
) -> DetectedHand:
  """Reads the hand in a given box of an upright photo, however the hand is turned.

  There is a result even without a hand in the box. Its `presence` is low then.

  Args:
    image: RGB, upright.
    box_xywh: left, top, width and height in pixels of the photo.
    side: 'left' or 'right' where it is known.
  """
  x, y, width, height = (float(value) for value in box_xywh)
  centre, square = (x + width / 2, y + height / 2), _SQUARE_OF_BOX * max(width, height)
  regions = [HandRegion(centre, square, float(angle)) for angle in _BOX_ANGLES]
  best = max(read_regions(image, regions, side), key=lambda hand: hand.presence)
  # A loose box shows the hand small. The square that its landmarks give fits better and is upright.
  for _ in range(_LOOKS_AGAIN):
    again = read_regions(image, [region_from_landmarks(best.landmarks_image)], side)[0]
    if again.presence < best.presence - _PRESENCE_NOISE:
      break
    best = again
  return best


def _evidence(seen: SeenHand, heads: JointEstimate, release: Release) -> HandEvidence:
  """Collects the evidence of one hand. A left hand is mirrored to a right one."""
  hand, photo_size, intrinsics = seen
  pixels, world, joints = hand.landmarks_image, hand.landmarks_world, heads.joints
  if hand.side == 'left':
    pixels = np.stack([photo_size[0] - pixels[:, 0], pixels[:, 1]], axis=1)
    world, joints = world * _MIRROR, joints * _MIRROR
    intrinsics = None if intrinsics is None else mirror_intrinsics(intrinsics, photo_size[0])
  # Where the heads' errors are large, those of the landmark network are large too.
  scale = np.exp(heads.log_scale)
  errors = PointErrors(*(scale * error for error in release.errors))
  return hand_evidence(pixels, world, photo_size, errors, intrinsics, joints)


def _mirrored(mesh: RefinedHand, width: int) -> RefinedHand:
  """Mirrors a hand left to right, together with its photo of this width in pixels."""
  flip_pixels = np.array([-1, 1], np.float32), np.array([width, 0], np.float32)
  flip_covariance = np.outer(_MIRROR, _MIRROR)
  return mesh._replace(
    vertices=mesh.vertices * _MIRROR,
    joints=mesh.joints * _MIRROR,
    joints_image=mesh.joints_image * flip_pixels[0] + flip_pixels[1],
    vertices_image=mesh.vertices_image * flip_pixels[0] + flip_pixels[1],
    wrist_camera=mesh.wrist_camera * _MIRROR,
    principal_point=mesh.principal_point * flip_pixels[0] + flip_pixels[1],
    vertex_covariance=mesh.vertex_covariance * flip_covariance,
    joint_covariance=mesh.joint_covariance * flip_covariance,
    joint_image_covariance=mesh.joint_image_covariance * flip_covariance[:2, :2],
  )
