"""Computes the landmark network's features of a split once, to measure many runs on it.

The backbone takes most of an evaluation's time. Runs that do not train it have the same features of
the same crops.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from hand_jax.config import FEATURE_SIDE, ExperimentConfig
from hand_jax.data.augmentation import CropChange, add_picture, make_labels, upright_change
from hand_jax.data.silhouettes import SilhouetteMaker
from hand_jax.examples import HandExample, check_example
from hand_jax.files.writing import unfinished_path
from hand_jax.geometry.cameras import rotation_in_plane
from hand_jax.models.backbone import HandLandmarkBackbone, normalize_image
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_network import create_network
from hand_jax.models.map_sampling import reduce_maps
from hand_jax.types import ArrayLike, HandBatch, HandEstimate, ImageFeatures, ManoModel

# Crops go through the backbone, and features through the heads, in batches of this size.
_BATCH = 8
_BACKBONE = 'hand_landmark'
_MIRROR = np.array([-1.0, 1.0, 1.0])

FeaturesFn = Callable[[ImageFeatures], HandEstimate]
"""Maps a batch of features to a network's estimate."""


class FeaturedSplit(NamedTuple):
  """The features and labels of hands' crops. Left hands are mirrored, so all are right hands."""

  example_id: np.ndarray  # (hands,) str
  features: ImageFeatures
  """The backbone's output without maps, but with reduced ones where they were asked for."""
  joints_root: Float[np.ndarray, 'hands 21 3']
  """Metres, with the wrist at the origin, in camera axes that turn with the crop."""
  vertices_root: Float[np.ndarray, 'hands vertices 3'] | None
  """The vertices of the mesh in the same frame. Photos have none."""
  joints_normalized: Float[np.ndarray, 'hands 21 2']
  """In [-1, 1] over the crop of `FEATURE_SIDE` pixels."""
  known: Bool[np.ndarray, 'hands 21']
  """Marks the 2D joints that have a label. Every hand has at least one."""
  silhouettes: UInt8[np.ndarray, 'hands 224 224'] | None = None
  """The hands' masks over the crop, see `HandBatch.silhouette`. Photos have none."""


def featured_split(
  examples: Iterable[HandExample],
  crop_factor: float,
  map_channels: int = 0,
  upright: bool = False,
  faces: ArrayLike | None = None,
) -> FeaturedSplit:
  """Computes the features of examples' crops as an evaluation sees them, without augmentation.

  Args:
    examples: photos with 3D joints and with meshes, or all without meshes.
    crop_factor: side of the crop over the larger side of the hand's box.
    map_channels: channels to which the maps are reduced, see `AttentionConfig.map_channels`. 0
      keeps no maps.
    upright: whether crops, and with them 2D and 3D labels, are turned as for `data.upright`.
    faces: vertex ids of the hand model's faces. Without them there are no silhouettes.

  Raises:
    ValueError: an example has no 3D joints or no 2D joint, or only some have meshes, or there are
      none. The message names an example.
  """
  maker = None if faces is None else SilhouetteMaker(FEATURE_SIDE, faces)
  parts = [
    _featured_block(block, crop_factor, map_channels, upright, maker)
    for block in _blocks(examples, _BATCH)
  ]
  if not parts:
    raise ValueError('Nothing to measure on: the split has no example.')
  if len({part.vertices_root is None for part in parts}) > 1:
    raise ValueError(f'Only some examples have meshes: {parts[0].example_id[0]} or later ones.')
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def _blocks(examples: Iterable[HandExample], size: int) -> Iterator[list[HandExample]]:
  examples = iter(examples)
  while block := list(itertools.islice(examples, size)):
    yield block


def _featured_block(
  examples: list[HandExample],
  crop_factor: float,
  map_channels: int,
  upright: bool,
  maker: SilhouetteMaker | None,
) -> FeaturedSplit:
  rows: list[HandBatch] = []
  silhouettes: list[np.ndarray] = []
  turns: list[float] = []
  for example in examples:
    if example.joints_camera is None or not np.any(example.joint_confidence > 0):
      raise ValueError(
        f'Example {example.example_id!r} cannot be measured on: it needs all joints in camera axes '
        'and at least one in the photo.'
      )
    vertices = example.vertices_camera
    count = 0 if vertices is None else len(vertices)
    example = check_example(example)
    change = upright_change(example, CropChange()) if upright else CropChange()
    row, placement = make_labels(example, 0, FEATURE_SIDE, crop_factor, count, change)
    rows.append(add_picture(row, placement, example.image, example.hand_mask))
    if maker is not None:
      silhouettes.append(maker(example, example.hand_mask, placement))
    turns.append(change.rotation)
  with_meshes = [example.vertices_camera is not None for example in examples]
  if any(with_meshes) and not all(with_meshes):
    raise ValueError(f'Only some examples have meshes: {examples[0].example_id} or later ones.')
  return FeaturedSplit(
    example_id=np.array([example.example_id for example in examples]),
    features=backbone_features(np.stack([row.image for row in rows]), map_channels),
    joints_root=_root_relative(examples, turns, 'joints_camera'),
    vertices_root=_root_relative(examples, turns, 'vertices_camera') if all(with_meshes) else None,
    joints_normalized=np.stack([row.joints_normalized for row in rows]),
    known=np.stack([row.joint_confidence > 0 for row in rows]),
    silhouettes=np.stack(silhouettes) if maker is not None else None,
  )


