"""Trains and measures the runs behind the tables of the ablations.

The runs are those of `experiments/ablations/grid.py`. Each is measured on its splits, and its rows
are added to a JSON file at once, with Markdown tables beside it. A second call continues where the
first one stopped, and two calls at a time share the work.
"""

import contextlib
import fcntl
import json
import pathlib
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from experiments.ablations.comparing import add_intervals, errors_path
from experiments.ablations.grid import (
  PHOTO_TABLE,
  SPLITS,
  TABLES,
  Entry,
  Job,
  job_name,
  lineage,
)
from experiments.ablations.measuring import Measure, Measured
from experiments.ablations.prepared import BROAD, DATASET, TEST_EXAMPLES, data_folder
from experiments.ablations.report import (
  FULL_TABLES,
  KEY,
  Row,
  check_output,
  load_rows,
  publish,
  row_key,
)
from experiments.configs.names import get_config
from hand_jax.config import ExperimentConfig
from hand_jax.config_text import apply_overrides
from hand_jax.evaluation.evaluate import METRIC_NAMES
from hand_jax.evaluation.hand_errors import JOINTS_2D, SILHOUETTE_IOU, write_hand_errors
from hand_jax.files.writing import write_json
from hand_jax.runs.checkpoints import check_workdir
from hand_jax.runs.hand_models import load_training_model
from hand_jax.runs.sources import CHECKPOINTS_NAME
from hand_jax.training.loop import train_and_evaluate

NOTE = 'ablation.json'  # This file of a run's folder holds its seconds of training and commits.

Train = Callable[[ExperimentConfig, str], Any]


class Settings(NamedTuple):
  """The flags that all runs share."""

  workdir: pathlib.Path
  data_dir: str
  output: pathlib.Path
  overrides: tuple[str, ...] = ()
  commit: str = 'unknown'
  train_examples: tuple[tuple[str, int], ...] = ()
  """The number of prepared examples of each kind of hands."""
  replace: bool = False
  """Whether rows of other settings are replaced when those of the present ones are measured."""

  def folder(self, job: Job) -> str:
    """Returns the folder of a job's run."""
    return str(self.workdir / job.name)


def job_overrides(job: Job, settings: Settings) -> list[str]:
  """Lists every override of a job. Of several overrides of one setting only the last is kept."""
  links = []
  if job.run.init_from:
    folders = [str(settings.workdir / job_name(name, job.seed)) for name in job.run.init_from]
    links.append(f'training.init_from={",".join(folders)}')
  if job.run.camera_prior:
    folder = settings.workdir / job_name(job.run.camera_prior, job.seed)
    links.append(f'training.camera_prior={folder}')
  hands = job.run.hands
  data = [f'data.data_dir={data_folder(settings.data_dir, hands)}', f'data.hands={hands}']
  texts = [*job.run.overrides, *data, f'training.seed={job.seed}', *settings.overrides, *links]
  return list({text.partition('=')[0].strip(): text for text in texts}.values())


def job_config(job: Job, settings: Settings) -> ExperimentConfig:
  """Returns the whole config of a job.

  Raises:
    ValueError: an override does not fit, see `apply_overrides`.
  """
  return apply_overrides(get_config(job.run.config), job_overrides(job, settings))


def reproduce(job: Job, split: str, settings: Settings) -> str:
  """Writes the shell line that trains all runs a job starts from and the job, and measures it.

  Args:
    job: the job.
    split: the split of the row, one of `SPLITS` or a name of photos.
    settings: the flags that all runs share.
  """
  steps = []
  for each in (*lineage(job), job):
    step = ['python', '-m', 'experiments.train', f'--config={each.run.config}']
    step += [f'--workdir={settings.folder(each)}']
    for text in job_overrides(each, settings):
      step += ['--set', text]
    steps.append(step)
  if split in SPLITS:
    evaluation = ['python', '-m', 'experiments.evaluate', f'--workdir={settings.folder(job)}']
    evaluation += [f'--dataset={DATASET}', f'--split={SPLITS[split]}']
    evaluation += [
      f'--data_dir={data_folder(settings.data_dir, BROAD)}',
      f'--limit={TEST_EXAMPLES}',
    ]
  else:
    evaluation = ['python', '-m', 'experiments.ablations', f'--table={PHOTO_TABLE}']
    evaluation += [f'--seeds={job.seed}', f'--photos={split}=photos/{split}']
  return ' && '.join(shlex.join(step) for step in [*steps, evaluation])


def entry_key(entry: Entry, seed: int) -> tuple:
  """Returns the key of an entry's row, see `KEY`."""
  return (entry.table, entry.setting, entry.supervision, seed, entry.branch, entry.split)


