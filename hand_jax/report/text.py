"""Writes text, links and pictures as pieces of HTML. Text from outside is escaped here."""

import base64
import html
import os
import urllib.parse

import cv2
import numpy as np
from jaxtyping import UInt8

from hand_jax.types import ArrayLike

_JPEG_QUALITY = 88


def escaped(text: str) -> str:
  """Escapes text for HTML, also inside a quoted attribute. Invalid Unicode becomes `?`."""
  return html.escape(text.encode('utf-8', 'replace').decode(), quote=True)


def link_address(name: str) -> str:
  """Returns the address of a file beside the page, such as `./my%20hand.glb`, not yet escaped.

  A file name that is not valid Unicode is quoted by its bytes, as the file system holds it.
  """
  return './' + urllib.parse.quote(os.fsencode(name))


def image_element(image: UInt8[ArrayLike, 'height width 3'], alt: str, largest_side: int) -> str:
  """Builds an `<img>` element that contains its picture as JPEG.

  Args:
    image: the picture in sRGB.
    alt: a description of the picture for those who do not see it, not yet escaped.
    largest_side: a picture with a side longer than this many pixels is scaled down.

  Returns:
    The element as HTML.
  """
  image = scaled_down(np.asarray(image), largest_side)
  height, width = image.shape[:2]
  address = 'data:image/jpeg;base64,' + base64.b64encode(_jpeg_bytes(image)).decode()
  return (
    f'<img src="{address}" alt="{escaped(alt)}" width="{width}" height="{height}" '
    'loading="lazy" decoding="async">'
  )


def scaled_down(
  image: UInt8[np.ndarray, 'height width 3'], largest_side: int
) -> UInt8[np.ndarray, 'height2 width2 3']:
  """Shrinks a picture until no side is longer than `largest_side` pixels.

  A smaller picture stays as it is, and no side becomes shorter than one pixel.
  """
  height, width = image.shape[:2]
  factor = largest_side / max(height, width)
  if factor >= 1:
    return image
  size = max(1, round(width * factor)), max(1, round(height * factor))
  return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _jpeg_bytes(image: UInt8[np.ndarray, 'height width 3']) -> bytes:
  settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
  done, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
  if not done:
    raise ValueError(f'OpenCV cannot encode a {image.shape} image as JPEG.')
  return data.tobytes()


def percent(probability: float) -> str:
  """Writes a probability in percent, never rounded to certainty, such as `97 %` or `above 99 %`."""
  if probability > 0.99:
    return 'above 99 %'
  return 'below 1 %' if probability < 0.01 else f'{100 * probability:.0f} %'


def counted(number: int, noun: str) -> str:
  """Writes a number with its noun, such as `no hands`, `1 hand` or `2 hands`."""
  return f'1 {noun}' if number == 1 else f'{number or "no"} {noun}s'
