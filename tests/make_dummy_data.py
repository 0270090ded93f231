"""Writes folders in the original formats of FreiHAND and HO3D, with drawn hands of any model.

`python -m tests.make_dummy_data` makes datasets/*/dummy_data again from the free hand, so they hold
no data of others. This module has the conventions of the formats and uses none of the code that
reads them, so a test compares two independent conversions.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from scipy.spatial.transform import Rotation

from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.model import mano_forward
from hand_jax.mano.pose_families import sample_hand_pose
from hand_jax.types import HandParameters, ManoModel
from tests.official_mano import python2_dumps

DATASETS = pathlib.Path(__file__).parent.parent / 'datasets'
FREIHAND_K = np.array([[481.5, 0, 112], [0, 479.5, 112], [0, 0, 1]])
HO3D_K = np.array([[614.5, 0, 321.25], [0, 613.75, 238.5], [0, 0, 1]])
# The order of HO3D's files: MANO's joints, then the tips of thumb, index, middle, ring, pinky.
_STANDARD_OF_HO3D = [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3, 4, 8, 12, 16, 20]
_MIDDLE_MCP = 9

_forward = jax.jit(mano_forward)


class Hand(NamedTuple):
  """A posed hand in camera axes (y down, z forward), in metres, with joints in standard order."""

  parameters: HandParameters
  vertices: np.ndarray
  joints: np.ndarray


def make_hand(model: ManoModel, seed: int, centre: Sequence[float]) -> Hand:
  """Draws a natural pose with a random rotation, whose middle lies at `centre` (metres)."""
  rng = np.random.default_rng(seed)
  parameters = HandParameters(
    global_orient=np.float32(Rotation.random(rng=rng).as_rotvec()),
    hand_pose=np.asarray(sample_hand_pose(jax.random.key(seed))),
    betas=np.float32(rng.normal(size=10) * 0.5),
    transl=np.zeros(3, np.float32),
  )
  middle = np.asarray(_forward(model, parameters).joints).mean(axis=0)
  parameters = parameters._replace(transl=np.float32(centre - middle))
  mesh = _forward(model, parameters)
  return Hand(parameters, np.asarray(mesh.vertices), np.asarray(mesh.joints))


def project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
  """Projects points to pixels, with whole numbers at pixel centres."""
  homogeneous = points.astype(np.float64) @ intrinsics.T
  return homogeneous[:, :2] / homogeneous[:, 2:]


def paint_hand(picture: np.ndarray, hand: Hand, faces: np.ndarray, intrinsics: np.ndarray) -> None:
  """Draws a hand onto an RGB picture or a mask, farthest faces first."""
  corners = hand.vertices[faces]
  normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
  light = np.abs(normals[:, 2]) / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
  pixels = np.round(project(hand.vertices, intrinsics) * 256).astype(np.int32)[faces]
  for face in np.argsort(-corners[:, :, 2].mean(axis=1)):
    # Few shades: small files.
    shade = 0.4 + 0.6 * round(light[face] * 6) / 6
    color = [int(level * shade) for level in (215, 165, 140)] if picture.ndim == 3 else 255
    cv2.fillConvexPoly(picture, pixels[face], color, shift=8)


def background(height: int, width: int, seed: int) -> np.ndarray:
  """Draws a plain picture with a few large shapes."""
  rng = np.random.default_rng(seed)
  picture = np.full((height, width, 3), rng.integers(40, 200, 3), np.uint8)
  for _ in range(3):
    corner, size = rng.integers(0, width, 2), rng.integers(width // 6, width // 2, 2)
    color = rng.integers(20, 230, 3).tolist()
    cv2.rectangle(picture, corner.tolist(), (corner + size).tolist(), color, -1)
  return picture


def write_image(path: pathlib.Path, rgb: np.ndarray, quality: int = 50) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  bgr = rgb[..., ::-1] if rgb.ndim == 3 else rgb
  options = {'.jpg': [cv2.IMWRITE_JPEG_QUALITY, quality], '.png': [cv2.IMWRITE_PNG_COMPRESSION, 9]}
  done, data = cv2.imencode(path.suffix, bgr, options[path.suffix])
  assert done
  path.write_bytes(data.tobytes())


def write_json(path: pathlib.Path, arrays: Sequence[np.ndarray], decimals: int = 6) -> None:
  """Writes a list of nested lists, like FreiHAND's files."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps([np.round(np.float64(a), decimals).tolist() for a in arrays]))


# FreiHAND.


