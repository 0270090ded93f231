"""Shows runs side by side: scores.json files as one table per benchmark, and their PCK curves."""

import csv
import io
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from hand_jax.evaluation.official.pck import Panel, measure_name
from hand_jax.evaluation.official.rules import (
  BENCHMARKS,
  NO_AUGMENTATION,
  NOT_MEASURED,
  THRESHOLDS_M,
)
from hand_jax.files.json_files import read_json

_AUGMENTATION = 'test_time_augmentation'
_CSV_START = ('run', 'dataset', 'samples', _AUGMENTATION)
BOARD_BEGINNINGS = (
  *(f'## {benchmark.title}\n\n' for benchmark in BENCHMARKS.values()),
  ','.join(_CSV_START),
)
"""How the files of boards begin, in Markdown and as CSV."""


class ScoredRun(NamedTuple):
  """One scores.json."""

  name: str
  """The name of the run in tables."""
  scores: dict[str, Any]
  """The content of the file."""

  @property
  def augmentation(self) -> str:
    """Names the run's test-time augmentation."""
    return str(self.scores.get(_AUGMENTATION) or NO_AUGMENTATION)


def read_runs(paths: Sequence[str | os.PathLike], names: Sequence[str] = ()) -> list[ScoredRun]:
  """Reads score files as runs, which are named by `names` or else after the files.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: no path is given, a file holds no scores, there are not as many names as files, or a
      name occurs twice.
  """
  if not paths:
    raise ValueError('Expected scores: --scores=a.json --scores=b.json, one file for each run.')
  if names and len(names) != len(paths):
    raise ValueError(
      f'Expected a name for each of the {len(paths)} score files, found {len(names)}: '
      f'{", ".join(names)}.'
    )
  names = list(names) or default_names(paths)
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise ValueError(f'{twice[0]!r} names two runs; give each its own with --names.')
  return [ScoredRun(name, read_scores(path)) for name, path in zip(names, paths, strict=True)]


def default_names(paths: Sequence[str | os.PathLike]) -> list[str]:
  """Names runs after their files, and with the folders where the file names alone would clash."""
  stems = [pathlib.Path(path).stem for path in paths]
  if len(set(stems)) == len(stems):
    return stems
  return [str(pathlib.Path(path).with_suffix('')) for path in paths]


