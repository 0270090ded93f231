"""One annotated photo in our joint order, units and frames before any crop, and its tfds form."""

import io
from typing import Any, NamedTuple

import cv2
import numpy as np

JPEG_QUALITY = 95


class HandExample(NamedTuple):
  """A photo and its labels on the host. A label that the data set does not have is None.

  Pixels are continuous (the first pixel's centre is (0.5, 0.5)), and lengths are metres in camera
  axes (x right, y down, z forward). `side` names the hand that the photo shows. Left hands are not
  mirrored yet.
  """

  example_id: str
  image: np.ndarray  # (height, width, 3) uint8 RGB
  side: str  # 'right' or 'left'
  box_xywh: np.ndarray  # (4,) the hand's box in pixels
  joints_image: np.ndarray  # (21, 2)
  joint_confidence: np.ndarray  # (21,), 0 where a joint is unknown
  intrinsics: np.ndarray | None = None  # (3, 3)
  vertices_camera: np.ndarray | None = None  # (V, 3)
  joints_camera: np.ndarray | None = None  # (21, 3)
  global_orient: np.ndarray | None = None  # (3,) axis-angle
  hand_mask: np.ndarray | None = None  # (height, width) bool
  vertex_visible: np.ndarray | None = None  # (V,) bool, False where something hides the vertex
  vertex_colors: np.ndarray | None = None  # (V, 3) display RGB in [0, 1], also of hidden vertices


class Skip(NamedTuple):
  """Stands among the records in the place of an example that cannot be used."""

  example_id: str
  reason: str


def check_example(example: HandExample) -> HandExample:
  """Checks that every label that is present can be used, and returns the same example.

  Joints of confidence 0 may hold anything.

  Raises:
    ValueError: a label is NaN or infinite, the box is empty, the side is unknown, colours lie
      outside [0, 1], or the image is not (height, width, 3) uint8. The text names the example and
      the field.
  """

  def refuse(field: str, problem: str):
    raise ValueError(f'Example {example.example_id!r}: {field} {problem}.')

  image = example.image
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    refuse('image', f'should be (height, width, 3) uint8, got {image.shape} {image.dtype}')
  if example.side not in ('right', 'left'):
    refuse('side', f"should be 'right' or 'left', got {example.side!r}")
  for field, value in example._asdict().items():
    if field in ('example_id', 'image', 'side', 'hand_mask') or value is None:
      continue
    if field == 'joints_image':
      value = value[example.joint_confidence > 0]
    if not np.isfinite(value).all():
      refuse(field, 'is not finite (NaN or infinity in the annotation)')
  colors = example.vertex_colors
  if colors is not None and not (colors.min() >= 0 and colors.max() <= 1):
    refuse('vertex_colors', f'should lie in [0, 1], got {colors.min():.4g} to {colors.max():.4g}')
  if not (example.box_xywh[2:] > 0).all():
    refuse('box_xywh', f'should have a positive width and height, got {example.box_xywh.tolist()}')
  return example


def without_3d(example: HandExample) -> HandExample:
  """Keeps the photo, its box and its 2D joints alone, as weak supervision may see them."""
  return HandExample(
    example_id=example.example_id,
    image=example.image,
    side=example.side,
    box_xywh=example.box_xywh,
    joints_image=example.joints_image,
    joint_confidence=example.joint_confidence,
  )


def example_features() -> Any:
  """Describes a record of a prepared data set as tfds features, for a builder's `_info`.

  There is one record per photo. An absent label is an array without rows, and an absent mask is a
  1 x 1 picture with `has_hand_mask` False. Float labels are float32. Pixels and frames are those of
  `HandExample`.

    example_id, side    text
    image               JPEG, quality 95, (height, width, 3)
    hand_mask           PNG, 0 or 255, (height, width, 1)
    has_hand_mask       bool
    box_xywh            (4,) pixels
    joints_image        (21, 2) pixels
    joint_confidence    (21,)
    intrinsics          (3, 3) or (0, 3)
    vertices_camera     (V, 3) or (0, 3) metres
    joints_camera       (21, 3) or (0, 3) metres
    global_orient       (3,) or (0,) axis-angle, radians
    vertex_visible      (V,) or (0,) bool
    vertex_colors       (V, 3) or (0, 3) display RGB in [0, 1]
  """
  # Import here, because training on rendered examples needs no tfds.
  import tensorflow_datasets as tfds

  features = tfds.features

  def floats(*shape: int | None):
    return features.Tensor(shape=shape, dtype=np.float32)

  return features.FeaturesDict(
    {
      'example_id': features.Text(),
      'side': features.Text(),
      'image': features.Image(shape=(None, None, 3), encoding_format='jpeg'),
      'hand_mask': features.Image(shape=(None, None, 1), encoding_format='png'),
      'has_hand_mask': np.bool_,
      'box_xywh': floats(4),
      'joints_image': floats(None, 2),
      'joint_confidence': floats(None),
      'intrinsics': floats(None, 3),
      'vertices_camera': floats(None, 3),
      'joints_camera': floats(None, 3),
      'global_orient': floats(None),
      'vertex_visible': features.Tensor(shape=(None,), dtype=np.bool_),
      'vertex_colors': floats(None, 3),
    }
  )


