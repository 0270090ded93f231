"""The baseline beside every accuracy: one constant hand, the mean of the training split."""

import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.data.examples import HandExample
from hand_jax.evaluation.metrics import procrustes_align
from hand_jax.types import ArrayLike


class MeanHand(NamedTuple):
  """Metres, camera axes, wrist at the origin; as a right hand, like everything the network sees.

  `vertices_root` is the mean of the training hands as they stand, for errors before Procrustes;
  `vertices_aligned` their generalised Procrustes mean, for errors after it. `examples` says how
  many hands went in.
  """

  vertices_root: Float[np.ndarray, 'vertices 3']
  vertices_aligned: Float[np.ndarray, 'vertices 3']
  examples: int


def root_vertices(example: HandExample) -> Float[np.ndarray, 'vertices 3'] | None:
  """The example's mesh about its wrist in camera axes, left hands mirrored; None without 3D."""
  if example.vertices_camera is None or example.joints_camera is None:
    return None
  vertices = np.asarray(example.vertices_camera - example.joints_camera[:1], np.float64)
  return vertices * [-1, 1, 1] if example.side == 'left' else vertices


def generalised_procrustes_mean(
  shapes: Float[ArrayLike, 'examples points 3'], tolerance: float = 1e-6, max_rounds: int = 200
) -> Float[np.ndarray, 'points 3']:
  """The mean of shapes once rotation, scale and position no longer matter (Gower 1975).

  Turns and scales every shape onto the mean and takes the mean again, until it moves by less than
  `tolerance` of its size. Centred; its size is the root mean square of the shapes' sizes.

  Raises:
    ValueError: not settled after `max_rounds`, or a coordinate is not finite.
  """
  shapes = np.asarray(shapes, np.float64)
  shapes = shapes - shapes.mean(axis=1, keepdims=True)
  size = np.sqrt(np.mean(np.sum(shapes**2, axis=(1, 2))))
  mean = shapes[0] * (size / np.linalg.norm(shapes[0]))
  unit = shapes / np.linalg.norm(shapes, axis=(1, 2), keepdims=True)
  for _ in range(max_rounds):
    turned = _turn_onto(unit, mean)
    # The best scales of all shapes for a given mean are their overlaps with it.
    overlap = np.sum(turned * mean, axis=(1, 2), keepdims=True)
    following = np.sum(overlap * turned, axis=0)
    following *= size / np.linalg.norm(following)
    moved = np.linalg.norm(following - mean)
    mean = following
    if moved < tolerance * size:
      return mean
  raise ValueError(f'The generalised Procrustes mean still moves after {max_rounds} rounds.')


def _turn_onto(unit_shapes: np.ndarray, mean: np.ndarray) -> np.ndarray:
  aligned = procrustes_align(unit_shapes, np.broadcast_to(mean, unit_shapes.shape))
  return aligned / np.linalg.norm(aligned, axis=(1, 2), keepdims=True)


def compute_mean_hand(vertices_root: Iterable[Float[np.ndarray, 'vertices 3']]) -> MeanHand:
  """The mean hand of meshes in camera axes about the wrist (`root_vertices`).

  Raises:
    ValueError: there is no mesh at all.
  """
  shapes = np.array(list(vertices_root), np.float64)
  if not len(shapes):
    raise ValueError('The mean hand needs training examples with vertices; there are none.')
  return MeanHand(shapes.mean(axis=0), generalised_procrustes_mean(shapes), len(shapes))


def cached_mean_hand(
  path: pathlib.Path, description: str, training_vertices: Callable[[], Iterable[np.ndarray]]
) -> MeanHand:
  """The mean hand in the file `path`, computed and written when missing or of other data.

  `description` names the data and how much of it went in, and must match the file's.
  """
  if path.exists():
    with np.load(path) as stored:
      if str(stored['description']) == description:
        return MeanHand(
          stored['vertices_root'], stored['vertices_aligned'], int(stored['examples'])
        )
  mean_hand = compute_mean_hand(training_vertices())
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_suffix('.unfinished.npz')
  np.savez(unfinished, description=description, **mean_hand._asdict())
  unfinished.replace(path)
  return mean_hand
