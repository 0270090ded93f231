"""Estimates one hand of a photo by a trained network: a mesh with sigma and colours."""

import hashlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from hand_jax.config import ExperimentConfig
from hand_jax.data.photos import centred_square, check_box
from hand_jax.data.upright import turn_upright
from hand_jax.fitting.detected import hand_in_box
from hand_jax.fitting.mesh_parameters import fit_parameters
from hand_jax.geometry.cameras import (
  camera_from_vector,
  camera_rotation,
  crop_affine,
  denormalize_points,
  mirror_affine,
  rotation_in_plane,
  scale_per_metre,
  transform_points,
)
from hand_jax.geometry.rotations import matrix_to_axis_angle
from hand_jax.geometry.warping import warp_image
from hand_jax.mano.assets import hand_model_name
from hand_jax.mano.model import extended_joint_regressor, mano_forward, regress_joints
from hand_jax.models.branches import branches_of
from hand_jax.models.estimating import estimate_images
from hand_jax.models.hand_network import create_network
from hand_jax.reconstruction.camera_placement import PhotoCamera, photo_camera, place_in_camera
from hand_jax.reconstruction.hand_data import MaskSource
from hand_jax.reconstruction.occlusion import near_hand_mask
from hand_jax.reconstruction.reconstruction import Reconstruction
from hand_jax.rendering.rasterize import visible_vertices
from hand_jax.runs.hand_models import load_run_model
from hand_jax.types import HandEstimate, HandGaussians, HandParameters, ManoModel

_MIRROR = np.array([-1.0, 1.0, 1.0])
_MM_PER_M = 1000.0


class TrainedNetwork(NamedTuple):
  """A trained network that is ready for photos.

  `estimate` takes one uint8 RGB crop of `image_size` and its hand mask, or None for the mask.
  """

  config: ExperimentConfig
  model: ManoModel
  estimate: Callable[[np.ndarray, np.ndarray | None], HandEstimate]
  run: str
  """The network's name in error messages: its run's folder, or the name of its config."""
  digest: str = ''
  """Identifies its parameters, independently of the name of the run's folder."""


class HandPhoto(NamedTuple):
  """An upright RGB photo, with the box, side, mask and camera that are known."""

  image: UInt8[np.ndarray, 'height width 3']
  box_xywh: Float[np.ndarray, '4'] | None = None
  """The hand's box in pixels, or None for the largest centred square."""
  side: str = 'right'
  name: str = 'the image'
  """The photo's name in error messages and captions."""
  hand_mask: Bool[np.ndarray, 'height width'] | None = None
  """True where the photo shows the hand, or None if that is not known."""
  camera: PhotoCamera | None = None
  """None: the focal length is assumed, see `photo_camera`."""
  landmarks_image: Float[np.ndarray, '21 2'] | None = None
  """The joints that the landmark network found, in pixels.

  They turn the crop of a run with `data.upright`. With None the landmark network is run on the box.
  """
  mask_source: MaskSource = 'given'


def load_trained_network(workdir: str | os.PathLike, mano_dir: str | None = None) -> TrainedNetwork:
  """Loads the newest checkpoint of a run and the hand model that it was trained with.

  The text 'release' means the run in the package.

  Raises:
    FileNotFoundError, ValueError: the run, its checkpoint or its hand model is missing or damaged.
  """
  # Import here, because Orbax takes a third of a second, and the bundled weights do not need it.
  from hand_jax.runs.checkpoints import load_for_inference

  # A path object `release` means a folder. Only the text means the run in the package.
  folder = workdir if isinstance(workdir, str) else os.path.join(os.curdir, workdir)
  config, variables = load_for_inference(folder)
  network = create_trained_network(config, variables, load_run_model(folder, mano_dir))
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(variables):
    digest.update(np.asarray(leaf).tobytes())
  return network._replace(run=str(workdir), digest=digest.hexdigest())


