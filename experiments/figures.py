"""Draws figures of a trained run, with one row for each hand.

  python -m experiments.figures --workdir=DIR --output=DIR

The figures are `clear.png`, `occluded.png` and `photos.png`, see
`hand_jax/reconstruction/figures.py`.
"""

from collections.abc import Sequence

from absl import flags

from experiments.launching import launch, print_lines, start
from experiments.path_flags import define_compilation_cache, define_overwrite, define_path
from hand_jax.evaluation.run_data import RENDERED_DATASET
from hand_jax.reconstruction.figures import make_figures

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  define_compilation_cache()
  define_path('workdir', None, 'Folder of a trained run.', required=True)
  define_path('output', None, 'Folder for the figures. It is made if missing.', required=True)
  flags.DEFINE_string('dataset', RENDERED_DATASET, 'Data set to take hands from.')
  flags.DEFINE_string('split', 'test', 'Split of the data set to take hands from.')
  define_path(
    'data_dir',
    None,
    "Folder of prepared data sets. Default: the run's. Hands are rendered where it has none.",
  )
  flags.DEFINE_list(
    'examples', [], 'Examples, by number, for a figure that replaces clear.png and occluded.png.'
  )
  flags.DEFINE_integer('rows', 4, 'Largest number of hands in a figure.', lower_bound=1)
  flags.DEFINE_bool('demo_photos', True, 'Draws the photos shipped with the project as well.')
  define_path(
    'mano_dir', None, 'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.'
  )
  define_overwrite()


def parse_examples(values: Sequence[str]) -> list[int]:
  """Reads the numbers of --examples.

  Raises:
    ValueError: one of them is no whole number.
  """
  for value in values:
    if not value.strip().isdecimal():
      raise ValueError(f'--examples: {value!r} is no number of an example; expected 0,1,2.')
  return [int(value) for value in values]


def main(argv: list[str]) -> None:
  """Reads the flags and draws the figures."""
  start(argv)
  print_lines(
    make_figures(
      FLAGS.workdir,
      FLAGS.output,
      FLAGS.dataset,
      FLAGS.split,
      FLAGS.data_dir,
      parse_examples(FLAGS.examples),
      FLAGS.rows,
      FLAGS.demo_photos,
      FLAGS.mano_dir,
      FLAGS.overwrite,
    )
  )


if __name__ == '__main__':
  define_flags()
  launch(main)
