"""Measures the program on annotated photos: finds, reconstructs and scores each hand."""

import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from hand_jax.data.photos import read_photo
from hand_jax.evaluation.photo_scores import (
  NAMES,
  FoundHand,
  TrueHand,
  photo_scores,
  score_hand,
)
from hand_jax.evaluation.plotting import is_own_picture
from hand_jax.evaluation.uncertainty import uncertainty_table
from hand_jax.evaluation.uncertainty_plots import plot_paths, write_uncertainty_plots
from hand_jax.files.buckets import AnyPath, open_path
from hand_jax.files.outputs import Output, check_outputs, is_json_with
from hand_jax.files.writing import write_json
from hand_jax.readers.hand_photos import (
  ANNOTATIONS,
  PhotoEntry,
  check_entry,
  read_annotations,
  read_size,
)
from hand_jax.reconstruction.camera_placement import camera_from_intrinsics
from hand_jax.reconstruction.hand_reconstructor import HandReconstructor, PhotoRequest
from hand_jax.reconstruction.reconstruction import Reconstruction

_M_PER_MM = 0.001
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


class PhotoMeasuring(NamedTuple):
  """Describes a measurement: the photos, and the settings of the program."""

  source: str | os.PathLike
  """A folder in the `hand_photos` format."""
  use_boxes: bool = False
  """Whether each hand is read in its entry's box instead of being searched in the whole photo."""
  use_intrinsics: bool = False
  """Whether the program gets the intrinsics of the entries that have them."""
  workdir: str | None = None
  """Folder of a trained run that makes the meshes, or None for the bundled weights."""
  refine: Literal['on', 'off'] = 'on'
  """Whether meshes are fitted to the evidence, see `HandReconstructor`."""


def measure_photos(
  request: PhotoMeasuring, report: Callable[[int, int], None] = lambda done, count: None
) -> dict[str, Any]:
  """Runs the program on every annotated photo and returns the content of scores.json.

  Photos are opened one at a time. Each is searched once, however many entries it has.

  Args:
    request: the photos and the settings.
    report: called with the number of finished photos and the number of all photos.

  Raises:
    FileNotFoundError, ValueError: the folder, an entry, a photo or the run cannot be read.
  """
  entries = read_annotations(request.source, needs_keypoints=False)
  _check_entries(entries)
  reconstructor = HandReconstructor(request.workdir, refine=request.refine == 'on')
  photos: dict[str, list[int]] = {}
  for number, entry in enumerate(entries):
    photos.setdefault(str(entry.path), []).append(number)
  scores = {}
  for done, numbers in enumerate(photos.values(), start=1):
    hands_of = _HandsOfPhoto(reconstructor, request, entries[numbers[0]])
    for number in numbers:
      scores[number] = score_hand(_true_hand(entries[number]), hands_of(entries[number]))
    report(done, len(photos))
  return photo_scores([scores[number] for number in range(len(entries))])


def scores_text(scores: dict[str, Any]) -> str:
  """Writes the figures of a scores.json as lines, without undefined ones."""
  lines = [f'{scores["found"]} of {scores["photos"]} annotated hands found.']
  lines += [text.format(scores[key]) for key, text in _LINES.items() if scores[key] is not None]
  lines += uncertainty_table(scores['uncertainty'], NAMES)
  return '\n'.join(lines)


def check_scores_path(
  path: str | os.PathLike, source: str | os.PathLike | None = None, overwrite: bool = False
) -> None:
  """Checks that a scores.json and its plots can be written without replacing any other file.

  Args:
    path: the path of the scores.
    source: the folder that is measured. Its annotations and photos are never replaced.
    overwrite: whether files that this program did not write may be replaced.

  Raises:
    OSError, ValueError: see `check_outputs`.
  """
  inputs: dict[str | os.PathLike, str] = {}
  if source is not None:
    inputs[pathlib.Path(source) / ANNOTATIONS] = 'the annotations'
    with contextlib.suppress(ValueError, OSError):  # told when they are read for measuring
      for entry in read_annotations(source, needs_keypoints=False):
        inputs[entry.path] = 'a photo that is measured'
  plots = [Output('--output', plot, is_own_picture) for plot in plot_paths(path)]
  check_outputs([Output('--output', path, is_json_with('per_photo')), *plots], inputs, overwrite)


def write_scores(path: str | os.PathLike, scores: dict[str, Any]) -> list[AnyPath]:
  """Writes a scores.json and its two plots beside it.

  Args:
    path: the path of the file, see `check_scores_path`.
    scores: the result of `measure_photos`.

  Returns:
    The files that were written. Without true joints there is no plot.
  """
  write_json(path, scores)
  plots = write_uncertainty_plots(path, scores['uncertainty'], NAMES.examples)
  return [open_path(path), *plots]


def _check_entries(entries: Sequence[PhotoEntry]) -> None:
  """Refuses entries that cannot belong to their photos, before the first photo is searched."""
  sizes: dict[str, tuple[int, int]] = {}
  for entry in entries:
    path = str(entry.path)
    if path not in sizes:
      sizes[path] = read_size(entry)
    check_entry(entry, sizes[path])


class _HandsOfPhoto:
  """The hands of one photo, reconstructed once if they do not depend on the entry."""

  def __init__(self, reconstructor: HandReconstructor, request: PhotoMeasuring, entry: PhotoEntry):
    self._reconstructor, self._request, self._image = reconstructor, request, _read(entry)
    self._made: dict[bytes, list[FoundHand]] = {}

  def __call__(self, entry: PhotoEntry) -> list[FoundHand]:
    box = entry.box_xywh if self._request.use_boxes else None
    intrinsics = entry.intrinsics if self._request.use_intrinsics else None
    key = b'|'.join(b'' if value is None else value.tobytes() for value in (box, intrinsics))
    if key not in self._made:
      photo = PhotoRequest(
        self._image,
        entry.image,
        boxes_xywh=() if box is None else (box,),
        camera=None if intrinsics is None else camera_from_intrinsics(intrinsics),
      )
      (hands,) = self._reconstructor.reconstruct([photo])
      self._made[key] = [_found(hand) for hand in hands]
    return self._made[key]


def _found(hand: Reconstruction) -> FoundHand:
  return FoundHand(
    side=hand.side,
    box_xywh=hand.box_xywh if hand.detection is None else hand.detection.box_xywh,
    joints=hand.joints,
    joints_image=hand.joints_image,
    joint_sigma=_M_PER_MM * hand.joint_sigma_xyz_mm,
    degrees_of_freedom=hand.sigma_degrees_of_freedom or math.inf,
  )


def _read(entry: PhotoEntry) -> UInt8[np.ndarray, 'height width 3']:
  try:
    return read_photo(entry.path)
  except (FileNotFoundError, ValueError) as error:
    raise type(error)(f'{entry.where}, image: {error}') from None


def _true_hand(entry: PhotoEntry) -> TrueHand:
  known = (entry.joint_confidence > 0)[:, None]
  joints_image = np.where(known, entry.joints_image, np.nan)
  return TrueHand(entry.image, entry.side, entry.box_xywh, joints_image, entry.joints_camera)
