"""The palm detector: equal to the published one at every anchor."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.models.bundled import load_bundled_parameters
from hand_jax.models.hand_landmark import normalize_crops
from hand_jax.models.palm_detection import PalmDetectionNetwork, UpsampleBlock
from tools.drawn_hand import draw_test_picture

FIXTURE = pathlib.Path(__file__).parent.parent / 'fixtures' / 'hand_networks.npz'


# Both sides compute in float32 from the same half-precision weights; only the order differs.
@pytest.mark.slow
def test_boxes_and_scores_equal_the_published_networks():
  with np.load(FIXTURE) as arrays:
    boxes, logits = (arrays[f'palm_detection/{name}'] for name in ('Identity', 'Identity_1'))
  picture = jnp.asarray(draw_test_picture(192))[None]
  variables = load_bundled_parameters('palm_detection')
  run = jax.jit(lambda v, x: PalmDetectionNetwork().apply(v, normalize_crops(x)))
  output = run(variables, picture)
  assert logits.max() > 1  # A palm is found, or equality would say little.
  np.testing.assert_allclose(output.logits, logits[..., 0], atol=2e-3)
  np.testing.assert_allclose(output.boxes, boxes, atol=5e-3)  # pixels of 192


@pytest.mark.slow
def test_resizing_after_the_convolution_is_resizing_before():
  x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
  block = UpsampleBlock(6)
  variables = jax.jit(block.init)(jax.random.key(1), x)
  kernel = variables['params']['project']['kernel'][0, 0]
  bias = jnp.arange(6.0)
  variables['params']['project']['bias'] = bias
  wide = jnp.einsum('bhwi,io->bhwo', jax.image.resize(x, (2, 6, 10, 4), 'bilinear'), kernel)
  wide = wide + bias[None, None, None]
  chex.assert_trees_all_close(
    jax.jit(block.apply)(variables, x), jnp.where(wide > 0, wide, 0.25 * wide), atol=1e-5
  )
