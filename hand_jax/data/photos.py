"""Reads photos as upright 8-bit RGB, checks and estimates hand boxes, and lists the demo photos."""

import json
import os
import pathlib
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import ArrayLike
from PIL import Image, UnidentifiedImageError

from hand_jax.data.photo_opening import (
  MAX_PHOTO_PIXELS,
  SIDEWAYS,
  exif_orientation,
  open_photo,
  turned_upright,
)
from hand_jax.data.photo_opening import (
  check_photo_file as check_photo_file,
)

# Where a folder is searched for photos, these files count. One that the installed libraries cannot
# read is told by its name, instead of being skipped.
PHOTO_SUFFIXES = (
  '.jpg',
  '.jpeg',
  '.jpe',
  '.jfif',
  '.mpo',
  '.jp2',
  '.png',
  '.webp',
  '.tif',
  '.tiff',
  '.bmp',
  '.gif',
  '.heic',
  '.heif',
  '.avif',
)
DEMO_PHOTOS = pathlib.Path(__file__).parent.parent / 'assets' / 'photos'
# The larger side of a hand's tight box (all its projected vertices) is this many times that of its
# joints' box: _BOX_RATIO + _BOX_RATIO_PER_MISSING / n for n known joints, 1.19 for all 21. This was
# fitted to geometric means over 200 synthetic hands with joints dropped at random: 1.22 for 17,
# 1.26 for 14, 1.36 for 10, 1.57 for 6.
_BOX_RATIO = 1.035
_BOX_RATIO_PER_MISSING = 3.2
# Joints that all lie this close together are hardly in pixels. They are more likely fractions of
# the image.
MIN_EXTENT_PX = 2.0
# At least this many pixels of a box along each axis, and this share of its area, must lie inside
# the photo.
_MIN_INSIDE_PX, _MIN_INSIDE_SHARE = 8, 0.25
# A cut-out with this share of levels that are nearly black or white, and some of both, is a mask
# drawn in black and white, whose edges may be grey.
_DRAWN_SHARE, _NEARLY = 0.95, 16
_FULL_16_BIT = 65535
FULL_SIZE_PIXELS = 50_000_000
"""Photos with at most this many pixels are read at full size, among them those of telephones."""
# Turning photos of these EXIF orientations upright mirrors the stored x axis (first tuple) or the
# stored y axis (second tuple).
_MIRRORED = ((2, 3, 7, 8), (3, 4, 6, 7))
_ROWS = 256


class ScaledPhoto(NamedTuple):
  """A photo that may have been read at reduced size.

  Boxes, joints and intrinsics in files and flags are in pixels of the whole photo. `to_reduced` and
  `to_whole` convert points and lengths, and `reduced_intrinsics` converts cameras. Both the whole
  photo and `image` are upright.
  """

  image: UInt8[np.ndarray, 'height width 3']
  """Its channels are RGB."""
  scale: float
  """One pixel of the whole photo is this many pixels of `image`: 1, 1/2, 1/4 and so on.

  The corners of both coincide.
  """
  whole_size: tuple[int, int]
  """The whole photo has this width and height in pixels."""

  def to_reduced(self, pixels: ArrayLike) -> np.ndarray:
    """Converts continuous pixels of the whole photo, or lengths or boxes in them, to `image`."""
    return np.asarray(pixels, np.float64) * self.scale

  def to_whole(self, pixels: ArrayLike) -> np.ndarray:
    """Converts continuous pixels of `image`, or lengths or boxes in them, to the whole photo."""
    return np.asarray(pixels, np.float64) / self.scale

  def reduced_intrinsics(self, intrinsics: Float[np.ndarray, '3 3']) -> Float[np.ndarray, '3 3']:
    """Converts the whole photo's intrinsics (continuous pixels) to those of `image`."""
    return np.diag([self.scale, self.scale, 1.0]) @ intrinsics


def read_photo(path: str | os.PathLike) -> UInt8[np.ndarray, 'height width 3']:
  """Reads a photo as RGB at full size, turned upright by its EXIF orientation.

  It reads JPEG, PNG, TIFF, WebP, BMP and GIF, HEIC where pi-heif is installed, AVIF where Pillow
  was built with it, and whatever else Pillow or OpenCV knows. The content of a file counts, not its
  ending. Grey, palette, CMYK and 16-bit pictures are converted, and transparent pixels become
  white. Of an animation the first frame is read.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not an image, is damaged, or has more than `MAX_PHOTO_PIXELS`. The
      message names the file.
  """
  return read_photo_scaled(path, MAX_PHOTO_PIXELS).image


