"""Computes all figures of how well sigma predicts the error, for results files and as text.

A figure that is not defined is None, which JSON writes as null. No figure is NaN.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from hand_jax.evaluation.calibration import (
  ENCE_BINS,
  binned_errors,
  coverage,
  expected_normalized_error,
  known_coordinates,
  mean_crps,
  mean_nll,
  mean_squared_z,
  reliability,
)
from hand_jax.evaluation.metrics import spearman_correlation
from hand_jax.evaluation.ranking import (
  RiskCoverage,
  risk_coverage,
  sparsification_error,
  spearman_interval,
  spearman_within_points,
  uninformative_sparsification_error,
  varies,
)

COVERAGE_LEVELS = (0.68, 0.95)
FRAMES = {
  'hand_frame': 'hand frame',
  'root_relative': 'root-relative',
  'aligned': 'aligned',
}
"""The frames that errors are relative to: their keys in results, and their names in tables."""
# A results file holds the risk-coverage curve at these shares.
_SHARES = np.linspace(0.05, 1.0, 20)


class PointErrors(NamedTuple):
  """Errors of points and the deviations stated for them, in mm, axis by axis."""

  error: Float[np.ndarray, '*batch points 3']
  """The difference from the label, or NaN where the label is unknown."""
  sigma: Float[np.ndarray, '*batch points 3']
  """The deviation in the scale of the errors.

  It is NaN where none is stated for a point, such as for a wrist at the origin.
  """
  stated_sigma: Float[np.ndarray, '*batch points']
  """The one number per point that a user sees, before any scaling by the truth.

  It ranks points and examples.
  """


class Names(NamedTuple):
  """The words that the keys of the figures use for examples and points."""

  examples: str
  points: str


def uncertainty_figures(
  errors: PointErrors | None, names: Names, degrees_of_freedom: float = math.inf
) -> dict[str, Any]:
  """Computes every figure of one frame.

  Where `errors` is None, counts are 0 and the other figures None. Keys hold `photos` and `joints`
  for `Names('photos', 'joints')`, and so on. `curves` holds what
  `hand_jax.evaluation.uncertainty_plots` draws, or None without errors.

  Args:
    errors: the stacked errors of whole examples, each of which has a known error.
    names: the words for examples and points in the keys.
    degrees_of_freedom: those of the errors' distribution, infinite for a Gaussian (see
      `hand_jax.student_t`).

  Raises:
    ValueError: an example has no known error, or an error or sigma is not valid (see
      `known_coordinates`).
  """
  figures = dict.fromkeys(_keys(names))
  figures['ence_bins'] = ENCE_BINS
  figures[names.examples] = figures['coordinates'] = 0
  if errors is None:
    return figures
  size, curves = _size_figures(errors, degrees_of_freedom)
  ranking, risk = _ranking_figures(errors, names)
  figures |= {names.examples: len(errors.error)} | size | ranking
  figures['curves'] = {**curves, 'risk_coverage': _sampled(risk)}
  return figures


def stacked(errors: Sequence[PointErrors | None]) -> PointErrors | None:
  """Stacks single examples and leaves out those that are None.

  The result is None where no example is left.
  """
  known = [one for one in errors if one is not None]
  return PointErrors(*map(np.stack, zip(*known, strict=True))) if known else None


def uncertainty_table(uncertainty: Mapping[str, Any], names: Names) -> list[str]:
  """Puts the figures of the frames into lines of text, one column per frame with any figure."""
  frames = {
    frame: uncertainty[frame]
    for frame in FRAMES
    if frame in uncertainty and uncertainty[frame]['coordinates']
  }
  if not frames:
    return []
  example, point = names.examples.removesuffix('s'), 'vertex'
  if names.points != 'vertices':
    point = names.points.removesuffix('s')
  rows = [
    ('coordinates inside 68 %', 'coverage_68', '.1%'),
    ('coordinates inside 95 %', 'coverage_95', '.1%'),
    ('points inside 68 %', 'coverage_68_points', '.1%'),
    ('points inside 95 %', 'coverage_95_points', '.1%'),
    ('mean squared z (1)', 'mean_squared_z', '.2f'),
    ('NLL [nats, mm]', 'nll', '.3f'),
    ('CRPS [mm]', 'crps_mm', '.3f'),
    ('ENCE', 'ence', '.3f'),
    (f'AUSE by {example}', f'ause_{names.examples}', '.3f'),
    ('  a constant sigma', f'ause_{names.examples}_constant', '.3f'),
    (f'AUSE by {point}', f'ause_{names.points}', '.3f'),
    ('  a constant sigma', f'ause_{names.points}_constant', '.3f'),
    (f'Spearman over {names.examples}', f'spearman_{names.examples}', '.2f'),
    ('  95 % interval', f'spearman_{names.examples}_interval', '.2f'),
    (f'Spearman in {names.points}', f'spearman_within_{names.points}', '.2f'),
  ]
  lines = [f'{"sigma and error":<26}' + ''.join(f'{FRAMES[frame]:>16}' for frame in frames)]
  for title, key, form in rows:
    cells = (_cell(figures[key], form) for figures in frames.values())
    lines.append(f'{title:<26}' + ''.join(f'{cell:>16}' for cell in cells))
  return lines


def _cell(value: Any, form: str) -> str:
  if value is None:
    return '-'
  if isinstance(value, list):
    return ' to '.join(format(end, form) for end in value)
  return format(value, form)


def _keys(names: Names) -> tuple[str, ...]:
  examples, points = names
  levels = [f'coverage_{round(100 * level)}' for level in COVERAGE_LEVELS]
  return (
    *(examples, 'coordinates', 'mean_error_mm', 'mean_sigma_mm', 'mean_squared_z'),
    *('nll', 'crps_mm'),
    *(f'{level}{of}' for level in levels for of in ('', '_axes', '_points')),
    *('ence', 'ence_bins'),
    *(f'ause_{examples}', f'ause_{examples}_constant'),
    *(f'ause_{points}', f'ause_{points}_constant'),
    *(f'spearman_{examples}', f'spearman_{examples}_interval', f'spearman_within_{points}'),
    'curves',
  )


def _size_figures(
  errors: PointErrors, degrees_of_freedom: float
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Computes figures of whether sigma has the right size, and the curves of a reliability plot."""
  error, sigma = errors.error, errors.sigma
  known = known_coordinates(error, sigma)
  whole = known.all(axis=-1)
  figures: dict[str, Any] = {'coordinates': int(known.sum())}
  if not known.any():
    return figures, {'reliability': None, 'bins': None}
  if whole.any():
    figures['mean_error_mm'] = float(np.mean(_lengths(error)[whole]))
    figures['mean_sigma_mm'] = float(np.mean(_lengths(sigma)[whole]) / math.sqrt(3))
  figures['mean_squared_z'] = mean_squared_z(error, sigma)
  figures['nll'] = mean_nll(error, sigma, degrees_of_freedom)
  figures['crps_mm'] = mean_crps(error, sigma, degrees_of_freedom)
  for level in COVERAGE_LEVELS:
    found = coverage(error, sigma, level, degrees_of_freedom)
    name = f'coverage_{round(100 * level)}'
    figures[name] = found.coordinates
    figures[f'{name}_axes'] = [_finite(share) for share in found.axes]
    figures[f'{name}_points'] = _finite(found.points)
  bins = binned_errors(error, sigma)
  curve = reliability(error, sigma, degrees_of_freedom=degrees_of_freedom)
  figures['ence'] = expected_normalized_error(bins)
  return figures, {
    'reliability': {'levels': _rounded(curve.levels), 'shares': _rounded(curve.shares)},
    'bins': {
      'rms_sigma_mm': _rounded(bins.rms_sigma),
      'rms_error_mm': _rounded(bins.rms_error),
      'counts': bins.counts.tolist(),
    },
  }


