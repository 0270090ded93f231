"""Computes each loss term by name and per example, and the weighted total.

Gaussian terms follow the paper's eqs. 6, 11, 15 and 19. They are sums over coordinates, split into
the likelihood (`_nll`), which needs labels, and the divergence from the prior-net (`_kl`), which
needs none. The divergence stops no gradient, so it also trains the prior-net. See
docs/derivations.md.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hand_jax.config import LossConfig
from hand_jax.gaussian import (
  Convention,
  gaussian_kl,
  gaussian_nll,
  paper_gaussian_kl,
  scale_gaussian,
)
from hand_jax.geometry.cameras import (
  camera_from_vector,
  orthonormality_penalty,
  project_points_affine,
)
from hand_jax.low_rank import low_rank_kl, low_rank_nll, scale_low_rank
from hand_jax.mano.anatomy import joint_limit_penalty, relaxed_pose_penalty
from hand_jax.models.branches import both_branches
from hand_jax.types import (
  CorrelatedGaussians,
  DiagonalGaussian,
  HandBatch,
  HandEstimate,
  HandGaussians,
  LowRankGaussian,
  RenderedHand,
)

LossTerms = dict[str, Float[Array, 'batch']]

# The total is in thousands of nats, which are readable units for sums over some 2400 coordinates. A
# constant factor moves no minimum, and AdamW's steps do not depend on it. Gradients do not become
# of order one: their norms are still 10 to 120, see `OptimizerConfig.gradient_clip_norm`.
TOTAL_SCALE = 1e-3
# The robust colour loss is linear in differences far above this and quadratic far below it.
ROBUST_COLOR = 0.02


def compute_gaussian_terms(
  estimate: HandEstimate,
  batch: HandBatch,
  config: LossConfig,
  hands_mean: Float[Array, '45'] | None = None,
) -> LossTerms:
  """Computes the unweighted terms of the supervised objective (Algorithms 1 and 3).

  A term whose label is masked is zero for that example, whatever the label holds. Joints are
  weighted by their confidence, and camera numbers by their mask. Padding examples are zero in every
  term.

  Args:
    estimate: the network's output, with both branches.
    batch: the labels and their masks.
    config: its `length_unit_m` is the unit of lengths, in which the prior's sigma_v is 1. Its
      `projection` chooses how 2D joints are computed, in normalised crop coordinates. Its
      `coordinate_weights` chooses how the coordinates of the posterior's likelihoods count.
    hands_mean: the hand model's relaxed pose, for the term `pose_prior`.

  Returns:
    Each term per example: `vertices`, `joints` and `joints_2d` with the endings `_nll` and `_kl`,
    `vertices_nll_prior` if `prior_vertices` is not 0, `camera`, and the terms of `regularizers`.
  """
  posterior, prior = (
    for_losses(branch, estimate.camera.mean, config) for branch in both_branches(estimate)
  )
  prior = whole_gaussians(prior)
  labels = loss_labels(batch, config.length_unit_m)
  posterior_nll = evenly_weighted_nll if config.coordinate_weights == 'even' else masked_nll
  terms = {}
  for name, q, p in (
    ('vertices', posterior.vertices, prior.vertices),
    ('joints', posterior.joints, prior.joints),
    ('joints_2d', posterior.joints_normalized, prior.joints_normalized),
  ):
    terms[f'{name}_nll'] = posterior_nll(q, *labels[name])
    terms[f'{name}_kl'] = kl_per_example(q, p, config.convention)
  if config.prior_vertices:
    terms['vertices_nll_prior'] = masked_nll(prior.vertices, *labels['vertices'])
  return _with_common_terms(terms, estimate, batch, hands_mean)


def compute_squared_error_terms(
  estimate: HandEstimate,
  batch: HandBatch,
  config: LossConfig,
  hands_mean: Float[Array, '45'] | None = None,
) -> LossTerms:
  """Computes the unweighted squared errors of Algorithms 5 and 6.

  Units and masks are the same as in `compute_gaussian_terms`.

  Args:
    estimate: the network's output. It may lack a branch.
    batch: the labels and their masks.
    config: sets the unit of length and the projection.
    hands_mean: the hand model's relaxed pose, for the term `pose_prior`.

  Returns:
    Each term per example: `vertices` and `joints_2d` with the endings `_l2_posterior` and
    `_l2_prior` for the branches that the estimate has, `camera`, and the terms of `regularizers`.
  """
  labels = loss_labels(batch, config.length_unit_m)
  terms = {}
  for name, gaussians in (('posterior', estimate.posterior), ('prior', estimate.prior)):
    if gaussians is None:
      continue
    branch = for_losses(gaussians, estimate.camera.mean, config)
    for quantity, gaussian in (
      ('vertices', branch.vertices),
      ('joints_2d', branch.joints_normalized),
    ):
      terms[f'{quantity}_l2_{name}'] = masked_squared_error(gaussian.mean, *labels[quantity])
  return _with_common_terms(terms, estimate, batch, hands_mean)


def compute_photometric_terms(
  rendered: RenderedHand, batch: HandBatch, config: LossConfig
) -> LossTerms:
  """Computes the mean colour difference between drawing I and photo J over a mask (Algorithm 4).

  The mask M holds the pixels that the drawing covers. If the photo's hand mask is known, they also
  have to show the hand. An empty mask and padding give zero.

  A soft drawing covers pixels in part, and each pixel is weighted by its covered share.

  Args:
    rendered: the hand drawn into its crop, colours in [0, 1].
    batch: the photo, and its hand mask if there is one.
    config: its `photometric` chooses the difference to average over M. 'squared' takes |I - J|^2.
      'robust' takes the sum over channels of sqrt((I - J)^2 + c^2) - c with c = `ROBUST_COLOR`
      (Charbonnier et al. 1994), which gives less weight to the few pixels along misplaced edges.
      'soft' takes the same.

  Returns:
    The term `photometric` per example.
  """
  shown = batch.hand_mask | ~batch.has_mask[:, None, None]
  covered = jnp.where(shown, rendered.silhouette, 0).astype(rendered.rgb.dtype)
  photo = jnp.asarray(batch.image, rendered.rgb.dtype) / 255
  difference = jnp.where(covered[..., None] > 0, rendered.rgb - photo, 0.0)
  if config.photometric == 'squared':
    distance = difference**2
  else:
    distance = jnp.sqrt(difference**2 + ROBUST_COLOR**2) - ROBUST_COLOR
  distance = covered[..., None] * distance
  area = jnp.sum(covered, axis=(1, 2))
  return without_padding({'photometric': _sum_per_example(distance) / jnp.maximum(area, 1)}, batch)


def whole_gaussians(gaussians: HandGaussians) -> HandGaussians | CorrelatedGaussians:
  """Returns a branch's Gaussians, with the common causes of their variables if there are any."""
  return gaussians if gaussians.correlated is None else gaussians.correlated


