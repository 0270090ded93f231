"""Measures a trained run on a split, and describes the results."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from hand_jax.data.example_sources import create_source
from hand_jax.data.pipeline import evaluation_batches
from hand_jax.data.prepared import prepared_manifest
from hand_jax.evaluation.evaluate import NAMES, EstimateFn, evaluate_batches, make_estimate_fn
from hand_jax.evaluation.mean_hand import MeanHand
from hand_jax.evaluation.official.hands import BenchmarkRun, PreparedLabels
from hand_jax.evaluation.official.rules import BENCHMARKS
from hand_jax.evaluation.official.score_files import (
  check_score_files,
  official_summary,
  publish_scores,
  scores_record,
)
from hand_jax.evaluation.official.submission import write_submission
from hand_jax.evaluation.official.submission_checks import (
  EVALUATION_SPLIT,
  check_split_is_whole,
  check_submission_request,
  submission_size,
)
from hand_jax.evaluation.progress import with_progress
from hand_jax.evaluation.results_text import results_summary, results_table
from hand_jax.evaluation.run_data import RENDERED_EXAMPLES, data_to_measure, mean_hand_of
from hand_jax.evaluation.turns import augmentation_name, averaged_over_turns
from hand_jax.evaluation.uncertainty_plots import write_uncertainty_plots
from hand_jax.files.buckets import AnyPath, open_path
from hand_jax.files.outputs import Output
from hand_jax.files.writing import write_whole
from hand_jax.mano.model import extended_joint_regressor
from hand_jax.models.hand_network import naming_misfits
from hand_jax.runs.checkpoints import CONFIG_NAME, load_for_inference
from hand_jax.runs.hand_models import load_run_model
from hand_jax.runs.packed_run import run_folder
from hand_jax.types import HandBatch


class RunRequest(NamedTuple):
  """The run, and the data to measure it on.

  Each field is the value of the flag of the same name of `experiments.evaluate`.
  """

  workdir: str
  """Folder of the run."""
  dataset: str
  split: str = EVALUATION_SPLIT
  data_dir: str | None = None
  """Folder that holds prepared data sets.

  With None it is the folder that the run was trained from, if `dataset` is the same. An empty text
  means that hands are rendered on the fly.
  """
  limit: int = 0
  """How many examples to measure, counted from the first.

  With 0 all prepared examples are measured, or `RENDERED_EXAMPLES` rendered ones.
  """
  mean_hand_examples: int = 2000
  """How many training examples the mean hand is made of, at most."""
  mano_dir: str | None = None
  """Folder or file of the MANO model, if the run was trained with it.

  With None it is found through $MANO_DIR.
  """
  submission: str | None = None
  """File to write all predictions to, for a benchmark's server."""
  turns: int = 1
  """How many turns of its crop each estimate is averaged over. With 1 nothing is averaged."""


