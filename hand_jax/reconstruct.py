"""One photo of a hand to a mesh with per-vertex uncertainty, and the files that show it."""

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from hand_jax.config import ExperimentConfig
from hand_jax.data.augmentation import warp_image
from hand_jax.data.photos import centred_square, check_box
from hand_jax.evaluation.evaluate import best_branch
from hand_jax.export import (
  glb_bytes,
  legend_image,
  obj_text,
  ply_bytes,
  sigma_colors,
  sigma_range_mm,
)
from hand_jax.geometry.cameras import (
  camera_from_vector,
  camera_rotation,
  crop_affine,
  denormalize_points,
  mirror_affine,
  scale_per_metre,
  transform_points,
)
from hand_jax.geometry.rotations import matrix_to_axis_angle
from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.mano.model import extended_joint_regressor, mano_forward, regress_joints
from hand_jax.models.backbone import normalize_image
from hand_jax.models.hand_network import create_network
from hand_jax.rendering.overlay import PAPER, overlay_panels
from hand_jax.training.checkpoints import load_for_inference
from hand_jax.training.hand_models import load_run_model
from hand_jax.types import HandEstimate, HandParameters, ManoModel

PANEL_SIDE = 480
OUTPUT_SUFFIXES = (
  '_overlay.png',
  '_legend.png',
  '.obj',
  '.ply',
  '.glb',
  '.npz',
  '.json',
)
_MIRROR = np.array([-1.0, 1.0, 1.0])


class Reconstructor(NamedTuple):
  """A trained network ready for photos; `estimate` takes one uint8 RGB crop of `image_size`."""

  config: ExperimentConfig
  model: ManoModel
  estimate: Callable[[np.ndarray], HandEstimate]


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """A hand of a photo. Metres, wrist at the origin, camera axes (x right, y down, z away).

  `branch` tells whose Gaussians these are: the posterior's, or those of a prior-net trained alone.
  A left hand was estimated on the mirrored photo and mirrored back, except `parameters`,
  `camera_mean` and `camera_log_variance`: those are of the mirrored right hand.
  """

  vertices: Float[np.ndarray, 'vertices 3']
  joints: Float[np.ndarray, 'joints 3']
  faces: Int[np.ndarray, 'faces 3']
  vertex_sigma_mm: Float[np.ndarray, ' vertices']
  joint_sigma_mm: Float[np.ndarray, ' joints']
  joints_image: Float[np.ndarray, 'joints 2']
  """Pixels of the upright photo, the first pixel's centre at (0.5, 0.5)."""
  pixels_per_metre: float
  """Weak perspective: a point's pixel is this times its x, y, plus the wrist's pixel."""
  is_left: bool
  box_xywh: Float[np.ndarray, '4']
  crop_affine: Float[np.ndarray, '3 3']
  """Pixels of the photo to pixels of the network's crop, which is mirrored for a left hand."""
  crop_side: int
  parameters: HandParameters | None
  """None from a network without a prior-net."""
  branch: str
  camera_mean: Float[np.ndarray, '10']
  camera_log_variance: Float[np.ndarray, '10']


def load_reconstructor(workdir: str | os.PathLike, mano_dir: str | None = None) -> Reconstructor:
  """The newest checkpoint of a run and the hand model it was trained with (see `load_run_model`).

  Raises:
    FileNotFoundError, ValueError: no run, no checkpoint or hand model there, or a damaged one.
  """
  config, variables = load_for_inference(str(workdir))
  return create_reconstructor(config, variables, load_run_model(workdir, mano_dir))


def create_reconstructor(
  config: ExperimentConfig, variables: dict[str, Any], model: ManoModel
) -> Reconstructor:
  """Wraps a network and its variables; the first photo compiles it."""
  network = create_network(config)

  @jax.jit
  def apply(variables, crop, model):
    images = normalize_image(crop[None], config.model.backbone.name)
    estimate = network.apply(variables, images, model, train=False)
    return jax.tree.map(lambda field: field[0], estimate)

  variables = jax.device_put(variables)
  return Reconstructor(config, model, lambda crop: apply(variables, jnp.asarray(crop), model))


def crop_of_photo(
  image: UInt8[np.ndarray, 'height width 3'],
  box_xywh: Float[np.ndarray, '4'] | None,
  config: ExperimentConfig,
) -> Float[np.ndarray, '3 3']:
  """Photo to crop: the square round the box as in training, or the largest centred square."""
  size = config.model.image_size
  if box_xywh is None:
    height, width = image.shape[:2]
    return crop_affine(centred_square(width, height), size, 1.0)
  return crop_affine(np.asarray(box_xywh, np.float64), size, config.data.crop_factor)


