"""What the statistics of poses count, on poses whose answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.mano.anatomy import angles_to_pose
from hand_jax.mano.joints import JOINT_NAMES, MANO_JOINT_NAMES
from tools.pose_statistics import (
  PoseStatistics,
  deepest_penetrations,
  hand_capsules,
  measure_poses,
  segment_distance,
  table_lines,
)

JOINTS = MANO_JOINT_NAMES[1:]
FINGERS = ('index', 'middle', 'ring', 'pinky')


def bent(**degrees) -> np.ndarray:
  """A pose with those flexions, by `finger_joint`."""
  angles = np.zeros((15, 3), np.float32)
  for joint, value in degrees.items():
    angles[JOINTS.index(joint), 0] = value
  return np.asarray(angles_to_pose(jnp.asarray(angles)))


def fists(*straight, mcp=70.0, pip=90.0) -> np.ndarray:
  """All fingers bent but those."""
  folded = [finger for finger in FINGERS if finger not in straight]
  return bent(**{f'{f}_mcp': mcp for f in folded}, **{f'{f}_pip': pip for f in folded})


def test_shares_count_the_patterns_of_fingers(model):
  rng = np.random.default_rng(0)
  poses = np.stack(
    [
      *(fists('index', 'middle') for _ in range(3)),
      *(fists('index') for _ in range(2)),
      fists('pinky'),
      fists(*FINGERS),
      fists(*FINGERS, mcp=0),
      fists('index', 'middle', pip=50),  # neither straight nor folded
      fists('middle', 'pinky'),
    ]
  )
  poses = poses + rng.normal(scale=1e-4, size=poses.shape)
  found = measure_poses(jnp.asarray(poses, jnp.float32), model)
  assert found.two_straight_two_folded == pytest.approx(0.3)
  assert found.index_alone_straight == pytest.approx(0.2)
  assert found.pinky_alone_straight == pytest.approx(0.1)
  assert found.all_straight == pytest.approx(0.2)


def test_correlations_and_components_are_of_the_named_joints(model):
  rng = np.random.default_rng(1)
  mcp = rng.uniform(0, 60, 200)
  pip = rng.uniform(0, 60, 200)
  poses = [
    bent(**{f'{f}_mcp': a for f in FINGERS}, **{f'{f}_pip': b for f in FINGERS},
         **{f'{f}_dip': -b / 5 for f in FINGERS})
    for a, b in zip(mcp, pip, strict=True)
  ]  # fmt: skip
  found = measure_poses(jnp.asarray(np.stack(poses)), model)
  assert found.pip_dip_correlation == pytest.approx(-1, abs=1e-4)
  assert found.index_pinky_correlation == pytest.approx(1, abs=1e-4)
  expected = np.corrcoef(mcp, pip)[0, 1]
  assert found.index_mcp_pip_correlation == pytest.approx(expected, abs=1e-3)
  assert found.five_components == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_segments_are_as_far_apart_as_a_search_says():
  rng = np.random.default_rng(2)
  first, second = rng.normal(size=(2, 60, 2, 3))
  second[:20] *= 0.2  # near
  second[20:30] = first[20:30] + rng.normal(size=(10, 1, 3))  # parallel
  share = np.linspace(0, 1, 401)[:, None]

  def points(segment):
    return segment[0] * (1 - share) + segment[1] * share

  expected = [
    np.linalg.norm(points(a)[:, None] - points(b)[None], axis=-1).min()
    for a, b in zip(first, second, strict=True)
  ]
  found = segment_distance(jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32))
  np.testing.assert_allclose(found, expected, atol=0.01)


def test_penetration_grows_as_fingers_meet(model):
  """Fingers that are crossed, and a tip pressed into the palm, against an open hand."""
  crossed = np.zeros((15, 3), np.float32)
  crossed[JOINTS.index('index_mcp'), 1] = -25
  crossed[JOINTS.index('middle_mcp'), 1] = 20
  poses = np.stack(
    [
      np.zeros(45, np.float32),
      np.asarray(angles_to_pose(jnp.asarray(crossed))),
      bent(pinky_mcp=90, pinky_pip=110, pinky_dip=60),
      bent(pinky_mcp=40, pinky_pip=60, pinky_dip=20),
    ]
  )
  depth = np.asarray(deepest_penetrations(jnp.asarray(poses), model))
  assert np.all(depth[[1, 2]] > depth[0] + 0.004)
  assert depth[3] < depth[0] + 0.001


def test_capsules_are_as_thick_as_fingers(model):
  capsules = hand_capsules(model)
  names = [JOINT_NAMES[end] for _, end in capsules.ends]
  assert len(names) == 19 and 'thumb_cmc' not in names
  radii = dict(zip(names, capsules.radii, strict=True))
  assert all(0.004 < radii[f'{finger}_tip'] < 0.011 for finger in FINGERS)
  assert all(radii[f'{finger}_pip'] > radii[f'{finger}_tip'] for finger in FINGERS)
  pairs = {tuple(sorted((names[a], names[b]))) for a, b in capsules.pairs}
  assert ('index_pip', 'middle_pip') in pairs and ('index_mcp', 'index_tip') in pairs
  assert not {('index_pip', 'index_tip'), ('index_mcp', 'middle_mcp')} & pairs
  assert ('index_mcp', 'middle_pip') not in pairs


def test_the_table_has_a_column_for_each_sampler():
  lines = list(
    table_lines({'one': PoseStatistics(*[0.125] * 9), 'two': PoseStatistics(*[0.0] * 9)})
  )
  assert lines[:2] == ['| | one | two |', '| --- | ---: | ---: |']
  assert lines[2] == '| index and middle straight, ring and pinky folded | 12.5% | 0.0% |'
  assert lines[-1] == '| deepest intersection of a hand, mean, mm | 125.0 | 0.0 |'
  assert len(lines) == 2 + len(PoseStatistics._fields)
