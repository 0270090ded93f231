"""Scores of hands in photos: values worked out by hand, and every label that may be missing."""

import json
import math

import numpy as np
import pytest
import scipy.stats

from hand_jax.evaluation.metrics import procrustes_align
from hand_jax.evaluation.photo_scores import (
  FoundHand,
  HandScore,
  TrueHand,
  box_overlap,
  photo_scores,
  score_hand,
)

KEYS = [
  'photos',
  'found',
  'side_right',
  'pa_mpjpe_mm',
  'pa_mpjpe_mm_median',
  'mpjpe_mm',
  'error_2d_of_box',
  'coverage_68',
  'coverage_95',
  'spearman_photos',
  'sigma_degrees_of_freedom',
  'uncertainty',
  'per_photo',
]
BOX = np.array([10.0, 20.0, 100.0, 50.0])


def made_up_joints(seed=0):
  joints = np.random.default_rng(seed).normal(size=(21, 3)) * 0.05
  return joints - joints[0] + [0.1, -0.2, 0.6]


def true_hand(**changes):
  joints = made_up_joints()
  keypoints = np.random.default_rng(1).uniform(0, 50, (21, 2))
  keypoints[3], keypoints[4] = [0, 0], [100, 50]  # the box is 100 x 50
  return TrueHand('a.jpg', 'left', BOX, keypoints, joints)._replace(**changes)


def found_hand(true, **changes):
  joints = made_up_joints()
  return FoundHand(
    'left', BOX, joints - joints[0], true.joints_image, np.full((21, 3), 0.004)
  )._replace(**changes)


def score(true, **changes):
  return score_hand(true, [found_hand(true, **changes)])


def test_overlap_is_intersection_over_union():
  assert box_overlap(np.array([0.0, 0, 4, 2]), np.array([2.0, 1, 4, 2])) == pytest.approx(2 / 14)
  assert box_overlap(BOX, BOX) == 1
  assert box_overlap(BOX, BOX + [1000, 0, 0, 0]) == 0
  assert box_overlap(BOX * [1, 1, 0, 0], BOX * [1, 1, 0, 0]) == 0


def test_a_perfect_hand_has_no_error():
  result = score(true_hand())
  assert result.found and result.side_right
  assert result.pa_mpjpe_mm == pytest.approx(0, abs=1e-9)
  assert result.mpjpe_mm == pytest.approx(0, abs=1e-9)
  assert result.error_2d_of_box == 0
  assert (result.coverage_68, result.coverage_95) == (1, 1)
  assert result.sigma_mm == pytest.approx(4)


def test_alignment_takes_rotation_scale_and_shift_out_and_the_plain_error_does_not():
  true = true_hand()
  turned = found_hand(true).joints[:, [1, 0, 2]] * [1, -1, 1]  # a quarter turn about z
  result = score(true, joints=1.5 * turned)
  relative = true.joints_camera - true.joints_camera[0]
  expected = 1000 * np.linalg.norm(1.5 * turned - relative, axis=1).mean()
  assert result.pa_mpjpe_mm == pytest.approx(0, abs=1e-9)
  assert result.mpjpe_mm == pytest.approx(expected)


def test_a_mirrored_hand_is_no_perfect_hand():
  true = true_hand()
  assert score(true, joints=found_hand(true).joints * [-1, 1, 1]).pa_mpjpe_mm > 5


def test_plain_error_is_relative_to_the_wrist():
  true = true_hand()
  joints = found_hand(true).joints.copy()
  joints[5] += [0.021, 0, 0]
  assert score(true, joints=joints).mpjpe_mm == pytest.approx(1)  # 21 mm over 21 joints
  assert score(true, joints=joints + [0, 1, 2]).mpjpe_mm == pytest.approx(1)


def test_image_error_is_a_share_of_the_keypoints_larger_side():
  true = true_hand()
  assert score(true, joints_image=true.joints_image + [3, 4]).error_2d_of_box == pytest.approx(0.05)


