"""The silhouette term: what it is, what it leaves out, and what it teaches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hand_jax.config import LossConfig
from hand_jax.geometry.cameras import camera_from_vector, vertices_in_crop
from hand_jax.rendering.soft import soft_silhouette
from hand_jax.silhouette_loss import compute_silhouette_term
from hand_jax.types import (
  SILHOUETTE_FULL,
  SILHOUETTE_UNKNOWN,
  DiagonalGaussian,
  HandBatch,
  HandEstimate,
  HandGaussians,
)

SIDE = 24
CONFIG = LossConfig(silhouette=1.0, silhouette_side=SIDE, silhouette_sigma=0.02)
# A square plate, 8 cm wide. Like a hand it has two layers, so that no pixel lies on a seam alone.
PLATE = 0.04 * jnp.asarray([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
FACES = jnp.asarray([[0, 1, 2], [0, 2, 3], [0, 1, 3], [1, 2, 3]])
# The plate is half as wide as the crop: 1 normalised unit per 8 cm.
CAMERA = jnp.asarray([1.0, 0, 0, 0, 1, 0, 0, 0, 0.5, 1 / 0.8])


def estimate_of(vertices, camera) -> HandEstimate:
  hands = DiagonalGaussian(vertices[None], jnp.zeros((1, 4, 3)))
  cameras = DiagonalGaussian(camera[None], jnp.zeros((1, 10)))
  return HandEstimate(None, cameras, None, HandGaussians(hands, hands, hands))


def batch_of(levels, is_padding=False) -> HandBatch:
  labels = {'silhouette': levels[None], 'is_padding': np.array([is_padding])}
  return HandBatch(**{**dict.fromkeys(HandBatch._fields), **labels})


def square(first_row=6, first_column=6, side=12) -> np.ndarray:
  levels = np.zeros((SIDE, SIDE), np.uint8)
  levels[first_row : first_row + side, first_column : first_column + side] = SILHOUETTE_FULL
  return levels


@jax.jit
def term(vertices, camera, batch):
  return compute_silhouette_term(estimate_of(vertices, camera), batch, FACES, CONFIG)[0]


def test_the_term_is_one_less_overlap_over_union_of_the_drawing_and_the_mask():
  assert float(term(PLATE, CAMERA, batch_of(square()))) == pytest.approx(0, abs=1e-3)
  # Half of the plate misses the mask: overlap 72, union 216.
  half = term(PLATE, CAMERA, batch_of(square(first_column=12)))
  assert float(half) == pytest.approx(2 / 3, abs=5e-3)
  shares = np.random.default_rng(0).integers(0, SILHOUETTE_FULL, (SIDE, SIDE)).astype(np.uint8)
  pixels = vertices_in_crop(camera_from_vector(CAMERA), PLATE, SIDE)[None]
  drawn = np.asarray(soft_silhouette(pixels, FACES, SIDE, SIDE, CONFIG.silhouette_sigma))[0]
  mask = shares / SILHOUETTE_FULL
  expected = 1 - (drawn * mask).sum() / (drawn + mask - drawn * mask).sum()
  assert float(term(PLATE, CAMERA, batch_of(shares))) == pytest.approx(expected, rel=1e-5)


def test_pixels_that_an_object_hides_do_not_count_against_the_hand():
  hidden = square()
  hidden[6:18, 12:18] = SILHOUETTE_UNKNOWN
  gone = square()
  gone[6:18, 12:18] = 0
  assert float(term(PLATE, CAMERA, batch_of(hidden))) == pytest.approx(0, abs=1e-3)
  assert float(term(PLATE, CAMERA, batch_of(gone))) == pytest.approx(0.5, abs=5e-3)
  # The hidden edge does not move either.
  slope = jax.grad(term)(PLATE, CAMERA, batch_of(hidden))
  np.testing.assert_allclose(slope[1:3, 0], 0, atol=1e-6)


def test_hands_without_a_mask_and_padding_cost_nothing():
  away = CAMERA.at[6].set(0.4)
  unknown = np.full((SIDE, SIDE), SILHOUETTE_UNKNOWN, np.uint8)
  for batch in (batch_of(unknown), batch_of(square() * np.uint8(0)), batch_of(square(), True)):
    value, slope = jax.value_and_grad(term, argnums=1)(PLATE, away, batch)
    assert float(value) == 0
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize('moved', ['camera', 'vertices'])
def test_the_term_pulls_a_displaced_hand_onto_its_mask(moved):
  batch = batch_of(square())
  vertices, camera = PLATE, CAMERA
  if moved == 'camera':
    camera = camera.at[6:8].add(jnp.asarray([0.25, -0.17])).at[9].mul(1.2)
    slope = jax.grad(term, argnums=1)(vertices, camera, batch)
    # Against the displacement, and towards a smaller scale.
    assert slope[6] > 0.1 and slope[7] < -0.1 and slope[9] > 0.01
    learned, rate = camera, 0.02
    value = jax.value_and_grad(lambda each: term(vertices, each, batch))
  else:
    vertices = vertices + 0.01 * jnp.asarray([[1.0, 1, 0], [2, 0, 0], [1, -1, 0], [0, 1, 0]])
    learned, rate = vertices, 1e-3
    value = jax.value_and_grad(lambda each: term(each, camera, batch))
  before = float(value(learned)[0])
  assert before > 0.2
  optimizer = optax.adam(rate)
  state = optimizer.init(learned)
  for _ in range(60):
    updates, state = optimizer.update(value(learned)[1], state)
    learned = optax.apply_updates(learned, updates)
  assert float(value(learned)[0]) < before / 5


def test_batches_without_silhouettes_are_refused():
  batch = batch_of(square())._replace(silhouette=None)
  with pytest.raises(ValueError, match=r'loss\.silhouette needs batches with silhouettes'):
    compute_silhouette_term(estimate_of(PLATE, CAMERA), batch, FACES, CONFIG)