def freihand_mano(hand: Hand, hands_mean: np.ndarray) -> np.ndarray:
  """Returns (1, 61): rotations less the mean pose, betas, the root's u and v, focal over depth."""
  root = hand.joints[_MIDDLE_MCP].astype(np.float64)
  focal = (FREIHAND_K[0, 0] + FREIHAND_K[1, 1]) / 2
  scale = focal / root[2]
  parameters = hand.parameters
  return np.concatenate(
    [
      parameters.global_orient,
      parameters.hand_pose - hands_mean,
      parameters.betas,
      root[:2] * scale + FREIHAND_K[:2, 2],
      [scale],
    ]
  )[None]


def write_freihand(
  folder: pathlib.Path, model: ManoModel, samples: int = 3, evaluation: int = 2
) -> dict[str, list[Hand]]:
  """Writes the layout with training and evaluation annotations, and returns the hands in it."""
  faces, hands = np.asarray(model.faces), {}
  for half, count in (('training', samples), ('evaluation', evaluation)):
    first = 100 if half == 'training' else 200
    hands[half] = [make_hand(model, first + i, [0.0, 0.0, 0.75]) for i in range(count)]
    for number, hand in enumerate(hands[half]):
      for version in range(4 if half == 'training' else 1):
        picture = background(224, 224, first + number + 1000 * version)
        if version == 0 and half == 'training':
          picture[:] = (60, 180, 75)  # the green screen
        paint_hand(picture, hand, faces, FREIHAND_K)
        write_image(folder / half / 'rgb' / f'{number + version * count:08d}.jpg', picture)
      if half == 'training':
        mask = np.zeros((224, 224), np.uint8)
        paint_hand(mask, hand, faces, FREIHAND_K)
        write_image(folder / half / 'mask' / f'{number:08d}.jpg', mask)
    bones = [np.linalg.norm(hand.joints[9] - hand.joints[10]) for hand in hands[half]]
    write_json(folder / f'{half}_K.json', [FREIHAND_K] * count)
    write_json(folder / f'{half}_scale.json', bones)
    write_json(folder / f'{half}_xyz.json', [hand.joints for hand in hands[half]])
    write_json(folder / f'{half}_verts.json', [hand.vertices for hand in hands[half]], 5)
    mean = np.asarray(model.hands_mean)
    write_json(folder / f'{half}_mano.json', [freihand_mano(hand, mean) for hand in hands[half]])
  return hands


# HO3D.


def flip(points: np.ndarray) -> np.ndarray:
  """Converts points from y down and z forward to y up and z backwards, or back."""
  return np.stack([points[..., 0], -points[..., 1], -points[..., 2]], axis=-1)


def ho3d_meta(hand: Hand | None, model: ManoModel) -> dict[str, Any]:
  """Makes the training annotation of a frame. None is a frame that was not annotated."""
  content: dict[str, Any] = dict.fromkeys(
    ('handJoints3D', 'handPose', 'handTrans', 'handBeta', 'objRot', 'objTrans', 'objCorners3D')
  )
  content |= {
    'camMat': HO3D_K,
    'objName': '000_drawn_box',
    'objLabel': 1,
    'objCorners3DRest': np.zeros((8, 3)),
    'camIDList': ['0', '1'],
  }
  if hand is None:
    return content
  parameters = hand.parameters
  # The hand turns about the wrist of the shaped template, w: p -> R (p - w) + w + t.
  shape = np.asarray(model.v_template) + np.asarray(model.shapedirs) @ parameters.betas
  wrist = (np.asarray(model.joint_regressor) @ shape)[0]
  half_turn = Rotation.from_rotvec([np.pi, 0, 0])
  turned = half_turn * Rotation.from_rotvec(parameters.global_orient)
  return content | {
    'handJoints3D': flip(hand.joints.astype(np.float64))[_STANDARD_OF_HO3D],
    'handPose': np.concatenate([turned.as_rotvec(), parameters.hand_pose]),
    'handTrans': flip(wrist + parameters.transl) - wrist,
    'handBeta': parameters.betas.astype(np.float64),
    'objRot': np.zeros((3, 1)),
    'objTrans': np.array([0.0, 0.0, -0.6]),
    'objCorners3D': np.zeros((8, 3)),
  }


