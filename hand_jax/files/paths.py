"""Expands paths that people typed."""

import argparse
import os
import re
from collections.abc import Sequence

RUN_SCHEMES = ('gs',)
"""The kinds of buckets that hold runs: Orbax writes checkpoints to no others."""
DATA_SCHEMES = ('gs', 's3', 'az')
"""The kinds of buckets that prepared data are read from."""
_ADDRESS = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://')


class RemotePathError(ValueError, argparse.ArgumentTypeError):
  """The error for a path that leads to a storage service or a web page.

  It is an `ArgumentTypeError` too, so that argparse prints its text.
  """


def is_address(path: str | os.PathLike) -> bool:
  """Returns whether a path leads to a storage service, such as `gs://bucket/run`."""
  return bool(_ADDRESS.match(os.fspath(path)))


def expand_path(path: str, schemes: Sequence[str] = ()) -> str:
  """Replaces a leading `~` or `~user` by that user's home folder, as a shell does.

  Shells do not do so after `=`, as in `--output=~/hands`. An empty path stays empty, and so does an
  address of one of `schemes`.

  Args:
    path: the path as it was typed.
    schemes: the kinds of addresses that are wanted too, such as `gs`.

  Raises:
    RemotePathError: the path is an address such as `gs://bucket/run`, which would otherwise be
      taken for a local folder.
  """
  if address := _ADDRESS.match(path):
    if address[1] in schemes:
      return path
    wanted = ''.join(f', or {scheme}://' for scheme in schemes)
    raise RemotePathError(
      f'{path} is an address; files and folders of this computer are expected{wanted}. Mount the '
      'storage, or copy what is there.'
    )
  return os.path.expanduser(path)
