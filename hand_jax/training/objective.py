"""Builds the objective of a run from the config, with everything that depends on the kind of loss.

The train step, the fresh state, the warm start and the camera prior use the objective, and do not
depend on the names of kinds. A new kind needs a name in `LossConfig.kind`, its terms in
`hand_jax.losses`, and one row of `_KINDS` below.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hand_jax.config import ExperimentConfig, LossConfig
from hand_jax.elbo import compute_elbo_terms
from hand_jax.losses import (
  TOTAL_SCALE,
  LossTerms,
  compute_gaussian_terms,
  compute_photometric_terms,
  compute_squared_error_terms,
)
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.hand_network import (
  BACKBONE,
  TEXTURE_REGRESSOR,
  VERTEX_REGRESSOR,
  blend_estimate,
  render_estimate,
)
from hand_jax.models.texture_regressor import sample_hidden_region
from hand_jax.silhouette_loss import SILHOUETTE, compute_silhouette_term
from hand_jax.types import HandBatch, HandEstimate, ManoModel

NetworkInputs = dict[str, Any]
MakeInputs = Callable[[HandBatch, Array | None], NetworkInputs]

_FRESH_AMVUR = (
  "loss.kind='elbo' with model.vertex_offset_from='template' would start from the flat template, "
  'and the divergence would pull the trained prior-net towards it. Name a warm-up of AMVUR '
  '(Algorithm 6; experiments with `amvur` and `weak` in their names) by --init_from=WORKDIR, or '
  'take model.vertex_offset_from=prior.'
)


class Objective(NamedTuple):
  """The function that a run minimises, and the inputs and trained parts that it needs.

  `compute_terms` takes one key per example, the estimate, the batch, the hand model, and the mean
  of the frozen camera prior (None without one). It returns the unweighted terms per example.
  `make_inputs` takes the batch and, only while training, one key per example. It returns the inputs
  of the network besides images and hand model.
  """

  kind: str
  compute_terms: Callable[..., LossTerms]
  weights: dict[str, float]
  make_inputs: MakeInputs
  learned_parts: tuple[str, ...] | None = None
  """Only these parts of the network are trained, or all of them if this is None.

  The other parts come from a trained run and are in evaluation mode.
  """
  frozen_parts: tuple[str, ...] = ()
  """Parts that would be trained, but are frozen."""
  continues: str = ''
  """The name of the experiment whose run holds those other parts."""
  needs_camera_prior: bool = False
  needs_trained: tuple[str, ...] = ()
  """Parts that are trained further, but must come from a trained run."""
  why_trained: str = ''
  """Why untrained ones do not work, by the settings' names, and what to do."""

  @property
  def learns_everything(self) -> bool:
    """Returns whether all parts of the network are trained."""
    return self.learned_parts is None

  def learned_parameters(self, params: dict[str, Any]) -> dict[str, Any]:
    """Picks the parameters that a step changes."""
    parts = params if self.learned_parts is None else self.learned_parts
    return {name: params[name] for name in parts if name not in self.frozen_parts}


def create_objective(config: ExperimentConfig) -> Objective:
  """Builds the objective that `config.loss` names. A learning rate of 0 freezes the backbone.

  Raises:
    ValueError: the config names a kind of loss that does not exist.
  """
  kind = config.loss.kind
  if kind not in _KINDS:
    raise ValueError(f'loss.kind: expected one of {", ".join(_KINDS)}, got {kind!r}.')
  is_frozen = config.optimizer.backbone_learning_rate_scale == 0
  objective = _KINDS[kind](config)._replace(frozen_parts=(BACKBONE,) if is_frozen else ())
  if config.loss.photometric_weight:
    objective = _with_colors(objective, config)
  return _with_silhouette(objective, config.loss) if config.loss.silhouette else objective


def term_weights(loss: LossConfig) -> dict[str, float]:
  """Returns the weight of every term of `loss.kind`.

  `loss.kl` multiplies a divergence's own weight.
  """
  return create_objective(ExperimentConfig(loss=loss)).weights


def _with_silhouette(objective: Objective, loss: LossConfig) -> Objective:
  """Adds the term that compares the drawn hand with the hand masks."""

  def compute_terms(keys, estimate, batch, model, camera_prior_mean) -> LossTerms:
    terms = objective.compute_terms(keys, estimate, batch, model, camera_prior_mean)
    return terms | {SILHOUETTE: compute_silhouette_term(estimate, batch, model.faces, loss)}

  return objective._replace(
    compute_terms=compute_terms, weights=objective.weights | {SILHOUETTE: loss.silhouette}
  )


def _with_colors(objective: Objective, config: ExperimentConfig) -> Objective:
  """Adds the photometric term, which trains vertices, camera and colours together."""
  loss = config.loss

  def compute_terms(keys, estimate, batch, model, camera_prior_mean) -> LossTerms:
    terms = objective.compute_terms(keys, estimate, batch, model, camera_prior_mean)
    return terms | _photometric_terms(estimate, batch, model, loss)

  return objective._replace(
    compute_terms=compute_terms,
    weights=objective.weights | {'photometric': loss.photometric_weight},
    make_inputs=_texture_inputs(config),
  )