def ho3d_evaluation_meta(hand: Hand) -> dict[str, Any]:
  """Makes the evaluation annotation, which only has the wrist and a box in pixels."""
  pixels = project(hand.vertices, HO3D_K)
  box = [*np.floor(pixels.min(axis=0)).astype(int), *np.ceil(pixels.max(axis=0)).astype(int)]
  return {
    'handJoints3D': flip(hand.joints[0].astype(np.float64)),
    'handBoundingBox': [int(value) for value in box],
    'camMat': HO3D_K,
    'objRot': np.zeros((3, 1)),
    'objTrans': np.array([0.0, 0.0, -0.6]),
    'objName': '000_drawn_box',
    'objLabel': 1,
    'objCorners3D': np.zeros((8, 3)),
    'objCorners3DRest': np.zeros((8, 3)),
    'camIDList': ['0', '1'],
  }


def write_ho3d_frame(
  folder: pathlib.Path, suffix: str, frame: str, hand: Hand | None, meta: Any, faces: np.ndarray
) -> None:
  """Writes a frame's photo, annotation and, in v3's training half, segmentation."""
  sequence, number = frame.split('/')
  seed = sum(map(ord, frame))
  picture = background(480, 640, seed)
  segmentation = np.zeros((480, 640, 3), np.uint8)
  if hand is not None:
    paint_hand(picture, hand, faces, HO3D_K)
    mask = np.zeros((480, 640), np.uint8)
    paint_hand(mask, hand, faces, HO3D_K)
    # Draw an object before the hand, so that the mask is not the whole hand.
    corner = np.round(project(hand.joints[:1], HO3D_K)[0]).astype(int).tolist()
    other = [corner[0] + 70, corner[1] + 40]
    for image, color in ((picture, (90, 60, 200)), (segmentation, (0, 255, 0))):
      cv2.rectangle(image, corner, other, color, -1)
    segmentation[(mask > 0) & (segmentation[..., 1] == 0)] = (0, 0, 255)
  write_image(folder / sequence / 'rgb' / f'{number}{suffix}', picture)
  if suffix == '.jpg' and folder.name == 'train':
    write_image(folder / sequence / 'seg' / f'{number}.png', segmentation)
  path = folder / sequence / 'meta' / f'{number}.pkl'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(python2_dumps(meta))


def write_ho3d(
  folder: pathlib.Path,
  version: str,
  model: ManoModel,
  with_truth: bool = False,
  with_faults: bool = True,
) -> dict[str, Hand | None]:
  """Writes the layout without depth, and returns the hands by split/SEQUENCE/FRAME.

  With `with_faults`, sequence DMB10 has a frame that was not annotated, and the list names one that
  is missing. `with_truth` adds the labels of the evaluation frames that were published later.
  """
  suffix = {'v2': '.png', 'v3': '.jpg'}[version]
  faces = np.asarray(model.faces)
  frames = ['train/DMA10/0000', 'train/DMB10/0002', 'train/DMB10/0000', 'train/DMC10/0007']
  frames += ['evaluation/DME1/0004', 'evaluation/DME1/0001']
  hands: dict[str, Hand | None] = {
    frame: make_hand(model, 300 + i, [0.05 * i - 0.1, 0.02 * i - 0.05, 0.6])
    for i, frame in enumerate(frames)
  }
  lists = {'train': [], 'evaluation': []}
  if with_faults:
    hands['train/DMB10/0001'] = None
  for name, hand in hands.items():
    half, frame = name.split('/', 1)
    meta = ho3d_meta(hand, model) if half == 'train' else ho3d_evaluation_meta(hand)
    write_ho3d_frame(folder / half, suffix, frame, hand, meta, faces)
    lists[half].append(frame)
  if with_faults:
    lists['train'].insert(2, 'DMB10/0009')
  for half, names in lists.items():
    (folder / f'{half}.txt').write_text('\n'.join(names) + '\n')
  if with_truth:
    shown = [hands[f'evaluation/{frame}'] for frame in lists['evaluation']]
    joints = [flip(hand.joints)[_STANDARD_OF_HO3D] for hand in shown]
    write_json(folder / 'evaluation_xyz.json', joints)
    write_json(folder / 'evaluation_verts.json', [flip(hand.vertices) for hand in shown], 5)
  return hands


def main() -> None:
  model = load_mano_model()
  write_freihand(DATASETS / 'freihand' / 'dummy_data', model, samples=2)
  write_ho3d(DATASETS / 'ho3d' / 'dummy_data' / 'v2', 'v2', model)
  write_ho3d(DATASETS / 'ho3d' / 'dummy_data' / 'v3', 'v3', model, with_truth=True)


if __name__ == '__main__':
  main()
