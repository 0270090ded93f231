"""The unknowns of a fit, as numbers with the prior N(0, 1).

They describe a hand, its camera and the alignments of 3D points. A vector of zeros is the prior's
mean: the mean pose and the mean shape, turned and placed by a rough start. Every unknown is scaled
by its prior's deviation. Thus the vector itself is the prior's residual, and one damping fits all
unknowns.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.fitting.evidence import Alignment, HandEvidence, PinholeView
from hand_jax.mano.anatomy import (
  LOWER_LIMITS,
  UPPER_LIMITS,
  angles_to_pose,
  pose_to_angles,
)
from hand_jax.mano.model import regress_joints
from hand_jax.types import ArrayLike, HandParameters, ManoModel

# These joints hardly move relative to each other, so they give the orientation of the first guess.
_PALM = np.asarray([0, 1, 5, 9, 13, 17], np.int32)
# These priors around the start are weak. They only keep unknowns bounded that no evidence decides.
_TURN_SIGMA = math.pi / 2
_SHIFT_SIGMA_M = 0.1
_LOG_PIXELS_SIGMA = 1.0
# A hand is about an arm's length away from the camera.
_LOG_DISTANCE, _LOG_DISTANCE_SIGMA = math.log(0.5), 0.3
# The network's world points are turned roughly as if the camera looked straight at the crop. Their
# size in metres is that of an average hand.
_WORLD_TURN_SIGMA = math.radians(30.0)
_LOG_WORLD_SCALE_SIGMA = 0.15
# The heads were trained in camera axes. Away from the photo's centre, a crop shows the hand a
# little turned.
_HEADS_TURN_SIGMA = 0.15
_LOG_HEADS_SCALE_SIGMA = 0.1
_SMALLEST_SPREAD = 1e-6


class HandPrior(NamedTuple):
  """The prior over hands: a Gaussian over joint angles, and the deviation of shape numbers."""

  pose_mean: Float[ArrayLike, '45']
  """Anatomical angles in degrees, see `pose_to_angles`."""
  pose_factor: Float[ArrayLike, '45 45']
  """A factor F of their covariance F F^T."""
  shape_sigma: Float[ArrayLike, '']
  """Standard deviation of each shape number, in units of the model's own deviations."""


class FitStart(NamedTuple):
  """A rough guess from the evidence. The unknowns of turn, place and size are relative to it."""

  rotation: Float[Array, '3 3']
  """Takes the hand in zero orientation to camera axes, for column vectors."""
  centre: Float[Array, '2']
  """The pixel of the hand's centre."""
  log_pixels_per_metre: Float[Array, '']
  """Logarithm of the pixels that a metre covers at the hand's centre."""


class HandUnknowns(NamedTuple):
  """The unknowns of a fit by name and in their units."""

  view: PinholeView
  world: Alignment
  """The transform from the hand to the landmark network's world points."""
  heads: Alignment
  """The transform from the hand to the heads' joints."""
  parameters: HandParameters
  """The rotation `global_orient` is applied before the start's. The rotation to camera axes is
  `start.rotation @ matrix(global_orient)`."""


CIRCUMSTANCES = 18
"""The number of unknowns of the view and the alignments, which come before those of the hand."""


def hand_unknown_count(model: ManoModel) -> int:
  """Counts the unknowns of the hand, which are its turn, pose and shape and come last."""
  return 48 + model.shapedirs.shape[-1]


def unpack_unknowns(
  unknowns: Float[Array, ' unknowns'], model: ManoModel, start: FitStart, prior: HandPrior
) -> HandUnknowns:
  """Gives the whitened unknowns their names and units.

  Args:
    unknowns: first those of the view and of both alignments, then `hand_unknown_count` of the hand.
    model: the hand model.
    start: the guess that turn, place and size are relative to.
    prior: the prior of pose and shape.

  Returns:
    The unknowns by name. `transl` is zero.
  """
  centre, pixels, distance, world, heads, hand = jnp.split(
    unknowns, np.cumsum([2, 1, 1, 7, 7]).tolist()
  )
  # One standard deviation of the centre is about a hand's width.
  centre_sigma = _SHIFT_SIGMA_M * jnp.exp(start.log_pixels_per_metre)
  return HandUnknowns(
    PinholeView(
      centre=start.centre + centre_sigma * centre,
      log_pixels_per_metre=start.log_pixels_per_metre + _LOG_PIXELS_SIGMA * pixels[0],
      log_distance=_LOG_DISTANCE + _LOG_DISTANCE_SIGMA * distance[0],
    ),
    _alignment(world, _WORLD_TURN_SIGMA, _LOG_WORLD_SCALE_SIGMA),
    _alignment(heads, _HEADS_TURN_SIGMA, _LOG_HEADS_SCALE_SIGMA),
    unpack_hand(hand, model, prior),
  )


def _alignment(unknowns: Float[Array, '7'], turn_sigma: float, log_scale_sigma: float) -> Alignment:
  return Alignment(
    turn=turn_sigma * unknowns[:3],
    shift=_SHIFT_SIGMA_M * unknowns[3:6],
    log_scale=log_scale_sigma * unknowns[6],
  )


