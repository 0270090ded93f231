"""Measures the program on a folder of annotated photos: each hand is found, fitted and scored."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from hand_jax.data.hand_photos import PhotoEntry, read_annotations
from hand_jax.data.photos import read_photo
from hand_jax.detection.detect import detect_hands
from hand_jax.detection.reading import DetectedHand
from hand_jax.evaluation.photo_scores import FoundHand, TrueHand, photo_scores, score_hand
from hand_jax.mano.assets import load_mano_model
from hand_jax.reconstruct import load_reconstructor, reconstruct_hand
from hand_jax.reconstruction.detected import fit_detected_hands, hand_in_box

_MM_PER_M = 1000.0

Reconstruct = Callable[
  [UInt8[np.ndarray, 'height width 3'], list[DetectedHand], Float[np.ndarray, '3 3'] | None],
  list[FoundHand],
]
"""Makes meshes of the hands found in a photo, given its intrinsics or None."""


class PhotoMeasuring(NamedTuple):
  """What is measured: where the photos are, and how the program is run on them."""

  source: str | os.PathLike
  """A folder in the `hand_photos` format."""
  use_boxes: bool = False
  """Looks for each hand in its entry's box instead of the whole photo."""
  use_intrinsics: bool = False
  """Gives the program the entries' intrinsics, where they have them."""
  workdir: str | None = None
  """Folder of a trained run that makes the meshes; None: the fit to the landmarks."""


def measure_photos(
  request: PhotoMeasuring, report: Callable[[int, int], None] = lambda done, count: None
) -> dict[str, Any]:
  """Runs the program on every annotated photo; what scores.json holds, see `photo_scores`.

  Photos are opened one at a time. Every photo is searched once, however many entries it has.

  Args:
    request: what is measured.
    report: is told how many photos are done, and of how many.

  Raises:
    FileNotFoundError, ValueError: the folder, an entry, a photo or the run cannot be read.
  """
  entries = read_annotations(request.source, needs_keypoints=False)
  reconstruct = _with_run(request.workdir) if request.workdir else _with_fit()
  photos: dict[str, list[int]] = {}
  for number, entry in enumerate(entries):
    photos.setdefault(str(entry.path), []).append(number)
  scores = {}
  for done, numbers in enumerate(photos.values(), start=1):
    hands_of = _Photo(entries[numbers[0]], request, reconstruct)
    for number in numbers:
      scores[number] = score_hand(_true_hand(entries[number]), hands_of.hands(entries[number]))
    report(done, len(photos))
  return photo_scores([scores[number] for number in range(len(entries))])


class _Photo:
  """One photo, whose hands are found once where they do not depend on the entry."""

  def __init__(self, entry: PhotoEntry, request: PhotoMeasuring, reconstruct: Reconstruct):
    self._image, self._request, self._reconstruct = _read(entry), request, reconstruct
    self._detected: list[DetectedHand] | None = None
    self._found: dict[bytes, list[FoundHand]] = {}

  def hands(self, entry: PhotoEntry) -> list[FoundHand]:
    """The hands that the program makes for an entry of this photo."""
    intrinsics = entry.intrinsics if self._request.use_intrinsics else None
    if self._request.use_boxes:
      return self._reconstruct(self._image, [hand_in_box(self._image, entry.box_xywh)], intrinsics)
    if self._detected is None:
      self._detected = detect_hands(self._image)
    key = b'' if intrinsics is None else intrinsics.tobytes()
    if key not in self._found:
      self._found[key] = self._reconstruct(self._image, self._detected, intrinsics)
    return self._found[key]


def _read(entry: PhotoEntry) -> UInt8[np.ndarray, 'height width 3']:
  try:
    return read_photo(entry.path)
  except (FileNotFoundError, ValueError) as error:
    raise type(error)(f'{entry.where}, image: {error}') from None


def _true_hand(entry: PhotoEntry) -> TrueHand:
  known = (entry.joint_confidence > 0)[:, None]
  joints_image = np.where(known, entry.joints_image, np.nan)
  return TrueHand(entry.image, entry.side, entry.box_xywh, joints_image, entry.joints_camera)


def _with_fit() -> Reconstruct:
  """The default program: the hand model fitted to the landmarks."""
  model = load_mano_model()

  def reconstruct(image, hands, intrinsics):
    size = (image.shape[1], image.shape[0])
    return [
      FoundHand(
        side=hand.detected.side,
        box_xywh=hand.detected.box_xywh,
        joints=hand.mesh.joints,
        joints_image=hand.mesh.joints_image,
        joint_sigma=np.sqrt(np.diagonal(hand.mesh.joint_covariance, axis1=-2, axis2=-1)),
      )
      for hand in fit_detected_hands(model, hands, size, intrinsics=intrinsics)
    ]

  return reconstruct


def _with_run(workdir: str) -> Reconstruct:
  """A trained run, given the boxes and sides that were found; it does not use intrinsics."""
  reconstructor = load_reconstructor(workdir)

  def reconstruct(image, hands, intrinsics):
    found = []
    for hand in hands:
      mesh = reconstruct_hand(reconstructor, image, hand.box_xywh, hand.side)
      # A run's sigma of a joint is one number for its three axes.
      sigma = np.repeat(mesh.joint_sigma_mm[:, None] / _MM_PER_M, 3, axis=1)
      found.append(FoundHand(hand.side, hand.box_xywh, mesh.joints, mesh.joints_image, sigma))
    return found

  return reconstruct


def summary(scores: dict[str, Any]) -> list[str]:
  """The figures of a scores.json as lines to print; undefined ones are left out."""
  lines = [f'{scores["found"]} of {scores["photos"]} annotated hands found.']
  for key, text in _LINES.items():
    if scores[key] is not None:
      lines.append(text.format(scores[key]))
  return lines


_LINES = {
  'side_right': 'Side right: {:.1%} of the found hands.',
  'pa_mpjpe_mm': 'PA-MPJPE: {:.2f} mm on average.',
  'pa_mpjpe_mm_median': 'PA-MPJPE: {:.2f} mm in the median.',
  'mpjpe_mm': 'MPJPE, wrists together: {:.2f} mm.',
  'error_2d_of_box': "Projected joints: {:.1%} of the box's larger side from their labels.",
  'coverage_68': 'Coordinates inside their 68 % intervals: {:.1%}.',
  'coverage_95': 'Coordinates inside their 95 % intervals: {:.1%}.',
  'spearman_photos': 'Rank correlation of sigma and error over hands: {:.2f}.',
}
