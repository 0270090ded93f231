"""Measures this project beside its alternatives, and shows one table.

  make bench
  make bench ROWS=resnet50_forward_b8,inference_b1

This needs the extra `benchmark`, and a C++ compiler for torch.compile. Each row runs in a separate
process, so that without a library only its rows are missing. Both sides of a row have the same
weights and inputs, and their results are compared before anything is timed. They run in turn.
benchmarks/results.json keeps the results, including earlier ones of rows that were not requested
now. The table of docs/performance.md is written from it.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks.report import describe_row, markdown_table, replace_table
from benchmarks.table import ROWS
from experiments.launching import launch, refuse_arguments

_ROWS = flags.DEFINE_list('rows', [], 'Names of rows. By default all are measured.')
_QUICK = flags.DEFINE_bool('quick', False, 'Try the rows with few repetitions, and keep nothing.')
_MINUTES = flags.DEFINE_float('minutes', 44.0, 'All rows are stopped after this time.')

FOLDER = pathlib.Path(__file__).parent
RESULTS = FOLDER / 'results.json'
PAGE = FOLDER.parent / 'docs' / 'performance.md'
# A row that takes longer is stopped.
MOST_SECONDS = 900


def measure_in_process(name: str, seconds: float, quick: bool) -> dict[str, Any] | str:
  """Measures a row in a separate process. Returns its figures, or the reason why there are none.

  Args:
    name: name of the row.
    seconds: the process is stopped after this time.
    quick: whether to try the row with few repetitions.
  """
  # NumPy's product should be the fastest on this machine. Ignore settings for other programs.
  environment = {k: v for k, v in os.environ.items() if not k.startswith('OPENBLAS_')}
  # The compilers of torch.compile print many messages that do not matter here.
  environment |= {'TORCH_LOGS': '-all', 'OMP_NUM_THREADS': '2'}
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'row.json'
    command = [sys.executable, '-m', 'benchmarks.one_row', name, str(path)]
    command += ['quick'] if quick else []
    try:
      made = subprocess.run(
        command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, timeout=seconds
      )
    except subprocess.TimeoutExpired:
      return f'stopped after {seconds:.0f} s'
    if path.exists():
      return json.loads(path.read_text())
    lines = made.stderr.strip().splitlines()
    return lines[-1] if lines else f'ended with {made.returncode}'


def keep(results: dict[str, Any]) -> None:
  """Writes results, in the order of the table, to the file and to the documentation's table."""
  ordered = [results[name] for name in ROWS if name in results]
  RESULTS.write_text(json.dumps(ordered, indent=1) + '\n')
  if PAGE.exists():
    PAGE.write_text(replace_table(PAGE.read_text(), markdown_table(ordered)))


def main(argv: list[str]) -> None:
  """Measures the rows and prints the table."""
  refuse_arguments(argv)
  names = _ROWS.value or list(ROWS)
  unknown = [name for name in names if name not in ROWS]
  if unknown:
    sys.exit(f'Unknown rows: {", ".join(unknown)}. Expected some of: {", ".join(ROWS)}.')
  results = {row['row']: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
  start, missing = time.monotonic(), {}
  for name in names:
    left = 60 * _MINUTES.value - (time.monotonic() - start)
    if left <= 0:
      missing[name] = 'no time was left'
      continue
    row_start = time.monotonic()
    found = measure_in_process(name, min(left, MOST_SECONDS), _QUICK.value)
    if isinstance(found, str):
      missing[name] = found
      print(f'{name}: not measured: {found}', flush=True)
      continue
    print(f'{describe_row(found)}; {time.monotonic() - row_start:.0f} s in all', flush=True)
    results[name] = found
    if not _QUICK.value:
      keep(results)
  print(f'\n{(time.monotonic() - start) / 60:.1f} minutes.')
  if not _QUICK.value:
    print(markdown_table([results[name] for name in ROWS if name in results]))
  for name, reason in missing.items():
    print(f'Not measured: {name}: {reason}')
  sys.exit(1 if missing else 0)


if __name__ == '__main__':
  launch(main)