def regularizers(estimate: HandEstimate, hands_mean: Float[Array, '45'] | None = None) -> LossTerms:
  """Computes the penalties that need no labels.

  An estimate without MANO parameters has only the camera's penalty.

  Args:
    estimate: the network's output.
    hands_mean: the hand model's relaxed pose, or None to leave `pose_prior` out.

  Returns:
    Each term per example. `orthonormality` is `orthonormality_penalty` of the camera.
    `joint_limits`, in radians squared, is `joint_limit_penalty`. `shape_prior` is the sum of
    squared betas. `pose_prior` is the squared distance from the relaxed pose, in which each axis
    counts by its range (`relaxed_pose_penalty`).
  """
  terms = {'orthonormality': orthonormality_penalty(camera_from_vector(estimate.camera.mean))}
  if estimate.parameters is None:
    return terms
  pose, betas = (jnp.asarray(part) for part in estimate.parameters[1:3])
  terms['joint_limits'] = jax.vmap(joint_limit_penalty)(pose)
  terms['shape_prior'] = _sum_per_example(betas**2)
  if hands_mean is not None:
    terms['pose_prior'] = jax.vmap(relaxed_pose_penalty, in_axes=(0, None))(pose, hands_mean)
  return terms


def total_loss(terms: LossTerms, weights: dict[str, float]) -> Float[Array, 'batch']:
  """Sums the weighted terms, times `TOTAL_SCALE`. A weight of zero leaves its term out.

  A weight may name a term that is not in `terms`, as when the network lacks that term's branch.

  Raises:
    ValueError: no term has a weight.
  """
  # Do not multiply by zero: a term that is left out could pass on an infinity.
  used = [weights[name] * term for name, term in terms.items() if weights[name] != 0]
  if not used:
    raise ValueError('Every loss weight is zero: set one of ' + ', '.join(sorted(terms)) + '.')
  return TOTAL_SCALE * functools.reduce(operator.add, used)


