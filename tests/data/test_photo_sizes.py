"""Large photos at reduced size with their scale, odd files, and HEIC."""

import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from hand_jax.data import photo_opening
from hand_jax.data.photo_opening import MAX_PHOTO_PIXELS
from hand_jax.data.photos import photo_size, read_mask, read_photo, read_photo_scaled

ROOT = pathlib.Path(__file__).parents[2]
HEIC = ROOT / 'tests' / 'fixtures' / 'photo.heic'
# How a photo is stored, for each EXIF orientation.
STORED = {
  1: lambda upright: upright,
  2: lambda upright: upright[:, ::-1],
  3: lambda upright: upright[::-1, ::-1],
  4: lambda upright: upright[::-1],
  5: lambda upright: upright.swapaxes(0, 1),
  6: lambda upright: np.rot90(upright, 1),
  7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
  8: lambda upright: np.rot90(upright, -1),
}


def save(path, upright, orientation=1, **settings):
  exif = Image.Exif()
  exif[0x0112] = orientation
  stored = np.ascontiguousarray(STORED[orientation](upright))
  Image.fromarray(stored).save(path, exif=exif, **settings)
  return path


def spot(width, height, x, y, sigma=6.0):
  """A grey picture with one smooth bright spot; (x, y) are continuous pixels."""
  columns, rows = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
  level = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
  return np.repeat(np.round(level).astype(np.uint8)[..., None], 3, axis=2)


def centre_of(image):
  """Where the spot is, in continuous pixels of that image."""
  weight = image[..., 0].astype(float)
  weight[weight < 8] = 0
  rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
  return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


