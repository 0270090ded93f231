"""Expands paths that people typed."""

import argparse
import os
import re

_ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')


class RemotePathError(ValueError, argparse.ArgumentTypeError):
  """The error for a path that leads to a storage service or a web page.

  It is an `ArgumentTypeError` too, so that argparse prints its text.
  """


def expand_path(path: str) -> str:
  """Replaces a leading `~` or `~user` by that user's home folder, as a shell does.

  Shells do not do so after `=`, as in `--output=~/hands`. An empty path stays empty.

  Raises:
    RemotePathError: the path is an address such as `gs://bucket/run`, which would otherwise be
      taken for a local folder.
  """
  if _ADDRESS.match(path):
    raise RemotePathError(
      f'{path} is an address; files and folders of this computer are expected. Mount the storage, '
      'or copy what is there.'
    )
  return os.path.expanduser(path)
