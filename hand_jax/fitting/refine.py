"""Fits a hand model to the evidence of a photo, and estimates its uncertainty.

Damped Gauss-Newton steps find the most probable hand, over MANO's parameters, the camera and the
alignment of both sets of 3D points. If a mask of the hand is known, further steps compare outlines.
The uncertainty is the Laplace covariance at the last hand. Only right hands are fitted, so the
caller mirrors a left hand's photo.
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
  PinholeView,
  focal_residual,
  heads_residuals,
  image_residuals,
  project_view,
  view_position,
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
  unpack_hand,
  unpack_unknowns,
)
from hand_jax.fitting.levenberg_marquardt import (
  Minimum,
  Residuals,
  laplace_factor,
  minimize,
)
from hand_jax.fitting.outline import (
  OUTLINE_POINTS,
  HandOutline,
  add_vertices,
  outline_residuals,
)
from hand_jax.geometry.precision import full_precision
from hand_jax.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from hand_jax.mano.jacobian import mano_derivatives, posed_joints_and_vertices
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.types import ArrayLike, HandParameters, ManoModel

_MM_PER_M = 1000.0
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
  outline_steps: int = 8
  """The number of further steps after each comparison of outlines."""


DEFAULT_SETTINGS = RefineSettings()


class RefinedHand(NamedTuple):
  """The most probable right hand and its uncertainty.

  The covariances are those of the Laplace approximation: a Gaussian around the most probable hand,
  whose inverse covariance is the curvature of evidence and prior there. They follow from the
  assumed errors of the evidence, and assume that the points' errors are independent and the model
  is right. They are not measured errors. `sigma_calibration.py` scales those of vertices and joints
  in space to the size of measured errors.
  """

  parameters: HandParameters
  """Those of the right hand in camera axes. `transl` puts the regressed wrist at the origin."""
  vertices: Float[ArrayLike, '*batch vertices 3']
  """Metres, camera axes, with the regressed wrist at the origin."""
  joints: Float[ArrayLike, '*batch 21 3']
  """The joints B V in the same frame."""
  joints_image: Float[ArrayLike, '*batch 21 2']
  """The joints' projections in pixels of the photo."""
  vertices_image: Float[ArrayLike, '*batch vertices 2']
  """The vertices' projections by the same pinhole."""
  pixels_per_metre: Float[ArrayLike, '*batch']
  """The scale of weak perspective. This times a point's x and y, plus the wrist's pixel, is about
  the point's pixel."""
  wrist_camera: Float[ArrayLike, '*batch 3']
  """The estimated wrist in camera space, in metres. Add it to vertices and joints to place them."""
  focal_length: Float[ArrayLike, '*batch']
  """The estimated focal length in pixels. With it, `principal_point` and `wrist_camera`, a pinhole
  projects the joints to `joints_image`."""
  principal_point: Float[ArrayLike, '*batch 2']
  """Pixels of the photo."""
  vertex_covariance: Float[ArrayLike, '*batch vertices 3 3']
  """Square metres. The covariance is that of wrist-relative `vertices`, and includes the uncertain
  orientation."""
  joint_covariance: Float[ArrayLike, '*batch 21 3 3']
  """The same for `joints`."""
  joint_image_covariance: Float[ArrayLike, '*batch 21 2 2']
  """Square pixels, of `joints_image`. It includes the uncertain place and camera."""
  wrist_depth_sigma: Float[ArrayLike, '*batch']
  """Metres, the deviation of the depth in `wrist_camera`. Photos hardly determine it, so it mostly
  follows from the priors of focal length, distance and size."""
  vertex_sigma_mm: Float[ArrayLike, '*batch vertices']
  """The root of the mean of the three variances."""
  joint_sigma_mm: Float[ArrayLike, '*batch 21']
  """The same for `joints`."""
  energy: Float[ArrayLike, '*batch']
  """Twice the negative log-posterior at the minimum, up to a constant."""
  unknowns: Float[ArrayLike, '*batch unknowns']
  """The whitened unknowns at the minimum, from which `refine_to_outlines` continues."""


def refine_hands(
  model: ManoModel,
  evidence: HandEvidence,
  prior: HandPrior,
  settings: RefineSettings = DEFAULT_SETTINGS,
) -> RefinedHand:
  """Fits the model to the evidence of each hand of a batch.

  Hands do not affect each other. Only two programs are compiled, one for a single hand and one for
  groups of eight.

  Args:
    model: a right hand's model. It must not be a traced value.
    evidence: the observations, with one leading axis over hands.
    prior: the prior of pose and shape.
    settings: the robustness and the number of steps.

  Returns:
    NumPy arrays with the same leading axis.
  """
  fit = functools.partial(_fit_program(settings.steps), model, joint_vertices_only(model))
  return _in_chunks(fit, prior, settings, (evidence,))


