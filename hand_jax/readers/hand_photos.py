"""Reads a folder of photos with 2D joints that people annotated themselves, and checks it."""

import contextlib
import difflib
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np
from jaxtyping import Float

from hand_jax.data.photos import MIN_EXTENT_PX, box_round_joints, check_box, photo_size, read_photo
from hand_jax.examples import HandExample, check_example
from hand_jax.files.json_files import read_json
from hand_jax.mano.joints import JOINT_NAMES
from hand_jax.readers.plausible import (
  check_apart,
  check_camera,
  check_extent,
  check_joints_in_box,
)

ANNOTATIONS = 'annotations.json'
IMAGES = 'images'
KEYS = ('image', 'keypoints', 'side', 'bbox', 'intrinsics', 'joints_camera')
SIDES = ('right', 'left')

_HALF_PIXEL = 0.5

Entry = TypeVar('Entry')


class PhotoEntry(NamedTuple):
  """One hand in one photo, with checked labels in continuous pixels of the upright photo.

  The photo itself is not checked yet. `where` names file and entry for messages, and `image` is the
  photo's path as the annotations give it.
  """

  where: str
  example_id: str
  image: str
  path: pathlib.Path
  side: str
  joints_image: Float[np.ndarray, '21 2']  # 0 where the confidence is 0
  joint_confidence: Float[np.ndarray, '21']
  box_xywh: Float[np.ndarray, '4']
  has_bbox: bool  # false: the box was estimated from the joints
  intrinsics: Float[np.ndarray, '3 3'] | None
  joints_camera: Float[np.ndarray, '21 3']  # metres, camera axes, NaN where unknown


def read_annotations(folder: str | os.PathLike, needs_keypoints: bool = True) -> list[PhotoEntry]:
  """Reads the entries of `folder`/annotations.json, in order, and opens no photo.

  The format is described in datasets/hand_photos/README.md. Its coordinates mean pixel centres (the
  first pixel is 0, 0) and are shifted by half a pixel here. Its boxes are continuous already.
  Without `needs_keypoints`, as for measuring, an entry may give a bbox instead of keypoints.

  Raises:
    FileNotFoundError: there is no folder, no annotations file or no photo.
    NotADirectoryError: a file has the folder's path.
    ValueError: something does not have the format. The message names file, entry and field.
  """
  path = annotations_path(folder)
  content = read_json(path)
  if not isinstance(content, list):
    raise ValueError(f'{path}: expected a list of entries, got {_kind(content)}.')
  if not content:
    raise ValueError(f'{path} is an empty list; expected one entry per hand.')
  return [
    _EntryReader(path, number, len(content), needs_keypoints).read(entry)
    for number, entry in enumerate(content, start=1)
  ]


def annotations_path(folder: str | os.PathLike) -> pathlib.Path:
  """Returns the path of a folder's annotations.

  Raises:
    FileNotFoundError: there is no such folder, or it has no annotations.
    NotADirectoryError: a file has this path.
  """
  folder = pathlib.Path(folder)
  if folder.is_file():
    raise NotADirectoryError(
      f'{folder} is a file; expected a folder with {IMAGES}/ and {ANNOTATIONS}.'
    )
  if not folder.is_dir():
    raise FileNotFoundError(
      f'Folder {folder} does not exist; expected one with {IMAGES}/ and {ANNOTATIONS}.'
    )
  path = folder / ANNOTATIONS
  if not path.is_file():
    raise FileNotFoundError(f'{path} does not exist; expected a list of annotated photos there.')
  return path


def annotations_digest(folder: str | os.PathLike) -> str:
  """Computes the SHA-256 of the annotations file.

  Raises:
    FileNotFoundError, NotADirectoryError: see `annotations_path`.
  """
  return hashlib.sha256(annotations_path(folder).read_bytes()).hexdigest()


