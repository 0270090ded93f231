"""Fits a hand model to the evidence of a photo: evidence and prior -> residuals -> posterior.

The most probable hand is found by damped Gauss-Newton steps over MANO's parameters, the camera and
the alignment of the network's world points. Its uncertainty is the Laplace covariance there. Right
hands only: the caller mirrors a left hand's photo.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.geometry.rotations import matrix_to_axis_angle
from hand_jax.mano.model import mano_forward, regress_joints
from hand_jax.reconstruction.evidence import (
  HandEvidence,
  PinholeView,
  focal_residual,
  image_residuals,
  project_view,
  world_residuals,
)
from hand_jax.reconstruction.hand_unknowns import (
  FitStart,
  HandPrior,
  HandUnknowns,
  hand_unknown_count,
  joint_vertices_only,
  limit_excess,
  rough_start,
  unknown_count,
  unpack_unknowns,
)
from hand_jax.reconstruction.levenberg_marquardt import (
  Residuals,
  laplace_factor,
  minimize,
)
from hand_jax.types import ArrayLike, HandParameters, ManoModel

_MM_PER_M = 1000.0
# How softly the limits of the joints' ranges hold.
_LIMIT_SIGMA_DEG = 4.0
# Without intrinsics: phones, webcams and crops of their photos have 0.7 to 2 times the larger side.
_FOCAL_PER_SIDE, _LOG_FOCAL_SIGMA = 1.2, 0.5
_KNOWN_LOG_FOCAL_SIGMA = 0.01


class RefineSettings(NamedTuple):
  """What the fit believes of its evidence and of hands."""

  world_sigma_mm: float = 6.0
  image_sigma_mm: float = 6.0
  pose_sigma: float = 2.0
  shape_sigma: float = 4.0
  world_turn_sigma_deg: float = 30.0
  robust_limit: float = 1.0
  steps: int = 12


class RefinedHand(NamedTuple):
  parameters: HandParameters
  vertices: Float[Array, '*batch vertices 3']
  joints: Float[Array, '*batch 21 3']
  joints_image: Float[Array, '*batch 21 2']
  pixels_per_metre: Float[Array, '*batch']
  wrist_camera: Float[Array, '*batch 3']
  focal_length: Float[Array, '*batch']
  vertex_covariance: Float[Array, '*batch vertices 3 3']
  joint_covariance: Float[Array, '*batch 21 3 3']
  energy: Float[Array, '*batch']


def landmark_evidence(points_image, points_world, photo_size, settings=RefineSettings(), intrinsics=None):
  points_image = np.asarray(points_image, np.float32)
  points_world = np.asarray(points_world, np.float32)
  ci = points_image - points_image.mean(-2, keepdims=True); cw = points_world - points_world.mean(-2, keepdims=True)
  ppm = np.sqrt((ci**2).sum((-1,-2)) / (cw[..., :2]**2).sum((-1,-2)))
  ones = np.ones(points_image.shape[:-1], np.float32)
  b = points_image.shape[:-2]
  w, h = photo_size
  if intrinsics is None:
    pp = np.array([w / 2, h / 2]); lf = math.log(_FOCAL_PER_SIDE * max(w, h)); ls = _LOG_FOCAL_SIGMA
    pp = np.broadcast_to(pp, (*b, 2)); lf = np.full(b, lf); ls = np.full(b, ls)
  else:
    pp = intrinsics[..., :2, 2]; lf = np.log(intrinsics[..., 0, 0]); ls = np.full(b, _KNOWN_LOG_FOCAL_SIGMA)
  f = lambda x: np.asarray(x, np.float32)
  return HandEvidence(points_image, f(ones * settings.image_sigma_mm / 1000 * ppm[..., None]),
    points_world, f(ones * settings.world_sigma_mm / 1000), f(pp), f(lf), f(ls))


def _residuals(model, evidence, start, prior, unknowns):
  hand = unpack_unknowns(unknowns, model, start, prior)
  joints = regress_joints(model, mano_forward(model, hand.parameters).vertices)
  centred = joints - joints.mean(0, keepdims=True)
  return Residuals((image_residuals(evidence, hand.view, centred), world_residuals(evidence, hand.alignment, centred)),
    jnp.concatenate([unknowns, limit_excess(hand.parameters.hand_pose) / _LIMIT_SIGMA_DEG, focal_residual(evidence, hand.view)[None]]))


@functools.partial(jax.jit, static_argnames=('steps',))
def _refine(model, reduced, evidence, prior, robust_limit, steps):
  def one(evidence):
    start = rough_start(reduced, evidence)
    fn = functools.partial(_residuals, reduced, evidence, start, prior)
    minimum = minimize(fn, jnp.zeros(unknown_count(model)), steps, robust_limit)
    factor = laplace_factor(fn, minimum.unknowns, robust_limit)
    count = hand_unknown_count(model)
    def shape(x):
      hand = unpack_unknowns(x, model, start, prior)
      v = mano_forward(model, hand.parameters).vertices
      j = regress_joints(model, v)
      return v - j[:1], j - j[:1]
    (v, j), push = jax.linearize(shape, minimum.unknowns)
    # Leading block of C has the factor F[:count]; a square factor of it saves columns.
    cov = factor[:count] @ factor.T[:, :count]
    low = jnp.linalg.cholesky(cov)
    dv, dj = jax.vmap(push)(jnp.pad(low.T, ((0, 0), (0, unknown_count(model) - count))))
    hand = unpack_unknowns(minimum.unknowns, model, start, prior)
    cv = jnp.einsum('nva,nvb->vab', dv, dv); cj = jnp.einsum('nva,nvb->vab', dj, dj)
    c = j.mean(0, keepdims=True)
    d = jnp.exp(hand.view.log_distance); ppm = jnp.exp(hand.view.log_pixels_per_metre)
    slope = (hand.view.centre - evidence.principal_point) / (ppm * d)
    X0 = jnp.concatenate([slope * d, d[None]])
    return RefinedHand(hand.parameters, v, j, project_view(hand.view, j - c, evidence.principal_point), ppm, X0 - c[0], ppm * d, cv, cj, minimum.energy), hand
  return jax.vmap(one)(evidence)


def refine_hands(model, evidence, settings=RefineSettings()):
  reduced = joint_vertices_only(model)
  prior = HandPrior(jnp.float32(settings.pose_sigma), jnp.float32(settings.shape_sigma), jnp.float32(np.deg2rad(settings.world_turn_sigma_deg)))
  return _refine(model, reduced, evidence, prior, jnp.float32(settings.robust_limit), settings.steps)
