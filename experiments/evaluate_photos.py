"""Measures the whole program on a folder of annotated photos, such as one's own.

python -m experiments.evaluate_photos --source=my_photos --output=scores.json
"""

import json
import sys

from absl import app, flags

from hand_jax.reconstruction.photo_measuring import PhotoMeasuring, measure_photos, summary

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the command's flags; only when run, so that tests may import several commands."""
  flags.DEFINE_string('source', None, 'Folder in the hand_photos format.', required=True)
  flags.DEFINE_string('output', None, 'File to write the scores to, JSON.', required=True)
  flags.DEFINE_bool('use_boxes', False, "Looks for each hand in its entry's box.")
  flags.DEFINE_bool('use_intrinsics', False, "Gives the program the entries' intrinsics.")
  flags.DEFINE_string('workdir', None, 'Folder of a trained run. Default: the fit to landmarks.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected argument {argv[1]!r}: settings are given as --name=value.')
  try:
    request = PhotoMeasuring(*(FLAGS[name].value for name in PhotoMeasuring._fields))
    scores = measure_photos(request)
    with open(FLAGS.output, 'w') as file:
      json.dump(scores, file, indent=2, allow_nan=False)
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
  print('\n'.join(summary(scores)))


if __name__ == '__main__':
  define_flags()
  app.run(main)