def _root_relative(examples: list[HandExample], turns: list[float], field: str) -> np.ndarray:
  """Moves points of right hands to the wrist, in axes that turn with the crops."""
  hands = []
  for example, turn in zip(examples, turns, strict=True):
    wrist = np.asarray(example.joints_camera, np.float64)[0]
    points = np.asarray(getattr(example, field), np.float64) - wrist
    points = points * _MIRROR if example.side == 'left' else points
    hands.append((points @ rotation_in_plane(turn).T).astype(np.float32))
  return np.stack(hands)


def backbone_features(
  crops: UInt8[np.ndarray, 'crops 224 224 3'], map_channels: int = 0
) -> ImageFeatures:
  """Runs the landmark network on crops of right hands, as the backbone of a hand network runs it.

  Args:
    crops: the crops, in RGB.
    map_channels: channels to which the maps are reduced. 0 keeps no maps.
  """
  missing = -len(crops) % _BATCH
  padded = np.concatenate([crops, np.zeros((missing, *crops.shape[1:]), np.uint8)])
  variables, program = _backbone(map_channels)
  parts = [
    jax.device_get(program(variables, padded[start : start + _BATCH]))
    for start in range(0, len(padded), _BATCH)
  ]
  return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(crops)], *parts)


@functools.cache
def _backbone(map_channels: int):
  @jax.jit
  def apply(variables, crops):
    images = normalize_image(crops, _BACKBONE)
    found = cast(ImageFeatures, HandLandmarkBackbone().apply(variables, images, False))
    assert found.last_map is not None and found.middle_map is not None
    reduced = None
    if map_channels:
      reduced = reduce_maps(found.last_map, found.middle_map, map_channels)
    return found._replace(shallow_map=None, last_map=None, middle_map=None, reduced_maps=reduced)

  return load_bundled_parameters(_BACKBONE), apply


def make_features_fn(config: ExperimentConfig, variables: dict, model: ManoModel) -> FeaturesFn:
  """Makes the function that estimates hands from features with a trained network.

  It gives the same estimates as `make_estimate_fn` in evaluate.py for the crops of these features.

  Args:
    config: the run's configuration.
    variables: the network's parameters and batch statistics.
    model: the hand model.

  Raises:
    ValueError: the run's backbone is not the unchanged landmark network.
  """
  backbone = config.model.backbone
  is_frozen = config.optimizer.backbone_learning_rate_scale == 0
  if (backbone.name, backbone.pretrained) != (_BACKBONE, 'hands') or not is_frozen:
    raise ValueError(
      f'Features replace a frozen {_BACKBONE} with pretrained=hands; the run {config.name} has '
      f'model.backbone.name={backbone.name}, pretrained={backbone.pretrained}, '
      f'optimizer.backbone_learning_rate_scale={config.optimizer.backbone_learning_rate_scale}.'
    )
  network = create_network(config)

  @jax.jit
  def estimate(variables, features, model):
    # The features replace the images, which the network does not read.
    images = jnp.zeros((_BATCH, 1, 1, 3))
    return network.apply(variables, images, model, train=False, features=features)

  variables = jax.device_put(variables)

  def estimate_all(features: ImageFeatures) -> HandEstimate:
    hands, parts = len(features.global_feature), []
    for start in range(0, hands, _BATCH):
      # The last batch repeats hands, so that one compiled program is enough.
      rows = np.arange(start, start + _BATCH) % hands
      batch = jax.tree.map(lambda array, rows=rows: array[rows], features)
      parts.append(jax.device_get(estimate(variables, batch, model)))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[:hands], *parts)

  return estimate_all


def cached_split(
  path: pathlib.Path, description: str, make: Callable[[], FeaturedSplit]
) -> FeaturedSplit:
  """Reads a split from its file, or makes and writes it.

  It is made where the file is missing or has another description.

  Args:
    path: the file.
    description: describes the hands and crops, and is stored with them.
    make: computes the split.
  """
  if path.exists():
    with np.load(path) as stored:
      if str(stored['description']) == description:
        return _from_arrays(dict(stored))
  split = make()
  with unfinished_path(path) as unfinished, unfinished.open('wb') as file:
    np.savez(file, allow_pickle=False, description=description, **_to_arrays(split))
  return split


def _to_arrays(split: FeaturedSplit) -> dict[str, np.ndarray]:
  maps = split.features.reduced_maps or ()
  fields = {**split._asdict(), **split.features._asdict()}
  arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
  return arrays | {f'reduced_map_{number}': np.asarray(each) for number, each in enumerate(maps)}


def _from_arrays(arrays: dict[str, Any]) -> FeaturedSplit:
  maps = [arrays[name] for name in ('reduced_map_0', 'reduced_map_1') if name in arrays]
  features = ImageFeatures(
    arrays['global_feature'],
    None,
    landmarks=arrays['landmarks'],
    world_landmarks=arrays['world_landmarks'],
    reduced_maps=(maps[0], maps[1]) if maps else None,
  )
  return FeaturedSplit(
    arrays['example_id'],
    features,
    arrays['joints_root'],
    arrays.get('vertices_root'),
    arrays['joints_normalized'],
    arrays['known'],
    arrays.get('silhouettes'),
  )
