"""Reconstructs the hands of photos as meshes.

python -m experiments.reconstruct --image=FILE --output=DIR --workdir=DIR
"""

from absl import flags

from experiments.launching import launch, read_flags, refuse_arguments
from experiments.path_flags import define_compilation_cache, define_path, define_paths
from hand_jax.commands.reconstruct_photos import reconstruct_and_tell
from hand_jax.reconstruction.tasks import PhotoOptions

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags when the command runs, so that tests can import several commands at once."""
  define_paths('image', 'A photo of hands, a folder of photos or a pattern. May be repeated.')
  flags.DEFINE_bool('demo_photos', False, 'Reconstructs the three photos of the project.')
  define_path('output', None, 'Folder for the results. It is made if missing.')
  define_path(
    'workdir',
    None,
    'Folder of a trained run, such as one of make train-demo. Default: the hand model is fitted '
    'to the output of the bundled networks.',
  )
  flags.DEFINE_enum(
    'refine', 'on', ['on', 'off'], 'off gives the meshes of the run in the package, not fitted.'
  )
  define_compilation_cache()
  flags.DEFINE_multi_string(
    'bbox',
    [],
    'A box around a hand of one photo as x,y,width,height in pixels. May be repeated. Default: the '
    'program looks for hands.',
  )
  flags.DEFINE_multi_enum(
    'hand',
    [],
    ['right', 'left'],
    'Side of all hands in the photos, or, given once for each --bbox, the side of the hand in that '
    'box. Default: the program decides.',
  )
  flags.DEFINE_float(
    'focal',
    None,
    'Focal length of the photos in pixels. Default: the EXIF data give it, or else a diagonal '
    'field of view of 70 degrees is assumed.',
  )
  flags.DEFINE_enum('axes', 'y_up', ['y_up', 'camera'], 'Axes of OBJ and PLY.')
  flags.DEFINE_bool(
    'overwrite',
    False,
    'Reconstructs photos again that are done already, and replaces files in the output folder that '
    'have the names of results.',
  )
  define_path(
    'hand_mask',
    None,
    "An image of the photo's size that is white where the photo shows the hand and black "
    'elsewhere, so that an object before the hand does not colour it. It needs a textured run and '
    'a single photo.',
  )
  define_path(
    'mano_dir', None, 'Folder or file of the MANO model. Default: $MANO_DIR, else the free hand.'
  )


def main(argv: list[str]) -> int:
  """Reads the flags, reconstructs the photos and returns the exit code (see `ExitCode`)."""
  refuse_arguments(argv, 'photos are given as --image=FILE')
  names = [name for name in PhotoOptions._fields if name != 'photos']
  options = PhotoOptions(photos=FLAGS.image, **read_flags(names))
  return reconstruct_and_tell(options, FLAGS.compilation_cache_dir)


if __name__ == '__main__':
  define_flags()
  launch(main)
