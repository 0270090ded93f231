"""The tools that measure the free hand and its renders, on hands whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_jax.examples import HandExample
from hand_jax.mano.model import regress_joints
from tools import measure_free_hand, measure_realism
from tools.free_hand.proportions import BONES_MM


def test_bone_lengths_are_those_of_the_joints(model):
  joints = 1000 * np.asarray(regress_joints(model, model.v_template), np.float64)
  lengths = measure_free_hand.bone_lengths_mm(model)
  assert lengths.shape == (5, 4)
  assert lengths[1, 1] == pytest.approx(np.linalg.norm(joints[6] - joints[5]))
  assert lengths[4, 3] == pytest.approx(np.linalg.norm(joints[20] - joints[19]))
  assert lengths[0, 0] == pytest.approx(np.linalg.norm(joints[1] - joints[0]))


def test_the_table_has_a_row_for_each_bone(model):
  lines = measure_free_hand.length_lines(model)
  assert len(lines) == 2 + 3 + 4 * 4
  cells = [cell.strip() for cell in lines[-1].strip('|').split('|')]
  assert cells[0] == 'pinky, distal with skin'
  assert float(cells[2]) == pytest.approx(sum(BONES_MM['pinky'][3:]), abs=0.05)


def test_bone_axes_turn_with_the_hand(model):
  joints = np.asarray(regress_joints(model, model.v_template), np.float64)
  axes = measure_free_hand.bone_axes(joints)
  np.testing.assert_allclose(
    axes.swapaxes(-1, -2) @ axes, np.tile(np.eye(3), (21, 1, 1)), atol=1e-9
  )
  np.testing.assert_allclose(np.linalg.det(axes), 1.0)
  assert (axes[5:, 1, 2] > 0.8).all()  # the back of the flat hand faces +y
  turn = Rotation.from_rotvec([0.3, -0.7, 1.1]).as_matrix()
  np.testing.assert_allclose(measure_free_hand.bone_axes(joints @ turn.T), turn @ axes, atol=1e-9)


def test_points_on_the_joints_have_no_error(monkeypatch):
  """The network's points are made up from the joints, moved by a known distance."""
  rng = np.random.default_rng(0)
  joints = rng.normal(size=(21, 3)) * 0.04 + [0, 0, 0.5]
  pixels = 400 * joints[:, :2] / joints[:, 2:] + 112
  example = HandExample(
    'made-up', np.zeros((224, 224, 3), np.uint8), 'right', np.array([0, 0, 224, 224], np.float32),
    pixels.astype(np.float32), np.ones(21, np.float32), joints_camera=joints.astype(np.float32),
  )  # fmt: skip
  region = measure_realism.region_from_landmarks(pixels)
  crop = measure_realism.transform_points(measure_realism.photo_to_crop(region, 224), pixels)

  def read(crops):
    assert crops.shape == (1, 224, 224, 3)
    landmarks = np.zeros((1, 21, 3))
    landmarks[0, :, :2] = crop + [3.0, 4.0]
    world = 1.3 * joints[None] @ Rotation.from_rotvec([0.2, 0.1, -0.4]).as_matrix()
    seen = (np.array([0.9]), np.array([1.0]), np.zeros((1, 1152)))
    return measure_realism.HandReadings(landmarks, world, *seen)

  monkeypatch.setattr(measure_realism, 'read_landmarks', read)
  (reading,) = measure_realism.read_examples([example])
  assert reading.presence == 0.9
  np.testing.assert_allclose(reading.image_error_px, 5.0, atol=1e-3)
  np.testing.assert_allclose(reading.world_error_mm, 0.0, atol=1e-3)
  lines = list(measure_realism.score_lines([reading]))
  assert '1 rendered hands' in lines[0] and '100.0%' in lines[0] and '5.00 px' in lines[1]


def test_the_commands_print_their_lines(capsys, monkeypatch):
  """Each `main` runs to its end; what they measure is tested above."""
  for tool in (measure_free_hand, measure_realism):
    monkeypatch.setattr(tool, 'start', lambda argv: None)  # It needs parsed flags.
  monkeypatch.setattr(measure_free_hand.flags, 'FLAGS', SimpleNamespace(hand=None, source=None))
  measure_free_hand.main(['measure_free_hand'])
  assert 'pinky, distal' in capsys.readouterr().out
  monkeypatch.setattr(measure_realism, 'scored_lines', lambda: iter(['a line']))
  measure_realism.main(['measure_realism'])
  assert capsys.readouterr().out == 'a line\n'
