"""Paths as people write them."""

import os


def expand_path(path: str) -> str:
  """Replaces a leading `~` or `~user` by that user's home folder, as a shell does.

  Shells leave it alone after `=`, as in `--output=~/hands`. An empty path stays empty.
  """
  return os.path.expanduser(path)