def split_entries(
  entries: Sequence[Entry], validation_fraction: float
) -> dict[str, Sequence[Entry]]:
  """Splits entries into `train` and `validation`, which gets the last of the list.

  `validation` gets round(fraction x entries), but at least one, and is left out if the fraction is
  0.

  Raises:
    ValueError: the fraction is not in [0, 1), or leaves nothing to train on.
  """
  if not 0 <= validation_fraction < 1:
    raise ValueError(f'validation_fraction should be from 0 to below 1, got {validation_fraction}.')
  if validation_fraction == 0:
    return {'train': entries}
  count = max(1, round(validation_fraction * len(entries)))
  if count >= len(entries):
    raise ValueError(
      f'validation_fraction {validation_fraction:g} of {len(entries)} annotated hands leaves none '
      'to train on; annotate more, or choose a smaller fraction (0: no validation split).'
    )
  return {'train': entries[:-count], 'validation': entries[-count:]}


def check_entry(entry: PhotoEntry, size: tuple[int, int]) -> None:
  """Checks that an entry's labels can belong to its photo of upright `size` (width, height).

  Raises:
    ValueError: the box is too small or outside, joints lie outside their box, or the camera is not
      in pixels. The message names file, entry and field.
  """
  width, height = size
  try:
    check_box(entry.box_xywh, width, height, entry.image)
  except ValueError as error:
    field = 'bbox' if entry.has_bbox else 'keypoints, the box round them'
    raise ValueError(f'{entry.where}, {field}: {error}') from None
  try:
    if entry.has_bbox:
      known = entry.joints_image[entry.joint_confidence > 0]
      check_joints_in_box(known, entry.box_xywh, size)
    if entry.intrinsics is not None:
      check_camera(entry.intrinsics, size)
  except ValueError as error:
    raise ValueError(f'{entry.where}: {error}.') from None


def read_size(entry: PhotoEntry) -> tuple[int, int]:
  """Reads width and height of an entry's upright photo, in most cases without decoding it.

  Raises:
    FileNotFoundError: the photo is missing.
    ValueError: it is not a photo. Both messages name file, entry and field.
  """
  with _naming_photo(entry):
    return photo_size(entry.path)


def load_example(entry: PhotoEntry) -> HandExample:
  """Reads the photo of an entry, upright by its EXIF orientation, and makes an example of both.

  Raises:
    FileNotFoundError: the photo is missing.
    ValueError: the photo cannot be read, or the labels cannot be its own (see `check_entry`). Both
      messages name file, entry and field.
  """
  with _naming_photo(entry):
    image = read_photo(entry.path)
  check_entry(entry, (image.shape[1], image.shape[0]))
  return check_example(
    HandExample(
      example_id=entry.example_id,
      image=image,
      side=entry.side,
      box_xywh=entry.box_xywh.astype(np.float32),
      joints_image=entry.joints_image.astype(np.float32),
      joint_confidence=entry.joint_confidence.astype(np.float32),
      intrinsics=None if entry.intrinsics is None else entry.intrinsics.astype(np.float32),
    )
  )


@contextlib.contextmanager
def _naming_photo(entry: PhotoEntry) -> Iterator[None]:
  try:
    yield
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{entry.where}, image: {error}') from None
  except ValueError as error:
    raise ValueError(f'{entry.where}, image: {error}') from None


