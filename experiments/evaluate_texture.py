"""Measures a texture branch beside two baselines that learn nothing.

  python -m experiments.evaluate_texture --workdir=DIR

The figures are explained in `hand_jax/evaluation/texture_scores.py`.
"""

from absl import flags

from experiments.checkout import current_commit
from experiments.launching import launch, print_lines, read_flags, start
from experiments.path_flags import define_compilation_cache, define_overwrite, define_path
from hand_jax.evaluation.run_data import RENDERED_DATASET, RENDERED_EXAMPLES
from hand_jax.evaluation.textured_run import TexturedRunRequest, report_textured_run

FLAGS = flags.FLAGS


def define_flags(values: flags.FlagValues = FLAGS) -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  define_compilation_cache(values)
  define_path('workdir', None, 'Folder of a run with a texture.', required=True, values=values)
  flags.DEFINE_string('dataset', RENDERED_DATASET, 'Data set to measure on.', flag_values=values)
  flags.DEFINE_string('split', 'test', 'Split to measure on.', flag_values=values)
  define_path(
    'data_dir',
    None,
    "Folder of prepared data sets. Default: the run's. Hands are rendered where it has none.",
    values=values,
  )
  flags.DEFINE_integer(
    'limit',
    0,
    f'Number of examples, from the first. 0 takes all, or {RENDERED_EXAMPLES} rendered ones.',
    0,
    flag_values=values,
  )
  flags.DEFINE_bool(
    'use_masks', True, 'Allows the colours to depend on the hand masks.', flag_values=values
  )
  flags.DEFINE_bool(
    'estimate_masks',
    False,
    'Measures once more, with masks estimated from the photos: without_masks in the results.',
    flag_values=values,
  )
  define_path(
    'mano_dir',
    None,
    'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.',
    values=values,
  )
  define_path('output', None, 'File for a copy of the results.', values=values)
  define_overwrite(values)


def main(argv: list[str]) -> None:
  """Reads the flags and measures the texture branch."""
  start(argv)
  request = TexturedRunRequest(**read_flags(TexturedRunRequest._fields))
  print_lines(report_textured_run(request, current_commit()))


if __name__ == '__main__':
  define_flags()
  launch(main)
