"""hand-jax export --workdir=RUN writes a trained network as a program for other runtimes."""

import argparse
import os
import pathlib
from collections.abc import Sequence

from hand_jax.commands.arguments import ArgumentParser, ExitCode, print_error
from hand_jax.files.paths import expand_path

DEFAULT_OUTPUT = 'hand_jax_export'
# As `hand_jax.exporting.exported_run` has them, which takes seconds to import.
_PLATFORMS = ('cpu', 'cuda', 'tpu')


def create_parser() -> ArgumentParser:
  """Creates the parser of `hand-jax export`."""
  parser = ArgumentParser(
    'hand-jax export',
    description='Writes a trained network as one program with everything in it: crops of hands '
    'in, vertices, joints, sigma and camera out. A JSON file beside it says more.',
  )
  add = parser.add_argument
  add(
    '--workdir',
    type=expand_path,
    metavar='RUN',
    help='folder of the trained run, or release for the trained network in the package. What '
    'hand-jax does without a run detects, and fits by iteration: it is no single program.',
  )
  add(
    '--format',
    choices=['stablehlo', 'onnx'],
    default='stablehlo',
    help='stablehlo is read by jax.export.deserialize, and onnx by ONNX Runtime (default: '
    "stablehlo). onnx needs pip install 'hand-jax[onnx]'.",
  )
  add(
    '--platforms',
    type=_platforms,
    default=('cpu',),
    metavar='NAMES',
    help='for which of cpu, cuda and tpu to write a StableHLO program, such as --platforms=cpu,tpu '
    '(default: cpu)',
  )
  add(
    '--output',
    type=expand_path,
    default=DEFAULT_OUTPUT,
    metavar='DIR',
    help=f'folder for the files, made when missing (default: {DEFAULT_OUTPUT})',
  )
  add('--overwrite', action='store_true', help='replace files of the same names')
  add(
    '--mano_dir',
    type=expand_path,
    metavar='DIR',
    help='folder or file of the MANO model (default: $MANO_DIR, else the free hand)',
  )
  return parser


def run(arguments: Sequence[str]) -> int:
  """Exports the run that the arguments name and returns the exit code."""
  parser = create_parser()
  flags = parser.parse_args(arguments)
  if not flags.workdir:
    parser.error(
      'name a trained run by --workdir=RUN, or --workdir=release for that in the package'
    )
  try:
    for name, size in _export(flags):
      print(f'{os.path.join(flags.output, name)}: {size / 1e6:.1f} MB')
  except ModuleNotFoundError as error:
    print_error(f"--format={flags.format}: {error}. Install it by pip install 'hand-jax[onnx]'.")
    return ExitCode.WRONG_USE
  except (ValueError, OSError) as error:
    print_error(error)
    return ExitCode.WRONG_USE
  return ExitCode.DONE


def _export(flags: argparse.Namespace) -> list[tuple[str, int]]:
  """Writes the files and returns their names and sizes in bytes."""
  from absl import logging

  from hand_jax.exporting.exported_run import exported_files, file_names, load_exported_run
  from hand_jax.files.outputs import Output, check_outputs
  from hand_jax.reconstruction.files import write_together

  logging.set_verbosity(logging.ERROR)  # Orbax would log dozens of lines.
  folder = pathlib.Path(flags.output)
  names = file_names(flags.format, flags.platforms)
  check_outputs([Output('--output', folder / name) for name in names], None, flags.overwrite)
  loaded = load_exported_run(flags.workdir, flags.mano_dir)
  files = exported_files(loaded, flags.format, flags.platforms)
  write_together(folder, files)
  return [(name, len(content)) for name, content in files.items()]


def _platforms(text: str) -> tuple[str, ...]:
  names = tuple(dict.fromkeys(text.split(',')))
  if unknown := [name for name in names if name not in _PLATFORMS]:
    raise argparse.ArgumentTypeError(
      f'{unknown[0]!r} is no platform. Expected some of {", ".join(_PLATFORMS)}, as in cpu,tpu'
    )
  return names
