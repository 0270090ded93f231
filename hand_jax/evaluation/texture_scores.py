"""How well a hand is coloured: a network's vertex colours and two baselines over a split.

All sources colour the same mesh (the best branch's mean vertices under the estimated camera), so
that only their colours differ.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from skimage.metrics import structural_similarity

from hand_jax.config import ExperimentConfig
from hand_jax.evaluation.texture_baselines import fill_from_visible, hop_distances, mean_color
from hand_jax.geometry.cameras import camera_from_vector, normalize_points, vertices_in_crop
from hand_jax.models.backbone import normalize_image
from hand_jax.models.branches import best_branch
from hand_jax.models.hand_network import HIDING_DISTANCE, create_network
from hand_jax.models.texture_regressor import sample_bilinear
from hand_jax.rendering.images import render_vertex_colors
from hand_jax.rendering.rasterize import visible_vertices
from hand_jax.types import HandBatch, HandEstimate, ManoModel, RenderedHand

SOURCES = ('learned', 'mean_color', 'projection')
PIXEL_METRICS = ('psnr_visible_db', 'ssim_visible', 'l1_visible')
VERTEX_METRICS = ('l1_occluded_vertices', 'l1_visible_vertices')
# Pictures that agree to 0.00001 per channel count as equal: the logarithm of zero is no number.
MAX_PSNR_DB = 100.0

HandMasks = Bool[np.ndarray, 'batch side side']
TexturedEstimateFn = Callable[[HandBatch, HandMasks | None], HandEstimate]


class ProjectedHands(NamedTuple):
  """The estimated meshes in their crops: pixels and depth, and which vertices the photos show.

  `photo_colors`: the photo at each vertex' position, display RGB in [0, 1], hidden or not.
  """

  vertices_image: Float[Array, 'batch vertices 3']
  visible: Bool[Array, 'batch vertices']
  photo_colors: Float[Array, 'batch vertices 3']


class VertexErrors(NamedTuple):
  """Sums of |colour - true colour| over vertices, channels averaged, and how many vertices."""

  occluded: float
  occluded_count: int
  visible: float
  visible_count: int


def psnr_db(
  photo: Float[np.ndarray, 'height width 3'],
  drawn: Float[np.ndarray, 'height width 3'],
  mask: Bool[np.ndarray, 'height width'],
) -> float:
  """-10 log10 of the mean squared difference inside the mask (peak 1), at most `MAX_PSNR_DB`."""
  squared = np.mean((photo[mask].astype(np.float64) - drawn[mask]) ** 2)
  return float(-10 * np.log10(max(squared, 10 ** (-MAX_PSNR_DB / 10))))


def l1(
  photo: Float[np.ndarray, 'height width 3'],
  drawn: Float[np.ndarray, 'height width 3'],
  mask: Bool[np.ndarray, 'height width'],
) -> float:
  """The mean absolute difference inside the mask, over pixels and channels."""
  return float(np.mean(np.abs(photo[mask].astype(np.float64) - drawn[mask])))


def ssim(
  photo: Float[np.ndarray, 'height width 3'],
  drawn: Float[np.ndarray, 'height width 3'],
  mask: Bool[np.ndarray, 'height width'],
) -> float:
  """Structural similarity averaged over the mask's pixels and the channels.

  With the window of Wang et al. 2004 (a Gaussian of 1.5 pixels, 11 wide), which reaches beyond the
  mask: there both pictures hold the photo, so that what surrounds a hand costs nothing.
  """
  reference = photo.astype(np.float64)
  filled = np.where(mask[..., None], drawn, reference)
  _, similarity = structural_similarity(
    reference,
    filled,
    data_range=1.0,
    channel_axis=-1,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
    full=True,
  )
  return float(similarity[mask].mean())


def pixel_metrics(
  photo: Float[np.ndarray, 'height width 3'],
  drawn: Float[np.ndarray, 'height width 3'],
  mask: Bool[np.ndarray, 'height width'],
) -> dict[str, float]:
  """`PIXEL_METRICS` of one example, whose mask has a pixel; display RGB in [0, 1]."""
  return dict(
    zip(
      PIXEL_METRICS, (measure(photo, drawn, mask) for measure in (psnr_db, ssim, l1)), strict=True
    )
  )


def vertex_errors(
  colors: Float[np.ndarray, 'vertices 3'],
  true_colors: Float[np.ndarray, 'vertices 3'],
  visible: Bool[np.ndarray, ' vertices'],
) -> VertexErrors:
  """One example's errors; `visible` as its labels say, not as it was estimated."""
  errors = np.abs(colors.astype(np.float64) - true_colors).mean(axis=1)
  return VertexErrors(
    occluded=float(errors[~visible].sum()),
    occluded_count=int((~visible).sum()),
    visible=float(errors[visible].sum()),
    visible_count=int(visible.sum()),
  )


