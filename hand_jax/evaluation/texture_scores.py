"""Measures how well a network and two baselines colour the hands of a split.

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
from hand_jax.models.branches import best_branch
from hand_jax.models.estimating import estimate_images
from hand_jax.models.hand_network import HIDING_DISTANCE, create_network
from hand_jax.models.map_sampling import sample_bilinear
from hand_jax.rendering.images import render_vertex_colors
from hand_jax.rendering.rasterize import visible_vertices
from hand_jax.types import HandBatch, HandEstimate, ManoModel, RenderedHand

SOURCES = ('learned', 'mean_color', 'projection')
PIXEL_METRICS = ('psnr_visible_db', 'ssim_visible', 'l1_visible')
VERTEX_METRICS = ('l1_occluded_vertices', 'l1_visible_vertices')
# Equal pictures would have an infinite PSNR. This one belongs to a difference of 0.00001.
MAX_PSNR_DB = 100.0

HandMasks = Bool[np.ndarray, 'batch side side']
TexturedEstimateFn = Callable[[HandBatch, HandMasks | None], HandEstimate]


class ProjectedHands(NamedTuple):
  """The estimated meshes in their crops."""

  vertices_image: Float[Array, 'batch vertices 3']
  """Pixels of the crop, and a depth that is also in pixels and counts from the wrist."""
  visible: Bool[Array, 'batch vertices']
  """Which vertices the photos show, by the estimate."""
  photo_colors: Float[Array, 'batch vertices 3']
  """The photo's display RGB in [0, 1] where a vertex projects to, even if the vertex is hidden."""


class VertexErrors(NamedTuple):
  """Sums over vertices of the absolute colour error (averaged over channels), and their number."""

  occluded: float
  occluded_count: int
  visible: float
  visible_count: int


def psnr_db(
  photo: Float[np.ndarray, 'height width 3'],
  drawn: Float[np.ndarray, 'height width 3'],
  mask: Bool[np.ndarray, 'height width'],
) -> float:
  """Computes the PSNR for a peak of 1 inside the mask, in dB and at most `MAX_PSNR_DB`.

  Args:
    photo: the photo, display RGB in [0, 1].
    drawn: the rendered picture, likewise.
    mask: the pixels that count, at least one.
  """
  squared = np.mean((photo[mask].astype(np.float64) - drawn[mask]) ** 2)
  return float(-10 * np.log10(max(squared, 10 ** (-MAX_PSNR_DB / 10))))


def l1(
  photo: Float[np.ndarray, 'height width 3'],
  drawn: Float[np.ndarray, 'height width 3'],
  mask: Bool[np.ndarray, 'height width'],
) -> float:
  """Averages the absolute difference over the mask's pixels and the channels.

  Args:
    photo: the photo, display RGB in [0, 1].
    drawn: the rendered picture, likewise.
    mask: the pixels that count, at least one.
  """
  return float(np.mean(np.abs(photo[mask].astype(np.float64) - drawn[mask])))


