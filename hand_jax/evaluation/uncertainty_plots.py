"""Draws two plots of how well sigma predicts the error, from the curves in a results file.

The reliability plot shows whether sigma has the right size. The risk-coverage plot shows how much
the error falls if the examples of largest sigma are refused.
"""

import os
from collections.abc import Mapping
from typing import Any

from hand_jax.evaluation.plotting import COLORS, DOTS_PER_INCH, make_plain, write_png
from hand_jax.evaluation.uncertainty import FRAMES
from hand_jax.files.buckets import AnyPath, open_path

_IDEAL = {'color': '#8a8a8a', 'linewidth': 1.5, 'linestyle': '--'}
_PANEL = (4.8, 4.6)  # inches


_ENDS = ('reliability', 'risk_coverage')


def plot_paths(results: str | os.PathLike) -> tuple[AnyPath, AnyPath]:
  """Names the plots beside a results file: `NAME_reliability.png`, `NAME_risk_coverage.png`."""
  path = open_path(results)
  reliability, risk = (path.with_name(f'{path.stem}_{end}.png') for end in _ENDS)
  return reliability, risk


def write_uncertainty_plots(
  results: str | os.PathLike, uncertainty: Mapping[str, Any], examples: str
) -> list[AnyPath]:
  """Writes both plots beside a results file.

  Args:
    results: path of the results file.
    uncertainty: the figures by frame (`FRAMES`), as `uncertainty_figures` gives them.
    examples: the word for examples in the plots, such as `photos`.

  Returns:
    The paths of the plots that were written. A plot with nothing to show is left out.
  """
  curves = {
    frame: uncertainty[frame]['curves']
    for frame in FRAMES
    if frame in uncertainty and uncertainty[frame]['curves']
  }
  sized = {frame: curve for frame, curve in curves.items() if curve['reliability']}
  reliability, risk = plot_paths(results)
  written = []
  if sized:
    write_png(reliability, draw_reliability(sized))
    written.append(reliability)
  if curves:
    write_png(risk, draw_risk_coverage(curves, examples))
    written.append(risk)
  return written


def draw_reliability(curves: Mapping[str, Any]) -> Any:
  """Draws observed against nominal shares, and the error against sigma in bins.

  Args:
    curves: the curves `reliability` and `bins` by frame.
  """
  figure, (shares, sizes) = _figure(2)
  shares.plot([0, 100], [0, 100], **_IDEAL, label='right size')
  widest, highest = 0.0, 0.0
  for frame, color in zip(curves, COLORS, strict=False):
    levels, bins = curves[frame]['reliability'], curves[frame]['bins']
    style = {'color': color, 'marker': 'o', 'markersize': 4, 'label': FRAMES[frame]}
    percent = [[100 * value for value in levels[name]] for name in ('levels', 'shares')]
    shares.plot(*percent, **style)
    sizes.plot(bins['rms_sigma_mm'], bins['rms_error_mm'], **style)
    widest = max(widest, *bins['rms_sigma_mm'])
    highest = max(highest, *bins['rms_error_mm'])
  # Each axis ends where its own values end, so that all bins show however wrong sigma is.
  sizes.plot([0, 1.1 * widest], [0, 1.1 * widest], **_IDEAL, label='right size')
  shares.set(xlim=(0, 100), ylim=(0, 100))
  shares.set(xlabel='Interval should hold [%]', ylabel='Coordinates inside [%]')
  sizes.set(xlim=(0, 1.1 * widest), ylim=(0, 1.1 * max(widest, highest)))
  sizes.set(xlabel='Sigma of a bin, root mean square [mm]')
  sizes.set(ylabel='Error of the bin, root mean square [mm]')
  _finish(shares, 'Coverage: above the line, sigma is too large')
  _finish(sizes, 'Error by sigma: above the line, too small')
  return figure


def draw_risk_coverage(curves: Mapping[str, Any], examples: str) -> Any:
  """Draws the mean error of the surest examples against their share, a panel for each frame.

  Args:
    curves: the curve `risk_coverage` by frame.
    examples: the word for examples on the axis.
  """
  figure, panels = _figure(len(curves))
  for axes, (frame, curve) in zip(panels, curves.items(), strict=True):
    risk = curve['risk_coverage']
    kept = [100 * share for share in risk['shares']]
    everything = risk['error_mm'][-1]
    # Without dots the curve of a single example would not show.
    axes.plot(kept, risk['error_mm'], color=COLORS[0], marker='o', markersize=4, label='by sigma')
    axes.plot(kept, risk['oracle_mm'], color=COLORS[2], label='by the true error (best possible)')
    axes.axhline(everything, **_IDEAL, label='by chance')
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.set(xlabel=f'Surest {examples} kept [%]', ylabel='Their mean error [mm]')
    _finish(axes, FRAMES[frame])
  return figure


def _figure(columns: int) -> tuple[Any, Any]:
  """Makes a figure of square panels side by side, which belongs to no window."""
  # Imported here because it is slow and nothing else needs it.
  from matplotlib.figure import Figure

  figure = Figure((columns * _PANEL[0], _PANEL[1]), DOTS_PER_INCH, layout='constrained')
  return figure, figure.subplots(1, columns, squeeze=False)[0]


def _finish(axes: Any, title: str) -> None:
  axes.set_title(title, loc='left', fontsize=11)
  make_plain(axes)
  axes.legend(fontsize=9, frameon=False)
