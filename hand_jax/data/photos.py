"""Photos from files as upright 8-bit RGB; hand boxes; the demo photos."""

import json
import os
import pathlib
import warnings

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

# What the files of photos in a folder are called.
PHOTO_SUFFIXES = (
  '.jpg',
  '.jpeg',
  '.png',
  '.webp',
  '.tif',
  '.tiff',
  '.bmp',
  '.gif',
  '.heic',
  '.heif',
)
DEMO_PHOTOS = pathlib.Path(__file__).parent.parent / 'assets' / 'photos'
# The larger side of a hand's tight box (all its projected vertices) over that of its joints' box,
# as a function of the number of known joints: 1.19 for all 21. Fitted to geometric means over 200
# synthetic hands, joints dropped at random: 1.22 for 17, 1.26 for 14, 1.36 for 10, 1.57 for 6.
_BOX_RATIO = 1.035
_BOX_RATIO_PER_MISSING = 3.2
# Joints closer together than this are no hand in pixels, more likely fractions of the image.
MIN_EXTENT_PX = 2.0
# The least of a box that must be inside the photo: pixels each way, and share of its area.
_MIN_INSIDE_PX, _MIN_INSIDE_SHARE = 8, 0.25
_FULL_16_BIT = 65535


def read_photo(path: str | os.PathLike) -> UInt8[np.ndarray, 'height width 3']:
  """A photo as RGB, turned upright by its EXIF orientation.

  JPEG, PNG, TIFF, WebP, BMP and GIF are read, and what else Pillow or OpenCV knows here. Grey,
  palette, CMYK and 16-bit pictures are converted; transparent pixels become white. Of an animation
  the first frame is read.

  Raises:
    FileNotFoundError: no such file. ValueError: not an image, or a damaged one; both name the file.
  """
  check_photo_file(path)
  try:
    with warnings.catch_warnings():
      # Large photos and odd metadata are no concern of the caller's.
      warnings.simplefilter('ignore')
      with Image.open(path) as file:
        return photo_from_pillow(file)
  except UnidentifiedImageError:
    return _read_with_opencv(path)
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
    raise ValueError(f'Image {path} cannot be read, it may be damaged: {error}.') from None


def photo_from_pillow(image: Image.Image) -> UInt8[np.ndarray, 'height width 3']:
  """A Pillow image as `read_photo` gives it: upright RGB of 8 bits."""
  return np.array(_to_rgb(ImageOps.exif_transpose(image)))


def read_mask(path: str | os.PathLike) -> Bool[np.ndarray, 'height width']:
  """Reads which pixels an image marks: its opaque ones where it has any transparency, else white.

  A hand that was cut out of its photo is so a mask, like one drawn in white on black.

  Raises:
    FileNotFoundError, ValueError: as `read_photo` does.
  """
  photo = read_photo(path)
  try:
    with Image.open(path) as file:
      alpha = np.array(ImageOps.exif_transpose(file).convert('RGBA'))[..., 3]
  except UnidentifiedImageError:  # what OpenCV alone reads
    alpha = np.full(photo.shape[:2], 255, np.uint8)
  return alpha > 127 if alpha.min() <= 127 else (photo > 127).all(axis=-1)


def check_photo_file(path: str | os.PathLike) -> None:
  """Raises FileNotFoundError or ValueError where there is no file; both name it."""
  if not os.path.exists(path):
    raise FileNotFoundError(f'Image {path} does not exist.')
  if os.path.isdir(path):
    raise ValueError(f'Image {path} is a folder; name one image file.')


def _to_rgb(image: Image.Image) -> Image.Image:
  if image.mode.startswith('I') or image.mode == 'F':
    return Image.fromarray(_grey_to_8_bit(np.asarray(image))).convert('RGB')
  if image.mode in ('LA', 'PA', 'La', 'RGBA', 'RGBa') or 'transparency' in image.info:
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
  return image.convert('RGB')


def _grey_to_8_bit(grey: np.ndarray) -> np.ndarray:
  """16-bit levels (which Pillow would clip at 255), or floats in [0, 1], as 8-bit ones."""
  full = 1.0 if grey.dtype.kind == 'f' and np.nanmax(grey) <= 1 else _FULL_16_BIT
  scaled = np.nan_to_num(grey.astype(np.float64) / full)
  return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def _read_with_opencv(path: str | os.PathLike) -> np.ndarray:
  """For the formats Pillow does not know, 16-bit RGB TIFF among them."""
  data = np.fromfile(path, np.uint8)
  image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
  if image is None:
    raise ValueError(
      f'{path} is not an image that can be read; JPEG, PNG, TIFF, WebP, BMP and GIF files can.'
    )
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_box(
  box_xywh: Float[np.ndarray, '4'], width: int, height: int, name: str
) -> Float[np.ndarray, '4']:
  """The box itself (x, y, width, height in pixels), when it can hold a hand of this image.

  A hand may be cut by the border, so the box may reach beyond it, with most of its area even.

  Raises:
    ValueError: naming the image and the box: not finite, without area, or its part inside the image
      is too small, in pixels or as a share of the box.
  """
  x, y, box_width, box_height = (float(value) for value in box_xywh)
  text = ','.join(f'{float(value):g}' for value in box_xywh)
  if not np.isfinite(box_xywh).all() or box_width <= 0 or box_height <= 0:
    raise ValueError(
      f'Box {text} of {name}: expected finite x,y,width,height with width and height above zero.'
    )
  box = f'Box {text} (x,y,width,height in pixels)'
  image = f'the image {name} of {width} x {height} pixels'
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
    raise ValueError(
      f'{box} has {share:.0%} of its area inside {image}; expected at least '
      f'{_MIN_INSIDE_SHARE:.0%}.'
    )
  return box_xywh


def box_round_joints(
  joints: Float[np.ndarray, 'known 2'],
) -> Float[np.ndarray, '4']:
  """x, y, width, height in pixels: about the whole hand's tight box, from its known joints.

  Raises:
    ValueError: fewer than two joints, or all in one place: they do not tell the hand's size.
  """
  extent = np.ptp(joints, axis=0).max() if len(joints) else 0.0
  if extent < MIN_EXTENT_PX:
    raise ValueError('the known joints do not tell the size of the hand')
  margin = (_BOX_RATIO + _BOX_RATIO_PER_MISSING / len(joints) - 1) / 2 * extent
  low, high = joints.min(0) - margin, joints.max(0) + margin
  return np.concatenate([low, high - low])


def centred_square(width: int, height: int) -> Float[np.ndarray, '4']:
  """The largest centred square of an image, as x, y, width, height in pixels."""
  side = min(width, height)
  return np.array([(width - side) / 2, (height - side) / 2, side, side], np.float64)


def demo_photo_boxes() -> dict[pathlib.Path, tuple[Float[np.ndarray, '4'], str]]:
  """The photos shipped with the package: path to the hand's box (pixels) and side."""
  boxes = json.loads((DEMO_PHOTOS / 'boxes.json').read_text())
  return {
    DEMO_PHOTOS / name: (np.array(entry['box_xywh'], np.float64), entry['hand'])
    for name, entry in boxes.items()
  }
