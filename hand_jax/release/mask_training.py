"""Trains and measures the head that tells which pixels show the hand, on rendered hands."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, UInt8

from hand_jax.config import AugmentationConfig
from hand_jax.data.augmentation import change_colors, sample_crop_change
from hand_jax.data.upright import turn_upright
from hand_jax.detection.masks import mask_in_crops
from hand_jax.detection.regions import HandRegion, photo_to_crop, region_from_landmarks
from hand_jax.geometry.cameras import crop_affine
from hand_jax.geometry.warping import warp_image
from hand_jax.models.applying import apply_network
from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import INPUT_SIDE, HandLandmarkNetwork, normalize_crops
from hand_jax.models.mask_head import MaskHead, MaskMaps, mask_maps
from hand_jax.release.rendered import RenderedHands

# Half of the squares are those of the detector's second look, and half those of a trained run,
# round the box of the vertices. Both stray.
_BOX_FACTOR = 1.4
_COLORS = AugmentationConfig(0.0, 0.0, 0.0, 0.3)
_MEASURED_BATCH = 16
_REPORTED_STEPS = 50


class MaskSettings(NamedTuple):
  """How the head is trained."""

  steps: int = 450
  """Length of the schedule of learning rates, which falls as a cosine after a short rise."""
  left_out: tuple[int, int] = (125, 330)
  """From and to which step the schedule is passed over, so that training is shorter."""
  batch_size: int = 8
  learning_rate: float = 3e-3
  weight_decay: float = 1e-4
  overlap_weight: float = 0.5
  """Weight of the soft intersection over union beside the cross-entropy of pixels."""
  log_side_sigma: float = 0.12
  shift_sigma: float = 0.05
  """As a share of the square's side."""
  turn_sigma: float = 0.25
  """Radians."""
  seed: int = 0


class MaskCrops(NamedTuple):
  """Crops and their true masks."""

  crops: UInt8[np.ndarray, 'crops side side 3']
  masks: UInt8[np.ndarray, 'crops side side']
  """255 where the hand is seen, less where it covers a part of the pixel."""


def cut_crops(
  hands: RenderedHands, rows: np.ndarray, rng: np.random.Generator, settings: MaskSettings
) -> MaskCrops:
  """Cuts squares out of rendered photos, with colours that stray as the squares do.

  Args:
    hands: the photos.
    rows: numbers of the photos to show.
    rng: draws the squares and colours.
    settings: how far the squares stray.
  """
  crops, masks = [], []
  for row in rows.tolist():
    affine = jittered_square(hands, row, rng, settings)
    colors = sample_crop_change(_COLORS, rng)
    crops.append(change_colors(warp_image(hands.images[row], affine, INPUT_SIDE), colors))
    masks.append(warp_image(255 * hands.masks[row].astype(np.uint8), affine, INPUT_SIDE))
  return MaskCrops(np.stack(crops), np.stack(masks))


def jittered_square(
  hands: RenderedHands, row: int, rng: np.random.Generator, settings: MaskSettings
) -> Float[np.ndarray, '3 3']:
  """Draws an upright square that shows a hand, and returns the affine from photo to crop.

  Args:
    hands: the photos.
    row: the photo's number.
    rng: draws the square.
    settings: how far the square strays.
  """
  shift = settings.shift_sigma * rng.normal(size=2)
  scale = float(np.exp(settings.log_side_sigma * rng.normal()))
  turn = float(settings.turn_sigma * rng.normal())
  joints = np.asarray(hands.joints_image[row], np.float64)
  if rng.uniform() < 0.5:
    found = region_from_landmarks(joints)
    x, y = found.centre + shift * found.side
    return photo_to_crop(
      HandRegion((float(x), float(y)), found.side * scale, found.angle + turn), INPUT_SIDE
    )
  low, high = hands.vertices_image[row].min(0), hands.vertices_image[row].max(0)
  box = np.concatenate([low, high - low]).astype(np.float64)
  place = (float(shift[0]), float(shift[1]))
  return crop_affine(box, INPUT_SIDE, _BOX_FACTOR * scale, turn_upright(joints) + turn, place)


@jax.jit
def _read_maps(variables: Any, crops: Array) -> MaskMaps:
  output = apply_network(HandLandmarkNetwork(), variables, normalize_crops(crops))
  return jax.tree.map(lambda found: found.astype(jnp.float16), mask_maps(output))


def mask_loss(
  log_odds: Float[Array, 'batch height width'],
  shares: Float[Array, 'batch height width'],
  overlap_weight: float,
) -> Float[Array, '']:
  """Averages the cross-entropy over pixels and adds 1 minus the soft intersection over union.

  Args:
    log_odds: the head's output.
    shares: the share of each pixel that the hand covers.
    overlap_weight: weight of the second term.
  """
  entropy = jnp.mean(optax.sigmoid_binary_cross_entropy(log_odds, shares))
  found = jax.nn.sigmoid(log_odds)
  both = jnp.sum(found * shares, axis=(1, 2))
  either = jnp.sum(found + shares - found * shares, axis=(1, 2))
  return entropy + overlap_weight * jnp.mean(1 - (both + 1) / (either + 1))


