"""Each loss term by name and per example, and the weighted total.

Gaussian terms follow the paper's eqs. 6, 11, 15 and 19: sums over coordinates, split into the
likelihood (`_nll`, needs labels) and the divergence from the prior-net (`_kl`, needs none). No
gradient is stopped: the divergence also teaches the prior-net. See docs/derivations.md.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from hand_jax.config import LossConfig
from hand_jax.gaussian import (
  Convention,
  gaussian_kl,
  gaussian_nll,
  paper_gaussian_kl,
  sample_gaussian,
  scale_gaussian,
)
from hand_jax.geometry.cameras import (
  camera_from_vector,
  orthonormality_penalty,
  project_points,
  project_points_affine,
)
from hand_jax.mano.anatomy import joint_limit_penalty, relaxed_pose_penalty
from hand_jax.propagation import hand_gaussians
from hand_jax.types import (
  DiagonalGaussian,
  HandBatch,
  HandEstimate,
  HandGaussians,
  RenderedHand,
)

LossTerms = dict[str, Float[Array, 'batch']]

# The total is in thousands of nats: sums over some 2400 coordinates read well. One constant moves
# no minimum, and AdamW's steps do not depend on it. It does not bring gradients to order one: their
# norms are still 10 to 120, see `OptimizerConfig.gradient_clip_norm`.
TOTAL_SCALE = 1e-3
# Differences of colour well above this count by their size, well below by their square.
ROBUST_COLOR = 0.02


def compute_gaussian_terms(
  estimate: HandEstimate,
  batch: HandBatch,
  config: LossConfig,
  hands_mean: Float[Array, '45'] | None = None,
) -> LossTerms:
  """Computes the supervised objective's unweighted terms, (batch,): Algorithms 1 and 3.

  They are vertices, joints and joints_2d, each with `_nll` and `_kl`, camera, and the terms of
  `regularizers`. Lengths are in `config.length_unit_m`, the unit of sigma_v = 1. 2D is in
  normalised crop coordinates, projected as `config.projection` says.

  A term whose label is masked is zero for that example (a joint weighs by its confidence, a camera
  number by its mask), whatever the label holds. Padding examples are zero in every term.
  """
  posterior, prior = (
    _for_losses(branch, estimate.camera.mean, config)
    for branch in (estimate.posterior, estimate.prior)
  )
  labels = _labels(batch, config.length_unit_m)
  terms = {}
  for name, q, p in (
    ('vertices', posterior.vertices, prior.vertices),
    ('joints', posterior.joints, prior.joints),
    ('joints_2d', posterior.joints_normalized, prior.joints_normalized),
  ):
    terms[f'{name}_nll'] = masked_nll(q, *labels[name])
    terms[f'{name}_kl'] = kl_per_example(q, p, config.convention)
  return _with_common_terms(terms, estimate, batch, hands_mean)


def compute_squared_error_terms(
  estimate: HandEstimate,
  batch: HandBatch,
  config: LossConfig,
  hands_mean: Float[Array, '45'] | None = None,
) -> LossTerms:
  """Computes the unweighted squared errors, (batch,), of Algorithms 5 and 6.

  They are vertices and joints_2d, each with `_l2_posterior` and `_l2_prior` (only of the branches
  that the estimate has), camera, and the terms of `regularizers`. Units and masks are those of
  `compute_gaussian_terms`.
  """
  labels = _labels(batch, config.length_unit_m)
  terms = {}
  for name, gaussians in (('posterior', estimate.posterior), ('prior', estimate.prior)):
    if gaussians is None:
      continue
    branch = _for_losses(gaussians, estimate.camera.mean, config)
    for quantity, gaussian in (
      ('vertices', branch.vertices),
      ('joints_2d', branch.joints_normalized),
    ):
      terms[f'{quantity}_l2_{name}'] = masked_squared_error(gaussian.mean, *labels[quantity])
  return _with_common_terms(terms, estimate, batch, hands_mean)


def compute_photometric_terms(
  rendered: RenderedHand, batch: HandBatch, config: LossConfig
) -> LossTerms:
  """Algorithm 4's term `photometric`, (batch,): the difference of drawing and photo over a mask.

  The mask M is what the drawing covers and, where a photo's hand mask is known, that shows the
  hand. `squared`: sum over M of |I - J|^2 / |M|, colours in [0, 1]; `robust`: of the sum over
  channels of sqrt((I - J)^2 + c^2) - c, c = `ROBUST_COLOR` (Charbonnier et al. 1994), on which the
  few pixels at wrong edges weigh less. An empty mask and padding give zero.
  """
  mask = rendered.silhouette & (batch.hand_mask | ~batch.has_mask[:, None, None])
  photo = jnp.asarray(batch.image, rendered.rgb.dtype) / 255
  difference = jnp.where(mask[..., None], rendered.rgb - photo, 0.0)
  if config.photometric == 'squared':
    distance = difference**2
  else:
    distance = jnp.sqrt(difference**2 + ROBUST_COLOR**2) - ROBUST_COLOR
  area = jnp.sum(mask, axis=(1, 2))
  return _without_padding({'photometric': _sum_per_example(distance) / jnp.maximum(area, 1)}, batch)


def compute_elbo_terms(
  keys: Key[Array, 'batch'],
  estimate: HandEstimate,
  batch: HandBatch,
  camera_prior_mean: Float[Array, 'batch 10'],
  extended_joint_regressor: Float[Array, 'joints vertices'],
  config: LossConfig,
  hands_mean: Float[Array, '45'] | None = None,
) -> LossTerms:
  """Unweighted terms of the weakly supervised objective (eqs. 24, 25: the negative ELBO), (batch,).

  Labels are 2D joints alone; `keys` (one per example) decide the samples. `joints_2d_nll`: samples
  of vertices and camera, projected; in `exact` under N(S(B V), likelihood_sigma^2) in crop units,
  in `paper` under eq. 19's first line; the mean over `config.samples`. `joints_2d_nll_prior`: the
  same for samples of the prior-net (Algorithm 2). `vertices_kl`, `camera_kl` (against
  N(camera_prior_mean, 1), the scale's deviation `scale_prior_sigma`), and in `paper` the marginal
  `joints_kl`, which makes the bound looser (erratum 8). And the terms of `regularizers`. Masks as
  in `compute_gaussian_terms`. How samples are drawn, `LossConfig` says.
  """
  posterior, prior = (
    _for_losses(branch, estimate.camera.mean, config)
    for branch in (estimate.posterior, estimate.prior)
  )
  terms = {
    'vertices_kl': kl_per_example(posterior.vertices, prior.vertices, config.convention),
    'camera_kl': kl_per_example(
      estimate.camera, _camera_prior(camera_prior_mean, config), config.convention
    ),
  }
  if config.convention == 'paper':
    terms['joints_kl'] = kl_per_example(posterior.joints, prior.joints, config.convention)
  label = _labels(batch, config.length_unit_m)['joints_2d']
  for branch_number, (name, branch) in enumerate(
    (('joints_2d_nll', estimate.posterior), ('joints_2d_nll_prior', estimate.prior))
  ):
    nlls = []
    for sample_number in range(config.samples):
      draw = jax.vmap(
        lambda key, hand, camera, numbers=(branch_number, sample_number): _sample_projection(
          _draw_keys(key, *numbers, config), hand, camera, extended_joint_regressor, config
        )
      )
      nlls.append(masked_nll(draw(keys, branch, estimate.camera), *label))
    terms[name] = sum(nlls) / config.samples
  return _without_padding({**terms, **regularizers(estimate, hands_mean)}, batch)


def _camera_prior(mean: Float[Array, 'batch 10'], config: LossConfig) -> DiagonalGaussian:
  """P_C: a deviation of one for every stored number but the scale, which has its own."""
  log_variance = jnp.zeros_like(mean).at[:, -1].set(2 * math.log(config.scale_prior_sigma))
  return DiagonalGaussian(mean, log_variance)


def _draw_keys(
  key: Array, branch_number: int, sample_number: int, config: LossConfig
) -> tuple[Array, Array]:
  """The keys of a draw's hand and of its camera, which both branches may share."""
  draw, first = (2 * sample_number + number for number in (branch_number, 0))
  camera_draw = first if config.camera_draws == 'one' else draw
  hand_key = jax.random.split(jax.random.fold_in(key, draw))[0]
  return hand_key, jax.random.split(jax.random.fold_in(key, camera_draw))[1]


def _sample_projection(
  keys: tuple[Array, Array],
  branch: HandGaussians,
  camera: DiagonalGaussian,
  extended_joint_regressor: Array,
  config: LossConfig,
) -> DiagonalGaussian:
  """The likelihood of 2D joints (crop units) at one sample of a hand and its camera."""
  hand_key, camera_key = keys
  if config.drawn_sigmas == 'printed':
    camera = camera._replace(log_variance=jnp.zeros_like(camera.log_variance))
  camera_sample = sample_gaussian(camera_key, camera, config.camera_sampling_scale)

  def draw(gaussian: DiagonalGaussian) -> Array:
    return sample_gaussian(hand_key, _drawn_gaussian(gaussian, config), config.sampling_scale)

  vertices = branch.vertices
  if config.joint_draws == 'regressed':
    vertices = vertices._replace(mean=draw(vertices))
  hand = hand_gaussians(
    vertices,
    camera_sample,
    extended_joint_regressor,
    convention=config.convention,
    length_unit_m=config.length_unit_m,
  )
  if config.joint_draws == 'drawn':
    joints = draw(hand.joints)
    projected = project_points(camera_from_vector(camera_sample), joints)
    hand = hand._replace(
      joints=hand.joints._replace(mean=joints),
      joints_normalized=hand.joints_normalized._replace(mean=projected),
    )
  sampled = _projected(hand, camera_sample, config)
  if config.convention == 'exact':
    log_variance = jnp.full_like(sampled.mean, 2 * math.log(config.likelihood_sigma))
    return sampled._replace(log_variance=log_variance)
  return sampled


def _drawn_gaussian(gaussian: DiagonalGaussian, config: LossConfig) -> DiagonalGaussian:
  """What a draw of lengths comes from: N(mu, diag(sigma)) to the letter, or as stated.

  The letter takes sigma for a variance. In `exact` it is one, in `paper` a deviation (erratum 1),
  both in the length unit.
  """
  if config.drawn_sigmas == 'predicted' or config.convention == 'exact':
    return gaussian
  unit = 2 * math.log(config.length_unit_m)
  return gaussian._replace(log_variance=0.5 * (gaussian.log_variance - unit) + unit)


def regularizers(estimate: HandEstimate, hands_mean: Float[Array, '45'] | None = None) -> LossTerms:
  """Terms without labels: of the camera, and of the prior-net's parameters where there are any.

  `orthonormality`: see `orthonormality_penalty`; `joint_limits`: see `hand_jax.mano.anatomy`,
  radians squared; `shape_prior`: the sum of squared betas; with the hand model's relaxed pose
  `hands_mean`, `pose_prior`: the squared distance from it by the range of each axis
  (`relaxed_pose_penalty`).
  """
  terms = {'orthonormality': orthonormality_penalty(camera_from_vector(estimate.camera.mean))}
  if estimate.parameters is None:
    return terms
  pose = estimate.parameters.hand_pose
  terms['joint_limits'] = jax.vmap(joint_limit_penalty)(pose)
  terms['shape_prior'] = _sum_per_example(estimate.parameters.betas**2)
  if hands_mean is not None:
    terms['pose_prior'] = jax.vmap(relaxed_pose_penalty, in_axes=(0, None))(pose, hands_mean)
  return terms


def total_loss(terms: LossTerms, weights: dict[str, float]) -> Float[Array, 'batch']:
  """Sums the terms by their weights, times `TOTAL_SCALE`. A weight of zero leaves its term out.

  Terms of a branch that the network does not have are not among `terms`, and count nowhere.

  Raises:
    ValueError: no term has a weight.
  """
  # A term left out must not pass on its infinities, hence no product with zero.
  used = [weights[name] * term for name, term in terms.items() if weights[name] != 0]
  if not used:
    raise ValueError('Every loss weight is zero: set one of ' + ', '.join(sorted(terms)) + '.')
  return TOTAL_SCALE * sum(used)


def camera_loss(
  predicted: Float[Array, 'batch 10'],
  camera: Float[Array, 'batch 10'],
  camera_mask: Bool[Array, 'batch 10'],
) -> Float[Array, 'batch']:
  """Eq. 11: the sum of squared differences over the camera's stored numbers, where known."""
  return _sum_per_example((_masked(camera, predicted, camera_mask) - predicted) ** 2)


def masked_nll(
  gaussian: DiagonalGaussian,
  value: Float[Array, 'batch points dims'],
  weight: Float[Array, 'batch points'],
) -> Float[Array, 'batch']:
  """The negative log-likelihood summed over coordinates, each point by its weight (0: unknown)."""
  known = jnp.expand_dims(weight > 0, -1)
  weight = jnp.where(known, jnp.expand_dims(weight, -1), 0.0)
  nll = gaussian_nll(gaussian, _masked(value, gaussian.mean, known))
  return _sum_per_example(weight * nll)


def masked_squared_error(
  predicted: Float[Array, 'batch points dims'],
  value: Float[Array, 'batch points dims'],
  weight: Float[Array, 'batch points'],
) -> Float[Array, 'batch']:
  """The squared error summed over coordinates, each point by its weight (0: unknown)."""
  known = jnp.expand_dims(weight > 0, -1)
  weight = jnp.where(known, jnp.expand_dims(weight, -1), 0.0)
  return _sum_per_example(weight * (_masked(value, predicted, known) - predicted) ** 2)


def kl_per_example(
  posterior: DiagonalGaussian, prior: DiagonalGaussian, convention: Convention
) -> Float[Array, 'batch']:
  """The divergence summed over coordinates: KL(posterior || prior), or eq. 5's letter of it."""
  divergence = gaussian_kl if convention == 'exact' else paper_gaussian_kl
  return _sum_per_example(divergence(posterior, prior))


def _with_common_terms(
  terms: LossTerms, estimate: HandEstimate, batch: HandBatch, hands_mean: Array | None
) -> LossTerms:
  """Adds the camera's term and those without labels, and empties the padding."""
  terms['camera'] = camera_loss(
    estimate.camera.mean, jnp.asarray(batch.camera), jnp.asarray(batch.camera_mask)
  )
  return _without_padding({**terms, **regularizers(estimate, hands_mean)}, batch)


def _labels(batch: HandBatch, length_unit_m: float) -> dict[str, tuple[Array, Array]]:
  """Values (lengths in the unit) and weights per point."""
  vertices, joints = jnp.asarray(batch.vertices_hand), jnp.asarray(batch.joints_hand)

  def has_3d(values):
    known = jnp.asarray(batch.has_3d).astype(values.dtype)
    return jnp.broadcast_to(known[:, None], values.shape[:2])

  joints_2d, confidence = jnp.asarray(batch.joints_normalized), jnp.asarray(batch.joint_confidence)
  # A joint without finite coordinates is unknown, whatever its confidence says.
  confidence = jnp.where(jnp.isfinite(joints_2d).all(axis=-1), confidence, 0.0)
  return {
    'vertices': (vertices / length_unit_m, has_3d(vertices)),
    'joints': (joints / length_unit_m, has_3d(joints)),
    'joints_2d': (joints_2d, confidence),
  }


def _for_losses(
  gaussians: HandGaussians, camera: Float[Array, 'batch 10'], config: LossConfig
) -> HandGaussians:
  """Lengths in the length unit, 2D joints projected as the losses want them."""
  return HandGaussians(
    vertices=scale_gaussian(gaussians.vertices, 1 / config.length_unit_m),
    joints=scale_gaussian(gaussians.joints, 1 / config.length_unit_m),
    joints_normalized=_projected(gaussians, camera, config),
  )


def _projected(
  gaussians: HandGaussians, camera: Float[Array, '*batch 10'], config: LossConfig
) -> DiagonalGaussian:
  """The 2D joints of one hand or a batch, their mean by `config.projection`."""
  if config.projection == 'orthonormal':
    return gaussians.joints_normalized
  mean = project_points_affine(camera_from_vector(camera), gaussians.joints.mean)
  return gaussians.joints_normalized._replace(mean=mean)


def _masked(value: Array, instead: Array, known: Array) -> Array:
  """Unknown labels replaced by the estimate: `where` on the input keeps NaN out of gradients."""
  return jnp.where(known, value, instead)


def _without_padding(terms: LossTerms, batch: HandBatch) -> LossTerms:
  return {name: jnp.where(batch.is_padding, 0.0, term) for name, term in terms.items()}


def _sum_per_example(values: Array) -> Float[Array, 'batch']:
  return values.sum(axis=tuple(range(1, values.ndim)))
