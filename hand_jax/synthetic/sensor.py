"""Camera effects: blur, limited resolution, colour balance, noise and JPEG compression."""

import functools

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_NOISE_SIZE = 512


@functools.cache
def _noise_bank() -> np.ndarray:
  """Draws fixed unit Gaussian noise, once.

  A photo uses a window of it, which is cheaper than new noise.
  """
  rng = np.random.default_rng(71)
  return rng.standard_normal((_NOISE_SIZE, _NOISE_SIZE, 3), np.float32)


def photograph(
  rng: np.random.Generator, image: Float[np.ndarray, 'size size 3']
) -> tuple[UInt8[np.ndarray, 'size size 3'], Float[np.ndarray, '3 4']]:
  """Turns a display image (0..1) into one that a phone or webcam would deliver.

  Returns the photo, and the colour balance that `apply_balance` takes.
  """
  image = _blur(rng, image.astype(np.float32))
  balance = _sample_balance(rng)
  image = apply_balance(image, balance)
  image = _add_noise(rng, image)
  result = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
  if rng.uniform() < 0.6:
    quality = int(rng.integers(30, 96))
    encoded = cv2.imencode('.jpg', result, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    result = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
  return result, balance


def _blur(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
  size = image.shape[0]
  kind = rng.uniform()
  if kind < 0.15:
    share = rng.uniform(0.4, 0.8)
    small = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
  if kind < 0.25:
    length = rng.uniform(2, 6) * size / 160
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((9, 9), np.float32)
    reach = np.array([np.cos(angle), np.sin(angle)]) * min(length / 2, 4)
    start, end = (np.round(4 + s * reach).astype(int).tolist() for s in (-1, 1))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_AA)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
  return cv2.GaussianBlur(image, (3, 3), rng.uniform(0.35, 0.9) * size / 160)


def apply_balance(
  colors: Float[np.ndarray, 'rows columns 3'], balance: Float[np.ndarray, '3 4']
) -> Float[np.ndarray, 'rows columns 3']:
  """Maps display colours by an affine map, whose last column is an offset.

  The result may leave 0..1.
  """
  return cv2.transform(colors, balance)


def _sample_balance(rng: np.random.Generator) -> np.ndarray:
  """Draws white balance, contrast and saturation, within bounds that keep skin plausible."""
  gains = np.exp(rng.normal(0, [0.045, 0.02, 0.06]))
  contrast, saturation = rng.uniform(0.85, 1.15), rng.uniform(0.75, 1.25)
  # Saturation moves every channel to or from the mean, so one affine map holds all three.
  mix = (saturation * np.eye(3) + (1 - saturation) / 3) @ np.diag(gains * contrast)
  offset = np.full((3, 1), 0.5 * (1 - contrast))
  return np.hstack([mix, offset]).astype(np.float32)


def _add_noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
  """Adds noise to an image.

  Half of the time the noise is correlated between neighbouring pixels, as after demosaicing, and
  half of the time it is the same in all channels.
  """
  size = image.shape[0]
  row, column = rng.integers(0, max(1, _NOISE_SIZE - size), 2)
  bank = _noise_bank()
  if size > _NOISE_SIZE:
    bank = np.tile(bank, (-(-size // _NOISE_SIZE), -(-size // _NOISE_SIZE), 1))
    row = column = 0
  noise = bank[row : row + size, column : column + size]
  if rng.uniform() < 0.5:
    noise = cv2.blur(noise, (2, 2)) * np.float32(1.6)
  level = rng.gamma(1.1, 0.008)
  if rng.uniform() < 0.5:
    noise = noise.mean(-1, keepdims=True) * np.float32(1.3)
  return image + noise * np.float32(level)
