"""Checks whether a run on a split can make a submission, before anything is measured."""

import os
import pathlib
from typing import Any

from hand_jax.evaluation.official.rules import BENCHMARKS
from hand_jax.evaluation.official.submission import check_submission_path

# All builders give the benchmarks' own evaluation split this name.
EVALUATION_SPLIT = 'test'


def check_submission_request(dataset: str, submission: str | None, split: str, limit: int) -> None:
  """Refuses a submission that no server would take, before anything is measured.

  Args:
    dataset: name of the data set to measure on.
    submission: file to write the predictions to, or None where none is wanted.
    split: split to measure on.
    limit: how many of its examples are measured, 0 for all.

  Raises:
    ValueError: the flags do not fit. The error names them.
    FileNotFoundError: the submission's folder is missing.
  """
  if submission is None:
    return
  if dataset not in BENCHMARKS:
    raise ValueError(
      f'--submission={submission} needs --dataset one of {", ".join(BENCHMARKS)}, which have '
      f'servers for it; --dataset={dataset} has none.'
    )
  if split != EVALUATION_SPLIT:
    raise ValueError(
      f'--submission={submission} holds the evaluation split, which is {EVALUATION_SPLIT!r} here: '
      f'leave --split={split} out.'
    )
  if limit:
    raise ValueError(
      f'--submission={submission} holds every example of the split: leave --limit={limit} out.'
    )
  check_submission_path(submission)


def check_split_is_whole(
  submission: str | os.PathLike,
  dataset: str,
  split: str,
  manifest_path: pathlib.Path,
  manifest: dict[str, Any],
) -> None:
  """Refuses a submission from a prepared split that lacks some of its examples.

  Servers identify predictions by their position alone, so that all predictions after a gap would
  count for other photos.

  Args:
    submission: file that the predictions were to be written to.
    dataset: name of the prepared data set.
    split: split to measure on.
    manifest_path: path of the data set's manifest (see `prepared_manifest`).
    manifest: what that file holds.

  Raises:
    ValueError: examples are missing. The error names the first one and the remedy.
  """
  remedy = f'remove {manifest_path.parent} and prepare {dataset} again'
  if limit := manifest['settings'].get('limit'):
    raise ValueError(
      f'{submission} cannot be made: {dataset} was prepared with --limit={limit}, and a submission '
      f'holds every example of the split: {remedy} without --limit.'
    )
  skipped = manifest.get('skipped', {}).get(split)
  if not skipped:
    return
  example, reason = next(iter(skipped['examples'].items()))
  raise ValueError(
    f'{submission} cannot be made: {skipped["count"]} examples of split {split!r} were left out '
    f'when {dataset} was prepared (the first, {example}: {reason}), and all predictions after them '
    f'would be counted for another example. {manifest_path} names them; repair the folder it was '
    f'prepared from and {remedy}.'
  )


def submission_size(results: dict[str, Any]) -> str:
  """Describes the number of samples of a submission, and the number that its server expects."""
  benchmark, samples = BENCHMARKS[results['dataset']], results['submitted']
  if samples == benchmark.samples:
    return f'{samples} samples'
  return (
    f'{samples} samples, which the server will not take: the genuine evaluation split of '
    f'{benchmark.title} has {benchmark.samples}'
  )