def open_jobs(jobs: Sequence[Job], rows: Sequence[Row], settings: Settings) -> list[Job]:
  """Lists the jobs whose rows are not all there yet, and checks what earlier calls left.

  Args:
    jobs: the jobs whose rows are wanted.
    rows: the rows that the output holds.
    settings: the flags that all runs share.

  Raises:
    ValueError: a run's folder was made with other settings than are asked for now, or a row was and
      `settings.replace` is not set.
  """
  todo = []
  for job in jobs:
    stale = [row_key(row) for row in rows if _is_stale(row, job, settings)]
    if stale and not settings.replace:
      raise ValueError(
        f'{settings.output} holds the row {stale[0]} of other settings than are asked for now (see '
        'its command). Give --replace to measure it again, or choose another --output and '
        '--workdir.'
      )
    if not _missing(job, rows, settings):
      continue
    for each in (*lineage(job), job):
      check_workdir(settings.folder(each), job_config(each, settings))
    todo.append(job)
  return todo


def _missing(job: Job, rows: Sequence[Row], settings: Settings) -> list[Entry]:
  """Lists the entries of a job that have no row of the present settings."""
  found = {row_key(row) for row in rows if not _is_stale(row, job, settings)}
  return [entry for entry in job.entries if entry_key(entry, job.seed) not in found]


def _is_stale(row: Row, job: Job, settings: Settings) -> bool:
  """Returns whether a row is one of a job's own and was made with other settings."""
  keys = {entry_key(entry, job.seed) for entry in job.entries}
  wanted = _without_folders(reproduce(job, row['split'], settings))
  return row_key(row) in keys and _without_folders(row['command']) != wanted


def _without_folders(command: str) -> str:
  """Cuts the paths of a command to their last part, because folders do not change results."""
  return re.sub(r'([=,])[^\s,=]*/', r'\1', command)


def result_row(job: Job, entry: Entry, settings: Settings, measured: Measured, note: dict) -> Row:
  """Makes the row of one of a job's entries.

  Args:
    job: the job, whose run is trained and measured.
    entry: one of the job's entries.
    settings: the flags that all runs share.
    measured: the measurements on the entry's split.
    note: the seconds and the commits of the training, see `read_note`.
  """
  config = job_config(job, settings)
  before = [job_config(each, settings).training.num_steps for each in lineage(job)]
  available = dict(settings.train_examples)[job.run.hands]
  figures = (*METRIC_NAMES, JOINTS_2D, SILHOUETTE_IOU)
  return {
    **dict(zip(KEY, entry_key(entry, job.seed), strict=True)),
    'hands': job.run.hands,
    **{name: measured.errors.mean(entry.branch, name) for name in figures},
    'mean_hand_pa_mpjpe_mm': measured.mean_hand_pa_mpjpe_mm,
    'steps': config.training.num_steps,
    'steps_before': sum(before),
    'batch_size': config.training.batch_size,
    'train_examples': min(config.data.train_examples or available, available),
    'test_examples': len(measured.errors.example_id),
    'seconds': note['seconds'] and round(note['seconds'], 1),
    'commit': '+'.join(note['commits']),
    'command': reproduce(job, entry.split, settings),
  }


def run_jobs(
  jobs: Sequence[Job],
  settings: Settings,
  train: Train,
  measure: Measure,
  has_time: Callable[[], bool] = lambda: True,
) -> dict[str, str]:
  """Trains and measures what is missing, and adds to the output after every run.

  A run whose loss is no longer finite counts as failed, and the others are still finished. A run
  that another process trains or needs is left to that process.

  Args:
    jobs: the jobs whose rows are wanted.
    settings: the flags that all runs share.
    train: called with a config and a workdir, trains that run to its end or continues it.
    measure: measures a trained run.
    has_time: called before each run, returns whether it may begin.

  Returns:
    The reasons of the failures, by the name of the run.

  Raises:
    OSError, ValueError: see `check_output`, `load_rows`, `open_jobs` and `update_section`. They are
      raised before any training.
  """
  check_output(settings.output)
  with _output_lock(settings):
    rows = load_rows(settings.output)
    todo = open_jobs(jobs, rows, settings)
    publish(settings.output, rows)
  print(f'{len(jobs) - len(todo)} of {len(jobs)} runs are in {settings.output} already.')
  failures: dict[str, str] = {}
  for number, job in enumerate(todo, start=1):
    if not has_time():
      print(f'The time is up: {len(todo) - number + 1} runs are left for the next call.')
      break
    with _hold_runs([*lineage(job), job], settings) as is_ours:
      if not is_ours:
        print(f'Run {number} of {len(todo)}: another process trains {job.name}.', flush=True)
      elif _missing(job, load_rows(settings.output), settings):
        print(f'Run {number} of {len(todo)}: {job.name}', flush=True)
        _run_job(job, settings, train, measure, failures)
    # Without this, a process that trains many networks would keep every compiled program.
    jax.clear_caches()
  return failures


def _run_job(
  job: Job, settings: Settings, train: Train, measure: Measure, failures: dict[str, str]
) -> None:
  """Trains the runs that a job starts from and the job, and measures it. Adds to the failures."""
  for each in (*lineage(job), job):
    if each.name not in failures:
      try:
        train_job(each, settings, train)
      except FloatingPointError as error:
        failures[each.name] = str(error)
    if each.name in failures:
      failures.setdefault(job.name, f'it starts from {each.name}')
      return
  measure_job(job, settings, measure)


