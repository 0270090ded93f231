"""Reads frames of HO3D v2 and v3 as they are downloaded, and converts them to our conventions.

Hampali et al., "HOnnotate: A method for 3D Annotation of Hand and Object Poses", CVPR 2020. The
layout is described in datasets/ho3d/README.md. In its files the camera looks along -z with y up
(OpenGL), joints are in MANO's order followed by the fingertips, `camMat` counts from pixel centres,
and `handPose` counts from the flat hand, as ours does. All of it is converted here.
"""

import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hand_jax.examples import HandExample, Skip, encode_with_photo
from hand_jax.files.safe_pickle import UnsafePickleError, load_pickle
from hand_jax.geometry.cameras import perspective_from_intrinsics, project_perspective
from hand_jax.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from hand_jax.mano.assets import load_mano_model, with_fingertips
from hand_jax.mano.joints import DATASET_TO_STANDARD, JOINT_NAMES, STANDARD_TO_MANO
from hand_jax.mano.model import mano_forward
from hand_jax.readers.annotation_files import (
  HALF_PIXEL,
  BadExampleError,
  EncodedPhoto,
  as_numbers,
  check_in_front,
  listed,
  read_encoded_photo,
  read_mask_image,
  shift_to_continuous,
)
from hand_jax.readers.ho3d_folder import PHOTO_SUFFIX, Truth
from hand_jax.readers.plausible import check_camera, check_distance, check_extent
from hand_jax.types import ArrayLike, HandMesh, HandParameters, ManoModel

IMAGE_SIZE = (640, 480)
CHUNK = 32  # a worker reads this many frames at a time
OPENGL_TO_OPENCV = np.array([1.0, -1.0, -1.0], np.float32)
"""These signs of x, y, z turn y up and z backwards into y down and z forward.

Together they are a half turn about x.
"""

_TO_STANDARD = list(DATASET_TO_STANDARD['ho3d'])
# In the `seg` pictures the hand is blue and the object is green.
_HAND_CHANNEL = 2
# The paper's release pads the joints' box by this margin. It crops twice the padded box, and keeps
# the side of the crop within these bounds.
_BOX_MARGIN_PX = 10.0
_CROP_SIDE_PX = (50.0, 640.0)
_CROP_FACTOR = 2.0
# MANO's own mesh meets the annotated joints up to rounding, and another hand model does not.
MAX_MESH_DISTANCE_M = 0.01
# MANO's wrist lies about 0.1 m from its origin, which `handTrans` moves.
_MAX_ROOT_DISTANCE_M = 0.3
# Mesh and annotation are compared at the chain joints alone, since fingertips are a convention.
_CHAIN = [index for index, name in enumerate(JOINT_NAMES) if not name.endswith('tip')]
_HAND_SHAPES = {'handPose': (48,), 'handTrans': (3,), 'handBeta': (10,)}


class Ho3dAnnotation(NamedTuple):
  """A frame's hand in our conventions: metres, camera axes (y down, z forward), standard order.

  In the evaluation split only the wrist is known, unless the published labels were found.
  """

  intrinsics: Float[np.ndarray, '3 3']  # of continuous pixels
  joints_camera: Float[np.ndarray, '21 3']  # unknown ones lie where the wrist is
  joint_known: np.ndarray  # (21,) bool
  box: Float[np.ndarray, '4'] | None  # x0, y0, x1, y1 in pixels, where the file has it
  opengl_parameters: HandParameters | None  # as the file has them


class Ho3dJob(NamedTuple):
  """Some frames of a split, with all that a worker needs to read them."""

  folder: pathlib.Path
  version: str
  split: str
  frames: tuple[str, ...]  # SEQUENCE/FRAME
  mano_dir: str | None
  truths: tuple[Truth, ...]


def make_jobs(
  folder: str | os.PathLike,
  version: str,
  split: str,
  frames: Sequence[str],
  mano_dir: str | None,
  truths: Sequence[Truth] | None = None,
) -> Iterator[Ho3dJob]:
  """Divides frames into jobs of at most CHUNK.

  Args:
    folder: the unpacked data set.
    version: `v2` or `v3`.
    split: `train` or `evaluation`.
    frames: the frames as SEQUENCE/FRAME.
    mano_dir: the folder or file of MANO's right hand, which gives vertices, or None for none.
    truths: published labels of the frames, see `read_evaluation_truths`. None if there are none.
  """
  truths = [None] * len(frames) if truths is None else truths[: len(frames)]
  for start in range(0, len(frames), CHUNK):
    part = slice(start, start + CHUNK)
    yield Ho3dJob(
      pathlib.Path(folder), version, split, tuple(frames[part]), mano_dir, tuple(truths[part])
    )