def read_photo_scaled(path: str | os.PathLike, most_pixels: int = FULL_SIZE_PIXELS) -> ScaledPhoto:
  """Reads a photo as `read_photo` does, halving its sides until it has at most `most_pixels`.

  By default, photos of up to 50 megapixels come at full size. A larger JPEG is never decoded whole
  into memory.

  Raises:
    FileNotFoundError: see `read_photo`.
    ValueError: see `read_photo`.
  """
  try:
    with open_photo(path) as file:
      whole = file.size
      step = 1
      while whole[0] * whole[1] > most_pixels * step**2:
        step *= 2
      drafted = _draft(file, step)
      file.load()  # turns TIFFs upright
      if file.size != whole and drafted == 1:
        whole = (whole[1], whole[0])
      orientation = exif_orientation(file)
      image = _to_rgb(file, step // drafted)
      image = _from_upright_corner(image, whole, step, orientation)
      size = (whole[1], whole[0]) if orientation in SIDEWAYS else whole
      return ScaledPhoto(np.array(turned_upright(image, orientation)), 1 / step, size)
  except UnidentifiedImageError:
    image = _read_with_opencv(path)
    return ScaledPhoto(image, 1.0, (image.shape[1], image.shape[0]))


def photo_size(path: str | os.PathLike) -> tuple[int, int]:
  """Reads width and height of the upright photo, from the file's header where that tells them.

  Raises:
    FileNotFoundError: see `read_photo`.
    ValueError: see `read_photo`.
  """
  try:
    with open_photo(path) as file:
      if file.format == 'TIFF':
        file.load()  # turns it upright
      width, height = file.size
      return (height, width) if exif_orientation(file) in SIDEWAYS else (width, height)
  except UnidentifiedImageError:
    height, width, _ = _read_with_opencv(path).shape
    return width, height


def photo_from_pillow(image: Image.Image) -> UInt8[np.ndarray, 'height width 3']:
  """Converts a Pillow image to what `read_photo` gives, upright 8-bit RGB."""
  return np.array(turned_upright(_to_rgb(image, 1), exif_orientation(image)))


def read_mask(path: str | os.PathLike) -> Bool[np.ndarray, 'height width']:
  """Reads which pixels an image marks.

  Where any pixel is transparent, the opaque ones are marked. Otherwise the white ones are. So a
  hand that was cut out of its photo is a mask, like one drawn in white on black. Where the opaque
  part is itself drawn in black and white, the opaque pixels that are white are marked.

  Raises:
    FileNotFoundError: see `read_photo`.
    ValueError: see `read_photo`.
  """
  photo = read_photo(path)
  try:
    with open_photo(path) as file:
      file.load()
      pixels = np.array(turned_upright(file.convert('RGBA'), exif_orientation(file)))
  except UnidentifiedImageError:  # only OpenCV reads this format
    return np.all(photo > 127, axis=-1)
  opaque = pixels[..., 3] > 127
  if opaque.all():
    return np.all(photo > 127, axis=-1)
  # The photo shows what is transparent over white, so that only the file tells these colours.
  colors = pixels[..., :3]
  if _is_black_and_white(colors[opaque]):
    return opaque & np.all(colors > 127, axis=-1)
  return opaque


def _is_black_and_white(colors: UInt8[np.ndarray, 'pixels 3']) -> bool:
  """Whether colours are drawn in black and white, with some of both and little between."""
  black = int(np.count_nonzero(colors.max(axis=-1) <= _NEARLY))
  white = int(np.count_nonzero(colors.min(axis=-1) >= 255 - _NEARLY))
  return black > 0 and white > 0 and black + white >= _DRAWN_SHARE * len(colors)


def _draft(file: Image.Image, step: int) -> int:
  """Lets a JPEG be decoded at half, a quarter or an eighth of its size, and returns the divisor."""
  width, height = file.size
  wanted = (max(1, width // step), max(1, height // step))
  drafted = file.draft('RGB', wanted) if step > 1 else None
  # The returned box spans the whole picture in pixels of the reduced one, without rounding.
  return 1 if drafted is None else round(width / drafted[1][2])


def _to_rgb(image: Image.Image, step: int) -> Image.Image:
  """Converts the picture to RGB, and averages over squares of `step` pixels."""
  if image.mode.startswith('I') or image.mode == 'F':
    image = Image.fromarray(_grey_to_8_bit(np.asarray(image)))
  elif image.mode in ('1', 'P', 'PA') or 'transparency' in image.info:
    has_alpha = image.mode == 'PA' or 'transparency' in image.info
    image = image.convert('RGBA' if has_alpha else 'RGB')
  image = image.reduce(step) if step > 1 else image
  if image.mode in ('LA', 'La', 'RGBA', 'RGBa'):
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
  return image if image.mode == 'RGB' else image.convert('RGB')


def _from_upright_corner(
  image: Image.Image, whole: tuple[int, int], step: int, orientation: int
) -> Image.Image:
  """Moves a reduced picture as if its squares were counted from the upright photo's corner.

  Squares are counted from the stored corner. Where turning mirrors an axis whose length is not a
  multiple of `step`, they begin up to one square too early. The picture is moved by that part of a
  square.
  """
  rests = [side % step if orientation in _MIRRORED[axis] else 0 for axis, side in enumerate(whole)]
  if not any(rests) or min(whole) < step:
    return image
  low = [rest / step for rest in rests]
  size = [
    side // step if rest else length
    for side, rest, length in zip(whole, rests, image.size, strict=True)
  ]
  high = [start + length for start, length in zip(low, size, strict=True)]
  return image.resize(size, Image.Resampling.BILINEAR, (low[0], low[1], high[0], high[1]))


def _grey_to_8_bit(grey: np.ndarray) -> np.ndarray:
  """Converts 16-bit levels (which Pillow would clip at 255), or floats in [0, 1], to 8 bits."""
  full = 1.0 if grey.dtype.kind == 'f' and np.nanmax(grey) <= 1 else _FULL_16_BIT
  levels = np.empty(grey.shape, np.uint8)
  # Groups of rows are converted one after the other, since a large picture in floats takes many
  # times its own memory.
  for start in range(0, len(grey), _ROWS):
    scaled = np.nan_to_num(grey[start : start + _ROWS].astype(np.float64) / full)
    levels[start : start + _ROWS] = np.round(255 * np.clip(scaled, 0, 1))
  return levels


def _read_with_opencv(path: str | os.PathLike) -> np.ndarray:
  """Reads formats that Pillow does not know, 16-bit RGB TIFF among them."""
  data = np.fromfile(path, np.uint8)
  if not data.size:
    raise ValueError(f'Image {path} cannot be read: the file is empty.')
  image = cv2.imdecode(data, cv2.IMREAD_COLOR)
  if image is None:
    raise ValueError(
      f'{path} is not an image that can be read; JPEG, PNG, TIFF, WebP, BMP, GIF, HEIC and '
      'AVIF ones can.'
    )
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_box(
  box_xywh: Float[np.ndarray, '4'], width: int, height: int, name: str
) -> Float[np.ndarray, '4']:
  """Checks that a box can hold a hand of this image.

  The image's border may cut a hand, so even most of the box may lie outside the image.

  Args:
    box_xywh: x, y, width and height in pixels.
    width: the image's width in pixels.
    height: the image's height in pixels.
    name: the image's name, for error messages.

  Returns:
    The box itself.

  Raises:
    ValueError: the box is not finite or has no area, or its part inside the image is too small, in
      pixels or as a share of the box. The message names the image and the box.
  """
  x, y, box_width, box_height = (float(value) for value in box_xywh)
  text = ','.join(f'{float(value):g}' for value in box_xywh)
  if not np.isfinite(box_xywh).all() or box_width <= 0 or box_height <= 0:
    raise ValueError(
      f'Box {text} of {name}: expected finite x,y,width,height with width and height above zero.'
    )
  box = f'Box {text} (x,y,width,height in pixels)'
  image = name if name == 'the image' else f'the image {name}'
  image = f'{image} of {width} x {height} pixels'
  inside_width = min(x + box_width, width) - max(x, 0)
  inside_height = min(y + box_height, height) - max(y, 0)
  if inside_width <= 0 or inside_height <= 0:
    raise ValueError(f'{box} lies outside {image}.')
  if min(inside_width, inside_height) < _MIN_INSIDE_PX:
    hint = ' Are these shares of its sides instead of pixels?' if max(box_xywh) <= 1 else ''
    raise ValueError(
      f'{box} has {inside_width:g} x {inside_height:g} pixels inside {image}; '
      f'expected at least {_MIN_INSIDE_PX} x {_MIN_INSIDE_PX}.{hint}'
    )
  share = inside_width * inside_height / (box_width * box_height)
  if share < _MIN_INSIDE_SHARE:
    percent = f'{share:.0%}' if share >= 0.01 else 'less than 1%'
    raise ValueError(
      f'{box} has {percent} of its area inside {image}; expected at least {_MIN_INSIDE_SHARE:.0%}.'
    )
  return box_xywh


def box_round_joints(
  joints: Float[np.ndarray, 'known 2'],
) -> Float[np.ndarray, '4']:
  """Estimates the tight box of the whole hand from its known joints, in pixels.

  Returns:
    The box as x, y, width, height.

  Raises:
    ValueError: there are fewer than two joints, or all lie in one place, so that they do not tell
      the hand's size.
  """
  extent = np.ptp(joints, axis=0).max() if len(joints) else 0.0
  if extent < MIN_EXTENT_PX:
    raise ValueError('the known joints do not tell the size of the hand')
  margin = (_BOX_RATIO + _BOX_RATIO_PER_MISSING / len(joints) - 1) / 2 * extent
  low, high = joints.min(0) - margin, joints.max(0) + margin
  return np.concatenate([low, high - low])


def centred_square(width: int, height: int) -> Float[np.ndarray, '4']:
  """Returns the largest centred square of an image, as x, y, width, height in pixels."""
  side = min(width, height)
  return np.array([(width - side) / 2, (height - side) / 2, side, side], np.float64)


def demo_photo_boxes() -> dict[pathlib.Path, tuple[Float[np.ndarray, '4'], str]]:
  """Lists the photos in the package, each path with the hand's box (pixels) and side."""
  boxes = json.loads((DEMO_PHOTOS / 'boxes.json').read_text())
  return {
    DEMO_PHOTOS / name: (np.array(entry['box_xywh'], np.float64), entry['hand'])
    for name, entry in boxes.items()
  }
