"""Writes PCK curves (the share of points within a distance) as CSV and as a figure."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hand_jax.evaluation.official.rules import THRESHOLDS_M
from hand_jax.evaluation.plotting import COLORS, DOTS_PER_INCH, make_plain, write_png

# Sizes in inches.
_PANEL = (5.6, 4.6)  # width and height, without the legend's lines
_LINE = 0.21
_MARGIN = (0.7, 0.45, 0.2, 0.65)  # left, top, right, bottom
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
  """One plot."""

  title: str
  curves: Mapping[str, Sequence[float]]
  """The shares at `THRESHOLDS_M` that each labelled curve shows."""


def area(curve: Sequence[float]) -> float:
  """Computes the area under a PCK curve, 1 at most: the AUC that the tables hold."""
  return float(np.trapezoid(curve, THRESHOLDS_M) / THRESHOLDS_M[-1])


def measure_name(name: str) -> str:
  """Names a measure such as `xyz_al` in words."""
  return _NAMES.get(name, name)


def pck_csv(curves: Mapping[str, Sequence[float]]) -> str:
  """Writes a table of the curves, one column each, beside the thresholds in mm."""
  lines = [','.join(('threshold_mm', *curves))]
  for row, threshold in enumerate(THRESHOLDS_M):
    values = (f'{curve[row]:.6f}' for curve in curves.values())
    lines.append(','.join((f'{1000 * threshold:.6f}', *values)))
  return '\n'.join(lines) + '\n'


def draw_pck(panels: Sequence[Panel]) -> Any:
  """Draws the panels as a matplotlib figure, two in a row (three if there are more than four).

  The figure belongs to no window and leaves pyplot's state alone.

  Raises:
    ValueError: a panel has more curves than there are colours.
  """
  # Imported here because it is slow and nothing else needs it.
  from matplotlib.figure import Figure

  for panel in panels:
    if len(panel.curves) > len(COLORS):
      raise ValueError(
        f'The figure has {len(COLORS)} colours, for as many curves to a panel; '
        f'{panel.title!r} has {len(panel.curves)}.'
      )
  columns = min(len(panels), 2 if len(panels) <= 4 else 3)
  rows = math.ceil(len(panels) / columns)
  width, height = _PANEL
  height += _LINE * max(len(panel.curves) for panel in panels)
  figure = Figure((columns * width, rows * height), DOTS_PER_INCH)
  left, top, right, bottom = _MARGIN
  plot_width, plot_height = width - left - right, _PANEL[1] - top - bottom
  for number, panel in enumerate(panels):
    row, column = divmod(number, columns)
    x = column * width + left
    y = (rows - row) * height - top - plot_height  # upwards, from the figure's lower edge
    across, up = figure.get_size_inches().tolist()
    place = (x / across, y / up, plot_width / across, plot_height / up)
    _draw_panel(figure.add_axes(place), panel)
  return figure


def write_figure(path: str | os.PathLike, panels: Sequence[Panel]) -> None:
  """Writes the panels as a PNG file, which gets its name when it is complete."""
  write_png(path, draw_pck(panels))


def _draw_panel(axes: Any, panel: Panel) -> None:
  thresholds_mm = 1000 * THRESHOLDS_M
  lines = [
    axes.plot(thresholds_mm, curve, color=color, linewidth=2)[0]
    for color, curve in zip(COLORS, panel.curves.values(), strict=False)
  ]
  axes.set(xlim=(0, thresholds_mm[-1]), ylim=(0, 1), xlabel='Error threshold [mm]')
  axes.set_title(
    f'{panel.title}: share within threshold', loc='left', fontsize=11, parse_math=False
  )
  make_plain(axes)
  labels = [f'{label}: AUC {area(curve):.3f}' for label, curve in panel.curves.items()]
  # The legend stands below the plot, where it hides no curve.
  legend = axes.legend(
    lines, labels, loc='upper left', bbox_to_anchor=(0, -0.14), fontsize=9, frameon=False
  )
  for text in legend.get_texts():
    text.set_parse_math(False)  # a run's name may hold dollar signs
