"""Finds the commit of the code that a command runs from."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[1]


def current_commit(root: pathlib.Path = ROOT) -> str:
  """Returns the commit of the code, with `-dirty` where tracked files differ, or `unknown`.

  It is unknown outside git. Files in docs/ do not count, because commands write some themselves.
  """

  def git(*arguments: str) -> str:
    done = subprocess.run(['git', *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()

  try:
    commit = git('rev-parse', '--short', 'HEAD')
    changed = git('status', '--porcelain', '--untracked-files=no', '--', '.', ':(exclude)docs')
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'
  return f'{commit}-dirty' if changed else commit
