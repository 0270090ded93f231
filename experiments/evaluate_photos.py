"""Measures the whole program on a folder of annotated photos, such as the user's own.

python -m experiments.evaluate_photos --source=my_photos --output=scores.json
"""

import sys
from collections.abc import Iterator

from absl import flags

from experiments.launching import launch, print_lines, read_flags, start
from experiments.path_flags import define_compilation_cache, define_overwrite, define_path
from hand_jax.reconstruction.photo_measuring import (
  PhotoMeasuring,
  check_scores_path,
  measure_photos,
  scores_text,
  write_scores,
)

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  define_path('source', None, 'Folder in the hand_photos format.', required=True)
  define_path(
    'output', None, 'JSON file to write the scores to, with two plots beside it.', required=True
  )
  flags.DEFINE_bool('use_boxes', False, "Looks for each hand in its entry's box.")
  flags.DEFINE_bool('use_intrinsics', False, "Gives the program the entries' intrinsics.")
  define_path('workdir', None, 'Folder of a trained run. Default: the weights in the package.')
  flags.DEFINE_enum(
    'refine', 'on', ['on', 'off'], 'off measures the run in the package, which is not fitted.'
  )
  define_overwrite()
  define_compilation_cache()


def measured_lines() -> Iterator[str]:
  """Measures the photos as the flags say, and yields the lines to print."""
  check_scores_path(FLAGS.output, FLAGS.source, FLAGS.overwrite)
  request = PhotoMeasuring(**read_flags(PhotoMeasuring._fields))
  scores = measure_photos(request, _print_progress)
  written = write_scores(FLAGS.output, scores)
  yield scores_text(scores)
  yield f'Written to {", ".join(map(str, written))}.'


def _print_progress(done: int, count: int) -> None:
  """Prints the progress to a terminal alone, on a line that the next one replaces."""
  if sys.stdout.isatty():
    print(f'Measured {done} of {count} photos', end='\r', flush=True)


def main(argv: list[str]) -> None:
  """Reads the flags and measures the photos."""
  start(argv)
  print_lines(measured_lines())


if __name__ == '__main__':
  define_flags()
  launch(main)
