"""Describes probable mistakes in predictions that were measured."""

from collections.abc import Iterable

import numpy as np

from hand_jax.evaluation.official.rules import BENCHMARKS, Benchmark
from hand_jax.evaluation.official.submission import VERTICES, Samples
from hand_jax.mano.joints import FINGERS, FINGERTIP_VERTICES, JOINT_NAMES

# A hand whose middle is nearer to the camera than this would fill the photo.
_NEAREST_M = 0.15
# Fingertip joints lie on the mesh. Where they are farther from its fingertips than this, joints or
# mesh are in another order or frame. (Data sets choose tip vertices up to a centimetre apart.)
_FAR_TIPS_M = 0.025
_STANDARD_TIPS = [JOINT_NAMES.index(f'{finger}_tip') for finger in FINGERS]
_MM_PER_M = 1000


class PredictionHints:
  """Compares predictions with their ground truth, batch by batch, to find typical mistakes."""

  def __init__(self, benchmark: Benchmark):
    self._benchmark = benchmark
    self._places: list[np.ndarray] = []
    self._tips: dict[str, list[np.ndarray]] = {name: [] for name in BENCHMARKS}

  def add(self, samples: Samples) -> None:
    """Takes in some samples, in the benchmark's convention."""
    middles = [points.mean(axis=1) for points in (samples.joints, samples.true_joints)]
    self._places.append(np.stack([np.linalg.norm(middle, axis=1) for middle in middles], axis=1))
    if samples.vertices.shape[1] == samples.true_vertices.shape[1] == VERTICES:
      for name, benchmark in BENCHMARKS.items():
        self._tips[name].append(_tip_distances(samples, benchmark, self._benchmark))

  def lines(self) -> list[str]:
    """Describes in one line each thing that is odd about most of the predictions."""
    return [line for line in (self._about_the_place(), self._about_the_order()) if line]

  def _about_the_place(self) -> str:
    if not self._places:
      return ''
    own, true = np.median(np.concatenate(self._places), axis=0)
    if own >= _NEAREST_M or true < _NEAREST_M:
      return ''
    return (
      f'Half the predicted hands are within {100 * own:.1f} cm of the camera, the true ones '
      f'{100 * true:.1f} cm away: the predictions look relative to the wrist. '
      f'{self._benchmark.title} takes absolute coordinates of the camera; of these figures only '
      'the aligned ones are meaningful.'
    )

  def _about_the_order(self) -> str:
    medians = {
      name: float(np.median(np.concatenate(distances)))
      for name, distances in self._tips.items()
      if distances
    }
    own = next((name for name in medians if BENCHMARKS[name] == self._benchmark), None)
    if own is None or medians[own] < _FAR_TIPS_M:
      return ''
    begin = (
      f'The fingertip joints lie {_MM_PER_M * medians[own]:.0f} mm from the fingertips of their '
      f'own mesh in the median, by the joint order of {self._benchmark.title}'
    )
    others = [name for name in medians if medians[name] < _FAR_TIPS_M]
    if others:
      return (
        f'{begin}, but {_MM_PER_M * medians[others[0]]:.0f} mm by that of '
        f'{BENCHMARKS[others[0]].title}: put them into the order {_order(self._benchmark)}.'
      )
    return (
      f'{begin}: expected the order {_order(self._benchmark)}, joints and mesh in one frame, and a '
      "mesh with MANO's vertex order, which the free hand does not have."
    )


def _tip_distances(samples: Samples, order: Benchmark, measured: Benchmark) -> np.ndarray:
  """Measures how far fingertip joints are from the mesh's fingertips if the joints follow `order`.

  Distances are in metres.
  """
  places = [order.joint_order.index(tip) for tip in _STANDARD_TIPS]
  vertices = list(FINGERTIP_VERTICES[measured.fingertips])
  return np.linalg.norm(samples.joints[:, places] - samples.vertices[:, vertices], axis=-1)


def _order(benchmark: Benchmark) -> str:
  return ', '.join(_short(JOINT_NAMES[index] for index in benchmark.joint_order))


def _short(names: Iterable[str]) -> list[str]:
  """Shortens joint names by joining those of one finger that follow each other."""
  parts: list[list[str]] = []
  for name in names:
    finger, _, segment = name.partition('_')
    if parts and segment and parts[-1][0] == finger:
      parts[-1].append(segment)
    else:
      parts.append([finger, *([segment] if segment else [])])
  return [' '.join([part[0], '-'.join(part[1:])]).strip() for part in parts]
