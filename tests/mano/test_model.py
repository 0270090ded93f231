"""The MANO layer on the toy model and the free hand: reference, symmetries, gradients, batching."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hand_jax.geometry.rotations import axis_angle_to_matrix
from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.joints import JOINT_NAMES, MANO_PARENTS, MANO_TO_STANDARD
from hand_jax.mano.model import (
  CHAIN_LEVELS,
  extended_joint_regressor,
  mano_forward,
  mirror_mano_model,
  mirror_parameters,
  pca_to_pose,
  regress_joints,
)
from hand_jax.types import HandMesh, HandParameters
from tests.reference.lbs import reference_mano
from tests.toy_mano import make_toy_mano

TOY = make_toy_mano()
MIRROR = np.asarray([-1.0, 1, 1], np.float32)
forward = jax.jit(mano_forward)


def parameters(seed: int, scale: float = 0.5) -> HandParameters:
  rng = np.random.default_rng(seed)
  return HandParameters(
    *(jnp.asarray(rng.normal(size=n) * scale, jnp.float32) for n in (3, 45, 10, 3))
  )


ZERO = parameters(0, 0.0)


@pytest.mark.parametrize('model', [TOY, load_mano_model()], ids=['toy', 'free'])
def test_zero_pose_is_the_template(model):
  mesh = forward(model, ZERO)
  np.testing.assert_allclose(mesh.vertices, model.v_template, atol=1e-7)
  np.testing.assert_array_equal(mesh.faces, model.faces)
  np.testing.assert_allclose(mesh.joints, regress_joints(model, model.v_template), atol=1e-7)


@pytest.mark.parametrize('seed', range(4))
def test_vertices_and_joints_are_those_of_the_naive_loops(seed):
  hand = parameters(seed)
  vertices, joints = reference_mano(TOY, hand)
  mesh = forward(TOY, hand)
  # Metres; coordinates of order one carry float32's 1e-7.
  np.testing.assert_allclose(mesh.vertices, vertices, atol=2e-6)
  chain = np.concatenate([joints, vertices[np.asarray(TOY.fingertip_vertices)]])
  np.testing.assert_allclose(mesh.joints, chain[list(MANO_TO_STANDARD)], atol=2e-6)


def test_global_orientation_turns_the_mesh_about_the_wrist_joint():
  hand = parameters(1)._replace(transl=jnp.zeros(3))
  still = forward(TOY, hand._replace(global_orient=jnp.zeros(3)))
  turned = forward(TOY, hand)
  rotation = np.asarray(axis_angle_to_matrix(hand.global_orient))
  wrist = np.asarray(still.joints[0])
  np.testing.assert_allclose(turned.joints[0], wrist, atol=1e-7)
  expected = (np.asarray(still.vertices) - wrist) @ rotation.T + wrist
  np.testing.assert_allclose(turned.vertices, expected, atol=1e-6)


def test_translation_moves_vertices_and_joints_alike():
  hand = parameters(2)
  moved = forward(TOY, hand)
  still = forward(TOY, hand._replace(transl=jnp.zeros(3)))
  np.testing.assert_allclose(
    moved.vertices - still.vertices, np.tile(hand.transl, (778, 1)), atol=1e-6
  )
  np.testing.assert_allclose(moved.joints - still.joints, np.tile(hand.transl, (21, 1)), atol=1e-6)


def test_a_joint_moves_only_what_hangs_on_it():
  model = load_mano_model()  # without pose blend shapes, which may reach further
  bent = forward(model, ZERO._replace(hand_pose=jnp.zeros(45).at[3 * 1 + 2].set(1.0)))  # index PIP
  moved = np.linalg.norm(bent.joints - forward(model, ZERO).joints, axis=1) > 1e-6
  assert [JOINT_NAMES[i] for i in np.flatnonzero(moved)] == ['index_dip', 'index_tip']


def test_chain_levels_follow_the_parents():
  assert sorted(CHAIN_LEVELS.reshape(-1)) == list(range(1, 16))
  levels = np.concatenate([np.zeros((1, 5), int), CHAIN_LEVELS])
  for parents, children in itertools.pairwise(levels):
    assert [MANO_PARENTS[child] for child in children] == list(parents)


def test_a_batch_is_its_hands_one_by_one():
  hands = [parameters(seed) for seed in range(3)]
  batch = HandParameters(*map(jnp.stack, zip(*hands, strict=True)))
  meshes = jax.jit(jax.vmap(mano_forward, (None, 0), HandMesh(0, 0, None)))(TOY, batch)
  assert meshes.vertices.shape == (3, 778, 3)
  for i, hand in enumerate(hands):
    np.testing.assert_allclose(meshes.vertices[i], forward(TOY, hand).vertices, atol=2e-6)


def test_a_batch_without_vmap_is_refused_by_name():
  batch = jax.tree.map(lambda value: value[None], ZERO)
  with pytest.raises(ValueError, match=r'global_orient has shape \(1, 3\), expected \(3,\)'):
    mano_forward(TOY, batch)
  with pytest.raises(ValueError, match='betas has shape'):
    mano_forward(TOY, ZERO._replace(betas=jnp.zeros(9)))


def _probe(hand: HandParameters):
  """A few numbers that depend on every parameter."""
  mesh = mano_forward(TOY, hand)
  mixing = np.random.default_rng(0).normal(size=(778, 3)).astype(np.float32)
  return jnp.sum(jnp.sin(30 * mesh.vertices) * mixing) + jnp.sum(mesh.joints**2)


@pytest.mark.slow
def test_gradients_are_finite_at_zero_rotation():
  gradient = jax.jit(jax.grad(_probe))(ZERO)
  for name, value in gradient._asdict().items():
    assert bool(jnp.all(jnp.isfinite(value))), name
    assert float(jnp.abs(value).max()) > 0, name


@pytest.mark.slow
@pytest.mark.parametrize('scale', [0.0, 0.3])
def test_gradients_are_those_of_finite_differences(scale):
  with jax.enable_x64(True):
    hand = jax.tree.map(lambda value: value.astype(jnp.float64), parameters(5, scale))
    check_grads(jax.jit(_probe), (hand,), order=1, modes=['rev'], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('seed', range(2))
def test_mirrored_parameters_on_the_mirrored_model_give_the_mirrored_mesh(seed):
  hand = parameters(seed)
  right, left = forward(TOY, hand), forward(mirror_mano_model(TOY), mirror_parameters(hand))
  np.testing.assert_allclose(left.vertices, right.vertices * MIRROR[None], atol=1e-6)
  np.testing.assert_allclose(left.joints, right.joints * MIRROR[None], atol=1e-6)
  np.testing.assert_array_equal(left.faces, right.faces[:, ::-1])


def test_the_left_free_hand_is_the_mirror_of_the_right_one():
  hand = parameters(0)
  right = forward(load_mano_model(), hand)
  left = forward(load_mano_model(side='left'), mirror_parameters(hand))
  np.testing.assert_allclose(left.vertices, right.vertices * MIRROR[None], atol=1e-6)
  np.testing.assert_allclose(left.joints, right.joints * MIRROR[None], atol=1e-6)


def test_mirroring_twice_changes_nothing():
  again = mirror_mano_model(mirror_mano_model(TOY))
  for name, value in again._asdict().items():
    np.testing.assert_array_equal(value, getattr(TOY, name), err_msg=name)


def test_mirrored_pca_coefficients_are_the_same_numbers():
  coefficients = jnp.asarray(np.random.default_rng(0).normal(size=45), jnp.float32)
  right = ZERO._replace(hand_pose=pca_to_pose(TOY, coefficients))
  left = pca_to_pose(mirror_mano_model(TOY), coefficients)
  np.testing.assert_allclose(left, mirror_parameters(right).hand_pose, atol=1e-6)


def test_pca_uses_the_leading_components_and_starts_from_the_mean():
  np.testing.assert_array_equal(pca_to_pose(TOY, jnp.zeros(6)), TOY.hands_mean)
  coefficients = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
  expected = np.asarray(TOY.hands_mean).copy()[None].repeat(4, 0)
  for k in range(6):
    expected += coefficients[:, k : k + 1] * np.asarray(TOY.hands_components[k])[None]
  np.testing.assert_allclose(pca_to_pose(TOY, jnp.asarray(coefficients)), expected, atol=1e-6)


def test_the_extended_regressor_is_linear_and_ends_in_fingertips():
  matrix = np.asarray(extended_joint_regressor(TOY))
  assert matrix.shape == (21, 778)
  np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
  vertices = np.random.default_rng(0).normal(size=(2, 778, 3)).astype(np.float32)
  joints = np.asarray(regress_joints(TOY, jnp.asarray(vertices)))
  np.testing.assert_allclose(joints, matrix[None] @ vertices, atol=1e-5)
  tips = [i for i, name in enumerate(JOINT_NAMES) if name.endswith('tip')]
  np.testing.assert_array_equal(joints[:, tips], vertices[:, np.asarray(TOY.fingertip_vertices)])
