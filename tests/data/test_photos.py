"""Photos of every kind come in as upright 8-bit RGB; broken ones and boxes outside are named."""

import cv2
import numpy as np
import pytest
from PIL import Image

from hand_jax.data.photos import (
  centred_square,
  check_box,
  demo_photo_boxes,
  photo_size,
  read_mask,
  read_photo,
)


def _picture(height=20, width=30):
  """Smooth, so that JPEG keeps it, and without any symmetry."""
  y, x = np.mgrid[:height, :width]
  return np.stack([8 * x, 12 * y, 4 * x + 4 * y], -1).astype(np.uint8)


def test_plain_rgb_is_read_exactly(tmp_path):
  Image.fromarray(_picture()).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read_photo(tmp_path / 'a.png'), _picture())


@pytest.mark.parametrize('ending', ['tiff', 'bmp', 'webp', 'gif', 'jpg'])
def test_the_documented_formats_are_read(tmp_path, ending):
  """Lossless ones exactly."""
  settings = {'lossless': True} if ending == 'webp' else {}
  Image.fromarray(_picture()).save(tmp_path / f'a.{ending}', **settings)
  difference = np.abs(read_photo(tmp_path / f'a.{ending}').astype(int) - _picture())
  assert difference.mean() <= {'gif': 8, 'jpg': 8}.get(ending, 0)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
  """The stored picture is the upright one with the orientation's transform undone."""
  upright = _picture()
  stored = {
    1: upright,
    2: upright[:, ::-1],
    3: upright[::-1, ::-1],
    4: upright[::-1],
    5: upright.swapaxes(0, 1),
    6: np.rot90(upright, 1),
    7: upright[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(upright, -1),
  }[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = tmp_path / 'a.jpg'
  Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=100, subsampling=0)
  image = read_photo(path)
  assert image.shape == upright.shape
  assert np.abs(image.astype(int) - upright).mean() < 2


def test_grey_and_palette_and_two_level(tmp_path):
  grey = _picture()[..., 0]
  Image.fromarray(grey).save(tmp_path / 'grey.png')
  np.testing.assert_array_equal(read_photo(tmp_path / 'grey.png'), np.stack([grey] * 3, -1))
  Image.fromarray(_picture()).quantize(256).save(tmp_path / 'palette.gif')
  assert np.abs(read_photo(tmp_path / 'palette.gif').astype(int) - _picture()).mean() < 8
  Image.fromarray(grey > 100).save(tmp_path / 'two.png')
  np.testing.assert_array_equal(read_photo(tmp_path / 'two.png')[..., 1], 255 * (grey > 100))


def test_transparent_pixels_become_white(tmp_path):
  alpha = np.full((20, 30, 1), 255, np.uint8)
  alpha[:10] = 0
  Image.fromarray(np.concatenate([_picture(), alpha], -1)).save(tmp_path / 'a.png')
  image = read_photo(tmp_path / 'a.png')
  np.testing.assert_array_equal(image[10:], _picture()[10:])
  assert (image[:10] == 255).all()
  bands = [Image.fromarray(band) for band in (_picture()[..., 0], alpha[..., 0])]
  Image.merge('LA', bands).save(tmp_path / 'b.png')
  np.testing.assert_array_equal(read_photo(tmp_path / 'b.png')[10:, :, 0], _picture()[10:, :, 0])


def test_cmyk_jpeg(tmp_path):
  Image.fromarray(_picture()).convert('CMYK').save(tmp_path / 'a.jpg', quality=100)
  image = read_photo(tmp_path / 'a.jpg')
  assert np.abs(image.astype(int) - _picture()).mean() < 3


@pytest.mark.parametrize('name', ['grey.png', 'grey.tiff', 'rgb.png', 'rgb.tiff'])
def test_sixteen_bits(tmp_path, name):
  """Levels are divided by 257, not cut off at 255 nor taken modulo 256."""
  wide = _picture().astype(np.uint16) * 257
  wide = wide[..., 0] if name.startswith('grey') else wide
  stored = wide if wide.ndim == 2 else np.ascontiguousarray(wide[..., ::-1])
  assert cv2.imwrite(str(tmp_path / name), stored)
  expected = np.stack([_picture()[..., 0]] * 3, -1) if wide.ndim == 2 else _picture()
  assert np.abs(read_photo(tmp_path / name).astype(int) - expected).max() <= 1


def test_float_grey(tmp_path):
  Image.fromarray((_picture()[..., 0] / 255).astype(np.float32)).save(tmp_path / 'a.tiff')
  np.testing.assert_array_equal(read_photo(tmp_path / 'a.tiff')[..., 0], _picture()[..., 0])


def test_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no_such\.jpg does not exist'):
    read_photo(tmp_path / 'no_such.jpg')


def test_what_is_no_image_is_named(tmp_path):
  (tmp_path / 'text.jpg').write_text('this is no picture')
  with pytest.raises(ValueError, match=r'text\.jpg is not an image'):
    read_photo(tmp_path / 'text.jpg')
  with pytest.raises(ValueError, match='is a folder'):
    read_photo(tmp_path)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_truncated_image_is_named(tmp_path, name):
  path = tmp_path / name
  noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
  Image.fromarray(noise).save(path)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(ValueError, match=f'{name} cannot be read, it may be damaged') as error:
    read_photo(path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'box', [(-50, 0, 40, 40), (0, 110, 30, 30), (500, 500, 10, 10), (-30, 10, 30, 20)]
)
def test_box_outside_the_image_is_refused(box):
  with pytest.raises(ValueError, match=r'outside the image a\.jpg of 100 x 100 pixels'):
    check_box(np.array(box, float), 100, 100, 'a.jpg')


@pytest.mark.parametrize(
  'box', [(10, 10, 0, 5), (10, 10, 5, -1), (np.nan, 0, 5, 5), (0, 0, np.inf, 5)]
)
def test_box_without_area_is_refused(box):
  with pytest.raises(ValueError, match=r'of a\.jpg: expected finite'):
    check_box(np.array(box, float), 100, 100, 'a.jpg')


@pytest.mark.parametrize(
  ('box', 'reason'),
  [
    (
      (95, 10, 20, 20),
      r'has 5 x 20 pixels inside the image a\.jpg of.*at least 8 x 8\.$',
    ),
    ((10, 10, 20, 7), r'has 20 x 7 pixels inside'),
    ((0.3, 0.1, 0.5, 0.6), r'has 0\.5 x 0\.6 pixels.*shares of its sides instead of pixels'),
    ((80, 80, 50, 50), r'has 16% of its area inside the image a\.jpg.*at least 25%'),
  ],
)
def test_a_box_of_which_too_little_is_inside_is_refused_with_that_reason(box, reason):
  with pytest.raises(ValueError, match=reason):
    check_box(np.array(box, float), 100, 100, 'a.jpg')


@pytest.mark.parametrize(
  'box', [(60, -10, 60, 60), (90, 10, 30, 20), (75, 75, 50, 50), (0, 0, 8, 8)]
)
def test_box_may_reach_beyond_the_border(box):
  box = np.array(box, float)
  np.testing.assert_array_equal(check_box(box, 100, 100, 'a.jpg'), box)


def test_a_mask_is_white_on_black_or_the_hand_cut_out(tmp_path):
  marked = np.zeros((6, 8), bool)
  marked[2:5, 3:7] = True
  drawn = np.where(marked, 255, 0).astype(np.uint8)
  Image.fromarray(drawn).save(tmp_path / 'drawn.png')
  dark_hand = np.dstack([np.full((6, 8, 3), 60, np.uint8), drawn])
  Image.fromarray(dark_hand).save(tmp_path / 'cut_out.png')
  opaque = np.dstack([drawn] * 3 + [np.full_like(drawn, 255)])
  Image.fromarray(opaque).save(tmp_path / 'opaque.png')
  for name in ('drawn', 'cut_out', 'opaque'):
    np.testing.assert_array_equal(read_mask(tmp_path / f'{name}.png'), marked, err_msg=name)


def test_a_mask_drawn_in_black_and_white_may_have_transparent_pixels(tmp_path):
  """Then white is the hand; of what is not drawn so, all that is opaque."""
  drawn = np.zeros((20, 30), np.uint8)
  drawn[5:15, 10:25] = 255
  drawn[4, 10:25] = 90  # a soft edge
  alpha = np.full_like(drawn, 255)
  alpha[:2] = 0
  hidden = np.where(alpha[..., None] > 0, np.dstack([drawn] * 3), 255).astype(np.uint8)
  noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
  for name, colors, marked in (
    ('mask', np.dstack([drawn] * 3), drawn > 127),
    ('hidden', hidden, drawn > 127),  # the transparent pixels are white
    ('cut_out', noise, alpha > 127),
    ('black', np.zeros_like(noise), alpha > 127),
    ('white', np.full_like(noise, 255), alpha > 127),
  ):
    Image.fromarray(np.dstack([colors, alpha])).save(tmp_path / f'{name}.png')
    np.testing.assert_array_equal(read_mask(tmp_path / f'{name}.png'), marked, err_msg=name)


@pytest.mark.parametrize('read', [read_photo, photo_size, read_mask])
def test_an_empty_file_is_called_empty(read, tmp_path):
  (tmp_path / 'a.jpg').write_bytes(b'')
  with pytest.raises(ValueError, match=r'a\.jpg cannot be read: the file is empty\.$'):
    read(tmp_path / 'a.jpg')


def test_photos_in_memory_are_named_once_and_small_shares_in_words():
  with pytest.raises(ValueError, match=r'has less than 1% of its area inside the image of 100 x'):
    check_box(np.array([-5000.0, -5000, 20000, 20000]), 100, 100, 'the image')


def test_centred_square():
  np.testing.assert_array_equal(centred_square(30, 20), [5, 0, 20, 20])
  np.testing.assert_array_equal(centred_square(20, 31), [0, 5.5, 20, 20])


def test_demo_photos_have_boxes_inside_them():
  boxes = demo_photo_boxes()
  assert {path.name for path in boxes} == {'nocurl.jpg', 'halfcurl.jpg', 'fullcurl.jpg'}
  for path, (box, side) in boxes.items():
    height, width, _ = read_photo(path).shape
    assert side == 'left' and (box[:2] >= 0).all()
    assert box[0] + box[2] <= width and box[1] + box[3] <= height
    assert 'MIT License' in (path.parent / 'NOTICE.txt').read_text()
