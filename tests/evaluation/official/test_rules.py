"""The official metrics against naive loops, hand-computed cases and the rules where they differ."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hand_jax.evaluation.official import rules as official
from hand_jax.evaluation.official.rules import BENCHMARKS, OfficialScores
from tests.reference import official as naive

SAMPLES, VERTICES = 4, 30
FREIHAND, HO3D = BENCHMARKS['freihand'], BENCHMARKS['ho3d_v2']
seeds = st.integers(0, 2**32 - 1)
quick = hypothesis.settings(max_examples=15, deadline=None)

# Every name of the two scripts' scores.txt, in their order.
MESH_NAMES = [
  *('mesh_mean3d', 'mesh_auc3d', 'mesh_al_mean3d', 'mesh_al_auc3d'),
  *('f_score_5', 'f_al_score_5', 'f_score_15', 'f_al_score_15'),
]
FREIHAND_NAMES = ['xyz_mean3d', 'xyz_auc3d', 'xyz_al_mean3d', 'xyz_al_auc3d', *MESH_NAMES]
HO3D_NAMES = [
  *('xyz_mean3d', 'xyz_auc3d', 'xyz_procrustes_al_mean3d', 'xyz_procrustes_al_auc3d'),
  *('xyz_scale_trans_al_mean3d', 'xyz_scale_trans_al_auc3d', *MESH_NAMES),
]


def make_hands(seed, noise=0.01, vertices=VERTICES):
  """Joints, vertices, and their truths: the size of hands, half a metre away, turned and scaled."""
  rng = np.random.default_rng(seed)
  place = rng.normal(size=(SAMPLES, 1, 3)) * 0.05 + [0, 0, 0.5]
  true_joints, true_vertices = (
    place + rng.normal(size=(SAMPLES, points, 3)) * 0.04 for points in (21, VERTICES)
  )
  turn = Rotation.from_rotvec(rng.normal(size=3) * 0.05).as_matrix()

  def estimate(points):
    return 1.05 * points @ turn + rng.normal(size=points.shape) * noise

  joints = estimate(true_joints)
  meshes = true_vertices if vertices == VERTICES else np.repeat(true_vertices, 2, 1)[:, :vertices]
  return joints, estimate(meshes), true_joints, true_vertices


def measure(hands, benchmark=FREIHAND):
  scores = OfficialScores(benchmark)
  scores.add(*hands)
  return scores


def assert_equal_digits(found, expected):
  """The same names and, to the sixth decimal that the scripts print, the same values."""
  assert set(found) == set(expected)
  for name, value in expected.items():
    assert found[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize('benchmark', [FREIHAND, HO3D], ids=['freihand', 'ho3d'])
@pytest.mark.parametrize('noise', [0.001, 0.01, 0.1])
def test_every_figure_equals_the_naive_loops(benchmark, noise):
  hands = make_hands(0, noise)
  expected = naive.evaluate(*hands, ho3d=benchmark is HO3D)
  assert_equal_digits(measure(hands, benchmark).scores(), expected)


@pytest.mark.parametrize('benchmark', [FREIHAND, HO3D], ids=['freihand', 'ho3d'])
def test_names_and_their_order_are_the_scripts(benchmark):
  names = FREIHAND_NAMES if benchmark is FREIHAND else HO3D_NAMES
  scores = measure(make_hands(1), benchmark).scores()
  assert sorted(scores) == sorted(names)
  lines = official.official_text(scores | {'samples': 4, 'strict': {}}).splitlines()
  assert lines[0] == f'xyz_mean3d: {scores["xyz_mean3d"]:.6f}'
  assert [line.split(':')[0] for line in lines] == names


@pytest.mark.parametrize('benchmark', [FREIHAND, HO3D], ids=['freihand', 'ho3d'])
def test_a_mirrored_prediction_aligns_officially_but_not_strictly(benchmark):
  _, _, joints, vertices = make_hands(2)
  hands = joints * [-1, 1, 1], vertices * [-1, 1, 1], joints, vertices
  scores = measure(hands, benchmark)
  assert_equal_digits(
    {name: value for name, value in scores.scores().items() if 'auc' not in name},
    {
      name: value
      for name, value in naive.evaluate(*hands, ho3d=benchmark is HO3D).items()
      if 'auc' not in name
    },
  )
  aligned = 'xyz_procrustes_al_mean3d' if benchmark is HO3D else 'xyz_al_mean3d'
  figures, strict = scores.scores(), scores.strict_scores()
  assert figures[aligned] < 1e-4 and figures['mesh_al_mean3d'] < 1e-4
  assert figures['f_al_score_5'] == 1.0
  rigid = [naive.align_rigidly(*pair) for pair in zip(joints, hands[0], strict=True)]
  assert strict['strict_xyz_al_mean3d'] == pytest.approx(naive.mean_and_auc(joints, rigid)[0])
  assert strict['strict_xyz_al_mean3d'] > 1 and strict['strict_mesh_al_mean3d'] > 1
  assert strict['strict_f_al_score_5'] < 0.5
  assert strict['strict_mirrored_xyz'] == strict['strict_mirrored_mesh'] == SAMPLES


def test_strict_figures_are_the_official_ones_where_nothing_is_mirrored():
  scores = measure(make_hands(3))
  figures, strict = scores.scores(), scores.strict_scores()
  assert strict['strict_mirrored_xyz'] == strict['strict_mirrored_mesh'] == 0
  for name in ('xyz_al_mean3d', 'xyz_al_auc3d', 'mesh_al_mean3d', 'mesh_al_auc3d'):
    assert strict[f'strict_{name}'] == pytest.approx(figures[name], abs=1e-6)
  assert strict['strict_f_al_score_5'] == figures['f_al_score_5']


def test_strict_figures_of_a_mixture_equal_naive_loops():
  joints, vertices, true_joints, true_vertices = make_hands(4)
  joints[1] *= [-1, 1, 1]
  vertices[2:] *= [1, -1, 1]
  strict = measure((joints, vertices, true_joints, true_vertices)).strict_scores()
  rigid = [naive.align_rigidly(*pair) for pair in zip(true_joints, joints, strict=True)]
  mean, area = naive.mean_and_auc(true_joints, rigid)
  assert strict['strict_xyz_al_mean3d'] == pytest.approx(mean, abs=1e-6)
  assert strict['strict_xyz_al_auc3d'] == pytest.approx(area, abs=1e-6)
  rigid = [naive.align_rigidly(*pair) for pair in zip(true_vertices, vertices, strict=True)]
  scores = [naive.f_score(*pair, 0.015) for pair in zip(true_vertices, rigid, strict=True)]
  assert strict['strict_f_al_score_15'] == pytest.approx(np.mean(scores))
  assert (strict['strict_mirrored_xyz'], strict['strict_mirrored_mesh']) == (1, 2)


@pytest.mark.parametrize('benchmark', [FREIHAND, HO3D], ids=['freihand', 'ho3d'])
def test_a_zero_predictor(benchmark):
  """As the scripts' own template predicts: everything at the camera."""
  _, _, joints, vertices = make_hands(5)
  hands = 0 * joints, 0 * vertices, joints, vertices
  figures = measure(hands, benchmark).scores()
  assert_equal_digits(figures, naive.evaluate(*hands, ho3d=benchmark is HO3D))
  to_camera = 100 * np.linalg.norm(joints, axis=-1).mean()
  to_centre = 100 * np.linalg.norm(joints - joints.mean(1, keepdims=True), axis=-1).mean()
  assert figures['xyz_mean3d'] == pytest.approx(to_camera)
  if benchmark is HO3D:
    assert figures['xyz_procrustes_al_mean3d'] == pytest.approx(to_centre)
    # The predicted bone has no length: every joint goes to the wrist.
    to_wrist = 100 * np.linalg.norm(joints - joints[:, :1], axis=-1).mean()
    assert figures['xyz_scale_trans_al_mean3d'] == pytest.approx(to_wrist)
  else:
    assert figures['xyz_al_mean3d'] == pytest.approx(to_centre)


