"""Trains the texture branch of the network in the package, on rendered hands.

Renders give the colour of every vertex, so the branch is also trained on vertices that a photo does
not show. The rest of the network does not change, so the inputs of the branch are computed once.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key, UInt8

from hand_jax.geometry.cameras import camera_from_vector, normalize_points, vertices_in_crop
from hand_jax.mano.model import regress_joints
from hand_jax.models.applying import apply_network
from hand_jax.models.backbone import landmark_features
from hand_jax.models.branches import best_branch
from hand_jax.models.bundled import BUNDLED_TEXTURE as TEXTURE
from hand_jax.models.hand_landmark import HandLandmarkNetwork, normalize_crops
from hand_jax.models.hand_network import HIDING_DISTANCE, create_network
from hand_jax.models.map_sampling import sample_bilinear
from hand_jax.models.texture_regressor import (
  TextureRegressor,
  hidden_vertices,
  sample_hidden_region,
)
from hand_jax.release.mask_training import MaskSettings, cut_crops
from hand_jax.release.rendered import RenderedHands
from hand_jax.rendering.rasterize import near_mask, visible_vertices
from hand_jax.rendering.surfaces import vertex_normals
from hand_jax.runs.checkpoints import SavedNetwork
from hand_jax.types import ImageFeatures, ManoModel

_READ_BATCH = 4
_REPORTED_STEPS = 50
_MOST_STRAYED = 3


class TextureSettings(NamedTuple):
  """The settings of the branch's training."""

  steps: int = 800
  batch_size: int = 16
  vertices: int = 260
  """The number of random vertices of each hand in a step. Attention over all of them is slow."""
  learning_rate: float = 2e-3
  strayed_share: float = 0.5
  """Share of the crops in training that have a strayed mask instead of the true one."""
  seed: int = 0


class TextureReadings(NamedTuple):
  """The inputs of the branch for crops, and the colours that it should find."""

  sampled: Float[np.ndarray, 'crops vertices channels']
  """The shallow map at the estimated vertices."""
  vectors: Float[np.ndarray, 'crops features']
  """The normalised global vector."""
  normals: Float[np.ndarray, 'crops vertices 3']
  """The normals of the estimated mesh, in camera axes."""
  seen: Bool[np.ndarray, 'crops vertices']
  """Whether the photo shows the estimated vertex, by the true mask."""
  seen_by_strayed: Bool[np.ndarray, 'crops vertices']
  """The same by a mask that is too small or too large, as an estimated mask may be."""
  photo_colors: UInt8[np.ndarray, 'crops vertices 3']
  """The photo's colour at the estimated vertex."""
  true_colors: UInt8[np.ndarray, 'crops vertices 3']


def read_texture(
  hands: RenderedHands,
  saved: SavedNetwork,
  model: ManoModel,
  seed: int,
  report: Callable[[int, int], None] = lambda done, count: None,
) -> TextureReadings:
  """Reads one jittered crop of each hand.

  Args:
    hands: the photos.
    saved: the network that estimates the meshes.
    model: a right hand's model.
    seed: seed of the random squares.
    report: called with the number of finished hands and the number of all hands.
  """
  rng, mask_rng = np.random.default_rng(seed), np.random.default_rng((seed, 1))
  network, side = create_network(saved.config), saved.config.model.image_size
  variables = jax.device_put(saved.variables)

  @jax.jit
  def read(variables: Any, crops: Array, masks: Array, strayed: Array) -> tuple[Array, ...]:
    images, params = normalize_crops(crops), variables['params']
    output = apply_network(HandLandmarkNetwork(), {'params': params['backbone']}, images)
    features = landmark_features(output)
    estimate = apply_network(network, variables, images, model, train=False, features=features)
    camera = camera_from_vector(estimate.camera.mean)
    vertices = vertices_in_crop(camera, best_branch(estimate).vertices.mean, side)
    visible = visible_vertices(vertices, model.faces, side, side, HIDING_DISTANCE)
    points = normalize_points(vertices[..., :2], side)
    norm = {'params': params['feature_norm']}
    shallow = features.shallow_map
    assert shallow is not None, 'the landmark network has a shallow map'
    return (
      sample_bilinear(shallow, points).astype(jnp.float16),
      apply_network(nn.LayerNorm(), norm, features.global_feature).astype(jnp.float16),
      vertex_normals(vertices, model.faces).astype(jnp.float16),
      visible & near_mask(vertices, masks > 127),
      visible & near_mask(vertices, strayed > 127),
      jnp.round(255 * sample_bilinear(images, points)).astype(jnp.uint8),
    )

  parts = []
  for start in range(0, len(hands.images), _READ_BATCH):
    rows = np.minimum(np.arange(start, start + _READ_BATCH), len(hands.images) - 1)
    seen = cut_crops(hands, rows, rng, MaskSettings())
    strayed = np.stack([strayed_mask(mask, mask_rng) for mask in seen.masks])
    parts.append(jax.device_get(read(variables, seen.crops, seen.masks, strayed)))
    if start // _READ_BATCH % 64 == 0:
      report(start, len(hands.images))
  count = len(hands.images)
  joined: list[Any] = [np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True)]
  return TextureReadings(*joined, true_colors=hands.vertex_colors)


