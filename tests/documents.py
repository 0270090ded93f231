"""Runs the commands of a document from its first to its last, as written there, in one process."""

import json
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

import jax

ROOT = pathlib.Path(__file__).parent.parent

# One process for all commands, since each alone would import and compile for itself. Every one is
# run as `python -m` runs it, on flags of its own.
DRIVER = """
import gc, json, pathlib, runpy, sys
from absl import flags

gc.set_threshold(100_000, 50, 100)  # as in tests/conftest.py

jobs, packaged_run = json.load(sys.stdin)
if packaged_run:
  from hand_jax.reconstruction import views
  from hand_jax.runs import packed_run
  packed_run.PACKAGED_RUN = pathlib.Path(packaged_run)
  views.PANEL_SIDE = 96  # as in tests/conftest.py
for module, arguments in jobs:
  # absl keeps the flags of the program itself under its name.
  for flag in list(flags.FLAGS.flags_by_module_dict().get(sys.argv[0], [])):
    delattr(flags.FLAGS, flag.name)
  flags.FLAGS.unparse_flags()
  sys.argv = [module, *arguments]
  print('$', module, *arguments, flush=True)
  try:
    runpy.run_module(module, run_name='__main__')
  except SystemExit as end:
    if end.code:
      sys.exit(f'{module} {arguments}: {end.code}')
"""


def document_commands(document: str) -> list[list[str]]:
  """Reads the commands of a document of docs/ in their order, as lists of arguments."""
  lines = (ROOT / 'docs' / document).read_text().replace('\\\n', ' ').splitlines()
  return [shlex.split(line) for line in lines if line.startswith('    ')]


def run_commands(
  commands: Sequence[Sequence[str]],
  folder: pathlib.Path,
  extra: Mapping[str, Sequence[str]],
  packaged_run: pathlib.Path | None = None,
) -> str:
  """Runs commands in a folder and returns their output.

  Args:
    commands: the commands. Each begins with a Python and -m.
    folder: the working folder.
    extra: arguments to append to the commands of a module, by its last name.
    packaged_run: the folder that replaces the trained run in the package.

  Raises:
    AssertionError: a command failed. The message holds the output of all of them.
  """
  jobs = []
  for python, m, module, *arguments in commands:
    assert python in ('python', '.venv/bin/python') and m == '-m'
    jobs.append((module, [*arguments, *extra.get(module.rpartition('.')[2], [])]))
  environment = os.environ | {
    'PYTHONPATH': str(ROOT),
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': str(jax.config.jax_compilation_cache_dir),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
  }
  done = subprocess.run(
    [sys.executable, '-c', DRIVER],
    input=json.dumps([jobs, packaged_run and str(packaged_run)]),
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, f'{done.stdout}\n{done.stderr}'
  return done.stdout
