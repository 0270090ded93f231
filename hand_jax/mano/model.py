"""The MANO layer for one hand: blend shapes, kinematic chain and linear blend skinning.

Use `jax.vmap` for a batch. The model is that of Romero, Tzionas and Black, "Embodied Hands",
SIGGRAPH Asia 2017. The chain consists of five fingers of three joints, so it is evaluated in three
levels of five joints at once. Rotations and translations are kept apart instead of in 4 x 4
matrices.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.geometry.precision import full_precision
from hand_jax.geometry.rotations import axis_angle_to_matrix, mirror_axis_angle
from hand_jax.mano.joints import MANO_TO_STANDARD
from hand_jax.types import HandMesh, HandParameters, ManoModel

# The rows are the chain joints at one, two and three steps from the wrist. The parents of row k
# are row k - 1.
CHAIN_LEVELS = np.asarray([[1, 4, 7, 10, 13], [2, 5, 8, 11, 14], [3, 6, 9, 12, 15]], np.int32)
# These indices gather [wrist, level 1, level 2, level 3] back into MANO's order.
_FROM_LEVELS = np.argsort(np.concatenate([[0], CHAIN_LEVELS.reshape(-1)])).astype(np.int32)
_STANDARD = np.asarray(MANO_TO_STANDARD, np.int32)


@full_precision
def mano_forward(model: ManoModel, parameters: HandParameters) -> HandMesh:
  """Poses one hand and returns its vertices and the 21 standard joints in metres.

  `hand_pose` is axis-angle relative to zero pose. For a data set that leaves the mean pose out, add
  `model.hands_mean` first. `global_orient` turns the hand about the wrist joint. The joints are the
  16 of the chain and the 5 fingertip vertices. Use `jax.vmap(mano_forward, (None, 0))` for a batch.

  Raises:
    ValueError: a parameter's shape is not that of one hand of this model.
  """
  _check_shapes(model, parameters)
  betas = jnp.asarray(parameters.betas)
  pose = jnp.concatenate([parameters.global_orient, parameters.hand_pose]).reshape(16, 3)
  rotations = axis_angle_to_matrix(pose)
  rest_joints = _rest_joints(model, betas)
  pose_feature = (rotations[1:] - jnp.eye(3, dtype=rotations.dtype)[None]).reshape(-1)
  shaped = _blend_shapes(model, betas, pose_feature)
  chain_rotations, chain_joints = _kinematic_chain(rotations, rest_joints)
  offsets = chain_joints - jnp.einsum('jab,jb->ja', chain_rotations, rest_joints)
  vertices = _skin(model.lbs_weights, chain_rotations, offsets, shaped)
  joints = jnp.concatenate([chain_joints, vertices[model.fingertip_vertices]])[_STANDARD]
  transl = parameters.transl[None]
  return HandMesh(vertices + transl, joints + transl, model.faces)


def _check_shapes(model: ManoModel, parameters: HandParameters) -> None:
  expected = ((3,), (45,), (model.shapedirs.shape[-1],), (3,))
  for name, value, shape in zip(HandParameters._fields, parameters, expected, strict=True):
    if value.shape != shape:
      raise ValueError(
        f'{name} has shape {value.shape}, expected {shape}: mano_forward poses one hand,'
        ' use jax.vmap for a batch and pca_to_pose for PCA coefficients'
      )


def _blend_shapes(
  model: ManoModel, betas: Float[Array, 'shapes'], pose_feature: Float[Array, '135']
) -> Float[Array, 'vertices 3']:
  """Adds shape and pose displacements to the template.

  They are computed as two matrix products, which stay plain products over a batch.
  """
  count = model.v_template.size
  displacements = betas @ model.shapedirs.reshape(count, -1).T
  displacements = displacements + pose_feature @ model.posedirs.reshape(count, -1).T
  return model.v_template + displacements.reshape(-1, 3)


def _rest_joints(model: ManoModel, betas: Float[Array, 'shapes']) -> Float[Array, '16 3']:
  """Computes the 16 joints of the shaped, unposed hand.

  The regressor is applied to the template and the shape components before the betas are. That
  product does not depend on the hand, so a batch computes it once.
  """
  template = model.joint_regressor @ model.v_template
  components = jnp.einsum('jv,vcs->jcs', model.joint_regressor, model.shapedirs)
  return template + jnp.einsum('jcs,s->jc', components, betas)


def _kinematic_chain(
  rotations: Float[Array, '16 3 3'], rest_joints: Float[Array, '16 3']
) -> tuple[Float[Array, '16 3 3'], Float[Array, '16 3']]:
  """Computes world rotations and positions of joints from rotations relative to their parents."""
  fingers = CHAIN_LEVELS.shape[1]
  rotation = jnp.broadcast_to(rotations[:1], (fingers, 3, 3))
  position = rest = jnp.broadcast_to(rest_joints[:1], (fingers, 3))
  all_rotations, all_positions = [rotations[:1]], [rest_joints[:1]]
  for level in CHAIN_LEVELS:
    bone = rest_joints[level] - rest
    position = position + jnp.einsum('jab,jb->ja', rotation, bone)
    rotation = jnp.einsum('jab,jbc->jac', rotation, rotations[level])
    rest = rest_joints[level]
    all_rotations.append(rotation)
    all_positions.append(position)
  return jnp.concatenate(all_rotations)[_FROM_LEVELS], jnp.concatenate(all_positions)[_FROM_LEVELS]


def _skin(
  weights: Float[Array, 'vertices 16'],
  rotations: Float[Array, '16 3 3'],
  offsets: Float[Array, '16 3'],
  points: Float[Array, 'vertices 3'],
) -> Float[Array, 'vertices 3']:
  """Moves each vertex by the weighted mean of the joints' transforms (linear blend skinning)."""
  transforms = jnp.concatenate([rotations, offsets[..., None]], axis=-1)
  # The components come first, (12, V), so that the sums below run over contiguous vertices.
  blended = (transforms.transpose(1, 2, 0).reshape(12, 16) @ weights.T).reshape(3, 4, -1)
  x, y, z = points.T
  moved = blended[:, 0] * x[None] + blended[:, 1] * y[None] + blended[:, 2] * z[None]
  return (moved + blended[:, 3]).T


