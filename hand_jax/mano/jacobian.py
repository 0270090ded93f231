"""The MANO layer's derivatives in closed form, much cheaper than one forward pass per parameter.

A small rotation of a joint moves every vertex that hangs on the joint. The movement is the cross
product of the rotation and a lever arm. The arm is the part of the vertex that the joint and its
descendants carry, seen from the joint. So one pass over the vertices gives the derivatives by all
16 rotations at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.geometry.precision import full_precision
from hand_jax.mano.anatomy import ANATOMICAL_AXES
from hand_jax.mano.joints import MANO_PARENTS
from hand_jax.mano.model import CHAIN_LEVELS, extended_joint_regressor
from hand_jax.types import HandParameters, ManoModel

_PARENTS = np.asarray(MANO_PARENTS, np.int32)
_JOINTS = len(_PARENTS)
# vector @ _CROSS is the matrix K of its cross product, K x = vector x x.
_CROSS = np.zeros((3, 3, 3), np.float32)
_CROSS[0, 2, 1] = _CROSS[1, 0, 2] = _CROSS[2, 1, 0] = 1
_CROSS[0, 1, 2] = _CROSS[1, 2, 0] = _CROSS[2, 0, 1] = -1
# Below this squared angle (square radians) the Taylor series is exact to float32.
_SMALL_SQUARED_ANGLE = 1e-4


def _descendants() -> np.ndarray:
  """Returns a (16, 16) matrix of 1 where the column's joint is the row's joint or below it."""
  below = np.eye(_JOINTS, dtype=np.float32)
  for joint in range(_JOINTS - 1, 0, -1):
    below[_PARENTS[joint]] += below[joint]
  return below


_BELOW = _descendants()


class MeshDerivatives(NamedTuple):
  """The vertices of a posed hand and their derivatives by the `HandParameters`."""

  vertices: Float[Array, 'vertices 3']
  """Positions in metres."""
  derivatives: Float[Array, 'vertices 3 parameters']
  """The last axis holds the 3 numbers of `global_orient`, the 45 of `hand_pose`, then the betas.

  `transl` is left out, because it moves every vertex by its own value.
  """


class _Chain(NamedTuple):
  """The rotations and positions of the joints, with their derivatives on a last axis."""

  rotations: Float[Array, '16 3 3']  # in the camera's axes
  relative: Float[Array, '16 3 3']  # rotations relative to the parents
  relative_by_angles: Float[Array, '16 3 3 3']  # their derivatives by the axis-angle numbers
  axes: Float[
    Array, '16 3 3'
  ]  # columns: rotation in camera axes per unit of each axis-angle number
  offsets: Float[Array, '16 3']  # a point x of the resting hand goes to rotation x + offset
  positions: Float[Array, '16 3']
  offsets_by_shape: Float[Array, '16 3 shapes']


@full_precision
def mano_derivatives(model: ManoModel, parameters: HandParameters) -> MeshDerivatives:
  """Poses one hand like `mano_forward`, and differentiates its vertices.

  Use `jax.vmap` for a batch.
  """
  chain = _chain(model, parameters)
  feature = (chain.relative[1:] - jnp.eye(3, dtype=chain.relative.dtype)[None]).reshape(-1)
  shaped = model.v_template + model.shapedirs @ parameters.betas + model.posedirs @ feature
  weights = model.lbs_weights
  # A vertex is the sum of its joints' shares, (vertices, 3, 16).
  moved = jnp.einsum('jab,vb->vaj', chain.rotations, shaped) + chain.offsets.T[None]
  shares = weights[:, None] * moved
  vertices = shares.sum(axis=-1)
  # The lever arm of a joint is the part of a vertex that hangs on it, seen from the joint.
  arms = shares @ _BELOW.T - (weights @ _BELOW.T)[:, None] * chain.positions.T[None]
  by_rotation = jnp.cross(chain.axes[None], arms.transpose(0, 2, 1)[..., None], axis=2)
  blended = (weights @ chain.rotations.reshape(_JOINTS, 9)).reshape(-1, 3, 3)
  posed = jnp.einsum(
    'vcjd,jde->vcje',
    model.posedirs.reshape(-1, 3, _JOINTS - 1, 9),
    chain.relative_by_angles[1:].reshape(_JOINTS - 1, 9, 3),
  ).reshape(-1, 3, 45)
  by_pose = by_rotation.transpose(0, 2, 1, 3).reshape(-1, 3, 48)
  by_shape = jnp.einsum('vj,jcs->vcs', weights, chain.offsets_by_shape)
  local = jnp.concatenate([jnp.zeros_like(posed[..., :3]), posed, model.shapedirs], axis=-1)
  turned = blended @ local
  derivatives = jnp.concatenate([by_pose, by_shape], axis=-1) + turned
  return MeshDerivatives(vertices + parameters.transl[None], derivatives)


@full_precision
def hand_frame_derivatives(
  model: ManoModel, parameters: HandParameters
) -> Float[Array, 'vertices 3 numbers']:
  """Differentiates the vertices of one hand, relative to its regressed wrist.

  The last axis holds the derivatives by anatomical angles in radians (flexion, abduction and twist
  of each joint, as in `pose_to_angles`), then those by the betas.
  """
  derivatives = mano_derivatives(model, parameters).derivatives[..., 3:]
  derivatives -= jnp.einsum('v,vcp->cp', model.joint_regressor[0], derivatives)[None]
  pose, shape = derivatives[..., :45], derivatives[..., 45:]
  axes = jnp.asarray(ANATOMICAL_AXES, pose.dtype)
  by_angle = jnp.einsum('vcjb,jab->vcja', pose.reshape(*pose.shape[:2], 15, 3), axes)
  return jnp.concatenate([by_angle.reshape(pose.shape), shape], axis=-1)


def _rotations(vectors: Float[Array, '16 3']) -> tuple[Array, Array]:
  """Converts axis-angle vectors to rotation matrices and to the derivatives of the rotations.

  The columns of a derivative are the rotation vectors per unit of each axis-angle number. The
  derivative is the left Jacobian of the rotation group, I + b K + c K^2, where K is the
  cross-product matrix. Near zero the factors come from their series.
  """
  squared = jnp.sum(vectors**2, axis=-1)
  small = squared < _SMALL_SQUARED_ANGLE
  safe = jnp.where(small, 1.0, squared)
  angle = jnp.sqrt(safe)
  sine, half_sine = jnp.sin(angle) / angle, jnp.sin(angle / 2)
  a = jnp.where(small, 1 - squared / 6, sine)
  b = jnp.where(small, 0.5 - squared / 24, 2 * half_sine**2 / safe)
  c = jnp.where(small, 1 / 6 - squared / 120, (1 - sine) / safe)
  a, b, c = (factor[:, None, None] for factor in (a, b, c))
  cross = (vectors @ _CROSS.reshape(3, 9)).reshape(-1, 3, 3)
  squared_cross = cross @ cross
  identity = jnp.eye(3, dtype=vectors.dtype)[None]
  return identity + a * cross + b * squared_cross, identity + b * cross + c * squared_cross


def _chain(model: ManoModel, parameters: HandParameters) -> _Chain:
  relative, local_axes = _rotations(
    jnp.concatenate([parameters.global_orient, parameters.hand_pose]).reshape(_JOINTS, 3)
  )
  rotations = relative
  for level in CHAIN_LEVELS:
    rotations = rotations.at[level].set(rotations[_PARENTS[level]] @ relative[level])
  identity = jnp.eye(3, dtype=relative.dtype)[None]
  parent_rotations = jnp.concatenate([identity, rotations[_PARENTS[1:]]])
  template = model.joint_regressor @ model.v_template
  components = jnp.einsum('jv,vcs->jcs', model.joint_regressor, model.shapedirs)
  rest = template + components @ parameters.betas
  # The columns of joints and bones hold the value, then the derivatives by the betas.
  columns = jnp.concatenate([rest[..., None], components], axis=-1)
  bones = jnp.concatenate([columns[:1], columns[1:] - columns[_PARENTS[1:]]])
  placed = jnp.einsum('aj,acs->jcs', _BELOW, parent_rotations @ bones)
  offsets = placed - rotations @ columns
  return _Chain(
    rotations=rotations,
    relative=relative,
    relative_by_angles=jnp.einsum('iac,jid,jce->jaed', _CROSS, local_axes, relative),
    axes=parent_rotations @ local_axes,
    offsets=offsets[..., 0],
    positions=placed[..., 0],
    offsets_by_shape=offsets[..., 1:],
  )


def posed_joints(model: ManoModel, parameters: HandParameters) -> Float[Array, '21 3']:
  """Computes the 21 joints B V of a posed hand, see `posed_joints_and_vertices`."""
  return posed_joints_and_vertices(model, parameters)[0]


@jax.custom_jvp
@full_precision
def posed_joints_and_vertices(
  model: ManoModel, parameters: HandParameters
) -> tuple[Float[Array, '21 3'], Float[Array, 'vertices 3']]:
  """Computes the 21 joints B V and the vertices of a posed hand, in metres.

  Forward-mode derivatives use the closed form. They exist for the parameters only, because the
  model counts as constant.
  """
  vertices = mano_derivatives(model, parameters).vertices
  return extended_joint_regressor(model) @ vertices, vertices


@posed_joints_and_vertices.defjvp
@full_precision
def _posed_jvp(primals, tangents):
  model, parameters = primals
  _, change = tangents
  mesh = mano_derivatives(model, parameters)
  regressor = extended_joint_regressor(model)
  numbers = jnp.concatenate([change.global_orient, change.hand_pose, change.betas])
  # The Jacobian of the joints comes first: it is small, and the same for all tangents.
  by_joints = jnp.einsum('kv,vcp->kcp', regressor, mesh.derivatives)
  moved = by_joints @ numbers, mesh.derivatives @ numbers
  values = regressor @ mesh.vertices, mesh.vertices
  return values, tuple(part + change.transl[None] for part in moved)