def camera_loss(
  predicted: Float[Array, 'batch 10'],
  camera: Float[Array, 'batch 10'],
  camera_mask: Bool[Array, 'batch 10'],
) -> Float[Array, 'batch']:
  """Sums the squared differences over the camera's stored numbers (eq. 11).

  Args:
    predicted: the estimated numbers, in `HandCamera`'s stored scaling.
    camera: the labels, in the same scaling.
    camera_mask: True for known labels.
  """
  return _sum_per_example((_masked(camera, predicted, camera_mask) - predicted) ** 2)


def masked_nll(
  gaussian: DiagonalGaussian | LowRankGaussian,
  value: Float[Array, 'batch points dims'],
  weight: Float[Array, 'batch points'],
) -> Float[Array, 'batch']:
  """Sums the negative log-likelihood over coordinates, each point times its weight.

  Args:
    gaussian: the estimated points. Points with common causes count fully or not at all, and unknown
      points are integrated out.
    value: the labels, in the same unit. They may hold anything where the weight is zero.
    weight: 0 where a point is unknown.
  """
  known = jnp.expand_dims(weight > 0, -1)
  if isinstance(gaussian, LowRankGaussian):
    seen = jnp.broadcast_to(known, value.shape)
    return jax.vmap(low_rank_nll)(gaussian, _masked(value, gaussian.mean, known), seen)
  weight = jnp.where(known, jnp.expand_dims(weight, -1), 0.0)
  nll = gaussian_nll(gaussian, _masked(value, gaussian.mean, known))
  return _sum_per_example(weight * nll)


def evenly_weighted_nll(
  gaussian: DiagonalGaussian,
  value: Float[Array, 'batch points dims'],
  weight: Float[Array, 'batch points'],
) -> Float[Array, 'batch']:
  """Sums the negative log-likelihood over coordinates, so that all count alike for the mean.

  In `masked_nll` the gradient of a mean is its error over its own variance, so that an estimate
  whose errors are large hardly learns from them. Here the term of each coordinate is multiplied by
  its variance over the hand's mean variance, through which no gradient passes. The gradient of
  every mean is then its error over that mean variance, and each variance is still best at the
  squared error (Seitzer et al. 2022, "On the Pitfalls of Heteroscedastic Uncertainty Estimation",
  with beta = 1).

  Args:
    gaussian: the estimated points.
    value: the labels, in the same unit. They may hold anything where the weight is zero.
    weight: 0 where a point is unknown. The mean variance is that of the known points.
  """
  known = jnp.expand_dims(weight > 0, -1)
  weight = jnp.where(known, jnp.expand_dims(weight, -1), 0.0)
  log_variance = jax.lax.stop_gradient(gaussian.log_variance)
  # Factor out the largest variance, so that values stay in float32's range in any unit of length.
  variance = jnp.exp(log_variance - log_variance.max(axis=(1, 2), keepdims=True))
  known_variance = jnp.sum(jnp.where(known, variance, 0.0), axis=(1, 2), keepdims=True)
  coordinates = known.sum(axis=(1, 2), keepdims=True) * variance.shape[-1]
  mean_variance = known_variance / jnp.maximum(coordinates, 1)
  nll = gaussian_nll(gaussian, _masked(value, gaussian.mean, known))
  return _sum_per_example(weight * variance / jnp.maximum(mean_variance, 1e-30) * nll)


def masked_squared_error(
  predicted: Float[Array, 'batch points dims'],
  value: Float[Array, 'batch points dims'],
  weight: Float[Array, 'batch points'],
) -> Float[Array, 'batch']:
  """Sums the squared error over coordinates, each point times its weight.

  Args:
    predicted: the estimated points.
    value: the labels, in the same unit. They may hold anything where the weight is zero.
    weight: 0 where a point is unknown.
  """
  known = jnp.expand_dims(weight > 0, -1)
  weight = jnp.where(known, jnp.expand_dims(weight, -1), 0.0)
  return _sum_per_example(weight * (_masked(value, predicted, known) - predicted) ** 2)