def load_records(job: Ho3dJob) -> list[dict[str, Any] | Skip]:
  """Reads a job's frames as records of the prepared data set.

  A frame that cannot be used gives a `Skip`. Worker processes run this.
  """
  results: list[Any] = []
  for frame, truth in zip(job.frames, job.truths, strict=True):
    try:
      results.append(_read_frame(job, frame, truth))
    except ValueError as error:
      results.append(Skip(f'{job.split}/{frame}', str(error).rstrip('.')))
  meshes = _job_meshes(job, [result for result in results if not isinstance(result, Skip)])
  records: list[dict[str, Any] | Skip] = []
  for result in results:
    if isinstance(result, Skip):
      records.append(result)
      continue
    example, photo, _ = result
    try:
      records.append(encode_with_photo(_with_mesh(example, next(meshes)), photo.data))
    except ValueError as error:
      records.append(Skip(example.example_id, str(error).rstrip('.')))
  return records


_Frame = tuple[HandExample, EncodedPhoto, HandParameters | None]


def _read_frame(job: Ho3dJob, frame: str, truth: Truth) -> _Frame:
  """Reads a frame: its example (without a mesh), its photo and the parameters of its mesh."""
  sequence, number = frame.split('/')
  folder = job.folder / job.split / sequence
  meta = folder / 'meta' / f'{number}.pkl'
  short = f'{sequence}/meta/{number}.pkl'
  try:
    content = load_pickle(meta)
  except FileNotFoundError:
    raise BadExampleError(f'{short} is missing') from None
  except UnsafePickleError as error:
    raise BadExampleError(f'{short}: {str(error).removeprefix(f"{meta}: ")}') from None
  annotation = read_annotation(content, is_training=job.split == 'train')
  if isinstance(truth, str):
    raise BadExampleError(truth)
  vertices = None
  if truth is not None:
    annotation, vertices = _with_truth(annotation, truth)
  photo_path = folder / 'rgb' / f'{number}{PHOTO_SUFFIX[job.version]}'
  photo = read_encoded_photo(photo_path, IMAGE_SIZE)
  mask_path = folder / 'seg' / f'{number}.png'
  mask = read_mask_image(mask_path, IMAGE_SIZE, _HAND_CHANNEL) if mask_path.is_file() else None
  example = make_example(f'{job.split}/{frame}', photo.pixels, annotation, mask)
  return example._replace(vertices_camera=vertices), photo, annotation.opengl_parameters


def read_annotation(meta: Any, is_training: bool) -> Ho3dAnnotation:
  """Checks and converts the content of a frame's pickle.

  Raises:
    ValueError: the frame is not annotated (None), or its annotation is incomplete, has wrong
      shapes, is not finite, lies behind the camera, or is not in metres.
  """
  if not isinstance(meta, Mapping):
    raise BadExampleError(f'its annotation is a {type(meta).__name__}, expected a dictionary')
  needed = ('camMat', 'handJoints3D', *(_HAND_SHAPES if is_training else ('handBoundingBox',)))
  lacking = [key for key in needed if key not in meta]
  if lacking:
    raise BadExampleError(f'its annotation lacks {listed(lacking)}')
  # To the official scripts, an object without a pose means that a frame was not annotated.
  unset = [key for key in needed if meta[key] is None]
  if unset or (is_training and meta.get('objRot', ()) is None):
    raise BadExampleError('not annotated (None)')
  intrinsics = shift_to_continuous(_numbers(meta, 'camMat', (3, 3)))
  check_camera(intrinsics, IMAGE_SIZE, 'camMat')
  joints, known = _read_joints(meta, is_training)
  if known.all():
    check_extent(joints, 'handJoints3D')
  check_distance(float(joints[0, 2]), 'handJoints3D')
  parameters = None
  if is_training:
    pose, transl, betas = (_numbers(meta, key, shape) for key, shape in _HAND_SHAPES.items())
    distance = np.linalg.norm(points_to_opencv(transl) - joints[0])
    if distance > _MAX_ROOT_DISTANCE_M:
      raise BadExampleError(
        f'handTrans is {distance:.3g} m from the wrist of handJoints3D: are both in metres?'
      )
    parameters = HandParameters(pose[:3], pose[3:], betas, transl)
  box = None if is_training else _numbers(meta, 'handBoundingBox', (4,)) + HALF_PIXEL
  return Ho3dAnnotation(intrinsics, joints, known, box, parameters)