def test_scale_and_translation_by_hand():
  target = np.zeros((1, 21, 3))
  target[0, 4] = [0, 0.1, 0]
  predicted = np.full((1, 21, 3), 2.0)
  predicted[0, 4] = [2, 2, 2.05]  # half as long, in another direction
  predicted[0, 7] = [2.01, 2, 2]
  aligned = official.align_scale_translation(predicted, target + 0.3)
  np.testing.assert_allclose(aligned[0, 0], [0.3, 0.3, 0.3])
  np.testing.assert_allclose(aligned[0, 4], [0.3, 0.3, 0.4])
  np.testing.assert_allclose(aligned[0, 7], [0.32, 0.3, 0.3])
  # Not by joint 4 of the standard order, the thumb's tip.
  assert HO3D.joint_order[4] == 9


def test_bones_without_length_are_not_divided_by():
  joints, _, truth, _ = make_hands(6)
  joints[0, 4] = joints[0, 0]
  truth[1, 4] = truth[1, 0]
  aligned = official.align_scale_translation(joints, truth)
  expected = [naive.align_by_bone(*pair) for pair in zip(truth, joints, strict=True)]
  assert np.isfinite(aligned).all()
  np.testing.assert_allclose(aligned, expected, atol=1e-12)
  np.testing.assert_allclose(aligned[1], np.broadcast_to(truth[1, 0], (21, 3)))


