"""Provides what all plots share: colours, plain axes, and PNG files that name this program."""

import io
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from hand_jax.files.writing import write_whole

# Colour-blind readers can tell these colours of Okabe and Ito apart. The light yellow is left out.
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#282828')
DOTS_PER_INCH = 100
_MAKER = {'Software': 'hand_jax'}


def make_plain(axes: Any) -> None:
  """Gives matplotlib axes a light grid behind the curves, and no frame at the top and right."""
  axes.grid(color='#dedede')
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)


def write_png(path: str | os.PathLike, figure: Any) -> None:
  """Writes a matplotlib figure as a PNG file, which gets its name when it is complete."""
  picture = io.BytesIO()
  figure.savefig(picture, format='png', metadata=_MAKER)
  write_whole(path, picture.getvalue())


def write_picture(path: str | os.PathLike, image: UInt8[np.ndarray, 'height width 3']) -> None:
  """Writes an RGB picture as a PNG file, which gets its name when it is complete."""
  picture = io.BytesIO()
  notes = PngInfo()
  for name, value in _MAKER.items():
    notes.add_text(name, value)
  Image.fromarray(image).save(picture, format='png', pnginfo=notes)
  write_whole(path, picture.getvalue())


def is_own_picture(path: pathlib.Path) -> bool:
  """Returns whether this library wrote the picture in a file (for `Output.is_own`)."""
  try:
    with Image.open(path) as image:
      return image.format == 'PNG' and image.info.get('Software') == _MAKER['Software']
  except (OSError, UnidentifiedImageError):
    return False
