"""Trains and measures the runs behind the tables of the ablations.

The runs are those of `experiments/ablations/grid.py`. Each is measured on the test split, and its
rows are added to a JSON file at once, with Markdown tables beside it. A second call continues where
the first one stopped.
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

from experiments.ablations.grid import START_SEED, TABLES, Job, job_name, lineage
from experiments.ablations.report import (
  KEY,
  Row,
  check_output,
  load_rows,
  publish,
  row_key,
)
from experiments.configs.names import get_config
from hand_jax.config import DataConfig, ExperimentConfig
from hand_jax.config_text import apply_overrides
from hand_jax.data.example_sources import create_source
from hand_jax.evaluation.evaluate import METRIC_NAMES
from hand_jax.evaluation.evaluate_run import RunRequest, evaluate_run
from hand_jax.files.writing import write_json
from hand_jax.runs.checkpoints import check_workdir
from hand_jax.runs.hand_models import load_training_model
from hand_jax.runs.sources import CHECKPOINTS_NAME
from hand_jax.training.loop import train_and_evaluate

DATASET = 'synthetic_hands'
SPLIT = 'test'
TEST_EXAMPLES = 500  # Runs are measured on the first so many of the split, or on all if fewer.
NOTE = 'ablation.json'  # This file of a run's folder holds its seconds of training and commits.

Train = Callable[[ExperimentConfig, str], Any]
Measure = Callable[[str, str], dict[str, Any]]


class Settings(NamedTuple):
  """The flags that all runs share."""

  workdir: pathlib.Path
  data_dir: str
  output: pathlib.Path
  overrides: tuple[str, ...] = ()
  commit: str = 'unknown'
  train_examples: int = 0  # how many the prepared data hold

  def folder(self, job: Job) -> str:
    """Returns the folder of a job's run."""
    return str(self.workdir / job.name)


def job_overrides(job: Job, settings: Settings) -> list[str]:
  """Lists every override of a job. Of several overrides of one setting only the last is left."""
  links = []
  if job.run.init_from:
    folders = [str(settings.workdir / job_name(name, START_SEED)) for name in job.run.init_from]
    links.append(f'training.init_from={",".join(folders)}')
  if job.run.camera_prior:
    folder = settings.workdir / job_name(job.run.camera_prior, START_SEED)
    links.append(f'training.camera_prior={folder}')
  data = [f'data.data_dir={settings.data_dir}', f'training.seed={job.seed}']
  texts = [*job.run.overrides, *data, *settings.overrides, *links]
  return list({text.partition('=')[0].strip(): text for text in texts}.values())


def job_config(job: Job, settings: Settings) -> ExperimentConfig:
  """Returns the whole config of a job.

  Raises:
    ValueError: an override does not fit, see `apply_overrides`.
  """
  return apply_overrides(get_config(job.run.config), job_overrides(job, settings))


def reproduce(job: Job, settings: Settings) -> str:
  """Writes the shell line that trains all runs a job starts from and the job, and measures it."""
  steps = []
  for each in (*lineage(job), job):
    step = ['python', '-m', 'experiments.train', f'--config={each.run.config}']
    step += [f'--workdir={settings.folder(each)}']
    for text in job_overrides(each, settings):
      step += ['--set', text]
    steps.append(step)
  steps.append(
    ['python', '-m', 'experiments.evaluate', f'--workdir={settings.folder(job)}']
    + [
      f'--dataset={DATASET}',
      f'--split={SPLIT}',
      f'--data_dir={settings.data_dir}',
      f'--limit={TEST_EXAMPLES}',
    ]
  )
  return ' && '.join(shlex.join(step) for step in steps)


def job_keys(job: Job) -> list[tuple]:
  """Lists the keys of the rows that a job fills, in the order of its entries."""
  return [
    (entry.table, entry.setting, entry.supervision, job.seed, entry.branch) for entry in job.entries
  ]


def open_jobs(jobs: Sequence[Job], rows: Sequence[Row], settings: Settings) -> list[Job]:
  """Lists the jobs whose rows are not all there yet, and checks what earlier calls left.

  Args:
    jobs: the jobs whose rows are wanted.
    rows: the rows that the output holds.
    settings: what all runs share.

  Raises:
    ValueError: a row or a run's folder was made with other settings than are asked for now.
  """
  found = {row_key(row): row for row in rows}
  todo = []
  for job in jobs:
    keys = job_keys(job)
    wanted = _without_folders(reproduce(job, settings))
    for key in keys:
      if key in found and _without_folders(found[key]['command']) != wanted:
        raise ValueError(
          f'{settings.output} holds the row {key} of other settings than are asked for now (see '
          'its command). Remove that row and the folder of its run, or choose another --output '
          'and --workdir.'
        )
    if all(key in found for key in keys):
      continue
    for each in (*lineage(job), job):
      check_workdir(settings.folder(each), job_config(each, settings))
    todo.append(job)
  return todo


def _without_folders(command: str) -> str:
  """Cuts the paths of a command to their last part, because folders do not change results."""
  return re.sub(r'([=,])[^\s,=]*/', r'\1', command)