@pytest.mark.parametrize('benchmark', [FREIHAND, HO3D], ids=['freihand', 'ho3d'])
@pytest.mark.parametrize('vertices', [VERTICES - 9, VERTICES + 11])
def test_a_mesh_of_another_size_follows_its_joints(benchmark, vertices):
  hands = make_hands(7, vertices=vertices)
  scores = measure(hands, benchmark)
  figures = scores.scores()
  assert_equal_digits(figures, naive.evaluate(*hands, ho3d=benchmark is HO3D))
  for name in ('mesh_mean3d', 'mesh_auc3d', 'mesh_al_mean3d', 'mesh_al_auc3d'):
    assert figures[name] == -1
  assert figures['f_score_15'] > 0
  strict = scores.strict_scores()
  assert strict['strict_mesh_al_mean3d'] == strict['strict_f_al_score_5'] == -1
  assert 'mesh' not in scores.curves() and 'xyz' in scores.curves()


def test_an_error_equal_to_a_threshold_is_within_it():
  """PCK counts errors <= t, at every one of the 100 thresholds."""
  for index in (0, 1, 37, 98, 99):
    errors = official.PointErrors()
    predicted = np.zeros((1, 1, 3))
    predicted[..., 0] = official.THRESHOLDS_M[index]
    errors.add(predicted, np.zeros((1, 1, 3)))
    curve = errors.curves()[0]
    assert curve[index] == 1 and (index == 0 or curve[index - 1] == 0)
    steps = 99 - index
    assert errors.auc() == pytest.approx(steps / 99 + (0.5 / 99 if index else 0))


def test_thresholds_are_a_hundred_from_zero_to_fifty_millimetres():
  assert len(official.THRESHOLDS_M) == 100
  assert official.THRESHOLDS_M[0] == 0 and official.THRESHOLDS_M[-1] == 0.05
  np.testing.assert_allclose(np.diff(official.THRESHOLDS_M), 0.05 / 99)


def test_mean_and_area_by_hand():
  """Two points of two samples: errors 0 and 10 mm, 60 and 60 mm."""
  errors = official.PointErrors()
  target = np.zeros((2, 2, 3))
  predicted = target.copy()
  predicted[1, 0, 2] = 0.01
  predicted[:, 1, 1] = 0.06
  errors.add(predicted, target)
  assert errors.mean_m() == pytest.approx((0.005 + 0.06) / 2)
  # 10 mm lie between the thresholds 19 and 20: 79 whole steps after it and half of one.
  assert errors.auc() == pytest.approx((0.5 + 0.5 * (79.5 / 99)) / 2)


def test_the_f_score_counts_what_is_strictly_nearer():
  """A vertex at exactly the threshold does not count, one a little nearer does."""
  target = np.zeros((1, 1, 3))
  for threshold, expected in ((0.005, [0, 1]), (0.015, [0, 0])):
    predicted = np.array([[[threshold, 0, 0]]])
    np.testing.assert_array_equal(official.vertex_f_scores(predicted, target), [expected])
    nearer = np.array([[[np.nextafter(threshold, 0), 0, 0]]])
    expected = [1, 1] if threshold == 0.005 else [0, 1]
    np.testing.assert_array_equal(official.vertex_f_scores(nearer, target), [expected])


