"""What the plots share: colours, plain axes, and PNG files that say who made them."""

import io
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from PIL import Image, UnidentifiedImageError

from hand_jax.files.writing import write_whole

# Okabe and Ito's colours, which the colour-blind can tell apart, without the light yellow.
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


def check_replaceable(paths: Iterable[str | os.PathLike], wanted_by: str) -> None:
  """Checks that no path is taken, except by a plot that this library wrote.

  Args:
    paths: where plots will go.
    wanted_by: the flag that the names come from, for the message.

  Raises:
    FileExistsError: something else has the name.
  """
  for path in map(pathlib.Path, paths):
    if os.path.lexists(path) and not _is_own(path):
      raise FileExistsError(
        f'{path} is in the way of a plot, and this command did not write it. Name another '
        f'{wanted_by}.'
      )


def _is_own(path: pathlib.Path) -> bool:
  try:
    with Image.open(path) as image:
      return image.format == 'PNG' and image.info.get('Software') == _MAKER['Software']
  except (OSError, UnidentifiedImageError):
    return False