def test_coverage_counts_coordinates_after_scaling_to_the_true_size():
  true = true_hand()
  joints = found_hand(true).joints
  size = np.sqrt(np.sum(joints**2))
  wrong = joints.copy()
  wrong[7, 2] += 0.005  # one of 60 coordinates, beyond one sigma of 4 mm but not beyond two
  result = score(true, joints=wrong)
  assert result.coverage_68 == pytest.approx(59 / 60) and result.coverage_95 == 1
  # Twice as large with twice the sigma is the same hand.
  doubled = score(true, joints=2 * wrong, joint_sigma=np.full((21, 3), 0.008))
  assert doubled.coverage_68 == pytest.approx(59 / 60)
  # A sigma that is not scaled along would cover everything here.
  assert score(true, joints=10 * joints, joint_sigma=np.zeros((21, 3))).coverage_95 <= 1
  shifted = joints + np.where(np.arange(21)[:, None] > 0, [0.0, 0.0, 0.05], 0.0)
  scale = size / np.sqrt(np.sum(shifted**2))
  errors = np.abs(scale * shifted - joints)[1:]
  sigma = scale * 0.004
  expected = np.mean(errors <= 0.994458 * sigma), np.mean(errors <= 1.959964 * sigma)
  result = score(true, joints=shifted)
  assert (result.coverage_68, result.coverage_95) == pytest.approx(expected)
  assert 0 < expected[0] < 1


def test_each_axis_has_its_own_sigma():
  true = true_hand()
  joints = found_hand(true).joints.copy()
  joints[7, 2] += 0.005
  sigma = np.full((21, 3), 0.001)
  sigma[:, 2] = 0.01
  assert score(true, joints=joints, joint_sigma=sigma).coverage_68 == 1
  assert score(true, joints=joints, joint_sigma=sigma[:, [2, 1, 0]]).coverage_68 < 1


def test_the_hand_whose_box_overlaps_most_is_scored():
  true = true_hand()
  near = found_hand(true, box_xywh=BOX + [5, 0, 0, 0], side='right')
  far = found_hand(true, box_xywh=BOX + [60, 0, 0, 0])
  result = score_hand(true, [far, near, far])
  assert result.side == 'right' and result.side_right is False


@pytest.mark.parametrize('shift, is_found', [(81.0, True), (82.0, False)])
def test_overlap_must_be_above_a_tenth(shift, is_found):
  # IoU of equal boxes shifted by x: (100 - x) / (100 + x); 19/181 > 0.1 > 18/182.
  assert score(true_hand(), box_xywh=BOX + [shift, 0, 0, 0]).found is is_found


def test_unknown_joints_are_left_out_one_by_one():
  true = true_hand()
  joints_camera, joints_image = true.joints_camera.copy(), true.joints_image.copy()
  joints_camera[8], joints_image[9] = math.nan, [math.nan, 3]
  true = true._replace(joints_camera=joints_camera, joints_image=joints_image)
  joints, pixels = found_hand(true).joints.copy(), np.nan_to_num(joints_image)
  joints[8] += 7  # what is not known is no error
  pixels[9] += 500
  result = score(true, joints=joints, joints_image=pixels)
  assert result.pa_mpjpe_mm == pytest.approx(0, abs=1e-9)
  assert result.mpjpe_mm == pytest.approx(0, abs=1e-9)
  assert result.error_2d_of_box == 0 and result.coverage_68 == 1
  joints[7] += [0.02, 0, 0]
  assert score(true, joints=joints, joints_image=pixels).mpjpe_mm == pytest.approx(1)  # 20 known


def test_without_the_wrist_what_is_relative_to_it_is_undefined():
  joints_camera = true_hand().joints_camera.copy()
  joints_camera[0] = math.nan
  result = score(true_hand(joints_camera=joints_camera))
  assert result.pa_mpjpe_mm == pytest.approx(0, abs=1e-9)
  assert (result.mpjpe_mm, result.coverage_68, result.coverage_95) == (None, None, None)


@pytest.mark.parametrize(
  'known, has_aligned, has_plain', [(0, 0, 0), (1, 0, 0), (2, 0, 1), (3, 1, 1)]
)
def test_too_few_joints_leave_figures_undefined(known, has_aligned, has_plain):
  joints_camera = true_hand().joints_camera.copy()
  joints_camera[known:] = math.nan
  result = score(true_hand(joints_camera=joints_camera))
  assert (result.pa_mpjpe_mm is not None) == has_aligned
  assert (result.mpjpe_mm is not None) == has_plain
  assert (result.coverage_95 is not None) == has_plain
  assert result.found and result.error_2d_of_box == 0


@pytest.mark.parametrize('known', [0, 1])
def test_no_box_of_keypoints_no_image_error(known):
  joints_image = true_hand().joints_image.copy()
  joints_image[known:] = math.nan
  true = true_hand(joints_image=joints_image)
  assert score(true, joints_image=np.zeros((21, 2))).error_2d_of_box is None


