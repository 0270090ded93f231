"""Training the shipped texture branch: what it reads, and that it learns."""

import jax
import numpy as np
import pytest

from hand_jax.mano.assets import load_mano_model
from hand_jax.models.map_sampling import sample_bilinear
from hand_jax.release.texture_training import (
  TextureReadings,
  TextureSettings,
  stored_features,
  train_texture,
)


def made_up(count, vertices):
  """Hands of one colour each, which the global vector tells."""
  rng = np.random.default_rng(0)
  colors = rng.integers(30, 220, (count, 1, 3))
  vectors = np.zeros((count, 1152), np.float16)
  vectors[:, :3] = colors[:, 0] / 100
  everywhere = np.broadcast_to(colors, (count, vertices, 3)).astype(np.uint8)
  return TextureReadings(
    sampled=rng.normal(size=(count, vertices, 16)).astype(np.float16),
    vectors=vectors,
    normals=rng.normal(size=(count, vertices, 3)).astype(np.float16),
    seen=rng.uniform(size=(count, vertices)) < 0.5,
    seen_by_strayed=rng.uniform(size=(count, vertices)) < 0.5,
    photo_colors=everywhere,
    true_colors=everywhere,
  )


def test_stored_samples_are_read_back_exactly():
  readings = made_up(2, 778)
  features, points = stored_features(readings)
  found = sample_bilinear(features.shallow_map, points)
  np.testing.assert_allclose(found, readings.sampled.astype(np.float32), atol=2e-3)


@pytest.mark.slow
def test_the_branch_learns_colours(monkeypatch):
  model = load_mano_model()
  readings = made_up(6, len(model.v_template))
  losses = []
  monkeypatch.setattr('hand_jax.release.texture_training._REPORTED_STEPS', 10)
  settings = TextureSettings(steps=30, batch_size=3, learning_rate=3e-3)
  parameters = train_texture(readings, model, settings, lambda *told: losses.append(told[1]))
  assert len(losses) == 3 and losses[-1] < 0.6 * losses[0]
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters))
