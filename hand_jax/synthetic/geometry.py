"""Poses the free hand for rendering: forearm, normals, ambient occlusion and the lamp's shadow.

All of it runs on the device (JAX), one example at a time, so that an image cannot depend on its
neighbours.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hand_jax.geometry.precision import full_precision
from hand_jax.geometry.rotations import axis_angle_to_matrix
from hand_jax.mano.gestures import POSE_SAMPLERS
from hand_jax.mano.joints import BONES
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.rendering.rasterize import rasterize
from hand_jax.rendering.surfaces import area_normals
from hand_jax.types import ArrayLike, HandParameters, ManoModel

SUPERSAMPLING = 2
SHADOW_SIZE = 64
_SHADOW_BIAS_M = 0.004
# The forearm bends over its first centimetres, as wrists do.
_BEND_LENGTH_M = 0.035
_SLEEVE_EDGE_M = 0.008


class PosedHand(NamedTuple):
  """A posed hand and its forearm, in metres.

  The wrist is at the origin and the axes are those of the camera (root frame).
  """

  hand_pose: Float[Array, '45']
  """Axis-angle relative to zero pose, radians."""
  vertices: Float[Array, 'vertices 3']
  """Vertices of the hand."""
  joints: Float[Array, '21 3']
  """The 21 joints B V."""
  surface: Float[Array, 'surface 3']
  """Vertices of the hand, followed by those of the forearm."""
  normals: Float[Array, 'surface 3']
  """Unit normals of the surface."""
  openness: Float[Array, 'surface']
  """Ambient occlusion. A vertex with 1 sees its whole hemisphere."""


class ArmPose(NamedTuple):
  """The pose and the sleeve of a forearm in one image."""

  bend: Float[ArrayLike, '3']
  """Axis-angle of the forearm relative to the hand, radians."""
  length: Float[ArrayLike, '']
  """Factor on the forearm's length."""
  sleeve_start: Float[ArrayLike, '']
  """The x of the rest pose where cloth begins, metres."""
  sleeve_girth: Float[ArrayLike, '']
  """Factor on the arm's thickness in the sleeve."""


class ForearmShape(NamedTuple):
  """The forearm at rest, and the rim of the hand that it continues."""

  vertices: Float[Array, 'forearm 3']
  """Vertices of the forearm, metres."""
  rim: Int[Array, 'rim']
  """Ids of the hand vertices on the rim."""
  faces: Int[Array, 'faces 3']
  """Faces of hand and forearm together."""


@functools.partial(jax.jit, static_argnames='hands')
def pose_hand(
  model: ManoModel,
  forearm: ForearmShape,
  pose_seed: Int[Array, ''],
  betas: Float[Array, '10'],
  global_orient: Float[Array, '3'],
  arm: ArmPose,
  hands: str = 'classic',
) -> PosedHand:
  """Samples a hand pose from its seed and poses hand and forearm, with the wrist joint B V at 0.

  Args:
    model: the hand model.
    forearm: the forearm at rest.
    pose_seed: seed of the pose.
    betas: shape coefficients.
    global_orient: axis-angle from hand frame to camera axes, radians.
    arm: pose and sleeve of the forearm.
    hands: name of the sampler in `POSE_SAMPLERS`.

  Returns:
    The posed hand in the root frame.
  """
  hand_pose = POSE_SAMPLERS[hands](jax.random.key(pose_seed))
  parameters = HandParameters(global_orient, hand_pose, betas, jnp.zeros(3))
  vertices = mano_forward(model, parameters).vertices
  root = regress_joints(model, vertices)[:1]
  vertices = vertices - root
  joints = regress_joints(model, vertices)
  rotation = axis_angle_to_matrix(global_orient)
  arm_vertices = _pose_forearm(model, forearm, betas, rotation, arm) - root
  surface = jnp.concatenate([vertices, arm_vertices])
  normals = area_normals(surface, forearm.faces)
  # The rounding of `vertex_normals` would change some pixels of the data set by a grey level.
  normals = normals / (jnp.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)
  openness = _openness(surface, normals, joints)
  return PosedHand(hand_pose, vertices, joints, surface, normals, openness)


