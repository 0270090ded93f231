"""Opens photos by the content of the file, whatever its name.

It opens what Pillow reads, and HEIC where pi-heif is installed. Pillow itself warns of large
pictures and refuses larger ones. Here a single limit replaces both, `MAX_PHOTO_PIXELS`.
"""

import contextlib
import importlib
import os
import threading
import warnings
from collections.abc import Iterator

from PIL import Image, UnidentifiedImageError

MAX_PHOTO_PIXELS = 300_000_000
"""Photos with more pixels are refused, because they would fill the memory of a computer."""
# A HEIC file names one of these brands in its bytes 8 to 11. AVIF files use the same container.
_HEIC_KINDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')
_ORIENTATION = 0x0112
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
"""In these EXIF orientations the stored width is the height of the upright photo."""
# Pillow has one limit for the whole process, so threads take turns in changing it.
_pillows_limit = threading.Lock()


@contextlib.contextmanager
def open_photo(path: str | os.PathLike) -> Iterator[Image.Image]:
  """Opens an image file as a Pillow image, which reads the pixels when they are first used.

  Raises:
    FileNotFoundError: there is no such file.
    UnidentifiedImageError: Pillow does not know the format.
    ValueError: the path is a folder, the file is damaged or has more than `MAX_PHOTO_PIXELS`, or it
      is a HEIC photo and pi-heif is not installed. Damage found inside the `with` block counts too.
  """
  check_photo_file(path)
  try:
    with warnings.catch_warnings():
      # Odd metadata need not concern the caller.
      warnings.simplefilter('ignore')
      with _opened(path) as file:
        _check_pixels(path, *file.size)
        yield file
  except UnidentifiedImageError:
    raise
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise _damaged(path, error) from None
  except ValueError as error:
    if isinstance(error, _PhotoError):
      raise
    raise _damaged(path, error) from None


def check_photo_file(path: str | os.PathLike) -> None:
  """Checks that a path leads to a file. The errors name it.

  Raises:
    FileNotFoundError: it does not exist.
    ValueError: it is a folder.
  """
  if not os.path.exists(path):
    raise FileNotFoundError(f'Image {path} does not exist.')
  if os.path.isdir(path):
    raise ValueError(f'Image {path} is a folder; name one image file.')


def exif_orientation(image: Image.Image) -> int:
  """Reads the EXIF orientation of a photo, from 1 (upright) to 8. Any other value counts as 1."""
  orientation = image.getexif().get(_ORIENTATION, 1)
  return orientation if orientation in _TURNS else 1


def turned_upright(image: Image.Image, orientation: int) -> Image.Image:
  """Turns a stored photo upright, given its EXIF orientation."""
  return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


class _PhotoError(ValueError):
  """An error whose message already tells the user what is wrong with the photo."""


def _damaged(path: str | os.PathLike, error: Exception) -> ValueError:
  reason = ' '.join(str(error).split()).rstrip('.')  # some libraries answer in several lines
  return _PhotoError(f'Image {path} cannot be read, it may be damaged: {reason}.')


def _opened(path: str | os.PathLike) -> Image.Image:
  try:
    return _open_any_size(path)
  except UnidentifiedImageError:
    if not _is_heic(path):
      raise
  try:
    pi_heif = importlib.import_module('pi_heif')
  except ImportError:
    raise _PhotoError(
      f"Image {path} is a HEIC photo, which pi-heif reads: pip install 'hand-jax[heic]', or save "
      'the photo as JPEG.'
    ) from None
  pi_heif.register_heif_opener()
  return _open_any_size(path)


def _open_any_size(path: str | os.PathLike) -> Image.Image:
  with _pillows_limit:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      return Image.open(path)
    finally:
      Image.MAX_IMAGE_PIXELS = limit


def _check_pixels(path: str | os.PathLike, width: int, height: int) -> None:
  if width * height > MAX_PHOTO_PIXELS:
    raise _PhotoError(
      f'Image {path} has {width} x {height} pixels, {width * height / 1e6:,.0f} megapixels; photos '
      f'of at most {MAX_PHOTO_PIXELS / 1e6:,.0f} are read. Make a smaller copy.'
    )


def _is_heic(path: str | os.PathLike) -> bool:
  with open(path, 'rb') as file:
    start = file.read(12)
  return start[4:8] == b'ftyp' and start[8:12] in _HEIC_KINDS
