"""Makes and reports scores.json: the official evaluation of predictions or of a run."""

import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hand_jax.evaluation.metrics import MM_PER_M
from hand_jax.evaluation.official.hints import PredictionHints
from hand_jax.evaluation.official.pck import Panel, measure_name, pck_csv, write_figure
from hand_jax.evaluation.official.rules import (
  BENCHMARKS,
  NO_AUGMENTATION,
  NOT_MEASURED,
  THRESHOLDS_M,
  OfficialScores,
  official_text,
)
from hand_jax.evaluation.official.submission import read_pairs
from hand_jax.evaluation.plotting import is_own_picture
from hand_jax.evaluation.progress import print_progress
from hand_jax.files.outputs import Output, check_outputs, is_json_with, is_text_beginning
from hand_jax.files.writing import write_whole


def scores_record(
  dataset: str, scores: OfficialScores, test_time_augmentation: str = NO_AUGMENTATION, **origin: str
) -> dict[str, Any]:
  """Makes what a scores.json holds: its origin, official and strict figures, and the curves.

  Errors are in cm, as the official scripts print them.

  Args:
    dataset: name of the benchmark.
    scores: the figures, with every sample added.
    test_time_augmentation: what the predictions were averaged over.
    **origin: further fields that describe the origin of the predictions.
  """
  return {
    'dataset': dataset,
    'test_time_augmentation': test_time_augmentation,
    **origin,
    'samples': scores.samples,
    **scores.scores(),
    'strict': scores.strict_scores(),
    'pck_thresholds_mm': (MM_PER_M * THRESHOLDS_M).tolist(),
    'pck': scores.curves(),
  }


