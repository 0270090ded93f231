"""Runs the paper's ablations: trains their networks, measures them and writes their tables.

python -m experiments.ablations --table=all --data_dir=runs/prepared
"""

import pathlib
import signal
import sys

from absl import flags

from experiments.ablations.grid import RUNS, TABLES, plan_jobs
from experiments.ablations.running import (
  Settings,
  count_training_examples,
  measure_run,
  only_one,
  parse_seeds,
  parse_tables,
  run_jobs,
  train_run,
)
from experiments.checkout import current_commit
from experiments.launching import launch, start
from experiments.path_flags import define_compilation_cache, define_path
from hand_jax.commands.arguments import ExitCode, print_error

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  flags.DEFINE_string('table', None, f'{", ".join(TABLES)}, or all.', required=True)
  flags.DEFINE_enum(
    'supervision', '', ['', 'full', 'weak'], 'Runs the rows of one supervision. Default: both.'
  )
  define_compilation_cache()
  define_path('workdir', 'runs/ablations', 'Folder in which each run has a folder of its own.')
  define_path('data_dir', 'runs/prepared', 'Folder of the prepared synthetic_hands.')
  define_path('output', 'docs/results/ablations.json', 'File to which the rows are written.')
  flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds of the supervised runs of Tables 3 and 5.')
  flags.DEFINE_integer('steps', None, 'Steps of every run, in place of its own.', lower_bound=1)
  flags.DEFINE_multi_string('set', [], 'A setting of every run, as a.b=value. May be repeated.')


def main(argv: list[str]) -> None:
  """Reads the flags, trains and measures what is missing, and writes the tables."""
  start(argv, 'settings are given as --set a.b=value')
  overrides = tuple(FLAGS.set)
  if FLAGS.steps is not None:
    overrides = (f'training.num_steps={FLAGS.steps}', *overrides)
  workdir = pathlib.Path(FLAGS.workdir)
  # A plain `kill` then ends the command as Ctrl-C does, and the note of the run under way still
  # gets its seconds.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    tables, seeds = parse_tables(FLAGS.table), parse_seeds(FLAGS.seeds)
    jobs = plan_jobs(tables, seeds, runs=RUNS, supervision=FLAGS.supervision)
    settings = Settings(
      workdir,
      FLAGS.data_dir,
      pathlib.Path(FLAGS.output),
      overrides,
      current_commit(),
      count_training_examples(FLAGS.data_dir),
    )
    with only_one(workdir):
      failures = run_jobs(jobs, settings, train_run, measure_run)
  except KeyboardInterrupt:
    print_error('stopped. What has finished is kept; the same command goes on from here.')
    sys.exit(ExitCode.STOPPED)
  print(f'Written to {settings.output} and {settings.output.with_suffix(".md")}.')
  if failures:
    sys.exit('\n'.join(f'Failed: {name}: {reason}' for name, reason in failures.items()))


if __name__ == '__main__':
  define_flags()
  launch(main, failures=[RuntimeError])
