"""Measures a trained run, or a file of predictions as the official evaluations do.

python -m experiments.evaluate --workdir=DIR --dataset=... --split=...
python -m experiments.evaluate --predictions=pred.zip --dataset=freihand --ground_truth=DIR
"""

from collections.abc import Iterator

from absl import flags

from experiments.launching import launch, print_lines, read_flags, start
from experiments.path_flags import define_compilation_cache, define_overwrite, define_path
from hand_jax.evaluation.evaluate_run import RunRequest, report_run
from hand_jax.evaluation.forms import check_forms
from hand_jax.evaluation.official.rules import BENCHMARKS, NO_AUGMENTATION
from hand_jax.evaluation.official.score_files import report_predictions
from hand_jax.evaluation.official.submission_checks import EVALUATION_SPLIT
from hand_jax.evaluation.run_data import RENDERED_EXAMPLES
from hand_jax.files.paths import DATA_SCHEMES, RUN_SCHEMES

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  benchmarks = ', '.join(BENCHMARKS)
  define_compilation_cache()
  define_path('workdir', None, 'Folder of a trained run.', schemes=RUN_SCHEMES)
  flags.DEFINE_string('dataset', None, f'Data set to measure on. Predictions need {benchmarks}.')
  flags.DEFINE_string('split', EVALUATION_SPLIT, 'Split to measure a run on.')
  define_path(
    'data_dir',
    None,
    "Folder of prepared data sets. Default: the run's. Hands are rendered where it has none.",
    schemes=DATA_SCHEMES,
  )
  flags.DEFINE_integer(
    'limit',
    0,
    f'Number of examples, from the first. 0 takes all, or {RENDERED_EXAMPLES} rendered ones.',
    0,
  )
  flags.DEFINE_integer('mean_hand_examples', 2000, 'Training examples that make the mean hand.', 1)
  define_path(
    'mano_dir', None, 'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.'
  )
  define_path(
    'submission', None, "File to write a run's predictions to, for the server: .json or .zip."
  )
  flags.DEFINE_integer(
    'turns',
    1,
    'Averages each estimate of a run over this many rotations of its crop. Tables then say so.',
    1,
  )
  define_path('predictions', None, 'pred.json or pred.zip to measure, without a run.')
  define_path('ground_truth', None, 'Folder with evaluation_xyz.json and evaluation_verts.json.')
  flags.DEFINE_string(
    'test_time_augmentation',
    NO_AUGMENTATION,
    'Name of the test-time augmentation over which the predictions were averaged.',
  )
  flags.DEFINE_bool(
    'allow_implausible', False, 'Measures predictions that seem to be in another unit or axes.'
  )
  define_path('output', None, 'File to write the official scores to, for experiments.scoreboard.')
  define_path('pck', None, 'Folder to write the PCK curves to: pck.csv and pck.png.')
  define_overwrite()


def measure() -> Iterator[str]:
  """Measures what the flags name, and returns the lines to print.

  Raises:
    OSError, ValueError: the flags do not go together, or what they name cannot be measured.
  """
  check_forms({name for name in FLAGS if FLAGS[name].present})
  if FLAGS.predictions:
    return report_predictions(
      FLAGS.predictions,
      FLAGS.dataset,
      FLAGS.ground_truth,
      FLAGS.test_time_augmentation,
      FLAGS.allow_implausible,
      FLAGS.output,
      FLAGS.pck,
      FLAGS.overwrite,
    )
  request = RunRequest(**read_flags(RunRequest._fields))
  return report_run(request, FLAGS.output, FLAGS.pck, FLAGS.overwrite)


def main(argv: list[str]) -> None:
  """Reads the flags and measures."""
  start(argv)
  print_lines(measure())


if __name__ == '__main__':
  define_flags()
  launch(main)
