"""Which poses and meshes the splits of synthetic hands have, and labels that stay exact."""

import jax.numpy as jnp
import numpy as np
import pytest

from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.synthetic import hands as synthetic
from hand_jax.synthetic.scene import HANDS, SPLITS, hands_of_split
from hand_jax.types import HandParameters

SIZE = 48


def posed(model, hand):
  """The vertices of an example's own parameters on a model, about the wrist joint B V."""
  parameters = HandParameters(
    *(jnp.asarray(a) for a in (hand.example.global_orient, hand.hand_pose, hand.betas)),
    jnp.zeros(3),
  )
  vertices = mano_forward(model, parameters).vertices
  return np.asarray(vertices - regress_joints(model, vertices)[:1])


def root_vertices(hand):
  return hand.example.vertices_camera - hand.example.joints_camera[:1]


def test_splits_pose_their_hands_as_they_say():
  asked = {split: [hands_of_split(split, hands) for hands in HANDS] for split in SPLITS}
  chosen = list(HANDS)
  assert asked == {
    'train': chosen,
    'validation': chosen,
    'test': chosen,
    'test_broad': ['broad'] * 3,
    'test_mismatch': ['displaced'] * 3,
  }
  assert [name for name, kind in HANDS.items() if kind.is_displaced] == ['displaced']


@pytest.mark.slow
def test_broad_hands_differ_from_classic_ones_in_pose_and_view():
  """And in the example's name: two pictures never share one."""
  (classic,) = synthetic.render_examples(2, 'train', [4], SIZE)
  (named,) = synthetic.render_examples(2, 'train', [4], SIZE, hands='classic')
  np.testing.assert_array_equal(classic.image, named.image)
  one, other = (synthetic.render_hand(2, 'train', 4, SIZE, hands) for hands in ('classic', 'broad'))
  np.testing.assert_array_equal(one.example.image, classic.image)
  assert one.example.example_id == 'synthetic-2-train-4'
  assert other.example.example_id == 'synthetic-broad-2-train-4'
  np.testing.assert_array_equal(one.betas, other.betas)
  assert np.abs(one.example.global_orient - other.example.global_orient).max() > 0.1
  assert np.abs(one.hand_pose - other.hand_pose).max() > 0.1
  assert np.abs(one.example.image.astype(int) - other.example.image).mean() > 2


@pytest.mark.slow
@pytest.mark.parametrize('split', ['test_broad', 'test_mismatch'])
def test_splits_of_their_own_poses_do_not_depend_on_what_is_asked_for(split):
  first, second = (
    synthetic.render_examples(0, split, [3], SIZE, hands=hands)[0] for hands in ('classic', 'broad')
  )
  assert first.example_id == second.example_id == f'synthetic-0-{split}-3'
  for name, one, other in zip(first._fields, first, second, strict=True):
    np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.slow
def test_displaced_hands_to_train_on_are_others_than_those_to_measure_on():
  """They share the distribution but no random number, and their names say what they are."""
  train, test = (
    synthetic.render_hand(0, split, 3, SIZE, 'displaced') for split in ('train', 'test_mismatch')
  )
  assert train.example.example_id == 'synthetic-displaced-0-train-3'
  assert test.example.example_id == 'synthetic-0-test_mismatch-3'
  sizes = [np.sqrt(np.mean(np.sum(hand.displacement**2, 1))) for hand in (train, test)]
  assert all(1.0e-3 <= size <= 1.8e-3 for size in sizes)
  assert np.abs(train.displacement - test.displacement).max() > 1e-3
  assert np.abs(train.betas - test.betas).max() > 0.1


@pytest.mark.parametrize(
  ('split', 'is_displaced'), [('test_broad', False), ('test_mismatch', True), ('train', True)]
)
def test_labels_are_those_of_the_mesh_that_is_shown(split, is_displaced, model):
  for index in range(3):
    hand = synthetic.render_hand(1, split, index, SIZE, hands='displaced')
    example = hand.example
    assert (hand.displacement is not None) == is_displaced
    shown = model
    if is_displaced:
      shown = model._replace(v_template=model.v_template + hand.displacement)
      # The hand model alone misses the mesh by about as much as was displaced.
      gap = np.linalg.norm(root_vertices(hand) - posed(model, hand), axis=1)
      assert 0.0007 < np.sqrt(np.mean(gap**2)) < 0.004
    np.testing.assert_allclose(root_vertices(hand), posed(shown, hand), atol=3e-6)
    joints = regress_joints(model, jnp.asarray(example.vertices_camera))
    np.testing.assert_allclose(joints, example.joints_camera, atol=2e-6)
    pixels = example.joints_camera.astype(np.float64) @ example.intrinsics.T
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], example.joints_image, atol=1e-3)


def test_wrong_requests_are_named():
  with pytest.raises(ValueError, match="hands is 'all', expected one of classic, broad, displaced"):
    synthetic.render_examples(0, 'train', [0], SIZE, hands='all')
  with pytest.raises(ValueError, match=r"split is 'broad', expected one of train, .*test_mismatch"):
    synthetic.render_examples(0, 'broad', [0], SIZE)
