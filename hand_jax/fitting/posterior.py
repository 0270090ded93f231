"""The result of a fit: the most probable hand, its mesh, and their Laplace covariance."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hand_jax.fitting.evidence import HandEvidence, PinholeView, project_view, view_position
from hand_jax.fitting.hand_unknowns import (
  CIRCUMSTANCES,
  FitStart,
  HandPrior,
  unpack_hand,
  unpack_unknowns,
)
from hand_jax.fitting.levenberg_marquardt import Minimum, laplace_factor
from hand_jax.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from hand_jax.mano.jacobian import mano_derivatives
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.types import ArrayLike, HandParameters, ManoModel

_MM_PER_M = 1000.0


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


def centred(joints: Float[Array, '21 *axes']) -> Float[Array, '21 *axes']:
  """Moves the joints' mean, which the view and the alignments place, to the origin."""
  return joints - joints.mean(axis=0, keepdims=True)


def hand_posterior(
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
    centred(joints),
    whole_factor[:CIRCUMSTANCES],
    centred(joint_factor),
  )
  return RefinedHand(
    parameters=parameters._replace(transl=-joints[0]),
    vertices=mesh.vertices - joints[:1],
    joints=joints - joints[:1],
    joints_image=project_view(view, centred(joints), principal_point),
    vertices_image=project_view(
      view, mesh.vertices - joints.mean(axis=0, keepdims=True), principal_point
    ),
    pixels_per_metre=jnp.exp(view.log_pixels_per_metre),
    wrist_camera=view_position(view, principal_point) + centred(joints)[0],
    focal_length=jnp.exp(view.log_pixels_per_metre + view.log_distance),
    principal_point=evidence.principal_point,
    vertex_covariance=vertex_covariance,
    joint_covariance=joint_covariance,
    joint_image_covariance=_covariance(pixel_factor),
    wrist_depth_sigma=jnp.sqrt(jnp.sum(depth_factor**2)),
    vertex_sigma_mm=sigma_mm(vertex_covariance),
    joint_sigma_mm=sigma_mm(joint_covariance),
    energy=minimum.energy,
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


def sigma_mm(covariance: Float[ArrayLike, 'points 3 3']) -> Float[ArrayLike, ' points']:
  """Computes the root of the mean of a point's three variances, in mm."""
  variances = covariance[..., 0, 0] + covariance[..., 1, 1] + covariance[..., 2, 2]
  return _MM_PER_M * (variances / 3) ** 0.5