def create_trained_network(
  config: ExperimentConfig, variables: dict[str, Any], model: ManoModel
) -> TrainedNetwork:
  """Prepares a network for photos. The first photo compiles the program.

  Args:
    config: the config of the network.
    variables: its parameters and batch statistics.
    model: the hand model that it was trained with.
  """
  network = create_network(config)
  variables = jax.device_put(variables)

  def estimate(crop: np.ndarray, mask: np.ndarray | None) -> HandEstimate:
    masks = None if mask is None else mask[None]
    estimates = estimate_images(network, variables, crop[None], model, masks)
    return jax.tree.map(lambda field: field[0], jax.device_get(estimates))

  return TrainedNetwork(config, model, estimate, config.name)


def crop_of_photo(
  image: UInt8[np.ndarray, 'height width 3'],
  box_xywh: Float[np.ndarray, '4'] | None,
  config: ExperimentConfig,
  turn: float = 0.0,
) -> Float[np.ndarray, '3 3']:
  """Computes the affine from photo pixels to crop pixels.

  The crop is the square round the box as in training, or the largest centred square.

  Args:
    image: the photo.
    box_xywh: the hand's box in pixels, or None for the largest centred square.
    config: the config of the network.
    turn: the angle by which the picture is turned in the crop, in radians, from x (right) to y
      (down).
  """
  size = config.model.image_size
  if box_xywh is None:
    height, width = image.shape[:2]
    return crop_affine(centred_square(width, height), size, 1.0, turn)
  return crop_affine(np.asarray(box_xywh, np.float64), size, config.data.crop_factor, turn)


def reconstruct_in_box(network: TrainedNetwork, photo: HandPhoto) -> Reconstruction:
  """Estimates the hand in the box of an upright RGB photo, or in its largest centred square.

  The hand is the posterior's mean, or the prior's where the network is a prior-net alone.
  A run with `data.upright` sees the crop turned. Its estimate is turned back to the photo's axes.
  If `hand_mask` is known, a texture branch takes no colour from pixels outside it.

  Raises:
    ValueError: the box has no area or lies outside the image, the mask has another size, the side
      is neither 'left' nor 'right', or the estimate is not finite. The message names the photo.
  """
  return next(iter(reconstruct_branches(network, photo).values()))


def reconstruct_branches(network: TrainedNetwork, photo: HandPhoto) -> dict[str, Reconstruction]:
  """Reconstructs a hand by each branch of the network. The posterior comes first.

  Both hands have the same colours. The errors are those of `reconstruct_in_box`.
  """
  image, box_xywh, side, name, hand_mask, camera = photo[:6]
  height, width = image.shape[:2]
  if side not in ('right', 'left'):
    raise ValueError(f"hand is {side!r}, expected 'right' or 'left'.")
  if box_xywh is not None:
    check_box(np.asarray(box_xywh, np.float64), width, height, name)
  if hand_mask is not None:
    check_mask(hand_mask, width, height, name)
  config, is_left = network.config, side == 'left'
  seen_box = box_xywh
  if is_left and box_xywh is not None:
    seen_box = _mirror_box(box_xywh, width)
  # The network was trained on right hands only, so it gets the mirrored photo.
  seen = np.ascontiguousarray(image[:, ::-1]) if is_left else image
  turn = _upright_turn(photo) if config.data.upright else 0.0
  affine = crop_of_photo(seen, seen_box, config, turn)
  crop = warp_image(seen, affine, config.model.image_size)
  mask = None
  if hand_mask is not None and config.model.texture.enabled:
    seen_mask = hand_mask[:, ::-1] if is_left else hand_mask
    mask = warp_image(255 * seen_mask.astype(np.uint8), affine, config.model.image_size) > 127
  estimate = jax.tree.map(np.asarray, network.estimate(crop, mask))
  _check_fields_finite(estimate._asdict(), network.run, name)
  box = centred_square(width, height) if box_xywh is None else np.asarray(box_xywh, np.float64)
  if is_left:
    affine = affine @ mirror_affine(width)
  view = _PhotoView(photo, box, affine, turn, camera or photo_camera((width, height)))
  hands = {
    branch: _assemble(network, estimate, branch, gaussians, view)
    for branch, gaussians in branches_of(estimate).items()
  }
  for hand in hands.values():
    # Derived values, such as sigma, may overflow even if the network's outputs are finite.
    _check_fields_finite(vars(hand), network.run, name)
  return hands