def _numbers(meta: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
  try:
    return as_numbers(meta[key], shape)
  except BadExampleError as error:
    raise BadExampleError(f'{key} {error}') from None


def _read_joints(meta: Mapping[str, Any], is_training: bool) -> tuple[np.ndarray, np.ndarray]:
  """Returns joints in camera axes and standard order, and which of them the file has."""
  count = len(JOINT_NAMES)
  if is_training or np.shape(meta['handJoints3D']) == (count, 3):
    joints = points_to_opencv(_numbers(meta, 'handJoints3D', (count, 3)))[_TO_STANDARD]
    known = np.ones(count, bool)
  else:
    root = points_to_opencv(_numbers(meta, 'handJoints3D', (3,)))
    joints, known = np.tile(root, (count, 1)), np.arange(count) == 0
  check_in_front(joints, 'handJoints3D')
  return joints, known


def _with_truth(
  annotation: Ho3dAnnotation, truth: tuple[np.ndarray, np.ndarray]
) -> tuple[Ho3dAnnotation, np.ndarray]:
  """Returns the annotation with the joints of the published labels, and their vertices."""
  joints, vertices = (points_to_opencv(points) for points in truth)
  joints = joints[_TO_STANDARD]
  distance = np.linalg.norm(joints[0] - annotation.joints_camera[0])
  if distance > MAX_MESH_DISTANCE_M:
    raise BadExampleError(
      f'the wrist in evaluation_xyz.json is {1000 * distance:.0f} mm from the one in its annotation'
    )
  check_extent(joints, 'evaluation_xyz.json')
  check_extent(vertices, 'evaluation_verts.json')
  known = np.ones(len(JOINT_NAMES), bool)
  return annotation._replace(joints_camera=joints, joint_known=known), vertices


def make_example(
  example_id: str,
  pixels: np.ndarray,
  annotation: Ho3dAnnotation,
  hand_mask: np.ndarray | None,
) -> HandExample:
  """Makes an example of a frame, still without vertices.

  Unknown joints have confidence 0 and lie where the wrist does, in 2D and 3D.

  Args:
    example_id: name of the example.
    pixels: the photo in RGB.
    annotation: the frame's hand.
    hand_mask: the pixels that show the hand, or None where this is unknown.

  Raises:
    BadExampleError: the frame has joints instead of a box, and none lies inside the photo.
  """
  camera = perspective_from_intrinsics(annotation.intrinsics)
  joints_image = np.asarray(
    project_perspective(camera, annotation.joints_camera.astype(np.float64))
  )
  size = np.array(IMAGE_SIZE)
  corners = joints_image if annotation.box is None else annotation.box.reshape(2, 2)
  inside = ((joints_image >= 0) & (joints_image <= size[None])).all(axis=1)
  if annotation.box is None and not inside.any():
    raise BadExampleError('no joint lies inside the photo')
  parameters = annotation.opengl_parameters
  orient = None if parameters is None else _orientation(parameters.global_orient)
  return HandExample(
    example_id=example_id,
    image=pixels,
    side='right',
    box_xywh=release_box(corners, IMAGE_SIZE),
    joints_image=joints_image.astype(np.float32),
    joint_confidence=annotation.joint_known.astype(np.float32),
    intrinsics=annotation.intrinsics.astype(np.float32),
    joints_camera=annotation.joints_camera,
    global_orient=None if orient is None else np.asarray(orient, np.float32),
    hand_mask=hand_mask,
  )


def release_box(
  points: Float[np.ndarray, 'points 2'], size: tuple[int, int]
) -> Float[np.ndarray, '4']:
  """Returns the square (x, y, width, height) that the paper's release doubles to its crop.

  It has the centre of the points' box and covers the part of that box inside the image, padded by
  10 pixels. The side of the crop is kept between 50 and 640 pixels.

  Args:
    points: joints, or the corners of a box, in pixels.
    size: the image's width and height.
  """
  low, high = points.min(axis=0), points.max(axis=0)
  centre = (low + high) / 2
  low, high = np.maximum(low, 0) - _BOX_MARGIN_PX, np.minimum(high, size) + _BOX_MARGIN_PX
  reach = np.maximum(high - centre, centre - low).max()
  side = np.clip(2 * reach * _CROP_FACTOR, *_CROP_SIDE_PX) / _CROP_FACTOR
  return np.array([*(centre - side / 2), side, side], np.float32)


# The next functions convert between OpenGL's axes and ours.


def points_to_opencv(points: Float[np.ndarray, '*points 3']) -> Float[np.ndarray, '*points 3']:
  """Converts points from OpenGL's axes to ours, or back, by flipping the signs of y and z."""
  return points * OPENGL_TO_OPENCV.reshape((1,) * (points.ndim - 1) + (3,))


def points_to_ho3d(
  joints_camera: Float[np.ndarray, '*batch 21 3'],
) -> Float[np.ndarray, '*batch 21 3']:
  """Converts joints in our order and axes to those of HO3D's files, as its evaluation expects."""
  return points_to_opencv(joints_camera)[..., list(STANDARD_TO_MANO), :]


def orientation_to_opencv(global_orient: Float[ArrayLike, '3']) -> Float[Array, '3']:
  """Converts a hand's global rotation (axis-angle) from OpenGL's axes to ours.

  The half turn about x multiplies it from the left.
  """
  turn = jnp.diag(jnp.asarray(OPENGL_TO_OPENCV))
  return matrix_to_axis_angle(turn @ axis_angle_to_matrix(jnp.asarray(global_orient)))


# This runs once per frame. Without compilation its small steps would take longer than the photo.
_orientation = jax.jit(orientation_to_opencv)


def parameters_to_opencv(model: ManoModel, parameters: HandParameters) -> HandParameters:
  """Converts a frame's parameters to our axes, so that `mano_forward` gives its mesh there.

  A hand turns about its own wrist j and not about the camera, so the half turn C does not simply
  turn the translation t. The new translation t' has to fulfil C (j + t) = j + t'.
  """
  rest = jnp.zeros(3), jnp.zeros(45), jnp.asarray(parameters.betas), jnp.zeros(3)
  wrist = mano_forward(model, HandParameters(*rest)).joints[0]
  signs = jnp.asarray(OPENGL_TO_OPENCV)
  return HandParameters(
    global_orient=orientation_to_opencv(parameters.global_orient),
    hand_pose=jnp.asarray(parameters.hand_pose),
    betas=jnp.asarray(parameters.betas),
    transl=signs * (wrist + jnp.asarray(parameters.transl)) - wrist,
  )


# The files give the mesh only as parameters.


@functools.cache
def _load_model(mano_dir: str) -> ManoModel:
  return with_fingertips(load_mano_model(mano_dir), 'ho3d')


@jax.jit
def _forward(model: ManoModel, parameters: HandParameters) -> HandMesh:
  opencv = jax.vmap(parameters_to_opencv, (None, 0))(model, parameters)
  return jax.vmap(mano_forward, (None, 0), HandMesh._make((0, 0, None)))(model, opencv)


def _job_meshes(job: Ho3dJob, frames: Sequence[_Frame]) -> Iterator[HandMesh | None]:
  """Yields the mesh of each frame, or None where there are no parameters or no model."""
  parameters = [parameters for *_, parameters in frames]
  if job.mano_dir is None or not any(parameters):
    return iter([None] * len(frames))
  # The chunk is always filled up, because each new size would be compiled anew.
  padding = [parameters[-1]] * (CHUNK - len(parameters))
  stacked = HandParameters(*map(np.stack, zip(*parameters, *padding, strict=True)))
  mesh = _forward(_load_model(job.mano_dir), stacked)
  vertices, joints = np.asarray(mesh.vertices), np.asarray(mesh.joints)
  return iter([HandMesh(vertices[i], joints[i], mesh.faces) for i in range(len(frames))])


def _with_mesh(example: HandExample, mesh: HandMesh | None) -> HandExample:
  """Returns the example with its vertices, which must belong to its joints.

  Raises:
    BadExampleError: they do not, so the annotations were made with another hand model.
  """
  if mesh is None or example.joints_camera is None:
    return example
  distance = np.linalg.norm(mesh.joints[_CHAIN] - example.joints_camera[_CHAIN], axis=1).max()
  if distance > MAX_MESH_DISTANCE_M:
    raise BadExampleError(
      f'the mesh of its parameters is {1000 * distance:.0f} mm from its joints: the model in '
      '--mano_dir is not the MANO right hand of the annotations, or the annotation is wrong'
    )
  return example._replace(vertices_camera=mesh.vertices)