def train_mask_head(
  hands: RenderedHands,
  settings: MaskSettings,
  report: Callable[[int, float, dict[str, Any]], None] = lambda step, loss, parameters: None,
) -> dict[str, Any]:
  """Trains the head on the maps of the bundled landmark network, which stays as it is.

  Args:
    hands: what to learn from.
    settings: how to train.
    report: is told the step, the mean loss since it was told before, and the parameters.

  Returns:
    The head's parameters.
  """
  backbone, head = load_bundled_parameters('hand_landmark'), MaskHead()
  rng = np.random.default_rng(settings.seed)
  whole = optax.warmup_cosine_decay_schedule(
    0.0, settings.learning_rate, min(50, settings.steps // 4), max(settings.steps, 1)
  )
  first, after = settings.left_out
  steps = settings.steps - (after - first)

  def schedule(count: ArrayLike) -> Array:
    step = jnp.asarray(count)
    shifted = jnp.where(step < first, step, step + after - first)
    return jnp.asarray(whole(shifted))

  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=settings.weight_decay)
  )

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(parameters: Any, state: Any, maps: MaskMaps, masks: Array) -> tuple[Any, Any, Array]:
    maps = jax.tree.map(lambda found: found.astype(jnp.float32), maps)
    side = maps.shallow.shape[1]
    shares = (masks / jnp.float32(255)).reshape(-1, side, 2, side, 2).mean((2, 4))

    def loss(parameters: Any) -> Array:
      log_odds = apply_network(head, {'params': parameters}, maps)
      return mask_loss(log_odds, shares, settings.overlap_weight)

    value, gradients = jax.value_and_grad(loss)(parameters)
    updates, state = optimizer.update(gradients, state, parameters)
    return optax.apply_updates(parameters, updates), state, value

  parameters = state = None
  values = []
  order = np.zeros(0, np.int64)
  for number in range(steps):
    if len(order) < settings.batch_size:
      order = np.concatenate([order, rng.permutation(len(hands.images))])
    rows, order = order[: settings.batch_size], order[settings.batch_size :]
    seen = cut_crops(hands, rows, rng, settings)
    maps = _read_maps(backbone, seen.crops)
    if parameters is None:
      parameters = _start(head, maps, rng)
      state = optimizer.init(parameters)
    parameters, state, value = step(parameters, state, maps, seen.masks)
    values.append(value)
    if (number + 1) % _REPORTED_STEPS == 0:
      report(number + 1, float(np.mean(jax.device_get(values))), parameters)
      values = []
  return jax.tree.map(np.asarray, parameters)


def _start(head: MaskHead, maps: MaskMaps, rng: np.random.Generator) -> dict[str, Any]:
  """Draws parameters with which every layer's output is about one, however large the maps are."""
  maps = jax.tree.map(lambda found: np.asarray(found, np.float32), maps)
  shapes = jax.eval_shape(head.init, jax.random.key(0), maps)['params']
  lengths = {
    f'read_{name}': np.sqrt(np.mean(found**2) * found.shape[-1])
    for name, found in zip(MaskMaps._fields, maps, strict=True)
  }
  parameters = {}
  for name, layer in shapes.items():
    inputs, outputs = layer['kernel'].shape
    kernel = rng.normal(size=(inputs, outputs)) / lengths.get(name, np.sqrt(inputs / 2))
    parameters[name] = {'kernel': jnp.asarray(kernel, jnp.float32)}
    if 'bias' in layer:
      parameters[name]['bias'] = jnp.zeros(outputs)
  return parameters


def mask_overlap(
  found: Bool[np.ndarray, 'crops side side'], true: Bool[np.ndarray, 'crops side side']
) -> Float[np.ndarray, ' crops']:
  """Computes each crop's intersection over union of two masks, 1 where both are empty."""
  both, either = (found & true).sum((1, 2)), (found | true).sum((1, 2))
  return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def measure_mask_head(
  hands: RenderedHands, parameters: dict[str, Any], settings: MaskSettings
) -> dict[str, float]:
  """Measures the head on one jittered crop of each hand, at the crop's full resolution.

  Args:
    hands: hands that it has not learned from.
    parameters: the head's.
    settings: how far the squares stray.

  Returns:
    `iou_mean`, `iou_median` and `iou_10_percent` (a tenth of the crops is below it).
  """
  rng = np.random.default_rng(settings.seed)
  overlaps = []
  for start in range(0, len(hands.images), _MEASURED_BATCH):
    rows = np.arange(start, min(start + _MEASURED_BATCH, len(hands.images)))
    seen = cut_crops(hands, rows, rng, settings)
    overlaps.append(mask_overlap(mask_in_crops(seen.crops, parameters), seen.masks > 127))
  overlap = np.concatenate(overlaps)
  return {
    'iou_mean': round(float(overlap.mean()), 4),
    'iou_median': round(float(np.median(overlap)), 4),
    'iou_10_percent': round(float(np.quantile(overlap, 0.1)), 4),
  }
