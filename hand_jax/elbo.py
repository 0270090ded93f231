"""Computes the weakly supervised objective, a sampled bound from 2D joints alone (eqs. 24, 25).

See docs/derivations.md.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hand_jax.config import LossConfig
from hand_jax.gaussian import sample_gaussian
from hand_jax.geometry.cameras import camera_from_vector, project_points
from hand_jax.losses import (
  LossTerms,
  for_losses,
  kl_per_example,
  loss_labels,
  masked_nll,
  projected_joints,
  regularizers,
  whole_gaussians,
  without_padding,
)
from hand_jax.low_rank import sample_low_rank
from hand_jax.models.branches import both_branches
from hand_jax.propagation import hand_gaussians
from hand_jax.types import DiagonalGaussian, HandBatch, HandEstimate, HandGaussians, LowRankGaussian


def compute_elbo_terms(
  keys: Key[Array, 'batch'],
  estimate: HandEstimate,
  batch: HandBatch,
  camera_prior_mean: Float[Array, 'batch 10'],
  extended_joint_regressor: Float[Array, 'joints vertices'],
  config: LossConfig,
  hands_mean: Float[Array, '45'] | None = None,
) -> LossTerms:
  """Computes the unweighted terms of the weakly supervised objective, the negative ELBO.

  See eqs. 24 and 25. The only labels are 2D joints, masked as in `compute_gaussian_terms`.

  Args:
    keys: the random keys of the samples, one for each example.
    estimate: the network's output, with both branches.
    batch: the labels and their masks.
    camera_prior_mean: mu_C, the ten stored camera numbers of the frozen camera model.
    extended_joint_regressor: the matrix B, which takes vertices to joints.
    config: its `convention` chooses the likelihood of the labels at a sample. `exact` takes
      N(S(B V), likelihood_sigma^2) in crop units, `paper` takes the first line of eq. 19.
    hands_mean: the hand model's relaxed pose, for the term `pose_prior`.

  Returns:
    Each term per example. `joints_2d_nll` is the mean over `config.samples` samples of vertices and
    camera. `joints_2d_nll_prior` is the same for vertices sampled from the prior-net (Algorithm 2).
    `vertices_kl` compares the branches, and `camera_kl` the camera with N(camera_prior_mean, 1).
    `paper` adds the marginal `joints_kl`, which makes the bound looser (erratum 8). The terms of
    `regularizers` follow.
  """
  branches = both_branches(estimate)
  posterior, prior = (for_losses(branch, estimate.camera.mean, config) for branch in branches)
  terms = {
    'vertices_kl': kl_per_example(
      posterior.vertices, whole_gaussians(prior).vertices, config.convention
    ),
    'camera_kl': kl_per_example(
      estimate.camera, _camera_prior(camera_prior_mean, config), config.convention
    ),
  }
  if config.convention == 'paper':
    terms['joints_kl'] = kl_per_example(posterior.joints, prior.joints, config.convention)
  label = loss_labels(batch, config.length_unit_m)['joints_2d']
  for branch_number, (name, branch) in enumerate(
    (('joints_2d_nll', branches.posterior), ('joints_2d_nll_prior', branches.prior))
  ):
    nlls = []
    for sample_number in range(config.samples):
      draw = jax.vmap(
        lambda key, hand, camera, numbers=(branch_number, sample_number): _sample_projection(
          _draw_keys(key, numbers[0], numbers[1], config),
          hand,
          camera,
          extended_joint_regressor,
          config,
        )
      )
      nlls.append(masked_nll(draw(keys, branch, estimate.camera), *label))
    terms[name] = functools.reduce(operator.add, nlls) / config.samples
  return without_padding({**terms, **regularizers(estimate, hands_mean)}, batch)


def _camera_prior(mean: Float[Array, 'batch 10'], config: LossConfig) -> DiagonalGaussian:
  """Makes P_C. Its deviation is one for every stored number but the scale, which has its own."""
  log_variance = jnp.zeros_like(mean).at[:, -1].set(2 * math.log(config.scale_prior_sigma))
  return DiagonalGaussian(mean, log_variance)


def _draw_keys(
  key: Array, branch_number: int, sample_number: int, config: LossConfig
) -> tuple[Array, Array]:
  """Makes the keys of a draw's hand and of its camera, which both branches may share."""
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
  """Draws a hand and its camera, and gives the likelihood of 2D joints there (crop units)."""
  hand_key, camera_key = keys
  if config.drawn_sigmas == 'printed':
    camera = camera._replace(log_variance=jnp.zeros_like(camera.log_variance))
  camera_sample = sample_gaussian(camera_key, camera, config.camera_sampling_scale)

  def draw(gaussian: DiagonalGaussian | LowRankGaussian) -> Array:
    if isinstance(gaussian, LowRankGaussian):  # Only `exact` allows it, where both settings agree.
      return sample_low_rank(hand_key, gaussian, config.sampling_scale)
    return sample_gaussian(hand_key, _drawn_gaussian(gaussian, config), config.sampling_scale)

  vertices = whole_gaussians(branch).vertices
  if config.joint_draws == 'regressed':
    vertices = branch.vertices._replace(mean=draw(vertices))
  hand = hand_gaussians(
    vertices,
    camera_sample,
    extended_joint_regressor,
    convention=config.convention,
    length_unit_m=config.length_unit_m,
  )
  if config.joint_draws == 'drawn':
    joints = draw(whole_gaussians(hand).joints)
    projected = project_points(camera_from_vector(camera_sample), joints)
    hand = hand._replace(
      joints=hand.joints._replace(mean=joints),
      joints_normalized=hand.joints_normalized._replace(mean=projected),
    )
  sampled = projected_joints(hand, camera_sample, config)
  if config.convention == 'exact':
    log_variance = jnp.full_like(sampled.mean, 2 * math.log(config.likelihood_sigma))
    return sampled._replace(log_variance=log_variance)
  return sampled


def _drawn_gaussian(gaussian: DiagonalGaussian, config: LossConfig) -> DiagonalGaussian:
  """Returns the Gaussian from which lengths are drawn, see `LossConfig.drawn_sigmas`.

  The paper prints N(mu, diag(sigma)), which uses sigma as a variance. In `exact` sigma is a
  variance, and in `paper` a deviation (erratum 1), both in the length unit.
  """
  if config.drawn_sigmas == 'predicted' or config.convention == 'exact':
    return gaussian
  unit = 2 * math.log(config.length_unit_m)
  return gaussian._replace(log_variance=0.5 * (gaussian.log_variance - unit) + unit)
