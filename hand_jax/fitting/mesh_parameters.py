"""Finds MANO parameters for a mesh that was not made from parameters, as the posterior's mean."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.fitting.levenberg_marquardt import Residuals, minimize
from hand_jax.geometry.precision import full_precision
from hand_jax.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from hand_jax.mano.model import extended_joint_regressor, mano_forward
from hand_jax.types import HandParameters, ManoModel

_MM_PER_M = 1000.0
_STEPS = 20
# A vertex at a distance of this many metres weighs as much as a change of a joint by `_POSE_SIGMA`
# (radians), or of a shape number by `_SHAPE_SIGMA`. The mesh thus decides almost alone, and numbers
# that it does not determine, such as the twist of a finger, stay near the start.
_VERTEX_SIGMA = 0.001
_POSE_SIGMA, _SHAPE_SIGMA = 1.0, 2.0
# Blocks beyond this many standard deviations count linearly. Only meshes of untrained networks are
# so far off.
_ROBUST_LIMIT = 1e4


def fit_parameters(
  model: ManoModel,
  vertices: Float[np.ndarray, 'vertices 3'],
  start: HandParameters | None = None,
) -> tuple[HandParameters, float]:
  """Finds the MANO parameters whose mesh is the nearest to a right hand's.

  Args:
    model: the right hand's model.
    vertices: metres, in any axes and with the wrist at any place.
    start: the parameters that the search begins with, such as the prior-net's. None begins with the
      mean pose, turned and moved to the mesh.

  Returns:
    The parameters, and the mean distance of their vertices from the given ones in mm.
  """
  if start is None:
    start = _rough_parameters(model, np.asarray(vertices, np.float64))
  start = HandParameters(*(jnp.asarray(value, jnp.float32) for value in start))
  parameters, error = _fit(model, jnp.asarray(vertices, jnp.float32), start)
  return HandParameters(*(np.asarray(value) for value in parameters)), _MM_PER_M * float(error)


@jax.jit
@full_precision
def _fit(
  model: ManoModel, vertices: Float[Array, 'vertices 3'], start: HandParameters
) -> tuple[HandParameters, Float[Array, '']]:
  def parameters_at(unknowns: Array) -> HandParameters:
    turn, pose, shape, shift = jnp.split(unknowns, [3, 48, 48 + len(start.betas)])
    turned = axis_angle_to_matrix(turn) @ axis_angle_to_matrix(start.global_orient)
    return HandParameters(
      matrix_to_axis_angle(turned),
      start.hand_pose + _POSE_SIGMA * pose,
      start.betas + _SHAPE_SIGMA * shape,
      start.transl + shift,
    )

  def residual_fn(unknowns: Array) -> Residuals:
    offsets = mano_forward(model, parameters_at(unknowns)).vertices - vertices
    return Residuals((offsets / _VERTEX_SIGMA,), unknowns)

  unknowns = jnp.zeros(3 + 45 + len(start.betas) + 3)
  parameters = parameters_at(minimize(residual_fn, unknowns, _STEPS, _ROBUST_LIMIT).unknowns)
  offsets = mano_forward(model, parameters).vertices - vertices
  return parameters, jnp.mean(jnp.linalg.norm(offsets, axis=-1))


def _rough_parameters(model: ManoModel, vertices: np.ndarray) -> HandParameters:
  """Turns and moves the hand in its mean pose to the mesh (Kabsch 1976)."""
  pose = np.asarray(model.hands_mean, np.float64).reshape(-1)
  betas = np.zeros(np.asarray(model.shapedirs).shape[-1])
  zero = HandParameters(
    *(jnp.asarray(value, jnp.float32) for value in (np.zeros(3), pose, betas, np.zeros(3)))
  )
  rest = np.asarray(mano_forward(model, zero).vertices, np.float64)
  wrist = np.asarray(extended_joint_regressor(model), np.float64)[0] @ rest
  middle_rest, middle = rest.mean(axis=0), vertices.mean(axis=0)
  left, _, right = np.linalg.svd((vertices - middle[None]).T @ (rest - middle_rest[None]))
  sign = np.linalg.det(left @ right)
  rotation = (left * np.array([[1, 1, sign]])) @ right
  # MANO turns the hand about its own wrist joint, which is near the regressed one.
  shift = middle + rotation @ (wrist - middle_rest) - wrist
  orient = np.asarray(matrix_to_axis_angle(jnp.asarray(rotation, jnp.float32)))
  return HandParameters(orient, pose, betas, shift)