def read_scores(path: str | os.PathLike) -> dict[str, Any]:
  """Reads a file of `experiments.evaluate`, and checks the values that a table needs.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it holds no scores of a benchmark.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
      f'{path}: no such file; expected scores.json of python -m experiments.evaluate.'
    )
  scores = read_json(path)
  dataset = scores.get('dataset') if isinstance(scores, dict) else None
  if not isinstance(dataset, str) or dataset not in BENCHMARKS:
    raise ValueError(
      f"{path}: expected scores with 'dataset' one of {', '.join(BENCHMARKS)}, found {dataset!r}. "
      'Write them with python -m experiments.evaluate --output=scores.json.'
    )
  for name in measure_names(dataset):
    value = scores.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
      raise ValueError(f'{path}: expected a finite number for {name!r}, found {value!r}.')
  curves = scores.get('pck') or {}
  if not isinstance(curves, dict):
    raise ValueError(f"{path}: expected PCK curves by name under 'pck', found {curves!r:.60}.")
  for name, curve in curves.items():
    found = f'{len(curve)}' if isinstance(curve, list) else f'{curve!r:.60}'
    if found != str(len(THRESHOLDS_M)):
      raise ValueError(
        f'{path}: expected {len(THRESHOLDS_M)} shares in the PCK curve {name!r}, found {found}.'
      )
  return scores


def measure_names(dataset: str) -> list[str]:
  """Lists the official figures of a benchmark in the order of its scores.txt."""
  joints = ['xyz', *(f'xyz_{alignment}' for alignment in BENCHMARKS[dataset].alignments)]
  errors = [f'{name}_{kind}3d' for name in (*joints, 'mesh', 'mesh_al') for kind in ('mean', 'auc')]
  return [*errors, 'f_score_5', 'f_al_score_5', 'f_score_15', 'f_al_score_15']


def _datasets(runs: Sequence[ScoredRun]) -> list[str]:
  found = {run.scores['dataset'] for run in runs}
  return [name for name in BENCHMARKS if name in found]


def _runs_of(runs: Sequence[ScoredRun], dataset: str) -> list[ScoredRun]:
  return [run for run in runs if run.scores['dataset'] == dataset]


def _best(name: str, values: Sequence[float]) -> float | None:
  """Finds the best of the measured values, or gives None where there is nothing to compare."""
  measured = [value for value in values if value != NOT_MEASURED]
  if len(measured) < 2:
    return None
  return min(measured) if name.endswith('_mean3d') else max(measured)


def markdown_board(runs: Sequence[ScoredRun]) -> str:
  """Writes a table for each benchmark, with a row per figure and a column per run.

  The best figures are in bold. Digits are those that the official scripts print. The last rows say
  how many samples were averaged over, and whether test-time augmentation was used.
  """
  parts = []
  for dataset in _datasets(runs):
    of_dataset = _runs_of(runs, dataset)
    rows = [['', *(run.name.replace('|', r'\|') for run in of_dataset)]]
    rows.append(['---', *('---:' for _ in of_dataset)])
    for name in measure_names(dataset):
      values = [run.scores[name] for run in of_dataset]
      best = _best(name, [_rounded(name, value) for value in values])
      rows.append([_with_unit(name), *(_cell(name, value, best) for value in values)])
    rows.append(['samples', *(str(run.scores.get('samples', '?')) for run in of_dataset)])
    rows.append(
      ['test-time augmentation', *(run.augmentation.replace('|', r'\|') for run in of_dataset)]
    )
    table = '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)
    parts.append(f'## {BENCHMARKS[dataset].title}\n\n{table}\n')
  return '\n'.join(parts)


def _with_unit(name: str) -> str:
  return f'{name} [cm]' if name.endswith('_mean3d') else name


def _digits(name: str) -> int:
  return 2 if name.endswith('_mean3d') else 3


def _rounded(name: str, value: float) -> float:
  return round(value, _digits(name))


def _cell(name: str, value: float, best: float | None) -> str:
  if value == NOT_MEASURED:
    return 'not measured'
  text = f'{value:.{_digits(name)}f}'
  return f'**{text}**' if _rounded(name, value) == best else text


def csv_board(runs: Sequence[ScoredRun]) -> str:
  """Writes one line for each run with all its figures to six decimals.

  Figures of other benchmarks are left empty.
  """
  datasets = _datasets(runs)
  names = list(dict.fromkeys(name for dataset in datasets for name in measure_names(dataset)))
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow([*_CSV_START, *names])
  for run in runs:
    own = measure_names(run.scores['dataset'])
    values = [f'{run.scores[name]:f}' if name in own else '' for name in names]
    samples = run.scores.get('samples', '')
    writer.writerow([run.name, run.scores['dataset'], samples, run.augmentation, *values])
  return text.getvalue()


def board_panels(runs: Sequence[ScoredRun]) -> list[Panel]:
  """Makes a panel for each official curve of each benchmark, with all the runs that have it.

  Raises:
    ValueError: a run has no curves.
  """
  for run in runs:
    if not run.scores.get('pck'):
      raise ValueError(f"The scores of {run.name!r} hold no PCK curves ('pck').")
  datasets, panels = _datasets(runs), []
  for dataset in datasets:
    of_dataset = _runs_of(runs, dataset)
    names = [name.removesuffix('_mean3d') for name in measure_names(dataset) if '_mean3d' in name]
    for name in names:
      curves = {run_label(run): run.scores['pck'].get(name) for run in of_dataset}
      curves = {label: curve for label, curve in curves.items() if curve}
      if curves:
        title = measure_name(name)
        panels.append(Panel(f'{BENCHMARKS[dataset].title}, {title}', curves))
  return panels


def run_label(run: ScoredRun) -> str:
  """Labels a run by its name, and by its test-time augmentation where there was one."""
  if run.augmentation == NO_AUGMENTATION:
    return run.name
  return f'{run.name} (test-time augmentation: {run.augmentation})'
