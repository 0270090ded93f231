"""Scores how well hands were found and reconstructed in annotated photos.

A figure that an entry does not allow is None, which JSON writes as null. No figure is NaN.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.evaluation.metrics import (
  MM_PER_M,
  alignment_scale,
  point_errors_mm,
  procrustes_align,
  spearman_correlation,
)
from hand_jax.evaluation.uncertainty import Names, PointErrors, stacked, uncertainty_figures
from hand_jax.student_t import interval_in_sigmas

NAMES = Names('photos', 'joints')
"""The words for examples and points in the keys of the uncertainty figures."""

MIN_OVERLAP = 0.1
"""A found hand belongs to an entry only if their boxes' intersection over union is above this."""
# An alignment moves fewer points than this (almost) exactly onto their targets, so it measures
# nothing.
_MIN_ALIGNED_POINTS = 3
# Boxes below this size (pixels) and hands below this size (metres) are not divided by their size.
_SMALLEST_BOX_PX, _SMALLEST_HAND_M = 1e-6, 1e-6
_WRIST = 0
_COVERAGES = (0.68, 0.95)


class TrueHand(NamedTuple):
  """One annotated hand, whose unknown joints are NaN. Pixels are those of the upright photo."""

  image: str
  side: str
  box_xywh: Float[np.ndarray, '4']
  joints_image: Float[np.ndarray, '21 2']
  joints_camera: Float[np.ndarray, '21 3']


class FoundHand(NamedTuple):
  """One reconstructed hand of a photo. Pixels are those of the upright photo."""

  side: str
  box_xywh: Float[np.ndarray, '4']
  """The smallest box that holds the landmarks."""
  joints: Float[np.ndarray, '21 3']
  """The joints B V, given in metres and camera axes."""
  joints_image: Float[np.ndarray, '21 2']
  joint_sigma: Float[np.ndarray, '21 3']
  """The sigma per axis, given in metres and relative to the wrist."""
  degrees_of_freedom: float = math.inf
  """Those of the distribution of errors, infinite for a Gaussian."""


class HandScore(NamedTuple):
  """The figures of one entry.

  A figure is None where the labels do not allow it, or where no hand was found.
  """

  image: str
  found: bool
  side: str | None = None
  side_right: bool | None = None
  pa_mpjpe_mm: float | None = None
  mpjpe_mm: float | None = None
  error_2d_of_box: float | None = None
  """The mean distance of projected joints from their labels.

  It is divided by the larger side of the box round the labels.
  """
  coverage_68: float | None = None
  """The share of root-relative coordinates inside their 68 % interval, at the hand's true size."""
  coverage_95: float | None = None
  sigma_mm: float | None = None
  """The stated deviation, averaged over joints."""
  root_relative: PointErrors | None = None
  """Errors of single joints relative to the wrist, which has no sigma."""
  aligned: PointErrors | None = None
  """Errors of single joints after Procrustes alignment."""
  degrees_of_freedom: float = math.inf
  """Those of the distribution of errors, infinite for a Gaussian."""


def score_hand(true: TrueHand, found: list[FoundHand]) -> HandScore:
  """Compares an entry with the found hand whose box overlaps the entry's box most.

  The entry counts as not found where that overlap is `MIN_OVERLAP` or less.
  """
  overlaps = [box_overlap(true.box_xywh, hand.box_xywh) for hand in found]
  if not overlaps or max(overlaps) <= MIN_OVERLAP:
    return HandScore(true.image, found=False)
  hand = found[int(np.argmax(overlaps))]
  coverages = _coverages(true, hand)
  return HandScore(
    true.image,
    found=True,
    side=hand.side,
    side_right=hand.side == true.side,
    pa_mpjpe_mm=_aligned_error(true, hand),
    mpjpe_mm=_root_relative_error(true, hand),
    error_2d_of_box=_image_error(true, hand),
    coverage_68=coverages[0],
    coverage_95=coverages[1],
    sigma_mm=_finite(MM_PER_M * _axis_mean(hand.joint_sigma).mean()),
    root_relative=_root_relative_joints(true, hand),
    aligned=_aligned_joints(true, hand),
    degrees_of_freedom=hand.degrees_of_freedom,
  )