def reconstruct_hand(
  reconstructor: Reconstructor,
  image: UInt8[np.ndarray, 'height width 3'],
  box_xywh: Float[np.ndarray, '4'] | None = None,
  side: str = 'right',
  name: str = 'the image',
) -> Reconstruction:
  """Estimates the hand in an upright RGB photo. Box in pixels; None: the largest centred square.

  The hand is the posterior's mean; of a network that is a prior-net alone, the prior's. Of one
  that is AMVUR alone there are no MANO parameters.

  Raises:
    ValueError: a box without area or outside the image, or a side that is neither; `name` is the
      photo's in the message.
  """
  height, width = image.shape[:2]
  if side not in ('right', 'left'):
    raise ValueError(f"hand is {side!r}, expected 'right' or 'left'.")
  if box_xywh is not None:
    check_box(np.asarray(box_xywh, np.float64), width, height, name)
  seen, seen_box = image, box_xywh
  if side == 'left':
    # The network knows right hands only: show it the mirrored photo.
    seen = np.ascontiguousarray(image[:, ::-1])
    seen_box = None if box_xywh is None else _mirror_box(box_xywh, width)
  affine = crop_of_photo(seen, seen_box, reconstructor.config)
  crop = warp_image(seen, affine, reconstructor.config.model.image_size)
  estimate = jax.tree.map(np.asarray, reconstructor.estimate(crop))
  box = centred_square(width, height) if box_xywh is None else np.asarray(box_xywh, np.float64)
  if side == 'left':
    affine = affine @ mirror_affine(width)
  return _assemble(reconstructor, estimate, box, affine, side == 'left')


def _mirror_box(box_xywh: np.ndarray, width: int) -> np.ndarray:
  x, y, box_width, box_height = (float(value) for value in box_xywh)
  return np.array([width - x - box_width, y, box_width, box_height])


def _assemble(
  reconstructor: Reconstructor,
  estimate: HandEstimate,
  box_xywh: np.ndarray,
  photo_to_crop: np.ndarray,
  is_left: bool,
) -> Reconstruction:
  model, side = reconstructor.model, reconstructor.config.model.image_size
  camera = camera_from_vector(jnp.asarray(estimate.camera.mean))
  rotation = np.asarray(camera_rotation(camera), np.float64)
  gaussians = best_branch(estimate)
  vertices = np.asarray(gaussians.vertices.mean, np.float64) @ rotation
  joints = np.asarray(extended_joint_regressor(model), np.float64) @ vertices
  vertices, joints = vertices - joints[:1], joints - joints[:1]
  mirror = _MIRROR if is_left else np.ones(3)
  joints_crop = denormalize_points(np.asarray(gaussians.joints_normalized.mean, np.float64), side)
  crop_pixels_per_photo_pixel = abs(np.linalg.det(photo_to_crop[:2, :2])) ** 0.5
  crop_pixels_per_metre = float(scale_per_metre(camera)[0]) * side / 2
  return Reconstruction(
    vertices=(vertices * mirror).astype(np.float32),
    joints=(joints * mirror).astype(np.float32),
    faces=np.asarray(model.faces)[:, ::-1] if is_left else np.asarray(model.faces),
    vertex_sigma_mm=_sigma_mm(gaussians.vertices.log_variance),
    joint_sigma_mm=_sigma_mm(gaussians.joints.log_variance),
    joints_image=transform_points(np.linalg.inv(photo_to_crop), joints_crop).astype(np.float32),
    pixels_per_metre=crop_pixels_per_metre / crop_pixels_per_photo_pixel,
    is_left=is_left,
    box_xywh=box_xywh,
    crop_affine=photo_to_crop,
    crop_side=side,
    parameters=_wrist_relative(model, estimate.parameters, rotation),
    branch='prior' if estimate.posterior is None else 'posterior',
    camera_mean=np.asarray(estimate.camera.mean),
    camera_log_variance=np.asarray(estimate.camera.log_variance),
  )


def _sigma_mm(log_variance: np.ndarray) -> Float[np.ndarray, ' points']:
  """Root of the mean of the three variances (the same in any frame), millimetres."""
  variance = np.exp(np.asarray(log_variance, np.float64)).mean(axis=-1)
  return (1000 * np.sqrt(variance)).astype(np.float32)