def known_hand_masks(batch: HandBatch) -> HandMasks:
  """Each example's hand mask; all True where it has none."""
  return np.asarray(batch.hand_mask) | ~np.asarray(batch.has_mask)[:, None, None]


def make_textured_estimate_fn(
  config: ExperimentConfig, variables: dict[str, Any], model: ManoModel
) -> TexturedEstimateFn:
  """A trained network on this process' first device, for `evaluate_texture`."""
  network = create_network(config)

  @jax.jit
  def estimate(variables, images, hand_mask, model):
    images = normalize_image(images, config.model.backbone.name)
    return network.apply(variables, images, model, train=False, hand_mask=hand_mask)

  variables = jax.device_put(variables)
  return lambda batch, hand_mask: estimate(variables, batch.image, hand_mask, model)


@jax.jit
def project_hands(
  estimate: HandEstimate,
  faces: Int[Array, 'faces 3'],
  images: UInt8[Array, 'batch side side 3'],
  hand_mask: Bool[Array, 'batch side side'] | None,
) -> ProjectedHands:
  """The best branch's mean vertices under the estimated camera; visible ones inside the mask."""
  side = images.shape[1]
  camera = camera_from_vector(estimate.camera.mean)
  vertices_image = vertices_in_crop(camera, best_branch(estimate).vertices.mean, side)
  visible = visible_vertices(vertices_image, faces, side, side, HIDING_DISTANCE, hand_mask)
  points = normalize_points(vertices_image[..., :2], side)
  return ProjectedHands(vertices_image, visible, sample_bilinear(images / 255, points))


@functools.partial(jax.jit, static_argnames='side')
def _draw(vertices_image, faces, colors, side: int) -> RenderedHand:
  return render_vertex_colors(vertices_image, faces, colors, side, side)


def evaluate_texture(
  estimate_fn: TexturedEstimateFn,
  batches: Iterable[HandBatch],
  faces: Int[Array, 'faces 3'],
  *,
  use_masks: bool = True,
) -> dict[str, Any]:
  """Measures the colours of each of `SOURCES`; every example once, padding never.

  `estimate_fn` maps a batch and its hand masks to an estimate with vertex colours for all rows.
  Without `use_masks` it gets None, and the baselines none either: what happens with a plain photo.

  Pixels count where the drawn hand covers the photo's hand: inside the silhouette and, where an
  example has one, the true hand mask (in either case of `use_masks`). `PIXEL_METRICS` are means
  over examples of each one's value (the PSNR: a mean of decibels). Examples without such a pixel
  are left out of them, and counted in `examples_without_pixels`. `VERTEX_METRICS` are means over
  all vertices, pooled, that the photos do not show or do show, according to the labels, of examples
  with true colours; None where there is no such vertex.

  Returns the metrics by source, and `examples`, `examples_without_pixels`,
  `examples_without_hand_mask`, `examples_with_vertex_colors`, `occluded_vertices`,
  `visible_vertices` (counts) and `use_masks`.

  Raises:
    ValueError: no pixel to measure on, no colours in an estimate, or a value that is not finite.
  """
  totals = _Totals()
  hops = None
  for batch in batches:
    if np.asarray(batch.is_padding).all():
      continue
    hand_mask = known_hand_masks(batch) if use_masks else None
    estimate = estimate_fn(batch, hand_mask)
    if estimate.vertex_colors is None:
      raise ValueError('The estimates have no vertex colours: the network has no texture branch.')
    side = batch.image.shape[1]
    images = jnp.asarray(batch.image)
    hands = jax.device_get(project_hands(estimate, faces, images, hand_mask))
    learned = np.asarray(estimate.vertex_colors)
    _check_colors_finite(batch, hands.vertices_image, learned)
    drawn = {'learned': _draw(hands.vertices_image, faces, learned, side)}
    silhouette = np.asarray(drawn['learned'].silhouette)
    given = silhouette if hand_mask is None else silhouette & hand_mask
    if hops is None:
      hops = hop_distances(np.asarray(faces), learned.shape[1])
    colors = {'learned': learned, **baseline_colors(batch, hands, given, hops)}
    for name in SOURCES[1:]:
      drawn[name] = _draw(hands.vertices_image, faces, jnp.asarray(colors[name]), side)
    pictures = {name: np.asarray(hand.rgb) for name, hand in drawn.items()}
    totals.add(batch, colors, pictures, silhouette & known_hand_masks(batch))
  return {**totals.means(), 'use_masks': use_masks}


