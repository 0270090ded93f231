"""Compares rows of a table, hand by hand and seed by seed, with intervals."""

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.ablations.grid import ENTRIES, Entry, job_name, with_photos
from experiments.ablations.report import Row
from hand_jax.evaluation.evaluate import ERROR_NAMES
from hand_jax.evaluation.hand_errors import (
  JOINTS_2D,
  SILHOUETTE_IOU,
  HandErrors,
  read_hand_errors,
)
from hand_jax.evaluation.paired_intervals import paired_interval

COMPARED = (*ERROR_NAMES, JOINTS_2D, SILHOUETTE_IOU)


def errors_path(workdir: pathlib.Path, name: str, split: str) -> pathlib.Path:
  """Returns the file of a run's errors on each hand."""
  return workdir / name / 'errors' / f'{split}.npz'


def add_intervals(rows: Sequence[Row], workdir: pathlib.Path) -> list[Row]:
  """Adds to the rows their differences to others, over the seeds that both have.

  All seeds of an entry get the same values. `against` names the row that it is compared with.
  `difference` and `interval` are the mean and the ends of the difference of `interval_metric`, over
  `interval_seeds`. `differences` holds [mean, low, high] of every error. Rows whose errors on each
  hand are not in the workdir do not change.

  Args:
    rows: the rows of all tables.
    workdir: folder of the runs.
  """
  rows = [dict(row) for row in rows]
  photos = {row['split'] for row in rows} - {entry.split for entry in ENTRIES}
  entries = with_photos(ENTRIES, sorted(photos))
  for entry in entries:
    other = _other(entry, entries)
    if other is None:
      continue
    ours, theirs = (_errors_by_seed(each, rows, workdir) for each in (entry, other))
    seeds = [seed for seed in sorted(ours) if seed in theirs]
    if seeds:
      found = _compare(entry, [ours[s] for s in seeds], other, [theirs[s] for s in seeds])
      found |= {'against': _label(other, entries), 'interval_seeds': seeds}
      for row in rows:
        if _is_of(row, entry) and row['seed'] in seeds:
          row |= found
  return rows


def _other(entry: Entry, entries: Sequence[Entry]) -> Entry | None:
  """Finds the row that an entry is compared with, or None if it is compared with none."""
  place = (entry.table, entry.supervision, entry.split, entry.against, entry.against_branch)
  for other in entries:
    if place == (other.table, other.supervision, other.split, other.setting, other.branch):
      return other
  return None


def _label(entry: Entry, entries: Sequence[Entry]) -> str:
  """Names a row by its setting, and by its branch where the setting has several."""
  branches = {
    other.branch
    for other in entries
    if (other.table, other.setting, other.supervision, other.split)
    == (entry.table, entry.setting, entry.supervision, entry.split)
  }
  return f'{entry.setting}, {entry.branch}' if len(branches) > 1 else entry.setting


def _is_of(row: Row, entry: Entry) -> bool:
  return all(
    row[name] == getattr(entry, name)
    for name in ('table', 'setting', 'supervision', 'branch', 'split')
  )


def _errors_by_seed(
  entry: Entry, rows: Sequence[Row], workdir: pathlib.Path
) -> dict[int, HandErrors]:
  """Reads the errors of an entry's rows. Errors whose mean is not that of the row are left out."""
  found = {}
  for row in rows:
    path = errors_path(workdir, job_name(entry.run, row['seed']), entry.split)
    if not _is_of(row, entry) or not path.is_file():
      continue
    errors = read_hand_errors(path)
    mean = errors.mean(entry.branch, 'pa_mpjpe_mm') if entry.branch in errors.values else None
    if mean is not None and np.isclose(mean, row['pa_mpjpe_mm'], rtol=1e-9):
      found[row['seed']] = errors
  return found


def _compare(
  entry: Entry, ours: Sequence[HandErrors], other: Entry, theirs: Sequence[HandErrors]
) -> Row:
  for errors in (*ours, *theirs):
    if not np.array_equal(errors.example_id, ours[0].example_id):
      raise ValueError(
        f'Runs of table {entry.table} were measured on different hands of split {entry.split}: '
        "remove the folders 'errors' of these runs, and their rows."
      )
  differences = {}
  for name in COMPARED:
    compared = [(errors, entry) for errors in ours] + [(errors, other) for errors in theirs]
    if all(name in errors.values[each.branch] for errors, each in compared):
      first = np.stack([errors.values[entry.branch][name] for errors in ours])
      second = np.stack([errors.values[other.branch][name] for errors in theirs])
      differences[name] = list(paired_interval(first, second))
  # Photos have no meshes.
  metric = entry.metric if entry.metric in differences else 'pa_mpjpe_mm'
  difference, *interval = differences[metric]
  return {
    'difference': difference,
    'interval': interval,
    'interval_metric': metric,
    'differences': differences,
  }