def refine_to_outlines(
  model: ManoModel,
  evidence: HandEvidence,
  outlines: HandOutline,
  found: RefinedHand,
  prior: HandPrior,
  settings: RefineSettings = DEFAULT_SETTINGS,
) -> RefinedHand:
  """Continues the fit of each hand of a batch, with its outline as further evidence.

  Args:
    model: a right hand's model. It must not be a traced value.
    evidence: the observations, with one leading axis over hands.
    outlines: the outlines, with the same axis. They were compared with the meshes of `found`.
    found: the result of `refine_hands` for the same evidence, or of this function.
    prior: the prior of pose and shape.
    settings: the robustness and the number of steps.

  Returns:
    NumPy arrays with the same leading axis.
  """
  fit = functools.partial(
    _outline_program(settings.outline_steps), model, joint_vertices_only(model)
  )
  return _in_chunks(fit, prior, settings, (evidence, outlines, found.unknowns))


def _in_chunks(
  fit: Callable[..., RefinedHand], prior: HandPrior, settings: RefineSettings, hands: Any
) -> RefinedHand:
  """Calls a compiled fit on one hand or on groups of hands, and joins the results."""
  count = len(jax.tree.leaves(hands)[0])
  chunk = 1 if count == 1 else _CHUNK
  prior, robust_limit = jax.tree.map(np.float32, prior), np.float32(settings.robust_limit)
  parts = []
  # A batch without hands still has arrays of the right shapes.
  for first in range(0, max(count, 1), chunk):
    rows = np.minimum(np.arange(first, first + chunk), max(count - 1, 0))
    part = jax.tree.map(lambda field: _rows(field, rows), hands)  # noqa: B023
    parts.append(fit(prior, robust_limit, *part))
  return jax.tree.map(lambda *fields: np.concatenate(fields)[:count], *parts)


def _rows(field: ArrayLike, rows: np.ndarray) -> np.ndarray:
  field = np.asarray(field)
  field = field if field.dtype == np.int32 else field.astype(np.float32)
  return field[rows] if len(field) else np.zeros((len(rows), *field.shape[1:]), field.dtype)


_TYPES = (ManoModel, HandEvidence, HandOutline, HandPrior, RefinedHand, HandParameters)


@functools.cache
def _fit_program(steps: int) -> Callable[..., RefinedHand]:
  """Compiles the fit with this number of steps."""
  return keep_traced(f'fit_{steps}', functools.partial(_refine_batch, steps=steps), _TYPES)


@functools.cache
def _outline_program(steps: int) -> Callable[..., RefinedHand]:
  """Compiles the continued fit with this number of steps."""
  name = f'fit_outline_{steps}'
  return keep_traced(name, functools.partial(_refine_batch_to_outlines, steps=steps), _TYPES)


@full_precision
def _refine_batch(
  model: ManoModel,
  reduced: ManoModel,
  prior: HandPrior,
  robust_limit: Array,
  evidence: HandEvidence,
  steps: int,
) -> RefinedHand:
  def refine(evidence: HandEvidence) -> RefinedHand:
    start = rough_start(reduced, evidence)
    residual_fn = functools.partial(hand_residuals, reduced, evidence, start, prior)
    zeros = jnp.zeros(CIRCUMSTANCES + hand_unknown_count(model))
    minimum = minimize(residual_fn, zeros, steps, robust_limit)
    return _posterior(model, evidence, start, prior, minimum)

  return jax.vmap(refine)(evidence)


@full_precision
def _refine_batch_to_outlines(
  model: ManoModel,
  reduced: ManoModel,
  prior: HandPrior,
  robust_limit: Array,
  evidence: HandEvidence,
  outlines: HandOutline,
  unknowns: Float[Array, 'hands unknowns'],
  steps: int,
) -> RefinedHand:
  def refine(evidence: HandEvidence, outline: HandOutline, unknowns: Array) -> RefinedHand:
    start = rough_start(reduced, evidence)
    outlined = add_vertices(reduced, model, jnp.asarray(outline.vertices))
    residual_fn = functools.partial(
      hand_residuals, outlined, evidence, start, prior, outline=outline
    )
    minimum = minimize(residual_fn, unknowns, steps, robust_limit)
    return _posterior(model, evidence, start, prior, minimum)

  return jax.vmap(refine)(evidence, outlines, unknowns)


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
  joints = _centred(turned)
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


def _centred(joints: Array) -> Array:
  """Moves the joints' mean, which the view and the alignments place, to the origin."""
  return joints - joints.mean(axis=0, keepdims=True)