def test_a_hand_collapsed_to_a_point_has_no_coverage():
  result = score(true_hand(), joints=np.zeros((21, 3)))
  assert result.coverage_68 is None and result.mpjpe_mm > 1


def test_summary_of_three_entries():
  scores = [
    HandScore('a', True, 'left', True, 4.0, 10.0, 0.02, 0.5, 0.9, 3.0),
    HandScore('b', False),
    HandScore('c', True, 'left', False, 9.0, None, 0.04, None, None, 2.0),
    HandScore('d', True, 'right', True, 5.0, 20.0, None, 0.7, 1.0, 4.0),
  ]
  result = photo_scores(scores)
  assert list(result) == KEYS
  assert (result['photos'], result['found']) == (4, 3)
  assert result['side_right'] == pytest.approx(2 / 3)
  assert result['pa_mpjpe_mm'] == pytest.approx(6) and result['pa_mpjpe_mm_median'] == 5
  assert result['mpjpe_mm'] == 15 and result['error_2d_of_box'] == pytest.approx(0.03)
  assert result['coverage_68'] == pytest.approx(0.6)
  assert result['coverage_95'] == pytest.approx(0.95)
  # Ranks of sigma 2 1 3, of error 1 3 2: 1 - 6 (1 + 4 + 1) / (3 * 8).
  assert result['spearman_photos'] == pytest.approx(-0.5)
  assert result['per_photo'][0] == {
    'image': 'a',
    'found': True,
    'side': 'left',
    'pa_mpjpe_mm': 4.0,
    'sigma_mm': 3.0,
  }
  assert result['per_photo'][1] == {
    'image': 'b',
    'found': False,
    'side': None,
    'pa_mpjpe_mm': None,
    'sigma_mm': None,
  }


@pytest.mark.parametrize(
  'scores', [[], [HandScore('a', False)], [HandScore('a', True, 'left', True)]]
)
def test_undefined_figures_are_null_in_json(scores):
  text = json.dumps(photo_scores(scores), allow_nan=False)
  result = json.loads(text)
  undefined = set(KEYS) - {'photos', 'found', 'uncertainty', 'per_photo'}
  if scores and scores[0].found:
    undefined.remove('side_right')
    assert result['side_right'] == 1
  assert all(result[key] is None for key in undefined)
  assert list(result['uncertainty']) == ['root_relative', 'aligned']
  for figures in result['uncertainty'].values():
    numbers = {key: value for key, value in figures.items() if value is not None}
    assert numbers == {'photos': 0, 'coordinates': 0, 'ence_bins': 10}
  assert result['photos'] == len(scores) == len(result['per_photo'])


def test_rank_correlation_needs_two_hands_that_differ():
  def of(*pairs):
    return photo_scores(
      [HandScore('a', True, pa_mpjpe_mm=error, sigma_mm=sigma) for sigma, error in pairs]
    )['spearman_photos']

  assert of((1.0, 2.0)) is None
  assert of((1.0, 2.0), (1.0, 3.0)) is None
  assert of((1.0, 2.0), (2.0, 2.0)) is None
  assert of((1.0, 2.0), (2.0, 3.0)) == pytest.approx(1)
  assert of((1.0, 2.0), (2.0, 3.0), (3.0, None)) == pytest.approx(1)


def test_scores_of_real_shapes_survive_json():
  scores = [score(true_hand()), score_hand(true_hand(), [])]
  result = photo_scores(scores)
  assert json.loads(json.dumps(result, allow_nan=False)) == result


# Uncertainty.


def noisy_hands(count=12, seed=5):
  """Entries and hands whose joints are off by some millimetres, with sigmas of their own."""
  rng = np.random.default_rng(seed)
  pairs = []
  for number in range(count):
    joints = made_up_joints(number)
    true = true_hand(joints_camera=joints)
    found = joints - joints[0] + rng.normal(size=(21, 3)) * 0.004 * rng.uniform(0.5, 2)
    sigma = rng.uniform(0.002, 0.008, (21, 3))
    sigma[0] = 0  # relative to the wrist
    pairs.append((true, found_hand(true, joints=found, joint_sigma=sigma)))
  return pairs


def uncertainty_of(pairs):
  return photo_scores([score_hand(true, [hand]) for true, hand in pairs])['uncertainty']