def baseline_colors(
  batch: HandBatch,
  hands: ProjectedHands,
  masks: HandMasks,
  hops: Int[np.ndarray, 'vertices vertices'],
) -> dict[str, Float[np.ndarray, 'batch vertices 3']]:
  """What the photos alone say: the mean of the masks' pixels, and each visible vertex' own pixels.

  `projection` fills the other vertices from the nearest visible ones along the mesh; a hand without
  any takes the mean colour.
  """
  colors = {name: np.zeros(hands.vertices_image.shape, np.float32) for name in SOURCES[1:]}
  for row in np.flatnonzero(~np.asarray(batch.is_padding)):
    mean = mean_color(as_display(batch.image[row]), masks[row])
    colors['mean_color'][row] = mean
    colors['projection'][row] = fill_from_visible(
      hands.photo_colors[row], hands.visible[row], hops, mean
    )
  return colors


def as_display(image: np.ndarray) -> Float[np.ndarray, 'height width 3']:
  """A photo's uint8 pixels as display RGB in [0, 1]."""
  return np.asarray(image, np.float64) / 255


def _check_colors_finite(batch: HandBatch, *values: np.ndarray) -> None:
  for row in np.flatnonzero(~np.asarray(batch.is_padding)):
    if not all(np.isfinite(value[row]).all() for value in values):
      name = str(batch.example_id[row])
      raise ValueError(
        f'The estimate for example {name!r} is not finite: its vertices or their colours hold NaN '
        'or infinity.'
      )


class _Totals:
  """What a split adds up to, for each source."""

  def __init__(self):
    self.examples = self.measured = self.without_mask = self.with_colors = 0
    self._pixels = {name: dict.fromkeys(PIXEL_METRICS, 0.0) for name in SOURCES}
    self._vertices = dict.fromkeys(SOURCES, VertexErrors(0.0, 0, 0.0, 0))

  def add(
    self,
    batch: HandBatch,
    colors: dict[str, np.ndarray],
    pictures: dict[str, np.ndarray],
    masks: HandMasks,
  ) -> None:
    """`masks`: the pixels that count. Colours and pictures by source; padding may hold anything."""
    for row in np.flatnonzero(~np.asarray(batch.is_padding)):
      self.examples += 1
      self.without_mask += int(not batch.has_mask[row])
      self.measured += int(masks[row].any())
      self.with_colors += int(batch.has_vertex_colors[row])
      photo = as_display(batch.image[row])
      for name in SOURCES:
        if masks[row].any():
          for metric, value in pixel_metrics(photo, pictures[name][row], masks[row]).items():
            self._pixels[name][metric] += value
        if batch.has_vertex_colors[row]:
          errors = vertex_errors(
            colors[name][row], batch.vertex_colors[row], batch.vertex_visible[row]
          )
          sums = zip(self._vertices[name], errors, strict=True)
          self._vertices[name] = VertexErrors(*(total + value for total, value in sums))

  def means(self) -> dict[str, Any]:
    if not self.measured:
      raise ValueError(
        f'Nothing to measure: in none of {self.examples} examples does the estimated hand cover a '
        "pixel of the photo's."
      )
    results: dict[str, Any] = {}
    for name in SOURCES:
      results[name] = {
        metric: total / self.measured for metric, total in self._pixels[name].items()
      }
      errors = self._vertices[name]
      results[name]['l1_occluded_vertices'] = _ratio(errors.occluded, errors.occluded_count)
      results[name]['l1_visible_vertices'] = _ratio(errors.visible, errors.visible_count)
    return {
      **results,
      'examples': self.examples,
      'examples_without_pixels': self.examples - self.measured,
      'examples_without_hand_mask': self.without_mask,
      'examples_with_vertex_colors': self.with_colors,
      'occluded_vertices': errors.occluded_count,
      'visible_vertices': errors.visible_count,
    }


def _ratio(total: float, count: int) -> float | None:
  return total / count if count else None


def texture_table(results: dict[str, Any]) -> str:
  """The results of `evaluate_texture` as lines of text: a column per source, a row per metric."""
  lines = [f'{"":<22}' + ''.join(f'{name.replace("_", " "):>12}' for name in SOURCES)]
  for metric in (*PIXEL_METRICS, *VERTEX_METRICS):
    digits = 2 if metric.endswith('_db') else 4
    values = [results[name][metric] for name in SOURCES]
    cells = ['-' if value is None else f'{value:.{digits}f}' for value in values]
    lines.append(f'{metric:<22}' + ''.join(f'{cell:>12}' for cell in cells))
  pixels = results['examples'] - results['examples_without_pixels']
  lines.append(
    f'Pixels: means over {pixels} of {results["examples"]} examples; '
    f'{results["examples_without_pixels"]} show no pixel of the hand where it was estimated.'
  )
  if results['examples_with_vertex_colors']:
    lines.append(
      f'Vertices: {results["occluded_vertices"]} occluded and {results["visible_vertices"]} '
      f'visible ones of {results["examples_with_vertex_colors"]} examples with true colours.'
    )
  else:
    lines.append('Vertices: no example has true vertex colours.')
  if not results['use_masks']:
    lines.append('Hand masks were given to no source; pixels are still counted inside them.')
  return '\n'.join(lines)