def _ranking_figures(errors: PointErrors, names: Names) -> tuple[dict[str, Any], RiskCoverage]:
  """Computes figures of whether sigma ranks errors, and the curve over examples."""
  lengths = _lengths(errors.error)
  known = ~np.isnan(lengths)
  if not known.any(axis=1).all():
    raise ValueError('error: an example without any known point has no error to rank')
  example_sigma = np.asarray(np.mean(errors.stated_sigma, axis=1, dtype=np.float64))
  example_error = np.where(known, lengths, 0.0).sum(axis=1) / known.sum(axis=1)
  by_example = risk_coverage(example_sigma, example_error)
  # Points without a stated sigma are left out of the rankings of points.
  lengths = np.where(np.isnan(errors.sigma).any(axis=-1), np.nan, lengths)
  known = ~np.isnan(lengths)
  figures: dict[str, Any] = {}
  if len(example_error) > 1:
    figures |= _sparsification(by_example, names.examples)
  if known.sum() > 1:
    figures |= _sparsification(
      risk_coverage(errors.stated_sigma[known], lengths[known]), names.points
    )
  if varies(example_sigma) and varies(example_error):
    figures[f'spearman_{names.examples}'] = float(
      spearman_correlation(example_sigma, example_error)
    )
    interval = spearman_interval(example_sigma, example_error)
    figures[f'spearman_{names.examples}_interval'] = list(interval) if interval else None
  figures[f'spearman_within_{names.points}'] = spearman_within_points(errors.stated_sigma, lengths)
  return figures, by_example


def _sparsification(curve: RiskCoverage, name: str) -> dict[str, float]:
  return {
    f'ause_{name}': sparsification_error(curve),
    f'ause_{name}_constant': uninformative_sparsification_error(curve),
  }


def _sampled(curve: RiskCoverage) -> dict[str, list[float]]:
  """Samples the curve at 20 shares, or takes all where it has fewer."""
  rows = np.arange(len(curve.shares))
  if len(rows) > len(_SHARES):
    rows = np.searchsorted(curve.shares, _SHARES - 1e-9)
  names = ('shares', 'error_mm', 'oracle_mm')
  return {name: _rounded(values[rows]) for name, values in zip(names, curve, strict=True)}


def _lengths(vectors: np.ndarray) -> np.ndarray:
  return np.linalg.norm(vectors.astype(np.float64), axis=-1)


def _rounded(values: np.ndarray) -> list[float]:
  return np.asarray(values, np.float64).round(5).tolist()


def _finite(value: float) -> float | None:
  return float(value) if math.isfinite(value) else None
