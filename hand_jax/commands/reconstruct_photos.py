"""hand-jax PHOTO... [flags] reconstructs photos and prints a line about each."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import hand_jax
from hand_jax.commands.arguments import ArgumentParser, ExitCode, print_error
from hand_jax.commands.subcommands import SUBCOMMANDS
from hand_jax.files.paths import expand_path

if TYPE_CHECKING:
  from hand_jax.reconstruction.running import PhotoRun
  from hand_jax.reconstruction.tasks import PhotoOptions

DEFAULT_OUTPUT = 'hand_jax_output'
_USAGE = 'hand-jax [PHOTO...] [flags]\n       hand-jax SUBCOMMAND [arguments]'
_DESCRIPTION = 'Reconstructs the hands of each photo: meshes with a sigma for every vertex.'


def create_parser() -> ArgumentParser:
  """Creates the parser of `hand-jax` without a subcommand."""
  parser = ArgumentParser(
    'hand-jax', usage=_USAGE, description=_DESCRIPTION, epilog=_explanations()
  )
  add = parser.add_argument
  add(
    'photos',
    nargs='*',
    type=expand_path,
    metavar='PHOTO',
    help="a photo of hands, a folder of photos, or a pattern such as 'photos/*.jpg'",
  )
  add(
    '--workdir',
    type=expand_path,
    metavar='RUN',
    help='folder of a trained run that makes the meshes, or release for the run in the package '
    '(default: the hand model is fitted to the output of the networks in the package)',
  )
  add(
    '--refine',
    choices=['on', 'off'],
    default='on',
    help='off gives the meshes of the trained network in the package as they are, as '
    '--workdir=release does, instead of the fitted ones (default: on). The meshes of a --workdir '
    'are never fitted.',
  )
  add(
    '--output',
    type=expand_path,
    default=DEFAULT_OUTPUT,
    metavar='DIR',
    help=f'folder for the results, made when missing (default: {DEFAULT_OUTPUT})',
  )
  add(
    '--bbox',
    action='append',
    default=[],
    metavar='X,Y,W,H',
    help='a box around a hand of one photo, in pixels of the upright photo. Repeat the flag for '
    'further hands. (default: the program looks for hands)',
  )
  add(
    '--hand',
    action='append',
    default=[],
    choices=['right', 'left'],
    help='the side of all hands in the photos. Repeat the flag to give the side for each --bbox. '
    '(default: the program decides)',
  )
  add(
    '--focal',
    type=_pixels,
    metavar='PIXELS',
    help='the focal length of the photos, from which the distance of the hands is computed '
    '(default: the EXIF data give it, or else a diagonal field of view of 70 degrees is assumed)',
  )
  add(
    '--axes',
    choices=['y_up', 'camera'],
    default='y_up',
    help='axes of OBJ and PLY files: y_up points y up as GLB does, and camera points y down and z '
    'away from the camera (default: y_up)',
  )
  add(
    '--overwrite',
    action='store_true',
    help='reconstruct photos again that are done already, and replace files in the output folder '
    'that have the names of results',
  )
  add(
    '--hand_mask',
    type=expand_path,
    metavar='FILE',
    help="an image of the photo's size that is white where the photo shows the hand and black "
    'elsewhere, for a single photo: the fit follows its outline, and an object before the hand '
    'hides the mesh outside it and does not colour it (default: the program estimates it)',
  )
  add(
    '--mano_dir',
    type=expand_path,
    metavar='DIR',
    help='folder or file of the MANO model (default: $MANO_DIR, else the free hand)',
  )
  add(
    '--demo_photos',
    action='store_true',
    help='reconstruct the three photos shipped with the package',
  )
  add(
    '--compilation_cache_dir',
    type=expand_path,
    metavar='DIR',
    help='folder that keeps compiled programs for later calls. An empty name keeps nothing. '
    '(default: hand-jax in $XDG_CACHE_HOME or ~/.cache)',
  )
  add('--version', action='version', version=f'hand-jax {hand_jax.__version__}')
  return parser


def run(arguments: Sequence[str]) -> int:
  """Reconstructs the photos that the arguments name and returns the exit code."""
  parser = create_parser()
  if not arguments:
    print(f'{parser.format_usage()}{_DESCRIPTION}\nhand-jax --help says more.', file=sys.stderr)
    return ExitCode.WRONG_USE
  # Everything after `--` is a photo, even where it looks like a flag.
  end = arguments.index('--') if '--' in arguments else len(arguments)
  flags = vars(parser.parse_intermixed_args(arguments[:end]))
  for name in flags['photos']:
    if name in SUBCOMMANDS:
      parser.error(f'{name} is a subcommand and goes first; a photo of that name is ./{name}')
  # NumPy and Pillow take a while to import, and --help should not wait for them.
  from hand_jax.reconstruction.tasks import PhotoOptions

  cache_folder = flags.pop('compilation_cache_dir')
  photos = [*flags.pop('photos'), *arguments[end + 1 :]]
  return reconstruct_and_tell(PhotoOptions(photos, **flags), cache_folder)


def reconstruct_and_tell(options: 'PhotoOptions', cache_folder: str | None = None) -> int:
  """Reconstructs photos, prints what came of each, and returns the exit code.

  Failures are printed to stderr.

  Args:
    options: the settings of the flags.
    cache_folder: where compiled programs are kept, see `keep_compiled_programs`.
  """
  from hand_jax.files.outputs import OutputFolderError
  from hand_jax.reconstruction.tasks import missing_photos, plan_tasks

  try:
    tasks = plan_tasks(options)
    missing = missing_photos(tasks)
    # A --workdir that is no folder is wrong use. `_prepare` then says so instead of the photos.
    if len(missing) == len(tasks) and os.path.isdir(options.workdir or '.'):
      for line in missing:
        print_error(line)
      return ExitCode.SOME_FAILED
    run = _prepare(options, cache_folder)
  except (ValueError, OSError) as error:
    print_error(error)
    return ExitCode.WRONG_USE
  try:
    return ExitCode.SOME_FAILED if _tell(run) else ExitCode.DONE
  # Another command writes to the folder, or nobody can. No photo is done then.
  except (BlockingIOError, OutputFolderError) as error:
    print_error(error)
    return ExitCode.WRONG_USE


def _prepare(options: 'PhotoOptions', cache_folder: str | None) -> 'PhotoRun':
  """Loads what makes the meshes. Raises as `prepare_run` does."""
  # JAX takes seconds to import, and mistakes that are found without it should not wait for it.
  from absl import logging

  from hand_jax.files.compiled_programs import keep_compiled_programs
  from hand_jax.reconstruction.running import prepare_run
  from hand_jax.report.from_files import check_report_name

  # Orbax would log dozens of lines, and would warn that a run is opened for reading only.
  logging.set_verbosity(logging.ERROR)
  keep_compiled_programs(cache_folder)
  run = prepare_run(options)
  check_report_name(run.record.folder, options.overwrite)
  return run


def _tell(run: 'PhotoRun') -> int:
  """Reconstructs the photos, writes the report, and returns how often something failed.

  Each hand gets a line on stdout, and a terminal shows the progress. Failures are printed at the
  end, where nobody overlooks them.
  """
  from tqdm import tqdm

  failures: list[str] = []
  hidden = len(run.tasks) == 1 or not sys.stderr.isatty()
  try:
    with tqdm(total=len(run.tasks), unit='photo', disable=hidden) as bar:
      for outcome in run.outcomes():
        if outcome.failed:
          failures += outcome.lines
        elif sys.stdout is not None:  # None where the caller closed it
          tqdm.write('\n'.join(outcome.lines))
          sys.stdout.flush()
        bar.update()
  finally:
    for line in failures:
      print_error(line)
  return len(failures) + _write_report(run)


def _write_report(run: 'PhotoRun') -> int:
  """Writes the report of the whole output folder and returns how often that failed."""
  from hand_jax.report.from_files import write_folder_report

  if not run.record.entries:
    return 0
  try:
    page = write_folder_report(run.record)
  except OSError as error:
    print_error(f'The report cannot be written: {error}')
    return 1
  if sys.stdout is not None:
    print(f'Report: {page}', flush=True)
  return 0


def _pixels(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{text!r} is no number. Expected pixels, as in --focal=900'
    ) from None


def _explanations() -> str:
  rows = [f'  {name:<10}{subcommand.summary}' for name, subcommand in SUBCOMMANDS.items()]
  return '\n'.join(
    [
      'subcommands:',
      *rows,
      '',
      'Write ./NAME for a photo with the name of a subcommand. All that follows -- is a photo.',
      'Exit codes: 0 all photos done (also without a hand), 1 some photos failed, 2 wrong use.',
    ]
  )