def check_mask(
  hand_mask: np.ndarray, width: int, height: int, name: str, mask_name: str = 'hand_mask'
) -> None:
  """Checks that a mask is as large as its photo.

  Args:
    hand_mask: the mask.
    width: the width of the photo in pixels.
    height: the height of the photo in pixels.
    name: the name of the photo in the error message.
    mask_name: the name of the mask in the error message.

  Raises:
    ValueError: the sizes differ. The message names both.
  """
  if hand_mask.shape != (height, width):
    size = ' x '.join(str(length) for length in hand_mask.shape[::-1])
    raise ValueError(
      f'{mask_name} has {size} pixels, {name} {width} x {height}: a mask is as large as the photo '
      'it belongs to, upright.'
    )


def _check_fields_finite(fields: dict[str, Any], run: str, name: str) -> None:
  """Raises a ValueError that names photo and run if a number of the fields is not finite."""
  bad = [
    field
    for field, value in fields.items()
    if any(
      np.asarray(leaf).dtype.kind == 'f' and not np.isfinite(leaf).all()
      for leaf in jax.tree.leaves(value)
    )
  ]
  if bad:
    raise ValueError(
      f'The estimate of {run} for {name} is not finite ({", ".join(bad)}): its checkpoint is '
      'damaged or its training diverged. Nothing is written. Use another run.'
    )


def _upright_turn(photo: HandPhoto) -> float:
  """Computes the turn of an upright crop of the photo. The photo of a left hand is mirrored."""
  landmarks = photo.landmarks_image
  if landmarks is None:
    height, width = photo.image.shape[:2]
    box = centred_square(width, height) if photo.box_xywh is None else photo.box_xywh
    found = hand_in_box(photo.image, np.asarray(box, np.float64), photo.side)
    landmarks = found.landmarks_image
  turn = turn_upright(np.asarray(landmarks, np.float64))
  return -turn if photo.side == 'left' else turn


class _PhotoView(NamedTuple):
  """A photo, the hand's box, the affine to the crop, the crop's turn, and the photo's camera."""

  photo: HandPhoto
  box_xywh: np.ndarray
  photo_to_crop: np.ndarray
  turn: float
  camera: PhotoCamera


def _mirror_box(box_xywh: np.ndarray, width: int) -> np.ndarray:
  x, y, box_width, box_height = (float(value) for value in box_xywh)
  return np.array([width - x - box_width, y, box_width, box_height])


def _assemble(
  network: TrainedNetwork,
  estimate: HandEstimate,
  branch: str,
  gaussians: HandGaussians,
  view: _PhotoView,
) -> Reconstruction:
  model, side = network.model, network.config.model.image_size
  photo_to_crop, is_left = view.photo_to_crop, view.photo.side == 'left'
  height, width = view.photo.image.shape[:2]
  camera = camera_from_vector(jnp.asarray(estimate.camera.mean))
  # R takes the hand frame to the axes of the crop, which are then turned back to the photo's axes.
  rotation = np.asarray(camera_rotation(camera), np.float64) @ rotation_in_plane(view.turn)
  vertices = np.asarray(gaussians.vertices.mean, np.float64) @ rotation
  joints = np.asarray(extended_joint_regressor(model), np.float64) @ vertices
  vertices, joints = vertices - joints[:1], joints - joints[:1]
  parameters, error_mm = _wrist_relative(model, estimate.parameters, rotation), 0.0
  if branch != 'prior':
    parameters, error_mm = fit_parameters(model, vertices, parameters)
  mirror = _MIRROR if is_left else np.ones(3)
  vertices, joints = vertices * mirror, joints * mirror
  joints_crop = denormalize_points(np.asarray(gaussians.joints_normalized.mean, np.float64), side)
  crop_pixels_per_photo_pixel = abs(np.linalg.det(photo_to_crop[:2, :2])) ** 0.5
  crop_pixels_per_metre = float(scale_per_metre(camera)[0]) * side / 2
  joints_image = transform_points(np.linalg.inv(photo_to_crop), joints_crop)
  pixels_per_metre = crop_pixels_per_metre / crop_pixels_per_photo_pixel
  pixels = joints_image[:1] + pixels_per_metre * vertices[:, :2]
  spread = np.exp(np.asarray(gaussians.joints.log_variance, np.float64)) @ rotation**2
  colors = estimate.vertex_colors
  visible = visible_in_photo(vertices, pixels, np.asarray(model.faces), (width, height))
  return Reconstruction(
    vertices=vertices.astype(np.float32),
    joints=joints.astype(np.float32),
    faces=np.asarray(model.faces)[:, ::-1] if is_left else np.asarray(model.faces),
    vertex_sigma_mm=_sigma_mm(np.asarray(gaussians.vertices.log_variance)),
    joint_sigma_mm=_sigma_mm(np.asarray(gaussians.joints.log_variance)),
    vertex_visible=visible & near_hand_mask(view.photo.hand_mask, photo_to_crop, side, pixels),
    vertex_colors=None if colors is None else np.asarray(colors),
    vertices_image=pixels.astype(np.float32),
    joint_sigma_xyz_mm=(_MM_PER_M * np.sqrt(spread)).astype(np.float32),
    joints_image=joints_image.astype(np.float32),
    pixels_per_metre=pixels_per_metre,
    wrist_camera=place_in_camera(joints, joints_image, view.camera, pixels_per_metre),
    camera=view.camera,
    is_left=is_left,
    box_xywh=view.box_xywh,
    crop_affine=photo_to_crop,
    crop_side=side,
    parameters=parameters,
    parameters_error_mm=error_mm,
    branch=branch,
    hand_model=hand_model_name(model),
    camera_mean=np.asarray(estimate.camera.mean),
    camera_log_variance=np.asarray(estimate.camera.log_variance),
    photo=view.photo.image,
    photo_name=view.photo.name,
    mask_source=view.photo.mask_source,
  )