def ssim(
  photo: Float[np.ndarray, 'height width 3'],
  drawn: Float[np.ndarray, 'height width 3'],
  mask: Bool[np.ndarray, 'height width'],
) -> float:
  """Averages the structural similarity over the mask's pixels and the channels.

  The window is that of Wang et al. 2004 (a Gaussian of 1.5 pixels, 11 wide). It reaches beyond the
  mask, where both pictures hold the photo, so that the surroundings of a hand cost nothing.

  Args:
    photo: the photo, display RGB in [0, 1].
    drawn: the rendered picture, likewise.
    mask: the pixels that count, at least one.
  """
  reference = photo.astype(np.float64)
  filled = np.where(mask[..., None], drawn, reference)
  _, similarity, *_ = structural_similarity(
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
  """Computes `PIXEL_METRICS` of one example.

  Args:
    photo: the photo, display RGB in [0, 1].
    drawn: the rendered picture, likewise.
    mask: the pixels that count, at least one.
  """
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
  """Sums the colour errors of one example over its occluded and its visible vertices.

  Args:
    colors: the colours to measure.
    true_colors: the labels, also display RGB in [0, 1].
    visible: which vertices the photo shows, by the labels and not by the estimate.
  """
  errors = np.abs(colors.astype(np.float64) - true_colors).mean(axis=1)
  return VertexErrors(
    occluded=float(errors[~visible].sum()),
    occluded_count=int((~visible).sum()),
    visible=float(errors[visible].sum()),
    visible_count=int(visible.sum()),
  )


def known_hand_masks(batch: HandBatch) -> HandMasks:
  """Gives each example's hand mask, which is all True where the example has none."""
  return np.asarray(batch.hand_mask) | ~np.asarray(batch.has_mask)[:, None, None]


def make_textured_estimate_fn(
  config: ExperimentConfig, variables: dict[str, Any], model: ManoModel
) -> TexturedEstimateFn:
  """Makes the function with which `evaluate_texture` runs a trained network.

  It is compiled and runs on this process' first device.

  Args:
    config: the run's configuration, which determines the network and the normalisation of images.
    variables: the network's parameters and batch statistics.
    model: the hand model.
  """
  network, variables = create_network(config), jax.device_put(variables)
  return lambda batch, hand_mask: estimate_images(network, variables, batch.image, model, hand_mask)


@jax.jit
def project_hands(
  estimate: HandEstimate,
  faces: Int[Array, 'faces 3'],
  images: UInt8[Array, 'batch side side 3'],
  hand_mask: Bool[Array, 'batch side side'] | None,
) -> ProjectedHands:
  """Projects the best branch's mean vertices into the crops, and finds the photo's colours there.

  Args:
    estimate: the network's estimate.
    faces: the mesh's faces.
    images: the crops.
    hand_mask: where the photos show the hand, if known. Vertices more than a pixel outside are
      hidden.
  """
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
  estimate_masks: Callable[[HandBatch], HandMasks] | None = None,
) -> dict[str, Any]:
  """Measures the colours of each of `SOURCES`.

  Pixels count where the drawn hand covers the photo's hand: inside the silhouette and, where an
  example has one, inside the true hand mask, whatever `use_masks` is.

  Args:
    estimate_fn: maps a batch and its hand masks to an estimate with vertex colours for all rows.
    batches: the split's examples. Each counts once, and padding never counts.
    faces: the mesh's faces.
    use_masks: whether the network and the baselines get the hand masks. Otherwise they get None.
    estimate_masks: estimates the masks of a batch from its crops. Everything is then measured once
      more, with these masks for the network and the baselines.

  Returns:
    The metrics by source, several counts, and `use_masks`. With `estimate_masks` there are the
    metrics by source once more, under `without_masks`.

    - `PIXEL_METRICS` are means over the examples' values, so that the PSNR is a mean of decibels.
      Examples without a pixel that counts are left out, and counted in `examples_without_pixels`.
    - `VERTEX_METRICS` are means over all vertices that the photos do not show or do show, by the
      labels. They pool all examples with true colours, and are None where there is no such vertex.
    - The counts are `examples`, `examples_without_pixels`, `examples_without_hand_mask`,
      `examples_with_vertex_colors`, `occluded_vertices` and `visible_vertices`.

  Raises:
    ValueError: no pixel can be measured, an estimate has no colours, or a value is not finite.
  """
  given, estimated = _Totals(), _Totals()
  for batch in batches:
    if np.asarray(batch.is_padding).all():
      continue
    masks = known_hand_masks(batch) if use_masks else None
    _measure(given, batch, estimate_fn(batch, masks), masks, faces)
    if estimate_masks is not None:
      masks = estimate_masks(batch)
      _measure(estimated, batch, estimate_fn(batch, masks), masks, faces)
  results: dict[str, Any] = {**given.means(), 'use_masks': use_masks}
  if estimate_masks is not None:
    means = estimated.means()
    results['without_masks'] = {name: means[name] for name in SOURCES}
  return results


