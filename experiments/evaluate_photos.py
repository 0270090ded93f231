"""Measures the whole program on a folder of annotated photos, such as one's own.

python -m experiments.evaluate_photos --source=my_photos --output=scores.json
"""

import sys
from collections.abc import Iterator

from absl import flags

from experiments.launching import launch, print_lines, start
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
  """Defines the command's flags; only when run, so that tests may import several commands."""
  define_path('source', None, 'Folder in the hand_photos format.', required=True)
  define_path(
    'output', None, 'File to write the scores to, JSON; two plots go beside it.', required=True
  )
  flags.DEFINE_bool('use_boxes', False, "Looks for each hand in its entry's box.")
  flags.DEFINE_bool('use_intrinsics', False, "Gives the program the entries' intrinsics.")
  define_path('workdir', None, 'Folder of a trained run. Default: the weights in the box.')
  define_overwrite()
  define_compilation_cache()


def measured_lines() -> Iterator[str]:
  """Does what the flags say and yields what to print."""
  check_scores_path(FLAGS.output, FLAGS.source, FLAGS.overwrite)
  request = PhotoMeasuring(*(FLAGS[name].value for name in PhotoMeasuring._fields))
  scores = measure_photos(request, _print_progress)
  written = write_scores(FLAGS.output, scores)
  yield scores_text(scores)
  yield f'Written to {", ".join(map(str, written))}.'


def _print_progress(done: int, count: int) -> None:
  """Writes a line on the terminal that the next one replaces; nothing elsewhere."""
  if sys.stdout.isatty():
    print(f'Measured {done} of {count} photos', end='\r', flush=True)


def main(argv: list[str]) -> None:
  start(argv)
  print_lines(measured_lines())


if __name__ == '__main__':
  define_flags()
  launch(main)
