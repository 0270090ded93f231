"""The mean hand: generalised Procrustes means, what goes in, and its place beside a network."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from hand_jax.evaluation import evaluate, mean_hand, metrics
from hand_jax.evaluation.results_text import results_table
from hand_jax.synthetic.hands import render_examples
from tests.made_up_split import (
  EXAMPLES,
  JOINTS,
  VERTICES,
  Rotation,
  World,
  naive_metrics,
)

seeds = st.integers(0, 2**32 - 1)


def naive_generalised_mean(shapes, rounds=200):
  """Turn every unit shape onto the mean by scipy, take the best constant again, in plain loops."""
  units = [s - s.mean(0) for s in shapes]
  size = np.sqrt(np.mean([np.sum(u**2) for u in units]))
  units = [u / np.linalg.norm(u) for u in units]
  mean = units[0]
  for _ in range(rounds):
    total = np.zeros_like(mean)
    for unit in units:
      turned = Rotation.align_vectors(mean, unit)[0].apply(unit)
      total += np.sum(turned * mean) * turned
    mean = total / np.linalg.norm(total)
  return size * mean


def test_generalised_mean_matches_plain_loops():
  shapes = World().vertices.astype(np.float64)
  np.testing.assert_allclose(
    mean_hand.generalised_procrustes_mean(shapes, tolerance=1e-12),
    naive_generalised_mean(shapes),
    atol=1e-8,
  )


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(seeds)
def test_generalised_mean_of_one_shape_moved_about_is_that_shape(seed):
  rng = np.random.default_rng(seed)
  shape = rng.normal(size=(VERTICES, 3)) * 0.05
  turned = [
    rng.uniform(0.5, 2) * shape @ turn + rng.normal(size=3)
    for turn in Rotation.random(6, random_state=rng).as_matrix()
  ]
  mean = mean_hand.generalised_procrustes_mean(np.array(turned))
  np.testing.assert_allclose(metrics.procrustes_align(mean, shape), shape, atol=1e-6)
  size = np.sqrt(np.mean([np.sum((t - t.mean(0)) ** 2) for t in turned]))
  np.testing.assert_allclose(np.linalg.norm(mean), size)


def test_generalised_mean_beats_other_constants_after_alignment():
  shapes = World().vertices.astype(np.float64)
  shapes /= np.linalg.norm(shapes - shapes.mean(1, keepdims=True), axis=(1, 2), keepdims=True)
  mean = mean_hand.generalised_procrustes_mean(shapes, tolerance=1e-10)

  def squared_error(constant):
    aligned = metrics.procrustes_align(np.broadcast_to(constant, shapes.shape), shapes)
    return np.sum((aligned - shapes) ** 2)

  best = squared_error(mean)
  rng = np.random.default_rng(0)
  for size in (1e-4, 1e-2, 1e-1):
    assert squared_error(mean + size * rng.normal(size=mean.shape)) > best
  assert squared_error(shapes[0]) > best


def test_generalised_mean_says_when_it_does_not_settle():
  with pytest.raises(ValueError, match='still moves after 1 rounds'):
    mean_hand.generalised_procrustes_mean(World().vertices, tolerance=1e-12, max_rounds=1)


def test_the_mean_hand_is_used_before_and_after_alignment():
  world = World()
  root = world.vertices.astype(np.float64) @ world.rotation
  mean = mean_hand.compute_mean_hand(root)
  assert mean.examples == EXAMPLES
  np.testing.assert_allclose(mean.vertices_root, np.mean(root, axis=0))
  results = world.evaluate(
    [world.batch([0, 1, 2]), world.batch(range(3, EXAMPLES))], mean_hand=mean
  )
  plain = [naive_metrics(mean.vertices_root, target) for target in root]
  aligned = [naive_metrics(mean.vertices_aligned, target, 'pa_') for target in root]
  for values in (plain, aligned):
    for name in values[0]:
      expected = np.mean([example[name] for example in values])
      np.testing.assert_allclose(results['mean_hand'][name], expected, rtol=1e-5, err_msg=name)


def test_root_vertices_are_mirrored_for_left_hands():
  vertices = np.array([[0.1, 0.2, 0.9], [0.0, 0.1, 1.0]], np.float32)
  joints = np.array([[0.0, 0.1, 1.0]] * JOINTS, np.float32)
  expected = np.array([[0.1, 0.1, -0.1], [0, 0, 0]])
  right = mean_hand.root_vertices(vertices, joints, 'right')
  np.testing.assert_allclose(right, expected, atol=1e-7)
  left = mean_hand.root_vertices(vertices, joints, 'left')
  np.testing.assert_allclose(left, expected * [-1, 1, 1], atol=1e-7)
  with pytest.raises(ValueError, match='there are none'):
    mean_hand.compute_mean_hand([])


@pytest.mark.slow
@pytest.mark.parametrize('hands', ['classic', 'broad', 'displaced'])
def test_synthetic_meshes_need_no_rendering(hands):
  examples = render_examples(5, 'train', range(3), 32, hands=hands)
  expected = [
    mean_hand.root_vertices(example.vertices_camera, example.joints_camera, example.side)
    for example in examples
  ]
  ours = mean_hand.rendered_root_vertices(5, 'train', 3, hands)
  # The labels are stored about the camera, up to a metre away, in single precision.
  np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_the_mean_hand_is_cached_by_what_went_in(tmp_path):
  path = tmp_path / 'deep' / 'mean.npz'
  calls = []

  def vertices():
    calls.append(1)
    return World(len(calls)).vertices.astype(np.float64)

  first = mean_hand.cached_mean_hand(path, 'first 11 of train', vertices)
  again = mean_hand.cached_mean_hand(path, 'first 11 of train', vertices)
  assert len(calls) == 1
  np.testing.assert_array_equal(again.vertices_aligned, first.vertices_aligned)
  assert again.examples == EXAMPLES
  other = mean_hand.cached_mean_hand(path, 'first 12 of train', vertices)
  assert len(calls) == 2
  assert not np.allclose(other.vertices_root, first.vertices_root)
  assert [p.name for p in path.parent.iterdir()] == ['mean.npz']


def test_the_table_shows_every_metric_and_the_gain_over_the_mean_hand():
  world = World()
  mean = mean_hand.compute_mean_hand(world.vertices.astype(np.float64) @ world.rotation)
  results = world.evaluate(mean_hand=mean)
  table = results_table(results)
  rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
  for name in evaluate.METRIC_NAMES:
    posterior, prior, baseline = (float(value) for value in rows[name][:3])
    assert posterior == pytest.approx(results['posterior'][name], abs=0.006)
    assert prior == pytest.approx(results['prior'][name], abs=0.006)
    assert baseline == pytest.approx(results['mean_hand'][name], abs=0.006)
  ours, theirs = results['posterior']['pa_mpjpe_mm'], results['mean_hand']['pa_mpjpe_mm']
  gain = float(rows['pa_mpjpe_mm'][3].rstrip('%'))
  assert gain == pytest.approx(100 * (1 - ours / theirs), abs=0.06)
  shares = results['posterior']['auc_joints'] - results['mean_hand']['auc_joints']
  assert float(rows['auc_joints'][3]) == pytest.approx(shares, abs=6e-4)
  assert f'over {EXAMPLES} examples' in table
  assert 'mean hand' not in results_table(world.evaluate())
