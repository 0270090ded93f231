"""Every hand of a photo to a reconstruction: by the weights in the box, or by a trained run."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from hand_jax.data.photos import box_round_joints, check_box
from hand_jax.detection.detect import check_image, detect_hands
from hand_jax.detection.reading import DetectedHand, read_regions
from hand_jax.geometry.cameras import crop_affine, mirror_affine
from hand_jax.mano.assets import hand_model_name, load_mano_model, resolve_mano_dir
from hand_jax.models.hand_network import naming_misfits
from hand_jax.reconstruction.detected import FittedHand, fit_detected_hands, hand_in_box
from hand_jax.reconstruction.reconstruct import (
  Reconstruction,
  Reconstructor,
  check_mask,
  load_reconstructor,
  reconstruct_hand,
  visible_in_photo,
)
from hand_jax.reconstruction.release import Release, load_release
from hand_jax.types import ManoModel

FIT = 'fit'
"""The branch of a hand that was fitted to the evidence of its photo."""
_MM_PER_M = 1000.0
# Probability of a hand below which a given box shows none.
_MIN_PRESENCE = 0.5
# Pictures show a square of this many pixels, this much larger than the hand's box.
_SHOWN_SIDE, _SHOWN_FACTOR = 224, 1.25


class HandProgram(NamedTuple):
  """What makes the meshes: a trained run, or the fit of `model` by the weights in the box."""

  model: ManoModel
  reconstructor: Reconstructor | None = None
  release: Release | None = None


class PhotoRequest(NamedTuple):
  """An upright RGB photo and what is known of its hands; None asks the detector."""

  image: UInt8[np.ndarray, 'height width 3']
  name: str = 'the image'
  """What error messages call the photo."""
  box_xywh: Float[np.ndarray, '4'] | None = None
  """The box of its one hand, in pixels."""
  side: str | None = None
  """Which hands it shows."""
  hand_mask: Bool[np.ndarray, 'height width'] | None = None
  """What it shows of the hand, for a textured run."""
  intrinsics: Float[np.ndarray, '3 3'] | None = None
  """Of the photo's camera, pixels; a run does not use them."""


def load_program(workdir: str | None = None, mano_dir: str | None = None) -> HandProgram:
  """Loads what reconstructs photos.

  Args:
    workdir: folder of a trained run, or None for the weights in the box.
    mano_dir: folder or file of MANO's files. None means $MANO_DIR, else the free hand.

  Raises:
    FileNotFoundError, ValueError: the run or the hand model cannot be read.
  """
  if workdir:
    reconstructor = load_reconstructor(workdir, mano_dir)
    return HandProgram(reconstructor.model, reconstructor)
  model = load_mano_model(resolve_mano_dir(mano_dir), 'right')
  return HandProgram(model, release=load_release())


def reconstruct_hands(
  program: HandProgram, request: PhotoRequest, max_hands: int = 10
) -> list[Reconstruction]:
  """Reconstructs every hand of a photo, the surest first.

  Without a box the detector looks for hands. With one, that box alone is looked at: a run makes one
  hand of it, the fit makes one where the landmark network sees a hand there. Its side is found out
  unless it is given too.

  Args:
    program: what makes the meshes, see `load_program`.
    request: the photo, and what is known of its hands.
    max_hands: the search ends when so many are found.

  Returns:
    The hands; none is a result, not an error.

  Raises:
    ValueError: the image is no RGB picture, a side is neither, a box or mask does not fit the
      photo, or what the run estimates is not finite.
  """
  _check_request(request)
  hands = find_hands(request, max_hands)
  if program.release is not None:
    # A box always gives a reading; without a hand in it there is nothing to fit.
    hands = [hand for hand in hands if hand.presence >= _MIN_PRESENCE]
    size = (request.image.shape[1], request.image.shape[0])
    fitted = fit_detected_hands(
      program.model, hands, size, program.release, intrinsics=request.intrinsics
    )
    return [fitted_reconstruction(hand, program.model, size) for hand in fitted]
  assert program.reconstructor is not None
  return [_by_run(program.reconstructor, request, hand) for hand in hands]


