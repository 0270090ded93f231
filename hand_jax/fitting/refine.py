"""Fits a hand model to the evidence of a photo, and estimates its uncertainty.

Damped Gauss-Newton steps find the most probable hand, over MANO's parameters, the camera and the
alignment of both sets of 3D points (`fit_hands`). If a mask of the hand is known, further steps
compare outlines (`fit_to_outlines`). The uncertainty is the Laplace covariance at the last hand
(`hand_posteriors`). Only right hands are fitted, so the caller mirrors a left hand's photo.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.files.traced_programs import keep_traced
from hand_jax.fitting.evidence import (
  HandEvidence,
  focal_residual,
  heads_residuals,
  image_residuals,
  project_view,
  world_residuals,
)
from hand_jax.fitting.hand_unknowns import (
  CIRCUMSTANCES,
  FitStart,
  HandPrior,
  hand_unknown_count,
  joint_vertices_only,
  limit_excess,
  rough_start,
  unpack_unknowns,
)
from hand_jax.fitting.levenberg_marquardt import Minimum, Residuals, minimize
from hand_jax.fitting.outline import (
  OUTLINE_POINTS,
  HandOutline,
  add_vertices,
  outline_residuals,
)
from hand_jax.fitting.posterior import RefinedHand, centred, hand_posterior
from hand_jax.geometry.precision import full_precision
from hand_jax.mano.jacobian import posed_joints_and_vertices
from hand_jax.types import ArrayLike, HandParameters, ManoModel

# A joint angle this many degrees beyond its limits costs one standard deviation.
_LIMIT_SIGMA_DEG = 4.0
# Several hands go through the compiled fit in groups of this size.
_CHUNK = 8


class RefineSettings(NamedTuple):
  """Settings of the fit: its number of steps, and its robustness against bad points."""

  robust_limit: float = 1.0
  """The error in standard deviations above which a point counts linearly, so that one bad point
  does not spoil a hand."""
  steps: int = 12
  """The number of damped Gauss-Newton steps."""
  outline_steps: int = 5
  """The number of further steps after each comparison of outlines."""


DEFAULT_SETTINGS = RefineSettings()


class FitMinimum(NamedTuple):
  """The most probable hands of a fit, without their uncertainty."""

  minimum: Minimum
  """The whitened unknowns with the energy and the curvature there."""
  vertices_image: Float[ArrayLike, '*batch vertices 2']
  """The projected vertices in pixels of the photo."""


def refine_hands(
  model: ManoModel,
  evidence: HandEvidence,
  prior: HandPrior,
  settings: RefineSettings = DEFAULT_SETTINGS,
) -> RefinedHand:
  """Fits the model to the evidence of each hand of a batch, without outlines.

  Args:
    model: a right hand's model. It must not be a traced value.
    evidence: the observations, with one leading axis over hands.
    prior: the prior of pose and shape.
    settings: the robustness and the number of steps.

  Returns:
    NumPy arrays with the same leading axis.
  """
  return hand_posteriors(model, evidence, fit_hands(model, evidence, prior, settings), prior)


def fit_hands(
  model: ManoModel,
  evidence: HandEvidence,
  prior: HandPrior,
  settings: RefineSettings = DEFAULT_SETTINGS,
) -> FitMinimum:
  """Finds the most probable hand for the evidence of each hand of a batch.

  Hands do not affect each other. Only two programs are compiled, one for a single hand and one for
  groups of eight.

  Args:
    model: a right hand's model. It must not be a traced value.
    evidence: the observations, with one leading axis over hands.
    prior: the prior of pose and shape.
    settings: the robustness and the number of steps.

  Returns:
    Arrays with the same leading axis. One hand, or eight, may still be being computed.
  """
  fit = functools.partial(
    _fit_program(settings.steps),
    model,
    joint_vertices_only(model),
    jax.tree.map(np.float32, prior),
    np.float32(settings.robust_limit),
  )
  return _in_chunks(fit, (evidence,))


def fit_to_outlines(
  model: ManoModel,
  evidence: HandEvidence,
  outlines: HandOutline,
  found: FitMinimum,
  prior: HandPrior,
  settings: RefineSettings = DEFAULT_SETTINGS,
) -> FitMinimum:
  """Continues the fit of each hand of a batch, with its outline as further evidence.

  Args:
    model: a right hand's model. It must not be a traced value.
    evidence: the observations, with one leading axis over hands.
    outlines: the outlines, with the same axis. They were compared with the meshes of `found`.
    found: the result of `fit_hands` for the same evidence, or of this function.
    prior: the prior of pose and shape.
    settings: the robustness and the number of steps.

  Returns:
    NumPy arrays with the same leading axis.
  """
  fit = functools.partial(
    _outline_program(settings.outline_steps),
    model,
    joint_vertices_only(model),
    jax.tree.map(np.float32, prior),
    np.float32(settings.robust_limit),
  )
  return _in_chunks(fit, (evidence, outlines, found.minimum.unknowns))


def hand_posteriors(
  model: ManoModel, evidence: HandEvidence, found: FitMinimum, prior: HandPrior
) -> RefinedHand:
  """Computes the mesh and the uncertainty of each hand of a batch.

  Args:
    model: a right hand's model. It must not be a traced value.
    evidence: the observations, with one leading axis over hands.
    found: the result of `fit_hands` or `fit_to_outlines` for the same evidence.
    prior: the prior of pose and shape.

  Returns:
    NumPy arrays with the same leading axis.
  """
  program = functools.partial(
    _posterior_program(), model, joint_vertices_only(model), jax.tree.map(np.float32, prior)
  )
  return jax.tree.map(np.asarray, _in_chunks(program, (evidence, found.minimum)))


def _in_chunks(program: Callable[..., Any], hands: Any) -> Any:
  """Calls a compiled program on one hand or on groups of hands, and joins the results."""
  count = len(jax.tree.leaves(hands)[0])
  chunk = 1 if count == 1 else _CHUNK
  parts = []
  # A batch without hands still has arrays of the right shapes.
  for first in range(0, max(count, 1), chunk):
    rows = np.minimum(np.arange(first, first + chunk), max(count - 1, 0))
    part = jax.tree.map(lambda field: _rows(field, rows), hands)  # noqa: B023
    parts.append(program(*part))
  if len(parts) == 1 and count == chunk:
    return parts[0]  # still being computed
  return jax.tree.map(lambda *fields: np.concatenate(fields)[:count], *parts)


def _rows(field: ArrayLike, rows: np.ndarray) -> np.ndarray:
  field = np.asarray(field)
  field = field if field.dtype == np.int32 else field.astype(np.float32)
  return field[rows] if len(field) else np.zeros((len(rows), *field.shape[1:]), field.dtype)


_TYPES = (
  *(ManoModel, HandEvidence, HandOutline, HandPrior),
  *(Minimum, FitMinimum, RefinedHand, HandParameters),
)


@functools.cache
def _fit_program(steps: int) -> Callable[..., FitMinimum]:
  """Compiles the fit with this number of steps."""
  return keep_traced(f'fit_{steps}', functools.partial(_fit_batch, steps=steps), _TYPES)


@functools.cache
def _outline_program(steps: int) -> Callable[..., FitMinimum]:
  """Compiles the continued fit with this number of steps."""
  name = f'fit_outline_{steps}'
  return keep_traced(name, functools.partial(_fit_batch_to_outlines, steps=steps), _TYPES)


@functools.cache
def _posterior_program() -> Callable[..., RefinedHand]:
  """Compiles the uncertainty of a fit."""
  return keep_traced('fit_posterior', _posterior_batch, _TYPES)


@full_precision
def _fit_batch(
  model: ManoModel,
  reduced: ManoModel,
  prior: HandPrior,
  robust_limit: Array,
  evidence: HandEvidence,
  steps: int,
) -> FitMinimum:
  def fit(evidence: HandEvidence) -> FitMinimum:
    start = rough_start(reduced, evidence)
    residual_fn = functools.partial(hand_residuals, reduced, evidence, start, prior)
    zeros = jnp.zeros(CIRCUMSTANCES + hand_unknown_count(model))
    minimum = minimize(residual_fn, zeros, steps, robust_limit)
    return FitMinimum(minimum, _vertices_image(model, evidence, start, prior, minimum))

  return jax.vmap(fit)(evidence)


@full_precision
def _fit_batch_to_outlines(
  model: ManoModel,
  reduced: ManoModel,
  prior: HandPrior,
  robust_limit: Array,
  evidence: HandEvidence,
  outlines: HandOutline,
  unknowns: Float[Array, 'hands unknowns'],
  steps: int,
) -> FitMinimum:
  def fit(evidence: HandEvidence, outline: HandOutline, unknowns: Array) -> FitMinimum:
    start = rough_start(reduced, evidence)
    outlined = add_vertices(reduced, model, jnp.asarray(outline.vertices))
    residual_fn = functools.partial(
      hand_residuals, outlined, evidence, start, prior, outline=outline
    )
    minimum = minimize(residual_fn, unknowns, steps, robust_limit)
    return FitMinimum(minimum, _vertices_image(model, evidence, start, prior, minimum))

  return jax.vmap(fit)(evidence, outlines, unknowns)


@full_precision
def _posterior_batch(
  model: ManoModel,
  reduced: ManoModel,
  prior: HandPrior,
  evidence: HandEvidence,
  minimum: Minimum,
) -> RefinedHand:
  def posterior(evidence: HandEvidence, minimum: Minimum) -> RefinedHand:
    return hand_posterior(model, evidence, rough_start(reduced, evidence), prior, minimum)

  return jax.vmap(posterior)(evidence, minimum)


def _vertices_image(
  model: ManoModel, evidence: HandEvidence, start: FitStart, prior: HandPrior, minimum: Minimum
) -> Float[Array, 'vertices 2']:
  """Projects the vertices of one hand at the minimum to pixels of the photo."""
  hand = unpack_unknowns(minimum.unknowns, model, start, prior)
  joints, vertices = posed_joints_and_vertices(model, hand.parameters)
  turned = (vertices - joints.mean(axis=0, keepdims=True)) @ start.rotation.T
  return project_view(hand.view, turned, jnp.asarray(evidence.principal_point))


def hand_residuals(
  model: ManoModel,
  evidence: HandEvidence,
  start: FitStart,
  prior: HandPrior,
  unknowns: Float[Array, ' unknowns'],
  outline: HandOutline | None = None,
) -> Residuals:
  """Computes the residuals of evidence and prior at some unknowns, in standard deviations.

  Args:
    model: the hand model, or its part that `joint_vertices_only` keeps. With an outline, the
      outline's vertices come last (`add_vertices`).
    evidence: the observations of one hand.
    start: the guess that turn, place and size are relative to.
    prior: the prior of pose and shape.
    unknowns: see `unpack_unknowns`. They are also the residuals of the prior.
    outline: the outline of the hand as further evidence, or None.
  """
  hand = unpack_unknowns(unknowns, model, start, prior)
  joints, vertices = posed_joints_and_vertices(model, hand.parameters)
  turned = joints @ start.rotation.T
  joints = centred(turned)
  blocks = (
    image_residuals(evidence, hand.view, joints),
    world_residuals(evidence, hand.world, joints),
    heads_residuals(evidence, hand.heads, joints),
  )
  if outline is not None:
    points = vertices[-OUTLINE_POINTS:] @ start.rotation.T - turned.mean(axis=0, keepdims=True)
    principal_point = jnp.asarray(evidence.principal_point)
    blocks += (outline_residuals(outline, hand.view, points, principal_point),)
  return Residuals(
    blocks=blocks,
    plain=jnp.concatenate(
      [
        unknowns,
        limit_excess(jnp.asarray(hand.parameters.hand_pose)) / _LIMIT_SIGMA_DEG,
        focal_residual(evidence, hand.view)[None],
      ]
    ),
  )