def _posterior(
  model: ManoModel,
  evidence: HandEvidence,
  start: FitStart,
  prior: HandPrior,
  minimum: Minimum,
) -> RefinedHand:
  """Computes the whole mesh at the minimum, and propagates the unknowns' covariance to it."""
  circumstances, hand_unknowns = jnp.split(minimum.unknowns, [CIRCUMSTANCES])

  def view_of(circumstances: Float[Array, ' circumstances']) -> PinholeView:
    unknowns = jnp.concatenate([circumstances, hand_unknowns])
    return unpack_unknowns(unknowns, model, start, prior).view

  # A triangular factor: the hand depends on the last standard normal numbers alone.
  whole_factor = laplace_factor(minimum, len(minimum.unknowns))
  hand_factor = whole_factor[CIRCUMSTANCES:, CIRCUMSTANCES:]
  numbers_fn = functools.partial(_hand_numbers, model=model, start=start, prior=prior)
  numbers, push = jax.linearize(numbers_fn, hand_unknowns)
  parameters = _hand_parameters(numbers)
  mesh = mano_derivatives(model, parameters)
  factor = jax.vmap(push, in_axes=1, out_axes=1)(hand_factor)
  regressor = extended_joint_regressor(model)
  joints = regressor @ mesh.vertices
  vertex_factor = mesh.derivatives @ factor
  joint_factor = jnp.einsum('kv,vcp->kcp', regressor, vertex_factor)
  vertex_covariance = _covariance(vertex_factor - joint_factor[:1])
  joint_covariance = _covariance(joint_factor - joint_factor[:1])
  principal_point, view = jnp.asarray(evidence.principal_point), view_of(circumstances)
  pixel_factor, depth_factor = _seen_factors(
    view_of,
    principal_point,
    circumstances,
    _centred(joints),
    whole_factor[:CIRCUMSTANCES],
    _centred(joint_factor),
  )
  return RefinedHand(
    parameters=parameters._replace(transl=-joints[0]),
    vertices=mesh.vertices - joints[:1],
    joints=joints - joints[:1],
    joints_image=project_view(view, _centred(joints), principal_point),
    vertices_image=project_view(
      view, mesh.vertices - joints.mean(axis=0, keepdims=True), principal_point
    ),
    pixels_per_metre=jnp.exp(view.log_pixels_per_metre),
    wrist_camera=view_position(view, principal_point) + _centred(joints)[0],
    focal_length=jnp.exp(view.log_pixels_per_metre + view.log_distance),
    principal_point=evidence.principal_point,
    vertex_covariance=vertex_covariance,
    joint_covariance=joint_covariance,
    joint_image_covariance=_covariance(pixel_factor),
    wrist_depth_sigma=jnp.sqrt(jnp.sum(depth_factor**2)),
    vertex_sigma_mm=_sigma_mm(vertex_covariance),
    joint_sigma_mm=_sigma_mm(joint_covariance),
    energy=minimum.energy,
    unknowns=minimum.unknowns,
  )


def _seen_factors(
  view_fn: Callable[[Array], PinholeView],
  principal_point: Float[ArrayLike, '2'],
  circumstances: Float[Array, ' circumstances'],
  joints: Float[Array, '21 3'],
  factor: Float[Array, 'circumstances unknowns'],
  joint_factor: Float[Array, '21 3 hand_unknowns'],
) -> tuple[Float[Array, '21 2 unknowns'], Float[Array, ' unknowns']]:
  """Computes factors of the covariance of the joints' pixels, and of the wrist's depth in metres.

  Args:
    view_fn: gives the view by the unknowns of the circumstances.
    principal_point: pixels.
    circumstances: the unknowns of the circumstances.
    joints: metres, camera axes, relative to the hand's centre.
    factor: the circumstances' rows of the factor of all unknowns.
    joint_factor: the joints' factor. It is zero for the standard normal numbers before its own.
  """

  def seen(circumstances: Array, joints: Array) -> tuple[Array, Array]:
    view = view_fn(circumstances)
    depth = view_position(view, principal_point)[2] + joints[0, 2]
    return project_view(view, joints, principal_point), depth

  _, push = jax.linearize(seen, circumstances, joints)
  missing = factor.shape[1] - joint_factor.shape[2]
  joint_factor = jnp.pad(joint_factor, ((0, 0), (0, 0), (missing, 0)))
  return jax.vmap(push, in_axes=-1, out_axes=-1)(factor, joint_factor)


def _hand_numbers(
  unknowns: Float[Array, ' hand_unknowns'], model: ManoModel, start: FitStart, prior: HandPrior
) -> Float[Array, ' parameters']:
  """Gives MANO's parameters in camera axes, in the order of `MeshDerivatives`."""
  hand = unpack_hand(unknowns, model, prior)
  turned = start.rotation @ axis_angle_to_matrix(hand.global_orient)
  return jnp.concatenate([matrix_to_axis_angle(turned), hand.hand_pose, hand.betas])


def _hand_parameters(numbers: Float[Array, ' parameters']) -> HandParameters:
  global_orient, hand_pose, betas = jnp.split(numbers, [3, 48])
  return HandParameters(global_orient, hand_pose, betas, jnp.zeros(3, numbers.dtype))


def _covariance(factor: Float[Array, 'points axes numbers']) -> Float[Array, 'points axes axes']:
  # As a batch of tiny matrix products this would be many times slower.
  return jnp.sum(factor[:, :, None] * factor[:, None], axis=-1)


def _sigma_mm(covariance: Float[Array, 'points 3 3']) -> Float[Array, ' points']:
  return _MM_PER_M * jnp.sqrt(jnp.trace(covariance, axis1=-2, axis2=-1) / 3)
