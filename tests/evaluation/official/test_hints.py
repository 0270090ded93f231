"""Hints about predictions: relative to the wrist, or joints that are not those of their mesh."""

import numpy as np
import pytest

from hand_jax.evaluation.official.hints import PredictionHints
from hand_jax.evaluation.official.rules import BENCHMARKS
from hand_jax.evaluation.official.submission import Samples
from hand_jax.mano.joints import FINGERTIP_VERTICES, MANO_TO_STANDARD, STANDARD_TO_MANO

FREIHAND, HO3D = BENCHMARKS['freihand'], BENCHMARKS['ho3d_v2']


def make_samples(benchmark):
  """Hands 0.6 m away whose fingertip joints are vertices of their meshes, in the right order."""
  rng = np.random.default_rng(0)
  place = np.array([0, 0, -0.6 if benchmark.is_opengl else 0.6])
  joints = place + 0.06 * rng.normal(size=(7, 21, 3))
  vertices = place + 0.06 * rng.normal(size=(7, 778, 3))
  vertices[:, list(FINGERTIP_VERTICES[benchmark.fingertips])] = joints[:, [4, 8, 12, 16, 20]]
  joints = joints[:, list(benchmark.joint_order)]
  return Samples(joints, vertices, joints, vertices)


def hints_of(samples, benchmark):
  hints = PredictionHints(benchmark)
  hints.add(Samples(*(points[:4] for points in samples)))
  hints.add(Samples(*(points[4:] for points in samples)))
  return hints.lines()


@pytest.mark.parametrize('benchmark', [FREIHAND, HO3D], ids=['freihand', 'ho3d'])
def test_good_predictions_have_none(benchmark):
  samples = make_samples(benchmark)
  assert hints_of(samples, benchmark) == []
  moved = samples._replace(joints=samples.joints + 0.008, vertices=samples.vertices + 0.001)
  assert hints_of(moved, benchmark) == []
  assert PredictionHints(benchmark).lines() == []


@pytest.mark.parametrize(
  'benchmark, order, found, wanted',
  [
    (FREIHAND, STANDARD_TO_MANO, 'HO3D v2', 'wrist, thumb cmc-mcp-ip-tip, index mcp-pip-dip-tip'),
    (HO3D, MANO_TO_STANDARD, 'FreiHAND', 'wrist, index mcp-pip-dip, middle mcp-pip-dip, pinky'),
  ],
  ids=['freihand', 'ho3d'],
)
def test_joints_in_the_other_order_are_told(benchmark, order, found, wanted):
  samples = make_samples(benchmark)
  (line,) = hints_of(samples._replace(joints=samples.joints[:, list(order)]), benchmark)
  assert f'but 0 mm by that of {found}: put them into the order {wanted}' in line


def test_joints_that_fit_in_no_order_are_told():
  samples = make_samples(FREIHAND)
  (line,) = hints_of(samples._replace(joints=samples.joints[:, ::-1]), FREIHAND)
  assert 'from the fingertips of their own mesh' in line and 'by that of' not in line


@pytest.mark.parametrize('benchmark', [FREIHAND, HO3D], ids=['freihand', 'ho3d'])
def test_predictions_about_the_wrist_are_told(benchmark):
  samples = make_samples(benchmark)
  wrists = samples.joints[:, :1]
  relative = samples._replace(joints=samples.joints - wrists, vertices=samples.vertices - wrists)
  (line,) = hints_of(relative, benchmark)
  assert 'relative to the wrist' in line and benchmark.title in line


def test_other_meshes_and_joints_alone_are_not_compared():
  samples = make_samples(FREIHAND)
  samples = samples._replace(joints=samples.joints[:, ::-1])
  for count in (0, 500):
    assert hints_of(samples._replace(vertices=samples.vertices[:, :count]), FREIHAND) == []