def photo_scores(scores: list[HandScore]) -> dict[str, Any]:
  """Averages the scores of all entries, as a scores.json of photos holds them.

  Returns:
    A dictionary of figures, which are None where no found hand has them.

    - `photos` and `found` are numbers of entries. Most other figures are means over the found
      hands.
    - `side_right` is the share of sides that are right.
    - `error_2d_of_box` is the mean distance of projected joints from their labels, over the larger
      side of the labels' box.
    - `coverage_68` and `coverage_95` are shares of root-relative coordinates inside their interval,
      after the hand was scaled to its true size.
    - `spearman_photos` is the rank correlation of sigma and aligned error over hands.
    - `sigma_degrees_of_freedom` are those of the errors' distribution, None for a Gaussian.
    - `uncertainty` holds what `uncertainty_figures` finds for errors relative to the wrist (without
      scaling) and for errors after alignment, over the found hands that allow them.
    - `per_photo` lists every entry.
  """
  hands = [score for score in scores if score.found]

  def values(name: str) -> list[float]:
    return [float(value) for hand in hands if (value := getattr(hand, name)) is not None]

  def mean(name: str) -> float | None:
    return float(np.mean(values(name))) if values(name) else None

  aligned = values('pa_mpjpe_mm')
  degrees = hands[0].degrees_of_freedom if hands else math.inf  # one program made all of them
  return {
    'photos': len(scores),
    'found': len(hands),
    'side_right': mean('side_right'),
    'pa_mpjpe_mm': mean('pa_mpjpe_mm'),
    'pa_mpjpe_mm_median': float(np.median(aligned)) if aligned else None,
    'mpjpe_mm': mean('mpjpe_mm'),
    'error_2d_of_box': mean('error_2d_of_box'),
    'coverage_68': mean('coverage_68'),
    'coverage_95': mean('coverage_95'),
    'spearman_photos': _rank_correlation(hands),
    'sigma_degrees_of_freedom': _finite(degrees),
    'uncertainty': {
      frame: uncertainty_figures(stacked([getattr(hand, frame) for hand in hands]), NAMES, degrees)
      for frame in ('root_relative', 'aligned')
    },
    'per_photo': [
      {
        'image': score.image,
        'found': score.found,
        'side': score.side,
        'pa_mpjpe_mm': score.pa_mpjpe_mm,
        'sigma_mm': score.sigma_mm,
      }
      for score in scores
    ],
  }


def box_overlap(first: Float[np.ndarray, '4'], second: Float[np.ndarray, '4']) -> float:
  """Computes the intersection over union of two boxes (x, y, width, height).

  It is 0 where neither box has an area.
  """
  first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
  low = np.maximum(first[:2], second[:2])
  high = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
  shared = np.prod(np.maximum(high - low, 0.0))
  union = np.prod(first[2:]) + np.prod(second[2:]) - shared
  return float(shared / union) if union > 0 else 0.0


def _aligned_error(true: TrueHand, hand: FoundHand) -> float | None:
  """Computes the PA-MPJPE over the known joints: their error after rotation, scale and shift."""
  known = _known(true.joints_camera)
  if known.sum() < _MIN_ALIGNED_POINTS:
    return None
  target = true.joints_camera[known]
  return _finite(point_errors_mm(procrustes_align(hand.joints[known], target), target).mean())


def _root_relative_error(true: TrueHand, hand: FoundHand) -> float | None:
  """Computes the MPJPE over the known joints with both wrists at the origin, without scaling."""
  known = _known(true.joints_camera)
  if not known[_WRIST] or known.sum() < 2:
    return None
  target = true.joints_camera[known] - true.joints_camera[_WRIST]
  predicted = hand.joints[known] - hand.joints[_WRIST]
  return _finite(point_errors_mm(predicted, target).mean())


def _root_relative_joints(true: TrueHand, hand: FoundHand) -> PointErrors | None:
  """Gives the errors that `_root_relative_error` averages, axis by axis, with the stated sigmas."""
  known = _known(true.joints_camera)
  if not known[_WRIST] or known.sum() < 2 or not _has_sigma(hand, known):
    return None
  target = true.joints_camera - true.joints_camera[_WRIST]
  error = hand.joints - hand.joints[_WRIST] - target
  return _point_errors(np.where(known[:, None], error, np.nan), hand.joint_sigma, hand)