def kl_per_example(
  posterior: DiagonalGaussian,
  prior: DiagonalGaussian | LowRankGaussian,
  convention: Convention,
) -> Float[Array, 'batch']:
  """Sums the divergence of the posterior from the prior over coordinates.

  Args:
    posterior: the first distribution of KL(posterior || prior).
    prior: the second distribution, in the same unit.
    convention: 'exact' takes the KL, 'paper' takes eq. 5 as printed.

  Raises:
    ValueError: the prior has common causes, for which eq. 5 has no form.
  """
  if isinstance(prior, LowRankGaussian):
    if convention != 'exact':
      raise ValueError(f"convention={convention!r} has no common causes: take 'exact'.")
    return jax.vmap(low_rank_kl)(posterior, prior)
  divergence = gaussian_kl if convention == 'exact' else paper_gaussian_kl
  return _sum_per_example(divergence(posterior, prior))


def _with_common_terms(
  terms: LossTerms, estimate: HandEstimate, batch: HandBatch, hands_mean: Array | None
) -> LossTerms:
  """Adds the camera's term and the regularizers, and sets padding examples to zero."""
  terms['camera'] = camera_loss(
    estimate.camera.mean, jnp.asarray(batch.camera), jnp.asarray(batch.camera_mask)
  )
  return without_padding({**terms, **regularizers(estimate, hands_mean)}, batch)


def loss_labels(batch: HandBatch, length_unit_m: float) -> dict[str, tuple[Array, Array]]:
  """Returns the label and the weight of each point. Lengths are in the length unit."""
  vertices, joints = jnp.asarray(batch.vertices_hand), jnp.asarray(batch.joints_hand)

  def has_3d(values):
    known = jnp.asarray(batch.has_3d).astype(values.dtype)
    return jnp.broadcast_to(known[:, None], values.shape[:2])

  joints_2d, confidence = jnp.asarray(batch.joints_normalized), jnp.asarray(batch.joint_confidence)
  # A joint without finite coordinates is unknown, whatever its confidence is.
  confidence = jnp.where(jnp.isfinite(joints_2d).all(axis=-1), confidence, 0.0)
  return {
    'vertices': (vertices / length_unit_m, has_3d(vertices)),
    'joints': (joints / length_unit_m, has_3d(joints)),
    'joints_2d': (joints_2d, confidence),
  }


def for_losses(
  gaussians: HandGaussians, camera: Float[Array, 'batch 10'], config: LossConfig
) -> HandGaussians:
  """Converts lengths to the length unit, and projects 2D joints by `config.projection`.

  Args:
    gaussians: a branch's Gaussians in metres, hand frame.
    camera: the estimated camera's ten stored numbers.
    config: sets the length unit and the projection.
  """
  per_metre = 1 / config.length_unit_m
  joints_normalized, correlated = projected_joints(gaussians, camera, config), gaussians.correlated
  if correlated is not None:
    correlated = CorrelatedGaussians(
      vertices=scale_low_rank(correlated.vertices, per_metre),
      joints=scale_low_rank(correlated.joints, per_metre),
      joints_normalized=correlated.joints_normalized._replace(mean=joints_normalized.mean),
    )
  return HandGaussians(
    vertices=scale_gaussian(gaussians.vertices, per_metre),
    joints=scale_gaussian(gaussians.joints, per_metre),
    joints_normalized=joints_normalized,
    correlated=correlated,
  )


def projected_joints(
  gaussians: HandGaussians, camera: Float[Array, '*batch 10'], config: LossConfig
) -> DiagonalGaussian:
  """Computes the 2D joints of one hand or a batch, with their mean by `config.projection`.

  Args:
    gaussians: a branch's Gaussians in metres, hand frame.
    camera: the camera's ten stored numbers.
    config: sets the projection.
  """
  if config.projection == 'orthonormal':
    return gaussians.joints_normalized
  mean = project_points_affine(camera_from_vector(camera), gaussians.joints.mean)
  return gaussians.joints_normalized._replace(mean=mean)


def _masked(value: Array, instead: Array, known: Array) -> Array:
  """Replaces unknown labels by the estimate.

  This happens before they are used, because a NaN that is masked later still reaches gradients.
  """
  return jnp.where(known, value, instead)


def without_padding(terms: LossTerms, batch: HandBatch) -> LossTerms:
  """Sets every term of the examples that only fill up a batch to zero."""
  return {name: jnp.where(batch.is_padding, 0.0, term) for name, term in terms.items()}


def _sum_per_example(values: Array) -> Float[Array, 'batch']:
  return values.sum(axis=tuple(range(1, values.ndim)))