def find_hands(request: PhotoRequest, max_hands: int = 10) -> list[DetectedHand]:
  """Finds the hands of a photo, or reads the one in the given box."""
  if request.box_xywh is not None:
    return [hand_in_box(request.image, request.box_xywh, request.side)]
  hands = detect_hands(request.image, max_hands)
  if request.side is None:
    return hands
  return [
    hand if hand.side == request.side else read_regions(request.image, [hand.roi], request.side)[0]
    for hand in hands
  ]


def fitted_reconstruction(
  fitted: FittedHand, model: ManoModel, photo_size: tuple[int, int]
) -> Reconstruction:
  """Describes a fitted hand as a run's hands are described.

  Args:
    fitted: the hand, in the photo's axes and pixels.
    model: the right hand's model that was fitted.
    photo_size: the photo's width and height in pixels.
  """
  detected, mesh, _ = fitted
  is_left = detected.side == 'left'
  box = np.asarray(detected.box_xywh, np.float64)
  shown = crop_affine(
    _mirrored_box(box, photo_size[0]) if is_left else box, _SHOWN_SIDE, _SHOWN_FACTOR
  )
  place = np.asarray(mesh.vertices + mesh.wrist_camera[None], np.float64)
  pixels = mesh.principal_point[None] + mesh.focal_length * place[:, :2] / place[:, 2:]
  faces = np.asarray(model.faces)
  covariance = np.diagonal(mesh.joint_covariance, axis1=-2, axis2=-1)
  return Reconstruction(
    vertices=np.asarray(mesh.vertices, np.float32),
    joints=np.asarray(mesh.joints, np.float32),
    faces=faces[:, ::-1] if is_left else faces,
    vertex_sigma_mm=np.asarray(mesh.vertex_sigma_mm, np.float32),
    vertex_visible=visible_in_photo(mesh.vertices, pixels, faces, photo_size),
    vertex_colors=None,
    vertices_image=pixels.astype(np.float32),
    joint_sigma_mm=np.asarray(mesh.joint_sigma_mm, np.float32),
    joint_sigma_xyz_mm=(_MM_PER_M * np.sqrt(covariance)).astype(np.float32),
    joints_image=np.asarray(mesh.joints_image, np.float32),
    pixels_per_metre=float(mesh.pixels_per_metre),
    is_left=is_left,
    box_xywh=box,
    crop_affine=shown @ mirror_affine(photo_size[0]) if is_left else shown,
    crop_side=_SHOWN_SIDE,
    parameters=mesh.parameters,
    branch=FIT,
    hand_model=hand_model_name(model),
    camera_mean=None,
    camera_log_variance=None,
    detection=detected,
  )


def _by_run(
  reconstructor: Reconstructor, request: PhotoRequest, hand: DetectedHand
) -> Reconstruction:
  """The run's estimate of one hand, in the box that it was trained on: about the whole hand."""
  box = request.box_xywh
  if box is None:
    box = box_round_joints(np.asarray(hand.landmarks_image, np.float64))
  with naming_misfits(reconstructor.run):
    mesh = reconstruct_hand(
      reconstructor, request.image, box, hand.side, request.name, request.hand_mask
    )
  return dataclasses.replace(mesh, detection=hand)


def _check_request(request: PhotoRequest) -> None:
  check_image(request.image)
  if request.side not in (None, 'right', 'left'):
    raise ValueError(f"side is {request.side!r}, expected 'right', 'left' or None.")
  height, width = request.image.shape[:2]
  if request.box_xywh is not None:
    check_box(np.asarray(request.box_xywh, np.float64), width, height, request.name)
  if request.intrinsics is not None:
    _check_intrinsics(request.intrinsics, request.name)
  if request.hand_mask is not None:
    check_mask(request.hand_mask, width, height, request.name)


def _check_intrinsics(intrinsics: np.ndarray, name: str) -> None:
  if not np.isfinite(intrinsics).all() or min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
    raise ValueError(
      f'intrinsics of {name} are {np.asarray(intrinsics).tolist()}, expected finite numbers with '
      'focal lengths above zero.'
    )


def _mirrored_box(box_xywh: np.ndarray, width: int) -> np.ndarray:
  return np.array([width - box_xywh[0] - box_xywh[2], *box_xywh[1:]])
