"""Texture metrics and baselines: by hand, against plain loops, and what must not count."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hand_jax.evaluation import texture_baselines as baselines
from hand_jax.evaluation import texture_scores as texture
from hand_jax.types import DiagonalGaussian, HandBatch, HandEstimate, HandGaussians
from tests.reference.rasterize import rasterize_naive, visible_vertices_naive

SIDE = 24
ROWS = 4  # of every batch, so that the renderer is compiled once
# Examples 0-5: ordinary; without a mask; whose mask is empty; without true colours; ordinary;
# whose mask covers half the hand.
EXAMPLES = 6
COUNTS = (
  *('examples', 'examples_without_pixels', 'examples_without_hand_mask'),
  *('examples_with_vertex_colors', 'occluded_vertices', 'visible_vertices', 'use_masks'),
)


def picture(seed, height=14, width=17):
  return np.random.default_rng(seed).uniform(size=(height, width, 3))


def some_mask(seed, height=14, width=17):
  return np.random.default_rng(seed).uniform(size=(height, width)) < 0.4


# Pixels.


def test_psnr_and_l1_by_hand():
  photo = np.zeros((2, 2, 3))
  drawn = np.zeros((2, 2, 3))
  drawn[0, 0], drawn[0, 1], drawn[1] = [0.1, 0.1, 0.1], [0.3, 0.0, -0.3], np.nan
  mask = np.array([[True, True], [False, False]])
  # Of six numbers: 3 x 0.01 + 2 x 0.09 = 0.21; 3 x 0.1 + 2 x 0.3 = 0.9.
  assert texture.psnr_db(photo, drawn, mask) == pytest.approx(-10 * math.log10(0.21 / 6))
  assert texture.l1(photo, drawn, mask) == pytest.approx(0.9 / 6)


def test_psnr_is_the_librarys_and_has_a_bound():
  photo, drawn = picture(0), picture(1)
  whole = np.ones(photo.shape[:2], bool)
  expected = peak_signal_noise_ratio(photo, drawn, data_range=1.0)
  assert texture.psnr_db(photo, drawn, whole) == pytest.approx(expected)
  assert texture.psnr_db(photo, photo, whole) == texture.MAX_PSNR_DB
  assert texture.psnr_db(photo, photo + 1e-7, whole) == texture.MAX_PSNR_DB
  assert texture.psnr_db(photo, photo + 1e-4, whole) == pytest.approx(80)


def naive_ssim(photo, drawn, mask):
  """Wang et al. 2004 at each pixel of the mask by loops; what lies outside is mirrored in."""
  drawn = np.where(mask[..., None], drawn, photo)
  offsets = np.arange(-5, 6)
  weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
  weights /= weights.sum()
  first, second = (np.pad(image, ((5, 5), (5, 5), (0, 0)), 'symmetric') for image in (photo, drawn))
  values = []
  for y, x in np.argwhere(mask):
    for channel in range(3):
      a = first[y : y + 11, x : x + 11, channel]
      b = second[y : y + 11, x : x + 11, channel]
      mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
      variance_a = (weights * (a - mean_a) ** 2).sum()
      variance_b = (weights * (b - mean_b) ** 2).sum()
      covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
      values.append(
        (2 * mean_a * mean_b + 0.01**2)
        * (2 * covariance + 0.03**2)
        / ((mean_a**2 + mean_b**2 + 0.01**2) * (variance_a + variance_b + 0.03**2))
      )
  return np.mean(values)


@pytest.mark.parametrize('seed', [0, 1])
def test_ssim_matches_plain_loops(seed):
  photo, mask = picture(seed), some_mask(seed)
  drawn = 0.5 * photo + 0.4 * picture(seed + 10)
  assert texture.ssim(photo, drawn, mask) == pytest.approx(naive_ssim(photo, drawn, mask), rel=1e-9)


def test_ssim_of_whole_pictures_is_the_librarys():
  photo = picture(0)
  drawn = photo**2
  whole = np.ones(photo.shape[:2], bool)
  settings = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}
  settings |= {'data_range': 1.0, 'channel_axis': -1}
  inner, full = structural_similarity(photo, drawn, full=True, **settings)
  assert texture.ssim(photo, drawn, whole) == pytest.approx(full.mean())
  # The library's own mean leaves the rim out, where windows reach beyond the picture.
  rim = np.zeros_like(whole)
  rim[5:-5, 5:-5] = True
  assert full[rim].mean() == pytest.approx(inner)


def test_identical_pictures_are_similar_whatever_lies_outside_the_mask():
  photo, mask = picture(0), some_mask(1)
  drawn = np.where(mask[..., None], photo, np.nan)
  assert texture.ssim(photo, drawn, mask) == pytest.approx(1)
  assert texture.pixel_metrics(photo, drawn, mask) == {
    'psnr_visible_db': texture.MAX_PSNR_DB,
    'ssim_visible': pytest.approx(1),
    'l1_visible': 0,
  }
  assert texture.ssim(photo, 1 - photo, mask) < 0.9


# Vertices.


def test_vertex_errors_by_hand():
  true = np.array([[0.5, 0.5, 0.5], [0.2, 0.2, 0.2], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
  colors = true + np.array([[0.3, 0.0, 0.0], [0.0, -0.1, 0.2], [0, 0, 0], [0.1, 0.1, 0.1]])
  errors = texture.vertex_errors(colors, true, np.array([True, False, True, False]))
  assert errors == pytest.approx((0.1 + 0.1, 2, 0.1, 2))


# A split: a folded sheet of 7 x 4 vertices, whose far half hides behind its near half.


def sheet_faces():
  faces = []
  for row in range(6):
    for column in range(3):
      corner = 4 * row + column
      faces += [[corner, corner + 1, corner + 4], [corner + 1, corner + 5, corner + 4]]
  return np.array(faces, np.int32)


FACES = sheet_faces()
VERTICES = 28


class World:
  """A made-up split and a network's estimates of it."""

  def __init__(self, seed=0):
    rng = np.random.default_rng(seed)
    x = np.repeat([-0.06, -0.02, 0.02, 0.06, 0.03, -0.01, -0.05], 4)
    z = np.repeat([-0.02, -0.02, -0.02, 0.0, 0.02, 0.02, 0.02], 4)
    y = np.tile([-0.05, -0.015, 0.02, 0.05], 7)
    sheet = np.stack([x, y, z], axis=1)
    jitter = rng.normal(scale=0.004, size=(EXAMPLES, VERTICES, 3))
    self.vertices = (sheet + jitter).astype(np.float32)
    self.camera = np.tile([1, 0, 0, 0, 1, 0, 0.05, -0.02, 0.5, 1.2], (EXAMPLES, 1))
    self.camera = self.camera.astype(np.float32)
    self.image = rng.integers(0, 256, (EXAMPLES, SIDE, SIDE, 3)).astype(np.uint8)
    self.hand_mask = rng.uniform(size=(EXAMPLES, SIDE, SIDE)) < 0.9
    self.has_mask = np.arange(EXAMPLES) != 1
    self.hand_mask[1] = rng.uniform(size=(SIDE, SIDE)) < 0.5  # must have no effect
    self.hand_mask[2] = False
    self.hand_mask[5, :, SIDE // 2 :] = False
    self.true_colors = rng.uniform(size=(EXAMPLES, VERTICES, 3)).astype(np.float32)
    self.true_visible = rng.uniform(size=(EXAMPLES, VERTICES)) < 0.6
    self.has_colors = np.arange(EXAMPLES) != 3
    self.true_colors[3] = np.nan
    self.colors = rng.uniform(size=(EXAMPLES, VERTICES, 3)).astype(np.float32)
    self.masks_given = []

  def vertices_image(self, row):
    """Written out apart from the package's cameras: no turn, scale 1.2 per decimetre."""
    scaled = 12 * self.vertices[row].astype(np.float64)
    return np.stack(
      [
        (scaled[:, 0] + self.camera[row, 6] + 1) * SIDE / 2,
        (scaled[:, 1] + self.camera[row, 7] + 1) * SIDE / 2,
        scaled[:, 2] * SIDE / 2,
      ],
      axis=1,
    )

  def batch(self, rows):
    """The rows as a batch of `ROWS`; padding repeats example 0 with labels that would show."""
    rows = np.array(rows, int)
    real = np.arange(ROWS) < len(rows)
    index = np.concatenate([rows, np.zeros(ROWS - len(rows), int)])
    nothing = np.zeros(ROWS, bool)
    colors = self.true_colors[index]
    colors[~real] = np.nan
    return HandBatch(
      image=self.image[index],
      example_id=np.array([str(row) for row in index]),
      global_index=index.astype(np.int32),
      is_left=nothing,
      vertices_hand=np.full((ROWS, VERTICES, 3), np.nan, np.float32),
      joints_hand=np.full((ROWS, 21, 3), np.nan, np.float32),
      has_3d=nothing,
      joints_normalized=np.full((ROWS, 21, 2), np.nan, np.float32),
      joint_confidence=np.zeros((ROWS, 21), np.float32),
      camera=np.full((ROWS, 10), np.nan, np.float32),
      camera_mask=np.zeros((ROWS, 10), bool),
      intrinsics=np.full((ROWS, 3, 3), np.nan, np.float32),
      root_camera=np.full((ROWS, 3), np.nan, np.float32),
      has_root=nothing,
      hand_mask=self.hand_mask[index],
      has_mask=self.has_mask[index],
      vertex_colors=colors,
      vertex_visible=self.true_visible[index],
      has_vertex_colors=self.has_colors[index],
      is_padding=~real,
    )

  def estimate(self, batch, hand_mask):
    self.masks_given.append(hand_mask)
    rows = batch.global_index

    def gaussian(mean):
      return DiagonalGaussian(jnp.asarray(mean), jnp.zeros(mean.shape))

    joints = gaussian(np.zeros((ROWS, 21, 3), np.float32))
    crop = gaussian(np.zeros((ROWS, 21, 2), np.float32))
    return HandEstimate(
      parameters=None,
      camera=gaussian(self.camera[rows]),
      # The best branch counts: the posterior.
      prior=HandGaussians(gaussian(0 * self.vertices[rows]), joints, crop),
      posterior=HandGaussians(gaussian(self.vertices[rows]), joints, crop),
      vertex_colors=jnp.asarray(self.colors[rows]),
    )

  def evaluate(self, groups=((0, 1, 2, 3), (4, 5)), **settings):
    batches = [self.batch(rows) for rows in groups]
    return texture.evaluate_texture(self.estimate, batches, jnp.asarray(FACES), **settings)


def naive_draw(world, row, colors):
  """The sheet's picture and silhouette, and its visible vertices without a hand mask."""
  points = world.vertices_image(row)
  face, weights, _, _ = rasterize_naive(points, FACES, SIDE, SIDE)
  drawn = (weights[..., None] * colors[FACES[face]]).sum(axis=2)
  return drawn, face >= 0, visible_vertices_naive(points, FACES, SIDE, SIDE, 0.01)


def naive_source(world, row, source, use_masks):
  """One example's vertex colours by plain loops."""
  photo = world.image[row] / 255
  _, silhouette, visible = naive_draw(world, row, world.colors[row])
  shown = silhouette
  points = world.vertices_image(row)
  if use_masks and world.has_mask[row]:
    shown = silhouette & world.hand_mask[row]
    pixels = np.floor(points[:, :2]).astype(int)
    # A vertex may lie one pixel beyond the mask: that is what visible_vertices grants.
    near = scipy.ndimage.binary_dilation(world.hand_mask[row], np.ones((3, 3)))
    visible = [v and near[y, x] for v, (x, y) in zip(visible, pixels, strict=True)]
  if source == 'learned':
    return world.colors[row]
  mean = photo[shown].mean(axis=0) if shown.any() else np.full(3, 0.5)
  if source == 'mean_color':
    return np.tile(mean, (VERTICES, 1))
  sampled = np.stack(
    [
      scipy.ndimage.map_coordinates(plane, (points[:, 1::-1] - 0.5).T, order=1, mode='nearest')
      for plane in np.moveaxis(photo, -1, 0)
    ],
    axis=-1,
  )
  hops = baselines.hop_distances(FACES, VERTICES)
  return baselines.fill_from_visible(sampled, np.array(visible), hops, mean)


@pytest.mark.slow
@pytest.mark.parametrize('use_masks', [True, False])
def test_a_split_matches_plain_loops(use_masks):
  world = World()
  results = world.evaluate(use_masks=use_masks)
  for source in texture.SOURCES:
    pixels, occluded, visible = [], [], []
    for row in range(EXAMPLES):
      colors = naive_source(world, row, source, use_masks)
      drawn, silhouette, _ = naive_draw(world, row, colors)
      mask = silhouette & (world.hand_mask[row] if world.has_mask[row] else True)
      photo = world.image[row] / 255
      if mask.any():
        difference = drawn[mask] - photo[mask]
        psnr = -10 * np.log10((difference**2).mean())
        pixels.append([psnr, naive_ssim(photo, drawn, mask), abs(difference).mean()])
      for vertex in range(VERTICES):
        error = abs(colors[vertex] - world.true_colors[row, vertex]).mean()
        if world.has_colors[row]:
          (visible if world.true_visible[row, vertex] else occluded).append(error)
    found = results[source]
    assert set(found) == {*texture.PIXEL_METRICS, *texture.VERTEX_METRICS}
    for name, value in zip(texture.PIXEL_METRICS, np.mean(pixels, axis=0), strict=True):
      assert found[name] == pytest.approx(value, rel=1e-4), (source, name)
    assert found['l1_occluded_vertices'] == pytest.approx(np.mean(occluded), rel=1e-4), source
    assert found['l1_visible_vertices'] == pytest.approx(np.mean(visible), rel=1e-4), source
    # Example 2 has no pixel.
    assert len(pixels) == EXAMPLES - 1
  assert tuple(results[name] for name in COUNTS) == (
    *(EXAMPLES, 1, 1, EXAMPLES - 1, len(occluded), len(visible)),
    use_masks,
  )


def test_the_world_tests_what_it_should():
  """Some vertices hide behind the sheet, some behind the object, and the masks matter."""
  world = World()
  _, silhouette, visible = naive_draw(world, 5, world.colors[5])
  assert 5 < visible.sum() < VERTICES - 5
  assert 50 < (silhouette & world.hand_mask[5]).sum() < silhouette.sum() - 50
  with_masks, without = world.evaluate(), world.evaluate(use_masks=False)
  assert with_masks['learned'] == without['learned']  # of this stub, which ignores them
  for source in ('mean_color', 'projection'):
    assert with_masks[source]['l1_visible'] != without[source]['l1_visible']


def test_the_network_is_given_the_masks_or_none():
  world = World()
  world.evaluate()
  first = world.masks_given[0]
  np.testing.assert_array_equal(first[0], world.hand_mask[0])
  assert first[1].all()  # it has none
  assert not first[2].any()
  world.masks_given.clear()
  world.evaluate(use_masks=False)
  assert world.masks_given == [None, None]


def test_estimated_masks_are_measured_beside_the_given_ones():
  """As if they were given, but pixels count inside the true masks in both."""
  world, other = World(), World()
  estimates = np.random.default_rng(5).uniform(size=world.hand_mask.shape) < 0.5
  results = world.evaluate(estimate_masks=lambda batch: estimates[batch.global_index])
  assert {name: results[name] for name in texture.SOURCES} == {
    name: other.evaluate()[name] for name in texture.SOURCES
  }
  np.testing.assert_array_equal(world.masks_given[0][0], world.hand_mask[0])
  np.testing.assert_array_equal(world.masks_given[1][0], estimates[0])
  unmasked = results['without_masks']
  assert set(unmasked) == set(texture.SOURCES)
  assert unmasked['learned'] == results['learned']  # of this stub, which ignores them
  assert unmasked['mean_color'] != results['mean_color']
  everywhere = World()
  seen = everywhere.evaluate(estimate_masks=lambda batch: np.ones_like(batch.hand_mask))
  plain = World().evaluate(use_masks=False)
  assert seen['without_masks']['projection'] == plain['projection']
  assert 'With estimated masks, mean color' in texture.texture_table(results)


def test_batches_and_padding_change_nothing():
  world = World()
  whole = world.evaluate()
  parts = world.evaluate([(5,), (), (3, 1), (4, 0, 2)])
  assert tuple(parts[name] for name in COUNTS) == tuple(whole[name] for name in COUNTS)
  for source in texture.SOURCES:
    assert parts[source] == pytest.approx(whole[source], rel=1e-9)


def test_perfect_colors():
  """Photos of the mesh in its true colours: what is left is their rounding to eight bits."""
  world = World()
  world.colors = np.where(world.has_colors[:, None, None], world.true_colors, 0.25)
  for row in range(EXAMPLES):
    drawn, _, _ = naive_draw(world, row, world.colors[row])
    world.image[row] = np.round(255 * drawn)
  results = world.evaluate()
  learned = results['learned']
  rounding = 0.5 / 255
  assert learned['l1_occluded_vertices'] == learned['l1_visible_vertices'] == 0
  assert learned['l1_visible'] < 1.01 * rounding
  assert learned['psnr_visible_db'] > -20 * math.log10(1.01 * rounding)
  assert learned['ssim_visible'] > 0.999
  for source in ('mean_color', 'projection'):
    assert results[source]['psnr_visible_db'] < learned['psnr_visible_db']


def test_labels_of_examples_without_them_have_no_effect():
  world, other = World(), World()
  other.true_colors[3], other.true_visible[3] = 0.5, True
  other.hand_mask[1] = ~other.hand_mask[1]
  assert world.evaluate() == other.evaluate()


def test_without_true_colors_the_vertex_errors_are_unknown():
  world = World()
  world.has_colors[:] = False
  results = world.evaluate()
  for source in texture.SOURCES:
    assert results[source]['l1_occluded_vertices'] is None
    assert np.isfinite(results[source]['psnr_visible_db'])
  assert results['examples_with_vertex_colors'] == results['occluded_vertices'] == 0
  table = texture.texture_table(results)
  assert 'no example has true vertex colours' in table
  row = next(line for line in table.splitlines() if line.startswith('l1_occluded_vertices'))
  assert row.split()[1:] == ['-'] * 3


def test_the_table():
  results = World().evaluate(use_masks=False)
  lines = texture.texture_table(results).splitlines()
  assert lines[0].split() == ['learned', 'mean', 'color', 'projection']
  for line, metric in zip(lines[1:], texture.PIXEL_METRICS + texture.VERTEX_METRICS, strict=False):
    name, *values = line.split()
    assert name == metric
    expected = [results[source][metric] for source in texture.SOURCES]
    np.testing.assert_allclose([float(value) for value in values], expected, atol=0.0051)
  assert '5 of 6 examples; 1 show no pixel' in lines[6]
  assert f'{results["occluded_vertices"]} occluded' in lines[7]
  assert lines[8].startswith('Hand masks were given to no source')


def test_what_cannot_be_measured_is_named():
  world = World()
  world.hand_mask[:], world.has_mask[:] = False, True
  with pytest.raises(ValueError, match='in none of 6 examples'):
    world.evaluate()
  for name in ('vertices', 'colors'):
    world = World()
    getattr(world, name)[4, 3, 1] = np.nan
    with pytest.raises(ValueError, match="example '4' is not finite"):
      world.evaluate()
  world = World()
  plain = world.estimate
  world.estimate = lambda *inputs: plain(*inputs)._replace(vertex_colors=None)
  with pytest.raises(ValueError, match='no texture branch'):
    world.evaluate()