def extended_joint_regressor(model: ManoModel) -> Float[Array, '21 vertices']:
  """Builds the paper's B, which regresses the 21 standard joints from the vertices.

  B holds the 16 rows of the model's regressor and 5 one-hot rows of fingertips, in standard order.
  """
  count = model.v_template.shape[0]
  tips = model.fingertip_vertices[:, None] == jnp.arange(count)[None]
  rows = jnp.concatenate([model.joint_regressor, tips.astype(model.joint_regressor.dtype)])
  return rows[_STANDARD]


@full_precision
def regress_joints(
  model: ManoModel, vertices: Float[Array, '*batch vertices 3']
) -> Float[Array, '*batch 21 3']:
  """Computes B V: the 21 standard joints as linear functions of the vertices.

  The joints are in the frame of the vertices.
  """
  return jnp.einsum('kv,...vc->...kc', extended_joint_regressor(model), vertices)


@full_precision
def pca_to_pose(
  model: ManoModel, coefficients: Float[Array, '*batch components']
) -> Float[Array, '*batch 45']:
  """Converts leading principal components to a hand pose (axis-angle relative to zero pose).

  Zero coefficients give the model's mean pose, `hands_mean`.
  """
  components = model.hands_components[: coefficients.shape[-1]]
  offset = coefficients @ components
  return offset + model.hands_mean.reshape((1,) * (offset.ndim - 1) + (45,))


def mirror_parameters(parameters: HandParameters) -> HandParameters:
  """Mirrors parameters for use with the mirrored model.

  The mirrored model and these parameters give the original mesh mirrored by x -> -x.
  """
  hand_pose = parameters.hand_pose
  joints = hand_pose.reshape(hand_pose.shape[:-1] + (15, 3))
  transl = parameters.transl
  return HandParameters(
    mirror_axis_angle(parameters.global_orient),
    mirror_axis_angle(joints).reshape(hand_pose.shape),
    parameters.betas,
    jnp.concatenate([-transl[..., :1], transl[..., 1:]], axis=-1),
  )


def mirror_mano_model(model: ManoModel) -> ManoModel:
  """Mirrors a model into the same hand of the other side, by x -> -x.

  The vertices of each face change their order, so that normals still point outwards.
  """
  flip = jnp.asarray([-1.0, 1.0, 1.0])
  # A mirrored rotation is M R M, so entry (a, b) of R - I changes by the signs of a and b.
  feature_signs = jnp.tile((flip[:, None] * flip[None]).reshape(-1), 15)
  return model._replace(
    v_template=model.v_template * flip[None],
    shapedirs=model.shapedirs * flip[None, :, None],
    posedirs=model.posedirs * flip[None, :, None] * feature_signs[None, None],
    faces=model.faces[:, ::-1],
    hands_mean=mirror_axis_angle(model.hands_mean.reshape(15, 3)).reshape(-1),
    hands_components=mirror_axis_angle(model.hands_components.reshape(45, 15, 3)).reshape(45, 45),
  )
