"""Paths as people write them."""

import argparse
import os
import re

_ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')


class RemotePathError(ValueError, argparse.ArgumentTypeError):
  """A path that leads to a storage service or a web page. Parsers of flags print its own words."""


def expand_path(path: str) -> str:
  """Replaces a leading `~` or `~user` by that user's home folder, as a shell does.

  Shells leave it alone after `=`, as in `--output=~/hands`. An empty path stays empty.

  Raises:
    RemotePathError: an address such as `gs://bucket/run`, which would be taken for a local folder.
  """
  if _ADDRESS.match(path):
    raise RemotePathError(
      f'{path} is an address; files and folders of this computer are expected. Mount the storage, '
      'or copy what is there.'
    )
  return os.path.expanduser(path)