def unpack_hand(
  unknowns: Float[Array, ' hand_unknowns'], model: ManoModel, prior: HandPrior
) -> HandParameters:
  """Maps the hand's whitened unknowns to MANO parameters. The map is affine.

  Args:
    unknowns: the turn, the pose and the shape.
    model: the hand model.
    prior: the prior of pose and shape.

  Returns:
    The parameters of `HandUnknowns`. `transl` is zero.
  """
  turn, pose, shape = jnp.split(unknowns, [3, 48])
  angles = (jnp.asarray(prior.pose_mean) + prior.pose_factor @ pose).reshape(15, 3)
  return HandParameters(
    global_orient=_TURN_SIGMA * turn,
    hand_pose=angles_to_pose(angles),
    betas=jnp.asarray(prior.shape_sigma) * shape,
    transl=jnp.zeros(3, unknowns.dtype),
  )


def limit_excess(hand_pose: Float[Array, '45']) -> Float[Array, '45']:
  """Computes by how many degrees each joint angle is beyond its limits, 0 inside them."""
  angles = pose_to_angles(hand_pose)
  excess = jax.nn.relu(LOWER_LIMITS - angles) + jax.nn.relu(angles - UPPER_LIMITS)
  return excess.reshape(-1)


def rough_start(model: ManoModel, evidence: HandEvidence) -> FitStart:
  """Guesses a start: the palm is turned to the world points, and placed on the image points.

  Only known points count. Where they are too few, the guess is the template's orientation, the
  principal point and one pixel per millimetre.
  """
  rest = regress_joints(model, model.v_template)
  world, world_known = _known(evidence.points_world, evidence.world_sigma)
  image, image_known = _known(evidence.points_image, evidence.image_sigma)
  both = world_known * image_known
  world_spread, image_spread = _spread(world[:, :2], both), _spread(image, both)
  ratio = image_spread / jnp.maximum(world_spread, _SMALLEST_SPREAD)
  usable = (world_spread > _SMALLEST_SPREAD) & (image_spread > _SMALLEST_SPREAD)
  centre = _mean(image, image_known)
  return FitStart(
    rotation=_palm_rotation(rest[_PALM], world[_PALM], world_known[_PALM]),
    centre=jnp.where(image_known.sum() > 0, centre, jnp.asarray(evidence.principal_point)),
    log_pixels_per_metre=jnp.log(jnp.where(usable, jnp.where(usable, ratio, 1.0), 1000.0)),
  )


def _known(points: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
  """Sets unknown points to zero, and gives 1 for known points and 0 for the others."""
  known = jnp.isfinite(jnp.asarray(sigma))
  return jnp.where(known[:, None], points, 0.0), known.astype(points.dtype)


def _mean(points: Array, weights: Array) -> Array:
  return weights @ points / jnp.maximum(weights.sum(), 1.0)


def _spread(points: Array, weights: Array) -> Array:
  """Computes the root mean square distance from the mean."""
  centred = points - _mean(points, weights)[None]
  squared = weights @ jnp.sum(centred**2, axis=-1) / jnp.maximum(weights.sum(), 1.0)
  return jnp.sqrt(squared)


def _palm_rotation(rest: Array, observed: Array, weights: Array) -> Array:
  """Finds the rotation that takes the resting palm nearest to the observed one (Kabsch 1976)."""
  centred_rest = rest - _mean(rest, weights)[None]
  centred = observed - _mean(observed, weights)[None]
  covariance = (weights[:, None] * centred).T @ centred_rest
  left, _, right = jnp.linalg.svd(covariance)
  sign = jnp.linalg.det(left @ right)
  rotation = (left * jnp.stack([jnp.ones_like(sign)] * 2 + [sign])[None]) @ right
  # Fewer than three points do not determine an orientation.
  return jnp.where(weights.sum() >= 3, rotation, jnp.eye(3, dtype=rest.dtype))


def joint_vertices_only(model: ManoModel) -> ManoModel:
  """Keeps only the vertices that the joints B V depend on, about an eighth of them.

  The joints B V are those of the whole model. The faces are unchanged and do not fit the vertices,
  so do not draw this model. It must not be called under a JAX trace. The results for the last
  models are kept, because each fit of a photo asks for them several times.
  """
  return _joint_vertices_only(_SameModel(model))


class _SameModel:
  """A model that equals itself alone, because arrays have no hash to look them up by."""

  def __init__(self, model: ManoModel):
    self.model = model

  def __hash__(self) -> int:
    return id(self.model)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, _SameModel) and other.model is self.model


@functools.lru_cache(maxsize=4)
def _joint_vertices_only(whole: _SameModel) -> ManoModel:
  # Work on the host: compiling these array operations one by one would cost more than the fit.
  model = jax.tree.map(np.asarray, whole.model)
  touched = np.any(model.joint_regressor != 0, axis=0)
  touched[model.fingertip_vertices] = True
  position = np.cumsum(touched, dtype=np.int32) - 1
  reduced = model._replace(
    v_template=model.v_template[touched],
    shapedirs=model.shapedirs[touched],
    posedirs=model.posedirs[touched],
    joint_regressor=model.joint_regressor[:, touched],
    lbs_weights=model.lbs_weights[touched],
    fingertip_vertices=position[model.fingertip_vertices],
  )
  return jax.tree.map(jnp.asarray, reduced)
