"""From a Gaussian over vertices to Gaussians over 3D joints and their projections."""

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
from hand_jax.types import DiagonalGaussian, HandCamera, HandGaussians

# A camera's scale is the square root of a factor inside a logarithm. Below this many crop units per
# metre (a hand of one twentieth of the crop) variances stay as if it were this one.
MIN_SCALE_PER_M = 0.5


def hand_gaussians(
  vertices: DiagonalGaussian,
  camera: Float[Array, '10'],
  extended_joint_regressor: Float[Array, 'joints vertices'],
  *,
  convention: Convention,
  length_unit_m: float,
) -> HandGaussians:
  """Vertices, joints and projected joints of one hand as Gaussians (batch by vmap).

  `vertices` (V, 3) in metres in the hand frame, whose origin is the wrist, so joints are B V;
  `camera` the ten stored numbers; the projection in normalised crop coordinates.

  `exact`: variances (B∘B) v and s^2 (Var J)(R∘R). `paper`: eq. 13 to the letter, where the joints'
  sigma is B sigma; the letter of the projected sigma (eq. 17) is undefined (errata 2 and 3), and
  sqrt(s^2 (B sigma)(R∘R)) stands for it, with B sigma in `length_unit_m` taking a variance's place.
  """
  hand_camera = camera_from_vector(camera)
  if convention == 'exact':
    joints = linear_map_gaussian(extended_joint_regressor, vertices)
    spread, unit = joints.log_variance, 1.0
  elif convention == 'paper':
    joints = paper_joint_gaussian(extended_joint_regressor, vertices)
    # ln sigma in the length unit: the paper puts a sigma where a variance belongs.
    spread, unit = scale_gaussian(joints, 1 / length_unit_m).log_variance / 2, length_unit_m
  else:
    raise ValueError(f"convention: expected 'paper' or 'exact', got {convention!r}.")
  joints_normalized = DiagonalGaussian(
    project_points(hand_camera, joints.mean),
    projected_log_variance(hand_camera, spread, unit),
  )
  return HandGaussians(vertices, joints, joints_normalized)


def paper_joint_gaussian(
  matrix: Float[Array, 'joints vertices'], vertices: DiagonalGaussian
) -> DiagonalGaussian:
  """Eq. 13 to the letter: mean B mu, standard deviation B sigma.

  Needs rows of B that are non-negative; a sum of standard deviations is the spread of fully
  correlated vertices, an upper bound on the independent ones' (erratum 2).
  """
  # Largest sigma factored out, as in linear_map_gaussian.
  largest = jax.lax.stop_gradient(vertices.log_variance.max())
  sigma = jnp.matmul(matrix, jnp.exp(0.5 * (vertices.log_variance - largest)), precision='highest')
  mean = jnp.matmul(matrix, vertices.mean, precision='highest')
  return DiagonalGaussian(mean, 2 * jnp.log(sigma) + largest)


def projected_log_variance(
  camera: HandCamera, log_variance: Float[Array, 'joints 3'], length_unit_m: float
) -> Float[Array, 'joints 2']:
  """ln of s^2 Var (R∘R), first two coordinates, for variances in `length_unit_m` squared.

  The moments of s x R + T for independent coordinates of x: T drops out (erratum 3).
  """
  rotation_squared = camera_rotation(camera)[:, :2] ** 2
  largest = jax.lax.stop_gradient(log_variance.max())
  turned = jnp.matmul(jnp.exp(log_variance - largest), rotation_squared, precision='highest')
  scale_squared = jnp.maximum(scale_per_metre(camera) ** 2, MIN_SCALE_PER_M**2)
  log_scale = jnp.log(scale_squared) + 2 * float(np.log(length_unit_m))
  return jnp.log(turned) + largest + log_scale[None]