@pytest.mark.parametrize('orientation', STORED)
@pytest.mark.parametrize('ending', ['jpg', 'png', 'tiff'])
@pytest.mark.parametrize('size', [(161, 123), (160, 120)])
def test_a_spot_lies_where_the_scale_says(tmp_path, ending, orientation, size):
  """Also where the sides are no multiples of the squares that are averaged, however stored."""
  settings = {'quality': 100} if ending == 'jpg' else {}
  picture = spot(*size, 70.0, 40.0)
  path = save(tmp_path / f'a.{ending}', picture, orientation, **settings)
  photo = read_photo_scaled(path, 161 * 123 // 14)
  assert photo.scale == 1 / 4 and photo.whole_size == size == photo_size(path)
  assert np.abs(np.array(photo.image.shape[1::-1]) - np.array(size) / 4).max() < 1
  np.testing.assert_allclose(photo.to_whole(centre_of(photo.image)), [70, 40], atol=0.15)
  np.testing.assert_allclose(photo.to_reduced([70, 40]), [17.5, 10])
  assert read_photo(path).shape == picture.shape


def test_small_photos_come_as_they_are(tmp_path):
  path = save(tmp_path / 'a.png', spot(30, 20, 10, 10))
  photo = read_photo_scaled(path)
  assert photo.scale == 1 and photo.whole_size == (30, 20)
  np.testing.assert_array_equal(photo.image, read_photo(path))


def test_intrinsics_follow_the_picture(tmp_path):
  """A point in camera axes lands on the same place of the reduced photo."""
  photo = read_photo_scaled(save(tmp_path / 'a.png', spot(80, 60, 20, 20)), 1500)
  intrinsics = np.array([[100.0, 0, 41], [0, 110.0, 29], [0, 0, 1]])
  point = np.array([0.1, -0.05, 0.7])
  whole, reduced = intrinsics @ point, photo.reduced_intrinsics(intrinsics) @ point
  np.testing.assert_allclose(reduced[:2] / reduced[2], photo.to_reduced(whole[:2] / whole[2]))


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGBA', 'P', '1', 'I;16', 'F', 'CMYK'])
def test_every_kind_of_picture_is_reduced(tmp_path, mode):
  """To what the whole picture gives, averaged."""
  picture = Image.fromarray(spot(64, 48, 30, 20, sigma=12))
  if mode == 'I;16':
    picture = Image.fromarray(np.asarray(picture)[..., 0].astype(np.uint16) * 257)
  elif mode == 'F':
    picture = Image.fromarray(np.asarray(picture)[..., 0].astype(np.float32) / 255)
  else:
    picture = picture.convert(mode)
  path = tmp_path / ('a.tiff' if mode in ('F', 'CMYK') else 'a.png')
  picture.save(path)
  photo = read_photo_scaled(path, 64 * 48 // 16)
  whole = read_photo(path).astype(float)
  averaged = whole.reshape(12, 4, 16, 4, 3).mean(axis=(1, 3))
  assert np.abs(photo.image - averaged).max() <= 1.5


def test_colours_behind_transparency_do_not_shine_through(tmp_path):
  """Half of each square is opaque black, the other half transparent red, which is white."""
  picture = np.zeros((8, 8, 4), np.uint8)
  picture[:, ::2] = [0, 0, 0, 255]
  picture[:, 1::2] = [255, 0, 0, 0]
  Image.fromarray(picture).save(tmp_path / 'a.png')
  np.testing.assert_allclose(read_photo_scaled(tmp_path / 'a.png', 16).image, 127.5, atol=1)


def write_header(path, width, height):
  """A PNG that says how large it is, and holds nothing else."""
  header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  chunk = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
  path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk + struct.pack('>I', 0) + b'IDAT' + bytes(4))
  return path


@pytest.mark.parametrize('read', [read_photo, read_photo_scaled, photo_size, read_mask])
def test_the_limit_is_stated_with_the_size(tmp_path, read):
  path = write_header(tmp_path / 'wall.png', 30_000, 20_000)
  with pytest.raises(ValueError, match=r'wall\.png has 30000 x 20000 pixels, 600 megap.* 300 are'):
    read(path)


def test_200_megapixels_are_no_bomb(tmp_path):
  """They are read on, up to where this file ends; Pillow would refuse it by its header."""
  path = write_header(tmp_path / 'a.png', 16_320, 12_240)
  assert MAX_PHOTO_PIXELS > 16_320 * 12_240
  with pytest.raises(ValueError, match='it may be damaged: '):
    read_photo_scaled(path)
  limit = Image.MAX_IMAGE_PIXELS
  assert limit is not None and limit < 16_320 * 12_240 / 2  # left as it was


MEASURED = """
import resource, sys
from hand_jax.data.photos import read_photo_scaled
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
photo = read_photo_scaled(sys.argv[1])
print(*photo.image.shape, photo.scale, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize('ending, most_mb', [('jpg', 330), ('png', 800)])
def test_108_megapixels_in_bounded_memory(tmp_path, ending, most_mb):
  """The whole picture takes 324 MB: a JPEG's never lies in memory, a PNG's lies there once."""
  path = tmp_path / f'a.{ending}'
  Image.new('RGB', (12_000, 9_000), (90, 120, 60)).save(path)
  done = subprocess.run(
    [sys.executable, '-c', MEASURED, path], cwd=ROOT, capture_output=True, text=True, check=True
  )
  *shape, scale, grown_mb = done.stdout.split()
  assert shape == ['4500', '6000', '3'] and scale == '0.5'
  assert float(grown_mb) < most_mb


def test_one_pixel(tmp_path):
  Image.new('RGB', (1, 1), (1, 2, 3)).save(tmp_path / 'a.png')
  assert read_photo(tmp_path / 'a.png').tolist() == [[[1, 2, 3]]]
  assert photo_size(tmp_path / 'a.png') == (1, 1)


def test_an_animation_shows_its_first_frame(tmp_path):
  frames = [Image.new('RGB', (8, 6), color) for color in ('red', 'blue', 'green')]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  assert (read_photo(tmp_path / 'a.gif') == [255, 0, 0]).all()


@pytest.mark.parametrize('name', ['a.png', 'a.heic', 'a.txt', 'a'])
def test_what_is_in_a_file_counts_not_its_name(tmp_path, name):
  picture = spot(30, 20, 10, 10)
  Image.fromarray(picture).save(tmp_path / 'a.jpg', quality=100)
  (tmp_path / 'a.jpg').rename(tmp_path / name)
  assert np.abs(read_photo(tmp_path / name).astype(int) - picture).mean() < 2


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp', 'tiff', 'gif', 'bmp'])
@pytest.mark.parametrize('share', [0.0, 0.03, 0.6])
def test_a_file_cut_short_is_named(tmp_path, ending, share):
  noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
  path = tmp_path / f'a.{ending}'
  Image.fromarray(noise).save(path)
  path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
  reason = (
    'cannot be read, .*damaged|is not an im' if share else 'cannot be read: the file is empty'
  )
  for read in (read_photo, read_photo_scaled):
    with pytest.raises(ValueError, match=rf'a\.{ending} ({reason})'):
      read(path)


def test_a_heic_photo_is_read():
  """The file holds 3 x, 5 y and 2 x + 2 y, compressed by x265 with pillow-heif's defaults."""
  pytest.importorskip('pi_heif', reason='reads HEIC; comes with hand-jax[heic] and [dev]')
  y, x = np.mgrid[:48, :64]
  image = read_photo(HEIC)
  assert image.shape == (48, 64, 3) and photo_size(HEIC) == (64, 48)
  assert np.abs(image - np.stack([3 * x, 5 * y, 2 * x + 2 * y], -1)).mean() < 3


def test_without_pi_heif_a_heic_photo_names_it(monkeypatch):
  def unknown(path):
    raise UnidentifiedImageError(path)

  # Where another test has read one, Pillow knows the format already.
  monkeypatch.setattr(photo_opening, '_open_any_size', unknown)
  monkeypatch.setitem(sys.modules, 'pi_heif', None)
  with pytest.raises(ValueError, match=r"photo\.heic is a HEIC photo.*pip install 'hand-jax\[heic"):
    read_photo(HEIC)


def test_a_damaged_heic_photo_is_named(tmp_path):
  pytest.importorskip('pi_heif', reason='reads HEIC; comes with hand-jax[heic] and [dev]')
  (tmp_path / 'a.heic').write_bytes(HEIC.read_bytes()[:700])
  with pytest.raises(ValueError, match=r'a\.heic (cannot be read|is not an image)') as error:
    read_photo(tmp_path / 'a.heic')
  assert '\n' not in str(error.value)