def evaluate_predictions(
  predictions: str,
  dataset: str,
  ground_truth: str,
  test_time_augmentation: str = NO_AUGMENTATION,
  allow_implausible: bool = False,
  report: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
  """Measures a pred.json or pred.zip as the official evaluation does.

  Args:
    predictions: the file of predictions.
    dataset: name of the benchmark.
    ground_truth: folder with evaluation_xyz.json and evaluation_verts.json.
    test_time_augmentation: the name of the augmentation that the predictions were averaged over.
    allow_implausible: whether to also measure predictions that seem to be in another unit or axes.
    report: called with the number of finished samples.

  Returns:
    The result of `scores_record`, with `hints`: lines about probable mistakes in the predictions.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: the data set is no benchmark, or a file cannot be measured (see `read_pairs`).
  """
  if dataset not in BENCHMARKS:
    raise ValueError(
      f'--predictions needs --dataset one of {", ".join(BENCHMARKS)}, not {dataset!r}.'
    )
  benchmark = BENCHMARKS[dataset]
  scores, hints = OfficialScores(benchmark), PredictionHints(benchmark)
  pairs = read_pairs(predictions, ground_truth, benchmark, allow_implausible)
  for samples in pairs:
    scores.add(*samples)
    hints.add(samples)
    report(scores.samples)
  record = scores_record(
    dataset,
    scores,
    test_time_augmentation,
    predictions=str(predictions),
    ground_truth=str(ground_truth),
  )
  return record | {'hints': hints.lines()}


def check_score_files(
  output: str | None,
  pck: str | None,
  inputs: Mapping[str | os.PathLike, str],
  overwrite: bool = False,
  others: Iterable[Output] = (),
) -> None:
  """Checks, before anything is measured, that the scores can be written without loss.

  Args:
    output: file for the scores, if any.
    pck: folder for the PCK curves, if any.
    inputs: the files that are read, each with its name in error messages.
    overwrite: whether files that this program did not write may be replaced.
    others: further files that will be written.

  Raises:
    OSError: a file cannot be written there, or would replace another (see `check_outputs`).
    ValueError: an output is an input, or two outputs are one file.
  """
  outputs = list(others)
  if output:
    outputs.append(Output('--output', output, is_json_with('dataset', 'strict', 'pck')))
  if pck:
    table, figure = _curve_paths(pck)
    outputs.append(Output('--pck', table, is_text_beginning('threshold_mm,')))
    outputs.append(Output('--pck', figure, is_own_picture))
  check_outputs(outputs, inputs, overwrite)


def _curve_paths(folder: str) -> tuple[pathlib.Path, pathlib.Path]:
  return pathlib.Path(folder) / 'pck.csv', pathlib.Path(folder) / 'pck.png'


def write_curves(folder: str, scores: dict[str, Any]) -> list[pathlib.Path]:
  """Writes the PCK curves as pck.csv and pck.png, and returns their paths."""
  table, figure = _curve_paths(folder)
  official = {name: curve for name, curve in scores['pck'].items() if 'strict' not in name}
  curves = {measure_name(name): curve for name, curve in official.items()}
  title = BENCHMARKS[scores['dataset']].title
  if scores['test_time_augmentation'] != NO_AUGMENTATION:
    title += f', test-time augmentation: {scores["test_time_augmentation"]}'
  write_whole(table, pck_csv(scores['pck']))
  write_figure(figure, [Panel(title, curves)])
  return [table, figure]


def official_summary(scores: dict[str, Any]) -> str:
  """Writes the official figures as the scripts print them, with notes on missing figures."""
  benchmark = BENCHMARKS[scores['dataset']]
  lines = [
    official_text(scores),
    f'over {scores["samples"]} samples, errors in cm; test-time augmentation: '
    f'{scores["test_time_augmentation"]}',
    f'Aligned without reflections: {_strict_words(scores)}',
  ]
  if scores['samples'] != benchmark.samples:
    lines.append(
      f'The genuine evaluation split of {benchmark.title} has {benchmark.samples} samples: these '
      'figures are of another one.'
    )
  lines += [f'Note: {hint}' for hint in scores.get('hints', ())]
  return '\n'.join(lines)


def _strict_words(scores: dict[str, Any]) -> str:
  strict, parts = scores['strict'], []
  for points, name in (('joints', 'xyz'), ('mesh', 'mesh')):
    error, mirrored = strict[f'strict_{name}_al_mean3d'], strict[f'strict_mirrored_{name}']
    if scores['f_score_5'] == NOT_MEASURED and points == 'mesh':
      parts.append('mesh not measured: there are joints alone')
    elif error == NOT_MEASURED:
      parts.append(f"{points} not measured: its vertices are not as many as the ground truth's")
    else:
      parts.append(f'{points} {error:.2f} cm ({mirrored} samples are mirrored officially)')
  return ', '.join(parts)


def report_predictions(
  predictions: str,
  dataset: str,
  ground_truth: str,
  test_time_augmentation: str = NO_AUGMENTATION,
  allow_implausible: bool = False,
  output: str | None = None,
  pck: str | None = None,
  overwrite: bool = False,
) -> Iterator[str]:
  """Measures a file of predictions and yields what to print about it.

  Args:
    predictions: a pred.json or pred.zip.
    dataset: name of the benchmark that it is for.
    ground_truth: folder with evaluation_xyz.json and evaluation_verts.json.
    test_time_augmentation: the name of the augmentation that the predictions were averaged over.
    allow_implausible: whether to also measure predictions that seem to be in another unit or axes.
    output: file to write the scores to, if any.
    pck: folder to write the PCK curves to, if any.
    overwrite: whether those may replace files that this program did not write.

  Raises:
    OSError: a file is missing or cannot be written.
    ValueError: a file cannot be measured (see `evaluate_predictions`).
  """
  truths = {
    pathlib.Path(ground_truth) / f'evaluation_{kind}.json': 'the ground truth'
    for kind in ('xyz', 'verts')
  }
  check_score_files(output, pck, {predictions: '--predictions', **truths}, overwrite)
  scores = evaluate_predictions(
    predictions,
    dataset,
    ground_truth,
    test_time_augmentation,
    allow_implausible,
    report=lambda done: print_progress(done, 'samples'),
  )
  yield f'{predictions} on {BENCHMARKS[dataset].title}:'
  yield official_summary(scores)
  yield from publish_scores(dataset, scores, output, pck)


def publish_scores(
  dataset: str, scores: dict[str, Any] | None, output: str | None, pck: str | None
) -> Iterator[str]:
  """Writes official scores to the files that are wanted, and yields a line about each.

  Args:
    dataset: name of the data set that was measured on.
    scores: the result of `scores_record`, or None where there are no official scores.
    output: file to write the scores to, if any.
    pck: folder to write the PCK curves to, if any.

  Raises:
    ValueError: a file is wanted where there are no scores.
  """
  if scores is None:
    if output or pck:
      raise ValueError(
        f'--output and --pck hold official scores; {dataset} has none, or no labels for them.'
      )
    return
  if output:
    write_whole(output, json.dumps(scores, indent=2) + '\n')
    yield f'Scores written to {output}.'
  if pck:
    table, figure = write_curves(pck, scores)
    yield f'PCK curves written to {table} and {figure}.'