class _EntryReader:
  """Reads one entry. Its errors name file, entry and field."""

  def __init__(self, path: pathlib.Path, number: int, count: int, needs_keypoints: bool):
    self._folder, self._number = path.parent, number
    self._needs_keypoints = needs_keypoints
    self._where = f'{path}, entry {number} of {count}'

  def read(self, entry: Any) -> PhotoEntry:
    if not isinstance(entry, dict):
      raise ValueError(f'{self._where}: expected an object with {_list(KEYS)}, got {_kind(entry)}.')
    self._check_keys(entry)
    path = self._image_path(entry['image'])
    self._where += f' ({entry["image"]})'
    joints, confidence = self._keypoints(entry.get('keypoints'))
    side = entry.get('side')
    if side is not None and side not in SIDES:
      self._refuse('side', f'should be "right" or "left", got {_short(side)}')
    box, known = entry.get('bbox'), joints[confidence > 0]
    # Two joints may hide one another, but three hardly do.
    if len(known) > 2 and np.ptp(known, axis=0).max() < MIN_EXTENT_PX:
      self._refuse('keypoints', 'lie within 2 pixels: expected pixels, not fractions of the image')
    try:
      check_apart(known - _HALF_PIXEL)
    except ValueError as error:
      self._refuse('keypoints', str(error))
    return PhotoEntry(
      where=self._where,
      # Two hands of one photo are two entries, so the number makes the id unique.
      example_id=f'{entry["image"]}#{self._number}',
      image=entry['image'],
      path=path,
      side=side or 'right',
      joints_image=joints,
      joint_confidence=confidence,
      box_xywh=self._estimated_box(known) if box is None else self._box(box),
      has_bbox=box is not None,
      intrinsics=self._intrinsics(entry.get('intrinsics')),
      joints_camera=self._joints_camera(entry.get('joints_camera')),
    )

  def _refuse(self, field: str, problem: str) -> NoReturn:
    raise ValueError(f'{self._where}, {field}: {problem}.')

  def _check_keys(self, entry: dict[str, Any]) -> None:
    for key in entry:
      if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ''
        raise ValueError(f'{self._where}: unknown field "{key}".{hint} Fields: {_list(KEYS)}.')
    for key in ('image', 'keypoints') if self._needs_keypoints else ('image',):
      if key not in entry:
        self._refuse(key, 'is missing')

  def _image_path(self, image: Any) -> pathlib.Path:
    if not isinstance(image, str) or not image or '\0' in image:
      self._refuse('image', f'expected the path of a photo, got {_short(image)}')
    # Only the name is checked. A link inside the folder to photos elsewhere is the user's choice.
    if os.path.isabs(image) or '..' in pathlib.PurePath(image).parts:
      self._refuse('image', f'{_short(image)} leaves the folder; expected a path inside it')
    for path in (self._folder / image, self._folder / IMAGES / image):
      if path.is_file():
        return path
    raise FileNotFoundError(
      f'{self._where}, image: {_short(image)} is no file in {self._folder} or its {IMAGES}/.'
    )

  def _keypoints(self, keypoints: Any) -> tuple[np.ndarray, np.ndarray]:
    count = len(JOINT_NAMES)
    if keypoints is None and not self._needs_keypoints:
      return np.zeros((count, 2)), np.zeros(count)
    if not isinstance(keypoints, list) or len(keypoints) != count:
      got = len(keypoints) if isinstance(keypoints, list) else _kind(keypoints)
      self._refuse('keypoints', f'expected {count} of [x, y] or [x, y, confidence], got {got}')
    joints, confidence = np.zeros((count, 2)), np.zeros(count)
    for number, keypoint in enumerate(keypoints):
      if keypoint is None:
        continue
      joint = f'keypoints[{number}] ({JOINT_NAMES[number]})'
      if not isinstance(keypoint, list) or len(keypoint) not in (2, 3):
        self._refuse(joint, f'expected [x, y] or [x, y, confidence], got {_short(keypoint)}')
      point = [self._coordinate(joint, value) for value in keypoint[:2]]
      is_known = not any(math.isnan(value) for value in point)
      weight = self._confidence(joint, keypoint[2], is_known) if len(keypoint) == 3 else 1.0
      if is_known and weight > 0:
        joints[number], confidence[number] = np.add(point, _HALF_PIXEL), weight
    return joints, confidence

  def _coordinate(self, joint: str, value: Any) -> float:
    """Reads a coordinate, as NaN where it is unknown."""
    if value is None:
      return math.nan
    number = _number(value)
    if number is None or math.isinf(number):
      self._refuse(joint, f'expected finite numbers (null: unknown), got {_short(value)}')
    return number

  def _confidence(self, joint: str, value: Any, is_known: bool) -> float:
    if value is None and not is_known:
      return 0.0
    number = _number(value)
    if number is None or not 0 <= number <= 1:
      hint = '; a COCO flag 2 (visible) is 1 here' if number == 2 else ''
      self._refuse(joint, f'expected a confidence from 0 to 1, got {_short(value)}{hint}')
    return number

  def _box(self, box: Any) -> np.ndarray:
    values = _numbers(box, 4)
    if values is None or not np.isfinite(values).all() or not (values[2:] > 0).all():
      self._refuse(
        'bbox',
        'expected four finite numbers [x, y, width, height], width and height above zero, got '
        f'{_short(box)}',
      )
    return values

  def _estimated_box(self, known: np.ndarray) -> np.ndarray:
    if not len(known):
      self._refuse('keypoints', 'no joint is known and there is no bbox; give one of them')
    try:
      return box_round_joints(known)
    except ValueError as error:
      self._refuse('keypoints', f'{error}; give a bbox')

  def _joints_camera(self, joints: Any) -> np.ndarray:
    count = len(JOINT_NAMES)
    points = np.full((count, 3), np.nan)
    if joints is None:
      return points
    if not isinstance(joints, list) or len(joints) != count:
      got = len(joints) if isinstance(joints, list) else _kind(joints)
      self._refuse('joints_camera', f'expected {count} of [x, y, z] in metres or null, got {got}')
    for number, joint in enumerate(joints):
      if joint is None:
        continue
      name = f'joints_camera[{number}] ({JOINT_NAMES[number]})'
      if not isinstance(joint, list) or len(joint) != 3:
        self._refuse(name, f'expected [x, y, z] in metres or null, got {_short(joint)}')
      point = [self._coordinate(name, value) for value in joint]
      if not any(math.isnan(value) for value in point):
        points[number] = point
    known = points[np.isfinite(points).all(axis=1)]
    try:
      check_extent(known, 'joints_camera')
    except ValueError as error:
      raise ValueError(f'{self._where}, {error}.') from None
    return points

  def _intrinsics(self, intrinsics: Any) -> np.ndarray | None:
    if intrinsics is None:
      return None
    rows = intrinsics if isinstance(intrinsics, list) and len(intrinsics) == 3 else [None] * 3
    numbers = [_numbers(row, 3) for row in rows]
    matrix = None if any(row is None for row in numbers) else np.array(numbers)
    if (
      matrix is None
      or not np.isfinite(matrix).all()
      or not (np.diag(matrix)[:2] > 0).all()
      or matrix[2].tolist() != [0, 0, 1]
    ):
      self._refuse(
        'intrinsics',
        'expected 3 x 3 finite numbers in pixels, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx '
        f'and fy above zero, got {_short(intrinsics)}',
      )
    matrix[:2, 2] += _HALF_PIXEL
    return matrix


def _number(value: Any) -> float | None:
  """Converts a JSON number to a float, infinite where it is too large. None for anything else."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return None
  try:
    return float(value)
  except OverflowError:
    return math.inf


def _numbers(value: Any, count: int) -> np.ndarray | None:
  """Converts a list of that many numbers to an array. None for anything else."""
  if not isinstance(value, list) or len(value) != count:
    return None
  numbers = [_number(item) for item in value]
  return None if None in numbers else np.array(numbers, np.float64)


def _short(value: Any) -> str:
  """Returns a JSON value as it was written, cut where it is long."""
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 80 else f'{text[:77]}...'


def _kind(value: Any) -> str:
  kinds = {dict: 'an object', list: 'a list', str: 'a text', bool: 'a boolean'}
  return 'null' if value is None else kinds.get(type(value), 'a number')


def _list(names: tuple[str, ...]) -> str:
  return ', '.join(f'"{name}"' for name in names)