def visible_in_photo(
  vertices: Float[np.ndarray, 'vertices 3'],
  pixels: Float[np.ndarray, 'vertices 2'],
  faces: Int[np.ndarray, 'faces 3'],
  photo_size: tuple[int, int],
) -> Bool[np.ndarray, ' vertices']:
  """Finds the vertices that are inside the photo and not hidden by the hand itself.

  Args:
    vertices: metres, camera axes. A left hand may also be given mirrored.
    pixels: the vertices in pixels of the photo.
    faces: vertex ids, in either winding.
    photo_size: the photo's width and height in pixels.
  """
  inside = ((pixels >= 0) & (pixels < np.array([photo_size]))).all(axis=1)
  return inside & np.asarray(_unhidden(jnp.asarray(vertices, jnp.float32), faces))


@jax.jit
def _unhidden(
  vertices: Float[Array, 'vertices 3'], faces: Int[Array, 'faces 3']
) -> Bool[Array, ' vertices']:
  """Finds vertices with no part of the hand more than 0.01 mm in front of them.

  Vertices are in metres in camera axes.
  """
  low = jnp.min(vertices[:, :2], axis=0, keepdims=True)
  extent = jnp.max(jnp.max(vertices[:, :2], axis=0) - low[0])
  # Any picture that holds the whole hand suffices, so take one of 2 x 2 pixels.
  pixels = 0.5 + (vertices[:, :2] - low) / extent
  points = jnp.concatenate([pixels, vertices[:, 2:]], axis=1)
  return visible_vertices(points[None], faces, 2, 2)[0]


def _sigma_mm(log_variance: np.ndarray) -> Float[np.ndarray, ' points']:
  """Computes the root of the mean of the three variances in millimetres.

  It is the same in any frame.
  """
  with np.errstate(over='ignore'):  # an infinite sigma is refused later
    variance = np.exp(np.asarray(log_variance, np.float64)).mean(axis=-1)
  return (_MM_PER_M * np.sqrt(variance)).astype(np.float32)


def _wrist_relative(
  model: ManoModel, parameters: HandParameters | None, rotation: np.ndarray
) -> HandParameters | None:
  """Gives the prior-net's parameters the camera's orientation and the wrist B V at the origin."""
  if parameters is None:
    return None
  parameters = HandParameters(*(jnp.asarray(value) for value in parameters))
  orientation = matrix_to_axis_angle(jnp.asarray(rotation.T, jnp.float32))
  parameters = parameters._replace(global_orient=orientation, transl=jnp.zeros(3))
  wrist = regress_joints(model, mano_forward(model, parameters).vertices)[0]
  return HandParameters(*(np.asarray(value) for value in parameters._replace(transl=-wrist)))