def encode_example(example: HandExample) -> dict[str, Any]:
  """Makes the record of an example for `example_features`.

  Its pictures are encoded already, because tfds would need TensorFlow to encode them.

  Raises:
    ValueError: `check_example` refuses the example, or OpenCV cannot encode a picture.
  """
  check_example(example)
  mask, visible = example.hand_mask, example.vertex_visible
  stored_mask = np.zeros((1, 1), np.uint8) if mask is None else mask.astype(np.uint8) * 255

  def floats(value: np.ndarray | None, *absent_shape: int) -> np.ndarray:
    return np.zeros(absent_shape, np.float32) if value is None else np.asarray(value, np.float32)

  bgr = cv2.cvtColor(example.image, cv2.COLOR_RGB2BGR)
  return {
    'example_id': example.example_id,
    'side': example.side,
    'image': io.BytesIO(_encode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])),
    'hand_mask': io.BytesIO(_encode('.png', stored_mask, [])),
    'has_hand_mask': mask is not None,
    'box_xywh': floats(example.box_xywh),
    'joints_image': floats(example.joints_image),
    'joint_confidence': floats(example.joint_confidence),
    'intrinsics': floats(example.intrinsics, 0, 3),
    'vertices_camera': floats(example.vertices_camera, 0, 3),
    'joints_camera': floats(example.joints_camera, 0, 3),
    'global_orient': floats(example.global_orient, 0),
    'vertex_visible': np.zeros(0, bool) if visible is None else np.asarray(visible, bool),
    'vertex_colors': floats(example.vertex_colors, 0, 3),
  }


def encode_with_photo(example: HandExample, encoded_photo: bytes) -> dict[str, Any]:
  """Makes the record of an example from the photo's own file, without encoding the image again.

  This saves time and keeps the image as it is.

  Raises:
    ValueError: `check_example` refuses the example, or OpenCV cannot encode its mask.
  """
  check_example(example)
  record = encode_example(example._replace(image=np.zeros((1, 1, 3), np.uint8)))
  return record | {'image': io.BytesIO(encoded_photo)}


def decode_example(record: dict[str, Any]) -> HandExample:
  """Reads one element of a tfds data source, whose images are decoded, back into an example."""

  def text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

  def optional(value: np.ndarray | None) -> np.ndarray | None:
    return None if value is None or not len(value) else np.asarray(value, np.float32)

  visible = record['vertex_visible']
  return HandExample(
    example_id=text(record['example_id']),
    image=np.asarray(record['image'], np.uint8),
    side=text(record['side']),
    box_xywh=np.asarray(record['box_xywh'], np.float32),
    joints_image=np.asarray(record['joints_image'], np.float32),
    joint_confidence=np.asarray(record['joint_confidence'], np.float32),
    intrinsics=optional(record['intrinsics']),
    vertices_camera=optional(record['vertices_camera']),
    joints_camera=optional(record['joints_camera']),
    global_orient=optional(record['global_orient']),
    hand_mask=np.asarray(record['hand_mask'])[..., 0] > 127 if record['has_hand_mask'] else None,
    vertex_visible=np.asarray(visible, bool) if len(visible) else None,
    # Data sets that were prepared by early versions do not have this field.
    vertex_colors=optional(record.get('vertex_colors')),
  )


def _encode(extension: str, image: np.ndarray, options: list[int]) -> bytes:
  done, data = cv2.imencode(extension, image, options)
  if not done:
    raise ValueError(f'OpenCV cannot encode a {image.shape} image as {extension}.')
  return data.tobytes()