def _wrist_relative(
  model: ManoModel, parameters: HandParameters | None, rotation: np.ndarray
) -> HandParameters | None:
  """The prior-net's parameters with the camera's orientation, the wrist B V at the origin."""
  if parameters is None:
    return None
  parameters = HandParameters(*(jnp.asarray(value) for value in parameters))
  orientation = matrix_to_axis_angle(jnp.asarray(rotation.T, jnp.float32))
  parameters = parameters._replace(global_orient=orientation, transl=jnp.zeros(3))
  wrist = regress_joints(model, mano_forward(model, parameters).vertices)[0]
  return HandParameters(*(np.asarray(value) for value in parameters._replace(transl=-wrist)))


def vertices_in_crop(
  reconstruction: Reconstruction, crop_side: int
) -> Float[np.ndarray, 'vertices 3']:
  """Vertices in pixels of an upright, unmirrored crop of the photo at `crop_side`; depth too."""
  to_crop, pixels = _display_affine(reconstruction, crop_side)
  scale = reconstruction.pixels_per_metre
  photo = reconstruction.joints_image[:1] + scale * reconstruction.vertices[:, :2]
  depth = scale * pixels * reconstruction.vertices[:, 2:]
  return np.concatenate([transform_points(to_crop, photo.astype(np.float64)), depth], axis=1)


def _display_affine(reconstruction: Reconstruction, side: int) -> tuple[np.ndarray, float]:
  """Photo to the network's crop at another size, never mirrored; its scale."""
  crop_to_photo = np.linalg.inv(reconstruction.crop_affine)
  network_side = reconstruction.crop_side
  corners = transform_points(
    crop_to_photo, np.array([[0.0, 0.0], [network_side, network_side]], np.float64)
  )
  low, high = corners.min(axis=0), corners.max(axis=0)
  box = np.array([*low, *(high - low)])
  return crop_affine(box, side, 1.0), float(side / (high - low).max())


def overlay_image(
  reconstruction: Reconstruction, image: UInt8[np.ndarray, 'height width 3']
) -> UInt8[np.ndarray, 'panel_height width2 3']:
  """Photo crop, mesh over it, and the mesh coloured by sigma with its legend, side by side."""
  range_mm = sigma_range_mm(reconstruction.vertex_sigma_mm)
  to_crop, _ = _display_affine(reconstruction, PANEL_SIDE)
  inside = warp_image(np.full_like(image, 255), to_crop, PANEL_SIDE) / np.float32(255)
  crop = warp_image(image, to_crop, PANEL_SIDE) / np.float32(255) + PAPER * (1 - inside)
  return overlay_panels(
    crop,
    vertices_in_crop(reconstruction, PANEL_SIDE),
    reconstruction.faces,
    sigma_colors(reconstruction.vertex_sigma_mm, range_mm),
    legend_image(range_mm, PANEL_SIDE),
  )


def summary(reconstruction: Reconstruction, photo: str, size: tuple[int, int]) -> dict[str, Any]:
  """What the JSON file holds: plain numbers with units, small arrays; large ones are in the NPZ.

  Without MANO parameters (no prior-net) there is no `mano`.
  """
  sigma = reconstruction.vertex_sigma_mm
  log_variance = np.asarray(reconstruction.camera_log_variance, np.float64)
  camera = camera_from_vector(np.asarray(reconstruction.camera_mean))
  spread = camera_from_vector(np.exp(0.5 * log_variance))
  of_mirrored = ' of the mirrored right hand' if reconstruction.is_left else ''
  mano_units, mano = {}, {}
  if reconstruction.parameters is not None:
    parameters = reconstruction.parameters._asdict()
    mano_units = {'mano.*': _mano_meaning(reconstruction.branch, of_mirrored)}
    mano = {'mano': {name: _numbers(value) for name, value in parameters.items()}}
  return {
    'photo': photo,
    'photo_size': {'width': size[0], 'height': size[1]},
    'hand': 'left' if reconstruction.is_left else 'right',
    'branch': reconstruction.branch,
    'box_xywh': _numbers(reconstruction.box_xywh),
    'units': {
      'vertices, joints': 'metres; wrist at the origin; x right, y down, z away from the camera',
      'joints_image, box_xywh, photo_to_crop': 'pixels of the upright photo (EXIF applied); '
      "the first pixel's centre is at (0.5, 0.5)",
      'sigma': 'millimetres; per point the root of the mean of its three variances',
      **mano_units,
    },
    'sigma_mm': {
      'mean': float(sigma.mean()),
      'median': float(np.median(sigma)),
      'min': float(sigma.min()),
      'max': float(sigma.max()),
      'joints': dict(zip(JOINT_NAMES, _numbers(reconstruction.joint_sigma_mm), strict=True)),
    },
    'joints': dict(zip(JOINT_NAMES, _numbers(reconstruction.joints), strict=True)),
    'joints_image': dict(zip(JOINT_NAMES, _numbers(reconstruction.joints_image), strict=True)),
    'camera': {
      'kind': 'weak perspective: pixel = pixels_per_metre * (x, y) + wrist_pixel',
      'pixels_per_metre': reconstruction.pixels_per_metre,
      'wrist_pixel': _numbers(reconstruction.joints_image[0]),
      'absolute_depth': 'needs the focal length f of the photo in pixels, which a photo does not '
      "tell: the wrist's depth in metres is f / pixels_per_metre",
      'estimate': {name: _numbers(value) for name, value in camera._asdict().items()},
      'standard_deviation': {name: _numbers(value) for name, value in spread._asdict().items()},
      'estimate_meaning': f'stored numbers{of_mirrored}: first two columns of R (hand to camera '
      'axes, row vectors), translation in normalised crop units (third: metres), scale in '
      'normalised crop units per decimetre',
      'photo_to_crop': _numbers(reconstruction.crop_affine),
    },
    **mano,
  }