def test_uncertainty_matches_plain_loops_over_the_joints_beyond_the_wrist():
  pairs = noisy_hands()
  errors = {'root_relative': [], 'aligned': []}
  sigmas = {'root_relative': [], 'aligned': []}
  for true, hand in pairs:
    aligned = procrustes_align(hand.joints, true.joints_camera)
    grown = np.linalg.norm(aligned[3] - aligned[8]) / np.linalg.norm(
      hand.joints[3] - hand.joints[8]
    )
    for joint in range(1, 21):
      offset = (
        hand.joints[joint] - hand.joints[0] - (true.joints_camera[joint] - true.joints_camera[0])
      )
      errors['root_relative'] += list(1000 * offset)
      sigmas['root_relative'] += list(1000 * hand.joint_sigma[joint])
      errors['aligned'] += list(1000 * (aligned[joint] - true.joints_camera[joint]))
      size = 1000 * grown * np.sqrt(np.mean(hand.joint_sigma[joint] ** 2))
      sigmas['aligned'] += [size] * 3
  for frame, figures in uncertainty_of(pairs).items():
    error, sigma = np.array(errors[frame]), np.array(sigmas[frame])
    assert figures['coordinates'] == len(error) == 12 * 60
    assert figures['mean_squared_z'] == pytest.approx(np.mean((error / sigma) ** 2))
    assert figures['nll'] == pytest.approx(-scipy.stats.norm.logpdf(error, scale=sigma).mean())
    assert figures['coverage_95'] == pytest.approx(np.mean(abs(error) <= 1.959964 * sigma))


def test_the_rank_correlation_of_aligned_errors_is_the_one_of_the_photos():
  pairs = noisy_hands()
  joints_camera = pairs[4][0].joints_camera.copy()
  joints_camera[[6, 7]] = math.nan
  pairs[4] = (pairs[4][0]._replace(joints_camera=joints_camera), pairs[4][1])
  scores = photo_scores([score_hand(true, [hand]) for true, hand in pairs])
  aligned = scores['uncertainty']['aligned']
  assert aligned['spearman_photos'] == pytest.approx(scores['spearman_photos'])
  low, high = aligned['spearman_photos_interval']
  assert -1 <= low < aligned['spearman_photos'] < high <= 1
  assert aligned['coordinates'] == 12 * 60 - 6
  assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_unknown_joints_and_their_sigmas_change_nothing():
  true, hand = noisy_hands(1)[0]
  joints_camera = true.joints_camera.copy()
  joints_camera[8] = math.nan
  true = true._replace(joints_camera=joints_camera)
  moved, sigma = hand.joints.copy(), hand.joint_sigma.copy()
  moved[8] += 7
  expected = uncertainty_of([(true, hand)])
  found = uncertainty_of([(true, hand._replace(joints=moved, joint_sigma=sigma))])
  assert found == expected and expected['root_relative']['coordinates'] == 57
  no_wrist = joints_camera.copy()
  no_wrist[0] = math.nan
  without = uncertainty_of([(true._replace(joints_camera=no_wrist), hand)])
  assert without['root_relative']['photos'] == 0 and without['aligned']['photos'] == 1


def test_a_hand_without_usable_sigma_is_left_out_of_uncertainty_alone():
  true, hand = noisy_hands(1)[0]
  for sigma in (0.0, math.inf):
    wrong = hand.joint_sigma.copy()
    wrong[7, 1] = sigma
    result = photo_scores([score_hand(true, [hand._replace(joint_sigma=wrong)])])
    assert result['uncertainty']['root_relative']['photos'] == 0
    assert result['uncertainty']['aligned']['photos'] == 0
    assert result['pa_mpjpe_mm'] is not None


def test_intervals_of_heavy_tails_are_those_of_students_t():
  """Sigma is 68 % of both, but 95 % of heavy tails need more sigmas than 1.96."""
  off = np.zeros((21, 3))
  off[1:, 0] = 0.0022
  sigma = np.full((21, 3), 0.001)
  normal = score(true_hand(), joints=true_hand().joints_camera + off, joint_sigma=sigma)
  heavy = score(
    true_hand(), joints=true_hand().joints_camera + off, joint_sigma=sigma, degrees_of_freedom=3.7
  )
  assert normal.coverage_68 == pytest.approx(heavy.coverage_68)
  assert heavy.coverage_95 > normal.coverage_95
  summary = photo_scores([heavy])
  assert summary['sigma_degrees_of_freedom'] == 3.7
  assert photo_scores([normal])['sigma_degrees_of_freedom'] is None
  found = [photo_scores([hand])['uncertainty']['root_relative'] for hand in (normal, heavy)]
  assert found[1]['coverage_95'] > found[0]['coverage_95'] and found[1]['nll'] < found[0]['nll']
