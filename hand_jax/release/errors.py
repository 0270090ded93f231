"""Measures the errors of each joint's evidence on renders, and fits the prior over poses."""

import jax
import numpy as np
from jaxtyping import Float

from hand_jax.fitting.evidence import PointErrors
from hand_jax.fitting.hand_unknowns import HandPrior
from hand_jax.mano.anatomy import pose_to_angles
from hand_jax.mano.gestures import POSE_SAMPLERS
from hand_jax.models.joint_heads import JointEstimate
from hand_jax.release.heads import aligned_errors
from hand_jax.release.readings import ReadHands

# No angle gets a smaller deviation, even if the sampler hardly moves it.
_SMALLEST_SIGMA_DEG = 2.0


def error_shapes(read: ReadHands, heads: JointEstimate) -> PointErrors:
  """Computes each joint's error relative to the mean over joints, for each kind of evidence.

  Errors are root mean squares. 3D points are compared after the best rotation, shift and scale,
  because the fit finds these as well.

  Args:
    read: crops that the joint heads were not trained on.
    heads: the heads' estimates for these crops.
  """
  offsets = read.joints_camera - read.joints_camera.mean(axis=1, keepdims=True)
  pixels = read.joints_crop - read.joints_crop.mean(axis=1, keepdims=True)
  metres_per_pixel = np.sqrt(np.sum(offsets[..., :2] ** 2, (1, 2)) / np.sum(pixels**2, (1, 2)))
  image = (read.landmarks[..., :2] - read.joints_crop) * metres_per_pixel[:, None, None]
  return PointErrors(
    image=_shape(image),
    world=_shape(aligned_errors(read.world, read.joints_camera)),
    heads=_shape(aligned_errors(np.asarray(heads.joints), read.joints_camera)),
  )


def _shape(errors: Float[np.ndarray, 'hands 21 axes']) -> Float[np.ndarray, '21']:
  squared = np.mean(errors**2, axis=(0, 2))
  return np.sqrt(squared / squared.mean())


def pose_prior(hands: str, count: int, seed: int, shape_sigma: float) -> HandPrior:
  """Fits one Gaussian to the joint angles of poses that a sampler draws.

  Args:
    hands: name of the sampler (`POSE_SAMPLERS`).
    count: the number of poses to draw.
    seed: seed of the poses.
    shape_sigma: the deviation of each shape number, which is part of the prior.
  """
  sample = jax.jit(jax.vmap(lambda key: pose_to_angles(POSE_SAMPLERS[hands](key)).reshape(45)))
  angles = np.asarray(sample(jax.random.split(jax.random.key(seed), count)), np.float64)
  covariance = np.cov(angles.T) + _SMALLEST_SIGMA_DEG**2 * np.eye(45)
  factor = np.linalg.cholesky(covariance)
  return HandPrior(
    pose_mean=angles.mean(axis=0).astype(np.float32),
    pose_factor=factor.astype(np.float32),
    shape_sigma=np.asarray(shape_sigma, np.float32),
  )
