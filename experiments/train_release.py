"""Makes the weights that ship with the package from rendered hands.

  python -m experiments.train_release --workdir=runs/release

A second call continues where the first one stopped. With --recalibrate the heads of the package
stay, and only the calibration of sigma and the measurement are made again. The trained run that
ships as well is packed by

  python -m experiments.train_release --workdir=runs/release --pack=runs/features
"""

import pathlib
from collections.abc import Iterator

from absl import flags

from experiments.checkout import current_commit
from experiments.launching import launch, print_lines, start
from experiments.path_flags import define_compilation_cache, define_path
from hand_jax.fitting.released_weights import load_release
from hand_jax.release.making import make_release, release_plan
from hand_jax.release.packing import pack_run

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  define_path('workdir', None, 'Folder for readings, weights and scores.', required=True)
  define_path(
    'pack', None, 'Packs this trained run into trained_run in the workdir, and makes nothing else.'
  )
  flags.DEFINE_boolean(
    'recalibrate', False, "Keeps the package's heads, and calibrates and measures them again."
  )
  flags.DEFINE_float(
    'scale', 1.0, 'Number of rendered hands, relative to the shipped weights.', 1e-3, 1e3
  )
  flags.DEFINE_integer('test_hands', 1000, 'Number of hands of each test split to measure on.', 1)
  define_compilation_cache()


def packing_lines() -> Iterator[str]:
  """Packs the trained run that the flags name, and yields the lines to print."""
  folder = pathlib.Path(FLAGS.workdir) / 'trained_run'
  card = pack_run(FLAGS.pack, folder, current_commit())
  change = card['half_precision_change']
  yield (
    f'{FLAGS.pack}, step {card["step"]}: half precision moves vertices by {change["mean_mm"]} mm '
    f'on average, {change["largest_mm"]} at most. Packed as {card["precision"]}, '
    f'{card["network_bytes"] / 1e6:.2f} MB, into {folder}.'
  )


def release_lines() -> Iterator[str]:
  """Makes the weights as the flags say, and yields the lines to print."""
  plan = release_plan(FLAGS.scale, FLAGS.test_hands)
  trained = load_release() if FLAGS.recalibrate else None
  release = make_release(
    plan, FLAGS.workdir, current_commit(), lambda line: print(line, flush=True), trained
  )
  for split, scores in release.card['renders'].items():
    yield f'{split}: ' + ', '.join(f'{name} {value:.4g}' for name, value in scores.items())
  yield f'Written to {FLAGS.workdir}/release.npz.'


def main(argv: list[str]) -> None:
  """Reads the flags and makes the weights."""
  start(argv)
  print_lines(packing_lines() if FLAGS.pack else release_lines())


if __name__ == '__main__':
  define_flags()
  launch(main)