def _measure(
  totals: '_Totals',
  batch: HandBatch,
  estimate: HandEstimate,
  masks: HandMasks | None,
  faces: Int[Array, 'faces 3'],
) -> None:
  """Adds the figures of a batch, whose sources got these masks."""
  if estimate.vertex_colors is None:
    raise ValueError('The estimates have no vertex colours: the network has no texture branch.')
  side = batch.image.shape[1]
  hands = jax.device_get(project_hands(estimate, faces, jnp.asarray(batch.image), masks))
  learned = np.asarray(estimate.vertex_colors)
  _check_colors_finite(batch, hands.vertices_image, learned)
  drawn = {'learned': _draw(hands.vertices_image, faces, learned, side)}
  silhouette = np.asarray(drawn['learned'].silhouette)
  taken = silhouette if masks is None else silhouette & masks
  hops = _hop_distances(np.asarray(faces, np.int32).tobytes(), learned.shape[1])
  colors = {'learned': learned, **baseline_colors(batch, hands, taken, hops)}
  for name in SOURCES[1:]:
    drawn[name] = _draw(hands.vertices_image, faces, jnp.asarray(colors[name]), side)
  pictures = {name: np.asarray(hand.rgb) for name, hand in drawn.items()}
  totals.add(batch, colors, pictures, silhouette & known_hand_masks(batch))


@functools.lru_cache(maxsize=1)
def _hop_distances(faces: bytes, num_vertices: int) -> Int[np.ndarray, 'vertices vertices']:
  return hop_distances(np.frombuffer(faces, np.int32).reshape(-1, 3), num_vertices)


def baseline_colors(
  batch: HandBatch,
  hands: ProjectedHands,
  masks: HandMasks,
  hops: Int[np.ndarray, 'vertices vertices'],
) -> dict[str, Float[np.ndarray, 'batch vertices 3']]:
  """Makes the vertex colours of each baseline, from the photos alone.

  `mean_color` averages the mask's pixels. `projection` takes each visible vertex' own pixel, and
  fills other vertices from the nearest visible ones along the mesh or else with the mean colour.

  Args:
    batch: the examples.
    hands: their projected meshes.
    masks: the pixels that are taken for the hand.
    hops: the edges between each two vertices, as `hop_distances` counts them.
  """
  colors = {name: np.zeros(hands.vertices_image.shape, np.float32) for name in SOURCES[1:]}
  for row in np.flatnonzero(~np.asarray(batch.is_padding)):
    mean = mean_color(as_display(batch.image[row]), masks[row])
    colors['mean_color'][row] = mean
    colors['projection'][row] = fill_from_visible(
      np.asarray(hands.photo_colors[row]), np.asarray(hands.visible[row]), hops, mean
    )
  return colors


def as_display(image: np.ndarray) -> Float[np.ndarray, 'height width 3']:
  """Turns a photo's uint8 pixels into display RGB in [0, 1]."""
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
  """Adds up the figures of each source over a split."""

  def __init__(self):
    self.examples = self.measured = self.without_mask = self.with_colors = 0
    self._pixels: dict[str, dict[str, float]] = {
      name: dict.fromkeys(PIXEL_METRICS, 0.0) for name in SOURCES
    }
    self._vertices = dict.fromkeys(SOURCES, VertexErrors(0.0, 0, 0.0, 0))

  def add(
    self,
    batch: HandBatch,
    colors: dict[str, np.ndarray],
    pictures: dict[str, np.ndarray],
    masks: HandMasks,
  ) -> None:
    """Adds a batch, whose padding may hold anything.

    Args:
      batch: the examples.
      colors: the vertex colours of each source.
      pictures: the drawn hands of each source.
      masks: the pixels that count.
    """
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
          self._vertices[name] = VertexErrors._make(total + value for total, value in sums)

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
  """Puts the results of `evaluate_texture` into lines: a column per source, a row per metric."""
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
  for name, found in results.get('without_masks', {}).items():
    error, psnr = found['l1_occluded_vertices'], found['psnr_visible_db']
    cell = '-' if error is None else f'{error:.4f}'
    lines.append(
      f'With estimated masks, {name.replace("_", " ")}: {psnr:.2f} dB, occluded vertices {cell}.'
    )
  if not results['use_masks']:
    lines.append('Hand masks were given to no source; pixels are still counted inside them.')
  return '\n'.join(lines)
