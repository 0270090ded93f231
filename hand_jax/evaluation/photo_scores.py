"""How well hands were found and reconstructed in annotated photos: scores of hands, and of all.

A figure that an entry does not allow is None, which JSON writes as null: nothing here is NaN.
"""

import math
import statistics
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.evaluation.metrics import (
  MM_PER_M,
  point_errors_mm,
  procrustes_align,
  spearman_correlation,
)

MIN_OVERLAP = 0.1
"""A found hand is an entry's only if the intersection over union of their boxes is above this."""
# Fewer points than this are always brought onto their targets exactly, or nearly so.
_MIN_ALIGNED_POINTS = 3
# Boxes smaller than this (pixels) and hands smaller than this (metres) have no size to divide by.
_SMALLEST_BOX_PX, _SMALLEST_HAND_M = 1e-6, 1e-6
_WRIST = 0
_COVERAGES = (0.68, 0.95)


class TrueHand(NamedTuple):
  """One annotated hand. Unknown joints are NaN; pixels of the upright photo."""

  image: str
  side: str
  box_xywh: Float[np.ndarray, '4']
  joints_image: Float[np.ndarray, '21 2']
  joints_camera: Float[np.ndarray, '21 3']


class FoundHand(NamedTuple):
  """One reconstructed hand of a photo; pixels of the upright photo."""

  side: str
  box_xywh: Float[np.ndarray, '4']  # the smallest box round the landmarks
  joints: Float[np.ndarray, '21 3']  # B V, metres, camera axes
  joints_image: Float[np.ndarray, '21 2']
  joint_sigma: Float[np.ndarray, '21 3']  # metres, per axis, relative to the wrist


class HandScore(NamedTuple):
  """The figures of one entry; None where its labels do not allow one, or no hand was found."""

  image: str
  found: bool
  side: str | None = None
  side_right: bool | None = None
  pa_mpjpe_mm: float | None = None
  mpjpe_mm: float | None = None
  error_2d_of_box: float | None = None
  coverage_68: float | None = None
  coverage_95: float | None = None
  sigma_mm: float | None = None


def score_hand(true: TrueHand, found: list[FoundHand]) -> HandScore:
  """Scores the found hand whose box overlaps the entry's most, if it overlaps it at all."""
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
    sigma_mm=_finite(MM_PER_M * np.sqrt(np.mean(hand.joint_sigma**2, axis=-1)).mean()),
  )


def photo_scores(scores: list[HandScore]) -> dict[str, Any]:
  """What a scores.json of photos holds, from the scores of its entries.

  `photos` and `found` are numbers of entries. The other figures are means over the found hands
  that have them, None without any: `side_right` is the share of sides that are right,
  `error_2d_of_box` the mean distance of projected joints over the larger side of the true
  keypoints' box, `coverage_*` the share of root-relative coordinates inside their Gaussian
  interval. `spearman_photos` is the rank correlation of sigma and aligned error over hands.
  """
  hands = [score for score in scores if score.found]

  def values(name: str) -> list[float]:
    return [float(value) for hand in hands if (value := getattr(hand, name)) is not None]

  def mean(name: str) -> float | None:
    return float(np.mean(values(name))) if values(name) else None

  aligned = values('pa_mpjpe_mm')
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
  """Intersection over union of two boxes (x, y, width, height); 0 where both are without area."""
  first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
  low = np.maximum(first[:2], second[:2])
  high = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
  shared = np.prod(np.maximum(high - low, 0.0))
  union = np.prod(first[2:]) + np.prod(second[2:]) - shared
  return float(shared / union) if union > 0 else 0.0


def _aligned_error(true: TrueHand, hand: FoundHand) -> float | None:
  """PA-MPJPE over the known joints: after rotation, scale and shift."""
  known = _known(true.joints_camera)
  if known.sum() < _MIN_ALIGNED_POINTS:
    return None
  target = true.joints_camera[known]
  return _finite(point_errors_mm(procrustes_align(hand.joints[known], target), target).mean())


def _root_relative_error(true: TrueHand, hand: FoundHand) -> float | None:
  """MPJPE over the known joints, both hands' wrists at the origin; no scaling."""
  known = _known(true.joints_camera)
  if not known[_WRIST] or known.sum() < 2:
    return None
  target = true.joints_camera[known] - true.joints_camera[_WRIST]
  predicted = hand.joints[known] - hand.joints[_WRIST]
  return _finite(point_errors_mm(predicted, target).mean())


def _image_error(true: TrueHand, hand: FoundHand) -> float | None:
  """Mean distance of the known joints' projections, over the larger side of their true box."""
  known = _known(true.joints_image)
  if not known.any():
    return None
  target = true.joints_image[known]
  side = np.ptp(target, axis=0).max()
  if side < _SMALLEST_BOX_PX:
    return None
  return _finite(np.linalg.norm(hand.joints_image[known] - target, axis=-1).mean() / side)


def _coverages(true: TrueHand, hand: FoundHand) -> tuple[float | None, ...]:
  """Shares of root-relative coordinates in their intervals, the hand scaled to the entry's size.

  The sizes are root mean square distances of the known joints from the wrist. The wrist itself is
  at the origin in both, so it does not count.
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
  normal = statistics.NormalDist()
  return tuple(
    float(np.mean(errors <= normal.inv_cdf((1 + share) / 2) * sigma)) for share in _COVERAGES
  )


def _rank_correlation(hands: list[HandScore]) -> float | None:
  """Undefined for fewer than two hands, and where either side does not vary."""
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
  return np.isfinite(points).all(axis=-1)


def _finite(value: Any) -> float | None:
  """The figure as a Python float; None where it is not finite."""
  number = float(value)
  return number if math.isfinite(number) else None
