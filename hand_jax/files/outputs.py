"""Checks that a command does not overwrite its inputs or files that other programs wrote.

A command names its outputs and inputs before it works for an hour. It may replace files that an
earlier call wrote. It replaces any other file only with `--overwrite`, and never an input.
"""

import errno
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

# What to do where results cannot go to a folder, by the kind of the system's error.
_REMEDIES: dict[int | None, str] = {
  errno.ENOSPC: 'Free some room and run the same command again.',
  errno.EDQUOT: 'Free some room and run the same command again.',
  errno.ENAMETOOLONG: 'Name a folder with a shorter name.',
}
OVERWRITE_HELP = 'Lets outputs replace files that this command did not write; never its inputs.'


def written_by_nobody(path: pathlib.Path) -> bool:
  """Returns False for every file, for outputs whose content does not tell who wrote them."""
  del path
  return False


class Output(NamedTuple):
  """A file that a command is going to write."""

  flag: str
  """The flag that names it or its folder, such as `--output`."""
  path: str | os.PathLike
  is_own: Callable[[pathlib.Path], bool] = written_by_nobody
  """Given a file, returns whether this program wrote it as this output."""


def check_outputs(
  outputs: Iterable[Output],
  inputs: Mapping[str | os.PathLike, str] | None = None,
  overwrite: bool | None = False,
) -> None:
  """Checks before any work that outputs can be written without loss.

  Empty files may always be replaced, unless they are inputs.

  Args:
    outputs: all files that will be written.
    inputs: the files that are read, each with its name in error messages.
    overwrite: whether files that this program did not write may be replaced. None is for a command
      that has no flag `--overwrite`.

  Raises:
    ValueError: an output is an input, or two outputs are one file.
    FileExistsError: an output would replace a file that this program did not write.
    IsADirectoryError, NotADirectoryError, PermissionError: a file cannot be written there.
  """
  taken: list[tuple[pathlib.Path, str]] = []
  for output in outputs:
    path = pathlib.Path(output.path)
    for other, name in (inputs or {}).items():
      if same_file(path, other):
        raise ValueError(f'{path} would be replaced, but it is {name}. {_other(output)}')
    for other, flag in taken:
      if same_file(path, other):
        raise ValueError(f'{flag} and {output.flag} would both write {path}. {_other(output)}')
    taken.append((path, output.flag))
    if path.is_dir():
      raise IsADirectoryError(f'{path} is a folder; expected the name of a file. {_other(output)}')
    check_output_folder(path.parent)
    if os.path.lexists(path) and not overwrite and not _is_empty(path) and not output.is_own(path):
      raise FileExistsError(
        f'{path} exists and is no result of this command, so it is not replaced. Name another '
        f'{output.flag}{"" if overwrite is None else ", or give --overwrite"}.'
      )


def check_output_folder(folder: str | os.PathLike) -> None:
  """Checks that files can be written to a folder, which need not exist yet.

  Raises:
    NotADirectoryError: a file is in the way.
    PermissionError: this user may not write there.
    OutputFolderError: the system has no such names, for example because they are too long.
  """
  folder = pathlib.Path(folder)
  for path in (folder, *folder.parents):
    try:
      os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
      continue
    except OSError as error:
      raise OutputFolderError.of(folder, error) from None
    if path.is_dir():
      if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(
          f'Results cannot go to {folder}: {path} may not be written to. Name another folder.'
        )
      return
    raise NotADirectoryError(
      f'Results cannot go to {folder}: {path} is a file. Name a folder; it is made when missing.'
    )


class OutputFolderError(OSError):
  """The error for a folder that cannot be made, or in which no file can be made."""

  @classmethod
  def of(cls, folder: str | os.PathLike, error: OSError) -> 'OutputFolderError':
    """Says in words why results cannot go to a folder, given what the system said."""
    reason = ' '.join((error.strerror or str(error)).split()).rstrip('.')
    if error.errno == errno.ENOSPC:
      reason = 'no space left on the device'
    remedy = _REMEDIES.get(error.errno, 'Name another folder.')
    return cls(f'Results cannot go to {folder}: {reason[:1].lower()}{reason[1:]}. {remedy}')


def same_file(first: str | os.PathLike, second: str | os.PathLike) -> bool:
  """Returns whether two paths lead to one file, also through links. The file need not exist yet."""
  try:
    return os.path.samefile(first, second)
  except OSError:
    return os.path.realpath(first) == os.path.realpath(second)


def is_json_with(*keys: str) -> Callable[[pathlib.Path], bool]:
  """Makes an `Output.is_own` that accepts a JSON object with all these keys."""

  def is_own(path: pathlib.Path) -> bool:
    try:
      content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
      return False
    return isinstance(content, dict) and set(keys) <= set(content)

  return is_own


def is_text_beginning(*beginnings: str) -> Callable[[pathlib.Path], bool]:
  """Makes an `Output.is_own` that accepts a text file with one of these beginnings."""

  def is_own(path: pathlib.Path) -> bool:
    try:
      with path.open(encoding='utf-8', newline='') as file:
        return file.read(max(map(len, beginnings))).startswith(beginnings)
    except (OSError, ValueError):
      return False

  return is_own


def is_npz_with(*names: str) -> Callable[[pathlib.Path], bool]:
  """Makes an `Output.is_own` that accepts a NumPy archive with arrays of all these names."""

  def is_own(path: pathlib.Path) -> bool:
    try:
      with np.load(path, allow_pickle=False) as file:
        return isinstance(file, np.lib.npyio.NpzFile) and set(names) <= set(file.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
      return False

  return is_own


def _other(output: Output) -> str:
  return f'Name another {output.flag}.'


def _is_empty(path: pathlib.Path) -> bool:
  return path.is_file() and path.stat().st_size == 0
