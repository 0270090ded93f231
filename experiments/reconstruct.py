"""Photos to meshes: python -m experiments.reconstruct --image=FILE --output=DIR --workdir=DIR."""

from absl import flags

from experiments.launching import launch, refuse_arguments
from experiments.path_flags import define_compilation_cache, define_path, define_paths
from hand_jax.commands.reconstruct_photos import reconstruct_and_tell
from hand_jax.reconstruction.tasks import PhotoOptions

FLAGS = flags.FLAGS


def define_flags() -> None:
  """The command's flags; only when run, so that tests may import several commands at once."""
  define_paths('image', 'A photo of hands, a folder of photos or a pattern; may be repeated.')
  flags.DEFINE_bool('demo_photos', False, 'The three photos shipped with the project.')
  define_path('output', None, 'Folder for the results; made when missing.')
  define_path(
    'workdir',
    None,
    'Folder of a trained run, such as make train-demo leaves. Default: the hand model is fitted '
    'to what the bundled networks say.',
  )
  define_compilation_cache()
  flags.DEFINE_multi_string(
    'bbox',
    [],
    'The box of a hand of one photo as x,y,width,height in pixels; may be repeated. Default: hands '
    'are looked for.',
  )
  flags.DEFINE_multi_enum(
    'hand',
    [],
    ['right', 'left'],
    'Which hands the photos show, or, repeated, which hand is in each box. Default: found out.',
  )
  flags.DEFINE_float(
    'focal',
    None,
    'The focal length of the photos in pixels. Default: from the EXIF data, else a diagonal field '
    'of view of 70 degrees is assumed.',
  )
  flags.DEFINE_enum('axes', 'y_up', ['y_up', 'camera'], 'Axes of OBJ and PLY.')
  flags.DEFINE_bool(
    'overwrite',
    False,
    'Does photos again, and replaces files in the output folder that have the names of results.',
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
