"""Compares runs in one table.

python -m experiments.scoreboard --scores=a.json --scores=b.json
"""

import pathlib

from absl import flags

from experiments.launching import launch, start
from experiments.path_flags import define_overwrite, define_path, define_paths
from hand_jax.evaluation.official.pck import write_figure
from hand_jax.evaluation.official.scoreboard import (
  BOARD_BEGINNINGS,
  board_panels,
  csv_board,
  markdown_board,
  read_runs,
)
from hand_jax.evaluation.plotting import is_own_picture
from hand_jax.files.outputs import Output, check_outputs, is_text_beginning
from hand_jax.files.writing import write_whole

FLAGS = flags.FLAGS


def make_board(
  scores: list[str],
  names: list[str],
  output: str | None = None,
  pck: str | None = None,
  overwrite: bool = False,
) -> str:
  """Makes the table of several runs, and returns its Markdown.

  Args:
    scores: files of scores that `experiments.evaluate` wrote.
    names: the runs' names in the table. Where there are none, the files' names are taken.
    output: the .md or .csv file to write the table to, or None.
    pck: the .png file to draw the PCK curves into, or None.
    overwrite: whether files that this program did not write may be replaced.

  Raises:
    OSError, ValueError: the scores cannot be compared, a name has another ending, or a file would
      be lost (unless `overwrite`), see `check_outputs`.
  """
  for flag, path, endings in (('output', output, ('.md', '.csv')), ('pck', pck, ('.png',))):
    if path and pathlib.Path(path).suffix not in endings:
      raise ValueError(f'--{flag}={path}: expected a name that ends in {" or ".join(endings)}.')
  outputs = [Output('--output', output, is_text_beginning(*BOARD_BEGINNINGS))] if output else []
  outputs += [Output('--pck', pck, is_own_picture)] if pck else []
  check_outputs(outputs, dict.fromkeys(scores, 'one of --scores'), overwrite)
  runs = read_runs(scores, names)
  panels = board_panels(runs) if pck else []
  text = markdown_board(runs)
  if output:
    write_whole(output, csv_board(runs) if output.endswith('.csv') else text)
  if pck:
    write_figure(pck, panels)
  return text


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  define_paths('scores', 'A scores.json of experiments.evaluate. Give it once for each run.')
  flags.DEFINE_list('names', [], "Names of the runs, with commas. Default: the files' names.")
  define_path('output', None, 'File to write the table to: .md or .csv.')
  define_path('pck', None, 'File to draw the PCK curves into: .png.')
  define_overwrite()


def main(argv: list[str]) -> None:
  """Reads the flags and prints the table."""
  start(argv)
  print(make_board(FLAGS.scores, FLAGS.names, FLAGS.output, FLAGS.pck, FLAGS.overwrite))
  for path in filter(None, (FLAGS.output, FLAGS.pck)):
    print(f'Written to {path}.')


if __name__ == '__main__':
  define_flags()
  launch(main)