@full_precision
def _pose_forearm(model, forearm, betas, rotation, arm):
  """Poses the forearm, which continues the shaped hand.

  It follows the hand's rim, bends at the wrist and turns with the hand.
  """
  shaped = model.v_template + jnp.einsum('vcs,s->vc', model.shapedirs, betas)
  wrist = model.joint_regressor[:1] @ shaped
  old_rim, new_rim = model.v_template[forearm.rim], shaped[forearm.rim]
  old_center, new_center = old_rim.mean(0, keepdims=True), new_rim.mean(0, keepdims=True)
  girth = jnp.std(new_rim, axis=0).sum() / jnp.std(old_rim, axis=0).sum()
  local = (forearm.vertices - old_center) * girth
  cloth = jnp.clip((forearm.vertices[:, 0] - arm.sleeve_start) / _SLEEVE_EDGE_M, 0, 1)
  wide = 1 + (arm.sleeve_girth - 1) * cloth
  local = local * jnp.stack([jnp.full_like(wide, arm.length), wide, wide], axis=-1)
  rest = local + new_center - wrist
  share = jnp.clip((rest[:, 0] - new_rim[:, 0].mean() + wrist[0, 0]) / _BEND_LENGTH_M, 0, 1)
  angles = (share * share * (3 - 2 * share))[:, None] * arm.bend[None]
  bent = jnp.einsum('vab,vb->va', axis_angle_to_matrix(angles), rest)
  return bent @ rotation.T + wrist


def _occluders() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Lists spheres that stand for the hand in ambient occlusion.

  Returns their parent joints, child joints, shares of the way from parent to child, and radii.
  """
  spheres = []
  for parent, child in BONES:
    if parent == 0:
      spheres += [(0, child, share, 0.012) for share in (0.3, 0.55, 0.8)]
    else:
      spheres += [(parent, child, share, 0.0075) for share in (0.15, 0.5, 0.85)]
  parent, child, share, radius = (np.asarray(column) for column in zip(*spheres, strict=True))
  return parent, child, share, radius


def _openness(surface, normals, joints):
  """Computes one minus the cosine-weighted share of the hemisphere that the spheres hide.

  A sphere of radius r at distance d and angle a from the normal hides max(0, cos a) (r / d)^2.
  """
  parent, child, share, radius = _occluders()
  weight = jnp.asarray(share, surface.dtype)[:, None]
  centers = joints[parent] * (1 - weight) + joints[child] * weight
  # Coordinates are separate, because arrays with a last axis of three are slow on a CPU.
  offsets = [centers[None, :, k] - surface[:, None, k] for k in range(3)]
  inverse = jax.lax.rsqrt(sum(offset**2 for offset in offsets) + 1e-8)
  cosine = sum(offset * normals[:, None, k] for k, offset in enumerate(offsets)) * inverse
  ratio = jnp.minimum(jnp.asarray(radius, surface.dtype)[None] * inverse, 1.0)
  hidden = jnp.maximum(cosine - 0.1, 0.0) * ratio**2
  return jnp.exp(-1.1 * jnp.sum(hidden, axis=1))


@functools.partial(jax.jit, static_argnames='size')
def seen_faces(
  surface_image: Float[Array, 'surface 3'], faces: Int[Array, 'faces 3'], size: int
) -> Int[Array, 'fine fine']:
  """Finds the face that each sample of the supersampled picture sees.

  Args:
    surface_image: pixels of the image, and depth.
    faces: faces of hand and forearm.
    size: side of the image, pixels.

  Returns:
    Face indices, -1 for none, on a grid `SUPERSAMPLING` times as fine as the image.
  """
  fine = SUPERSAMPLING * size
  scale = jnp.asarray([SUPERSAMPLING, SUPERSAMPLING, 1.0], surface_image.dtype)[None]
  return rasterize((surface_image * scale)[None], faces, fine, fine).face_index[0]


@jax.jit
def lamp_visibility(
  surface_lamp: Float[Array, 'surface 3'], faces: Int[Array, 'faces 3']
) -> Float[Array, 'surface']:
  """Computes the share of the lamp that each vertex sees, by a depth buffer.

  `surface_lamp` is the orthographic view of the lamp: pixels of its buffer, and depth in metres.
  """
  depth = rasterize(surface_lamp[None], faces, SHADOW_SIZE, SHADOW_SIZE).depth[0]
  return _lamp_visibility(surface_lamp, depth)


def _lamp_visibility(surface_lamp, depth):
  """Computes for each vertex the share of 3 x 3 texels of the depth buffer that do not hide it."""
  column, row = jnp.floor(surface_lamp[:, 0]), jnp.floor(surface_lamp[:, 1])
  shifts = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
  limit = SHADOW_SIZE - 1
  columns = jnp.clip(column[:, None] + shifts[None, :, 0], 0, limit).astype(jnp.int32)
  rows = jnp.clip(row[:, None] + shifts[None, :, 1], 0, limit).astype(jnp.int32)
  lit = depth[rows, columns] > surface_lamp[:, 2:] - _SHADOW_BIAS_M
  return lit.astype(surface_lamp.dtype).mean(axis=1)
