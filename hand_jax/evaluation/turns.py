"""Averages estimates over turns of the crop, which is test-time augmentation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from hand_jax.evaluation.evaluate import EstimateFn
from hand_jax.evaluation.official.rules import NO_AUGMENTATION
from hand_jax.geometry.cameras import (
  camera_from_vector,
  camera_to_vector,
  crop_affine,
  rotation_in_plane,
)
from hand_jax.geometry.warping import warp_image
from hand_jax.types import DiagonalGaussian, HandBatch, HandEstimate, HandGaussians

# Training turns its crops by about as much, so that no turn is new to a network.
WIDEST_TURN_DEGREES = 20.0


def turn_angles(turns: int) -> Float[np.ndarray, ' turns']:
  """Spaces turns evenly from -`WIDEST_TURN_DEGREES` to +`WIDEST_TURN_DEGREES`, in radians.

  With one turn the angle is 0.

  Raises:
    ValueError: there is no turn at all.
  """
  if turns < 1:
    raise ValueError(f'turns should be 1 (the crop as it is) or more, got {turns}.')
  widest = np.deg2rad(WIDEST_TURN_DEGREES)
  return np.linspace(-widest, widest, turns) if turns > 1 else np.zeros(1)


def augmentation_name(turns: int) -> str:
  """Names the augmentation as tables call it."""
  if turns == 1:
    return NO_AUGMENTATION
  return f'mean over {turns} turns of the crop within {WIDEST_TURN_DEGREES:g} degrees'


def averaged_over_turns(estimate_fn: EstimateFn, turns: int) -> EstimateFn:
  """Makes a function that averages `estimate_fn` over turns of the crop about its middle.

  Each turned estimate is turned back first. Every Gaussian becomes the one that has the mean and
  the variance of their equal mixture, so that turns which disagree make it uncertain. MANO's
  parameters and vertex colours have no such mean and are left out. Pixels that a turned crop takes
  from outside the photo's crop are black. With one turn, `estimate_fn` itself is returned.

  Raises:
    ValueError: `turns` is below 1.
  """
  angles = turn_angles(turns)
  if turns == 1:
    return estimate_fn

  def estimate(batch: HandBatch) -> HandEstimate:
    return _mixture([_turned_estimate(estimate_fn, batch, angle) for angle in angles])

  return estimate


def _turned_estimate(estimate_fn: EstimateFn, batch: HandBatch, angle: float) -> HandEstimate:
  """Estimates from images turned by `angle`, and turns the estimate back."""
  side = batch.image.shape[1]
  affine = crop_affine(np.array([0.0, 0.0, side, side]), side, factor=1.0, rotation=angle)
  images = np.stack([warp_image(image, affine, side) for image in batch.image])
  estimate = estimate_fn(batch._replace(image=images))
  # Row vectors: a turned point is q @ turn.T, so turning back is @ turn.
  turn = rotation_in_plane(angle)[:2, :2]
  return HandEstimate(
    parameters=None,
    camera=_turn_camera(estimate.camera, turn),
    prior=_turn_gaussians(estimate.prior, turn),
    posterior=_turn_gaussians(estimate.posterior, turn),
  )


def _turn(gaussian: DiagonalGaussian, turn: Float[np.ndarray, '2 2']) -> DiagonalGaussian:
  """Rotates a 2D Gaussian to that of x @ turn. The covariance that this creates is dropped."""
  mean = np.asarray(gaussian.mean, np.float64) @ turn
  variance = np.exp(np.asarray(gaussian.log_variance, np.float64)) @ turn**2
  return _on_host(mean, np.log(variance))


def _on_host(mean: np.ndarray, log_variance: np.ndarray) -> DiagonalGaussian:
  """Makes a Gaussian of NumPy arrays, in which turns are computed in double precision."""
  return DiagonalGaussian._make((mean, log_variance))


def _turn_camera(camera: DiagonalGaussian, turn: Float[np.ndarray, '2 2']) -> DiagonalGaussian:
  """Rotates a camera within the image plane.

  R becomes R @ turn. Its two stored columns, side by side, are turned row by row, as is (T_x, T_y).
  """
  mean, log_variance = (camera_from_vector(np.asarray(part, np.float64)) for part in camera)
  rows = _on_host(*(_as_rows(np.asarray(part.rotation_6d)) for part in (mean, log_variance)))
  place = _on_host(*(np.asarray(part.translation)[..., :2] for part in (mean, log_variance)))
  turned = []
  for part, row, xy in zip(
    (mean, log_variance), _turn(rows, turn), _turn(place, turn), strict=True
  ):
    stored = np.swapaxes(row, -1, -2).reshape(part.rotation_6d.shape)
    translation = np.concatenate([xy, part.translation[..., 2:]], axis=-1)
    turned.append(camera_to_vector(part._replace(rotation_6d=stored, translation=translation)))
  return DiagonalGaussian(*turned)


def _as_rows(rotation_6d: Float[np.ndarray, '*batch 6']) -> Float[np.ndarray, '*batch 3 2']:
  """Puts the two stored columns side by side."""
  return np.swapaxes(rotation_6d.reshape(*rotation_6d.shape[:-1], 2, 3), -1, -2)


def _turn_gaussians(
  gaussians: HandGaussians | None, turn: Float[np.ndarray, '2 2']
) -> HandGaussians | None:
  """Rotates one branch's estimate.

  Only the projected joints change, because the hand frame turns with the hand.
  """
  if gaussians is None:
    return None
  turned = _turn(gaussians.joints_normalized, turn)
  return gaussians._replace(joints_normalized=turned, correlated=None)


def _mixture(estimates: Sequence[HandEstimate]) -> HandEstimate:
  def branch(parts: Sequence[HandGaussians | None]) -> HandGaussians | None:
    known = [part for part in parts if part is not None]
    if not known:
      return None
    # A mixture has no common causes, so `correlated` stays None.
    return HandGaussians(
      vertices=_moments([part.vertices for part in known]),
      joints=_moments([part.joints for part in known]),
      joints_normalized=_moments([part.joints_normalized for part in known]),
    )

  return HandEstimate(
    parameters=None,
    camera=_moments([estimate.camera for estimate in estimates]),
    prior=branch([estimate.prior for estimate in estimates]),
    posterior=branch([estimate.posterior for estimate in estimates]),
  )


def _moments(gaussians: Sequence[DiagonalGaussian]) -> DiagonalGaussian:
  """Computes the mixture's mean and variance.

  The variance is the mean of the variances plus the variance of the means.
  """
  means = np.array([gaussian.mean for gaussian in gaussians], np.float64)
  variances = np.exp(np.array([gaussian.log_variance for gaussian in gaussians], np.float64))
  variance = variances.mean(axis=0) + means.var(axis=0)
  return DiagonalGaussian(
    means.mean(axis=0).astype(np.float32), np.log(variance).astype(np.float32)
  )
