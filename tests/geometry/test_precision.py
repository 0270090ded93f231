"""Geometry keeps float32's digits where the default rounds the factors of products to bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_jax.gaussian import linear_map_gaussian, linearize_gaussian
from hand_jax.geometry import cameras, rotations
from hand_jax.geometry.precision import full_precision
from hand_jax.mano import anatomy, jacobian
from hand_jax.mano.joints import MANO_TO_STANDARD
from hand_jax.mano.model import extended_joint_regressor, mano_forward, pca_to_pose, regress_joints
from hand_jax.propagation import hand_gaussians
from hand_jax.types import DiagonalGaussian, HandCamera, HandParameters
from tests.reference.lbs import reference_mano
from tests.toy_mano import make_toy_mano
from tests.tpu_products import HIGHEST, product_precisions, run_as_on_tpu

TOY = make_toy_mano()
# Metres: float32's rounding of coordinates of order one, a five-hundredth of what bfloat16 leaves.
CLOSE_M = 2e-6


def normal(*shape, seed=0, scale=1.0):
  return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


HAND = HandParameters(*(normal(n, seed=n, scale=0.5) for n in (3, 45, 10, 3)))
VERTICES = normal(len(TOY.v_template), 3, scale=0.05)
ROTATION = Rotation.random(random_state=1).as_matrix()
CAMERA = HandCamera(
  jnp.asarray(cameras.rotation_to_stored(ROTATION), jnp.float32),
  jnp.asarray([0.1, -0.2, 0.5]),
  jnp.asarray([0.7]),
)
GAUSSIAN = DiagonalGaussian(VERTICES, normal(*VERTICES.shape, seed=2))
REGRESSOR = extended_joint_regressor(TOY)


def gaussians(convention, gaussian, camera):
  """All moments that follow from vertices and a camera."""
  vector = cameras.camera_to_vector(camera)
  return hand_gaussians(gaussian, vector, REGRESSOR, convention=convention, length_unit_m=0.01)


def tangents(hand):
  """Joints and their derivatives along one direction."""
  return jax.jvp(functools.partial(jacobian.posed_joints, TOY), (hand,), (hand,))


FUNCTIONS = {
  'mano_forward': (functools.partial(mano_forward, TOY), HAND),
  'regress_joints': (functools.partial(regress_joints, TOY), VERTICES),
  'pca_to_pose': (functools.partial(pca_to_pose, TOY), normal(2, 12)),
  'mano_derivatives': (functools.partial(jacobian.mano_derivatives, TOY), HAND),
  'posed_joints': (tangents, HAND),
  'pose_to_angles': (anatomy.pose_to_angles, HAND.hand_pose),
  'angles_to_pose': (anatomy.angles_to_pose, normal(15, 3)),
  'axis_angle_to_matrix': (rotations.axis_angle_to_matrix, normal(5, 3)),
  'rotation_6d_to_matrix': (rotations.rotation_6d_to_matrix, normal(5, 6)),
  'hand_to_root': (cameras.hand_to_root, CAMERA, VERTICES),
  'project_points': (cameras.project_points, CAMERA, VERTICES),
  'project_points_affine': (cameras.project_points_affine, CAMERA, VERTICES),
  'vertices_in_crop': (
    lambda camera, vertices: cameras.vertices_in_crop(camera, vertices, 224),
    *(CAMERA, VERTICES),
  ),
  'orthonormality_penalty': (cameras.orthonormality_penalty, CAMERA),
  'transform_points': (cameras.transform_points, normal(2, 3, 3), normal(2, 21, 2)),
  'hand_gaussians, exact': (functools.partial(gaussians, 'exact'), GAUSSIAN, CAMERA),
  'hand_gaussians, paper': (functools.partial(gaussians, 'paper'), GAUSSIAN, CAMERA),
  'linear_map_gaussian': (functools.partial(linear_map_gaussian, REGRESSOR), GAUSSIAN),
  'linearize_gaussian': (
    lambda gaussian: linearize_gaussian(rotations.rotation_6d_to_matrix, gaussian),
    DiagonalGaussian(normal(6), normal(6, seed=3)),
  ),
}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_every_product_of_the_geometry_is_at_full_precision(name):
  function, *args = FUNCTIONS[name]
  assert all(each == HIGHEST for each in product_precisions(function, *args))

  def total(*args):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(function(*args)) if leaf.dtype.kind == 'f')

  argnums = tuple(range(len(args)))
  slopes = product_precisions(jax.grad(total, argnums, allow_int=True), *args)
  assert all(each == HIGHEST for each in slopes)


def test_the_mesh_is_the_naive_loops_one_where_products_round():
  """The whole way to the projected joints, against loops in float64."""
  mesh = run_as_on_tpu(functools.partial(mano_forward, TOY), HAND)
  vertices, joints = reference_mano(TOY, HAND)
  np.testing.assert_allclose(mesh.vertices, vertices, atol=CLOSE_M)
  chain = np.concatenate([joints, vertices[np.asarray(TOY.fingertip_vertices)]])
  np.testing.assert_allclose(mesh.joints, chain[list(MANO_TO_STANDARD)], atol=CLOSE_M)
  regressed = np.asarray(REGRESSOR, np.float64) @ vertices
  found = run_as_on_tpu(functools.partial(regress_joints, TOY), jnp.asarray(vertices, jnp.float32))
  np.testing.assert_allclose(found, regressed, atol=CLOSE_M)
  projected = 7.0 * (regressed @ ROTATION)[:, :2] + [[0.1, -0.2]]
  found = run_as_on_tpu(cameras.project_points, CAMERA, jnp.asarray(regressed, jnp.float32))
  np.testing.assert_allclose(found, projected, atol=1e-5)


def test_without_full_precision_the_joints_are_off_by_what_was_measured_on_a_tpu():
  """The stand-in for the accelerator sees what a CPU cannot."""
  joints = lambda vertices: jnp.einsum('kv,vc->kc', REGRESSOR, vertices)  # noqa: E731
  exact = np.asarray(REGRESSOR, np.float64) @ np.asarray(VERTICES, np.float64)
  rounded = np.abs(run_as_on_tpu(joints, VERTICES) - exact).max()
  assert 5e-5 < rounded < 2e-3
  assert product_precisions(joints, VERTICES) != [HIGHEST]
  full = full_precision(joints)
  assert product_precisions(full, VERTICES) == [HIGHEST]
  assert np.abs(run_as_on_tpu(full, VERTICES) - exact).max() < CLOSE_M


def test_a_function_keeps_its_name_and_the_default_of_others():
  assert mano_forward.__name__ == 'mano_forward' and mano_forward.__doc__
  with jax.default_matmul_precision('bfloat16'):
    mano_forward(TOY, HAND)
    assert jax.config.jax_default_matmul_precision == 'bfloat16'
