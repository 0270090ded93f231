"""Measures a run on each hand for paired comparisons, and keeps the errors in a file."""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from hand_jax.config import FEATURE_SIDE
from hand_jax.evaluation import metrics
from hand_jax.evaluation.evaluate import RootHands, camera_rotations, hand_metrics, predicted_hands
from hand_jax.evaluation.featured_split import FeaturedSplit, FeaturesFn
from hand_jax.files.writing import unfinished_path
from hand_jax.geometry.cameras import camera_from_vector, vertices_in_crop
from hand_jax.models.branches import branches_of
from hand_jax.rendering.rasterize import rasterize
from hand_jax.types import SILHOUETTE_FULL, SILHOUETTE_UNKNOWN, ArrayLike

_DRAWN_AT_ONCE = 8
JOINTS_2D = 'joints_2d_px'
"""The distance of projected joints from their labels, in pixels of a crop of `FEATURE_SIDE`."""


SILHOUETTE_IOU = 'silhouette_iou'
"""Overlap over union of the drawn hand and its mask, in [0, 1], see `silhouette_iou`."""


class HandErrors(NamedTuple):
  """The figures of every hand of a split, by branch and name.

  They are `METRIC_NAMES`, `JOINTS_2D` and, where there are masks, `SILHOUETTE_IOU`.
  """

  example_id: np.ndarray  # (hands,) str
  values: dict[str, dict[str, Float[np.ndarray, ' hands']]]

  def mean(self, branch: str, name: str) -> float | None:
    """Averages one figure over the hands. It is None where it was not measured."""
    found = self.values[branch].get(name)
    return None if found is None else float(found.mean())


def measure_hands(
  estimate: FeaturesFn,
  split: FeaturedSplit,
  joint_regressor: Float[ArrayLike, 'joints vertices'],
  full: bool = True,
  faces: Int[ArrayLike, 'faces 3'] | None = None,
) -> HandErrors:
  """Measures both branches of a network on a split, with one estimate for each hand.

  Args:
    estimate: gives the network's estimates, see `make_features_fn`.
    split: the hands to measure on. Without meshes only the joints' errors are measured.
    joint_regressor: the hand model's extended regressor B, which gives all predicted joints.
    full: whether to compute all metrics. Otherwise only the errors in mm and pixels.
    faces: vertex ids of the hand model's faces, to measure the overlap with the split's masks.

  Raises:
    ValueError: a prediction is not finite.
  """
  estimates = estimate(split.features)
  regressor = np.asarray(joint_regressor, np.float64)
  rotations = camera_rotations(estimates.camera.mean)
  values = {}
  for name, gaussians in branches_of(estimates).items():
    hands = predicted_hands(gaussians, rotations, regressor)
    figures = _errors_3d(hands, split, full)
    distances = metrics.known_point_errors(
      gaussians.joints_normalized.mean, split.joints_normalized, split.known
    )
    # The crop's side is 2 long in normalised coordinates.
    values[name] = {**figures, JOINTS_2D: distances * FEATURE_SIDE / 2}
    if split.silhouettes is not None and faces is not None:
      camera, vertices = map(np.asarray, (estimates.camera.mean, gaussians.vertices.mean))
      drawn = _drawn_hands(camera, vertices, faces)
      values[name][SILHOUETTE_IOU] = silhouette_iou(drawn, split.silhouettes)
  return HandErrors(split.example_id, values)


def silhouette_iou(
  drawn: Bool[np.ndarray, 'hands height width'],
  silhouettes: UInt8[np.ndarray, 'hands height width'],
) -> Float[np.ndarray, ' hands']:
  """Computes overlap over union of drawn hands and their masks.

  Pixels where something may hide the hand count in neither: objects, the forearm and
  the border of the photo do. A hand of which no pixel is known has 0.

  Args:
    drawn: the pixels that the drawn hand covers.
    silhouettes: the masks, see `HandBatch.silhouette`. Pixels of which the hand has at least half
      are the hand's.
  """
  known = silhouettes != SILHOUETTE_UNKNOWN
  shown = known & (silhouettes >= SILHOUETTE_FULL / 2)
  drawn = known & drawn
  overlap, union = (np.sum(pixels, axis=(1, 2)) for pixels in (drawn & shown, drawn | shown))
  return overlap / np.maximum(union, 1)


def _drawn_hands(cameras: np.ndarray, vertices: np.ndarray, faces: ArrayLike) -> np.ndarray:
  """Draws hands into crops of `FEATURE_SIDE` pixels by their cameras, some at a time."""
  drawn = []
  for start in range(0, len(cameras), _DRAWN_AT_ONCE):
    some = np.arange(start, start + _DRAWN_AT_ONCE) % len(cameras)
    drawn.append(np.asarray(_draw(cameras[some], vertices[some], jnp.asarray(faces))))
  return np.concatenate(drawn)[: len(cameras)]


@jax.jit
def _draw(cameras: Array, vertices: Array, faces: Array) -> Array:
  vertices_image = vertices_in_crop(camera_from_vector(cameras), vertices, FEATURE_SIDE)
  return rasterize(vertices_image, faces, FEATURE_SIDE, FEATURE_SIDE).face_index >= 0


def _errors_3d(hands: RootHands, split: FeaturedSplit, full: bool) -> dict[str, np.ndarray]:
  joints = np.asarray(split.joints_root, np.float64)
  if split.vertices_root is not None:
    target = RootHands(np.asarray(split.vertices_root, np.float64), joints)
    return hand_metrics(hands, target, full)
  return {
    'mpjpe_mm': metrics.mpjpe_mm(hands.joints, joints),
    'pa_mpjpe_mm': metrics.mpjpe_mm(metrics.procrustes_align(hands.joints, joints), joints),
  }


def write_hand_errors(path: str | os.PathLike, errors: HandErrors) -> None:
  """Writes errors as npz, with arrays named `<branch>/<figure>` and `example_id`."""
  arrays = {
    f'{branch}/{name}': array for branch, of in errors.values.items() for name, array in of.items()
  }
  with unfinished_path(path) as unfinished, unfinished.open('wb') as file:
    np.savez(file, allow_pickle=False, example_id=errors.example_id, **arrays)


def read_hand_errors(path: str | os.PathLike) -> HandErrors:
  """Reads a file of `write_hand_errors`.

  Raises:
    OSError, ValueError: the file is missing, or it is not a file of `write_hand_errors`.
  """
  values: dict[str, dict[str, np.ndarray]] = {}
  with np.load(path) as stored:
    example_id = stored['example_id']
    for key in stored.files:
      branch, _, name = key.partition('/')
      if name:
        values.setdefault(branch, {})[name] = stored[key]
  return HandErrors(example_id, values)
