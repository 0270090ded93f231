"""Makes the mask head and the texture branch that ship with the package, from rendered hands.

  python -m experiments.train_appearance --workdir=runs/appearance

A second call continues where the first one stopped.
"""

from collections.abc import Iterator

from absl import flags

from experiments.checkout import current_commit
from experiments.launching import launch, print_lines, start
from experiments.path_flags import define_compilation_cache, define_path
from hand_jax.release.appearance import (
  MASK_NAME,
  TEXTURE_NAME,
  TEXTURED_RUN,
  appearance_plan,
  make_mask_head,
  make_texture,
)

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  define_path('workdir', None, 'Folder for renders, weights and scores.', required=True)
  flags.DEFINE_float(
    'scale', 1.0, 'Number of rendered hands, relative to the shipped weights.', 1e-3, 1e3
  )
  flags.DEFINE_bool('texture', True, 'Makes the texture branch too.')
  flags.DEFINE_integer('steps', 0, 'Steps of the mask head. 0: as the shipped one.', 0)
  flags.DEFINE_integer('test_hands', 192, 'Number of hands of each test split to measure on.', 1)
  define_compilation_cache()


def lines() -> Iterator[str]:
  """Makes the parts as the flags say, and yields the lines to print."""
  plan = appearance_plan(FLAGS.scale, FLAGS.test_hands)
  if FLAGS.steps:
    plan = plan._replace(mask=plan.mask._replace(steps=FLAGS.steps, left_out=(0, 0)))
  card = make_mask_head(plan, FLAGS.workdir, current_commit(), lambda line: print(line, flush=True))
  for split, scores in card['renders'].items():
    yield f'{split}: ' + ', '.join(f'{name} {value:.4g}' for name, value in scores.items())
  yield f'Written to {FLAGS.workdir}/{MASK_NAME}.'
  if FLAGS.texture:
    make_texture(plan, FLAGS.workdir, current_commit(), lambda line: print(line, flush=True))
    yield f'Written to {FLAGS.workdir}/{TEXTURE_NAME} and {TEXTURED_RUN}.'


def main(argv: list[str]) -> None:
  """Reads the flags and makes the weights."""
  start(argv)
  print_lines(lines())


if __name__ == '__main__':
  define_flags()
  launch(main)
