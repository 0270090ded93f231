"""Makes the weights in the box from rendered hands; a stopped pass goes on where it was.

python -m experiments.train_release --workdir=runs/release
"""

from collections.abc import Iterator

from absl import flags

from experiments.checkout import current_commit
from experiments.launching import launch, print_lines, start
from experiments.path_flags import define_compilation_cache, define_path
from hand_jax.release.making import make_release, release_plan

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the command's flags; only when run, so that tests may import several commands."""
  define_path('workdir', None, 'Folder for readings, weights and scores.', required=True)
  flags.DEFINE_float(
    'scale', 1.0, 'Rendered hands, relative to those of the shipped weights.', 1e-3, 1e3
  )
  flags.DEFINE_integer('test_hands', 1000, 'Hands to measure on, of each test split.', 1)
  define_compilation_cache()


def release_lines() -> Iterator[str]:
  """Does what the flags say and yields what to print."""
  plan = release_plan(FLAGS.scale, FLAGS.test_hands)
  release = make_release(
    plan, FLAGS.workdir, current_commit(), lambda line: print(line, flush=True)
  )
  for split, scores in release.card['renders'].items():
    yield f'{split}: ' + ', '.join(f'{name} {value:.4g}' for name, value in scores.items())
  yield f'Written to {FLAGS.workdir}/release.npz.'


def main(argv: list[str]) -> None:
  start(argv)
  print_lines(release_lines())


if __name__ == '__main__':
  define_flags()
  launch(main)
