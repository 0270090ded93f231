"""3D labels beside annotated photos: read for measuring, checked, passed over by preparation."""

import json

import numpy as np
import pytest
from PIL import Image

from hand_jax.readers.hand_photos import load_example, read_annotations

JOINTS = (0.02 * np.random.default_rng(0).normal(size=(21, 3)) + [0.01, 0.02, 0.6]).round(4)
BOX = [10, 12, 40, 44]


def write_folder(folder, **fields):
  Image.fromarray(np.zeros((64, 80, 3), np.uint8)).save(folder / 'a.png')
  entry = {'image': 'a.png', 'bbox': BOX, **fields}
  (folder / 'annotations.json').write_text(json.dumps([entry]))
  return folder


def test_joints_are_read_and_unknown_ones_are_not_a_number(tmp_path):
  joints = JOINTS.tolist()
  joints[3], joints[7] = None, [0.1, None, 0.5]
  keypoints = [[20, 20], *([30 + i, 30] for i in range(20))]
  keypoints[5] = None
  folder = write_folder(tmp_path, joints_camera=joints, keypoints=keypoints)
  (entry,) = read_annotations(folder)
  assert np.isnan(entry.joints_camera[[3, 7]]).all()
  known = np.delete(np.arange(21), [3, 7])
  np.testing.assert_array_equal(entry.joints_camera[known], JOINTS[known])
  assert entry.joint_confidence.tolist() == [float(i != 5) for i in range(21)]
  example = load_example(entry)
  assert example.joints_camera is None  # training from photos stays with 2D joints alone


def test_either_label_may_be_missing_for_measuring_alone(tmp_path):
  folder = write_folder(tmp_path, joints_camera=JOINTS.tolist())
  (entry,) = read_annotations(folder, needs_keypoints=False)
  assert entry.joint_confidence.sum() == 0 and entry.box_xywh.tolist() == BOX
  with pytest.raises(ValueError, match='keypoints: is missing'):
    read_annotations(folder)
  (entry,) = read_annotations(write_folder(tmp_path), needs_keypoints=False)
  assert np.isnan(entry.joints_camera).all()


@pytest.mark.parametrize(
  'joints, message',
  [
    (JOINTS[:20].tolist(), r'expected 21 of \[x, y, z\] in metres or null, got 20'),
    ({'wrist': 0}, 'got an object'),
    ([[0.1, 0.2], *JOINTS[1:].tolist()], r'joints_camera\[0\] \(wrist\).*got \[0.1, 0.2\]'),
    ([['a', 0, 0], *JOINTS[1:].tolist()], r'joints_camera\[0\] \(wrist\): expected finite numbers'),
    (
      (1000 * JOINTS).tolist(),
      'joints_camera: .* expected metres, these look like millimetres',
    ),
  ],
)
def test_what_cannot_be_joints_is_named(joints, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    read_annotations(write_folder(tmp_path, joints_camera=joints), needs_keypoints=False)


def test_a_hand_that_nothing_places_is_refused(tmp_path):
  folder = write_folder(tmp_path, joints_camera=JOINTS.tolist(), bbox=None)
  with pytest.raises(ValueError, match='no joint is known and there is no bbox'):
    read_annotations(folder, needs_keypoints=False)
