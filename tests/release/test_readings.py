"""Readings of rendered hands: one frame for all arrays, and files that are made once."""

import numpy as np
import pytest

from hand_jax.release import readings
from hand_jax.release.readings import ReadHands, ReadingPlan, jittered_regions, read_plan
from hand_jax.synthetic.hands import render_examples

PLAN = ReadingPlan('broad', 'validation', 3, 5, crops=2, image_size=64)


def made_up(count, start=0):
  rng = np.random.default_rng(start)
  return ReadHands(
    rng.normal(size=(count, 1152)).astype(np.float16),
    *(rng.normal(size=(count, 21, axes)).astype(np.float32) for axes in (3, 3, 2, 3)),
    np.arange(start, start + count, dtype=np.int32),
  )


@pytest.mark.slow
def test_all_arrays_are_in_the_frame_of_the_crop():
  read = readings.read_rendered(PLAN, [0, 4])
  assert read.example.tolist() == [0, 0, 4, 4]
  examples = render_examples(PLAN.seed, PLAN.split, [0, 0, 4, 4], 64, hands=PLAN.hands)
  for k, example in enumerate(examples):
    joints = np.asarray(example.joints_camera)
    # A turn about the optical axis keeps depth and lengths.
    np.testing.assert_allclose(read.joints_camera[k][:, 2], joints[:, 2], atol=1e-6)
    turned = read.joints_camera[k]
    np.testing.assert_allclose(
      np.linalg.norm(turned, axis=1), np.linalg.norm(joints, axis=1), atol=1e-6
    )
    # In the turned axes a camera of the crop sees the joints where the crop shows them: an affine
    # function of x / z and y / z, whose matrix is a multiple of the identity.
    rays = turned[:, :2] / turned[:, 2:]
    rows = np.hstack([rays, np.ones((21, 1))])
    affine = np.linalg.lstsq(rows, read.joints_crop[k], rcond=None)[0]
    np.testing.assert_allclose(rows @ affine, read.joints_crop[k], atol=0.01)
    assert affine[0, 0] > 0
    np.testing.assert_allclose(affine[:2] / affine[0, 0], np.eye(2), atol=1e-3)
  # Two crops of one hand differ, and the hand is in the middle of both.
  assert np.abs(read.joints_crop[0] - read.joints_crop[1]).max() > 1
  assert np.abs(read.joints_crop.mean(axis=1) - 112).max() < 60


def test_regions_depend_on_plan_and_number_alone():
  (example,) = render_examples(PLAN.seed, PLAN.split, [2], 64, hands=PLAN.hands)
  assert jittered_regions(example, PLAN, 2) == jittered_regions(example, PLAN, 2)
  assert jittered_regions(example, PLAN, 2)[0] != jittered_regions(example, PLAN, 3)[0]


def test_a_stopped_pass_goes_on_where_it_was(tmp_path, monkeypatch):
  asked = []

  def read(plan, indices):
    asked.append(list(indices))
    if len(asked) == 2:
      raise KeyboardInterrupt
    return made_up(len(asked[-1]), asked[-1][0])

  monkeypatch.setattr(readings, 'SHARD_SIZE', 2)
  monkeypatch.setattr(readings, 'read_rendered', read)
  with pytest.raises(KeyboardInterrupt):
    read_plan(PLAN, tmp_path)
  found = read_plan(PLAN, tmp_path)
  assert asked == [[0, 1], [2, 3], [2, 3], [4]]
  assert found.example.tolist() == [0, 1, 2, 3, 4]
  again = read_plan(PLAN, tmp_path)
  assert len(asked) == 4  # nothing is read twice
  for one, other in zip(found, again, strict=True):
    np.testing.assert_array_equal(one, other)


def test_the_share_of_the_landmark_error_is_of_half_the_box():
  read = made_up(1)
  joints = np.zeros((1, 21, 2), np.float32)
  joints[0, 0], joints[0, 1] = [0, 0], [40, 20]
  landmarks = np.concatenate([joints + [3, 4], np.zeros((1, 21, 1))], axis=-1)
  read = read._replace(joints_crop=joints, landmarks=landmarks.astype(np.float32))
  np.testing.assert_allclose(readings.landmark_error_share(read), 5 / 20)