def test_the_f_score_is_strict_both_ways():
  one, two = np.zeros((1, 1, 3)), np.array([[[0.0, 0, 0], [0.005, 0, 0]]])
  for predicted, target in ((one, two), (two, one)):
    np.testing.assert_allclose(official.vertex_f_scores(predicted, target), [[2 / 3, 1]])


def test_the_f_score_by_hand():
  target = np.array([[[0.0, 0, 0], [0.1, 0, 0]]])
  predicted = np.array([[[0.004, 0, 0], [0.108, 0, 0], [0.5, 0, 0], [0.6, 0, 0]]])
  # 5 mm: a quarter of the prediction, half of the target; 15 mm: a half, and all.
  expected = [[2 * 0.25 * 0.5 / 0.75, 2 * 0.5 * 1 / 1.5]]
  np.testing.assert_allclose(official.vertex_f_scores(predicted, target), expected)


@quick
@hypothesis.given(seeds, st.floats(0.001, 0.03))
def test_f_scores_match_plain_loops(seed, noise):
  _, vertices, _, truth = make_hands(seed, noise, vertices=VERTICES + 3)
  expected = [
    [naive.f_score(t, p, threshold) for threshold in (0.005, 0.015)]
    for t, p in zip(truth, vertices, strict=True)
  ]
  np.testing.assert_allclose(official.vertex_f_scores(vertices, truth), expected)


@quick
@hypothesis.given(seeds)
def test_figures_do_not_depend_on_how_samples_are_grouped(seed):
  hands = make_hands(seed)
  together, apart = OfficialScores(HO3D), OfficialScores(HO3D)
  together.add(*hands)
  for rows in ([2], [0, 3], [1]):
    apart.add(*(points[rows] for points in hands))
  assert apart.samples == together.samples == SAMPLES
  for one, other in (
    (together.scores(), apart.scores()),
    (together.strict_scores(), apart.strict_scores()),
  ):
    assert one == pytest.approx(other, abs=1e-12)
  for name, curve in together.curves().items():
    np.testing.assert_allclose(curve, apart.curves()[name])


@quick
@hypothesis.given(seeds, st.floats(0.2, 5))
def test_aligned_figures_do_not_see_the_predictions_frame(seed, scale):
  joints, vertices, true_joints, true_vertices = make_hands(seed)
  turn = Rotation.random(random_state=seed).as_matrix() * [-1, 1, 1]
  moved = [scale * points @ turn + 0.2 for points in (joints, vertices)]
  plain = measure((joints, vertices, true_joints, true_vertices)).scores()
  other = measure((*moved, true_joints, true_vertices)).scores()
  # The scripts add 1e-8 to each norm.
  assert other['xyz_al_mean3d'] == pytest.approx(plain['xyz_al_mean3d'], rel=1e-5)
  assert other['mesh_al_mean3d'] == pytest.approx(plain['mesh_al_mean3d'], rel=1e-5)


def test_a_curve_has_the_area_of_its_figure():
  scores = measure(make_hands(8), HO3D)
  figures = scores.scores() | scores.strict_scores()
  curves = scores.curves()
  assert set(curves) == {name.removesuffix('_auc3d') for name in figures if 'auc3d' in name}
  for name, curve in curves.items():
    area = np.trapezoid(curve, official.THRESHOLDS_M) / 0.05
    assert area == pytest.approx(figures[f'{name}_auc3d'])


def test_nothing_measured_and_numbers_that_are_none_are_named():
  with pytest.raises(ValueError, match='no sample to measure'):
    OfficialScores(FREIHAND).scores()
  joints, vertices, *truth = make_hands(9)
  joints[1, 2, 0] = np.nan
  with pytest.raises(ValueError, match='predicted: expected finite'):
    measure((joints, vertices, *truth))


def test_single_precision_is_measured_in_double():
  hands = [points.astype(np.float32) for points in make_hands(10)]
  expected = measure([points.astype(np.float64) for points in hands]).scores()
  assert measure(hands).scores() == expected
