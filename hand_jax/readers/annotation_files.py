"""What readers of published data sets share: long JSON lists, photos, numbers, folder checks."""

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
  """One example cannot be used; the others can."""


class JsonEntries(NamedTuple):
  """A list of arrays, one per sample; `problems` says by number which cannot be used, and why."""

  values: Float[np.ndarray, 'samples *shape']  # 0 where there is a problem
  problems: dict[int, str]


def read_json_entries(path: str | os.PathLike, shape: tuple[int, ...]) -> JsonEntries:
  """A JSON list of nested lists as one array of float32, entry by entry: FreiHAND's vertices are
  more than a gigabyte of text, which never lies in memory as Python's numbers.

  An entry of another shape, or with a value that is not a finite number, is a problem of its own.

  Raises:
    FileNotFoundError: no such file. ValueError: not one JSON list, or one that was cut short.
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
  """Nested lists or an array as float32 of that shape.

  Raises:
    BadExampleError: another shape, or something in it is not a finite number.
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
  """A photo as it lies in its file, and what it shows."""

  data: bytes
  pixels: UInt8[np.ndarray, 'height width 3']  # RGB


def read_encoded_photo(path: pathlib.Path, size: tuple[int, int]) -> EncodedPhoto:
  """A JPEG or PNG of `size` (width, height), which training can read to its last byte.

  Raises:
    BadExampleError: missing, damaged, cut short, or of another size.
  """
  data = _read_bytes(path)
  try:
    # As training reads it: decoders differ in what damage they notice.
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
  """A mask image as booleans (height, width): above the middle of its range.

  `channel` picks one of R, G, B; None reads it as grey. A mask of another size is enlarged to
  `size` (width, height), pixel by pixel. Raises BadExampleError as `read_encoded_photo` does.
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
    # OpenCV would fill up what a cut file lacks with grey; Pillow refuses it.
    with Image.open(io.BytesIO(data), formats=('JPEG', 'PNG')) as image:
      return np.asarray(image.convert(mode))
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
    reason = 'not a JPEG or PNG' if isinstance(error, Image.UnidentifiedImageError) else error
    raise BadExampleError(f'{_short(path)} cannot be read: {reason}') from None


def _short(path: pathlib.Path) -> str:
  """The part of a path that says which of a data set's files it is."""
  return '/'.join(path.parts[-3:])


def shift_to_continuous(intrinsics: Float[np.ndarray, '3 3']) -> Float[np.ndarray, '3 3']:
  """Intrinsics whose whole numbers mean pixel centres, for pixels whose first centre is (0.5, 0.5).

  Raises:
    BadExampleError: not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx and fy above zero.
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
  """Refuses, by BadExampleError, points that no camera sees (z forward): mixed-up axes, mostly."""
  if not (points_camera[:, 2] > 0).all():
    raise BadExampleError(f'{name}: a point lies behind the camera (z {points_camera[:, 2].min()})')


def missing_paths(folder: pathlib.Path, names: Iterable[str]) -> list[str]:
  """Those of the names (a folder's end in '/') that are not in the folder."""
  return [
    name
    for name in names
    if not ((folder / name).is_dir() if name.endswith('/') else (folder / name).is_file())
  ]


def listed(names: Sequence[str], most: int = 5) -> str:
  """Names for a message, the first few of many."""
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more


def files_digest(folder: pathlib.Path, names: Iterable[str]) -> str:
  """One SHA-256 over the names and contents of files; absent ones count as absent."""
  digest = hashlib.sha256()
  for name in names:
    path = folder / name
    digest.update(f'{name}\0'.encode())
    if path.is_file():
      with path.open('rb') as file:
        digest.update(hashlib.file_digest(file, 'sha256').digest())
  return digest.hexdigest()
