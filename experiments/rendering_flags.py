"""Defines the flags that say which hands are rendered for a prepared data set."""

from absl import flags

# The flags count as those of the command that asks for them, so that its --help shows them.
flags.disclaim_key_flags()


def define_rendering(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags that `synthetic_hands` alone has."""
  for split, default, purpose in (
    ('train', 10000, 'examples to train on'),
    ('validation', 500, 'examples to validate on during training'),
    ('test', 1000, 'examples to test on'),
    ('test_broad', 0, 'examples of broad poses to test on'),
    ('test_mismatch', 0, 'examples of broad poses, outside the shape space, to test on'),
  ):
    flags.DEFINE_integer(
      f'{split}_examples',
      default,
      f'synthetic_hands: {purpose}.',
      lower_bound=0,
      flag_values=values,
    )
  flags.DEFINE_integer(
    'image_size',
    224,
    'synthetic_hands: side of a rendered photo in pixels.',
    lower_bound=32,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'seed', 0, 'synthetic_hands: seed of the rendered examples.', lower_bound=0, flag_values=values
  )
  flags.DEFINE_enum(
    'hands',
    'classic',
    ['classic', 'broad', 'displaced'],
    'synthetic_hands: kind of hands in train, validation and test, as in data.hands.',
    flag_values=values,
  )
