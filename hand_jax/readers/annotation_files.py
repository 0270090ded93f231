"""Reads what published data sets have in common: long JSON lists, photos, masks, intrinsics."""

import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from hand_jax.data.decoding import UndecodableError, decode_photo, photo_size
from hand_jax.files.json_lists import JsonListReader

HALF_PIXEL = 0.5


class BadExampleError(ValueError):
  """An error about one example that cannot be used, while the others can."""


class JsonEntries(NamedTuple):
  """A list of arrays, one for each sample.

  `problems` holds, by the sample's number, the reason why an entry cannot be used.
  """

  values: Float[np.ndarray, 'samples *shape']  # 0 where there is a problem
  problems: dict[int, str]


def read_json_entries(path: str | os.PathLike, shape: tuple[int, ...]) -> JsonEntries:
  """Reads a JSON list of nested lists into one array of float32, entry by entry.

  FreiHAND's vertices are more than a gigabyte of text. Read entry by entry, they never lie in
  memory as numbers of Python. An entry of another shape, or with a value that is not a finite
  number, is reported as a problem and does not stop the reading.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not one JSON list, or is cut short.
  """
  path = pathlib.Path(path)
  values, problems = [], {}
  with path.open(encoding='utf-8-sig') as file:
    reader = JsonListReader(file, str(path))
    reader.enter('a list of samples')
    for number, entry in enumerate(reader.elements('sample')):
      try:
        values.append(as_numbers(entry, shape))
      except BadExampleError as error:
        problems[number] = f'{path.name}: {error}'
        values.append(np.zeros(shape, np.float32))
    reader.end_of_file()
  stacked = np.stack(values) if values else np.zeros((0, *shape), np.float32)
  return JsonEntries(stacked, problems)


def as_numbers(value: Any, shape: tuple[int, ...]) -> Float[np.ndarray, '*shape']:
  """Converts nested lists or an array to float32 of a given shape.

  Raises:
    BadExampleError: the value has another shape, or something in it is not a finite number.
  """
  try:
    numbers = np.asarray(value)
  except (ValueError, TypeError):  # lists of uneven lengths
    raise BadExampleError(f'is not a regular list, expected shape {shape}') from None
  if numbers.dtype.kind not in 'iuf':
    kind = 'nothing (null)' if value is None else f'values of type {numbers.dtype}'
    raise BadExampleError(f'holds {kind}, expected numbers of shape {shape}')
  if numbers.shape != shape:
    raise BadExampleError(f'has shape {numbers.shape}, expected {shape}')
  if not np.isfinite(numbers).all():
    raise BadExampleError('holds a number that is not finite (NaN or infinity)')
  return numbers.astype(np.float32)


class EncodedPhoto(NamedTuple):
  """A photo as the bytes of its file, and as the pixels that it shows."""

  data: bytes
  pixels: UInt8[np.ndarray, 'height width 3']  # RGB


def read_encoded_photo(path: pathlib.Path, size: tuple[int, int]) -> EncodedPhoto:
  """Reads a JPEG or PNG of `size` (width, height), and checks that training can decode it.

  Raises:
    BadExampleError: the file is missing, damaged, cut short, or of another size.
  """
  data = _read_bytes(path)
  try:
    # Training uses the same decoder, and decoders differ in what damage they notice.
    height, width = photo_size(data, _short(path))
    if (width, height) != size:
      raise BadExampleError(
        f'{_short(path)} has {width} x {height} pixels, expected {size[0]} x {size[1]}'
      )
    return EncodedPhoto(data, decode_photo(data, _short(path)))
  except UndecodableError as error:
    raise BadExampleError(f'{_short(path)} cannot be read: {error.problem}') from None


def read_mask_image(
  path: pathlib.Path, size: tuple[int, int], channel: int | None = None
) -> np.ndarray:
  """Reads a mask image as booleans, true above the middle of its range.

  Args:
    path: the image file.
    size: width and height of the result. The nearest pixels are taken from a mask of another size.
    channel: which of R, G, B holds the mask, or None to read the image as grey.

  Raises:
    BadExampleError: the file is missing, damaged or cut short.
  """
  pixels = _decode_mask(_read_bytes(path), path, 'L' if channel is None else 'RGB')
  grey = pixels if channel is None else pixels[..., channel]
  if grey.shape != size[::-1]:
    grey = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.NEAREST))
  return grey > 127


def _read_bytes(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except FileNotFoundError:
    raise BadExampleError(f'{_short(path)} is missing') from None
  except IsADirectoryError:
    raise BadExampleError(f'{_short(path)} is a folder, not a file') from None


def _decode_mask(data: bytes, path: pathlib.Path, mode: str) -> np.ndarray:
  try:
    # Pillow refuses a file that is cut short, where OpenCV would fill the missing part with grey.
    with Image.open(io.BytesIO(data), formats=('JPEG', 'PNG')) as image:
      return np.asarray(image.convert(mode))
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
    reason = 'not a JPEG or PNG' if isinstance(error, Image.UnidentifiedImageError) else error
    raise BadExampleError(f'{_short(path)} cannot be read: {reason}') from None


def _short(path: pathlib.Path) -> str:
  """Returns the part of a path that identifies a file of the data set."""
  return '/'.join(path.parts[-3:])


def shift_to_continuous(intrinsics: Float[np.ndarray, '3 3']) -> Float[np.ndarray, '3 3']:
  """Shifts intrinsics from pixel centres at whole numbers to our first centre at (0.5, 0.5).

  Raises:
    BadExampleError: they are not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx and fy above zero.
  """
  pattern = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]], bool)
  usable = np.abs(intrinsics[~pattern]).max() < 1e-4 and abs(intrinsics[2, 2] - 1) < 1e-4
  if not usable or min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
    raise BadExampleError(
      f'its intrinsics {intrinsics.tolist()} are not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]'
    )
  shifted = intrinsics.astype(np.float64)
  shifted[:2, 2] += HALF_PIXEL
  return shifted


def check_in_front(points_camera: Float[np.ndarray, 'points 3'], name: str) -> None:
  """Checks that all points lie in front of the camera (z forward).

  Points behind it mostly come from mixed-up axes.

  Raises:
    BadExampleError: a point lies behind the camera.
  """
  if not (points_camera[:, 2] > 0).all():
    raise BadExampleError(f'{name}: a point lies behind the camera (z {points_camera[:, 2].min()})')


def missing_paths(folder: pathlib.Path, names: Iterable[str]) -> list[str]:
  """Lists those of the names that are not in the folder. Names of folders end in '/'."""
  return [
    name
    for name in names
    if not ((folder / name).is_dir() if name.endswith('/') else (folder / name).is_file())
  ]


def listed(names: Sequence[str], most: int = 5) -> str:
  """Joins names for a message, but only the first few of many."""
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more


def files_digest(folder: pathlib.Path, names: Iterable[str]) -> str:
  """Computes one SHA-256 over the names and contents of files.

  A missing file counts with its name alone.
  """
  digest = hashlib.sha256()
  for name in names:
    path = folder / name
    digest.update(f'{name}\0'.encode())
    if path.is_file():
      with path.open('rb') as file:
        digest.update(hashlib.file_digest(file, 'sha256').digest())
  return digest.hexdigest()
