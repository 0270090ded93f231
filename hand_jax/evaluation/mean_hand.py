"""The baseline beside every accuracy: one constant hand, the mean of the training split."""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.data.prepared import prepared_builder
from hand_jax.evaluation.metrics import procrustes_align
from hand_jax.files.buckets import AnyPath
from hand_jax.files.writing import unfinished_path
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.gestures import POSE_SAMPLERS
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.types import ArrayLike, HandParameters, ManoModel


class MeanHand(NamedTuple):
  """The baseline, as a right hand in camera axes and metres, like every hand the network sees."""

  vertices_root: Float[np.ndarray, 'vertices 3']
  """The mean of the training hands as they stand, which serves errors before Procrustes.

  Its wrist is at the origin.
  """
  vertices_aligned: Float[np.ndarray, 'vertices 3']
  """Their generalised Procrustes mean, which serves errors after Procrustes.

  It is centred on its vertices.
  """
  examples: int
  """How many hands the means are made of."""


def root_vertices(
  vertices_camera: Float[np.ndarray, 'vertices 3'],
  joints_camera: Float[np.ndarray, 'joints 3'],
  side: str,
) -> Float[np.ndarray, 'vertices 3']:
  """Moves a labelled mesh to its wrist, and mirrors a left hand to a right one.

  Args:
    vertices_camera: the mesh in camera space, metres.
    joints_camera: the joints in camera space, metres, the wrist first.
    side: `left` or `right`.

  Returns:
    The mesh in camera axes, metres, with the wrist at the origin.
  """
  vertices = np.asarray(vertices_camera - joints_camera[:1], np.float64)
  return vertices * [-1, 1, 1] if side == 'left' else vertices


def generalised_procrustes_mean(
  shapes: Float[ArrayLike, 'examples points 3'], tolerance: float = 1e-6, max_rounds: int = 200
) -> Float[np.ndarray, 'points 3']:
  """Computes the mean of shapes without their rotation, scale and position (Gower 1975).

  Every shape is turned and scaled onto the mean, and the mean is taken again, until it settles. The
  result is centred. Its size is the root mean square of the shapes' sizes.

  Args:
    shapes: sets of corresponding points.
    tolerance: the mean has settled when it moves by less than this share of its size.
    max_rounds: how often to repeat this at most.

  Raises:
    ValueError: the mean has not settled after `max_rounds`, or a coordinate is not finite.
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


def rendered_root_vertices(
  seed: int, split: str, count: int, hands: str = 'classic'
) -> Float[np.ndarray, 'examples vertices 3']:
  """Makes the meshes of the first synthetic examples of a split, without rendering pictures.

  Args:
    seed: seed of the synthetic data.
    split: name of the split.
    count: how many examples to take.
    hands: kind of hands, where the split does not choose one itself.

  Returns:
    The meshes, as `root_vertices` gives them.
  """
  # Imported here: prepared data needs no renderer.
  from hand_jax.synthetic.mismatch import free_hand_surface, sample_displacement
  from hand_jax.synthetic.scene import HANDS, example_generator, hands_of_split, sample_scene

  kind = HANDS[hands_of_split(split, hands)]
  model = load_mano_model()
  scenes, templates = [], []
  for index in range(count):
    rng, template = example_generator(seed, split, index), np.asarray(model.v_template)
    if kind.is_displaced:
      template = template + sample_displacement(rng, free_hand_surface()).astype(np.float32)
    scenes.append(sample_scene(rng, kind.poses))
    templates.append(template)
  pose_seeds = np.array([scene.pose_seed for scene in scenes])
  betas = np.array([scene.betas for scene in scenes], np.float32)
  pose = functools.partial(_pose, POSE_SAMPLERS[kind.poses], model)
  meshes = jax.jit(jax.vmap(pose))(np.stack(templates), pose_seeds, betas)
  rotations = np.array([scene.rotation for scene in scenes])  # hand frame to camera axes
  return np.asarray(meshes, np.float64) @ np.swapaxes(rotations, -1, -2)


def _pose(
  sampler: Callable[[Array], Array],
  model: ManoModel,
  template: Array,
  pose_seed: Array,
  betas: Array,
) -> Array:
  zero = jnp.zeros(3)
  model = model._replace(v_template=template)
  parameters = HandParameters(zero, sampler(jax.random.key(pose_seed)), betas, zero)
  vertices = mano_forward(model, parameters).vertices
  return vertices - regress_joints(model, vertices)[:1]


def prepared_root_vertices(
  name: str, data_dir: str, split: str, count: int
) -> Iterable[Float[np.ndarray, 'vertices 3']]:
  """Yields the meshes of the first examples of a prepared data set that has 3D labels.

  Pictures are not decoded. Examples without 3D labels are left out.

  Args:
    name: name of the data set.
    data_dir: folder of prepared data sets.
    split: name of the split.
    count: how many examples to look at, with and without labels.

  Yields:
    Each mesh, as `root_vertices` gives it.
  """
  import tensorflow_datasets as tfds

  skipped = {name: tfds.decode.SkipDecoding() for name in ('image', 'hand_mask')}
  records = prepared_builder(name, data_dir).as_data_source(split, decoders=skipped)
  for index in range(min(count, len(records))):
    record = records[index]
    if len(record['vertices_camera']) and len(record['joints_camera']):
      side = record['side']
      side = side.decode() if isinstance(side, bytes) else side
      yield root_vertices(record['vertices_camera'], record['joints_camera'], side)


def compute_mean_hand(vertices_root: Iterable[Float[np.ndarray, 'vertices 3']]) -> MeanHand:
  """Computes the mean hand of meshes that `root_vertices` made.

  Raises:
    ValueError: there is no mesh, or their Procrustes mean does not settle.
  """
  shapes = np.array(list(vertices_root), np.float64)
  if not len(shapes):
    raise ValueError('The mean hand needs training examples with vertices; there are none.')
  return MeanHand(shapes.mean(axis=0), generalised_procrustes_mean(shapes), len(shapes))


def cached_mean_hand(
  path: AnyPath, description: str, training_vertices: Callable[[], Iterable[np.ndarray]]
) -> MeanHand:
  """Reads the mean hand from its file, or computes and writes it.

  It is computed where the file is missing or has another description.

  Args:
    path: the file.
    description: describes the data of the mean and their number, and is stored with it.
    training_vertices: returns the meshes that are averaged.
  """
  if path.exists():
    with path.open('rb') as file, np.load(file) as stored:
      if str(stored['description']) == description:
        return MeanHand(
          stored['vertices_root'], stored['vertices_aligned'], int(stored['examples'])
        )
  mean_hand = compute_mean_hand(training_vertices())
  with unfinished_path(path) as unfinished, unfinished.open('wb') as file:
    np.savez(file, description=description, **mean_hand._asdict())
  return mean_hand