def evaluate_run(request: RunRequest) -> tuple[dict[str, Any], AnyPath]:
  """Measures a run on a split and writes the results.

  On a benchmark (`BENCHMARKS`) all predictions are also written to `request.submission`, if it is
  given. With `request.turns` above 1 every estimate is averaged over that many turns of its crop
  (`averaged_over_turns`), and the results get a file of their own.

  Returns:
    The results and the path of their file. They hold those of `evaluate_batches`, and `dataset`,
    `split`, `test_time_augmentation` and `mean_hand_examples`. The last is 0 where the training
    split has no 3D labels, and so no baseline. Where a benchmark's split is labelled, they also
    hold the `official` scores as `scores_record` gives them.

  Raises:
    FileNotFoundError: the run, its checkpoint, the data set, the hand model or the folder of the
      submission is missing.
    ValueError: one of them cannot be used, the split does not exist, a server would not take the
      submission, or `turns` is below 1.
  """
  workdir, submission = request.workdir, request.submission
  dataset, split = request.dataset, request.split
  benchmark = BENCHMARKS.get(dataset)
  check_submission_request(dataset, submission, split, request.limit)
  augmentation = augmentation_name(request.turns)
  config, variables = load_for_inference(workdir)
  if benchmark and config.data.upright:
    raise ValueError(
      f'{workdir} was trained with data.upright=True: its estimates are in the axes of crops that '
      f'labels turn, and {benchmark.title} compares hands in the axes of the photo. Evaluate it on '
      'another data set, or train a run with data.upright=False.'
    )
  data = data_to_measure(config, dataset, request.data_dir)
  count = request.limit or (0 if data.data_dir else RENDERED_EXAMPLES)
  source = create_source(data, split, config.model.image_size, count)
  if submission:
    check_split_is_whole(submission, dataset, split, *prepared_manifest(dataset, data.data_dir))
  model = load_run_model(workdir, request.mano_dir)
  mean_hand = mean_hand_of(workdir, data, request.mean_hand_examples)
  config = dataclasses.replace(config, data=data)
  estimate_fn = averaged_over_turns(make_estimate_fn(config, variables, model), request.turns)
  run = None
  if benchmark:
    labels = PreparedLabels(data.dataset, data.data_dir, split)
    run = BenchmarkRun(benchmark, estimate_fn, model, labels)
  make_batches = evaluation_batches(source, config, len(model.v_template))
  with make_batches as batches, naming_misfits(workdir):
    results = _measure(
      estimate_fn,
      run,
      with_progress(batches, len(source)),
      extended_joint_regressor(model),
      mean_hand,
    )
  results = {
    'dataset': dataset,
    'split': split,
    'test_time_augmentation': augmentation,
    **results,
  }
  if submission:
    results['submitted'] = len(source)
  results['mean_hand_examples'] = mean_hand.examples if mean_hand else 0
  if run and run.scores.samples:
    results['official'] = scores_record(
      dataset, run.scores, workdir=workdir, split=split, test_time_augmentation=augmentation
    )
  suffix = f'-{request.turns}_turns' if request.turns > 1 else ''
  path = open_path(workdir) / 'evaluation' / f'{dataset}-{split}{suffix}.json'
  write_whole(path, json.dumps(results, indent=2) + '\n')
  if run and benchmark and submission:
    hands = run.predictions()
    write_submission(submission, hands.joints, hands.vertices, benchmark, len(source))
  return results, path


def _measure(
  estimate_fn: EstimateFn,
  run: BenchmarkRun | None,
  batches: Iterable[HandBatch],
  joint_regressor: Any,
  mean_hand: MeanHand | None,
) -> dict[str, Any]:
  """Runs `evaluate_batches` and collects the benchmark's predictions on the way.

  A benchmark's split may have no labels at all. The results are then only `examples`, which is 0.
  """
  if run is None:
    return evaluate_batches(estimate_fn, batches, joint_regressor, mean_hand=mean_hand)
  walk = run.walk(batches)
  try:
    return evaluate_batches(run.estimate, walk, joint_regressor, mean_hand=mean_hand)
  except ValueError:
    if run.has_batch_labels or not run.is_finished:
      raise
    return {'examples': 0}


def report_run(
  request: RunRequest,
  output: str | None = None,
  pck: str | None = None,
  overwrite: bool = False,
) -> Iterator[str]:
  """Measures a run and yields what to print about it: tables, and which files were written.

  Where there are 3D labels, two plots beside the results show how well sigma predicts the error.

  Args:
    request: the run, and what to measure it on.
    output: file to write the official scores to, if any.
    pck: folder to write the PCK curves of those scores to, if any.
    overwrite: whether those files and a submission may replace files that this program did not
      write.

  Raises:
    OSError: a file cannot be read or written (see `evaluate_run` and `check_score_files`).
    ValueError: the request cannot be met (see `evaluate_run`, `check_score_files` and
      `publish_scores`).
  """
  submission = [Output('--submission', request.submission)] if request.submission else []
  config_path = run_folder(request.workdir) / CONFIG_NAME
  run: dict[str | os.PathLike, str] = {config_path: 'the config of the run'}
  check_score_files(output, pck, run, overwrite, submission)
  results, path = evaluate_run(request)
  yield f'{request.workdir} on {request.dataset}, split {results["split"]}:'
  if table := results_table(results):
    yield table
  yield results_summary(results)
  scores = results.get('official')
  if scores:
    yield f'As the official evaluation of {BENCHMARKS[request.dataset].title} measures:'
    yield official_summary(scores)
  yield f'Written to {path}.'
  if uncertainty := results.get('uncertainty'):
    for plot in write_uncertainty_plots(path, uncertainty, NAMES.examples):
      yield f'Plot written to {plot}.'
  if request.submission:
    yield f'Submission written to {request.submission}: {submission_size(results)}.'
  yield from publish_scores(request.dataset, scores, output, pck)