def _aligned_joints(true: TrueHand, hand: FoundHand) -> PointErrors | None:
  """Gives the errors that `_aligned_error` averages, axis by axis.

  Sigma is scaled as the alignment scales the hand. It is the root of a joint's mean variance along
  every axis, because the alignment turns the axes and covariances between them are not known here.
  """
  known = _known(true.joints_camera)
  if known.sum() < _MIN_ALIGNED_POINTS or not _has_sigma(hand, known):
    return None
  target = true.joints_camera[known]
  aligned = procrustes_align(hand.joints[known], target)
  scale = alignment_scale(hand.joints[known], aligned)
  if scale <= 0:
    return None
  error = np.full(hand.joints.shape, np.nan)
  error[known] = aligned - target
  sigma = np.repeat(scale * _axis_mean(hand.joint_sigma)[:, None], 3, axis=1)
  return _point_errors(error, sigma, hand)


def _has_sigma(hand: FoundHand, known: np.ndarray) -> bool:
  """Returns whether a deviation is stated for every known joint but the wrist."""
  stated = hand.joint_sigma[known & (np.arange(len(known)) != _WRIST)]
  return bool(np.isfinite(hand.joint_sigma).all() and (stated > 0).all())


def _point_errors(error: np.ndarray, sigma: np.ndarray, hand: FoundHand) -> PointErrors:
  """Converts errors and sigmas to mm. The wrist gets no sigma, because sigma is relative to it."""
  not_wrist = (np.arange(len(error)) != _WRIST)[:, None]
  return PointErrors(
    MM_PER_M * error,
    MM_PER_M * np.where(not_wrist & np.isfinite(error), sigma, np.nan),
    MM_PER_M * _axis_mean(hand.joint_sigma),
  )


def _axis_mean(sigma: np.ndarray) -> np.ndarray:
  """Gives one deviation per joint, the root of its mean variance."""
  return np.sqrt(np.mean(np.asarray(sigma, np.float64) ** 2, axis=-1))


def _image_error(true: TrueHand, hand: FoundHand) -> float | None:
  """Computes the mean 2D distance of the known joints over the larger side of their true box."""
  known = _known(true.joints_image)
  if not known.any():
    return None
  target = true.joints_image[known]
  side = np.ptp(target, axis=0).max()
  if side < _SMALLEST_BOX_PX:
    return None
  return _finite(np.linalg.norm(hand.joints_image[known] - target, axis=-1).mean() / side)


def _coverages(true: TrueHand, hand: FoundHand) -> tuple[float | None, ...]:
  """Computes the shares of root-relative coordinates in their intervals, at the true size.

  The found hand is scaled to the size of the true one. A hand's size is the root mean square
  distance of its known joints from the wrist. The wrist itself does not count, because it is at the
  origin in both hands.
  """
  known = _known(true.joints_camera)
  others = known.copy()
  others[_WRIST] = False
  if not known[_WRIST] or not others.any():
    return (None,) * len(_COVERAGES)
  target = true.joints_camera[others] - true.joints_camera[_WRIST]
  predicted = hand.joints[others] - hand.joints[_WRIST]
  size = np.sqrt(np.sum(predicted**2))
  if size < _SMALLEST_HAND_M:
    return (None,) * len(_COVERAGES)
  scale = np.sqrt(np.sum(target**2)) / size
  errors = np.abs(scale * predicted - target)
  sigma = scale * hand.joint_sigma[others]
  widths = [interval_in_sigmas(share, hand.degrees_of_freedom) for share in _COVERAGES]
  return tuple(float(np.mean(errors <= width * sigma)) for width in widths)


def _rank_correlation(hands: list[HandScore]) -> float | None:
  """Correlates the ranks of sigma and aligned error over hands.

  It gives None for fewer than two hands, and where either side does not vary.
  """
  pairs = [
    (hand.sigma_mm, hand.pa_mpjpe_mm)
    for hand in hands
    if hand.sigma_mm is not None and hand.pa_mpjpe_mm is not None
  ]
  if len(pairs) < 2 or any(len(set(values)) < 2 for values in zip(*pairs, strict=True)):
    return None
  columns = np.array(pairs)
  return float(spearman_correlation(columns[:, :1], columns[:, 1:])[0])


def _known(points: np.ndarray) -> np.ndarray:
  return np.all(np.isfinite(points), axis=-1)


def _finite(value: Any) -> float | None:
  """Turns a figure into a Python float, or None where it is not finite."""
  number = float(value)
  return number if math.isfinite(number) else None