def _gaussian(config: ExperimentConfig) -> Objective:
  """Builds Algorithms 1 and 3: likelihoods and divergences of vertices, joints and projections."""
  loss = config.loss
  weights = {**_regularizer_weights(loss), 'camera': loss.camera}
  for name in ('vertices', 'joints', 'joints_2d'):
    weights[f'{name}_nll'] = getattr(loss, name)
    weights[f'{name}_kl'] = getattr(loss, name) * loss.kl
  weights['vertices_nll'] *= loss.vertices_likelihood
  if loss.prior_vertices:
    weights['vertices_nll_prior'] = loss.prior_vertices

  def compute_terms(keys, estimate, batch, model, camera_prior_mean) -> LossTerms:
    return compute_gaussian_terms(estimate, batch, loss, model.hands_mean)

  return Objective(loss.kind, compute_terms, weights, _no_inputs)


def _squared_errors(config: ExperimentConfig) -> Objective:
  """Builds Algorithms 5 and 6: squared errors of the branches that the network has."""
  loss = config.loss
  weights = {**_regularizer_weights(loss), 'camera': loss.camera}
  for name in ('vertices', 'joints_2d'):
    for branch in ('posterior', 'prior'):
      weights[f'{name}_l2_{branch}'] = getattr(loss, name)

  def compute_terms(keys, estimate, batch, model, camera_prior_mean) -> LossTerms:
    return compute_squared_error_terms(estimate, batch, loss, model.hands_mean)

  return Objective(loss.kind, compute_terms, weights, _no_inputs)


def _elbo(config: ExperimentConfig) -> Objective:
  """Builds Algorithm 2, the sampled bound from 2D joints alone, with a frozen camera prior."""
  loss = config.loss
  weights = _regularizer_weights(loss)
  weights['joints_2d_nll'] = loss.joints_2d
  weights['joints_2d_nll_prior'] = loss.joints_2d * loss.joints_2d_prior
  divergences = ('vertices', 'camera') + (('joints',) if loss.convention == 'paper' else ())
  weights |= {f'{name}_kl': getattr(loss, name) * loss.kl for name in divergences}

  def compute_terms(
    keys: Key[Array, 'batch'],
    estimate: HandEstimate,
    batch: HandBatch,
    model: ManoModel,
    camera_prior_mean: Float[Array, 'batch 10'],
  ) -> LossTerms:
    regressor = extended_joint_regressor(model)
    return compute_elbo_terms(
      keys, estimate, batch, camera_prior_mean, regressor, loss, model.hands_mean
    )

  return Objective(
    loss.kind,
    compute_terms,
    weights,
    _no_inputs,
    needs_camera_prior=True,
    needs_trained=(VERTEX_REGRESSOR,) if config.model.vertex_offset_from == 'template' else (),
    why_trained=_FRESH_AMVUR,
  )


def _photometric(config: ExperimentConfig) -> Objective:
  """Builds Algorithm 4, which trains only the texture branch, by the colours of the drawn hand."""
  loss = config.loss

  def compute_terms(keys, estimate, batch, model, camera_prior_mean) -> LossTerms:
    return _photometric_terms(estimate, batch, model, loss)

  # The term stands alone and has order one already, so the scale of totals is undone.
  weights = {'photometric': 1 / TOTAL_SCALE}
  trained = config.name.removesuffix('_texture')
  return Objective(
    loss.kind,
    compute_terms,
    weights,
    _texture_inputs(config),
    (TEXTURE_REGRESSOR,),
    continues=trained,
  )


def _photometric_terms(
  estimate: HandEstimate, batch: HandBatch, model: ManoModel, loss: LossConfig
) -> LossTerms:
  """Draws the estimated hands hard or softly, as the config says, and compares their colours."""
  if loss.photometric == 'soft':
    photos = batch.image.astype(jnp.float32) / 255
    sigma, gamma = loss.photometric_sigma, loss.photometric_gamma
    drawn = blend_estimate(estimate, model, photos, sigma, gamma)
  else:
    drawn = render_estimate(estimate, model, batch.image.shape[1])
  return compute_photometric_terms(drawn, batch, loss)


def _texture_inputs(config: ExperimentConfig) -> MakeInputs:
  hidden_fraction = config.model.texture.hidden_fraction

  def make_inputs(batch: HandBatch, keys: Array | None) -> NetworkInputs:
    """Limits the branch's view of the photo to the hand, and hides further parts while training.

    See `TextureConfig`.
    """
    inputs = {'hand_mask': batch.hand_mask | ~batch.has_mask[:, None, None]}
    if keys is not None and hidden_fraction > 0:
      inputs['hidden'] = jax.vmap(sample_hidden_region, in_axes=(0, None))(keys, hidden_fraction)
    return inputs

  return make_inputs


_KINDS: dict[str, Callable[[ExperimentConfig], Objective]] = {
  'gaussian': _gaussian,
  'l2': _squared_errors,
  'elbo': _elbo,
  'photometric': _photometric,
}


def _regularizer_weights(loss: LossConfig) -> dict[str, float]:
  unlabelled = ('orthonormality', 'joint_limits', 'shape_prior', 'pose_prior')
  return {name: getattr(loss, name) for name in unlabelled}


def _no_inputs(batch: HandBatch, keys: Array | None) -> NetworkInputs:
  return {}
