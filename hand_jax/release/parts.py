"""Keeps named arrays in files, so that a long pass continues where it was stopped."""

import io
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from hand_jax.files.writing import write_whole

# A named tuple of arrays, whose rows belong to hands.
_Rows = TypeVar('_Rows', bound=tuple)


def made_in_parts(
  make: Callable[[range], _Rows],
  folder: str | os.PathLike,
  count: int,
  part_size: int,
  report: Callable[[int, int], None] = lambda done, count: None,
) -> list[pathlib.Path]:
  """Makes rows part by part, each in a file of its own, and returns the paths of all files.

  Existing files are used as they are. Each file is written as a whole.

  Args:
    make: makes the rows of a range of hands as a named tuple of arrays.
    folder: folder of the files.
    count: number of hands.
    part_size: number of hands in a file. The last file may hold fewer.
    report: called with the number of finished hands and the number of all hands.
  """
  paths = []
  for start in range(0, count, part_size):
    stop = min(start + part_size, count)
    paths.append(pathlib.Path(folder) / f'{start:06d}-{stop:06d}.npz')
    if not paths[-1].exists():
      save_arrays(paths[-1], make(range(start, stop)))
    report(stop, count)
  return paths


def joined(parts: Iterable[_Rows]) -> _Rows:
  """Concatenates named tuples of arrays."""
  parts = list(parts)
  return type(parts[0])(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def save_arrays(path: pathlib.Path, arrays: Any) -> None:
  """Writes a named tuple of arrays to a file, as a whole."""
  buffer = io.BytesIO()
  np.savez(buffer, **arrays._asdict())
  write_whole(path, buffer.getvalue())


def load_arrays(path: pathlib.Path, kind: Callable[..., _Rows]) -> _Rows:
  """Reads a file of `save_arrays` as a named tuple of the given type."""
  with np.load(path) as file:
    return kind(**{name: file[name] for name in getattr(kind, '_fields')})  # noqa: B009
