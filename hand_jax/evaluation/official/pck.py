"""PCK curves (the share of points within a distance) as CSV and as a figure."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from hand_jax.evaluation.official.rules import THRESHOLDS_M
from hand_jax.files.writing import write_whole

# Okabe and Ito's colours, which the colour-blind can tell apart, without the light yellow.
_COLORS = (
  (0, 114, 178),
  (213, 94, 0),
  (0, 158, 115),
  (204, 121, 167),
  (86, 180, 233),
  (230, 159, 0),
  (40, 40, 40),
)
_PANEL = (560, 460)  # width and height, to which the legend's lines are added
_LINE = 21
_MARGIN = (70, 44, 20, 58)  # left, top, right, bottom
_INK, _GRID = (40, 40, 40), (222, 222, 222)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SCALE = 2  # drawn so much larger, then reduced: even lines
_NAMES = {
  'xyz': 'Joints',
  'xyz_al': 'Joints, aligned',
  'xyz_procrustes_al': 'Joints, Procrustes aligned',
  'xyz_scale_trans_al': 'Joints, scale and translation',
  'mesh': 'Mesh',
  'mesh_al': 'Mesh, aligned',
  'strict_xyz_al': 'Joints, aligned without reflection',
  'strict_mesh_al': 'Mesh, aligned without reflection',
}


class Panel(NamedTuple):
  """One plot: its title and, by label, the shares at `THRESHOLDS_M`."""

  title: str
  curves: Mapping[str, Sequence[float]]


def area(curve: Sequence[float]) -> float:
  """The area under a PCK curve, 1 at most: the AUC that the tables hold."""
  return float(np.trapezoid(curve, THRESHOLDS_M) / THRESHOLDS_M[-1])


def measure_name(name: str) -> str:
  """`xyz_al` in words."""
  return _NAMES.get(name, name)


def pck_csv(curves: Mapping[str, Sequence[float]]) -> str:
  """A table of the curves, one column each, beside the threshold in mm."""
  lines = [','.join(('threshold_mm', *curves))]
  for row, threshold in enumerate(THRESHOLDS_M):
    values = (f'{curve[row]:.6f}' for curve in curves.values())
    lines.append(','.join((f'{1000 * threshold:.6f}', *values)))
  return '\n'.join(lines) + '\n'


def draw_pck(panels: Sequence[Panel]) -> UInt8[np.ndarray, 'height width 3']:
  """The panels in rows, two abreast (three from five on), as an RGB picture.

  Raises:
    ValueError: a panel has more curves than there are colours.
  """
  for panel in panels:
    if len(panel.curves) > len(_COLORS):
      raise ValueError(
        f'The figure has {len(_COLORS)} colours, for as many curves to a panel; '
        f'{panel.title!r} has {len(panel.curves)}.'
      )
  columns = min(len(panels), 2 if len(panels) <= 4 else 3)
  rows = math.ceil(len(panels) / columns)
  width, height = _PANEL
  height += _LINE * max(len(panel.curves) for panel in panels)
  picture = np.full((rows * height * _SCALE, columns * width * _SCALE, 3), 255, np.uint8)
  for number, panel in enumerate(panels):
    row, column = divmod(number, columns)
    place = np.s_[
      row * height * _SCALE : (row + 1) * height * _SCALE,
      column * width * _SCALE : (column + 1) * width * _SCALE,
    ]
    view = np.ascontiguousarray(picture[place])
    _draw_panel(view, panel)
    picture[place] = view
  size = (columns * width, rows * height)
  return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def write_figure(path: str | os.PathLike, panels: Sequence[Panel]) -> None:
  """The panels as a PNG file, which gets its name when it is complete."""
  done, data = cv2.imencode('.png', cv2.cvtColor(draw_pck(panels), cv2.COLOR_RGB2BGR))
  assert done
  write_whole(path, data.tobytes())


def _draw_panel(image: np.ndarray, panel: Panel) -> None:
  _draw_axes(image, panel.title)
  for color, curve in zip(_COLORS, panel.curves.values(), strict=False):
    points = [_place(1000 * t, share) for t, share in zip(THRESHOLDS_M, curve, strict=True)]
    line = np.round(16 * np.array(points)).astype(np.int32)
    cv2.polylines(image, [line], False, color, 2 * _SCALE, cv2.LINE_AA, shift=4)
  _draw_legend(image, panel)


def _place(threshold_mm: float | int, share: float | int) -> tuple[float, float]:
  """Where a point of a curve lies in the enlarged panel."""
  left, top, right, bottom = _MARGIN
  width, height = _PANEL
  x = left + threshold_mm / (1000 * THRESHOLDS_M[-1]) * (width - left - right)
  y = height - bottom - share * (height - top - bottom)
  return float(_SCALE * x), float(_SCALE * y)


def _draw_axes(image: np.ndarray, title: str) -> None:
  def line(start, end, color):
    ends = [tuple(round(value) for value in point) for point in (start, end)]
    cv2.line(image, *ends, color, _SCALE, cv2.LINE_AA)

  for tick in range(0, 51, 10):
    line(_place(tick, 0), _place(tick, 1), _INK if tick == 0 else _GRID)
    x, y = _place(tick, 0)
    _write(image, str(tick), (x, y + 22 * _SCALE), align='middle')
  for share in (0.2, 0.4, 0.6, 0.8, 1.0, 0.0):
    line(_place(0, share), _place(50, share), _INK if share == 0 else _GRID)
    x, y = _place(0, share)
    _write(image, f'{share:.1f}', (x - 8 * _SCALE, y + 5 * _SCALE), align='right')
  line(_place(0, 0), _place(0, 1), _INK)
  x, y = _place(25, 0)
  _write(image, 'Error threshold [mm]', (x, y + 46 * _SCALE), align='middle')
  x, y = _place(0, 1)
  _write(image, f'{title}: share within threshold', (x, y - 18 * _SCALE), size=0.55)


def _draw_legend(image: np.ndarray, panel: Panel) -> None:
  """Below the plot, where it hides no curve: each label with the area under its curve."""
  left = _place(0, 0)[0]
  for number, (color, label) in enumerate(zip(_COLORS, panel.curves, strict=False)):
    y = _SCALE * (_PANEL[1] + _LINE * number + 8)
    start, end = (round(left), y - 5 * _SCALE), (round(left) + 24 * _SCALE, y - 5 * _SCALE)
    cv2.line(image, start, end, color, 2 * _SCALE, cv2.LINE_AA)
    text = f'{label}: AUC {area(panel.curves[label]):.3f}'
    _write(image, text, (left + 32 * _SCALE, y), size=0.45)


def _text_width(text: str, size: float) -> int:
  return cv2.getTextSize(text, _FONT, size * _SCALE, _SCALE)[0][0]


def _write(
  image: np.ndarray,
  text: str,
  place: tuple[float | int, float | int],
  size: float = 0.45,
  align: str = 'left',
) -> None:
  text = text.encode('ascii', 'replace').decode()  # all that the font has
  x, y = place
  x -= {'left': 0.0, 'middle': 0.5, 'right': 1.0}[align] * _text_width(text, size)
  origin = round(x), round(y)
  cv2.putText(image, text, origin, _FONT, size * _SCALE, _INK, _SCALE, cv2.LINE_AA)