def strayed_mask(
  mask: UInt8[np.ndarray, 'side side'], rng: np.random.Generator
) -> UInt8[np.ndarray, 'side side']:
  """Makes a mask of 0 to 255 smaller or larger by up to `_MOST_STRAYED` pixels."""
  pixels = int(rng.integers(-_MOST_STRAYED, _MOST_STRAYED + 1))
  if pixels == 0:
    return mask
  around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(pixels) + 1,) * 2)
  return (cv2.dilate if pixels > 0 else cv2.erode)(mask, around)


def train_texture(
  readings: TextureReadings,
  model: ManoModel,
  settings: TextureSettings,
  report: Callable[[int, float, dict[str, Any]], None] = lambda step, loss, parameters: None,
) -> dict[str, Any]:
  """Trains the branch by the absolute error of colours.

  A vertex that the photo shows should have the photo's colour at its estimated place, as in
  Algorithm 4. Any other vertex should have its true colour. A random region of the hand is hidden
  from the branch, which still should find the same colours.

  Args:
    readings: the inputs and colours to train on.
    model: a right hand's model.
    settings: the settings of the training.
    report: called with the step, the mean loss since the last call, and the parameters.

  Returns:
    The parameters of `TextureRegressor`.
  """
  branch = TextureRegressor(TEXTURE)
  template = model.v_template - regress_joints(model, model.v_template)[:1]
  rng = np.random.default_rng(settings.seed)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, settings.learning_rate, min(50, settings.steps // 4), max(settings.steps, 1)
  )
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))

  def colors_of(parameters: Any, rows: TextureReadings, visible: Array, template: Array) -> Array:
    features, points = stored_features(rows)
    normals = jnp.asarray(rows.normals, jnp.float32)
    seen = rows.photo_colors / jnp.float32(255)
    return apply_network(
      branch, {'params': parameters}, features, points, visible, template, normals, seen
    )

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(
    parameters: Any, state: Any, rows: TextureReadings, template: Array, key: Key[Array, '']
  ) -> Any:
    mask_key, region_key = jax.random.split(key)
    count = len(rows.seen)
    strayed = jax.random.uniform(mask_key, (count, 1)) < settings.strayed_share
    visible = jnp.where(strayed, rows.seen_by_strayed, rows.seen)
    keys = jax.random.split(region_key, count)
    region = jax.vmap(lambda k: sample_hidden_region(k, TEXTURE.hidden_fraction))(keys)
    normals = jnp.asarray(rows.normals, jnp.float32)
    shown = visible & ~hidden_vertices(region, template, normals)
    wanted = jnp.where(rows.seen[..., None], rows.photo_colors, rows.true_colors) / jnp.float32(255)

    def loss(parameters: Any) -> Array:
      return jnp.mean(jnp.abs(colors_of(parameters, rows, shown, template) - wanted))

    value, gradients = jax.value_and_grad(loss)(parameters)
    updates, state = optimizer.update(gradients, state, parameters)
    return optax.apply_updates(parameters, updates), state, value

  first = jax.tree.map(lambda array: array[:1], readings)
  features, points = stored_features(first)
  parameters = branch.init(
    jax.random.key(settings.seed),
    features,
    points,
    jnp.asarray(first.seen),
    template,
    jnp.asarray(first.normals, jnp.float32),
    jnp.asarray(first.photo_colors / np.float32(255)),
  )['params']
  state, values = optimizer.init(parameters), []
  for number in range(settings.steps):
    rows = np.sort(rng.choice(len(readings.seen), settings.batch_size, replace=False))
    chosen = np.sort(rng.choice(len(template), settings.vertices, replace=False))
    batch = _part(readings, rows, chosen)
    key = jax.random.fold_in(jax.random.key(settings.seed), number)
    parameters, state, value = step(parameters, state, batch, template[chosen], key)
    values.append(value)
    if (number + 1) % _REPORTED_STEPS == 0:
      report(number + 1, float(np.mean(jax.device_get(values))), parameters)
      values = []
  return jax.tree.map(np.asarray, parameters)


def _part(readings: TextureReadings, rows: np.ndarray, chosen: np.ndarray) -> TextureReadings:
  """Selects some vertices of some hands."""
  of_vertices = {
    name: array[rows][:, chosen] for name, array in readings._asdict().items() if name != 'vectors'
  }
  return TextureReadings(vectors=readings.vectors[rows], **of_vertices)


def stored_features(readings: TextureReadings) -> tuple[ImageFeatures, Array]:
  """Returns features for the branch, and the places of the vertices in their map.

  The map has one row, whose pixels are the vertices. Sampled at these places, it gives exactly the
  stored numbers.
  """
  sampled = jnp.asarray(readings.sampled, jnp.float32)
  batch, count = sampled.shape[:2]
  x = 2 * (jnp.arange(count) + 0.5) / count - 1
  points = jnp.broadcast_to(jnp.stack([x, jnp.zeros(count)], axis=-1)[None], (batch, count, 2))
  vectors = jnp.asarray(readings.vectors, jnp.float32)
  return ImageFeatures(vectors, sampled[:, None]), points
