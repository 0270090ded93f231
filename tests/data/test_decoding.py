"""Decoding of prepared photos and masks: exact pixels, every kind of file, one named error."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from hand_jax.data.decoding import decode_mask, decode_photo
from hand_jax.readers.annotation_files import BadExampleError, read_encoded_photo


def make_photo(height: int = 47, width: int = 61) -> np.ndarray:
  rng = np.random.default_rng(height)
  coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
  return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(pixels: np.ndarray, format: str, **options) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format, **options)
  return file.getvalue()


def opened(data: bytes) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))


@pytest.mark.parametrize('size', [(47, 61), (1, 1), (1, 33), (480, 640), (17, 8)])
@pytest.mark.parametrize('subsampling', ['4:4:4', '4:2:2', '4:2:0'])
@pytest.mark.parametrize('progressive', [False, True])
def test_a_jpeg_has_the_pixels_that_other_decoders_give(size, subsampling, progressive):
  data = saved(
    make_photo(*size), 'JPEG', quality=90, subsampling=subsampling, progressive=progressive
  )
  photo = decode_photo(data, 'a')
  opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
  # Builds of libjpeg-turbo may differ by a level; a rough transform or chroma differs by many.
  for expected in (opencv, opened(data)):
    np.testing.assert_allclose(photo.astype(int), expected, atol=1)
  assert photo.dtype == np.uint8 and photo.flags.c_contiguous


@pytest.mark.parametrize('format', ['JPEG', 'PNG'])
def test_grey_photos_get_three_equal_channels(format):
  grey = make_photo()[..., 0]
  data = saved(grey, format)
  photo = decode_photo(data, 'a')
  assert photo.shape == (*grey.shape, 3)
  np.testing.assert_array_equal(photo, opened(data))


def test_png_photos_are_exact():
  pixels = make_photo()
  np.testing.assert_array_equal(decode_photo(saved(pixels, 'PNG'), 'a'), pixels)
  palette = io.BytesIO()
  Image.fromarray(pixels).quantize(16).save(palette, 'PNG')
  np.testing.assert_array_equal(decode_photo(palette.getvalue(), 'a'), opened(palette.getvalue()))


def test_transparency_and_the_lower_of_16_bits_are_dropped():
  pixels = make_photo()
  alpha = np.full((*pixels.shape[:2], 1), 7, np.uint8)
  data = saved(np.concatenate([pixels, alpha], -1), 'PNG')
  np.testing.assert_array_equal(decode_photo(data, 'a'), pixels)
  deep = pixels[..., ::-1].astype(np.uint16) * 256 + 99
  data = cv2.imencode('.png', deep)[1].tobytes()
  np.testing.assert_array_equal(decode_photo(data, 'a'), pixels)


@pytest.mark.parametrize('format', ['JPEG', 'PNG'])
def test_stored_pixels_are_not_turned_by_their_orientation(format):
  exif = Image.Exif()
  exif[0x0112] = 6  # a quarter turn
  data = saved(make_photo(), format, exif=exif)
  np.testing.assert_array_equal(decode_photo(data, 'a'), opened(data))


def test_masks_are_exact():
  rng = np.random.default_rng(0)
  for mask in (
    rng.integers(0, 2, (33, 50), np.uint8) * 255,
    rng.integers(0, 256, (7, 9), np.uint8),
  ):
    np.testing.assert_array_equal(decode_mask(saved(mask, 'PNG'), 'a'), mask)


def damaged(data: bytes, kind: str) -> bytes:
  middle = len(data) // 2
  return {
    'empty': b'',
    'text': b'not a picture at all',
    'cut': data[: len(data) * 2 // 3],
    'start alone': data[:20],
    'ends early': data[:middle] + b'\xff\xd9' + data[middle + 2 :],
    'bytes changed': data[:middle] + bytes(64) + data[middle + 64 :],
  }[kind]


@pytest.mark.parametrize(
  'kind', ['empty', 'text', 'cut', 'start alone', 'ends early', 'bytes changed']
)
@pytest.mark.parametrize('format', ['JPEG', 'PNG'])
def test_damaged_photos_are_one_error_by_example(format, kind, capfd):
  data = damaged(saved(make_photo(200, 300), format), kind)
  with pytest.raises(ValueError, match="Example 'frame-3': the photo cannot be decoded") as caught:
    decode_photo(data, 'frame-3')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('kind', ['empty', 'text', 'cut', 'bytes changed'])
def test_damaged_masks_are_one_error_by_example(kind):
  mask = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
  with pytest.raises(ValueError, match="Example 'frame-3': the hand mask cannot be decoded"):
    decode_mask(damaged(saved(mask, 'PNG'), kind), 'frame-3')


@pytest.mark.parametrize('format', ['JPEG', 'PNG'])
def test_what_preparation_accepts_training_can_decode(format, tmp_path):
  """Bytes overwritten here and there: decoders differ in which of it they notice."""
  rng = np.random.default_rng(5)
  whole = saved(make_photo(48, 64), format)
  path = tmp_path / 'photo'
  accepted = 0
  for _ in range(150):
    data = bytearray(whole)
    for place in rng.integers(len(data) // 4, len(data), size=rng.integers(0, 3)):
      data[place] = rng.integers(256)
    path.write_bytes(bytes(data))
    try:
      photo = read_encoded_photo(path, (64, 48))
    except BadExampleError as error:
      assert 'cannot be read' in str(error) or 'pixels, expected' in str(error)
      continue
    accepted += 1
    np.testing.assert_array_equal(decode_photo(photo.data, 'a'), photo.pixels)
  assert 5 < accepted < 145  # neither part of the loop is idle (a third is left whole)


def test_other_formats_are_refused():
  with pytest.raises(ValueError, match='expected a whole JPEG or PNG file'):
    decode_photo(saved(make_photo(), 'BMP'), 'a')
  with pytest.raises(ValueError, match='expected a whole PNG file'):
    decode_mask(saved(make_photo(), 'JPEG'), 'a')
