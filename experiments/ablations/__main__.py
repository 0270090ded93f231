"""Runs the paper's ablations: trains their networks, measures them and writes their tables.

python -m experiments.ablations --table=all --data_dir=runs/prepared --replace --minutes=100
"""

import math
import pathlib
import signal
import sys
import time

from absl import flags

from experiments.ablations.grid import (
  ENTRIES,
  PHOTO_TABLE,
  SEEDS,
  TABLES,
  lineage,
  plan_jobs,
  with_photos,
)
from experiments.ablations.measuring import SplitMeasurer, parse_photos
from experiments.ablations.prepared import count_training_examples, prepare_missing
from experiments.ablations.running import (
  Settings,
  parse_seeds,
  parse_tables,
  run_jobs,
  train_run,
)
from experiments.checkout import current_commit
from experiments.launching import launch, start
from experiments.path_flags import define_compilation_cache, define_path
from hand_jax.commands.arguments import ExitCode, print_error
from hand_jax.files.outputs import check_output_folder

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  flags.DEFINE_string('table', None, f'{", ".join(TABLES)}, or all.', required=True)
  flags.DEFINE_enum(
    'supervision', '', ['', 'full', 'weak'], 'Runs the rows of one supervision. Default: both.'
  )
  define_compilation_cache()
  define_path('workdir', 'runs/ablations', 'Folder that gets one folder for each run.')
  define_path('data_dir', 'runs/prepared', 'Folder of the prepared hands, made if missing.')
  define_path('output', 'docs/results/ablations.json', 'File to which the rows are written.')
  flags.DEFINE_list('seeds', [str(seed) for seed in SEEDS], 'Seeds of all runs.')
  flags.DEFINE_multi_string(
    'photos',
    [],
    f'NAME=FOLDER of photos in the hand_photos format with joints_camera, on which {PHOTO_TABLE} '
    'is measured too. May be repeated. Nothing trains on them.',
  )
  flags.DEFINE_boolean(
    'replace', False, 'Replaces rows of other settings when rows of the new settings are measured.'
  )
  flags.DEFINE_float('minutes', None, 'No run begins after this many minutes.', lower_bound=0)
  flags.DEFINE_integer('steps', None, 'Steps of every run, instead of its own.', lower_bound=1)
  flags.DEFINE_multi_string('set', [], 'A setting of every run, as a.b=value. May be repeated.')


def main(argv: list[str]) -> None:
  """Reads the flags, trains and measures the missing runs, and writes the tables."""
  start(argv, 'settings are given as --set a.b=value')
  overrides = tuple(FLAGS.set)
  if FLAGS.steps is not None:
    overrides = (f'training.num_steps={FLAGS.steps}', *overrides)
  workdir = pathlib.Path(FLAGS.workdir)
  # A plain `kill` then ends the command as Ctrl-C does, and the note of the current run still gets
  # its seconds.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  deadline = time.monotonic() + 60 * (FLAGS.minutes if FLAGS.minutes is not None else math.inf)
  try:
    check_output_folder(workdir)
    tables, seeds = parse_tables(FLAGS.table), parse_seeds(FLAGS.seeds)
    photos = parse_photos(FLAGS.photos)
    entries = with_photos(ENTRIES, photos)
    jobs = plan_jobs(tables, seeds, entries, supervision=FLAGS.supervision)
    kinds = {each.run.hands for job in jobs for each in (*lineage(job), job)}
    prepare_missing(FLAGS.data_dir, sorted(kinds))
    settings = Settings(
      workdir,
      FLAGS.data_dir,
      pathlib.Path(FLAGS.output),
      overrides,
      current_commit(),
      tuple((hands, count_training_examples(FLAGS.data_dir, hands)) for hands in sorted(kinds)),
      FLAGS.replace,
    )
    measurer = SplitMeasurer(workdir, FLAGS.data_dir, photos)
    failures = run_jobs(
      jobs, settings, train_run, measurer.measure, lambda: time.monotonic() < deadline
    )
  except KeyboardInterrupt:
    print_error('stopped. Finished runs are kept, and the same command continues from here.')
    sys.exit(ExitCode.STOPPED)
  print(f'Written to {settings.output} and {settings.output.with_suffix(".md")}.')
  if failures:
    sys.exit('\n'.join(f'Failed: {name}: {reason}' for name, reason in failures.items()))


if __name__ == '__main__':
  define_flags()
  launch(main, failures=[RuntimeError])
