"""Propagates a Gaussian over vertices to Gaussians over 3D joints and their projections."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.gaussian import Convention, linear_map_gaussian, scale_gaussian
from hand_jax.geometry.cameras import (
  camera_from_vector,
  camera_rotation,
  project_points,
  scale_per_metre,
)
from hand_jax.low_rank import marginals
from hand_jax.types import (
  CorrelatedGaussians,
  DiagonalGaussian,
  HandCamera,
  HandGaussians,
  LowRankGaussian,
)

# log(scale^2) is part of the log-variance of projected joints. Smaller scales than this count as
# this one there, in crop units per metre: such a hand covers a twentieth of the crop.
MIN_SCALE_PER_M = 0.5


def hand_gaussians(
  vertices: DiagonalGaussian | LowRankGaussian,
  camera: Float[Array, '10'],
  extended_joint_regressor: Float[Array, 'joints vertices'],
  *,
  convention: Convention,
  length_unit_m: float,
) -> HandGaussians:
  """Propagates the Gaussian over one hand's vertices to its joints and their projections.

  In `exact`, joints have the variances (B∘B) v and their projections s^2 (Var J)(R∘R). In `paper`,
  joints have the sigma B sigma, as eq. 13 is printed. The printed sigma of the projection (eq. 17)
  is undefined (errata 2 and 3). It is replaced by sqrt(s^2 (B sigma)(R∘R)), where B sigma, in the
  length unit, takes the place of a variance.

  Common causes of the vertices are common causes of all joints and projections. They pass through
  exactly.

  Args:
    vertices: metres, hand frame. Its origin is the wrist, so the joints are B V.
    camera: the ten stored numbers of a `HandCamera`.
    extended_joint_regressor: the matrix B, with rows for the fingertips.
    convention: 'exact' or 'paper', see docs/derivations.md.
    length_unit_m: the length unit in metres, which only `paper` uses.

  Returns:
    The vertices as given, the joints in metres in the hand frame, and the projected joints in
    normalised crop coordinates.

  Raises:
    ValueError: the convention is unknown, or it is 'paper' and the vertices have common causes.
  """
  if isinstance(vertices, LowRankGaussian):
    if convention != 'exact':
      raise ValueError(
        f"convention={convention!r} has no form for vertices with common causes: take 'exact'."
      )
    return _correlated_gaussians(vertices, camera, extended_joint_regressor)
  hand_camera = camera_from_vector(camera)
  if convention == 'exact':
    joints = linear_map_gaussian(extended_joint_regressor, vertices)
    spread, unit = joints.log_variance, 1.0
  elif convention == 'paper':
    joints = paper_joint_gaussian(extended_joint_regressor, vertices)
    # This is ln sigma in the length unit, because the paper puts a sigma where a variance belongs.
    spread, unit = scale_gaussian(joints, 1 / length_unit_m).log_variance / 2, length_unit_m
  else:
    raise ValueError(f"convention: expected 'paper' or 'exact', got {convention!r}.")
  joints_normalized = DiagonalGaussian(
    project_points(hand_camera, joints.mean),
    projected_log_variance(hand_camera, spread, unit),
  )
  return HandGaussians(vertices, joints, joints_normalized)


def _correlated_gaussians(
  vertices: LowRankGaussian,
  camera: Float[Array, '10'],
  extended_joint_regressor: Float[Array, 'joints vertices'],
) -> HandGaussians:
  """Propagates own variances as in `exact`, and each common cause as the displacement it is."""
  own = hand_gaussians(
    DiagonalGaussian(vertices.mean, vertices.own_log_variance),
    camera,
    extended_joint_regressor,
    convention='exact',
    length_unit_m=1.0,
  )
  hand_camera = camera_from_vector(camera)
  joint_factor = jnp.einsum(
    'kv,vdc->kdc', extended_joint_regressor, vertices.factor, precision='highest'
  )
  turned = jnp.einsum(
    'kdc,de->kec', joint_factor, camera_rotation(hand_camera)[:, :2], precision='highest'
  )
  # The sign of the scale does not count in a covariance.
  scale = jnp.maximum(jnp.abs(scale_per_metre(hand_camera)), MIN_SCALE_PER_M)
  correlated = CorrelatedGaussians(
    vertices,
    LowRankGaussian(*own.joints, joint_factor),
    LowRankGaussian(*own.joints_normalized, turned * scale[:, None, None]),
  )
  return HandGaussians(
    vertices=marginals(correlated.vertices),
    joints=marginals(correlated.joints),
    joints_normalized=marginals(correlated.joints_normalized),
    correlated=correlated,
  )


def paper_joint_gaussian(
  matrix: Float[Array, 'joints vertices'], vertices: DiagonalGaussian
) -> DiagonalGaussian:
  """Computes the joints as eq. 13 is printed: mean B mu, standard deviation B sigma.

  The rows of B must be non-negative. A weighted sum of standard deviations is the deviation that
  fully correlated vertices would give, an upper bound on that of independent ones (erratum 2).
  """
  # Factor out the largest sigma, as linear_map_gaussian does.
  largest = jax.lax.stop_gradient(vertices.log_variance.max())
  sigma = jnp.matmul(matrix, jnp.exp(0.5 * (vertices.log_variance - largest)), precision='highest')
  mean = jnp.matmul(matrix, vertices.mean, precision='highest')
  return DiagonalGaussian(mean, 2 * jnp.log(sigma) + largest)


def projected_log_variance(
  camera: HandCamera, log_variance: Float[Array, 'joints 3'], length_unit_m: float
) -> Float[Array, 'joints 2']:
  """Computes ln of s^2 Var (R∘R), the log-variance of the first two coordinates of s x R + T.

  The coordinates of x count as independent. T does not change a variance (erratum 3).

  Args:
    camera: one weak-perspective camera.
    log_variance: of x in the hand frame, in `length_unit_m` squared.
    length_unit_m: the unit of x in metres.
  """
  rotation_squared = camera_rotation(camera)[:, :2] ** 2
  largest = jax.lax.stop_gradient(log_variance.max())
  turned = jnp.matmul(jnp.exp(log_variance - largest), rotation_squared, precision='highest')
  scale_squared = jnp.maximum(scale_per_metre(camera) ** 2, MIN_SCALE_PER_M**2)
  log_scale = jnp.log(scale_squared) + 2 * float(np.log(length_unit_m))
  return jnp.log(turned) + largest + log_scale[None]
