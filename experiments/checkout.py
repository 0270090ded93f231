"""The state of the code that a launch runs from."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[1]


def current_commit(root: pathlib.Path = ROOT) -> str:
  """The commit of the code, with '-dirty' when tracked files differ; 'unknown' outside git.

  Documents do not count: launches write some themselves.
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
