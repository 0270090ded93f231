"""Training the mask head: its crops, its loss, and that it learns."""

import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.geometry.cameras import transform_points
from hand_jax.models.hand_landmark import INPUT_SIDE
from hand_jax.release import mask_training
from hand_jax.release.mask_training import (
  MaskSettings,
  cut_crops,
  jittered_square,
  mask_loss,
  mask_overlap,
  measure_mask_head,
  train_mask_head,
)
from hand_jax.release.rendered import RenderPlan, rendered_hands

SETTINGS = MaskSettings()


@pytest.fixture(scope='module')
def hands(tmp_path_factory):
  plan = RenderPlan('broad', 'validation', 3, 4, image_size=96)
  return rendered_hands(plan, tmp_path_factory.mktemp('rendered'))


@pytest.mark.slow
def test_squares_show_the_hand_upright(hands):
  """Wherever they stray, nearly all joints are inside, and the fingers' bases above the wrist."""
  inside, above = [], []
  rng = np.random.default_rng(0)
  for _ in range(40):
    row = int(rng.integers(len(hands.images)))
    affine = jittered_square(hands, row, rng, SETTINGS)
    joints = transform_points(affine, hands.joints_image[row].astype(np.float64))
    inside.append(((joints > 0) & (joints < INPUT_SIDE)).all(axis=1).mean())
    above.append(joints[9, 1] < joints[0, 1])
    size = np.ptp(joints, axis=0).max()
    assert 0.2 * INPUT_SIDE < size < 1.1 * INPUT_SIDE
  assert np.mean(inside) > 0.97 and np.mean(above) == 1


@pytest.mark.slow
def test_crops_and_masks_show_the_same_square(hands):
  """Of a photo that is its own mask, the mask is the crop but for its colours."""
  grey = np.repeat(255 * hands.masks[..., None].astype(np.uint8), 3, axis=-1)
  seen = cut_crops(hands._replace(images=grey), np.arange(4), np.random.default_rng(1), SETTINGS)
  assert seen.crops.shape == (4, INPUT_SIDE, INPUT_SIDE, 3)
  assert seen.masks.shape == (4, INPUT_SIDE, INPUT_SIDE)
  for crop, mask in zip(seen.crops, seen.masks, strict=True):
    assert 0.02 < (mask > 127).mean() < 0.8
    brightest = crop.max(axis=-1)
    assert np.corrcoef(brightest.ravel(), mask.ravel())[0, 1] > 0.98


def test_the_loss_is_cross_entropy_and_overlap():
  shares = np.zeros((1, 2, 2), np.float32)
  shares[0, 0] = 1
  log_odds = np.array([[[2.0, -1.0], [0.5, -3.0]]], np.float32)
  found = 1 / (1 + np.exp(-log_odds))
  entropy = -(shares * np.log(found) + (1 - shares) * np.log(1 - found)).mean()
  both, either = (found * shares).sum(), (found + shares - found * shares).sum()
  expected = entropy + 0.7 * (1 - (both + 1) / (either + 1))
  loss = mask_loss(jnp.asarray(log_odds), jnp.asarray(shares), 0.7)
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  sure = mask_loss(jnp.asarray(40 * (2 * shares - 1)), jnp.asarray(shares), 0.7)
  assert float(sure) == pytest.approx(0, abs=1e-5)


def test_overlap_is_intersection_over_union():
  true = np.zeros((3, 4, 4), bool)
  true[0, :2], true[1, :2] = True, True
  found = np.zeros_like(true)
  found[0, 1:3] = True
  np.testing.assert_allclose(mask_overlap(found, true), [4 / 12, 0, 1])


@pytest.mark.slow
def test_a_head_learns_its_few_hands(hands, monkeypatch):
  monkeypatch.setattr(mask_training, '_REPORTED_STEPS', 4)
  losses = []
  settings = MaskSettings(steps=12, left_out=(0, 0), batch_size=2, learning_rate=5e-3)
  parameters = train_mask_head(hands, settings, lambda step, loss, _: losses.append((step, loss)))
  assert [step for step, _ in losses] == [4, 8, 12]
  assert losses[-1][1] < 0.6 * losses[0][1]
  scores = measure_mask_head(hands, parameters, settings)
  assert 0.3 < scores['iou_mean'] <= 1 and scores['iou_10_percent'] <= scores['iou_median']