def train_job(job: Job, settings: Settings, train: Train) -> None:
  """Trains a job unless it is finished, and adds up its seconds over several calls.

  Args:
    job: the job to train.
    settings: the flags that all runs share.
    train: trains a run, see `run_jobs`.
  """
  config, folder = job_config(job, settings), settings.folder(job)
  if (pathlib.Path(folder) / CHECKPOINTS_NAME / str(config.training.num_steps)).is_dir():
    return
  note = read_note(folder)
  path = pathlib.Path(folder) / NOTE
  commits = list(dict.fromkeys([*note['commits'], settings.commit]))
  is_new = not check_workdir(folder, config)
  before = 0.0 if is_new else note['seconds']
  path.parent.mkdir(parents=True, exist_ok=True)
  # Until the training ends or is stopped, its seconds are unknown. They stay so if it is killed.
  write_json(path, {'seconds': None, 'commits': commits})
  started = time.monotonic()
  try:
    train(config, folder)
  finally:
    seconds = None if before is None else before + time.monotonic() - started
    write_json(path, {'seconds': seconds, 'commits': commits})


def read_note(folder: str) -> dict[str, Any]:
  """Reads a run's seconds of training and its commits.

  The seconds are None where they are unknown, for instance because another command trained the run.
  """
  path = pathlib.Path(folder) / NOTE
  return json.loads(path.read_text()) if path.exists() else {'seconds': None, 'commits': []}


def measure_job(job: Job, settings: Settings, measure: Measure) -> None:
  """Measures a trained job, adds the rows that the output lacks and renews the intervals.

  Args:
    job: the job, whose run is trained.
    settings: the flags that all runs share.
    measure: measures a run, see `run_jobs`.
  """
  started = time.monotonic()
  entries = _missing(job, load_rows(settings.output), settings)
  splits = list(dict.fromkeys(entry.split for entry in entries))
  full = [entry.split for entry in entries if entry.table in FULL_TABLES]
  measured = measure(settings.folder(job), splits, full)
  for split, found in measured.items():
    write_hand_errors(errors_path(settings.workdir, job.name, split), found.errors)
  note = read_note(settings.folder(job))
  note['commits'] = note['commits'] or ['unknown']
  if note['seconds'] is not None:
    note['seconds'] += time.monotonic() - started
  with _output_lock(settings):
    rows = load_rows(settings.output)
    for entry in _missing(job, rows, settings):
      rows = [row for row in rows if not _is_replaced(row, job, entry, settings)]
      rows.append(result_row(job, entry, settings, measured[entry.split], note))
    publish(settings.output, add_intervals(rows, settings.workdir))


def _is_replaced(row: Row, job: Job, entry: Entry, settings: Settings) -> bool:
  """Returns whether a row of an entry's table was made with other settings, at any seed.

  A mean over seeds then never mixes both.
  """
  own = (entry.table, entry.setting, entry.supervision, entry.branch, entry.split)
  if own != (row['table'], row['setting'], row['supervision'], row['branch'], row['split']):
    return False
  as_now = reproduce(job._replace(seed=row['seed']), row['split'], settings)
  return _without_folders(row['command']) != _without_folders(as_now)


@contextlib.contextmanager
def _lock(path: pathlib.Path, waits: bool) -> Iterator[bool]:
  """Holds a lock file, which the system frees when the process ends. Gives False if others do."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
      yield False
      return
    yield True


@contextlib.contextmanager
def _hold_runs(jobs: Sequence[Job], settings: Settings) -> Iterator[bool]:
  """Holds the runs of some jobs, so that no other process trains them. Gives False if one does."""
  with contextlib.ExitStack() as stack:
    paths = [settings.workdir / 'locks' / job.name for job in jobs]
    held = [stack.enter_context(_lock(path, waits=False)) for path in paths]
    yield all(held)


@contextlib.contextmanager
def _output_lock(settings: Settings) -> Iterator[None]:
  with _lock(settings.workdir / 'locks' / 'output', waits=True):
    yield


def parse_tables(text: str) -> tuple[str, ...]:
  """Reads the tables of the flag: one name, several with commas, or `all`.

  Raises:
    ValueError: there is no such table.
  """
  tables = TABLES if text == 'all' else tuple(text.split(','))
  if unknown := [table for table in tables if table not in TABLES]:
    raise ValueError(f'Unknown table {unknown[0]!r}: expected one of {", ".join(TABLES)} or all.')
  return tables


def parse_seeds(texts: Sequence[str]) -> list[int]:
  """Reads the seeds of the flag, each once.

  Raises:
    ValueError: a seed is no whole number from 0 on, or there is none.
  """
  if not texts or not all(text.strip().isdecimal() for text in texts):
    raise ValueError(f'--seeds should be whole numbers such as 0,1,2, got {",".join(texts)!r}.')
  return list(dict.fromkeys(int(text) for text in texts))


def train_run(config: ExperimentConfig, workdir: str) -> None:
  """Trains a run, or continues it. This is the `train` of `run_jobs`."""
  train_and_evaluate(config, workdir, load_training_model(config.data.dataset, None))
