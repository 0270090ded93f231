"""Photos to meshes: python -m experiments.reconstruct --image=FILE --output=DIR --workdir=DIR."""

from absl import flags

from experiments.launching import launch, refuse_arguments
from experiments.path_flags import define_compilation_cache, define_path, define_paths
from hand_jax.commands.reconstruct_photos import reconstruct_and_tell
from hand_jax.reconstruction.tasks import PhotoOptions

FLAGS = flags.FLAGS


def define_flags() -> None:
  """The command's flags; only when run, so that tests may import several commands at once."""
  define_paths('image', 'A photo of a hand; may be repeated.')
  flags.DEFINE_bool('demo_photos', False, 'The three photos shipped with the project.')
  define_path('output', None, 'Folder for the results; made when missing.')
  define_path(
    'workdir',
    None,
    'Folder of a trained run, such as make demo leaves. Default: the hand model is fitted to the '
    'landmarks that the bundled networks find.',
  )
  define_compilation_cache()
  flags.DEFINE_string(
    'bbox',
    None,
    'The box of the one hand as x,y,width,height in pixels. Default: hands are looked for.',
  )
  flags.DEFINE_enum(
    'hand', None, ['right', 'left'], 'Which hands the photos show. Default: found out.'
  )
  define_path(
    'hand_mask',
    None,
    "For a textured run, of one photo: an image of the photo's size, white where the photo shows "
    'the hand and black elsewhere, so that what is before the hand does not colour it.',
  )
  define_path(
    'mano_dir', None, 'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.'
  )


def main(argv: list[str]) -> int:
  """Reads the flags, then one call; returns the exit code (see `ExitCode`)."""
  refuse_arguments(argv, 'photos are given as --image=FILE')
  names = [name for name in PhotoOptions._fields if name != 'photos']
  options = PhotoOptions(photos=FLAGS.image, **{name: FLAGS[name].value for name in names})
  return reconstruct_and_tell(options, FLAGS.compilation_cache_dir)


if __name__ == '__main__':
  define_flags()
  launch(main)