def result_row(job: Job, number: int, settings: Settings, results: dict, note: dict) -> Row:
  """Makes the row of one of a job's entries.

  Args:
    job: the job, whose run is trained and measured.
    number: the place of the entry among the job's entries.
    settings: what all runs share.
    results: the figures by branch, as `evaluate_run` returns them.
    note: the seconds and the commits of the training, see `read_note`.
  """
  entry, config = job.entries[number], job_config(job, settings)
  before = [job_config(each, settings).training.num_steps for each in lineage(job)]
  available = settings.train_examples
  return {
    **dict(zip(KEY, job_keys(job)[number], strict=True)),
    **{name: results[entry.branch][name] for name in METRIC_NAMES},
    'mean_hand_pa_mpjpe_mm': results['mean_hand']['pa_mpjpe_mm'],
    'steps': config.training.num_steps,
    'steps_before': sum(before),
    'batch_size': config.training.batch_size,
    'train_examples': min(config.data.train_examples or available, available),
    'test_examples': results['examples'],
    'seconds': note['seconds'] and round(note['seconds'], 1),
    'commit': '+'.join(note['commits']),
    'command': reproduce(job, settings),
  }


def run_jobs(
  jobs: Sequence[Job],
  settings: Settings,
  train: Train,
  measure: Measure,
) -> dict[str, str]:
  """Trains and measures what is missing, and adds to the output after every run.

  A run whose loss is no longer finite is a failure. The others are finished all the same.

  Args:
    jobs: the jobs whose rows are wanted.
    settings: what all runs share.
    train: called with a config and a workdir, trains that run to its end or continues it.
    measure: called with a workdir and a data_dir, returns the run's results on the test split.

  Returns:
    The reasons of the failures, by the name of the run.

  Raises:
    OSError, ValueError: see `check_output`, `load_rows`, `open_jobs` and `update_section`. Nothing
      was trained then.
  """
  check_output(settings.output)
  rows = load_rows(settings.output)
  todo = open_jobs(jobs, rows, settings)
  publish(settings.output, rows)
  print(f'{len(jobs) - len(todo)} of {len(jobs)} runs are in {settings.output} already.')
  failures: dict[str, str] = {}
  for number, job in enumerate(todo, start=1):
    print(f'Run {number} of {len(todo)}: {job.name}', flush=True)
    for each in (*lineage(job), job):
      if each.name in failures:
        failures.setdefault(job.name, f'it starts from {each.name}')
        break
      try:
        train_job(each, settings, train)
      except FloatingPointError as error:
        failures[each.name] = str(error)
        failures.setdefault(job.name, f'it starts from {each.name}')
        break
    if job.name not in failures:
      measure_job(job, settings, measure)
    # Without this, a process that trains many networks would keep every compiled program.
    jax.clear_caches()
  return failures


def train_job(job: Job, settings: Settings, train: Train) -> None:
  """Trains a job unless it is finished, and adds up its seconds over several calls.

  Args:
    job: the job to train.
    settings: what all runs share.
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
  """Measures a trained job and adds the rows that the output lacks.

  Args:
    job: the job, whose run is trained.
    settings: what all runs share.
    measure: measures a run, see `run_jobs`.
  """
  started = time.monotonic()
  results = measure(settings.folder(job), settings.data_dir)
  note = read_note(settings.folder(job))
  note['commits'] = note['commits'] or ['unknown']
  if note['seconds'] is not None:
    note['seconds'] += time.monotonic() - started
  rows = load_rows(settings.output)
  found = {row_key(row) for row in rows}
  for number, key in enumerate(job_keys(job)):
    if key not in found:
      rows.append(result_row(job, number, settings, results, note))
  publish(settings.output, rows)


def count_training_examples(data_dir: str) -> int:
  """Counts the examples of the prepared training split.

  Raises:
    FileNotFoundError: there are no prepared data.
    ValueError: there is no test split to measure on.
  """
  data = DataConfig(dataset=DATASET, data_dir=data_dir)
  try:
    create_source(data, SPLIT, 0)
    return len(create_source(data, data.train_split, 0))
  except FileNotFoundError:
    raise FileNotFoundError(
      f'No prepared {DATASET} in {data_dir!r}. Prepare it with python -m '
      f'experiments.prepare_dataset --dataset={DATASET} --data_dir={data_dir} '
      '--train_examples=24576 --image_size=128.'
    ) from None


@contextlib.contextmanager
def only_one(workdir: pathlib.Path) -> Iterator[None]:
  """Holds a lock on the workdir, which the system frees when the process ends, however it ends.

  Raises:
    RuntimeError: another process holds the lock.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  with (workdir / '.lock').open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise RuntimeError(f'Another ablation runs in {workdir}; wait for it.') from None
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


def measure_run(workdir: str, data_dir: str) -> dict[str, Any]:
  """Measures a run on the test split. This is the `measure` of `run_jobs`."""
  request = RunRequest(workdir, DATASET, SPLIT, data_dir, limit=TEST_EXAMPLES)
  return evaluate_run(request)[0]