def _mano_meaning(branch: str, of_mirrored: str) -> str:
  meaning = f'radians and metres, MANO parameters{of_mirrored}, from the prior network: '
  if branch == 'prior':
    return meaning + 'the mesh in the files is this parametric hand'
  return (
    meaning + 'the mesh in the files is the refined posterior, not exactly this parametric hand'
  )


def _numbers(array: np.ndarray) -> list:
  return np.asarray(array, np.float64).round(9).tolist()


def write_reconstruction(
  reconstruction: Reconstruction,
  image: UInt8[np.ndarray, 'height width 3'],
  name: str,
  folder: str | os.PathLike,
  photo: str = '',
) -> list[pathlib.Path]:
  """Writes `NAME_overlay.png`, `.obj`, `.ply`, `.glb`, `.npz`, `.json` and the colours' legend.

  All files are finished under another name before the first appears under its own. The NPZ and JSON
  files lack the MANO parameters where the network has none. Returns the paths in the order of
  `OUTPUT_SUFFIXES`.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  range_mm = sigma_range_mm(reconstruction.vertex_sigma_mm)
  colors = sigma_colors(reconstruction.vertex_sigma_mm, range_mm)
  vertices, faces = reconstruction.vertices, reconstruction.faces
  size = (image.shape[1], image.shape[0])
  with tempfile.TemporaryDirectory(prefix='.unfinished-', dir=folder) as unfinished:
    partial = pathlib.Path(unfinished)
    contents = {
      '_overlay.png': _png(overlay_image(reconstruction, image)),
      '_legend.png': _png(legend_image(range_mm, 512)),
      '.obj': obj_text(vertices, faces).encode(),
      '.ply': ply_bytes(vertices, faces, colors, reconstruction.vertex_sigma_mm),
      '.glb': glb_bytes(vertices, faces, colors, reconstruction.vertex_sigma_mm),
      '.json': (json.dumps(summary(reconstruction, photo or name, size), indent=2) + '\n').encode(),
    }
    np.savez(partial / f'{name}.npz', **_arrays(reconstruction))
    for suffix, content in contents.items():
      (partial / f'{name}{suffix}').write_bytes(content)
    paths = [folder / f'{name}{suffix}' for suffix in OUTPUT_SUFFIXES]
    for path in paths:
      (partial / path.name).replace(path)
  return paths


def _arrays(reconstruction: Reconstruction) -> dict[str, np.ndarray]:
  arrays = {
    field.name: np.asarray(getattr(reconstruction, field.name))
    for field in dataclasses.fields(reconstruction)
    if field.name != 'parameters'
  }
  if reconstruction.parameters is not None:
    parameters = reconstruction.parameters._asdict()
    arrays |= {name: np.asarray(value) for name, value in parameters.items()}
  return arrays


def _png(image: np.ndarray) -> bytes:
  done, data = cv2.imencode('.png', np.ascontiguousarray(image[..., ::-1]))
  if not done:
    raise ValueError(f'OpenCV cannot encode a {image.shape} image as PNG.')
  return data.tobytes()
